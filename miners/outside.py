"""What others say of a picture and a phrase: a model's table of predictions, a person's file of decisions.

Rows of pictures or phrases that the inventory does not hold are counted as rejects; a file of which no row belongs to
it is a mistake and stops the run. Of several files the later has the last word.
"""

# P statements, C candidates

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Reason, Rejected, TableError
from manifests.sample import Mask
from manifests.tables import PREDICTIONS, iterate_table
from shards.inventory import Inventory
from shards.labels import normalise_phrase, phrase_id
from shards.masks import check_masks, reason_of
from shards.rle import MaskFault
from shards.sources.source import Reject

DECISIONS_SCHEMA = 1
KEPT_REJECTS = 1000  # rows of rejects kept with their detail; all are counted
NO_MASK = -1

_Int64 = NDArray[np.int64]
_Int32 = NDArray[np.int32]


class Decision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person found in one picture."""

    key: str
    phrase: str
    decision: Literal["present", "absent"]
    by: str = ""


class _DecisionsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    decisions: list[Decision]


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    """Read before all else, leniently, so that a newer file is called newer."""

    schema: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """Statements about pictures and phrases, sorted by both, one for each pair."""

    image_p: _Int64
    phrase_p: _Int32
    presence_p: NDArray[np.float64]  # 0 to 1; a person's are 0 and 1
    mask_p: _Int64  # index into `masks`, or NO_MASK
    masks: tuple[Mask, ...]
    num_phrases: int  # of the inventory
    rejects: tuple[Reject, ...]  # at most KEPT_REJECTS
    num_rejects: dict[Reason, int]

    def rows_of(self, image_c: _Int64, phrase_c: _Int32) -> _Int64:
        """Row of the statement about each candidate, or −1."""
        known = self.image_p * self.num_phrases + self.phrase_p
        wanted = image_c.astype(np.int64) * self.num_phrases + phrase_c
        if not len(known):
            return np.full(len(wanted), -1, np.int64)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[place] == wanted, place, -1)

    def presence_of(self, image_c: _Int64, phrase_c: _Int32) -> NDArray[np.float64]:
        """Presence that was said of each candidate; NaN where nothing was."""
        row_c = self.rows_of(image_c, phrase_c)
        return np.where(row_c >= 0, np.append(self.presence_p, np.nan)[row_c], np.nan)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """Rows as a file has them, with their places in it."""

    uri: str
    unit: str  # what a row is called in messages
    first: int  # number of the first row
    key: pa.Array
    phrase: pa.Array
    presence: NDArray[np.float64]
    height: _Int64  # of the mask; 0 without one
    width: _Int64
    counts: pa.Array  # "" without a mask


def read_predictions(uris: Sequence[str], inventory: Inventory, *, masks_from: float = 0.0) -> Said:
    """What a model says of the inventory's pictures, from tables of predictions.

    Args:
        uris: The tables.
        inventory: Whose pictures and phrases count.
        masks_from: The presence from which on masks are held; all are checked.

    Raises:
        TableError: a file is no such table, a presence lies outside 0 to 1, a pair of picture and phrase stands twice
            in one file, or no row of a file belongs to the inventory.
    """
    reading = _Reading(inventory, masks_from)
    for uri in uris:
        reading.file(uri, _prediction_rows(uri))
    return reading.said()


def read_decisions(uris: Sequence[str], inventory: Inventory) -> Said:
    """What people decided, from JSON files of the gallery; presence is 1 or 0.

    Raises:
        TableError: a file is no such file, decides one pair of picture and phrase twice, or none of its rows belongs to
            the inventory.
    """
    reading = _Reading(inventory, masks_from=0.0)
    for uri in uris:
        reading.file(uri, [_decision_rows(uri)])
    return reading.said()


def _prediction_rows(uri: str) -> Iterator[_Rows]:
    first = 0
    for table in iterate_table(uri, PREDICTIONS, PREDICTIONS.names):
        mask = table["mask"].combine_chunks()
        sizes = pc.struct_field(mask, "size").to_pylist()
        size_p2 = np.array([s if s and len(s) == 2 else (0, 0) for s in sizes], np.int64).reshape(-1, 2)
        yield _Rows(
            uri=uri,
            unit="row",
            first=first,
            key=pc.fill_null(table["key"], "").combine_chunks(),
            phrase=pc.fill_null(table["phrase"], "").combine_chunks(),
            presence=pc.fill_null(table["presence"], float("nan")).to_numpy().astype(np.float64),
            height=size_p2[:, 0],
            width=size_p2[:, 1],
            counts=pc.fill_null(pc.struct_field(mask, "counts"), ""),
        )
        first += table.num_rows


def _decision_rows(uri: str) -> _Rows:
    wanted = 'expected {"schema": 1, "decisions": [{"key", "phrase", "decision": "present" or "absent", "by"}]}'
    try:
        data = files.read_bytes(uri)
        version = msgspec.json.decode(data, type=_Version).schema
        if version > DECISIONS_SCHEMA:
            raise TableError(
                f"{uri}: decisions of schema {version} are newer than {DECISIONS_SCHEMA}, which this version reads; "
                "upgrade absentia"
            )
        decisions = msgspec.json.decode(data, type=_DecisionsFile).decisions
    except OSError as error:
        raise TableError(f"{uri}: cannot be read: {error}; expected the gallery's decisions") from error
    except (ValueError, RecursionError) as error:
        raise TableError(f"{uri}: no decisions: {error}; {wanted}. Download the file from the gallery again") from error
    none = np.zeros(len(decisions), np.int64)
    return _Rows(
        uri=uri,
        unit="$.decisions",
        first=0,
        key=pa.array([row.key for row in decisions], pa.string()),
        phrase=pa.array([row.phrase for row in decisions], pa.string()),
        presence=np.array([float(row.decision == "present") for row in decisions]),
        height=none,
        width=none,
        counts=pa.array([""] * len(decisions), pa.string()),
    )


class _Reading:
    """Statements of several files, joined to the inventory."""

    def __init__(self, inventory: Inventory, masks_from: float) -> None:
        self._inventory = inventory
        self._masks_from = masks_from
        self._keys = inventory.images["key"].combine_chunks()
        self._number = {phrase_id(phrase): v for v, phrase in enumerate(inventory.phrases)}
        self._pair_p: list[_Int64] = []
        self._presence_p: list[NDArray[np.float64]] = []
        self._mask_p: list[_Int64] = []
        self._masks: list[Mask] = []
        self._rejects: list[Reject] = []
        self._num_rejects: Counter[Reason] = Counter()
        self._first_detail = ""

    def file(self, uri: str, chunks: Iterable[_Rows]) -> None:
        """Take the rows of one file; they stand above those of the files before."""
        self._first_detail = ""
        num_rows, pairs, places = 0, [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for rows in chunks:
            pair_p, place_p = self._take(rows)
            pairs.append(pair_p)
            places.append(place_p)
            num_rows += len(rows.presence)
        pair_p, place_p = np.concatenate(pairs), np.concatenate(places)
        if num_rows and not len(pair_p):
            raise TableError(
                f"{uri}: none of its {num_rows} rows belongs to this build: {self._first_detail}; expected keys and "
                "phrases of the build. Give the file that was made for it"
            )
        order = np.lexsort((place_p, pair_p))
        twice = np.flatnonzero(np.diff(pair_p[order]) == 0)
        if len(twice):
            one, other = sorted(place_p[order[twice[0] : twice[0] + 2]].tolist())
            image, phrase = divmod(int(pair_p[order[twice[0]]]), len(self._inventory.phrases))
            raise TableError(
                f"{uri}: rows {one} and {other} both speak of {self._inventory.phrases[phrase]!r} in "
                f"{self._keys[image].as_py()}; expected one row for each key and phrase. Remove one of them"
            )

    def _take(self, rows: _Rows) -> tuple[_Int64, _Int64]:
        """Pair and place of the rows that belong to the inventory."""
        wrong = np.flatnonzero(~((rows.presence >= 0) & (rows.presence <= 1)))
        if len(wrong):
            raise TableError(
                f"{rows.uri}: {rows.unit} {rows.first + int(wrong[0])}: presence {rows.presence[wrong[0]]}; expected a "
                "number in 0 to 1. Write probabilities, not logits"
            )
        image_p = pc.fill_null(pc.index_in(rows.key, self._keys), -1).to_numpy().astype(np.int64)
        phrase_p = self._phrases(rows.phrase)
        known = np.flatnonzero((image_p >= 0) & (phrase_p >= 0))
        for row in np.flatnonzero(image_p < 0).tolist():
            self._reject(rows, row, Reason.UNKNOWN_KEY, "no picture of this key")
        for row in np.flatnonzero((image_p >= 0) & (phrase_p < 0)).tolist():
            self._reject(rows, row, Reason.UNKNOWN_PHRASE, "no such phrase")
        known, mask_p = self._take_masks(rows, known, image_p)
        pair_p = image_p[known] * len(self._inventory.phrases) + phrase_p[known]
        self._pair_p.append(pair_p)
        self._presence_p.append(rows.presence[known])
        self._mask_p.append(mask_p)
        return pair_p, known + rows.first

    def _phrases(self, column: pa.Array) -> _Int32:
        encoded = pc.dictionary_encode(column)
        numbers = np.array([self._find(text) for text in encoded.dictionary.to_pylist()], np.int32)
        return numbers[encoded.indices.to_numpy()] if len(numbers) else np.empty(0, np.int32)

    def _find(self, text: str) -> int:
        try:
            return self._number.get(phrase_id(normalise_phrase(text)), -1)
        except Rejected:
            return -1

    def _take_masks(self, rows: _Rows, known: _Int64, image_p: _Int64) -> tuple[_Int64, _Int64]:
        """The `known` rows without those of broken masks, and the number of each row's mask."""
        counts = rows.counts.take(pa.array(known)).to_pylist()
        with_mask = np.array([bool(text) for text in counts], np.bool_)
        mask_p = np.full(len(known), NO_MASK, np.int64)
        kept = np.ones(len(known), np.bool_)
        shown = np.flatnonzero(with_mask)
        if not len(shown):
            return known, mask_p
        size_n2 = self._sizes(image_p[known[shown]])
        check = check_masks([counts[at] for at in shown.tolist()], size_n2[:, 0], size_n2[:, 1])
        said_n2 = np.stack([rows.height[known[shown]], rows.width[known[shown]]], axis=1)
        for at, fault, size, said in zip(shown.tolist(), check.faults.tolist(), size_n2, said_n2, strict=True):
            reason = reason_of(MaskFault(fault)) if np.array_equal(size, said) else Reason.MASK_SIZE
            if reason is Reason.MASK_EMPTY or (reason is None and rows.presence[known[at]] < self._masks_from):
                continue
            if reason is not None:
                kept[at] = False
                self._reject(rows, int(known[at]), reason, f"mask of {said.tolist()} in a picture of {size.tolist()}")
                continue
            mask_p[at] = len(self._masks)
            self._masks.append(Mask(size=(int(size[0]), int(size[1])), counts=counts[at]))
        return known[kept], mask_p[kept]

    def _sizes(self, pictures: _Int64) -> _Int64:
        """Height and width of some pictures."""
        images = self._inventory.images.select(["height", "width"]).take(pictures)
        return np.stack([images["height"].to_numpy(), images["width"].to_numpy()], axis=1).astype(np.int64)

    def _reject(self, rows: _Rows, row: int, reason: Reason, detail: str) -> None:
        self._num_rejects[reason] += 1
        if len(self._rejects) < KEPT_REJECTS or not self._first_detail:
            key, phrase = rows.key[row].as_py(), rows.phrase[row].as_py()
            found = f"{rows.unit} {rows.first + row}: {detail}: {key!r}, {phrase!r}"
            self._first_detail = self._first_detail or found
            if len(self._rejects) < KEPT_REJECTS:
                self._rejects.append(Reject(where=key, reason=reason, phrase=phrase, detail=f"{rows.uri}: {found}"))

    def said(self) -> Said:
        """All statements; of several about one pair the last."""
        pair_p = np.concatenate([*self._pair_p, np.empty(0, np.int64)])
        presence_p = np.concatenate([*self._presence_p, np.empty(0, np.float64)])
        mask_p = np.concatenate([*self._mask_p, np.empty(0, np.int64)])
        pairs, from_end = np.unique(pair_p[::-1], return_index=True)
        last = len(pair_p) - 1 - from_end
        image_p, phrase_p = np.divmod(pairs, max(1, len(self._inventory.phrases)))
        return Said(
            image_p=image_p,
            phrase_p=phrase_p.astype(np.int32),
            presence_p=presence_p[last],
            mask_p=mask_p[last],
            masks=tuple(self._masks),
            num_phrases=len(self._inventory.phrases),
            rejects=tuple(self._rejects),
            num_rejects=dict(self._num_rejects),
        )
