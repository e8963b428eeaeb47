"""All pictures and labels of a build as arrays: what planning needs, without bytes and masks.

The catalog's parts are read one after another; a phrase becomes a number, equal where its casefolded text is equal,
and a label a row of small integers with the byte range of its masks. Memory grows with labels by about 26 bytes each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.errors import RecipeError, SourceError
from manifests.ragged import rows_of_groups
from manifests.sample import MaskState
from manifests.tables import CATALOG, LABEL_RANGES, iterate_table, read_table
from shards.labels import Lexicon, phrase_id
from shards.phrase_file import read_phrases
from shards.scan import ScannedPart
from shards.sources.source import KnownBy, LabelState, Prepared

# N pictures, L labels (sorted by picture), V phrases, G distinct sets of vocabularies
STATES = tuple(LabelState)
MASK_STATES = tuple(MaskState)
PRESENT, ABSENT = STATES.index(LabelState.PRESENT), STATES.index(LabelState.ABSENT)
KNOWN_BY = get_args(KnownBy)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Every label; those of picture n are rows `starts[n]` to `starts[n + 1]`."""

    starts: NDArray[np.int64]  # N + 1
    phrase_l: NDArray[np.int32]
    state_l: NDArray[np.int8]  # index into STATES
    mask_state_l: NDArray[np.int8]  # index into MASK_STATES
    part_l: NDArray[np.int32]  # index into the inventory's parts
    offset_l: NDArray[np.int64]  # of the masks in that part's file
    num_bytes_l: NDArray[np.int32]
    known_by_l: NDArray[np.int8]  # index into KNOWN_BY

    def rows_of(self, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Label rows of `pictures`, and for each of them the position in `pictures` that it belongs to."""
        return rows_of_groups(self.starts[pictures], self.starts[pictures + 1] - self.starts[pictures])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inventory:
    """All pictures that may be planned, and all that is known of them."""

    images: pa.Table  # CATALOG columns, without duplicate keys
    vocabularies: Mapping[str, tuple[str, ...]]
    sources: tuple[str, ...]
    source_n: NDArray[np.int16]  # index into `sources`
    content_n: NDArray[np.uint64]  # first 64 bits of the sha256
    phrases: tuple[str, ...]  # V, as they are asked
    labels: Labels
    parts: tuple[ScannedPart, ...]
    vocabulary_g: NDArray[np.bool_]  # G × V: over which phrases such pictures are exhaustive
    group_n: NDArray[np.int32]  # index into `vocabulary_g`
    implied: NDArray[np.int32]  # what each phrase's presence says is present, itself included, phrase after phrase
    implied_starts: NDArray[np.int64]  # V + 1; those of phrase v are `implied_starts[v]` to `implied_starts[v + 1]`
    duplicates: tuple[tuple[str, str], ...]  # source and key of dropped pictures

    @property
    def num_images(self) -> int:
        """Pictures that may be planned."""
        return int(self.images.num_rows)

    def blocked(self, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Pairs of (position in `pictures`, phrase) that may never be asked as absent: said present, or left open."""
        rows, owner = self.labels.rows_of(pictures)
        said = self.labels.state_l[rows] != ABSENT
        phrase, owner = self.labels.phrase_l[rows[said]], owner[said]
        first = self.implied_starts[phrase]
        rows, of_phrase = rows_of_groups(first, self.implied_starts[phrase + 1] - first)
        return owner[of_phrase], self.implied[rows]

    def present(self, pictures: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Label rows that say present, and the position in `pictures` of each."""
        rows, owner = self.labels.rows_of(pictures)
        here = self.labels.state_l[rows] == PRESENT
        return rows[here], owner[here]

    def exhaustive_n(self) -> NDArray[np.bool_]:
        """Whether a picture's labels are exhaustive over anything."""
        exhaustive_g: NDArray[np.bool_] = np.any(self.vocabulary_g, axis=1)
        return exhaustive_g[self.group_n]

    def known_n(self) -> NDArray[np.bool_]:
        """False for pictures of which nothing is known: they await phrases."""
        return (np.diff(self.labels.starts) > 0) | self.exhaustive_n()


class _Phrases:
    """Phrases by number, in order of first appearance."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.texts: list[str] = []

    def add(self, text: str) -> int:
        folded = phrase_id(text)
        found = self.number.get(folded)
        if found is None:
            found = self.number[folded] = len(self.texts)
            self.texts.append(text)
        return found

    def of_column(self, column: pa.ChunkedArray) -> NDArray[np.int32]:
        encoded = pc.dictionary_encode(column).combine_chunks()
        numbers = np.array([self.add(text) for text in encoded.dictionary.to_pylist()], np.int32)
        return numbers[encoded.indices.to_numpy(zero_copy_only=False)] if len(numbers) else np.empty(0, np.int32)


def load_inventory(
    parts: Sequence[ScannedPart],
    prepared: Mapping[str, Prepared],
    lexicon: Lexicon,
    *,
    vocabulary_files: Mapping[str, str],
) -> Inventory:
    """Everything that was scanned.

    Args:
        parts: In the order of the recipe's sources.
        prepared: What each source said of its vocabularies.
        lexicon: Synonyms and hypernyms.
        vocabulary_files: Where a vocabulary that no source brings lies, by the name that the recipe gives it.

    Raises:
        RecipeError: `exhaustive_over` names a vocabulary that is neither a source's nor a file.
        SourceError: two sources bring different vocabularies of one name, or nothing was scanned at all.
    """
    images, part_of_row = _load_images(parts)
    images, kept, duplicates = _drop_duplicate_keys(images)
    phrases = _Phrases()
    labels = _load_labels(parts, images, part_of_row[kept], phrases)
    vocabularies = vocabularies_of(prepared, vocabulary_files)
    numbered = {name: [phrases.add(text) for text in texts] for name, texts in vocabularies.items()}
    vocabulary_g, group_n = _group(images, numbered, len(phrases.texts))
    sources = tuple(dict.fromkeys(part.source for part in parts))
    closure = lexicon.closure(phrases.texts)
    return Inventory(
        images=images,
        vocabularies=vocabularies,
        sources=sources,
        source_n=pc.index_in(images["source"], pa.array(sources)).to_numpy().astype(np.int16),
        content_n=_words(images["sha256"]),
        phrases=tuple(phrases.texts),
        labels=labels,
        parts=tuple(parts),
        vocabulary_g=vocabulary_g,
        group_n=group_n,
        implied=np.concatenate([*closure, np.empty(0, np.int64)]).astype(np.int32),
        implied_starts=np.cumsum([0, *map(len, closure)]),
        duplicates=duplicates,
    )


def vocabularies_of(
    prepared: Mapping[str, Prepared], vocabulary_files: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Every vocabulary by name: those that the sources bring, and those of files."""
    found: dict[str, tuple[str, ...]] = {}
    for source, holds in prepared.items():
        for name, texts in holds.vocabularies.items():
            if found.setdefault(name, texts) != texts:
                raise SourceError(
                    f"source {source} brings another vocabulary of the name {name!r}; expected one meaning per name. "
                    "Rename one of the sources"
                )
    for name, uri in vocabulary_files.items():
        if name not in found:
            found[name] = read_phrases(uri, name).phrases
    return found


def _load_images(parts: Sequence[ScannedPart]) -> tuple[pa.Table, NDArray[np.int32]]:
    tables = [read_table(part.catalog, CATALOG) for part in parts]
    if not sum(table.num_rows for table in tables):
        where = f"see {parts[0].folder}/*.rejects.parquet" if parts else "the sources hold no part"
        raise SourceError(f"no picture is left after the scan; expected at least one: {where}")
    part_of_row = np.repeat(np.arange(len(tables), dtype=np.int32), [table.num_rows for table in tables])
    return pa.concat_tables(tables), part_of_row


def _drop_duplicate_keys(images: pa.Table) -> tuple[pa.Table, NDArray[np.int64], tuple[tuple[str, str], ...]]:
    """The first row of every key, the rows kept, and source and key of the others.

    Raises:
        SourceError: two sources share a key; one of them is a build, which keeps those of its own sources.
    """
    encoded = pc.dictionary_encode(images["key"]).combine_chunks()
    numbers = encoded.indices.to_numpy()
    _, first = np.unique(numbers, return_index=True)
    kept = np.sort(first)
    if len(kept) == images.num_rows:
        return images, kept, ()
    later = np.setdiff1d(np.arange(images.num_rows), kept)
    dropped, taken_by = images.take(later), images["source"].take(first[numbers[later]])
    strangers = pc.index(pc.not_equal(dropped["source"], taken_by), True).as_py()
    if strangers >= 0:
        raise SourceError(
            f"sources {taken_by[strangers]} and {dropped['source'][strangers]} both hold a picture of the key "
            f"{dropped['key'][strangers].as_py()!r}; expected every key in one source. A build keeps the keys of the "
            "sources that it was made of: leave one of the two out"
        )
    pairs = zip(dropped["source"].to_pylist(), dropped["key"].to_pylist(), strict=True)
    return images.take(kept), kept, tuple(pairs)


def _load_labels(
    parts: Sequence[ScannedPart], images: pa.Table, part_of_row: NDArray[np.int32], phrases: _Phrases
) -> Labels:
    edges = np.searchsorted(part_of_row, np.arange(len(parts) + 1))
    columns: list[list[NDArray[np.int64]]] = []
    for index, part in enumerate(parts):
        keys = images["key"].slice(edges[index], edges[index + 1] - edges[index]).combine_chunks()
        read = iterate_table(part.labels, LABEL_RANGES)
        columns.extend(_label_columns(rows, keys, int(edges[index]), index, phrases) for rows in read)
    joined = [np.concatenate(c) for c in zip(*columns, strict=True)] if columns else [np.empty(0, np.int64)] * 8
    picture, phrase, state, mask_state, part_l, offset, num_bytes, known_by = joined
    order = np.argsort(picture, kind="stable")
    return Labels(
        starts=np.searchsorted(picture[order], np.arange(images.num_rows + 1)).astype(np.int64),
        phrase_l=phrase[order].astype(np.int32),
        state_l=state[order].astype(np.int8),
        mask_state_l=mask_state[order].astype(np.int8),
        part_l=part_l[order].astype(np.int32),
        offset_l=offset[order],
        num_bytes_l=num_bytes[order].astype(np.int32),
        known_by_l=known_by[order].astype(np.int8),
    )


def _label_columns(
    rows: pa.Table, keys: pa.Array, first_row: int, part: int, phrases: _Phrases
) -> list[NDArray[np.int64]]:
    """The label columns of some rows, as numbers; rows of pictures that were dropped are left out."""
    picture = pc.index_in(rows["key"], keys)
    rows = rows.filter(pc.is_valid(picture))
    picture = pc.drop_null(picture)
    return [
        picture.to_numpy().astype(np.int64) + first_row,
        phrases.of_column(rows["phrase"]).astype(np.int64),
        pc.index_in(rows["state"], pa.array([str(s) for s in STATES])).to_numpy().astype(np.int64),
        pc.index_in(rows["mask_state"], pa.array([str(s) for s in MASK_STATES])).to_numpy().astype(np.int64),
        np.full(rows.num_rows, part, np.int64),
        rows["masks_offset"].to_numpy(),
        rows["masks_num_bytes"].to_numpy().astype(np.int64),
        pc.index_in(rows["known_by"], pa.array(KNOWN_BY)).to_numpy().astype(np.int64),
    ]


def _group(
    images: pa.Table, numbered: Mapping[str, Sequence[int]], num_phrases: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """The distinct sets of exhaustive vocabularies as rows of phrases, and each picture's row."""
    names = pc.binary_join(images["exhaustive_over"], "\n")
    encoded = pc.dictionary_encode(names).combine_chunks()
    sets = encoded.dictionary.to_pylist()
    vocabulary_g = np.zeros((len(sets), num_phrases), np.bool_)
    for row, joined in zip(vocabulary_g, sets, strict=True):
        for name in filter(None, joined.split("\n")):
            if name not in numbered:
                known = ", ".join(sorted(numbered)) or "none"
                raise RecipeError(
                    f"exhaustive_over names {name!r}, which is no vocabulary; expected a source's name or a file. "
                    f"The vocabularies are: {known}"
                )
            row[list(numbered[name])] = True
    return vocabulary_g, encoded.indices.to_numpy().astype(np.int32)


def _words(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """First 64 bits of hex digests."""
    head = pc.cast(pc.utf8_slice_codeunits(column, 0, 16), pa.binary()).cast(pa.binary(16)).combine_chunks()
    raw = np.frombuffer(head.buffers()[1], np.uint8).reshape(-1, 16)[head.offset : head.offset + len(head)]
    nibbles = np.where(raw >= ord("a"), raw - ord("a") + 10, raw - ord("0")).astype(np.uint8)
    packed = (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).astype(np.uint8)
    words: NDArray[np.uint64] = np.ascontiguousarray(packed).view(">u8").reshape(-1).astype(np.uint64)
    return words
