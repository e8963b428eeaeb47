"""A finished build as a source: byte ranges in its shards, and everything that its labels table knows.

The samples' JSON holds only the prompts that were asked, so labels come from `labels.parquet`. Keys are kept, and
therefore tables made for the build still fit. Repeats and generated pictures are left out: a new build draws its own.

`prepare` reads the tables' key columns once and notes which row groups hold a shard's rows, so that a scan reads only
those. Where the tables follow the written order of the samples, that is one or two row groups each.
"""

# N samples

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Reason, Rejected, SourceError, TableError
from manifests.manifest import Manifest, read_manifest
from manifests.recipe import BuildSource, Recipe
from manifests.sample import Evidence, Mask, MaskState
from manifests.tables import IMAGES, LABELS, SAMPLES, VOCABULARIES, iterate_table, open_table, read_metadata
from shards.masks import check_masks, reason_of
from shards.rle import MaskFault
from shards.sources.source import SYNONYMS, Found, KnownBy, Label, LabelState, Picture, Prepared, Reject, ScanPart

_VERSION = "build 1"  # part of every part's name
_TABLES = {"samples": SAMPLES, "images": IMAGES, "labels": LABELS}


def read_synonyms(uri: str) -> tuple[tuple[str, ...], ...]:
    """What the sources of a build called the same, as its vocabularies table at `uri` carries it.

    Raises:
        TableError: it is no such table, or its synonyms are damaged.
    """
    try:
        return msgspec.json.decode(
            read_metadata(uri, VOCABULARIES).get(SYNONYMS, "[]"), type=tuple[tuple[str, ...], ...]
        )
    except msgspec.MsgspecError as error:
        raise TableError(f"{uri}: its synonyms are damaged: {error}; copy the build again") from error


class _Hints(msgspec.Struct, frozen=True, kw_only=True):
    """Where the rows of one shard's pictures are: numbers of row groups, by table."""

    shard: str
    samples: list[int]
    images: list[int]
    labels: list[int]


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one picture lies in its shard."""

    key: str
    shard: str
    offset: int
    num_bytes: int
    sha256: str

    @property
    def where(self) -> str:
        """Shard and key, for messages."""
        return f"{self.shard}: {self.key}"


class _ImageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the images table says of a picture."""

    width: int
    height: int
    exhaustive_over: tuple[str, ...]
    open_over: tuple[str, ...]
    licence: str


