"""The rows of negatives tables as arrays: joined to what was scanned, held against its labels, each pair once.

A table may come from this build's own mining, from an earlier round or from another program, so nothing in it is taken
on trust: what joins nothing, what the labels contradict and what the recipe does not allow is dropped and counted.
Memory grows with the rows of the tables; of pictures and labels no more is held than is being looked at.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.errors import Reason, TableError
from manifests.ragged import rows_of_groups
from manifests.recipe import MINED_KINDS, SPLITS, Recipe
from manifests.sample import KINDS, Evidence, MinedKind, NegativeKind
from manifests.tables import NEGATIVES, read_table
from shards.inventory import Inventory
from shards.labelled import blocked, denied
from shards.labels import phrase_id
from shards.splits import Assignment

# M mined rows, R rows of one table, N pictures of the inventory
EVIDENCES = tuple(Evidence)
HARDEST_FIRST: tuple[MinedKind, ...] = (NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT, NegativeKind.FALSE_ALARM)
_ABSENT_EVIDENCES = (Evidence.ANNOTATED, Evidence.VERIFIED, Evidence.MINED)
_COLUMNS = [name for name in NEGATIVES.names if name != "positive_box"]
_SCORES = ("score", "standard_score", "positive_score")
_NO_RANK = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mined:
    """Absences that were mined and that train may be asked, sorted by picture and phrase; each pair stands once."""

    image_m: NDArray[np.int64]  # row of the inventory
    phrase_m: NDArray[np.int32]
    kind_m: NDArray[np.int8]  # index into KINDS
    evidence_m: NDArray[np.int8]  # index into EVIDENCES
    denied_m: NDArray[np.bool_]  # the labels say absent, so that a kind which is not mined may ask it, too
    score_m: NDArray[np.float32]
    standard_score_m: NDArray[np.float32]
    rank_m: NDArray[np.int32]
    positive_score_m: NDArray[np.float32]
    positive_key_m: pa.DictionaryArray
    miner_m: pa.DictionaryArray
    dropped: Mapping[Reason, int]  # rows of all tables that cannot be asked, by reason
    num_read: int

    @property
    def num_rows(self) -> int:
        """Pairs that may be asked."""
        return len(self.image_m)

    def rows_of(self, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of `pictures`, and for each of them the position in `pictures` that it belongs to."""
        first = np.searchsorted(self.image_m, pictures)
        return rows_of_groups(first, np.searchsorted(self.image_m, pictures, side="right") - first)

    def best_rank_n(self, kind_index: int, num_images: int) -> NDArray[np.int32]:
        """The best rank of a kind's rows of each picture; one past all ranks where it has none."""
        best_n = np.full(num_images, _NO_RANK, np.int32)
        here = self.kind_m == kind_index
        rank = np.where(self.rank_m[here] < 0, _NO_RANK - 1, self.rank_m[here])
        np.minimum.at(best_n, self.image_m[here], rank)
        return best_n

    def notes(self) -> tuple[str, ...]:
        """What was dropped, in a sentence; none where nothing was."""
        if not self.dropped:
            return ()
        counted = ", ".join(f"{num} {reason}" for reason, num in sorted(self.dropped.items()))
        total = sum(self.dropped.values())
        return (f"mined: {total} of {self.num_read} rows of the negatives tables cannot be asked here: {counted}",)


