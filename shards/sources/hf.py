"""Any image data set that `datasets.load_dataset` opens, its columns mapped by the recipe.

Rows have no byte ranges, and many data sets can only be read from the start. So they are read once: `prepare` writes
the pictures, their bytes untouched, into uncompressed tars of up to 1,000 rows below `work`, each with its labels as
JSON lines beside it, and a marker last. Scans then read these tars like anybody's. A picture's origin names the data
set and the row.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from manifests import files
from manifests.errors import Reason, Rejected, SourceError
from manifests.recipe import HfSource, Recipe
from shards.labels import category_phrase, merge_labels
from shards.sources.hf_load import DataSet, class_names, feature_at, iterate, open_data_set
from shards.sources.hf_rows import RowReader, picture_size, read_id, read_labels, read_picture
from shards.sources.source import Found, Label, Picture, Prepared, Reject, ScanPart
from shards.tar import BLOCK, END, member_header, padding

ROWS_OF_PART = 1000

_SPILL_VERSION = 1
_MARKER = "spill.json"


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One row as it was spilled; `num_bytes` is −1 where it has no picture."""

    row: int
    image_id: str
    offset: int
    num_bytes: int
    labels: tuple[Label, ...]
    rejects: tuple[Reject, ...]

    @property
    def all_read(self) -> bool:
        """Whether the phrase of everything in the row is known; if not, no phrase can be called absent."""
        return all(reject.phrase for reject in self.rejects)


