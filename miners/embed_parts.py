"""What is embedded of each part of a catalog, and the name under which its rows lie.

The name holds the digest of the encoder, of what was scanned and of what is asked, so a change of any of them is a new
name, and a name that is there is current.
"""

# L labels, C crops, K labels of one picture

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import files
from manifests.sample import Mask, decode_masks
from manifests.tables import CATALOG, read_table
from miners.encoders import Encoder
from miners.streaming import Wanted
from miners.views import CONTEXT_MARGIN, crop_box, largest
from shards.inventory import Inventory
from shards.originals import Original
from shards.scan import ScannedPart

_VERSION = 2  # of how views are cut and rows are made; another makes every file stale
_NO_MASKS = len(b"[]")
_PLACE = ["key", "source", "uri", "offset", "num_bytes", "sha256"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EmbedPart:
    """One part's pictures, and the labels of which a mask is cropped, in the order of the pictures."""

    name: str
    input_digest: str  # of what is asked, whatever the encoder
    first: int  # row of the inventory
    num: int
    label_c: NDArray[np.int64]
    image_c: NDArray[np.int64]  # row of the inventory

    @property
    def weight(self) -> int:
        """How many pictures it holds."""
        return self.num


def digest_of(encoder: Encoder, asked: object) -> str:
    """16 hex digits over the encoder and what is asked of it."""
    return hashlib.sha256(msgspec.json.encode([encoder.digest, asked])).hexdigest()[:16]


def input_digest_of(asked: object) -> str:
    """16 hex digits over what is asked of any encoder."""
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:16]


def embed_parts(inventory: Inventory, encoder: Encoder, *, crops: bool = True) -> list[EmbedPart]:
    """The parts of the catalog that hold pictures of the inventory, in its order, with masks to crop if asked."""
    found, first = [], 0
    for scanned in inventory.parts:
        of_part = read_table(scanned.catalog, CATALOG, ["key"])["key"]
        num = _num_kept(inventory.images["key"].slice(first), of_part)
        if num:
            found.append(_part(inventory, scanned, encoder, first, num, crops=crops))
        first += num
    return found


def _num_kept(keys: pa.ChunkedArray, of_part: pa.ChunkedArray) -> int:
    """How many of `keys`, from the first on, are of the part; those that an earlier part holds were dropped from it."""
    strangers = pc.invert(pc.is_in(keys.slice(0, len(of_part)), value_set=of_part.combine_chunks()))
    first = pc.index(strangers, True).as_py()
    return len(strangers) if first < 0 else int(first)


def _part(
    inventory: Inventory, scanned: ScannedPart, encoder: Encoder, first: int, num: int, *, crops: bool
) -> EmbedPart:
    pictures = np.arange(first, first + num)
    rows, owner = inventory.present(pictures)
    masked = (inventory.labels.num_bytes_l[rows] > _NO_MASKS) & crops
    label_c, image_c = rows[masked], pictures[owner[masked]]
    asked = [
        scanned.record.sha256,
        _VERSION,
        CONTEXT_MARGIN,
        inventory.images["key"].slice(first, num).to_pylist(),
        [inventory.phrases[v] for v in inventory.labels.phrase_l[label_c].tolist()],
        inventory.labels.offset_l[label_c].tolist(),
        (image_c - first).tolist(),
    ]
    name = f"{scanned.source}-{digest_of(encoder, asked)}"
    return EmbedPart(
        name=name, input_digest=input_digest_of(asked), first=first, num=num, label_c=label_c, image_c=image_c
    )


def wanted_of(part: EmbedPart, inventory: Inventory, roots: Mapping[str, str]) -> Iterator[Wanted]:
    """What is asked of each picture of a part."""
    rows = inventory.images.slice(part.first, part.num).select(_PLACE).to_pylist()
    edges = np.searchsorted(part.image_c, np.arange(part.first, part.first + part.num + 1)).tolist()
    for row, start, end in zip(rows, edges[:-1], edges[1:], strict=True):
        labels = part.label_c[start:end]
        original = Original(
            key=row["key"],
            uri=files.join(roots[row["source"]], row["uri"]),
            offset=row["offset"],
            num_bytes=row["num_bytes"],
            sha256=row["sha256"],
        )
        yield Wanted(
            original=original,
            boxes=[crop_box(largest(masks)) for masks in _masks(inventory, labels)],
            phrases=[inventory.phrases[v] for v in inventory.labels.phrase_l[labels].tolist()],
        )


def _masks(inventory: Inventory, label_k: NDArray[np.int64]) -> Iterator[tuple[Mask, ...]]:
    """The masks of labels of one picture; they lie together, so that one read fetches them."""
    if not len(label_k):
        return
    labels = inventory.labels
    start_k, size_k = labels.offset_l[label_k], labels.num_bytes_l[label_k]
    first, last = int(start_k.min()), int((start_k + size_k).max())
    data = files.read_range(inventory.parts[labels.part_l[label_k[0]]].masks, first, last - first)
    for start, size in zip((start_k - first).tolist(), size_k.tolist(), strict=True):
        yield decode_masks(data[start : start + size])