def nothing_mined() -> Mined:
    """No row at all."""
    small, scores, none = np.empty(0, np.int8), np.empty(0, np.float32), pa.array([], pa.string()).dictionary_encode()
    return Mined(
        image_m=np.empty(0, np.int64),
        phrase_m=np.empty(0, np.int32),
        kind_m=small,
        evidence_m=small,
        denied_m=np.empty(0, np.bool_),
        score_m=scores,
        standard_score_m=scores,
        rank_m=np.empty(0, np.int32),
        positive_score_m=scores,
        positive_key_m=none,
        miner_m=none,
        dropped={},
        num_read=0,
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Joined:
    """Rows of one table with the inventory's numbers, and what was dropped of it."""

    rows: pa.Table
    image_r: NDArray[np.int64]
    phrase_r: NDArray[np.int64]
    kind_r: NDArray[np.int64]
    evidence_r: NDArray[np.int64]
    dropped: Counter[Reason]

    def keep(self, kept_r: NDArray[np.bool_], reason: Reason | None = None) -> None:
        """Go on with some rows; the others are counted if a reason says why they went."""
        lost = int((~kept_r).sum())
        if not lost:
            return
        if reason is not None:
            self.dropped[reason] += lost
        self.rows = self.rows.filter(pa.array(kept_r))
        self.image_r, self.phrase_r = self.image_r[kept_r], self.phrase_r[kept_r]
        self.kind_r, self.evidence_r = self.kind_r[kept_r], self.evidence_r[kept_r]


def read_mined(uris: Sequence[str], inventory: Inventory, assignment: Assignment, recipe: Recipe) -> Mined:
    """The rows of the negatives tables that train may be asked.

    Where a picture and a phrase stand twice, the first table wins, within a table the better rank. Rows of val and
    test, and of kinds that the recipe does not ask, are passed over: they are not wrong.

    Args:
        uris: NEGATIVES tables.
        inventory: What was scanned.
        assignment: Where every picture stands.
        recipe: For the kinds and the evidence that it allows.

    Raises:
        TableError: a table cannot be read, none of its keys is known, or a row is of no kind that is mined.
    """
    numbers = {phrase_id(text): number for number, text in enumerate(inventory.phrases)}
    found = [_read(uri, inventory, assignment, recipe, numbers) for uri in uris]
    dropped: Counter[Reason] = sum((joined.dropped for joined, _ in found), Counter())
    num_read = sum(num for _, num in found)
    parts = [joined for joined, _ in found if joined.rows.num_rows]
    rows = pa.concat_tables([joined.rows for joined in parts] or [NEGATIVES.empty_table().select(_COLUMNS)])
    table_m = np.repeat(np.arange(len(parts)), [joined.rows.num_rows for joined in parts]).astype(np.int64)
    image_m, phrase_m, kind_m, evidence_m = (
        np.concatenate([*(getattr(joined, name) for joined in parts), np.empty(0, np.int64)])
        for name in ("image_r", "phrase_r", "kind_r", "evidence_r")
    )
    order = _in_order(rows, table_m, image_m, phrase_m, kind_m)
    pair = image_m[order] * max(1, len(inventory.phrases)) + phrase_m[order]
    order = order[np.concatenate([[True], pair[1:] != pair[:-1]])] if len(order) else order
    image_m, phrase_m, kind_m, evidence_m = (c[order] for c in (image_m, phrase_m, kind_m, evidence_m))
    rows = rows.take(pa.array(order))
    return Mined(
        image_m=image_m,
        phrase_m=phrase_m.astype(np.int32),
        kind_m=kind_m.astype(np.int8),
        evidence_m=evidence_m.astype(np.int8),
        denied_m=denied(inventory, image_m, phrase_m),
        score_m=rows["score"].to_numpy(),
        standard_score_m=rows["standard_score"].to_numpy(),
        rank_m=rows["rank"].to_numpy(),
        positive_score_m=rows["positive_score"].to_numpy(),
        positive_key_m=_encoded(rows["positive_key"]),
        miner_m=_encoded(rows["miner"]),
        dropped={reason: num for reason, num in dropped.items() if num},
        num_read=num_read,
    )


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return (
        pc.dictionary_encode(column.combine_chunks()) if len(column) else pa.array([], pa.string()).dictionary_encode()
    )


def _in_order(
    rows: pa.Table,
    table_m: NDArray[np.int64],
    image_m: NDArray[np.int64],
    phrase_m: NDArray[np.int64],
    kind_m: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rows by picture and phrase, the one that wins first; no order of the rows in a table changes it."""
    hard_first = np.full(len(KINDS), len(KINDS))
    hard_first[[KINDS.index(kind) for kind in HARDEST_FIRST]] = np.arange(len(HARDEST_FIRST))
    rank = rows["rank"].to_numpy()
    texts = [pc.rank(rows[name].combine_chunks(), tiebreaker="dense").to_numpy() for name in ("miner", "positive_key")]
    scores = [-rows[name].to_numpy() for name in ("positive_score", "score", "standard_score")]
    evidence = pc.index_in(rows["evidence"], pa.array(map(str, EVIDENCES))).to_numpy()
    later_first = [*texts, evidence, *scores, hard_first[kind_m], np.where(rank < 0, _NO_RANK, rank), table_m]
    return np.lexsort([*later_first, phrase_m, image_m])


def _read(
    uri: str, inventory: Inventory, assignment: Assignment, recipe: Recipe, numbers: Mapping[str, int]
) -> tuple[_Joined, int]:
    """The rows of one table that may be asked, and how many it has."""
    rows = read_table(uri, NEGATIVES, _COLUMNS)
    num_read = rows.num_rows
    _require_whole(rows, uri)
    joined = _Joined(
        rows=rows,
        image_r=_numbers(rows["key"], inventory.images["key"]),
        phrase_r=_phrases(rows["phrase"], numbers),
        kind_r=_one_of(rows, "kind", tuple(map(str, MINED_KINDS)), tuple(map(str, KINDS)), uri),
        evidence_r=_one_of(rows, "evidence", tuple(map(str, EVIDENCES)), tuple(map(str, EVIDENCES)), uri),
        dropped=Counter(),
    )
    if num_read and not (joined.image_r >= 0).any():
        raise TableError(
            f"{uri}: none of its {num_read} rows is of a picture of this build; the first is of "
            f"{rows['key'][0].as_py()!r}. Expected a table over the same sources: mine it anew, or leave it out"
        )
    joined.keep(joined.image_r >= 0, Reason.UNKNOWN_KEY)
    joined.keep(joined.phrase_r >= 0, Reason.UNKNOWN_PHRASE)
    finite = [np.isfinite(joined.rows[name].to_numpy()) for name in _SCORES]
    joined.keep(np.logical_and.reduce(finite), Reason.NOT_FINITE)
    joined.keep(~blocked(inventory, joined.image_r, joined.phrase_r), Reason.ANNOTATION)
    joined.keep(_is_backed(inventory, joined, recipe), Reason.EVIDENCE)
    asked = [KINDS.index(kind) for kind in MINED_KINDS if recipe.prompts.kinds.get(kind)]
    joined.keep(np.isin(joined.kind_r, asked) & (assignment.split_n[joined.image_r] == SPLITS.index("train")))
    return joined, num_read


def _require_whole(rows: pa.Table, uri: str) -> None:
    for name in rows.column_names:
        if rows[name].null_count:
            raise TableError(
                f"{uri}: column {name} holds {rows[name].null_count} nulls; expected a value in every row, "
                "0.0, -1 or an empty text where there is none"
            )


def _numbers(column: pa.ChunkedArray, known: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each text of `column` stands in `known`, -1 where it does not."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    found: NDArray[np.int64] = pc.fill_null(pc.index_in(encoded.dictionary, known), -1).to_numpy().astype(np.int64)
    placed: NDArray[np.int64] = found[encoded.indices.to_numpy()]
    return placed


def _phrases(column: pa.ChunkedArray, numbers: Mapping[str, int]) -> NDArray[np.int64]:
    """The number of each phrase, -1 for one that no label and no vocabulary holds."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    found = np.array([numbers.get(phrase_id(text), -1) for text in encoded.dictionary.to_pylist()], np.int64)
    placed: NDArray[np.int64] = found[encoded.indices.to_numpy()]
    return placed


def _one_of(
    rows: pa.Table, column: str, allowed: Sequence[str], numbered: Sequence[str], uri: str
) -> NDArray[np.int64]:
    """The place in `numbered` of each row's value, which is one of `allowed`."""
    strange = pc.invert(pc.is_in(rows[column], pa.array(allowed)))
    place = pc.index(strange, True).as_py()
    if place >= 0:
        raise TableError(
            f"{uri}: row {place} has {column} {rows[column][place].as_py()!r}; expected one of {', '.join(allowed)}"
        )
    found: NDArray[np.int64] = pc.index_in(rows[column], pa.array(numbered)).to_numpy().astype(np.int64)
    return found


def _is_backed(inventory: Inventory, joined: _Joined, recipe: Recipe) -> NDArray[np.bool_]:
    """Whether the recipe allows a row's evidence; "annotated" is believed only where this build's labels say so."""
    wanted = [EVIDENCES.index(one) for one in recipe.prompts.evidence if one in _ABSENT_EVIDENCES]
    backed_r: NDArray[np.bool_] = np.isin(joined.evidence_r, wanted)
    annotated = np.flatnonzero(backed_r & (joined.evidence_r == EVIDENCES.index(Evidence.ANNOTATED)))
    backed_r[annotated] = denied(inventory, joined.image_r[annotated], joined.phrase_r[annotated])
    return backed_r
