"""The source of COCO's formats: instances, boxes alone, panoptic, and LVIS, in one or several annotation files.

Which of them a file is, its own content says. Files complete each other per image and phrase: of two presences the one
with more complete masks stands. A phrase is absent where a file that lists the image has it among its categories, no
file shows it, and nothing about it was broken; LVIS denies by name alone.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from manifests import files
from manifests.errors import SourceError
from manifests.recipe import CocoSource, Recipe
from shards.labels import phrase_id
from shards.sources.coco_image import Folders, ImageReader
from shards.sources.coco_spill import BUCKET_BYTES, Layer, bucket_uri, read_bucket, read_spill, spill
from shards.sources.folder_digest import folder_digest
from shards.sources.source import Found, Prepared, ScanPart, Source

SCAN_VERSION = 1  # part of every part's name: raise it when a scan's output changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Coco:
    """A folder of pictures with annotation files in COCO's formats."""

    name: str
    root: str  # of the pictures
    annotations: tuple[str, ...]  # files, or patterns
    panoptic: str  # folder of the PNGs, or ""
    licence: str  # "" takes each image's own
    exhaustive: bool
    bucket_bytes: int = BUCKET_BYTES

    def prepare(self, work: str) -> Prepared:
        """The parts, with all rows of the annotation files dealt out below `work`.

        Raises:
            SourceError: pictures or annotations are missing, or a file is none of COCO's.
        """
        files.require_file(self.root, named_by=f"[sources.{self.name}] images")
        uris = self._annotation_files()
        place, dealt = spill(uris, files.join(work, f"coco-{self.name}"), bucket_bytes=self.bucket_bytes)
        if any(layer.is_panoptic for layer in dealt.layers):
            if not self.panoptic:
                raise SourceError(
                    f"[sources.{self.name}] annotations name a panoptic file, but `panoptic` is not set; expected "
                    "the folder of its PNGs"
                )
            files.require_file(self.panoptic, named_by=f"[sources.{self.name}] panoptic")
        digest = self._digest(place)
        parts = [
            ScanPart(
                name=f"{self.name}-{bucket:05d}-{digest}",
                weight=max(1, number),
                uri=self.root,
                spill=bucket_uri(place, bucket),
            )
            for bucket, number in enumerate(dealt.images_of_bucket)
            if number >= 0
        ]
        return Prepared(
            parts=tuple(parts),
            vocabularies=_Vocabularies(self.name, dealt.layers, exhaustive=self.exhaustive).phrases(),
            synonyms=tuple(same for layer in dealt.layers for same in layer.synonyms),
            rejects=tuple(dealt.rejects),
        )

    def scan(self, part: ScanPart) -> Iterator[Found]:
        """Every picture of the bucket with its labels, by image id."""
        dealt = read_spill(posixpath.dirname(part.spill))
        vocabularies = _Vocabularies(self.name, dealt.layers, exhaustive=self.exhaustive)
        folders = Folders(images=self.root, panoptic=self.panoptic)
        for image_id, rows in read_bucket(part.spill):
            reader = ImageReader(image_id, dealt.layers, folders)
            yield from reader.read_rows(rows)
            if reader.size is None:
                continue
            yield from reader.read_labels(rows)
            yield reader.picture(
                exhaustive_over=vocabularies.exhaustive_over(reader.closed),
                open_over=vocabularies.open_over(reader.listed),
                licence=self.licence,
            )

    def _annotation_files(self) -> list[str]:
        uris: dict[str, None] = {}
        for pattern in self.annotations:
            found = files.list_files(pattern)
            if not found:
                raise SourceError(
                    f"[sources.{self.name}] annotations: nothing at {pattern}; expected a JSON file in one of COCO's "
                    "formats. Check the path in the recipe"
                )
            uris.update(dict.fromkeys(found))
        if not uris:
            raise SourceError(f"[sources.{self.name}] annotations is empty; expected a JSON file")
        return list(uris)

    def _digest(self, place: str) -> str:
        """16 hex digits of everything that decides what a scan gives."""
        key = [
            SCAN_VERSION,
            posixpath.basename(place),
            [self.root, self.panoptic, self.licence, self.exhaustive],
            [folder_digest(folder) for folder in (self.root, self.panoptic) if folder],
        ]
        return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:16]


def open_coco(name: str, table: CocoSource, recipe: Recipe) -> Source:
    """The source that the recipe's table [sources.`name`] asks for."""
    patterns = [table.annotations] if isinstance(table.annotations, str) else table.annotations
    return Coco(
        name=name,
        root=recipe.resolve(table.images),
        annotations=tuple(recipe.resolve(pattern) for pattern in patterns),
        panoptic=recipe.resolve(table.panoptic) if table.panoptic else "",
        licence=table.licence,
        exhaustive=table.exhaustive,
    )


class _Vocabularies:
    """Which phrases an image's labels are exhaustive over, and which were left open.

    The source's name stands for all phrases of its exhaustive files. An image that only some of them list has one
    vocabulary per such file, `<source>:<file>`.
    """

    def __init__(self, name: str, layers: Sequence[Layer], *, exhaustive: bool) -> None:
        self._name = name
        self._layers = layers
        self._lvis = [number for number, layer in enumerate(layers) if layer.is_lvis]
        self._plain = [number for number, layer in enumerate(layers) if not layer.is_lvis]
        self._is_exhaustive = exhaustive
        self._open_name = f"{name}:lvis" if self._plain else name
        self._ids = [{phrase_id(phrase) for phrase in layer.phrases.values()} for layer in layers]
        self._all_ids = set[str]().union(*(self._ids[number] for number in self._plain))

    def phrases(self) -> Mapping[str, tuple[str, ...]]:
        """All vocabularies that a scan may name."""
        found = {self._name: self._union(self._plain)} if self._plain else {}
        if len(self._plain) > 1 and self._is_exhaustive:
            found |= {self._layer_name(number): self._union([number]) for number in self._plain}
        if self._lvis:
            found[self._open_name] = self._union(self._lvis)
        return found

    def exhaustive_over(self, closed: Sequence[int]) -> tuple[str, ...]:
        """The vocabularies over which an image is exhaustive if the files `closed` list it and are sound there."""
        plain = [number for number in closed if number in self._plain] if self._is_exhaustive else []
        if plain and set[str]().union(*(self._ids[number] for number in plain)) == self._all_ids:
            return (self._name,)
        return tuple(self._layer_name(number) for number in plain)

    def open_over(self, listed: Sequence[int]) -> tuple[str, ...]:
        """The vocabularies that were left open in an image that the files `listed` list."""
        return (self._open_name,) if any(number in self._lvis for number in listed) else ()

    def _union(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """The phrases of the files `numbers`, the first spelling of each, sorted."""
        spelling: dict[str, str] = {}
        for number in numbers:
            for phrase in self._layers[number].phrases.values():
                spelling.setdefault(phrase_id(phrase), phrase)
        return tuple(spelling[key] for key in sorted(spelling))

    def _layer_name(self, number: int) -> str:
        return f"{self._name}:{self._layers[number].name}"
