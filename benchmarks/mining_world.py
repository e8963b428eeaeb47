"""A split to be mined as files: embeddings of pictures, crops and phrases, and labels that know one presence a phrase.

Query q is a phrase whose one known presence is in picture q, as the pairs of `mine_hard_negatives` have one positive.
Every picture is exhaustive over a word that is not asked, so that all of them are pool and none can be audited.
"""

# N pictures, V phrases, D width

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress

from manifests.recipe import Mine
from manifests.sample import NegativeKind
from manifests.tables import CATALOG, EMBEDDINGS
from miners.composing import mine
from miners.embed_rows import Embedded
from miners.embedding_files import embedding_writer, read_embeddings
from miners.exact_search import available_threads, in_threads
from miners.ground import Ground
from miners.judging import Knowledge
from miners.mined_table import write_mined
from miners.relation import Relation
from miners.views import Geometry
from shards.inventory import PRESENT, Inventory, Labels
from shards.splits import Assignment

PARTS = 8  # files of pictures
PIXEL = Geometry(height=1, width=1, resize="squash", interpolation="bilinear")
BOX = [0.0, 0.0, 64.0, 64.0]
_DOUBTFUL = 3  # phrases that each phrase's presence makes doubtful
Rows = NDArray[np.float16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Stands for the encoder whose rows lie in the files; encodes nothing."""

    dim: int
    name: str = "stored"
    digest: str = "0" * 16
    weights_digest: str = "0" * 16
    preprocessing_digest: str = "0" * 16
    geometry: Geometry = PIXEL

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Nothing."""
        raise NotImplementedError

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """Nothing."""
        raise NotImplementedError


def write_embeddings(folder: Path, rows_nd: Rows, queries_vd: Rows) -> None:
    """The embedding files; a phrase's crop lies as near its text as its picture does."""
    keys, phrases = keys_of(len(rows_nd)), phrases_of(len(queries_vd))
    edges = np.linspace(0, len(rows_nd), PARTS + 1).astype(int)
    for part, (first, last) in enumerate(pairwise(edges.tolist())):
        _write(folder / f"images-{part}.parquet", keys[first:last], [""] * (last - first), [], rows_nd[first:last])
    near_vd = (queries_vd.astype(np.float32) + rows_nd[: len(phrases)]).astype(np.float64)
    crops_vd = (near_vd / np.linalg.norm(near_vd, axis=1, keepdims=True)).astype(np.float16)
    _write(folder / "crops.parquet", keys[: len(phrases)], phrases, BOX, crops_vd)
    _write(folder / "phrases.parquet", [""] * len(phrases), phrases, [], queries_vd)


def _write(path: Path, keys: Sequence[str], phrases: Sequence[str], box: Sequence[float], rows_nd: Rows) -> None:
    num = len(rows_nd)
    starts = rows_nd.shape[1] * np.arange(num + 1, dtype=np.int32)
    columns = {
        "key": pa.array(keys, pa.string()),
        "phrase": pa.array(phrases, pa.string()),
        "box": pa.array([box] * num, pa.list_(pa.float32())),
        "row": pa.ListArray.from_arrays(starts, pa.array(rows_nd.reshape(-1))),
    }
    with embedding_writer(str(path), Stored(dim=rows_nd.shape[1]), input_digest="") as writer:
        writer.add_table(pa.table(columns, EMBEDDINGS))


def mine_files(folder: Path, inventory: Inventory, knowledge: Knowledge, settings: Mine, out: Path) -> int:
    """From embedding files to the written table; how many rows it has."""
    num_phrases = len(inventory.phrases) - 1
    names = [str(folder / f"images-{part}.parquet") for part in range(PARTS)]
    images_nd = np.concatenate([part.rows_rd for part in in_threads(read_embeddings, names, available_threads())])
    crops, texts = (read_embeddings(str(folder / f"{name}.parquet")) for name in ("crops", "phrases"))
    embedded = Embedded(
        images_nd=images_nd,
        crop_image_c=np.arange(num_phrases),
        crop_phrase_c=np.arange(num_phrases, dtype=np.int32),
        crop_box_c4=crops.box_r4,
        crops_cd=crops.rows_rd,
        digest="stored",
    )
    num = inventory.num_images
    ground = Ground(
        inventory=inventory,
        assignment=Assignment(split_n=np.zeros(num, np.int8), group_n=knowledge.group_n, leaks=()),
        embedded=embedded,
        phrase_v=np.arange(num_phrases, dtype=np.int32),
        texts_vd=texts.rows_rd,
        knowledge=knowledge,
        alarms=None,
        encoder="stored",
        encoder_why="its rows lie ready",
        encoder_digest="0" * 16,
    )
    with Progress(disable=True) as progress:
        mined = mine(
            ground,
            settings,
            split="train",
            seed=0,
            folder=str(folder),
            progress=progress,
            kinds=[NegativeKind.NEAR_IMAGE],
        )
    write_mined(mined, str(out), inputs_sha256="")
    return sum(len(kind.rows) for kind in mined.kinds)


def make_inventory(num: int, num_phrases: int) -> Inventory:
    """Pictures of which phrase v is known to be present in picture v, and a last phrase in none."""
    zeros = np.zeros(num_phrases, np.int64)
    labels = Labels(
        starts=np.minimum(np.arange(num + 1), num_phrases),
        phrase_l=np.arange(num_phrases, dtype=np.int32),
        state_l=np.full(num_phrases, PRESENT, np.int8),
        mask_state_l=zeros.astype(np.int8),
        part_l=zeros.astype(np.int32),
        offset_l=zeros,
        num_bytes_l=zeros.astype(np.int32),
        known_by_l=zeros.astype(np.int8),
    )
    columns = {field.name: pa.nulls(num, field.type) for field in CATALOG} | {"key": pa.array(keys_of(num))}
    vocabulary_g = np.zeros((1, num_phrases + 1), np.bool_)
    vocabulary_g[0, -1] = True
    return Inventory(
        images=pa.table(columns),
        vocabularies={},
        sources=("s",),
        source_n=np.zeros(num, np.int16),
        content_n=np.arange(num, dtype=np.uint64),
        phrases=(*phrases_of(num_phrases), "nothing of this"),
        labels=labels,
        parts=(),
        vocabulary_g=vocabulary_g,
        group_n=np.zeros(num, np.int32),
        implied=np.arange(num_phrases + 1, dtype=np.int32),
        implied_starts=np.arange(num_phrases + 2),
        duplicates=(),
    )


def make_knowledge(num: int, num_phrases: int) -> Knowledge:
    """Each phrase makes a few others doubtful, and every tenth picture is a near-copy of the one before."""
    present_r = np.repeat(np.arange(num_phrases), _DOUBTFUL)
    doubtful_r = (present_r + np.tile(np.arange(_DOUBTFUL), num_phrases)) % num_phrases
    relation = Relation.of_pairs(num_phrases + 1, present_r, doubtful_r)
    group_n = np.arange(num)
    group_n[9::10] = group_n[8::10][: len(group_n[9::10])]
    return Knowledge(relation=relation, meaning=relation, group_n=group_n)


def keys_of(num: int) -> list[str]:
    """A key for each picture."""
    return [f"s-{row:09d}" for row in range(num)]


def phrases_of(num: int) -> list[str]:
    """Phrases, one for each query."""
    return [f"phrase {query:06d}" for query in range(num)]
