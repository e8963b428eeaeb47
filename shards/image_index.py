"""images.parquet in some twenty bytes an image: where each stands, and over what its labels are exhaustive."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.recipe import SPLITS
from manifests.tables import IMAGES, VOCABULARIES, iterate_table, read_table
from shards.faults import Check, Fault
from shards.labels import phrase_id
from shards.pair_hash import Hashes, find, hash_keys, hash_text, hash_texts

# N images, sorted by the hash of their keys; S distinct sets of vocabularies

_TABLE = "images.parquet"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageIndex:
    """Every image of a build."""

    folder: str
    key_n: Hashes
    group_n: Hashes
    split_n: NDArray[np.int8]  # index into SPLITS, -1 for another word
    source_n: NDArray[np.int16]  # index into `sources`
    width_n: NDArray[np.int32]
    height_n: NDArray[np.int32]
    set_n: NDArray[np.int16]  # index into `vocabulary_s`
    used_n: NDArray[np.bool_]  # set where a sample shows the image
    sources: tuple[str, ...]
    vocabulary_s: tuple[Hashes, ...]  # phrases over which such images are exhaustive
    unknown: tuple[str, ...]  # vocabularies that images name and vocabularies.parquet does not hold

    def faults(self, leaks: Sequence[str]) -> Iterator[Fault]:
        """Keys that stand twice, and near-duplicates in two splits that are not among `leaks`."""
        for name in self.unknown:
            yield _fault(Check.TABLE, f"exhaustive_over names {name!r}, which vocabularies.parquet does not hold")
        twice = np.unique(self.key_n[1:][self.key_n[1:] == self.key_n[:-1]])
        for key in dict.fromkeys(self._names("key", twice)):
            yield _fault(Check.SPLIT, "the image stands in two rows; expected one row, in one split", key)
        order = np.lexsort((self.split_n, self.group_n))
        group, split = self.group_n[order], self.split_n[order]
        torn = np.unique(group[1:][(group[1:] == group[:-1]) & (split[1:] != split[:-1])])
        torn = torn[~np.isin(torn, hash_texts(list(leaks)))]
        for key in dict.fromkeys(self._names("group", torn)):
            yield _fault(Check.SPLIT, "its near-duplicates stand in two splits, and the manifest's leaks lack it", key)

    def unused(self) -> Iterator[Fault]:
        """Images that no sample shows; to be asked after all samples were seen."""
        for key in self._names("key", np.setdiff1d(self.key_n[~self.used_n], self.key_n[self.used_n])):
            yield _fault(Check.ROW, "no sample shows the image", key)

    def _names(self, column: str, wanted: Hashes) -> Iterator[str]:
        """The texts of `column` whose hashes are wanted."""
        if not len(wanted):
            return
        for rows in iterate_table(files.join(self.folder, _TABLE), IMAGES, [column]):
            for place in np.flatnonzero(find(wanted, hash_keys(rows[column])) >= 0).tolist():
                yield rows[column][place].as_py()


def _fault(check: Check, message: str, key: str = "") -> Fault:
    return Fault(check=check, where=_TABLE, key=key, message=message)


def load_images(folder: str) -> ImageIndex:
    """The index of the build in `folder`.

    Raises:
        TableError: images.parquet or vocabularies.parquet cannot be read.
    """
    phrases = _vocabularies(folder)
    sets, sources = _Numbers(), _Numbers()
    columns = [_columns(rows, sets, sources) for rows in iterate_table(files.join(folder, _TABLE), IMAGES)]
    joined = [np.concatenate(c) for c in zip(*columns, strict=True)] if columns else [np.empty(0, np.uint64)] * 7
    order = np.argsort(joined[0], kind="stable")
    key, group, split, source, width, height, set_n = (column[order] for column in joined)
    named = [tuple(filter(None, joined_names.split("\n"))) for joined_names in sets.texts]
    return ImageIndex(
        folder=folder,
        key_n=key.astype(np.uint64),
        group_n=group.astype(np.uint64),
        split_n=split.astype(np.int8),
        source_n=source.astype(np.int16),
        width_n=width.astype(np.int32),
        height_n=height.astype(np.int32),
        set_n=set_n.astype(np.int16),
        used_n=np.zeros(len(key), np.bool_),
        sources=tuple(sources.texts),
        vocabulary_s=tuple(_union([phrases.get(name, set()) for name in names]) for names in named),
        unknown=tuple(sorted({name for names in named for name in names} - phrases.keys())),
    )


class _Numbers:
    """Texts by number, in order of first appearance."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def of(self, column: pa.ChunkedArray) -> NDArray[np.int16]:
        """The number of each text of a column."""
        encoded = pc.dictionary_encode(column).combine_chunks()
        found = encoded.dictionary.to_pylist()
        self.texts += [text for text in found if text not in self.texts]
        numbers = np.array([self.texts.index(text) for text in found], np.int16)
        taken: NDArray[np.int16] = numbers[encoded.indices.to_numpy()]
        return taken


def _columns(rows: pa.Table, sets: _Numbers, sources: _Numbers) -> list[NDArray[np.generic]]:
    return [
        hash_keys(rows["key"]),
        hash_keys(rows["group"]),
        pc.fill_null(pc.index_in(rows["split"], pa.array(SPLITS)), -1).to_numpy(),
        sources.of(rows["source"]),
        rows["width"].to_numpy(),
        rows["height"].to_numpy(),
        sets.of(pc.binary_join(rows["exhaustive_over"], "\n")),
    ]


def _vocabularies(folder: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    rows = read_table(files.join(folder, "vocabularies.parquet"), VOCABULARIES)
    for name, phrase in zip(rows["vocabulary"].to_pylist(), rows["phrase"].to_pylist(), strict=True):
        found.setdefault(name, set()).add(hash_text(phrase_id(phrase)))
    return found


def _union(sets: Sequence[set[int]]) -> Hashes:
    return np.array(sorted(set().union(*sets)), np.uint64)
