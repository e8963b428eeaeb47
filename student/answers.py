"""What a model answered to a split's prompts: a table of predictions joined to what is true, its bad rows counted.

A row belongs to the prompt of its picture and phrase. Rows of pictures that the build does not hold, presences outside
0 to 1 and masks of another size are counted and not used; a prompt without a usable row is missing, and too many of
these stop the evaluation, since what is left could be what is easy.
"""

# N prompts, R rows of a table

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.errors import TableError
from manifests.sample import Mask
from manifests.tables import IMAGES, PREDICTIONS, iterate_groups, iterate_table, read_metadata
from shards.masks import check_masks
from shards.rle import MaskFault
from student.predict import DRAWN, MASKS
from student.truth import NO_PROMPT, Places, Truth, unpack

_ROWS = 2048  # rows that are looked at together, since their masks are unpacked

_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """The answer to every prompt of a split."""

    uri: str
    presence_n: NDArray[np.float64]  # 0 to 1; NaN where the prompt is missing
    area_n: _Int64  # pixels of the predicted mask
    has_masks: bool  # whether the model gives masks at all: the table says so, or a row has one that is not "" or null
    counted: dict[str, int]  # rows and prompts by what became of them

    @property
    def answered_n(self) -> _Bool:
        """Prompts that are not missing."""
        answered: _Bool = ~np.isnan(self.presence_n)
        return answered


def read_answers(truth: Truth, uri: str, *, max_missing_share: float) -> Answers:
    """The answers that the table at `uri` gives to the prompts of `truth`.

    Raises:
        TableError: it is no table of predictions, answers a prompt twice, or leaves out too many.
    """
    reading = _Reading(truth, uri, has_masks=read_metadata(uri, PREDICTIONS).get(MASKS) == DRAWN)
    first = 0
    for group in iterate_table(uri, PREDICTIONS):
        for start in range(0, group.num_rows, _ROWS):
            reading.add(group.slice(start, _ROWS), first + start)
        first += group.num_rows
    return reading.answers(max_missing_share)


def predicted_masks(truth: Truth, uri: str, wanted_n: _Bool) -> Iterator[tuple[int, Mask]]:
    """The predicted mask of each wanted prompt that has one; a row group at a time, in the table's order.

    The prompts that are wanted are answered ones, so their masks are sound.
    """
    places = Places(truth)
    for read in iterate_groups(uri, PREDICTIONS):
        rows = read(["key", "phrase"])
        prompt_r = places.prompts_of(places.images_of(rows["key"]), places.phrases_of(rows["phrase"]))
        chosen = np.flatnonzero((prompt_r >= 0) & wanted_n[prompt_r])
        if not len(chosen):
            continue
        for row, mask in unpack(read(["mask"])["mask"], chosen):
            if mask and mask["counts"]:
                yield int(prompt_r[row]), Mask(size=tuple(mask["size"]), counts=mask["counts"])


