"""What a recipe's `[mine]` table may say, checked before anything runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from manifests.errors import RecipeError
from manifests.recipe import DEFAULT_RATE, MINED_KINDS, Mine
from manifests.sample import NegativeKind

_BOUNDS = ("max_score", "min_score")
_STRICTNESS = ("max_false_negative_rate", "relative_margin", "absolute_margin")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Where a number may lie; open ends are left out of it."""

    lowest: float = -math.inf
    highest: float = math.inf
    is_open: bool = False  # neither end may be taken

    def holds(self, value: float) -> bool:
        if self.is_open:
            return self.lowest < value < self.highest
        return math.isfinite(value) and self.lowest <= value <= self.highest

    def __str__(self) -> str:
        if self.lowest == -math.inf:
            return "a finite number"
        if self.highest == math.inf:
            return f"a finite number above {self.lowest:g}" if self.is_open else f"{self.lowest:g} or more"
        ends = f"{self.lowest:g} and {self.highest:g}"
        return f"a number between {ends}" if self.is_open else f"a number from {ends.replace(' and ', ' to ')}"


_RANGES = {
    "max_false_negative_rate": _Range(lowest=0, highest=1, is_open=True),
    "relative_margin": _Range(),
    "absolute_margin": _Range(),
    "max_score": _Range(),
    "min_score": _Range(),
    "range_min": _Range(lowest=0),
    "range_max": _Range(lowest=1),
    "num_negatives": _Range(lowest=1),
    "max_per_image": _Range(lowest=1),
    "hidden_share": _Range(lowest=0, highest=1, is_open=True),
    "memory_gb": _Range(lowest=0, is_open=True),
}


def check_mine(mine: Mine, mined: Sequence[NegativeKind], where: str) -> None:
    """Stop with the first thing that is wrong.

    Args:
        mine: The table.
        mined: The mined kinds that `prompts.kinds` asks for.
        where: Begins every message.

    Raises:
        RecipeError: with the key, what was expected and what was found.
    """
    for name, allowed in _RANGES.items():
        value = getattr(mine, name)
        _require(value is None or allowed.holds(value), f"{where}: mine.{name} = {value}; expected {allowed}")
    share = mine.max_per_phrase_share
    _require(
        0 < share <= 1, f"{where}: mine.max_per_phrase_share = {share}; expected a share above 0 and no more than 1"
    )
    given = [name for name in _STRICTNESS if getattr(mine, name) is not None]
    _require(
        len(given) <= 1,
        f"{where}: [mine] gives {' and '.join(given)}; exactly one says how strict the score guard is (none stands for "
        f"max_false_negative_rate = {DEFAULT_RATE:g}). Remove the others",
    )
    _check_pairs(mine, where)
    _check_asked(mine, mined, where)


def _check_pairs(mine: Mine, where: str) -> None:
    _require(
        mine.range_max is None or mine.range_min < mine.range_max,
        f"{where}: mine.range_min = {mine.range_min} and range_max = {mine.range_max} leave no rank; expected "
        "range_min below range_max",
    )
    window = None if mine.range_max is None else mine.range_max - mine.range_min
    _require(
        window is None or mine.num_negatives is None or mine.num_negatives <= window,
        f"{where}: mine.num_negatives = {mine.num_negatives}, but range_min = {mine.range_min} and range_max = "
        f"{mine.range_max} leave {window} ranks; expected no more negatives than ranks. Lower num_negatives or "
        "range_min, or raise range_max",
    )
    _require(
        mine.min_score is None or mine.max_score is None or mine.min_score <= mine.max_score,
        f"{where}: mine.min_score = {mine.min_score} is above max_score = {mine.max_score}; no score lies between",
    )


def _check_asked(mine: Mine, mined: Sequence[NegativeKind], where: str) -> None:
    _require(
        bool(mined),
        f"{where}: there is a [mine] table, but prompts.kinds asks for nothing that is mined; give one of "
        f"{', '.join(MINED_KINDS)} a share, or remove the table",
    )
    _require(
        NegativeKind.FALSE_ALARM not in mined or bool(mine.predictions or mine.negatives),
        f"{where}: prompts.kinds asks for false_alarm, which comes from what a model answered; add its "
        "predictions table as mine.predictions (or a finished table with false alarms as mine.negatives)",
    )
    _require(
        NegativeKind.FALSE_ALARM in mined or not mine.predictions,
        f"{where}: mine.predictions is where false alarms are found, and prompts.kinds asks for none; give "
        "false_alarm a share, say 0.25 of all, or remove the table",
    )
    bounds = [name for name in _BOUNDS if getattr(mine, name) is not None]
    _require(
        not bounds or list(mined) != [NegativeKind.FALSE_ALARM],
        f"{where}: [mine] gives {' and '.join(bounds)}, which bounds how much a picture looks like a phrase, but of "
        "false alarms, the one mined kind that prompts.kinds asks for, a student says how present they are; expected "
        "near_text or near_image beside them. Give one of these a share, or remove the bound",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RecipeError(message)
