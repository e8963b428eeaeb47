"""SA-1B as it is published: tars or unpacked folders of `sa_1.jpg` and `sa_1.json`, with phrases from a sidecar.

A tar is one part; a folder becomes parts of 1,000 pictures. Phrases are looked up in the spilled sidecar while a part
is scanned; each part notes the image ids that it met, so that `unmatched` can name sidecar rows without a picture.
Phrases that were retrieved come as one sidecar per part (`miners.retrieval`) or as a table (`miners.phrases`), and are
known by that.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

import msgspec
import numpy as np

from manifests import files
from manifests.errors import Reason, Rejected, SourceError
from manifests.recipe import RETRIEVE, Recipe, Sa1bSource, last_name
from shards.sources.pairs import Pair, folder_pairs, kind_of, stem_of, tar_pairs
from shards.sources.sa1b_labels import Floors, Sa1bFile, decode_file, label_image
from shards.sources.sidecar import SidecarReader, rejects_of, sidecar_digest, spill
from shards.sources.source import Found, KnownBy, Label, Picture, Prepared, Reject, ScanPart

SCAN_VERSION = 2  # part of every part's name: raise it when what a scan finds changes
FOLDER_PICTURES = 1000
MAX_UNMATCHED = 1000

_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_SEEN = "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Phrases that an encoder found for a source's masks: a sidecar for each part."""

    folder: str
    digest: str  # of everything but the part that decides what the sidecars hold

    def sidecar(self, part: ScanPart) -> str:
        """Where the sidecar of `part` lies; its spilled rows lie beside it."""
        return f"{part.spill}.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sa1b:
    """Where the tars, folders and phrases lie, and which masks are believed."""

    name: str
    root: str
    data: tuple[str, ...]  # files, folders or patterns, resolved
    phrases: str  # a sidecar, resolved; "" where the pictures await their phrases
    licence: str
    exhaustive_over: tuple[str, ...]
    floors: Floors
    retrieved: Retrieved | None = None

    def prepare(self, work: str) -> Prepared:
        """One part per tar, and per 1,000 pictures of a folder; the sidecar is spilled below `work`.

        Raises:
            SourceError: nothing is there, a tar is compressed, or the sidecar is none.
        """
        found = _list_data(self.data)
        if not found:
            raise SourceError(
                f"sources.{self.name}: data = {', '.join(self.data)} names no tar and no jpg or json; "
                "expected SA-1B tars (sa_*.tar) or folders of sa_1.jpg and sa_1.json. Check the path in the recipe"
            )
        spilled, digest = "", "" if self.retrieved is None else self.retrieved.digest
        rejects: tuple[Reject, ...] = ()
        if self.phrases:
            uris = self._sidecar()
            digest = sidecar_digest(uris)
            spilled = files.join(work, "spill", f"{self.name}-phrases-{digest}")
            record = spill(uris, spilled)
            self._require_sense(record.known_by)
            rejects = rejects_of(record)
        tars = [uri for uri in found if uri.endswith(".tar")]
        parts = [self._tar_part(uri, spilled, digest) for uri in tars]
        loose = [uri for uri in found if not uri.endswith(".tar")]
        for folder, members in groupby(loose, key=_folder_of):
            parts += self._folder_parts(folder, [_name(uri) for uri in members], spilled, digest)
        return Prepared(parts=tuple(parts), rejects=rejects)

    def _require_sense(self, known_by: KnownBy) -> None:
        if known_by == "retrieved" and self.exhaustive_over:
            raise SourceError(
                f"sources.{self.name}: exhaustive_over is given, but {self.phrases} holds what an encoder found: "
                "some of what is there, never all of it; remove exhaustive_over"
            )

    def _sidecar(self) -> list[str]:
        uris = files.list_files(self.phrases)
        if not uris:
            raise SourceError(
                f"sources.{self.name}: phrases = {self.phrases} does not exist; expected a Parquet or JSONL file of "
                f'image_id, annotation_id, phrase, score, or "{RETRIEVE}". Check the path in the recipe'
            )
        return uris

    def _tar_part(self, uri: str, spilled: str, digest: str) -> ScanPart:
        try:
            found = files.fingerprint(uri)
        except FileNotFoundError as error:
            raise SourceError(
                f"sources.{self.name}: {uri} is listed but not there; expected a tar. Mend or remove the link"
            ) from error
        label, names = stem_of(_name(uri)), [files.relative(uri, self.root)]
        name = self._part_name(label, digest, names, [found])
        weight = max(1, found.num_bytes)
        return ScanPart(name=name, weight=weight, uri=uri, spill=spilled or self._place(label, names, [found]))

    def _folder_parts(self, folder: str, names: Sequence[str], spilled: str, digest: str) -> Iterator[ScanPart]:
        by_stem = [list(group) for _, group in groupby(sorted(names, key=lambda n: (stem_of(n), n)), key=stem_of)]
        for first in range(0, len(by_stem), FOLDER_PICTURES):
            items = tuple(name for group in by_stem[first : first + FOLDER_PICTURES] for name in group)
            found = [_fingerprint(files.join(folder, item)) for item in items]
            label = f"{_name(folder)}-{first // FOLDER_PICTURES:05d}"
            names = [files.relative(folder, self.root), *items]
            name = self._part_name(label, digest, names, found)
            weight = max(1, sum(one.num_bytes for one in found))
            place = spilled or self._place(label, names, found)
            yield ScanPart(name=name, weight=weight, uri=folder, items=items, spill=place)

    def _part_name(self, label: str, digest: str, names: Sequence[str], found: Sequence[files.Fingerprint]) -> str:
        """A name that changes with everything that decides what the part holds, and not with where it lies."""
        versions = [(one.num_bytes, one.version) for one in found]
        options = (self.licence, self.exhaustive_over, self.floors)
        return f"{self.name}-{_named(label, [SCAN_VERSION, options, digest, names, versions])}"

    def _place(self, label: str, names: Sequence[str], found: Sequence[files.Fingerprint]) -> str:
        """Where a part's retrieved phrases lie, whatever the recipe says besides; "" where none are."""
        versions = [(one.num_bytes, one.version) for one in found]
        return files.join(self.retrieved.folder, _named(label, [names, versions])) if self.retrieved else ""

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """The pictures of a tar or folder as they come, each with its labels, and what was dropped."""
        if self.retrieved is not None:
            spill([self.retrieved.sidecar(part)], part.spill)
        reader = SidecarReader(part.spill) if part.spill else None
        seen: list[int] = []
        for pair in self._pairs(part):
            if isinstance(pair, Reject):
                seen += _id_in_name(pair.where)
                yield pair
                continue
            try:
                file = decode_file(pair.json)
            except Rejected as rejected:
                seen += _id_in_name(pair.where)
                yield Reject(where=pair.where, reason=rejected.reason, detail=rejected.detail, image=True)
                continue
            seen.append(file.image.image_id)
            yield from self._found(pair, file, reader)
        if part.spill and self.retrieved is None:
            files.write_bytes(_seen_uri(part), np.array(seen, "<i8").tobytes())

    def pictures(self, part: ScanPart) -> Iterator[tuple[Sa1bFile, bytes]]:
        """Every picture of `part` with all its masks, unchecked; what cannot be read is left to the scan to count."""
        for pair in self._pairs(part):
            if isinstance(pair, Reject):
                continue
            try:
                file = decode_file(pair.json)
            except Rejected:
                continue
            yield file, pair.image

    def _pairs(self, part: ScanPart) -> Iterator[Pair | Reject]:
        where = files.relative(part.uri, self.root)
        return folder_pairs(part.uri, part.items, where) if part.items else tar_pairs(part.uri, where)

    def _found(self, pair: Pair, file: Sa1bFile, reader: SidecarReader | None) -> Iterator[Found]:
        """The picture with its labels; exhaustive over nothing without labels, or where a phrase cannot be told."""
        labels: tuple[Label, ...] = ()
        exhaustive_over: tuple[str, ...] = ()
        if reader is not None:
            rows = reader.rows_of(file.image.image_id)
            exhaustive = bool(self.exhaustive_over)
            labelled = label_image(file, rows, self.floors, pair.where, exhaustive=exhaustive)
            labels = labelled.labels
            if reader.known_by != "sidecar":
                labels = tuple(msgspec.structs.replace(label, known_by=reader.known_by) for label in labels)
            exhaustive_over = self.exhaustive_over if labels and labelled.is_closed else ()
            yield from labelled.dropped
        yield Picture(
            image_id=str(file.image.image_id),
            uri=files.relative(pair.uri, self.root),
            offset=pair.offset,
            data=pair.image,
            labels=labels,
            claimed_size=(file.image.width, file.image.height),
            exhaustive_over=exhaustive_over,
            licence=self.licence,
        )

    def unmatched(self, prepared: Prepared) -> Iterator[Reject]:
        """Once all parts are scanned: a reject for each image of the sidecar that no part holds.

        The first 1,000 one by one, the rest as one with their number: all of SA-1B's phrases may stand beside one tar.
        A part whose note was deleted is read again.
        """
        if not prepared.parts or not prepared.parts[0].spill or self.retrieved is not None:
            return
        for part in prepared.parts:
            if not files.exists(_seen_uri(part)):
                deque(self.scan(part), maxlen=0)
        seen = [np.frombuffer(files.read_bytes(_seen_uri(part)), "<i8") for part in prepared.parts]
        reader = SidecarReader(prepared.parts[0].spill)
        num_images = num_rows = 0
        for image_id, rows in reader.unmatched(np.unique(np.concatenate(seen)).astype(np.int64)):
            num_images, num_rows = num_images + 1, num_rows + rows
            if num_images <= MAX_UNMATCHED:
                yield _missing(f"phrases: image {image_id}", f"{rows} rows of the sidecar")
                num_rows = 0
        if num_images > MAX_UNMATCHED:
            yield _missing("phrases", f"{num_rows} rows on {num_images - MAX_UNMATCHED} further images")


