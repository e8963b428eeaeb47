"""The key figure's yardsticks and curves against naive references, and the whole benchmark on sixteen pictures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hardness import (
    AUDITED,
    ROWS,
    Duel,
    World,
    figures_of,
    judge,
    make_world,
    measure,
    ratio_of,
    reach,
    run_duel,
)
from benchmarks.their_miner import TOP, their_rows
from benchmarks.yardsticks import co_occurrence, percentiles, probe
from manifests.sample import NegativeKind
from tests.grounds import make_ground

DATA = Path(__file__).parents[3] / "shared" / "data"
NUM_SLICE = 16  # pictures
pytestmark = pytest.mark.filterwarnings(
    "ignore:Using `tqdm.autonotebook.tqdm`", "ignore:__array__ implementation:DeprecationWarning"
)


def made_world() -> World:
    ground = make_ground(80, seed=1)
    return make_world(ground.inventory, ground.embedded, ground.texts_vd, ground.embedded.images_nd.astype(np.float32))


@pytest.fixture(scope="module")
def world() -> World:
    return made_world()


@pytest.fixture(scope="module")
def duel(world: World, tmp_path_factory: pytest.TempPathFactory) -> Duel:
    return run_duel(world, NegativeKind.NEAR_IMAGE, 2, str(tmp_path_factory.mktemp("duel")))


def test_co_occurrence_is_counted_in_the_other_pictures() -> None:
    present_nv = np.random.default_rng(0).random((20, 6)) < 0.4
    found = co_occurrence(present_nv)
    for row, column in [(0, 0), (7, 3), (19, 5)]:
        others = np.delete(present_nv, row, axis=0).astype(float)
        alone = (others[:, column].sum() + 0.5) / len(present_nv)
        given = [
            np.log((others[:, u] @ others[:, column] + 2 * alone) / (others[:, u].sum() + 2))
            for u in np.flatnonzero(present_nv[row])
            if u != column
        ]
        assert found[row, column] == pytest.approx(np.mean(given) if given else np.log(alone))


def test_no_yardstick_reads_the_label_that_it_scores() -> None:
    rng = np.random.default_rng(1)
    features, present_nv = rng.normal(size=(40, 8)).astype(np.float32), rng.random((40, 5)) < 0.3
    other_nv = present_nv.copy()
    other_nv[3, 2] ^= True
    assert co_occurrence(present_nv)[3, 2] == co_occurrence(other_nv)[3, 2]
    assert probe(features, present_nv)[3, 2] == probe(features, other_nv)[3, 2]
    assert probe(features, present_nv)[4, 2] != probe(features, other_nv)[4, 2]


def test_the_probe_knows_a_phrase_that_the_features_show() -> None:
    rng = np.random.default_rng(2)
    present_nv = rng.random((200, 3)) < 0.3
    features = (present_nv @ rng.normal(size=(3, 16)) + 0.1 * rng.normal(size=(200, 16))).astype(np.float32)
    scores = probe(features, present_nv)
    assert scores[present_nv].mean() - scores[~present_nv].mean() > 1.5


def test_percentiles_run_from_zero_to_one() -> None:
    assert percentiles(np.array([[3.0, 1.0, 2.0]]), 1).tolist() == [[1.0, 0.0, 0.5]]


def test_a_mixture_of_two_settings_reaches_what_lies_between_them() -> None:
    cost, gain = np.array([0.0, 0.2, 0.1]), np.array([1.0, 3.0, 1.5])
    assert reach(cost, gain, 0.1) == pytest.approx(2.0)  # half of the first two beats the third
    assert reach(cost, gain, 9.0) == 3.0
    assert np.isnan(reach(cost, gain, -0.1))


def test_neither_way_mines_a_known_presence_and_both_mine_hidden_ones(world: World, duel: Duel) -> None:
    for run in (*duel.ours, *duel.theirs):
        assert {found.num_annotated for found in run.values()} == {0}
    assert all(run[TOP].false_share > 0.02 for run in duel.theirs)
    assert all(run["0"].false_share > 0.02 for run in duel.ours)
    rows = {run[TOP].num_rows for run in duel.theirs}
    assert rows == {run["0"].num_rows for run in duel.ours} == {world.pool.num_phrases * ROWS[duel.kind]}


def test_the_ratio_of_a_way_to_itself_is_one(duel: Duel) -> None:
    same = replace(duel, ours=duel.theirs)
    share = 0.8 * float(np.mean([run[TOP].false_share for run in duel.theirs]))
    *_, ratio, error = ratio_of(same, 2, share)
    assert ratio == pytest.approx(1.0)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_what_a_way_mines_is_judged_by_the_full_labels(world: World) -> None:
    known_nv = np.zeros_like(world.present_nv)
    (row, *_), (column, *_) = (side.tolist() for side in np.nonzero(world.present_nv))
    (far, *_), (other, *_) = (side.tolist() for side in np.nonzero(~world.present_nv))
    found = judge(world, known_nv, (np.array([row, far]), np.array([column, other])))
    assert (found.num_rows, found.false_share, found.num_annotated) == (2, 0.5, 0)
    assert found.hardness == tuple(scores_nv[far, other] for scores_nv in world.yardsticks.values())


def test_an_annotated_presence_stops_the_benchmark(world: World, duel: Duel) -> None:
    spoilt = {TOP: replace(duel.theirs[0][TOP], num_annotated=1)}
    with pytest.raises(ValueError, match="annotated presences mined, most in any run: 1; expected none"):
        figures_of(world, [replace(duel, theirs=[duel.theirs[0] | spoilt, duel.theirs[1]])], {})


def test_without_the_second_encoder_the_report_says_that_its_yardstick_was_left_out(tmp_path: Path) -> None:
    ground = make_ground(60)
    world = make_world(ground.inventory, ground.embedded, ground.texts_vd, None)
    figures = figures_of(world, [run_duel(world, NegativeKind.NEAR_TEXT, 1, str(tmp_path))], {})
    assert str(figures.conditions["second encoder"]).startswith("left out: pip package")
    assert "second encoder" not in {row.get("yardstick") for row in figures.rows}


def test_their_margins_leave_out_what_lies_close_to_the_lowest_positive(world: World) -> None:
    found = dict(their_rows(world.pool, NegativeKind.NEAR_TEXT, world.present_nv, 3))
    cosines_nv = world.pool.images_nd.astype(np.float32) @ world.pool.texts_vd.astype(np.float32).T
    lowest_n = np.where(world.present_nv, cosines_nv, np.inf).min(axis=1)
    row, column = found["absolute_margin 0.1"]
    assert len(row) > 20
    assert (cosines_nv[row, column] <= lowest_n[row] - 0.1 + 1e-6).all()
    assert not world.present_nv[row, column].any()


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_the_benchmark_runs_on_a_slice_of_real_pictures(tmp_path: Path) -> None:
    source, slice_ = DATA / "coco_val", tmp_path / "data" / "coco_val"
    name = "annotations/instances_val2017.json"
    said = json.loads((source / name).read_text())
    images = sorted(said["images"], key=lambda image: str(image["file_name"]))[:NUM_SLICE]
    numbers = {image["id"] for image in images}
    said |= {"images": images, "annotations": [one for one in said["annotations"] if one["image_id"] in numbers]}
    (slice_ / "annotations").mkdir(parents=True)
    (slice_ / "val2017").mkdir()
    (slice_ / name).write_text(json.dumps(said))
    for image in images:
        shutil.copy(source / "val2017" / image["file_name"], slice_ / "val2017")
    figures = measure(tmp_path / "data", 1, str(tmp_path / "work"), [("coco_val", "val2017")])
    assert figures.conditions["pictures"] == NUM_SLICE
    assert figures.claims[-1].value == 0
    assert {row["direction"] for row in figures.rows} == {"near_image", "near_text"}
    top = [row for row in figures.rows if row.get("setting") == f"theirs, {TOP}"]
    assert all(float(row["false share"]) > 0.01 for row in top)
    assert any(row.get("point") == AUDITED for row in figures.rows)
