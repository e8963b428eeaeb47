"""Answers beside what is true, prompt by prompt, as arrays that every metric reads: the join that an evaluation is.

Masks are joined some ten thousand at a time, each time going through both tables, so that a split of any size needs
the memory of one such pass.
"""

# N prompts, K kinds of negatives

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.errors import ManifestError, Rejected
from manifests.sample import KINDS, Mask
from student.answers import Answers, predicted_masks
from student.overlaps import Overlaps, best_instance_ious, overlaps
from student.truth import Truth, true_masks

PASS_PROMPTS = 1 << 14  # prompts whose masks are in memory at once
_AT_ONCE = 1024  # masks that are overlapped in one call

_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The answered prompts of a split, each picture and phrase once."""

    prompt_n: _Int64  # of the truth
    presence_n: NDArray[np.float64]  # 0 to 1
    present_n: _Bool
    complete_n: _Bool  # present, and its true masks are all of it
    image_n: _Int64
    source_n: _Int64
    phrase_n: _Int64
    kinds_nk: _Bool
    is_saco_n: _Bool
    closed_n: _Bool  # of a picture in which presence can be judged
    overlaps: Overlaps  # with the union of the true masks; 0 where these are not whole
    best_iou_n: NDArray[np.float64]  # with the best instance, where the source is of SA-Co
    num_instances_n: _Int64

    def __len__(self) -> int:
        return len(self.prompt_n)

    def take(self, chosen: _Int64 | _Bool) -> "Judged":
        """Some of the prompts."""
        arrays = {name.name: getattr(self, name.name)[chosen] for name in fields(self) if name.name != "overlaps"}
        return replace(self, overlaps=self.overlaps.take(chosen), **arrays)

    def for_presence(self) -> "Judged":
        """The prompts of the pictures in which presence can be judged."""
        return self.take(self.closed_n)

    def by_kind(self) -> tuple[_Int64, NDArray[np.str_]]:
        """Rows and their kinds: a present prompt once, with kind "", an absent one as often as it has kinds."""
        present = np.flatnonzero(self.present_n)
        absent, kinds = np.nonzero(self.kinds_nk)
        row = np.concatenate([present, absent])
        kind = np.concatenate([np.full(len(present), len(KINDS)), kinds])
        order = np.lexsort((kind, row))
        names = np.array([*map(str, KINDS), ""])
        return row[order], names[kind[order]]


def judge(truth: Truth, answers: Answers) -> Judged:
    """The answered prompts beside what is true of them.

    Raises:
        TableError, ManifestError: masks cannot be read.
    """
    source_n = truth.source_i[truth.image_n]
    size_n2 = truth.size_i2[truth.image_n]
    found = _Masks(len(truth))
    wanted_n = truth.complete_n & answers.answered_n
    try:
        for chosen in _passes(wanted_n):
            found.add(truth, answers, chosen, size_n2)
    except Rejected as error:
        raise ManifestError(f"{_labels(truth)}: expected sound masks, found: {error}; {_cure(truth)}") from error
    _require_masks(truth, wanted_n & (found.truth_n == 0))
    whole = Judged(
        prompt_n=np.arange(len(truth)),
        presence_n=answers.presence_n,
        present_n=truth.present_n,
        complete_n=truth.complete_n,
        image_n=truth.image_n,
        source_n=source_n,
        phrase_n=truth.phrase_n,
        kinds_nk=truth.kinds_nk,
        is_saco_n=truth.is_saco_s[source_n],
        closed_n=truth.closed_i[truth.image_n],
        overlaps=Overlaps(
            intersection_n=found.intersection_n,
            predicted_n=answers.area_n,
            truth_n=found.truth_n,
            pixels_n=size_n2.prod(axis=1),
        ),
        best_iou_n=found.best_iou_n,
        num_instances_n=found.num_instances_n,
    )
    return whole.take(answers.answered_n)


def _require_masks(truth: Truth, lacking_n: _Bool) -> None:
    if lacking_n.any():
        at = int(lacking_n.argmax())
        raise ManifestError(
            f"{_labels(truth)}: has no mask of {truth.phrase(at)!r} in {truth.key(at)}, which samples.parquet says is "
            f"masked whole; {_cure(truth)}"
        )


def _labels(truth: Truth) -> str:
    return files.join(truth.folder, "labels.parquet")


def _cure(truth: Truth) -> str:
    return f"run python -m shards.verify {truth.folder}"


def _passes(wanted_n: _Bool) -> Iterator[_Bool]:
    """The wanted prompts, PASS_PROMPTS at a time."""
    wanted = np.flatnonzero(wanted_n)
    for start in range(0, len(wanted), PASS_PROMPTS):
        chosen = np.zeros(len(wanted_n), np.bool_)
        chosen[wanted[start : start + PASS_PROMPTS]] = True
        yield chosen


class _Masks:
    """What comes of masks, while passes go by."""

    def __init__(self, num: int) -> None:
        self.intersection_n = np.zeros(num, np.int64)
        self.truth_n = np.zeros(num, np.int64)
        self.best_iou_n = np.zeros(num)
        self.num_instances_n = np.zeros(num, np.int64)

    def add(self, truth: Truth, answers: Answers, chosen_n: _Bool, size_n2: _Int64) -> None:
        """Overlap the masks of the chosen prompts."""
        predicted = dict(predicted_masks(truth, answers.uri, chosen_n))
        is_saco_n = truth.is_saco_s[truth.source_i[truth.image_n]]
        waiting: list[tuple[int, tuple[Mask, ...]]] = []
        for pair in true_masks(truth, chosen_n):
            waiting.append(pair)
            if len(waiting) == _AT_ONCE:
                self._overlap(waiting, predicted, size_n2, is_saco_n)
                waiting = []
        self._overlap(waiting, predicted, size_n2, is_saco_n)

    def _overlap(
        self,
        pairs: Sequence[tuple[int, tuple[Mask, ...]]],
        predicted: dict[int, Mask],
        size_n2: _Int64,
        is_saco_n: _Bool,
    ) -> None:
        at = np.array([prompt for prompt, _ in pairs], np.int64)
        said = [predicted.get(prompt) for prompt, _ in pairs]
        instances = [masks for _, masks in pairs]
        found = overlaps(said, instances, size_n2[at, 0], size_n2[at, 1])
        self.intersection_n[at], self.truth_n[at] = found.intersection_n, found.truth_n
        self.num_instances_n[at] = [len(masks) for masks in instances]
        saco = np.flatnonzero(is_saco_n[at]).tolist()
        if saco:
            self.best_iou_n[at[saco]] = best_instance_ious([said[i] for i in saco], [instances[i] for i in saco])