def open_sa1b(name: str, table: Sa1bSource, recipe: Recipe) -> Sa1b:
    """The source `name` of the recipe."""
    data = [table.data] if isinstance(table.data, str) else table.data
    resolved = tuple(recipe.resolve(pattern) for pattern in data)
    return Sa1b(
        name=name,
        root=_common_root(resolved),
        data=resolved,
        phrases="" if table.phrases in ("", RETRIEVE) else recipe.resolve(table.phrases),
        licence=table.licence,
        exhaustive_over=tuple(map(last_name, table.exhaustive_over)),
        floors=Floors(
            predicted_iou=table.min_predicted_iou,
            stability_score=table.min_stability_score,
            area=table.min_area,
            phrase_score=table.min_phrase_score,
        ),
    )


def _named(label: str, decides: Sequence[object]) -> str:
    """A file name of `label` and a digest."""
    digest = hashlib.sha256(msgspec.json.encode(decides, order="deterministic")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', label)[:64]}-{digest}"


def _fingerprint(uri: str) -> files.Fingerprint:
    """The fingerprint of a listed file; one of a link that leads nowhere, which the scan rejects."""
    try:
        return files.fingerprint(uri)
    except FileNotFoundError:
        return files.Fingerprint(uri=uri, num_bytes=0, version="missing")


def _missing(where: str, rows: str) -> Reject:
    detail = f"{rows} name a picture that no tar and no folder of the source holds"
    return Reject(where=where, reason=Reason.UNKNOWN_IMAGE, detail=detail)


def _seen_uri(part: ScanPart) -> str:
    return files.join(part.spill, _SEEN, f"{part.name}.ids")


def _id_in_name(where: str) -> list[int]:
    """The image id that a file's name tells, where its json could not."""
    found = re.search(r"sa_([0-9]{1,18})\.[a-z]+$", where)
    return [int(found.group(1))] if found else []


def _name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2]