class _LabelRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the labels table says of a phrase."""

    phrase: str
    state: LabelState
    mask_state: MaskState
    masks: tuple[Mask, ...]
    known_by: KnownBy


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """The real pictures of a build, in written order; one that straddles two row groups stands twice."""

    shards: tuple[str, ...]
    keys_n: pa.Array
    shard_n: NDArray[np.int64]  # index into `shards`
    group_n: NDArray[np.int64]  # row group of the samples table


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPictures:
    """The pictures of one finished build."""

    name: str
    root: str

    def prepare(self, work: str) -> Prepared:
        """One part for each shard that holds a real picture, and the build's vocabularies.

        Raises:
            ManifestError: there is no finished build.
            SourceError: it holds no real picture.
            TableError: one of its tables is missing or damaged.
        """
        manifest = read_manifest(self.root)
        held = self._held(manifest)
        groups = {
            "samples": _groups_of_shards(held.shard_n, held.group_n, len(held.shards)),
            "images": self._find_groups("images", held),
            "labels": self._find_groups("labels", held),
        }
        digest = self._digest_tables(manifest)
        sha256_of = {shard.url: shard.sha256 for shards in manifest.splits.values() for shard in shards}
        parts = [
            self._part(
                _Hints(shard=url, **{table: found[number] for table, found in groups.items()}),
                num_pictures=int(np.count_nonzero(held.shard_n == number)),
                digest=f"{digest} {sha256_of[url]}",
            )
            for number, url in enumerate(held.shards)
        ]
        return Prepared(
            parts=tuple(parts), vocabularies=self._vocabularies(), synonyms=read_synonyms(self._table("vocabularies"))
        )

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """Every real picture of one shard, in written order, with its labels."""
        hints = msgspec.json.decode(part.items[0], type=_Hints)
        places = self._places(hints)
        keys = pa.array([place.key for place in places], pa.string())
        images = {row["key"]: row for row in self._rows("images", hints.images, keys)}
        labels: dict[object, list[dict[str, object]]] = defaultdict(list)
        for row in self._rows("labels", hints.labels, keys):
            labels[row["key"]].append(row)
        try:
            with files.open_input(part.uri) as shard:
                for place in places:
                    shard.seek(place.offset)
                    data = shard.read(place.num_bytes)
                    yield from _found(place, data, images.get(place.key), labels[place.key])
        except FileNotFoundError:
            detail = "the build's manifest names this shard, but there is no such file; copy the build again"
            for place in places:
                yield Reject(where=place.where, reason=Reason.MISSING_FILE, detail=detail, image=True)

    def _table(self, table: str) -> str:
        return files.join(self.root, f"{table}.parquet")

    def _part(self, hints: _Hints, *, num_pictures: int, digest: str) -> ScanPart:
        stem = hints.shard.rpartition("/")[2].removesuffix(".tar")
        digest = hashlib.sha256(f"{_VERSION} {hints.shard} {digest}".encode()).hexdigest()[:16]
        return ScanPart(
            name=f"{self.name}-{stem}-{digest}",
            weight=num_pictures,
            uri=files.join(self.root, hints.shard),
            items=(msgspec.json.encode(hints).decode(),),
        )

    def _digest_tables(self, manifest: Manifest) -> str:
        """What changes when a table does, whether or not its manifest was told."""
        names = [*_TABLES, "vocabularies"]
        prints = [files.fingerprint(self._table(table)) for table in names]
        known = [manifest.tables.get(f"{table}.parquet", "") for table in names]
        return " ".join([*known, *(f"{found.num_bytes} {found.version}" for found in prints)])

    def _vocabularies(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = defaultdict(list)
        for rows in iterate_table(self._table("vocabularies"), VOCABULARIES):
            for name, phrase in zip(rows["vocabulary"].to_pylist(), rows["phrase"].to_pylist(), strict=True):
                found[name].append(phrase)
        return {name: tuple(phrases) for name, phrases in found.items()}

    def _held(self, manifest: Manifest) -> _Held:
        shards = tuple(shard.url for split in manifest.splits.values() for shard in split)
        keys, numbers, groups = [], [], []
        columns = ["key", "image_key", "shard", "evidence"]
        for group, rows in enumerate(iterate_table(self._table("samples"), SAMPLES, columns)):
            real = rows.filter(_is_real(rows))
            first = _first_rows(real["key"])
            keys.append(real["key"].take(first).combine_chunks())
            numbers.append(pc.index_in(real["shard"].take(first), pa.array(shards)))
            groups.append(np.full(len(first), group))
        if not sum(map(len, keys)):
            raise SourceError(
                f"source {self.name}: {self.root}: no real picture in this build, only generated ones or none at all; "
                "expected at least one"
            )
        number_n = pc.fill_null(pa.chunked_array(numbers), -1).to_numpy().astype(np.int64)
        if number_n.min() < 0:
            raise TableError(
                f"{self._table('samples')}: names a shard that is not in the manifest; expected tables and manifest of "
                "one build. Copy the build again"
            )
        present = np.unique(number_n)
        return _Held(
            shards=tuple(shards[number] for number in present),
            keys_n=pa.concat_arrays(keys),
            shard_n=np.searchsorted(present, number_n),
            group_n=np.concatenate(groups),
        )

    def _find_groups(self, table: str, held: _Held) -> list[list[int]]:
        """For each shard, the row groups of `table` that hold rows of its pictures."""
        keys, groups = [pa.array([], pa.string())], [np.empty(0, np.int64)]
        for group, rows in enumerate(iterate_table(self._table(table), _TABLES[table], ["key"])):
            distinct = pc.unique(rows["key"])
            keys.append(distinct)
            groups.append(np.full(len(distinct), group))
        place = pc.index_in(pa.concat_arrays(keys), held.keys_n)
        known = place.is_valid().to_numpy(zero_copy_only=False)
        shard_of_row = held.shard_n[place.drop_null().to_numpy()]
        return _groups_of_shards(shard_of_row, np.concatenate(groups)[known], len(held.shards))

    def _places(self, hints: _Hints) -> list[_Place]:
        columns = ["key", "image_key", "shard", "evidence", "offset", "num_bytes", "sha256"]
        rows = self._read("samples", hints.samples, columns)
        rows = rows.filter(pc.and_(_is_real(rows), pc.equal(rows["shard"], hints.shard)))
        return msgspec.convert(rows.take(_first_rows(rows["key"])).to_pylist(), list[_Place])

    def _rows(self, table: str, groups: Sequence[int], keys: pa.Array) -> Iterator[dict[str, object]]:
        """The rows of `table` whose key is among `keys`, a row group in memory at a time."""
        for group in groups:
            rows = self._read(table, [group], _TABLES[table].names)
            yield from rows.filter(pc.is_in(rows["key"], keys)).to_pylist()

    def _read(self, table: str, groups: Sequence[int], columns: list[str]) -> pa.Table:
        uri = self._table(table)
        try:
            return open_table(uri, _TABLES[table]).read_row_groups(list(groups), columns=columns)
        except (pa.ArrowException, OSError) as error:
            said = " ".join(str(error).split())
            raise TableError(f"{uri}: the table is damaged: {said}; copy the build again") from error


def open_build(name: str, table: BuildSource, recipe: Recipe) -> BuiltPictures:
    """The source that `table` describes."""
    return BuiltPictures(name=name, root=recipe.resolve(table.data).rstrip("/"))


def _is_real(rows: pa.Table) -> pa.ChunkedArray:
    """Where a row's picture is neither a repeat nor generated."""
    return pc.and_(pc.equal(rows["key"], rows["image_key"]), pc.not_equal(rows["evidence"], Evidence.GENERATED))


