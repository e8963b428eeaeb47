"""The rows of an inventory's pictures, mask crops and phrases, kept as tables so that nothing is computed twice."""

# N pictures, C crops, V phrases, D width

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import TableError
from manifests.stage import Inline, run_stage
from miners.embed_parts import EmbedPart, digest_of, embed_parts, input_digest_of, wanted_of
from miners.embedding_files import Embeddings, embedding_writer, read_embeddings
from miners.encoders import Encoder
from miners.exact_search import available_threads, in_threads
from miners.streaming import BATCH, encode_pictures, require_directions
from shards.inventory import Inventory

IMAGES, CROPS = "images", "crops"  # folders of tables, one for each part
_BLOCK = 4096  # phrases in one file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """All rows of an inventory."""

    images_nd: NDArray[np.float16]  # in the inventory's order
    crop_image_c: NDArray[np.int64]  # row of the inventory
    crop_phrase_c: NDArray[np.int32]
    crop_box_c4: NDArray[np.float32]  # x, y, width, height in pixels, context included
    crops_cd: NDArray[np.float16]
    digest: str  # of all of the above


class PartRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finished part."""

    images: int
    crops: int


def embed_phrases(encoder: Encoder, phrases: Sequence[str], *, folder: str) -> NDArray[np.float16]:
    """The unit row of every phrase [V, D]; what lies in `folder` is not computed again.

    Raises:
        BuildError: the encoder gives a row that is no direction.
    """
    rows = [_embed_block(encoder, block, files.join(folder, name)) for name, block in phrase_blocks(encoder, phrases)]
    return np.concatenate([np.empty((0, encoder.dim), np.float16), *rows])


def phrase_blocks(encoder: Encoder, phrases: Sequence[str]) -> list[tuple[str, Sequence[str]]]:
    """Blocks of phrases, each with its file's name."""
    blocks = [phrases[start : start + _BLOCK] for start in range(0, len(phrases), _BLOCK)]
    return [(f"{digest_of(encoder, block)}.parquet", block) for block in blocks]


def _embed_block(encoder: Encoder, phrases: Sequence[str], uri: str) -> NDArray[np.float16]:
    if not files.exists(uri):
        names = [f"the phrase {phrase!r}" for phrase in phrases]
        rows_vd = require_directions(encoder.encode_texts(phrases), names, encoder)
        with embedding_writer(uri, encoder, input_digest=input_digest_of(phrases)) as writer:
            for phrase, row_d in zip(phrases, rows_vd, strict=True):
                writer.add("", phrase, [], row_d)
    return _read(uri, encoder, _repeated("", len(phrases)), pa.array(phrases, pa.string())).rows_rd


def embed_inventory(
    inventory: Inventory,
    roots: Mapping[str, str],
    encoder: Encoder,
    *,
    folder: str,
    progress: Progress,
    batch: int = BATCH,
    needed_n: NDArray[np.bool_] | None = None,
    crops: bool = True,
) -> Embedded:
    """The row of every picture, and of one crop per picture and present phrase that has a mask: the largest.

    Args:
        inventory: What was scanned.
        roots: Where each source's uris start.
        encoder: Gives the rows.
        folder: Home of `images/` and `crops/`, which hold one table each per part of the catalog.
        progress: Where the bar is drawn.
        batch: Pictures that the model sees at once.
        needed_n: Pictures whose rows will be looked at. Parts that hold none are passed over: their pictures' rows are
            zero, and they have no crops.
        crops: Whether masks are cropped at all.

    Raises:
        BuildError: a picture is gone, changed or does not decode, or the encoder gives a row that is no direction.
        TableError: a finished table was damaged since.
    """
    parts = embed_parts(inventory, encoder, crops=crops)
    if needed_n is not None:
        parts = [part for part in parts if needed_n[part.first : part.first + part.num].any()]
    run = partial(_embed_part, inventory=inventory, roots=roots, encoder=encoder, folder=folder, batch=batch)
    home = files.join(folder, IMAGES)
    for part in parts:  # a record whose tables were deleted does not say that the part is finished
        if not all(files.exists(_table(folder, kind, part)) for kind in (IMAGES, CROPS)):
            files.remove(files.join(home, f"{part.name}.json"))
    run_stage("embed", parts, run, PartRecord, folder=home, executor=Inline(), progress=progress)
    return _load(parts, inventory, encoder, folder)


