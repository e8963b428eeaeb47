"""The positive that a mined picture resembles: of the phrase's known crops the nearest."""

# C rows, P crops of a phrase, D width

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from miners.pool import Pool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nearest:
    """For each row its positive."""

    keys: pa.Array  # "" where the phrase has no crop
    boxes: pa.Array  # x, y, width, height in pixels; empty without a crop


def nearest_crops(pool: Pool, row_c: NDArray[np.int64], column_c: NDArray[np.int64]) -> Nearest:
    """The known crop of the phrase that is nearest to each picture; of equal ones the first."""
    crops = pool.crops
    crop_c = np.full(len(row_c), -1, np.int64)
    order = np.argsort(column_c, kind="stable")
    for column in np.unique(column_c).tolist():
        first, last = np.searchsorted(column_c[order], [column, column + 1])
        known, stop = np.searchsorted(crops.column_c, [column, column + 1])
        if known == stop:
            continue
        here = order[first:last]
        shown_pd = crops.crops_cd[known:stop].astype(np.float64)
        near_cp = pool.images_nd[row_c[here]].astype(np.float64) @ shown_pd.T  # exact: products of float16
        crop_c[here] = known + np.argmax(near_cp, axis=1)
    with_crop = crop_c >= 0
    rows = crops.row_c[crop_c[with_crop]]
    keys = np.full(len(row_c), "", object)
    keys[with_crop] = pool.keys.take(pa.array(rows)).to_numpy(zero_copy_only=False)
    boxes = crops.box_c4[crop_c[with_crop]].reshape(-1)
    offsets = np.concatenate([[0], np.cumsum(4 * with_crop)]).astype(np.int32)
    return Nearest(
        keys=pa.array(keys.tolist(), pa.string()),
        boxes=pa.ListArray.from_arrays(pa.array(offsets), pa.array(boxes.astype(np.float32))),
    )
