"""Groups of unequal numbers of rows that lie one behind another, walked without a loop."""

# G groups, R their rows

import numpy as np
from numpy.typing import NDArray


def rows_of_groups(
    first_g: NDArray[np.integer], count_g: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every row of every group, and for each row the group it belongs to.

    Args:
        first_g: Where the rows of each group begin.
        count_g: How many it has.
    """
    group_r = np.repeat(np.arange(len(count_g)), count_g)
    before_g = np.cumsum(count_g) - count_g
    return (first_g - before_g)[group_r] + np.arange(len(group_r)), group_r
