"""What was asked, held against what the labels say: no absence where something is present or open, none made up.

samples.parquet and labels.parquet are joined by 64-bit hashes, eight bytes a prompt. Only what is found wrong is looked
up again by name.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.recipe import SPLITS
from manifests.sample import Evidence
from manifests.tables import LABELS, SAMPLES, iterate_table
from shards.faults import Check, Fault
from shards.image_index import ImageIndex
from shards.labels import Lexicon, phrase_id
from shards.pair_hash import Hashes, find, hash_keys, hash_phrases, hash_text, pair

# Q prompts of some rows, S samples of some rows, L labels of some rows

_Asked = tuple[int, bool]  # hash of an image and a phrase, and whether it was asked as present

_POPE = ("random", "popular", "co_occurring")
_LABEL_COLUMNS = ["key", "phrase", "state"]
_SAMPLE_COLUMNS = ["key", "image_key", "shard", "phrase", "present"]


class LabelCheck:
    """Prompts in, shard by shard; what the labels say of them at the end."""

    def __init__(self, images: ImageIndex, lexicon: Lexicon) -> None:
        self._images = images
        self._lexicon = lexicon
        self._absent: list[Hashes] = []
        self._made_up: list[Hashes] = []  # absences that no vocabulary covers: some label must deny them
        self._present: list[Hashes] = []
        self._keys: list[Hashes] = []
        self._shown: dict[str, list[tuple[str, Hashes]]] = {}

    def add(self, split: str, shard: str, rows: pa.Table) -> Iterator[Fault]:
        """Take in the rows of one shard; faults that its images show at once."""
        first_s, sample_q = _samples(rows["key"])
        picture_s = find(self._images.key_n, hash_keys(rows["image_key"]))[first_s]
        self._keys.append(hash_keys(rows["key"])[first_s])
        samples = rows.select(["key", "source", "width", "height"]).take(pa.array(first_s))
        yield from self._compare_images(split, shard, samples, picture_s)
        set_s = np.where(picture_s >= 0, self._images.set_n[picture_s] if len(self._images.set_n) else -1, -1)
        self._collect(rows, set_s[sample_q])
        if split != "train":
            yield from self._pope(shard, rows, samples["key"], sample_q, set_s)

    def _compare_images(
        self, split: str, shard: str, samples: pa.Table, picture_s: NDArray[np.int64]
    ) -> Iterator[Fault]:
        images = self._images
        known_s = picture_s >= 0
        place_s = picture_s[known_s]
        images.used_n[place_s] = True
        keys = samples["key"].filter(pa.array(known_s))
        for key in samples["key"].filter(pa.array(~known_s)).to_pylist():
            yield Fault(check=Check.ROW, where=shard, key=key, message="images.parquet has no row of its image")
        strangers = images.split_n[place_s] != SPLITS.index(split)
        for place in np.flatnonzero(strangers).tolist():
            number = images.split_n[place_s[place]]
            message = f"stands in {split}, and its image in {SPLITS[number] if number >= 0 else 'no split'}"
            yield Fault(check=Check.SPLIT, where=shard, key=keys[place].as_py(), message=message)
        source = pc.index_in(samples["source"], pa.array(images.sources, pa.string()))
        says = {
            "source": (pc.fill_null(source, -1).to_numpy()[known_s], images.source_n[place_s]),
            "width": (samples["width"].to_numpy()[known_s], images.width_n[place_s]),
            "height": (samples["height"].to_numpy()[known_s], images.height_n[place_s]),
        }
        for name, (here, there) in says.items():
            for place in np.flatnonzero(here != there).tolist():
                message = f"samples.parquet and images.parquet disagree on its {name}"
                yield Fault(check=Check.ROW, where=shard, key=keys[place].as_py(), message=message)

    def _collect(self, rows: pa.Table, set_q: NDArray[np.int64]) -> None:
        phrase_q = hash_phrases(rows["phrase"])
        pair_q = pair(hash_keys(rows["image_key"]), phrase_q)
        present_q = rows["present"].to_numpy().astype(np.bool_)
        annotated_q = pc.equal(rows["evidence"], str(Evidence.ANNOTATED)).to_numpy().astype(np.bool_)
        covered_q = np.zeros(len(pair_q), np.bool_)
        for number in np.unique(set_q[set_q >= 0]).tolist():
            here = set_q == number
            covered_q[here] = find(self._images.vocabulary_s[number], phrase_q[here]) >= 0
        self._present.append(pair_q[present_q])
        self._absent.append(pair_q[~present_q])
        self._made_up.append(pair_q[~present_q & annotated_q & ~covered_q])

    def _pope(
        self, shard: str, rows: pa.Table, keys: pa.ChunkedArray, sample_q: NDArray[np.int64], set_s: NDArray[np.int64]
    ) -> Iterator[Fault]:
        """Val and test carry the three settings in equal numbers, and on other images the random one alone."""
        counts = {kind: _count(rows["kind"], kind, sample_q, len(set_s)) for kind in _POPE}
        exhaustive_v = np.array([len(phrases) > 0 for phrases in self._images.vocabulary_s], np.bool_)
        exhaustive_s = (set_s >= 0) & (exhaustive_v[set_s] if len(exhaustive_v) else False)
        random_s, popular_s, beside_s = counts.values()
        wrong_s = (popular_s != beside_s) | (exhaustive_s & (random_s != popular_s)) | (~exhaustive_s & (popular_s > 0))
        for place in np.flatnonzero(wrong_s).tolist():
            found = ", ".join(f"{num[place]} {kind}" for kind, num in counts.items())
            rule = "equal numbers" if exhaustive_s[place] else "random ones alone, since its labels are not exhaustive"
            message = f"is asked {found} absences; expected {rule}"
            yield Fault(check=Check.KINDS, where=shard, key=keys[place].as_py(), message=message)

    def finish(self) -> Iterator[Fault]:
        """Read labels.parquet and say which prompts contradict it.

        Raises:
            TableError: it cannot be read.
        """
        yield from self._duplicate_keys()
        absent, present = _joined(self._absent), np.unique(_joined(self._present))
        made_up = np.unique(_joined(self._made_up))
        shown, denied = np.zeros(len(present), np.bool_), np.zeros(len(made_up), np.bool_)
        wrong: dict[_Asked, str] = {}
        implied = _Implied(self._lexicon)
        for rows in iterate_table(self._uri("labels"), LABELS, _LABEL_COLUMNS):
            key_l, phrase_l = hash_keys(rows["key"]), hash_phrases(rows["phrase"])
            strangers = np.flatnonzero(find(self._images.key_n, key_l) < 0)
            for key in rows["key"].take(pa.array(strangers)).unique().to_pylist():
                message = "a label of an image that images.parquet lacks"
                yield Fault(check=Check.ROW, where="labels.parquet", key=key, message=message)
            pair_l = pair(key_l, phrase_l)
            for state, wanted, marks in (("present", present, shown), ("absent", made_up, denied)):
                here = pc.equal(rows["state"], state).to_numpy().astype(np.bool_)
                found = find(wanted, pair_l[here])
                marks[found[found >= 0]] = True
            wrong |= implied.contradictions(rows, key_l, absent)
        unbacked, invented = present[~shown].tolist(), made_up[~denied].tolist()
        wrong |= {(number, True): "is asked as present, and no label says present" for number in unbacked}
        wrong |= {(number, False): "is asked as absent, though no vocabulary or label says so" for number in invented}
        yield from self._name(wrong)

    def _duplicate_keys(self) -> Iterator[Fault]:
        key_s = np.sort(_joined(self._keys))
        twice = np.unique(key_s[1:][key_s[1:] == key_s[:-1]])
        if not len(twice):
            return
        found: dict[str, list[str]] = {}
        for rows in iterate_table(self._uri("samples"), SAMPLES, ["key", "shard"]):
            here = pa.array(find(twice, hash_keys(rows["key"])) >= 0)
            columns = (rows[name].filter(here).to_pylist() for name in ("key", "shard"))
            for key, shard in zip(*columns, strict=True):
                found.setdefault(key, []).append(shard)
        for key, shards in found.items():
            several = list(dict.fromkeys(shards))
            if len(several) > 1:
                message = f"stands in {' and in '.join(several)}; expected every key once"
                yield Fault(check=Check.KEY, where=several[0], key=key, message=message)

    def _name(self, wrong: Mapping[_Asked, str]) -> Iterator[Fault]:
        """The prompts whose pairs are wrong, by shard and key."""
        if not wrong:
            return
        wanted = np.array(sorted({number for number, _ in wrong}), np.uint64)
        for rows in iterate_table(self._uri("samples"), SAMPLES, _SAMPLE_COLUMNS):
            pair_q = pair(hash_keys(rows["image_key"]), hash_phrases(rows["phrase"]))
            places = np.flatnonzero(find(wanted, pair_q) >= 0)
            for place, row in zip(places.tolist(), rows.take(pa.array(places)).to_pylist(), strict=True):
                if (message := wrong.get((int(pair_q[place]), row["present"]))) is not None:
                    text = f"{row['phrase']!r} {message}"
                    yield Fault(check=Check.LABEL, where=row["shard"], key=row["key"], message=text)

    def _uri(self, table: str) -> str:
        return files.join(self._images.folder, f"{table}.parquet")


class _Implied:
    """What each phrase's presence says is present, as hashes."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._known: dict[str, Hashes] = {}

    def of(self, phrase: str) -> Hashes:
        """Hashes of all that is present, or open, where `phrase` is."""
        key = phrase_id(phrase)
        if key not in self._known:
            texts = sorted(self._lexicon.implied([phrase]))
            self._known[key] = np.array([hash_text(text) for text in texts], np.uint64)
        return self._known[key]

    def contradictions(self, rows: pa.Table, key_l: Hashes, absent: Hashes) -> dict[_Asked, str]:
        """Pairs among the sorted `absent` that these labels say are present or open, with what is wrong."""
        said = np.flatnonzero(~pc.equal(rows["state"], "absent").to_numpy().astype(np.bool_))
        labels = rows.select(["phrase", "state"]).take(pa.array(said))
        phrases = labels["phrase"].to_pylist()
        hashes = [self.of(phrase) for phrase in phrases]
        if not hashes:
            return {}
        owner = np.repeat(np.arange(len(said)), [len(found) for found in hashes])
        pairs = pair(key_l[said][owner], np.concatenate(hashes))
        hits = np.flatnonzero(find(absent, pairs) >= 0)
        states = labels["state"].to_pylist()
        found: dict[_Asked, str] = {}
        for number, row in zip(pairs[hits].tolist(), owner[hits].tolist(), strict=True):
            says = f"{phrases[row]!r} is {states[row]}"
            found[number, False] = f"is asked as absent, though the labels say that {says}"
        return found


def _samples(keys: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each sample [S], and the sample of each row [Q]."""
    codes = pc.dictionary_encode(keys).combine_chunks().indices.to_numpy()
    starts = np.concatenate([[True], codes[1:] != codes[:-1]]) if len(codes) else np.empty(0, np.bool_)
    return np.flatnonzero(starts), np.cumsum(starts) - 1


def _count(kinds: pa.ChunkedArray, kind: str, sample_q: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    here = pc.equal(kinds, kind).to_numpy().astype(np.bool_)
    return np.bincount(sample_q[here], minlength=num)


def _joined(arrays: list[Hashes]) -> Hashes:
    return np.sort(np.concatenate([*arrays, np.empty(0, np.uint64)]))
