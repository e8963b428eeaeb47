"""One picture of a COCO source: its image rows, its bytes, and the word of every annotation file on it."""

import dataclasses
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manifests import files
from manifests.errors import Reason, Rejected
from shards.labels import Finding, merge_labels
from shards.sources.coco_labels import LayerReader
from shards.sources.coco_rows import ImageRow, id_text, parse_value, read_row, require_id
from shards.sources.coco_spill import Layer, SpilledRow
from shards.sources.source import Found, Picture, Reject


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where pictures and panoptic PNGs lie."""

    images: str
    panoptic: str

    def read_first(self, folder: str, names: Sequence[str]) -> tuple[str, bytes]:
        """The first of `names` that is in `folder`, and its bytes.

        Raises:
            Rejected: MISSING_FILE, UNREADABLE.
        """
        for name in names:
            try:
                return name, files.read_bytes(files.join(folder, name))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                raise Rejected(Reason.UNREADABLE, f"{name!a}: {type(error).__name__}") from error
        raise Rejected(Reason.MISSING_FILE, f"none of {', '.join(ascii(name) for name in names)} is in the folder")

    def read_png(self, name: str) -> bytes:
        """The PNG called `name`.

        Raises:
            Rejected: UNSAFE_NAME, MISSING_FILE, UNREADABLE.
        """
        safe = files.safe_member(name)
        return self.read_first(self.panoptic, list(dict.fromkeys((safe, posixpath.basename(safe)))))[1]


class ImageReader:
    """Reads all that the files say of one image; `read_rows`, then `read_labels`, then `picture`."""

    def __init__(self, image_id: str, layers: Sequence[Layer], folders: Folders) -> None:
        self._image_id = image_id
        self._layers = layers
        self._folders = folders
        self._image_rows: dict[int, ImageRow] = {}  # by file
        self._blocked: set[int] = set()  # files whose image row cannot be used
        self._findings: list[Finding] = []
        self._name = ""
        self._data = b""
        self.size: tuple[int, int] | None = None  # height, width; None where the picture is lost
        self.closed: list[int] = []  # files that list the image and of which nothing was lost beyond its phrase

    @property
    def listed(self) -> list[int]:
        """The files that list the image."""
        return list(self._image_rows)

    def read_rows(self, rows: Sequence[SpilledRow]) -> Iterator[Reject]:
        """Read the image's rows and bytes; yields what was lost by that."""
        losses = [(row.layer, loss) for row in rows if row.is_image and (loss := self._take_image_row(row)) is not None]
        is_listed = bool(losses or self._image_rows)
        yield from self._count_pictures(losses)
        if not is_listed or not self._image_id:
            yield from self._strays([row for row in rows if not row.is_image])
        if not self._image_rows:
            return
        first = next(iter(self._image_rows.values()))
        try:
            names = _file_names(first, self._image_id)
            self._name, self._data = self._folders.read_first(self._folders.images, names)
        except Rejected as rejected:
            yield self._reject(next(row for row in rows if row.is_image), rejected, image=True)
            return
        self.size = (first.height, first.width)

    def _take_image_row(self, row: SpilledRow) -> Reject | None:
        """Set down an image row under its file, or say why it cannot be used."""
        try:
            value = parse_value(row.data)
            require_id(value, "id", row.where)
            found = read_row(value, ImageRow, row.where)
        except Rejected as rejected:
            self._blocked.add(row.layer)
            return self._reject(row, rejected)
        if row.layer in self._image_rows:
            detail = f"{row.where}.id: {self._image_id} is taken already"
            return self._reject(row, Rejected(Reason.DUPLICATE_ID, detail))
        for layer, other in self._image_rows.items():
            if (found.width, found.height) != (other.width, other.height):
                self._blocked.add(row.layer)
                detail = (
                    f"{row.where}: {found.width} x {found.height} pixels, expected {other.width} x {other.height} "
                    f"as in {self._layers[layer].name}"
                )
                return self._reject(row, Rejected(Reason.SIZE_MISMATCH, detail))
        self._image_rows[row.layer] = found
        return None

    def _count_pictures(self, losses: Sequence[tuple[int, Reject]]) -> Iterator[Reject]:
        """The lost image rows, each with its file, marked where an input picture was lost.

        The rows of several files are one picture; a second row in the same file was meant to be another one.
        """
        files_heard = set(self._image_rows)
        is_counted = bool(self._image_rows)
        for layer, loss in losses:
            if layer in files_heard or not self._image_id:
                yield dataclasses.replace(loss, image=True)
            else:
                yield dataclasses.replace(loss, image=not is_counted)
                files_heard.add(layer)
                is_counted = True

    def _strays(self, rows: Sequence[SpilledRow]) -> Iterator[Reject]:
        """Annotations whose image is not listed or cannot be told."""
        for row in rows:
            try:
                require_id(parse_value(row.data), "image_id", row.where)
            except Rejected as rejected:
                yield self._reject(row, rejected)
            else:
                detail = f"{row.where}.image_id: {self._image_id} is not among `images`"
                yield self._reject(row, Rejected(Reason.UNKNOWN_IMAGE, detail))

    def read_labels(self, rows: Sequence[SpilledRow]) -> Iterator[Found]:
        """Read the annotations; yields what was rejected or repaired."""
        for number, layer in enumerate(self._layers):
            reader = LayerReader(number, layer, self._image_id, self.size or (0, 0), self._folders.read_png)
            annotations = [row for row in rows if row.layer == number and not row.is_image]
            if number in self._blocked:
                reader.block(annotations)
            else:
                if number in self._image_rows:
                    reader.remark(self._image_rows[number], "images")
                reader.read(annotations)
            yield from reader.word.notes
            self._findings += reader.word.findings
            if number in self._image_rows and reader.word.is_closed:
                self.closed.append(number)
        for phrase in merge_labels(self._findings).contradictions:
            detail = f"{phrase!r} is both annotated and denied by name; it counts as open"
            where = f"{self._layers[self.listed[0]].name}: image {self._image_id}"
            yield Reject(where=where, reason=Reason.CONTRADICTION, detail=detail, phrase=phrase)

    def picture(self, *, exhaustive_over: tuple[str, ...], open_over: tuple[str, ...], licence: str) -> Picture:
        """The picture with its labels; `licence` "" takes its own."""
        height, width = self.size or (0, 0)
        return Picture(
            image_id=self._image_id,
            uri=self._name,
            offset=0,
            data=self._data,
            labels=merge_labels(self._findings).labels,
            claimed_size=(width, height),
            exhaustive_over=exhaustive_over,
            open_over=open_over,
            licence=licence or self._licence(),
        )

    def _licence(self) -> str:
        """The licence's name in the first file that states one, or its id there."""
        for number, row in self._image_rows.items():
            if licence_id := id_text(row.license):
                return self._layers[number].licences.get(licence_id) or licence_id
        return ""

    def _reject(self, row: SpilledRow, rejected: Rejected, *, image: bool = False) -> Reject:
        of_image = f" of image {self._image_id}" if self._image_id and not row.is_image else ""
        where = f"{self._layers[row.layer].name}: {row.where}{of_image}"
        return Reject(where=where, reason=rejected.reason, detail=rejected.detail, image=image)


def _file_names(row: ImageRow, image_id: str) -> list[str]:
    """The names that the picture of `row` may have: its file name, that without folders, and COCO's `%012d.jpg`.

    LVIS names `COCO_val2014_<id>.jpg`, or a URL alone, of which the last two parts are folder and name.

    Raises:
        Rejected: UNSAFE_NAME.
    """
    name = row.file_name or "/".join(row.coco_url.split("/")[-2:])
    names = []
    if name:
        safe = files.safe_member(name)
        if not safe.isprintable():
            raise Rejected(Reason.UNSAFE_NAME, f"{name!a}: expected printable characters")
        names += [safe, posixpath.basename(safe)]
    if image_id.isascii() and image_id.isdigit():
        names.append(f"{int(image_id):012d}.jpg")
    return list(dict.fromkeys(names))
