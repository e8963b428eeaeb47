"""What an arm knows, whatever its own threshold: false alarms at equal recall, MCC at val's threshold, AUC in a phrase.

A student that says "present" less often hallucinates less, whatever it knows. So arms are compared where each of them,
by a threshold of its own, finds as many of the presences of test; by MCC where val chose the threshold; and by how well
the pictures that show a phrase are told from those that do not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests.sample import NegativeKind
from manifests.statistics import auc
from student import confusion
from student.bootstrap import NUM_DRAWS, draw_weights
from student.pope import SETTINGS, paired
from student.presence_metrics import kind_codes
from student.readings import Evaluation, read_json

RECALL = 0.7
SHOWN = {"fewer than 15": (0, 15), "15 to 39": (15, 40), "40 and more": (40, 1 << 30)}  # presences of a phrase in train


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What one arm of a fold said to the N prompts of test."""

    prompts: Sequence[tuple[str, str]]  # key and phrase
    presence_n: NDArray[np.float32]
    present_n: NDArray[np.bool_]
    kind_n: NDArray[np.int64]  # as `kind_codes`
    image_n: NDArray[np.int64]
    phrase_n: NDArray[np.int64]
    shown_n: NDArray[np.int64]  # how often the arm's train shows the phrase
    threshold: float | None  # that val chose; None where no absence stood in train


def read_answers(fold: Path, arm: str) -> Answers:
    """The answers of an arm.

    Raises:
        FileNotFoundError: the arm was not judged there.
    """
    place = fold / arm / "evaluation"
    said = pq.read_table(place / "predictions.parquet", columns=["key", "phrase", "presence"]).to_pydict()
    presence_of = dict(zip(zip(said["key"], said["phrase"], strict=True), said["presence"], strict=True))
    columns = ["image_key", "phrase", "kind", "present"]
    asked = pq.read_table(fold / "judge" / "samples.parquet", columns=columns, filters=[("split", "=", "test")])
    told = asked.to_pydict()
    prompts = list(zip(told["image_key"], told["phrase"], strict=True))
    filters = [("split", "=", "train"), ("present", "=", True)]
    shown = Counter(
        pq.read_table(fold / arm / "build" / "samples.parquet", columns=["phrase"], filters=filters)[0].to_pylist()
    )
    return Answers(
        prompts=prompts,
        presence_n=np.asarray([presence_of[prompt] for prompt in prompts], np.float32),
        present_n=np.asarray(told["present"], np.bool_),
        kind_n=kind_codes(told["kind"]),
        image_n=np.unique(told["image_key"], return_inverse=True)[1],
        phrase_n=np.unique(told["phrase"], return_inverse=True)[1],
        shown_n=np.asarray([shown[phrase] for phrase in told["phrase"]], np.int64),
        threshold=read_json(str(place / "evaluation.json"), Evaluation).threshold,
    )


def false_alarms(answers: Answers, *, recall: float = RECALL) -> dict[str, float]:
    """The share of the absent prompts of each of POPE's settings that are called present, at a recall."""
    alarm_n = answers.presence_n >= _threshold(answers, recall)
    return {setting: float(alarm_n[_of(answers, kind)].mean()) for setting, kind in SETTINGS.items()}


def drawn_alarms(answers: Answers, *, recall: float = RECALL) -> NDArray[np.float64]:
    """`false_alarms` [D, 3] of pictures drawn with replacement, D times; arms of a fold see the same draws.

    A prompt counts as often as its picture was drawn, for the threshold, too. NaN where a draw left a setting empty.

    Source: Efron (1979), percentile interval; the units are pictures.
    """
    present = np.flatnonzero(answers.present_n)
    present = present[np.argsort(-answers.presence_n[present], kind="stable")]
    absent_3n = np.stack([_of(answers, kind) for kind in SETTINGS.values()])
    drawn = []
    for weight_i in _draws(answers):
        weight_n = weight_i[answers.image_n]
        so_far_p = np.cumsum(weight_n[present])
        threshold = answers.presence_n[present[np.searchsorted(so_far_p, recall * so_far_p[-1])]]
        counted_3n = absent_3n * weight_n
        with np.errstate(invalid="ignore"):
            drawn.append(counted_3n @ (answers.presence_n >= threshold) / counted_3n.sum(1))
    return np.asarray(drawn, np.float64)


def mcc_of_val(answers: Answers) -> dict[str, float]:
    """MCC in each of POPE's settings where "present" is said from val's threshold on; 0 where val chose none."""
    once_1i = np.ones((1, int(answers.image_n.max()) + 1))
    return dict(zip(SETTINGS, _mcc(answers, once_1i)[0].tolist(), strict=True))


def drawn_mcc(answers: Answers) -> NDArray[np.float64]:
    """`mcc_of_val` [D, 3] of the draws of `drawn_alarms`."""
    return _mcc(answers, _draws(answers))


def _draws(answers: Answers) -> NDArray[np.float64]:
    """How often each picture was drawn [D, I]."""
    return np.concatenate(list(draw_weights(int(answers.image_n.max()) + 1, np.random.default_rng(0), NUM_DRAWS)))


def _mcc(answers: Answers, weights_di: NDArray[np.float64]) -> NDArray[np.float64]:
    """MCC [D, 3] of pictures that count by their weight; 0 where val chose no threshold, as all is called present."""
    said_n = answers.presence_n >= (-np.inf if answers.threshold is None else answers.threshold)
    found = []
    for kind in SETTINGS.values():
        row = paired(answers.present_n, _of(answers, kind), answers.image_n)
        said_r, present_r = said_n[row], answers.present_n[row]
        cells_r4 = np.stack([said_r & present_r, said_r & ~present_r, ~said_r & present_r, ~said_r & ~present_r], 1)
        found.append(confusion.mcc(confusion.confusion_of(weights_di[:, answers.image_n[row]] @ cells_r4)))
    return np.stack(found, axis=1)


def recall_by_shown(answers: Answers, *, recall: float = RECALL) -> dict[str, float]:
    """The share of presences that are found, by how often train shows their phrase; NaN where there is none."""
    found_n = answers.presence_n >= _threshold(answers, recall)
    shares = {}
    for name, (low, high) in SHOWN.items():
        here_n = answers.present_n & (answers.shown_n >= low) & (answers.shown_n < high)
        shares[name] = float(found_n[here_n].mean()) if here_n.any() else nan
    return shares


def auc_within(answers: Answers) -> dict[str, float]:
    """How often a picture that shows a phrase scores above one that does not; NaN where there is no such pair."""
    found = {}
    for setting, kind in SETTINGS.items():
        absent_n = _of(answers, kind)
        above, pairs = 0.0, 0
        for phrase in np.unique(answers.phrase_n[absent_n]).tolist():
            here_n = (answers.phrase_n == phrase) & (answers.present_n | absent_n)
            present_h = answers.present_n[here_n]
            num = int(present_h.sum()) * int((~present_h).sum())
            if num:
                above += num * auc(answers.presence_n[here_n].astype(np.float64), present_h)
                pairs += num
        found[setting] = above / pairs if pairs else nan
    return found


def _threshold(answers: Answers, recall: float) -> float:
    present = np.sort(answers.presence_n[answers.present_n])[::-1]
    return float(present[ceil(recall * len(present)) - 1])


def _of(answers: Answers, kind: NegativeKind) -> NDArray[np.bool_]:
    code = int(kind_codes([kind])[0])
    found: NDArray[np.bool_] = ~answers.present_n & (answers.kind_n == code)
    return found
