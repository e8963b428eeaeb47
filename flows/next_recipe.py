"""The recipe of the next round: that of this one, and what its student took for present though it is absent."""

import os
from collections.abc import Mapping
from fractions import Fraction

import msgspec

from manifests.errors import RecipeError
from manifests.recipe import Mine, Recipe
from manifests.recipe_writing import moved
from manifests.sample import NegativeKind

FALSE_ALARM_SHARE = 0.25  # of train's absent prompts, where the recipe gives false alarms none
_DIGITS = 12  # of a share; sums of such shares are exact


def next_recipe(recipe: Recipe, predictions: str, folder: str, *, share: float = FALSE_ALARM_SHARE) -> Recipe:
    """The recipe of the next round, which lies in `folder`; all that is not of false alarms stays as it is.

    Args:
        recipe: Of this round.
        predictions: What its student says of train; local.
        folder: Where the next recipe will lie; local.
        share: Of the absent prompts that false alarms get if they have none yet; the other kinds keep their
            proportions.

    Raises:
        RecipeError: `share` is none.
    """
    if not 0 < share < 1:
        raise RecipeError(f"share of false alarms {share}; expected a number between 0 and 1, such as 0.25")
    found = moved(recipe, folder)
    mine = found.mine or Mine()
    seen = os.path.relpath(predictions, folder)
    return msgspec.structs.replace(
        found,
        mine=msgspec.structs.replace(mine, predictions=[*mine.predictions, seen]),
        prompts=msgspec.structs.replace(found.prompts, kinds=with_false_alarms(found.prompts.kinds, share)),
    )


def with_false_alarms(kinds: Mapping[NegativeKind, float], share: float) -> dict[NegativeKind, float]:
    """The shares of the kinds, exactly 1 in all, of which false alarms get `share` if they have none."""
    if kinds.get(NegativeKind.FALSE_ALARM):
        return dict(kinds)
    rest = 1 - Fraction(str(share))
    kept = {kind: round(Fraction(str(value)) * rest, _DIGITS) for kind, value in kinds.items() if value}
    alarms = 1 - sum(kept.values(), Fraction(0))
    return {kind: float(value) for kind, value in {**kept, NegativeKind.FALSE_ALARM: alarms}.items()}
