"""Grounds for mining made of random labels and rows: a picture's row is the sum of its phrases' rows, and noise."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from miners.embed_rows import Embedded
from miners.ground import Ground
from miners.judging import Knowledge
from miners.outside import Said
from miners.relation import Relation
from shards.inventory import PRESENT, Inventory
from shards.splits import Assignment
from tests.inventories import make_inventory, random_states

# N pictures, V phrases, C crops, D width


def unit(rows_nd: NDArray[np.float64]) -> NDArray[np.float16]:
    found: NDArray[np.float16] = (rows_nd / np.linalg.norm(rows_nd, axis=1, keepdims=True)).astype(np.float16)
    return found


def make_ground(
    num: int = 120,
    num_phrases: int = 12,
    *,
    seed: int = 0,
    width: int = 32,
    noise: float = 1.0,
    unseen: float = 0.3,
    exhaustive_n: NDArray[np.bool_] | None = None,
    split_n: NDArray[np.int8] | None = None,
    group_n: NDArray[np.int64] | None = None,
    doubtful: Sequence[tuple[int, int]] = (),
    alarms: Said | None = None,
    verifier: Said | None = None,
    decided: Said | None = None,
    states_nv: NDArray[np.int8] | None = None,
) -> Ground:
    """A ground whose pictures look like what they show, and like a share `unseen` of phrases that they do not."""
    rng = np.random.default_rng(seed)
    states = random_states(rng, num, num_phrases) if states_nv is None else states_nv
    inventory = make_inventory(states, exhaustive_n=exhaustive_n)
    texts = rng.normal(size=(num_phrases, width))
    shown_nv = (states == PRESENT) | (rng.random(states.shape) < unseen / num_phrases)
    images = shown_nv @ texts + noise * rng.normal(size=(num, width))
    return Ground(
        inventory=inventory,
        assignment=Assignment(
            split_n=np.zeros(num, np.int8) if split_n is None else split_n,
            group_n=np.arange(num) if group_n is None else group_n,
            leaks=(),
        ),
        embedded=_embedded(inventory, unit(images), texts, rng),
        phrase_v=np.arange(num_phrases, dtype=np.int32),
        texts_vd=unit(texts),
        knowledge=Knowledge(
            relation=_relation(num_phrases, doubtful),
            meaning=_relation(num_phrases, doubtful),
            group_n=np.arange(num) if group_n is None else group_n,
            verifier=verifier,
            decided=decided,
        ),
        alarms=alarms,
        encoder="made",
        encoder_why="a test asked for it",
        encoder_digest="0" * 16,
    )


def _embedded(
    inventory: Inventory, images_nd: NDArray[np.float16], texts: NDArray[np.float64], rng: np.random.Generator
) -> Embedded:
    label, image = inventory.present(np.arange(inventory.num_images))
    phrase = inventory.labels.phrase_l[label]
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (len(label), 1))
    boxes[:, 0] = np.arange(len(label))
    return Embedded(
        images_nd=images_nd,
        crop_image_c=image,
        crop_phrase_c=phrase,
        crop_box_c4=boxes,
        crops_cd=unit(texts[phrase] + 0.5 * rng.normal(size=(len(label), texts.shape[1]))),
        digest="made",
    )


def _relation(num_phrases: int, doubtful: Sequence[tuple[int, int]]) -> Relation:
    pairs = np.array([*doubtful, *((v, v) for v in range(num_phrases))], np.int64).reshape(-1, 2)
    return Relation.of_pairs(num_phrases, pairs[:, 0], pairs[:, 1])
