"""What each metric is: its group, which way is better, what it needs, and whether ratios of it mean anything."""

from dataclasses import dataclass
from enum import StrEnum

from manifests.sample import NegativeKind

AT_VAL = "_at_val"  # ends the key of a metric at the threshold that was chosen on val


class Better(StrEnum):
    """Which way a metric should go."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"  # it describes the data, or nobody said


class Group(StrEnum):
    """Metrics that stand together in a table, in the order of their groups."""

    MASKS = "masks"
    PRESENCE = "presence"
    HALLUCINATION = "hallucination"
    CALIBRATION = "calibration"
    POPE = "pope"
    BLIND = "blind"
    SACO = "saco"
    COST = "cost"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricKind:
    """What is known of a metric by its key."""

    group: Group
    better: Better = Better.HIGHER
    needs_present: bool = False
    needs_absent: bool = False
    has_ratio: bool = True  # "half as much" is worth saying; not so of MCC and AUC, and rates differ by points
    is_headline: bool = False  # a change of it is said in words, not in the table alone


_MASKS = MetricKind(group=Group.MASKS, needs_present=True)
_ALL_MASKS = MetricKind(group=Group.MASKS)  # an absent prompt counts too: no mask is right there
_BOTH = MetricKind(group=Group.PRESENCE, needs_present=True, needs_absent=True)
_CALIBRATION = MetricKind(group=Group.CALIBRATION, better=Better.LOWER, needs_present=True, needs_absent=True)
_BLIND = MetricKind(
    group=Group.BLIND, better=Better.NEITHER, needs_present=True, needs_absent=True, has_ratio=False
)  # it describes the data
_HALLUCINATION = MetricKind(group=Group.HALLUCINATION, better=Better.LOWER, needs_absent=True, has_ratio=False)
_KNOWN = {
    "miou": MetricKind(group=Group.MASKS, needs_present=True, is_headline=True),
    "miou_everything": MetricKind(group=Group.MASKS, better=Better.NEITHER, needs_present=True),
    "giou": _ALL_MASKS,
    "ciou": _ALL_MASKS,
    "t_acc": _MASKS,
    "n_acc": MetricKind(group=Group.MASKS, needs_absent=True),
    "prompt_sensitivity": MetricKind(group=Group.MASKS, is_headline=True),
    "presence_precision": _BOTH,
    "presence_recall": _BOTH,
    "presence_f1": MetricKind(group=Group.PRESENCE, needs_present=True, needs_absent=True, is_headline=True),
    "absence_f1": _BOTH,
    "il_mcc": MetricKind(
        group=Group.PRESENCE, needs_present=True, needs_absent=True, has_ratio=False, is_headline=True
    ),
    "il_fpr": MetricKind(group=Group.PRESENCE, better=Better.LOWER, needs_absent=True, has_ratio=False),
    "presence_auc": MetricKind(group=Group.PRESENCE, needs_present=True, needs_absent=True, has_ratio=False),
    "ece": _CALIBRATION,
    "brier": _CALIBRATION,
    "ece_scaled": _CALIBRATION,
    "brier_scaled": _CALIBRATION,
    "saco_cgf1": MetricKind(group=Group.SACO, needs_present=True, needs_absent=True, has_ratio=False),
    "saco_pmf1": MetricKind(group=Group.SACO, needs_present=True),
    "saco_il_mcc": MetricKind(group=Group.SACO, needs_present=True, needs_absent=True, has_ratio=False),
    "quantisation_drop": MetricKind(group=Group.COST, better=Better.LOWER, has_ratio=False),
}
_ORDER = (*_KNOWN, *(f"hallucination_{kind}" for kind in NegativeKind))


def metric_kind(key: str) -> MetricKind:
    """What is known of the metric `key`; of a stranger, that it is one."""
    plain = key.removesuffix(AT_VAL)
    if plain in _KNOWN:
        found = _KNOWN[plain]
        return found if plain == key else _quiet(found)
    if plain.startswith("hallucination_"):
        return _HALLUCINATION
    if plain.startswith("blind_"):
        return _BLIND
    if plain.startswith("pope_"):
        return _pope(plain)
    return MetricKind(group=Group.OTHER, better=Better.NEITHER, is_headline=True)


def _pope(key: str) -> MetricKind:
    is_told = not key.endswith("yes_ratio")  # how often it says yes is no merit
    return MetricKind(
        group=Group.POPE,
        better=Better.HIGHER if is_told else Better.NEITHER,
        needs_present=True,
        needs_absent=True,
        has_ratio=not key.endswith("_mcc"),
    )


def _quiet(found: MetricKind) -> MetricKind:
    return MetricKind(
        group=found.group,
        better=found.better,
        needs_present=found.needs_present,
        needs_absent=found.needs_absent,
        has_ratio=found.has_ratio,
    )


def metric_order(key: str) -> tuple[int, int, str]:
    """By what metrics are sorted: their group, the order above, their key."""
    plain = key.removesuffix(AT_VAL)
    place = _ORDER.index(plain) if plain in _ORDER else len(_ORDER)
    return list(Group).index(metric_kind(key).group), place, key