def _first_rows(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """The row of each distinct value's first appearance, in order."""
    numbers = pc.dictionary_encode(column).combine_chunks().indices.to_numpy()
    return np.sort(np.unique(numbers, return_index=True)[1])


def _groups_of_shards(shard_n: NDArray[np.int64], group_n: NDArray[np.int64], num_shards: int) -> list[list[int]]:
    """For each shard, the sorted groups that stand beside its number."""
    found: list[list[int]] = [[] for _ in range(num_shards)]
    for shard, group in np.unique(np.stack([shard_n, group_n], axis=1), axis=0).tolist():
        found[shard].append(group)
    return found


def _found(
    place: _Place, data: bytes, image: dict[str, object] | None, label_rows: Sequence[dict[str, object]]
) -> Iterator[Found]:
    """One picture, or why it is none; before it, the labels that were dropped."""
    where = place.where
    try:
        _require_bytes(place, data)
        facts = msgspec.convert(image, _ImageRow)
    except Rejected as rejected:
        yield Reject(where=where, reason=rejected.reason, detail=rejected.detail, image=True)
        return
    except msgspec.ValidationError as error:
        detail = f"its row in images.parquet is missing or wrong: {error}"
        yield Reject(where=where, reason=Reason.WRONG_FIELD, detail=detail, image=True)
        return
    labels: list[Label] = []
    for row in label_rows:
        label, rejects = _read_label(where, row, (facts.height, facts.width))
        labels += label
        yield from rejects
    yield Picture(
        image_id=place.key,
        key=place.key,
        uri=place.shard,
        offset=place.offset,
        data=data,
        labels=tuple(labels),
        claimed_size=(facts.width, facts.height),
        exhaustive_over=facts.exhaustive_over,
        open_over=facts.open_over,
        licence=facts.licence,
    )


def _require_bytes(place: _Place, data: bytes) -> None:
    if len(data) < place.num_bytes:
        raise Rejected(
            Reason.TAR_CUT_SHORT,
            f"{len(data)} of {place.num_bytes} bytes from offset {place.offset}; copy the build again",
        )
    if (found := hashlib.sha256(data).hexdigest()) != place.sha256:
        raise Rejected(
            Reason.UNREADABLE, f"its bytes have the sha256 {found}, samples.parquet says {place.sha256}; copy it again"
        )


def _read_label(where: str, row: dict[str, object], size: tuple[int, int]) -> tuple[list[Label], list[Reject]]:
    """The label in `row`, without its faulty masks and open where nothing sound is left; what was dropped."""
    phrase = row["phrase"] if isinstance(row["phrase"], str) else ""
    try:
        read = msgspec.convert(row, _LabelRow)
    except msgspec.ValidationError as error:
        detail = f"its row in labels.parquet is wrong: {error}"
        left_open = [Label(phrase=phrase, state=LabelState.OPEN)] if phrase else []
        return left_open, [Reject(where=where, reason=Reason.WRONG_FIELD, detail=detail, phrase=phrase)]
    masks, rejects = _sound_masks(where, read, size)
    state, mask_state = read.state, read.mask_state
    if rejects:
        state, mask_state = (LabelState.PRESENT, MaskState.PARTIAL) if masks else (LabelState.OPEN, MaskState.NONE)
    label = Label(phrase=phrase, state=state, mask_state=mask_state, masks=masks, known_by=read.known_by)
    return [label], rejects


def _sound_masks(where: str, row: _LabelRow, size: tuple[int, int]) -> tuple[tuple[Mask, ...], list[Reject]]:
    heights, widths = [mask.size[0] for mask in row.masks], [mask.size[1] for mask in row.masks]
    checked = check_masks([mask.counts for mask in row.masks], heights, widths)
    masks, rejects = [], []
    for mask, fault in zip(row.masks, checked.faults.tolist(), strict=True):
        reason = reason_of(MaskFault(fault)) or (Reason.MASK_SIZE if mask.size != size else None)
        if reason is None:
            masks.append(mask)
        else:
            detail = f"mask of size {mask.size} with counts {mask.counts[:32]!r}; the picture is {size}"
            rejects.append(Reject(where=where, reason=reason, detail=detail, phrase=row.phrase))
    return tuple(masks), rejects
