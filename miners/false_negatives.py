"""The mining audit: how many of the mined absences are in truth present, and the margin that keeps that rate.

Where labels are exhaustive, a share of the known presences is hidden from the miner and its pictures are taken for
unlabelled ones. What is then mined although it was hidden is a false negative that one can count. The audit reads the
rate at every margin of the score guard, and can choose the margin: conformal risk control (Angelopoulos et al., 2022,
arXiv 2208.02814) picks the hardest one whose bound holds in expectation.
"""

# N pictures, A audited pictures, V phrases, L labels, C candidates, M margins from strict to soft

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.statistics import bootstrap_ratio
from shards.inventory import ABSENT, PRESENT, Inventory
from shards.relabelled import owners, without_labels

ASSUMPTION = (
    "pictures whose labels are exhaustive stand for those that are mined (the two are exchangeable), and what was "
    "hidden is as hard to see as what annotators leave out"
)
_LOSS_BOUND = 1.0  # of a picture's share
_NUM_MARGINS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Hidden:
    """Labels as they would be if annotators had left some out."""

    inventory: Inventory  # audited pictures are exhaustive over nothing, and some of their presences are gone
    num_hidden: int  # labels


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a margin gives in audited pictures."""

    margin: float
    num_rows: int
    num_false: int
    false_share: float  # 0 where there are no rows
    low: float  # of a 95 % bootstrap interval over pictures
    high: float
    hardness: float  # mean standard score of the rows
    distance: float  # mean of positive score minus score, both standard


class KindAudit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The audit of one kind at the margin that was used."""

    kind: str
    num_pictures: int  # audited
    margin: float | None  # None where the score guard has none
    at_margin: CurvePoint
    leak: float  # hidden presences mined ÷ hidden presences that were candidates
    leak_low: float
    leak_high: float
    num_hidden_candidates: int
    false_share_by_rank: dict[str, float]
    curve: list[CurvePoint]


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mining audit of one run."""

    split: str
    hidden_share: float
    num_hidden: int
    max_false_negative_rate: float | None  # where the audit chose the margins
    assumption: str
    kinds: list[KindAudit]


def hide_presences(inventory: Inventory, pictures: NDArray[np.int64], share: float, rng: np.random.Generator) -> Hidden:
    """`inventory` as a miner would meet it if `share` of the presences in exhaustive `pictures` were not labelled."""
    labels = inventory.labels
    audited_n = np.zeros(inventory.num_images, np.bool_)
    audited_n[pictures] = inventory.exhaustive_n()[pictures]
    owner_l = owners(labels)
    hidden_l = audited_n[owner_l] & (labels.state_l == PRESENT) & (rng.random(len(owner_l)) < share)
    forgotten_l = hidden_l | (audited_n[owner_l] & (labels.state_l == ABSENT))
    nothing = np.zeros((1, inventory.vocabulary_g.shape[1]), np.bool_)
    open_over = inventory.images["open_over"].combine_chunks()
    closed = pc.if_else(pa.array(audited_n), pa.scalar([], open_over.type), open_over)
    place = inventory.images.schema.get_field_index("open_over")
    view = replace(
        without_labels(inventory, forgotten_l),
        images=inventory.images.set_column(place, "open_over", closed),  # else what was exhaustive would turn open
        vocabulary_g=np.concatenate([inventory.vocabulary_g, nothing]),
        group_n=np.where(audited_n, len(inventory.vocabulary_g), inventory.group_n).astype(np.int32),
    )
    return Hidden(inventory=view, num_hidden=int(hidden_l.sum()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """Candidates of one kind, mined from hidden labels, with the truth beside them; only those in audited pictures."""

    kind: str
    picture_c: NDArray[np.int64]  # audited picture of each, 0 to A − 1
    num_pictures: int  # A
    false_c: NDArray[np.bool_]  # in truth present
    standard_c: NDArray[np.float64]
    gap_c: NDArray[np.float64]  # what a margin is compared with, see `miners.judging.gaps`; kept from the margin on
    distance_c: NDArray[np.float64]  # positive score minus score, both standard; NaN where there is no positive
    rank_c: NDArray[np.int32]
    passed_c: NDArray[np.bool_]  # by all guards but the score guard
    take: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]  # which of the candidates kept are taken


def margins_of(trial: Trial) -> NDArray[np.float64]:
    """Margins worth trying, from strict to soft: quantiles of the gaps, and one that keeps all."""
    gaps = trial.gap_c[trial.passed_c & np.isfinite(trial.gap_c)]
    if not len(gaps):
        return np.array([-np.inf])
    levels = np.linspace(1.0, 0.0, _NUM_MARGINS)
    return np.append(np.unique(np.quantile(gaps, levels, method="higher"))[::-1], -np.inf)


def taken_at(trial: Trial, margin: float) -> NDArray[np.bool_]:
    """Which candidates are mined at `margin`; one without a positive has no gap (NaN) and is kept by every margin."""
    return trial.take(trial.passed_c & ~(trial.gap_c < margin))


def choose_margin(trial: Trial, margins_m: Sequence[float], rate: float) -> float | None:
    """The softest of `margins_m` (strict to soft) that keeps the expected false share at most `rate`, if one does.

    A picture's loss is the false share of its mined prompts, 0 where nothing is mined. The risk, the mean loss over the
    A pictures, is made monotone by its running maximum towards softer margins, and the margin must lie before the first
    at which (A · risk + 1) ÷ (A + 1) > rate (conformal risk control, arXiv 2208.02814, eq. 4 with B = 1). Pictures of
    which nothing is mined lower that mean and tell nothing of the rows, so at the margin itself (losses + 1) ÷
    (pictures with rows + 1) and (false + 1) ÷ (rows + 1) must keep the rate, too.
    """
    num_pictures, risk = trial.num_pictures, 0.0
    chosen: float | None = None
    for margin in margins_m:
        taken_c = taken_at(trial, margin)
        num_a = np.bincount(trial.picture_c[taken_c], minlength=num_pictures)
        false_a = np.bincount(trial.picture_c[taken_c & trial.false_c], minlength=num_pictures)
        losses = float((false_a / np.maximum(num_a, 1)).sum())
        risk = max(risk, losses / num_pictures)
        if (num_pictures * risk + _LOSS_BOUND) / (num_pictures + 1) > rate:
            break
        over_pictures = (losses + _LOSS_BOUND) / (np.count_nonzero(num_a) + 1)
        over_rows = (false_a.sum() + 1) / (num_a.sum() + 1)
        if max(over_pictures, over_rows) <= rate:
            chosen = float(margin)
    return chosen


def read_curve(trial: Trial, margins_m: Sequence[float], rng: np.random.Generator) -> list[CurvePoint]:
    """False share and hardness at every margin that mines anything else than the one before."""
    points: list[CurvePoint] = []
    for margin in margins_m:
        point = read_point(trial, margin, rng)
        if point.num_rows and (not points or point.num_rows != points[-1].num_rows):
            points.append(point)
    return points


def read_point(trial: Trial, margin: float, rng: np.random.Generator) -> CurvePoint:
    """False share and hardness at `margin`."""
    taken_c = taken_at(trial, margin)
    num_rows, num_false = int(taken_c.sum()), int((taken_c & trial.false_c).sum())
    num_a = np.bincount(trial.picture_c[taken_c], minlength=trial.num_pictures)
    false_a = np.bincount(trial.picture_c[taken_c & trial.false_c], minlength=trial.num_pictures)
    low, high = bootstrap_ratio(false_a, num_a, rng)
    distance_c = trial.distance_c[taken_c & np.isfinite(trial.distance_c)]
    return CurvePoint(
        margin=float(np.clip(margin, -1e9, 1e9)),
        num_rows=num_rows,
        num_false=num_false,
        false_share=num_false / max(1, num_rows),
        low=low,
        high=high,
        hardness=float(trial.standard_c[taken_c].mean()) if num_rows else 0.0,
        distance=float(distance_c.mean()) if len(distance_c) else 0.0,
    )


def audit_kind(trial: Trial, margin: float, rng: np.random.Generator) -> KindAudit:
    """The audit of one kind at `margin`, −inf for a score guard without one."""
    taken_c = taken_at(trial, margin)
    mined = np.bincount(trial.picture_c[taken_c & trial.false_c], minlength=trial.num_pictures)
    hidden = np.bincount(trial.picture_c[trial.false_c], minlength=trial.num_pictures)
    low, high = bootstrap_ratio(mined, hidden, rng)
    return KindAudit(
        kind=trial.kind,
        num_pictures=trial.num_pictures,
        margin=float(margin) if np.isfinite(margin) else None,
        at_margin=read_point(trial, margin, rng),
        leak=float(mined.sum() / max(1, hidden.sum())),
        leak_low=low,
        leak_high=high,
        num_hidden_candidates=int(hidden.sum()),
        false_share_by_rank=_by_rank(trial, taken_c),
        curve=read_curve(trial, margins_of(trial).tolist(), rng),
    )


def _by_rank(trial: Trial, taken_c: NDArray[np.bool_]) -> dict[str, float]:
    """False share of what is taken, by rank in powers of four."""
    edges = [0, 1, 4, 16, 64, 256, 1024, np.iinfo(np.int32).max]
    shares = {}
    for low, high in pairwise(edges):
        here = taken_c & (trial.rank_c >= low) & (trial.rank_c < high)
        if here.any():
            shares[f"{low}+"] = float(trial.false_c[here].mean())
    return shares