def _table(folder: str, kind: str, part: EmbedPart) -> str:
    return files.join(folder, kind, f"{part.name}.parquet")


def _embed_part(
    part: EmbedPart, *, inventory: Inventory, roots: Mapping[str, str], encoder: Encoder, folder: str, batch: int
) -> PartRecord:
    with (
        embedding_writer(_table(folder, IMAGES, part), encoder, input_digest=part.input_digest) as images,
        embedding_writer(_table(folder, CROPS, part), encoder, input_digest=part.input_digest) as crops,
    ):
        num_crops = 0
        for rows in encode_pictures(wanted_of(part, inventory, roots), encoder, batch=batch):
            wanted = rows.wanted
            images.add(wanted.original.key, "", [], rows.whole_d)
            for phrase, box, row_d in zip(wanted.phrases, wanted.boxes, rows.crops_kd, strict=True):
                crops.add(wanted.original.key, phrase, list(box), row_d)
            num_crops += len(wanted.boxes)
    return PartRecord(images=part.num, crops=num_crops)


def _load(parts: Sequence[EmbedPart], inventory: Inventory, encoder: Encoder, folder: str) -> Embedded:
    images_nd = np.zeros((inventory.num_images, encoder.dim), np.float16)

    def read_images(part: EmbedPart) -> None:
        found = _read_images(_table(folder, IMAGES, part), part, inventory, encoder)
        images_nd[part.first : part.first + part.num] = found.rows_rd

    def read_crops(part: EmbedPart) -> Embeddings:
        return _read_crops(_table(folder, CROPS, part), part, inventory, encoder)

    threads = available_threads()
    in_threads(read_images, parts, threads)
    crops = in_threads(read_crops, parts, threads)
    nothing = np.empty((0, encoder.dim), np.float16)
    crops_cd = np.concatenate([nothing, *(found.rows_rd for found in crops)])
    crop_image_c = np.concatenate([np.empty(0, np.int64), *(part.image_c for part in parts)])
    crop_phrase_c = np.concatenate(
        [np.empty(0, np.int32), *(inventory.labels.phrase_l[part.label_c] for part in parts)]
    )
    crop_box_c4 = np.concatenate([np.empty((0, 4), np.float32), *(found.box_r4 for found in crops)])
    digest = hashlib.sha256()
    for array in (images_nd, crop_image_c, crop_phrase_c, crop_box_c4, crops_cd):
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return Embedded(
        images_nd=images_nd,
        crop_image_c=crop_image_c,
        crop_phrase_c=crop_phrase_c,
        crop_box_c4=crop_box_c4,
        crops_cd=crops_cd,
        digest=digest.hexdigest(),
    )


def _read_images(uri: str, part: EmbedPart, inventory: Inventory, encoder: Encoder) -> Embeddings:
    keys = inventory.images["key"].slice(part.first, part.num)
    return _read(uri, encoder, keys.combine_chunks(), _repeated("", part.num))


def _read_crops(uri: str, part: EmbedPart, inventory: Inventory, encoder: Encoder) -> Embeddings:
    keys = inventory.images["key"].take(pa.array(part.image_c))
    phrases = pa.array(inventory.phrases, pa.string()).take(pa.array(inventory.labels.phrase_l[part.label_c]))
    return _read(uri, encoder, keys.combine_chunks(), phrases)


def _read(uri: str, encoder: Encoder, keys: pa.Array, phrases: pa.Array) -> Embeddings:
    """The rows at `uri`, one for each pair of key and phrase in their order; another row would stand for the wrong one.

    Raises:
        TableError: they are not, or are no rows of the encoder.
    """
    found = read_embeddings(uri, encoder, keys=keys)
    if not (found.keys.combine_chunks().equals(keys) and found.phrases.combine_chunks().equals(phrases)):
        raise TableError(
            f"{uri}: its {len(found.keys)} rows are not those that were asked for; expected {len(keys)} with their "
            "keys and phrases, in order. Delete the file and run again"
        )
    return found


def _repeated(text: str, num: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), num)
