"""The mining stage of a build: what its table says of itself, and that it is found again."""

from pathlib import Path

import pytest
from rich.progress import Progress

from flows.mining import mine_train
from manifests.recipe import BlankSource, Mine, Recipe
from manifests.sample import NegativeKind
from manifests.tables import NEGATIVES, read_metadata
from miners.encoders import Chosen
from miners.ground import Ground
from shards.labels import load_lexicon
from shards.publish import inputs_sha256
from tests.colours import Colours
from tests.grounds import make_ground


def test_the_table_of_a_build_says_of_which_inputs_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground, prepared = make_ground(60), []

    def prepare(*_args: object, **_more: object) -> Ground:
        prepared.append(1)
        return ground

    monkeypatch.setattr("miners.ground.choose", lambda _settings: Chosen(encoder=Colours(), why="a test asked for it"))
    monkeypatch.setattr("miners.ground.prepare_ground", prepare)
    recipe = Recipe(name="mined", mix={"blank": "rest"}, sources={"blank": BlankSource()})

    def run() -> str:
        return mine_train(
            recipe,
            Mine(absolute_margin=0.0),
            [NegativeKind.NEAR_IMAGE],
            ground.inventory,
            ground.assignment,
            {},
            load_lexicon([], []),
            work=str(tmp_path),
            progress=Progress(disable=True),
        )

    out = run()
    assert read_metadata(out, NEGATIVES)["inputs_sha256"] == inputs_sha256(ground.inventory, recipe)
    assert run() == out
    assert prepared == [1]
