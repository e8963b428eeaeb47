"""What mining is given and cannot use, beneath the commands: refused with both figures, or named with its cure."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from manifests.errors import BuildError, RecipeError, TableError
from manifests.recipe import Mine
from miners.composing import mine
from miners.ground import Ground
from miners.mined_table import MinedTable
from miners.options import add_mine_options, mine_settings
from miners.outside import NO_MASK, Said
from shards.inventory import PRESENT
from tests.grounds import make_ground


def mined(ground: Ground, folder: Path, settings: Mine, *, split: str = "train") -> MinedTable:
    return mine(ground, settings, split=split, seed=0, folder=str(folder), progress=Progress(disable=True))


def said(presence: float, *pairs: tuple[int, int]) -> Said:
    return Said(
        image_p=np.array([image for image, _ in pairs], np.int64),
        phrase_p=np.array([phrase for _, phrase in pairs], np.int32),
        presence_p=np.full(len(pairs), presence),
        mask_p=np.full(len(pairs), NO_MASK, np.int64),
        masks=(),
        num_phrases=12,
        rejects=(),
        num_rejects={},
    )


def test_more_negatives_than_the_audited_pictures_are_mined_and_audited(tmp_path: Path) -> None:
    exhaustive_n = np.arange(200) < 25
    ground = make_ground(200, 60, exhaustive_n=exhaustive_n)
    found = mined(ground, tmp_path, Mine(num_negatives=40, absolute_margin=-99.0))
    assert found.record.audit is not None
    assert len(found.kinds[0].rows) > 40


def test_too_large_numbers_and_alarms_of_another_split_stop_before_anything_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*_args: object, **_more: object) -> object:
        raise AssertionError

    monkeypatch.setattr("miners.composing.audit_pool", search)
    monkeypatch.setattr("miners.composing.open_searcher", search)
    with pytest.raises(BuildError, match=r"num_negatives = 13, but the pool has only 12 phrases; expected at most"):
        mined(make_ground(50), tmp_path, Mine(num_negatives=13))
    split_n = np.zeros(50, np.int8)
    split_n[49] = 2
    ground = make_ground(50, split_n=split_n, alarms=said(0.9, (3, 1), (49, 1)))
    with pytest.raises(TableError, match=r"s0-49 stands in split test; expected pictures of train alone, 1 rows"):
        mined(ground, tmp_path, Mine())


def test_the_guard_that_is_named_is_one_that_a_setting_loosens(tmp_path: Path) -> None:
    states_nv = np.full((60, 12), PRESENT, np.int8)
    states_nv[:, 11] = -1
    absent = [(n, 11) for n in range(60)]
    ground = make_ground(60, states_nv=states_nv, decided=said(1.0, *absent))
    message = r"\d+ of them by the guard 'reviewer' \(besides: annotation \d+\).*leave out the decisions file"
    with pytest.raises(BuildError, match=message):
        mined(ground, tmp_path, Mine(absolute_margin=-99.0, num_negatives=1, max_per_phrase_share=1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.nan, "embeddings: row 3 .*holds NaN or infinity; expected a finite row of length 1"),
        (0.0, "embeddings: row 3 .*is all zeros"),
        (9.0, "embeddings: row 3 .*has length"),
    ],
)
def test_rows_that_reach_the_miner_unchecked_are_refused(tmp_path: Path, change: float, message: str) -> None:
    ground = make_ground(60)
    images_nd = ground.embedded.images_nd.copy()
    images_nd[11] = change  # fourth by key: s0-0, s0-1, s0-10, s0-11
    broken = dataclasses.replace(ground, embedded=dataclasses.replace(ground.embedded, images_nd=images_nd))
    with pytest.raises(TableError, match=message):
        mined(broken, tmp_path, Mine(absolute_margin=-99.0))


def options(*given: str) -> Mine:
    parser = argparse.ArgumentParser()
    add_mine_options(parser)
    return mine_settings(parser.parse_args(given))


def test_every_setting_is_an_option_of_its_type() -> None:
    found = options(
        *("--encoder", "conse", "--templates", "t.toml", "--relative-margin", "-0.25", "--margin-space", "raw"),
        *("--max-score", "0.5", "--min-score", "-1", "--range-min", "2", "--range-max", "40", "--num-negatives", "3"),
        *("--sampling-strategy", "random", "--max-per-image", "4", "--max-per-phrase-share", "0.5"),
        *("--hidden-share", "0.3", "--memory-gb", "1", "--predictions", "a", "--predictions", "b"),
        *("--verifier", "v", "--decisions", "d"),
    )
    expected = Mine(
        encoder="conse",
        templates="t.toml",
        relative_margin=-0.25,
        margin_space="raw",
        max_score=0.5,
        min_score=-1.0,
        range_min=2,
        range_max=40,
        num_negatives=3,
        sampling_strategy="random",
        max_per_image=4,
        max_per_phrase_share=0.5,
        hidden_share=0.3,
        memory_gb=1.0,
        predictions=["a", "b"],
        verifier=["v"],
        decisions=["d"],
    )
    assert found == expected
    assert options() == Mine()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--num-negatives", "many"), r"Expected `int.*got `str` - at `\$\.num_negatives`; see --help"),
        (("--num-negatives", "0"), "mine.num_negatives = 0; expected 1 or more"),
        (("--range-max", "0"), "mine.range_max = 0; expected 1 or more"),
        (("--relative-margin", "inf"), "mine.relative_margin = inf; expected a finite number"),
        (("--max-per-phrase-share", "1.5"), "mine.max_per_phrase_share = 1.5; expected a share"),
        (("--max-false-negative-rate", "1"), "expected a number between 0 and 1"),
        (("--max-score", "0", "--min-score", "1"), "no score lies between"),
    ],
)
def test_a_value_of_another_type_or_range_is_one_line_that_names_its_option(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        options(*given)
    assert str(caught.value).startswith("options: ")
    assert "\n" not in str(caught.value)