def _folder_of(uri: str) -> str:
    return uri.rpartition("/")[0]


def _list_data(patterns: Sequence[str]) -> list[str]:
    """All tars, pictures and jsons that `patterns` name, by folder and name, each once.

    Raises:
        SourceError: a pattern names a compressed tar.
    """
    found: set[str] = set()
    for pattern in patterns:
        listed = files.list_files(pattern)
        if re.search(r"[*?\[]", pattern):  # a pattern may also name folders
            listed = [*listed, *files.list_files(files.join(pattern, "*"))]
        found.update(listed)
    packed = sorted(uri for uri in found if uri.endswith(_PACKED))
    if packed:
        raise SourceError(f"{packed[0]}: is compressed; byte ranges need an uncompressed tar; gunzip or unzstd it")
    return sorted((uri for uri in found if uri.endswith(".tar") or kind_of(uri)), key=lambda u: (_folder_of(u), u))


def _common_root(patterns: Sequence[str]) -> str:
    """The folder that all `patterns` lie below."""
    fixed = [re.split(r"[*?\[]", pattern, maxsplit=1)[0] for pattern in patterns]
    folders = [
        _folder_of(start) if start != pattern or start.endswith(".tar") else pattern.rstrip("/")
        for start, pattern in zip(fixed, patterns, strict=True)
    ]
    if len(set(folders)) == 1:
        return folders[0]
    parts = zip(*(folder.split("/") for folder in folders), strict=False)
    return "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, parts))
