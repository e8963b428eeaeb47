"""Mined rows as arrays, for tests of planning that need no table."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.recipe import MINED_KINDS
from manifests.sample import KINDS, Evidence
from shards.inventory import ABSENT, Inventory
from shards.mined import EVIDENCES, Mined

MINED_NUMBERS = np.array([KINDS.index(kind) for kind in MINED_KINDS], np.int8)


def make_mined(
    inventory: Inventory,
    image_m: NDArray[np.int64],
    phrase_m: NDArray[np.int64],
    kind_m: NDArray[np.int64],
    rng: np.random.Generator,
) -> Mined:
    """Rows of the pairs that no label forbids, each once; `kind_m` is an index into MINED_KINDS."""
    num_phrases = len(inventory.phrases)
    owner, blocked = inventory.blocked(np.arange(inventory.num_images))
    code_m, first = np.unique(image_m * num_phrases + phrase_m, return_index=True)
    free = ~np.isin(code_m, owner * num_phrases + blocked)
    image, phrase, kind = image_m[first][free], phrase_m[first][free], kind_m[first][free]
    denied = inventory.vocabulary_g[inventory.group_n[image], phrase] | _named(inventory, image, phrase)
    numbers = [EVIDENCES.index(one) for one in (Evidence.MINED, Evidence.ANNOTATED)]
    num = len(image)
    return Mined(
        image_m=image,
        phrase_m=phrase.astype(np.int32),
        kind_m=MINED_NUMBERS[kind],
        evidence_m=np.array(numbers, np.int8)[denied.astype(np.int64)],
        denied_m=denied,
        score_m=rng.random(num, np.float32),
        standard_score_m=rng.random(num, np.float32),
        rank_m=rng.integers(0, 9, num).astype(np.int32),
        positive_score_m=rng.random(num, np.float32),
        positive_key_m=pa.array([f"k{i}" for i in range(num)], pa.string()).dictionary_encode(),
        miner_m=pa.array(["test"] * num, pa.string()).dictionary_encode(),
        dropped={},
        num_read=num,
    )


def _named(inventory: Inventory, image: NDArray[np.int64], phrase: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a label denies the phrase by name."""
    labels, num_phrases = inventory.labels, len(inventory.phrases)
    owner = np.repeat(np.arange(inventory.num_images), np.diff(labels.starts))
    here = labels.state_l == ABSENT
    named: NDArray[np.bool_] = np.isin(image * num_phrases + phrase, owner[here] * num_phrases + labels.phrase_l[here])
    return named
