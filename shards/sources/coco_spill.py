"""A COCO annotation file of any size, dealt out into small files that each hold all rows of some images.

Annotations stand in no order, so those of one image are all over the file. One pass appends every image and annotation
row, as it was written, to the bucket that the hash of its image id names; a scan then reads one bucket at a time.
"""

import hashlib
import os
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manifests import files
from manifests.errors import Reason, Rejected, SourceError
from shards.labels import category_phrase
from shards.sources.coco_rows import CategoryRow, LicenceRow, id_of, id_text, read_row, require_id
from shards.sources.json_stream import Element, stream_elements
from shards.sources.source import Reject

BUCKET_BYTES = 8 << 20  # of annotations: about 2,000 pictures of COCO
MAX_BUCKETS = 4096

_SPILL_VERSION = 1
_MARKER = "layers.json"
_FLUSH_BYTES = 32 << 20
_SECTIONS = frozenset({"images", "annotations", "categories", "licenses"})
_IMAGE, _ANNOTATION = b"i", b"a"


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation file: what it says besides its images and annotations."""

    name: str  # the file's name, unique among the layers
    phrases: dict[str, str]  # by category id
    synonyms: list[tuple[str, ...]]
    licences: dict[str, str]  # names by licence id
    is_lvis: bool  # its images say what was not looked for
    is_panoptic: bool  # its masks lie in PNGs
    num_images: int
    num_annotations: int


class Spill(msgspec.Struct, frozen=True, kw_only=True):
    """What was dealt out; the marker is written last and holds this."""

    layers: list[Layer]
    images_of_bucket: list[int]  # image rows, all layers together; -1 for a bucket without rows
    rejects: list[Reject]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpilledRow:
    """One element of `images` or `annotations`, as it was written."""

    layer: int
    is_image: bool
    index: int
    data: bytes

    @property
    def where(self) -> str:
        """Its place in the file."""
        return f"{'images' if self.is_image else 'annotations'}[{self.index}]"


def spill(uris: Sequence[str], folder: str, *, bucket_bytes: int = BUCKET_BYTES) -> tuple[str, Spill]:
    """The folder below `folder` that holds the buckets of the files `uris`, and its marker.

    It is named by the digest of the files' fingerprints; one that has its marker is not made again.

    Raises:
        SourceError: a file is missing, is not JSON, or lacks images, annotations or categories.
    """
    prints = []
    for uri in uris:
        files.require_file(uri, named_by="annotations")
        prints.append(files.fingerprint(uri))
    key = msgspec.json.encode([_SPILL_VERSION, bucket_bytes, prints])
    place = files.join(folder, hashlib.sha256(key).hexdigest()[:16])
    if files.exists(files.join(place, _MARKER)):
        return place, read_spill(place)
    num_bytes = sum(found.num_bytes for found in prints)
    num_buckets = min(max(1, -(-num_bytes // bucket_bytes)), MAX_BUCKETS)
    with tempfile.TemporaryDirectory() as temporary:
        local = place if files.is_local(place) else temporary
        made = _deal(uris, local, num_buckets)
        if local != place:
            for bucket, number in enumerate(made.images_of_bucket):
                if number >= 0:
                    files.write_bytes(bucket_uri(place, bucket), files.read_bytes(bucket_uri(local, bucket)))
    files.write_bytes(files.join(place, _MARKER), msgspec.json.encode(made))
    return place, made


def read_spill(place: str) -> Spill:
    """The marker of the finished spill in the folder `place`."""
    return msgspec.json.decode(files.read_bytes(files.join(place, _MARKER)), type=Spill)


def bucket_uri(place: str, bucket: int) -> str:
    """The file of a bucket of the spill in the folder `place`."""
    return files.join(place, f"{bucket:05d}.rows")


def read_bucket(uri: str) -> Iterator[tuple[str, list[SpilledRow]]]:
    """Each image id of the bucket with its rows (layers and rows in their order), numbers first and by size.

    The id "" holds the rows whose image cannot be told.
    """
    rows_of_image: dict[bytes, list[SpilledRow]] = defaultdict(list)
    for line in files.read_bytes(uri).split(b"\n"):
        if line:
            layer, kind, index, image_id, data = line.split(b"\t", 4)
            row = SpilledRow(layer=int(layer), is_image=kind == _IMAGE, index=int(index), data=data)
            rows_of_image[image_id].append(row)
    for image_id in sorted(rows_of_image, key=_order):
        yield image_id.decode("utf-8"), rows_of_image[image_id]


def _order(image_id: bytes) -> tuple[bool, int, bytes]:
    is_number = image_id.isdigit()
    return not is_number, int(image_id) if is_number else 0, image_id


def _deal(uris: Sequence[str], folder: str, num_buckets: int) -> Spill:
    """Deal all rows of the files `uris` out to `num_buckets` files in the local `folder`."""
    names = [os.path.basename(uri) for uri in uris]
    names = [name if names.count(name) == 1 else f"{number}-{name}" for number, name in enumerate(names)]
    buckets = _Buckets(folder, num_buckets)
    readers = [_LayerReader(number, name) for number, name in enumerate(names)]
    for uri, reader in zip(uris, readers, strict=True):
        for element in stream_elements(uri, _SECTIONS):
            reader.take(element, uri, buckets)
        reader.require_complete(uri)
    return Spill(
        layers=[reader.layer() for reader in readers],
        images_of_bucket=buckets.finish(),
        rejects=[reject for reader in readers for reject in reader.rejects],
    )


class _LayerReader:
    """Takes the elements of one file: rows go to the buckets, categories and licences stay."""

    def __init__(self, number: int, name: str) -> None:
        self._number = number
        self._name = name
        self._phrases: dict[str, str] = {}
        self._synonyms: list[tuple[str, ...]] = []
        self._licences: dict[str, str] = {}
        self._is_lvis = self._is_panoptic = False
        self._counts = {"images": 0, "annotations": 0}
        self.rejects: list[Reject] = []

    def take(self, element: Element, uri: str, buckets: "_Buckets") -> None:
        """Take one element of the file."""
        value = element.value
        match element.section:
            case "images" | "annotations" if element.index < 0:
                raise SourceError(f"{uri}: {element.section} is a {type(value).__name__}; expected an array")
            case "images":
                self._is_lvis |= isinstance(value, dict) and bool(_LVIS_FIELDS & value.keys())
                self._spill(element, buckets, _IMAGE, id_of(value, "id"))
            case "annotations":
                self._is_panoptic |= isinstance(value, dict) and "segments_info" in value
                self._spill(element, buckets, _ANNOTATION, id_of(value, "image_id"))
            case "categories":
                self._take_category(value, f"categories[{element.index}]")
            case _:
                self._take_licence(value, f"licenses[{element.index}]")

    def _spill(self, element: Element, buckets: "_Buckets", kind: bytes, image_id: str) -> None:
        self._counts[element.section] += 1
        head = b"%d\t%b\t%d\t%b\t" % (self._number, kind, element.index, image_id.encode())
        buckets.add(image_id.encode() or str(element.index).encode(), head + element.data, is_image=kind == _IMAGE)

    def _take_category(self, value: object, where: str) -> None:
        try:
            row = read_row(value, CategoryRow, where)
            category_id = require_id(value, "id", where)
            phrase = category_phrase(row.name)
        except Rejected as rejected:
            self._reject(where, rejected)
            return
        if category_id in self._phrases:
            self._reject(where, Rejected(Reason.DUPLICATE_ID, f"{where}.id: {category_id} is taken already"))
            return
        self._phrases[category_id] = phrase
        same = {phrase: None}
        for text in row.synonyms:
            try:
                same[category_phrase(text)] = None
            except Rejected as rejected:
                self._reject(f"{where}.synonyms", rejected)
        if len(same) > 1:
            self._synonyms.append(tuple(same))

    def _take_licence(self, value: object, where: str) -> None:
        try:
            row = read_row(value, LicenceRow, where)
            self._licences[id_text(row.id)] = (row.name or row.url).encode("utf-8", "replace").decode("utf-8")
        except Rejected as rejected:
            self._reject(where, rejected)

    def _reject(self, where: str, rejected: Rejected) -> None:
        self.rejects.append(Reject(where=f"{self._name}: {where}", reason=rejected.reason, detail=rejected.detail))

    def require_complete(self, uri: str) -> None:
        """Stop if the file is no annotation file, or would deny everything everywhere.

        Raises:
            SourceError: images, annotations or categories are missing.
        """
        if not self._counts["images"] or not (self._counts["annotations"] or self._is_lvis):
            raise SourceError(
                f"{uri}: {self._counts['images']} images and {self._counts['annotations']} annotations; expected some "
                "of each (without annotations, every category would count as absent everywhere). Name another file"
            )
        if not self._phrases:
            raise SourceError(
                f"{uri}: no usable category; expected `categories` with id and name, as in COCO's instances, boxes, "
                "panoptic or LVIS files (captions and keypoints say nothing of absence). Name another file"
            )

    def layer(self) -> Layer:
        """What was found, once the file was read."""
        return Layer(
            name=self._name,
            phrases=self._phrases,
            synonyms=self._synonyms,
            licences=self._licences,
            is_lvis=self._is_lvis,
            is_panoptic=self._is_panoptic,
            num_images=self._counts["images"],
            num_annotations=self._counts["annotations"],
        )


_LVIS_FIELDS = frozenset({"neg_category_ids", "not_exhaustive_category_ids"})


class _Buckets:
    """Lines for many files, kept in memory until there is enough to append; few files are open at a time."""

    def __init__(self, folder: str, num_buckets: int) -> None:
        files.make_folder(folder)
        for path in Path(folder).glob("*.rows"):  # of a killed run
            path.unlink()
        self._folder = folder
        self._waiting: dict[int, list[bytes]] = defaultdict(list)
        self._num_waiting_bytes = 0
        self._images = [-1] * num_buckets

    def add(self, key: bytes, line: bytes, *, is_image: bool) -> None:
        """Append `line` to the bucket that `key` names."""
        bucket = zlib.crc32(key) % len(self._images)
        self._images[bucket] = max(0, self._images[bucket]) + is_image
        self._waiting[bucket].append(line)
        self._num_waiting_bytes += len(line)
        if self._num_waiting_bytes > _FLUSH_BYTES:
            self._flush()

    def finish(self) -> list[int]:
        """Image rows per bucket, once all lines are on the disk."""
        self._flush()
        for bucket, number in enumerate(self._images):
            if number >= 0:
                with files.storage_errors(self._folder), open(bucket_uri(self._folder, bucket), "ab") as file:
                    os.fsync(file.fileno())
        return self._images

    def _flush(self) -> None:
        for bucket, lines in self._waiting.items():
            with files.storage_errors(self._folder), open(bucket_uri(self._folder, bucket), "ab") as file:
                file.writelines(line + b"\n" for line in lines)
        self._waiting.clear()
        self._num_waiting_bytes = 0