class _Reading:
    """The answers while row groups come in."""

    def __init__(self, truth: Truth, uri: str, *, has_masks: bool) -> None:
        self._truth, self._uri = truth, uri
        self._places = Places(truth)
        self._presence_n = np.full(len(truth), np.nan)
        self._area_n = np.zeros(len(truth), np.int64)
        self._row_n = np.full(len(truth), -1, np.int64)  # which row answered
        self._has_masks = has_masks
        self._counted = Counter[str]()
        self._foreign = Counter[str]()  # rows by keys that the split does not hold
        self._first_bad = ""

    def add(self, rows: pa.Table, first: int) -> None:
        """Take the rows of one row group, the first of which is number `first` of the table."""
        image_r, phrase_r = self._places.images_of(rows["key"]), self._places.phrases_of(rows["phrase"])
        prompt_r = self._places.prompts_of(image_r, phrase_r)
        self._counted["unknown_phrase"] += int(((image_r >= 0) & (phrase_r < 0)).sum())
        self._counted["not_asked"] += int(((image_r >= 0) & (phrase_r >= 0) & (prompt_r == NO_PROMPT)).sum())
        for one in pc.value_counts(rows["key"].filter(pa.array(image_r < 0))).to_pylist():
            self._foreign[one["values"] or ""] += one["counts"]
        chosen = np.flatnonzero(prompt_r >= 0)
        self._require_once(prompt_r[chosen], chosen + first)
        self._take(rows.take(pa.array(chosen)), prompt_r[chosen], chosen + first)

    def _require_once(self, prompt_r: _Int64, row_r: _Int64) -> None:
        order = np.argsort(prompt_r, kind="stable")
        twice = order[1:][np.diff(prompt_r[order]) == 0]
        again = np.flatnonzero(self._row_n[prompt_r] >= 0)
        self._row_n[prompt_r[::-1]] = row_r[::-1]
        if len(twice) or len(again):
            at = int([*twice, *again][0])
            truth, prompt = self._truth, int(prompt_r[at])
            raise TableError(
                f"{self._uri}: row {row_r[at]} answers {truth.phrase(prompt)!r} in {truth.key(prompt)} a second time; "
                "expected one row for each key and phrase. Remove one of them"
            )

    def _take(self, rows: pa.Table, prompt_r: _Int64, row_r: _Int64) -> None:
        presence_r = pc.fill_null(rows["presence"], float("nan")).to_numpy().astype(np.float64)
        sound_r = (presence_r >= 0) & (presence_r <= 1)
        area_r, fault_r = self._check_masks(rows["mask"].combine_chunks(), prompt_r)
        self._count_bad("bad_presence", ~sound_r, row_r, lambda at: f"presence {presence_r[at]}, expected 0 to 1")
        broken_r = sound_r & (fault_r != MaskFault.NONE)
        self._count_bad("bad_mask", broken_r, row_r, lambda at: self._about_mask(rows, at, int(prompt_r[at])))
        used = np.flatnonzero(sound_r & ~broken_r)
        self._presence_n[prompt_r[used]] = presence_r[used]
        self._area_n[prompt_r[used]] = area_r[used]

    def _check_masks(self, masks: pa.StructArray, prompt_r: _Int64) -> tuple[_Int64, NDArray[np.int8]]:
        """Area and fault of each row's mask; a row without one has an empty mask, which is no fault."""
        counts = pc.fill_null(pc.struct_field(masks, "counts"), "").to_pylist()
        sizes = pc.struct_field(masks, "size").to_pylist()
        area_r, fault_r = np.zeros(len(counts), np.int64), np.full(len(counts), MaskFault.NONE, np.int8)
        shown = np.flatnonzero([bool(text) for text in counts])
        self._has_masks |= len(shown) > 0
        size_r2 = self._truth.size_i2[self._truth.image_n[prompt_r[shown]]]
        check = check_masks([counts[at] for at in shown.tolist()], size_r2[:, 0], size_r2[:, 1])
        said = [sizes[at] for at in shown.tolist()]
        is_fit = np.array([one == true for one, true in zip(said, size_r2.tolist(), strict=True)], np.bool_)
        area_r[shown] = check.areas
        faults = np.where(is_fit, check.faults, MaskFault.WRONG_SIZE)
        fault_r[shown] = np.where(faults == MaskFault.EMPTY, MaskFault.NONE, faults)
        return area_r, fault_r

    def _about_mask(self, rows: pa.Table, at: int, prompt: int) -> str:
        height, width = self._truth.size_i2[self._truth.image_n[prompt]].tolist()
        mask = rows["mask"][at].as_py()
        return f"a mask of size {mask['size']}, expected sound runs of the picture's [{height}, {width}]"

    def _count_bad(self, name: str, bad_r: _Bool, row_r: _Int64, tell: Callable[[int], str]) -> None:
        bad = np.flatnonzero(bad_r)
        self._counted[name] += len(bad)
        if len(bad) and not self._first_bad:
            self._first_bad = f"row {row_r[bad[0]]} has {tell(int(bad[0]))}"

    def answers(self, max_missing_share: float) -> Answers:
        """All that was read.

        Raises:
            TableError: too many prompts have no usable row.
        """
        elsewhere = _held_elsewhere(self._truth, set(self._foreign))
        self._counted["other_split"] = sum(self._foreign[key] for key in elsewhere)
        self._counted["unknown_key"] = sum(self._foreign.values()) - self._counted["other_split"]
        missing_n = np.isnan(self._presence_n)
        self._counted["missing"] = int(missing_n.sum())
        self._counted["used"] = len(missing_n) - self._counted["missing"]
        if missing_n.mean() > max_missing_share:
            raise TableError(self._too_few(missing_n, max_missing_share))
        counted = dict(sorted(self._counted.items()))
        return Answers(
            uri=self._uri,
            presence_n=self._presence_n,
            area_n=self._area_n,
            has_masks=self._has_masks,
            counted=counted,
        )

    def _too_few(self, missing_n: _Bool, allowed: float) -> str:
        first = int(missing_n.argmax())
        found = {name: num for name, num in self._counted.items() if num and name not in ("missing", "used")}
        said = "".join(f", {num} rows are {name.replace('_', ' ')}" for name, num in sorted(found.items()))
        cause = f" ({self._first_bad})" if self._first_bad else ""
        return (
            f"{self._uri}: {missing_n.sum()} of {len(missing_n)} prompts of split {self._truth.split} have no usable "
            f"row, the first is {self._truth.phrase(first)!r} in {self._truth.key(first)}; expected at most "
            f"{allowed:.1%}{said}{cause}. Predict the split whole, or allow more by --max-missing-share"
        )


def _held_elsewhere(truth: Truth, keys: set[str]) -> set[str]:
    """Those of `keys` that are pictures of the build's other splits."""
    if not keys:
        return set()
    found: set[str] = set()
    wanted = pa.array(sorted(keys), pa.string())
    for rows in iterate_table(files.join(truth.folder, "images.parquet"), IMAGES, ["key"]):
        found.update(rows["key"].filter(pc.is_in(rows["key"], value_set=wanted)).to_pylist())
    return found