class _Spill(msgspec.Struct, frozen=True, kw_only=True):
    """What was spilled; the marker holds this and is written last."""

    rows_of_part: list[int]
    vocabulary: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class HfPictures:
    """The pictures of one data set; `root` is known once `prepare` has written them below `work`."""

    name: str
    table: HfSource
    recipe: Recipe
    root: str = ""

    def prepare(self, work: str) -> Prepared:
        """The tars that the data set was written into, once.

        Raises:
            RecipeError: a column that the recipe names does not exist.
            SourceError: the data set cannot be read, or holds no row.
        """
        work = files.absolute(work)
        with _cache_folder(work) as cache_folder:
            data_set = open_data_set(self.name, self.table, self.recipe, cache_folder=cache_folder)
            seen = f"{_SPILL_VERSION} {ROWS_OF_PART} ".encode() + data_set.digest_input
            digest = hashlib.sha256(seen).hexdigest()[:16]
            folder = files.join(work, "hf", f"{self.name}-{digest}")
            marker = files.join(folder, _MARKER)
            if not files.exists(marker):
                files.write_bytes(marker, msgspec.json.encode(self._spill(data_set, folder)))
        self.root = folder
        spilled = msgspec.json.decode(files.read_bytes(marker), type=_Spill)
        parts = tuple(self._part(digest, number, rows) for number, rows in enumerate(spilled.rows_of_part))
        return Prepared(parts=parts, vocabularies={self.name: spilled.vocabulary} if spilled.vocabulary else {})

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """Every row of one tar, in order."""
        with files.open_input(part.uri) as tar, files.open_input(part.spill) as lines:
            for text in lines:
                line = msgspec.json.decode(text, type=_Line)
                yield from line.rejects
                if line.num_bytes >= 0:
                    tar.seek(line.offset)
                    yield Picture(
                        image_id=line.image_id,
                        uri=part.uri.rpartition("/")[2],
                        offset=line.offset,
                        data=tar.read(line.num_bytes),
                        labels=line.labels,
                        exhaustive_over=(self.name,) if self.table.exhaustive and line.all_read else (),
                        licence=self.table.licence,
                        origin=self._origin(line.row),
                    )

    def _origin(self, row: int) -> str:
        path = self.table.path.rstrip("/")
        path = path.rpartition("/")[2] if os.path.isabs(path) else path
        return f"hf:{path}?rows={self.table.rows}#{row}"

    def _part(self, digest: str, number: int, rows: int) -> ScanPart:
        return ScanPart(
            name=f"{self.name}-{number:05d}-{digest}",
            weight=rows,
            uri=files.join(self.root, f"{number:05d}.tar"),
            spill=files.join(self.root, f"{number:05d}.jsonl"),
        )

    def _reader(self, data_set: DataSet) -> RowReader:
        columns = self.table.columns
        objects = f"{columns.objects}.{columns.category}" if columns.objects else ""
        phrases, absent, category = (
            class_names(feature_at(data_set.features, column)) if column else ()
            for column in (columns.phrases, columns.absent, objects)
        )
        folders = {os.path.dirname(uri) for uri in data_set.data_files}
        return RowReader(
            columns=columns,
            phrase_names=phrases,
            absent_names=absent,
            category_names=category,
            roots=tuple(sorted({os.path.realpath(uri) if files.is_local(uri) else uri for uri in folders})),
        )

    def _spill(self, data_set: DataSet, folder: str) -> _Spill:
        """Write all rows below `folder`."""
        reader = self._reader(data_set)
        named = dict.fromkeys(category_phrase(name) for name in (*reader.phrase_names, *reader.category_names))
        seen: set[str] = set()
        rows_of_part: list[int] = []
        rows = iterate(data_set)
        while (num_rows := self._spill_part(rows, reader, files.join(folder, f"{len(rows_of_part):05d}"), seen)) > 0:
            rows_of_part.append(num_rows)
        if not rows_of_part:
            raise SourceError(f"{data_set.where}: holds no row; expected at least one picture")
        return _Spill(rows_of_part=rows_of_part, vocabulary=tuple(named) or tuple(sorted(seen)))

    def _spill_part(
        self, rows: Iterator[tuple[int, dict[str, object]]], reader: RowReader, stem: str, seen: set[str]
    ) -> int:
        """Write up to `ROWS_OF_PART` of `rows`; how many there were."""
        first = next(rows, None)
        if first is None:
            return 0
        num_rows = place = 0
        with files.commit(f"{stem}.jsonl") as lines, files.commit(f"{stem}.tar") as tar:
            found: tuple[int, dict[str, object]] | None = first
            while found is not None:
                line, data = self._read_row(*found, reader, offset=place + BLOCK)
                if line.num_bytes >= 0:
                    header = member_header(f"{line.row:08d}.img", len(data))
                    place += tar.write(header) + tar.write(data) + tar.write(b"\0" * padding(len(data)))
                lines.write(msgspec.json.encode(line) + b"\n")
                seen.update(label.phrase for label in line.labels)
                num_rows += 1
                found = next(rows, None) if num_rows < ROWS_OF_PART else None
            tar.write(END)
        return num_rows

    def _read_row(self, number: int, row: dict[str, object], reader: RowReader, *, offset: int) -> tuple[_Line, bytes]:
        where = self._origin(number)
        try:
            image_id = read_id(row, number, reader.columns)
            data = read_picture(row, reader)
        except Rejected as rejected:
            reject = Reject(where=where, reason=rejected.reason, detail=rejected.detail, image=True)
            return _Line(row=number, image_id="", offset=0, num_bytes=-1, labels=(), rejects=(reject,)), b""
        labels, rejects = _read_labels(row, reader, data, where)
        line = _Line(row=number, image_id=image_id, offset=offset, num_bytes=len(data), labels=labels, rejects=rejects)
        return line, data


def open_hf(name: str, table: HfSource, recipe: Recipe) -> HfPictures:
    """The source that `table` describes."""
    return HfPictures(name=name, table=table, recipe=recipe)


def _read_labels(
    row: dict[str, object], reader: RowReader, data: bytes, where: str
) -> tuple[tuple[Label, ...], tuple[Reject, ...]]:
    try:
        size = picture_size(data)
    except Rejected:
        return (), ()  # the catalog drops the picture and says why
    found = read_labels(row, reader, size)
    merged = merge_labels(found.findings)
    dropped = [Reject(where=where, reason=why.reason, detail=why.detail, phrase=phrase) for phrase, why in found.drops]
    denied = [
        Reject(where=where, reason=Reason.CONTRADICTION, detail="both present and absent; left open", phrase=phrase)
        for phrase in merged.contradictions
    ]
    return merged.labels, (*dropped, *denied)


@contextlib.contextmanager
def _cache_folder(work: str) -> Iterator[str]:
    """A local folder for what `datasets` prepares when it does not stream."""
    if files.is_local(work):
        yield files.join(work, "hf", "cache")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder
