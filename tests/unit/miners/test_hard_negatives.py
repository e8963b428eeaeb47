"""Mining on made grounds: what is never mined, what comes out the same, and what stops a run."""

import numpy as np
from rich.progress import Progress

from manifests.recipe import Mine
from miners.hard_negatives import mine
from miners.mined_table import MinedTable
from shards.inventory import PRESENT
from tests.grounds import make_ground
from pathlib import Path


def mined(ground, folder: Path, **settings) -> MinedTable:
    return mine(ground, Mine(**settings), split="train", seed=0, folder=str(folder), progress=Progress(disable=True))


def test_x(tmp_path: Path) -> None:
    ground = make_ground(400)
    found = mined(ground, tmp_path)
    from miners.record import summarise_mining
    print(summarise_mining(found.record, "x"))
    for kind in found.kinds:
        image = found.pool.picture_n[kind.rows.row_c]
        phrase = found.pool.phrase_v[kind.rows.column_c]
        label, owner = ground.inventory.present(np.arange(400))
        pairs = set(zip(owner.tolist(), ground.inventory.labels.phrase_l[label].tolist()))
        assert not pairs & set(zip(image.tolist(), phrase.tolist()))
