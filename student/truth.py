"""What is true of a split: each picture and phrase that a build asks, once, however often and for whatever reasons.

A repeat of a picture is that picture, and a phrase that is asked as random and as popular is one prompt of both kinds.
True masks stay on disk and are streamed from the labels, so that memory goes with the prompts and not with their masks.
"""

# N prompts, I pictures, S sources, K kinds of negatives, R rows of a table

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.errors import ManifestError, Rejected
from manifests.manifest import MANIFEST_NAME, Manifest, read_manifest
from manifests.recipe import SacoSource
from manifests.sample import KINDS, Mask, MaskState
from manifests.tables import IMAGES, LABELS, SAMPLES, iterate_groups, iterate_table
from shards.labels import normalise_phrase, phrase_id
from student.numbers import Numbers, encode_as_dictionary

MASK_STATES = tuple(MaskState)
NO_PROMPT = -1
_OBJECT_ROWS = 1024  # rows held as Python objects, which take several times an Arrow table's memory
_COLUMNS = ["split", "image_key", "source", "width", "height", "phrase", "present", "mask_state", "kind"]

_Int64 = NDArray[np.int64]
_Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The prompts of one split, sorted by picture (as written) and phrase (as first met), each pair once."""

    folder: str
    build: str  # its name
    build_sha256: str  # its recipe and inputs
    split: str
    keys: pa.Array  # [I] of pictures, without the ending of a repeat
    phrases: tuple[str, ...]
    sources: tuple[str, ...]
    is_saco_s: _Bool  # [S] whether a source is of SA-Co
    source_i: _Int64
    size_i2: _Int64  # height and width
    closed_i: _Bool  # whether presence can be judged there: it is labelled exhaustively, or absences are known
    image_n: _Int64
    phrase_n: _Int64
    present_n: _Bool
    complete_n: _Bool  # present, and its masks are all of it
    masked_n: _Bool  # present, with masks that are all of it or part of it
    kinds_nk: _Bool  # for which reasons it is asked; none where it is present

    def __len__(self) -> int:
        return len(self.image_n)

    def key(self, prompt: int) -> str:
        """The picture of a prompt."""
        return str(self.keys[int(self.image_n[prompt])].as_py())

    def phrase(self, prompt: int) -> str:
        """The phrase of a prompt, as the build writes it."""
        return self.phrases[int(self.phrase_n[prompt])]


class Places:
    """Finds the prompts of a split by the keys and phrases of any table."""

    def __init__(self, truth: Truth) -> None:
        self._keys = truth.keys
        self._number = {phrase_id(phrase): at for at, phrase in enumerate(truth.phrases)}
        self._pair_n = truth.image_n * max(1, len(truth.phrases)) + truth.phrase_n

    def images_of(self, keys: pa.Array | pa.ChunkedArray) -> _Int64:
        """The picture of each key [R], or −1."""
        return _numbers_in(keys, self._keys)

    def phrases_of(self, phrases: pa.Array | pa.ChunkedArray) -> _Int64:
        """The phrase of each text [R], or −1; texts are equal if their casefolded forms are."""
        encoded = encode_as_dictionary(phrases)
        found = np.array([*map(self._phrase, encoded.dictionary.to_pylist()), NO_PROMPT], np.int64)
        phrase_r: _Int64 = found[pc.fill_null(encoded.indices, len(found) - 1).to_numpy()]
        return phrase_r

    def prompts_of(self, image_r: _Int64, phrase_r: _Int64) -> _Int64:
        """The prompt of each pair of picture and phrase [R], or NO_PROMPT."""
        if not len(self._pair_n):
            return np.full(len(image_r), NO_PROMPT, np.int64)
        pair_r = image_r * max(1, len(self._number)) + phrase_r
        place_r = np.minimum(np.searchsorted(self._pair_n, pair_r), len(self._pair_n) - 1)
        is_asked = (image_r >= 0) & (phrase_r >= 0) & (self._pair_n[place_r] == pair_r)
        return np.where(is_asked, place_r, NO_PROMPT)

    def _phrase(self, text: str | None) -> int:
        try:
            return self._number.get(phrase_id(normalise_phrase(text or "")), NO_PROMPT)
        except Rejected:
            return NO_PROMPT


def digest_of_build(manifest: Manifest) -> str:
    """What an evaluation calls the build that it judges by."""
    return hashlib.sha256(f"{manifest.recipe_sha256} {manifest.inputs_sha256}".encode()).hexdigest()


def read_truth(folder: str, split: str) -> Truth:
    """The prompts of `split` of the build in `folder`.

    Raises:
        ManifestError: the build is unfinished or damaged, or has no samples of the split.
        TableError: `samples.parquet` cannot be read.
    """
    manifest = read_manifest(folder)
    if not manifest.splits.get(split):
        there = ", ".join(name for name, shards in manifest.splits.items() if shards) or "none"
        raise ManifestError(
            f"{files.join(folder, MANIFEST_NAME)}: has no samples of split {split!r}; it has {there}. "
            "Name one of these, or build with a share for it"
        )
    reading = _Reading()
    for rows in iterate_table(files.join(folder, "samples.parquet"), SAMPLES, _COLUMNS):
        reading.add(rows.filter(pc.equal(rows["split"], split)))
    return reading.truth(folder, manifest, split)


def true_masks(truth: Truth, wanted_n: _Bool) -> Iterator[tuple[int, tuple[Mask, ...]]]:
    """The true masks of each wanted prompt that has some, one per instance; in the labels' order.

    Raises:
        TableError: `labels.parquet` cannot be read.
    """
    uri, places = files.join(truth.folder, "labels.parquet"), Places(truth)
    for read in iterate_groups(uri, LABELS):
        rows = read(["key", "phrase", "state"])
        prompt_r = places.prompts_of(places.images_of(rows["key"]), places.phrases_of(rows["phrase"]))
        is_present = pc.equal(rows["state"], "present").to_numpy()
        chosen = np.flatnonzero((prompt_r >= 0) & is_present & wanted_n[prompt_r])
        if not len(chosen):
            continue
        for row, found in unpack(read(["masks"])["masks"], chosen):
            prompt = int(prompt_r[row])
            if found:
                yield prompt, tuple(Mask(size=tuple(one["size"]), counts=one["counts"]) for one in found)


def unpack(column: pa.ChunkedArray, rows: _Int64) -> Iterator[tuple[int, Any]]:
    """Each of some rows and what stands there as Python objects, of which few are in memory at once."""
    for start in range(0, len(rows), _OBJECT_ROWS):
        chosen = rows[start : start + _OBJECT_ROWS]
        yield from zip(chosen.tolist(), column.take(pa.array(chosen)).to_pylist(), strict=True)


def _numbers_in(column: pa.Array | pa.ChunkedArray, values: pa.Array) -> _Int64:
    """Where each value stands in `values`, or −1."""
    numbers: _Int64 = pc.fill_null(pc.index_in(column, value_set=values), NO_PROMPT).to_numpy().astype(np.int64)
    return numbers


class _Reading:
    """The prompts of a split while row groups come in."""

    def __init__(self) -> None:
        self._images, self._sources, self._texts = Numbers(), Numbers(), Numbers()
        self._columns: dict[str, list[NDArray[np.int64]]] = {}

    def add(self, rows: pa.Table) -> None:
        """Take the rows of one row group, which are of the split."""
        if not rows.num_rows:
            return
        kind_names = pa.array([str(kind) for kind in KINDS], pa.string())
        states = pa.array([str(state) for state in MASK_STATES], pa.string())
        columns = {
            "image": self._images.column(rows["image_key"]),
            "source": self._sources.column(rows["source"]),
            "text": self._texts.column(rows["phrase"]),
            "height": rows["height"].to_numpy().astype(np.int64),
            "width": rows["width"].to_numpy().astype(np.int64),
            "present": rows["present"].to_numpy().astype(np.int64),
            "mask_state": _numbers_in(rows["mask_state"], states),
            "kind": _numbers_in(rows["kind"], kind_names),
        }
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column)

    def truth(self, folder: str, manifest: Manifest, split: str) -> Truth:
        """All that was read, each pair of picture and phrase once."""
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        phrases = Numbers()
        phrase_t = np.array([phrases.number(phrase_id(text)) for text in self._texts.of], np.int64)
        num_phrases = len(phrases.of)
        pair_r = columns["image"] * num_phrases + phrase_t[columns["text"]]
        pair_n, prompt_r = np.unique(pair_r, return_inverse=True)
        is_present_r = columns["present"] > 0
        state_r = np.where(is_present_r, columns["mask_state"], -1)
        kinds_nk = np.zeros((len(pair_n), len(KINDS)), np.bool_)
        kinds_nk[prompt_r[~is_present_r], columns["kind"][~is_present_r]] = True
        image_first = np.unique(columns["image"], return_index=True)[1]
        text_first = np.unique(phrase_t, return_index=True)[1]
        keys = pa.array(list(self._images.of), pa.string())
        closed_i = _labelled_closed(folder, keys)
        closed_i[columns["image"][~is_present_r]] = True
        texts = list(self._texts.of)
        found = Truth(
            folder=folder,
            build=manifest.name,
            build_sha256=digest_of_build(manifest),
            split=split,
            keys=keys,
            phrases=tuple(texts[at] for at in text_first.tolist()),
            sources=tuple(self._sources.of),
            is_saco_s=np.array([_is_saco(manifest, name) for name in self._sources.of], np.bool_),
            source_i=columns["source"][image_first],
            size_i2=np.stack([columns["height"][image_first], columns["width"][image_first]], axis=1),
            closed_i=closed_i,
            image_n=pair_n // num_phrases,
            phrase_n=pair_n % num_phrases,
            present_n=_any_of(is_present_r, prompt_r, len(pair_n)),
            complete_n=_any_of(state_r == MASK_STATES.index(MaskState.COMPLETE), prompt_r, len(pair_n)),
            masked_n=_any_of((state_r >= 0) & (state_r != MASK_STATES.index(MaskState.NONE)), prompt_r, len(pair_n)),
            kinds_nk=kinds_nk,
        )
        _require_one_answer(found)
        return found


def _labelled_closed(folder: str, keys: pa.Array) -> _Bool:
    """Whether what is absent from each picture [I] can be told from its labels."""
    closed_i = np.zeros(len(keys), np.bool_)
    uri = files.join(folder, "images.parquet")
    for rows in iterate_table(uri, IMAGES, ["key", "exhaustive_over", "open_over"]):
        for name in ("exhaustive_over", "open_over"):
            has_names = pc.greater(pc.fill_null(pc.list_value_length(rows[name]), 0), 0)
            image_r = _numbers_in(rows["key"].filter(has_names), keys)
            closed_i[image_r[image_r >= 0]] = True
    return closed_i


def _is_saco(manifest: Manifest, source: str) -> bool:
    return isinstance(manifest.recipe.sources.get(source), SacoSource)


def _any_of(is_so_r: _Bool, prompt_r: _Int64, num: int) -> _Bool:
    """Whether any row of each prompt is so."""
    is_so_n = np.zeros(num, np.bool_)
    is_so_n[prompt_r[is_so_r]] = True
    return is_so_n


def _require_one_answer(truth: Truth) -> None:
    both = np.flatnonzero(truth.present_n & truth.kinds_nk.any(axis=1))
    if len(both):
        at = int(both[0])
        raise ManifestError(
            f"{files.join(truth.folder, 'samples.parquet')}: {truth.phrase(at)!r} is both present and absent in "
            f"{truth.key(at)}; expected one answer. Run python -m shards.verify {truth.folder}"
        )
