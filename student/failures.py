"""The worst answers of an evaluation: false alarms of each kind, and misses; each with its picture and both masks.

A false alarm is an absent phrase that is answered present, the surest first. A miss is a present one that is answered
absent, or one that is answered present with a mask that lies elsewhere.
"""

# N prompts

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import files
from manifests.manifest import read_manifest
from manifests.sample import CALLED_PRESENT, KINDS, Mask
from shards.blocks import SampleIndex
from shards.build_pictures import as_thumbnail, decode_at, find_pictures, open_sample, open_splits, read_ahead, those
from shards.masks import downscale_mask_for_page, union
from student.answers import predicted_masks
from student.evaluation import Evaluated
from student.failures_page import (
    FailureGroup,
    FailurePicture,
    FailureRow,
    FailuresAbout,
    write_failures_page,
)
from student.judged import Judged
from student.presence_metrics import says_present
from student.readings import FAILURES_NAME, Reading
from student.truth import true_masks

PER_GROUP = 24
PIXELS = 400  # longer side of a picture
POOR_IOU = 0.5  # a mask that overlaps less lies elsewhere

_Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """The worst answers of one sort."""

    name: str
    title: str
    rows: _Int64  # of the judged prompts, the worst first
    num_found: int  # failures of this sort
    num_asked: int  # prompts that could have failed so


@dataclass(slots=True, kw_only=True)
class _Drawn:
    """Masks at the size of the page, by prompt."""

    predicted: dict[int, Mask] = field(default_factory=dict)
    true: dict[int, Mask] = field(default_factory=dict)


def choose_failures(judged: Judged, *, has_masks: bool, threshold: float, per_group: int = PER_GROUP) -> list[Group]:
    """The worst false alarms of each kind that was asked, and the worst misses; groups without any are kept."""
    presence_n, said_n = judged.presence_n, says_present(judged.presence_n, threshold)
    groups = []
    for code, kind in enumerate(KINDS):
        asked_n = judged.kinds_nk[:, code]
        if asked_n.any():
            title = f"False alarms: {kind}".replace("co_", "co-").replace("_", " ")
            groups.append(_group(f"alarm_{kind}", title, asked_n, said_n, -presence_n, per_group))
    if judged.present_n.any():
        groups.append(_group("unseen", "Misses: not seen", judged.present_n, ~said_n, presence_n, per_group))
    if has_masks and judged.complete_n.any():
        iou_n = judged.overlaps.iou_n
        poor_n = said_n & (iou_n < POOR_IOU)
        groups.append(_group("elsewhere", "Misses: mask elsewhere", judged.complete_n, poor_n, iou_n, per_group))
    return groups


def _group(
    name: str,
    title: str,
    asked_n: NDArray[np.bool_],
    failed_n: NDArray[np.bool_],
    badness_n: NDArray[np.float64],
    per_group: int,
) -> Group:
    """The `per_group` failed prompts of the lowest `badness_n`, ties in the order of prompts."""
    found = np.flatnonzero(asked_n & failed_n)
    worst = found[np.argsort(badness_n[found], kind="stable")[:per_group]]
    return Group(name=name, title=title, rows=worst, num_found=len(found), num_asked=int(asked_n.sum()))


def write_failures(uri: str, evaluated: Evaluated, *, per_group: int = PER_GROUP) -> int:
    """How many bytes the page of the worst answers has, which now stands at `uri`.

    Raises:
        ManifestError, TableError: the build is damaged.
        StorageError: it cannot be written.
    """
    judged, evaluation = evaluated.judged, evaluated.evaluation
    groups = choose_failures(
        judged, has_masks=evaluated.answers.has_masks, threshold=CALLED_PRESENT, per_group=per_group
    )
    shown = np.unique(np.concatenate([np.zeros(0, np.int64), *(group.rows for group in groups)]))
    pictures = _Pictures(evaluated, shown)
    rows = [_row(evaluated, pictures, at, number) for number, group in enumerate(groups) for at in group.rows.tolist()]
    about = FailuresAbout(
        title=f"Failures of {evaluation.name}",
        what=_what(evaluated, len(rows)),
        threshold=CALLED_PRESENT,
        groups=[
            FailureGroup(name=one.name, title=one.title, num_found=one.num_found, num_asked=one.num_asked)
            for one in groups
        ],
        tiles=[*_tiles(evaluation.readings)],
        notes=evaluation.notes,
    )
    return write_failures_page(uri, rows, pictures.read(), about)


