"""What a closed loop says of itself: `loop.json`, its rounds with what lies where and their key figures."""

import msgspec

from manifests.manifest import Manifest
from student.metric_kinds import AT_VAL, Group, metric_kind
from student.readings import Evaluation, Reading

LOOP_SCHEMA = 1
LOOP_NAME = "loop.json"
KEY_FIGURES = ("il_mcc", "miou")  # and the hallucination rate of each kind


class RoundRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One round; places are those below the loop's folder."""

    number: int  # from 1
    recipe: str
    build: str
    student: str
    evaluation: str
    predictions: str  # of train, for a next round; "" where none was to follow
    recipe_sha256: str
    inputs_sha256: str
    student_sha256: str  # of weights and settings
    absent: dict[str, int]  # absent prompts of train by kind
    readings: dict[str, Reading]  # with 95 % intervals


class LoopRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`loop.json`."""

    schema: int = LOOP_SCHEMA
    name: str  # the recipe's
    judged_on: str  # the build whose pictures and prompts judge every round
    split: str
    rounds: list[RoundRecord]
    report: str


def key_figures(evaluation: Evaluation) -> dict[str, Reading]:
    """IL_MCC, mIoU and, at 0.5, the hallucination rate of each kind that was asked."""
    rates = [
        name
        for name, reading in evaluation.readings.items()
        if metric_kind(name).group is Group.HALLUCINATION and not name.endswith(AT_VAL) and reading.value is not None
    ]
    return {name: evaluation.readings[name] for name in [*KEY_FIGURES, *sorted(rates)] if name in evaluation.readings}


def absent_of_train(manifest: Manifest) -> dict[str, int]:
    """How many absent prompts of each kind train has."""
    train = manifest.mix.get("train")
    return {} if train is None else {kind: share.achieved for kind, share in train.prompts.items()}