def _what(evaluated: Evaluated, num_rows: int) -> str:
    one = evaluated.evaluation
    return (
        f"{num_rows} of the worst answers among {one.num_present + one.num_absent:,} prompts of {one.num_images:,} "
        f"pictures: split {one.split} of {one.build}; answered present from {CALLED_PRESENT} on"
    )


def _tiles(readings: dict[str, Reading]) -> Iterator[tuple[str, str]]:
    """The figures of the head, each with its name."""
    for key, title in (("presence_f1", "Presence F1"), ("il_mcc", "IL_MCC"), ("miou", "mIoU")):
        one = readings[key]
        yield ("undefined" if one.value is None else f"{one.value:.3f}"), title


class _Pictures:
    """The pictures of some prompts, numbered in the order in which the build holds them."""

    def __init__(self, evaluated: Evaluated, shown: _Int64) -> None:
        self._evaluated = evaluated
        truth, judged = evaluated.truth, evaluated.judged
        keys = truth.keys.take(pa.array(np.unique(judged.image_n[shown])))
        [whole] = open_splits(truth.folder, read_manifest(truth.folder), truth.split)
        [numbers] = find_pictures(keys, [whole])
        self._drawn = those(whole, numbers)
        order = sorted(numbers, key=lambda key: numbers[key])
        self.number_of = {key: at for at, key in enumerate(order)}
        self.masks = _masks_of(evaluated, shown)

    def read(self) -> Iterator[FailurePicture]:
        """The pictures in their order."""
        keys = iter(self.number_of)
        for picture in read_ahead(self._drawn, _read_picture):
            yield FailurePicture(key=next(keys), source=picture.source, thumbnail=picture.thumbnail)


def _read_picture(index: SampleIndex, number: int) -> FailurePicture:
    with open_sample(index, number) as (sample, jpeg):
        thumbnail = as_thumbnail(decode_at(jpeg, sample, PIXELS))
        return FailurePicture(key=sample.key, source=sample.source, thumbnail=thumbnail)


def _masks_of(evaluated: Evaluated, shown: _Int64) -> _Drawn:
    truth, drawn = evaluated.truth, _Drawn()
    wanted_n = np.zeros(len(truth), np.bool_)
    wanted_n[evaluated.judged.prompt_n[shown]] = True
    for prompt, mask in predicted_masks(truth, evaluated.answers.uri, wanted_n):
        drawn.predicted[prompt] = downscale_mask_for_page(mask, PIXELS)
    for prompt, instances in true_masks(truth, wanted_n & truth.masked_n):
        drawn.true[prompt] = downscale_mask_for_page(union(instances), PIXELS)
    return drawn


def _row(evaluated: Evaluated, pictures: _Pictures, at: int, group: int) -> FailureRow:
    truth, judged = evaluated.truth, evaluated.judged
    prompt = int(judged.prompt_n[at])
    kinds: Sequence[str] = [str(kind) for code, kind in enumerate(KINDS) if judged.kinds_nk[at, code]]
    is_measured = bool(judged.complete_n[at]) and evaluated.answers.has_masks
    return FailureRow(
        group=group,
        picture=pictures.number_of[truth.key(prompt)],
        phrase=truth.phrase(prompt),
        kinds=tuple(kinds),
        presence=float(judged.presence_n[at]),
        iou=float(judged.overlaps.iou_n[at]) if is_measured else None,
        predicted=_counts(pictures.masks.predicted, prompt),
        true=_counts(pictures.masks.true, prompt),
    )


def _counts(masks: dict[int, Mask], prompt: int) -> str:
    return masks[prompt].counts if prompt in masks else ""


def failures_uri(folder: str) -> str:
    """Where the page of an evaluation's folder lies."""
    return files.join(folder, FAILURES_NAME)
