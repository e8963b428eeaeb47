"""The proof: pictures are dealt once, arms are recipes of equally many samples, and figures carry their intervals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import (
    proof,
    proof_arms,
    proof_figures,
    proof_learnt,
    proof_page,
    proof_pictures,
    proof_recall,
    proof_sweeps,
    proof_tables,
    proof_world,
)
from manifests.recipe_file import load_recipe
from manifests.sample import NegativeKind
from student.history import LossLine
from student.paired import ImageSums
from student.presence_metrics import kind_codes
from tests.coco_folder import COCO_NAMES, make_coco_folder
from tests.runs import make_evaluation, make_reading, make_run

NUM = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_coco_folder(tmp_path_factory.mktemp("coco"), NUM)


def test_every_picture_is_in_the_test_of_one_fold(folder: Path) -> None:
    pictures = proof_world.gather(folder)
    assert len(pictures.found) == NUM
    assert sum(picture.has_masks for picture in pictures.found) == 2 * NUM // 3
    for picture in pictures.found:
        parts = [proof_world.part_of(picture, fold) for fold in range(proof_world.FOLDS)]
        assert parts.count("test") == 1
        assert picture.has_masks or "sa1b" not in parts


def test_a_folder_without_coco_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no picture of COCO; expected"):
        proof_world.gather(tmp_path)


def test_arms_are_recipes_of_one_length_that_differ_in_what_is_absent(folder: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    counts = proof_world.write_fold(proof_world.gather(folder), 0, world)
    assert sum(counts.values()) == NUM
    recipes = {}
    for arm in proof_arms.ARMS:
        predictions = str(world / "coco.json") if arm.alarms_of else ""  # any file that is there
        proof_arms.write(tmp_path / f"{arm.name}.toml", proof_arms.recipe(arm, world, counts, predictions=predictions))
        recipes[arm.name] = load_recipe(str(tmp_path / f"{arm.name}.toml"))
    assert len({recipe.samples for recipe in recipes.values()}) == 1
    assert len({tuple(recipe.splits.items()) for recipe in recipes.values()}) == 1
    assert {name for name, recipe in recipes.items() if recipe.mine is not None} == set("defhi")
    assert recipes["f"].prompts.kinds[NegativeKind.FALSE_ALARM] == 0.25
    assert sum(recipes["f"].prompts.kinds.values()) == pytest.approx(1)
    assert [name for name, recipe in recipes.items() if "blank" not in recipe.mix] == ["a"]
    assert [name for name, recipe in recipes.items() if not recipe.prompts.absent_per_image] == ["b"]
    denied = json.loads((world / "denied.json").read_text())
    assert denied["annotations"] == []
    assert all(len(row["neg_category_ids"]) == len(COCO_NAMES) - 1 for row in denied["images"])
    proof_arms.write(tmp_path / "judge.toml", proof_arms.judge(world))
    load_recipe(str(tmp_path / "judge.toml"))


def test_every_point_of_a_sweep_is_a_recipe_of_its_own(folder: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    counts = proof_world.write_fold(proof_world.gather(folder), 0, world)
    arms = proof.wanted("", "all")
    assert len({arm.name for arm in arms}) == len(arms)
    told = set()
    for arm in arms:
        proof_arms.write(tmp_path / f"{arm.name}.toml", proof_arms.recipe(arm, world, counts))
        recipe = load_recipe(str(tmp_path / f"{arm.name}.toml"))
        assert sum(recipe.prompts.kinds.values()) == pytest.approx(1)
        told.add(
            (
                recipe.mix,
                str(arm.student),
                arm.epochs,
                arm.begins_with,
                arm.train,
                str(recipe.prompts),
                str(recipe.mine),
            ).__repr__()
        )
    assert len(told) == len(arms)
    for sweep in proof_sweeps.SWEEPS:
        assert sweep.points[sweep.base_label] is sweep.base


def test_sweeps_are_asked_for_by_name_and_bring_what_they_begin_with() -> None:
    assert [arm.name for arm in proof.wanted("", "begin")] == ["a", "c", "c-begin-a-2", "c-begin-a"]
    assert [arm.name for arm in proof.wanted("f", "")] == ["e", "f"]
    with pytest.raises(SystemExit, match=r"error: colour, z; expected arms of abcdefghij, sweeps of seed, generated"):
        proof.wanted("az", "begin,colour")
    config = {"batch_size": 16, "losses": {"focal_gamma": 0.0}}
    changes = {"losses": {"presence": 4.0}, "model": {"size": 64}, "batch_size": 8}
    expected = {"batch_size": 8, "losses": {"focal_gamma": 0.0, "presence": 4.0}, "model": {"size": 64}}
    assert proof.changed(config, changes) == expected


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = proof.Settings(epochs=10, phase_1=4, config="", pictures="a")
    proof.keep_settings(tmp_path / "out", settings)
    proof.keep_settings(tmp_path / "out", settings)
    with pytest.raises(SystemExit, match=r"was begun with other epochs, pictures; expected the same, or another --out"):
        proof.keep_settings(tmp_path / "out", proof.Settings(epochs=2, phase_1=4, config="", pictures="b"))


def evaluated(folder: Path, fold: int, arm: str, value: float) -> None:
    """One finished arm, all of whose figures are `value`."""
    readings = {name: make_reading(value) for names in proof_tables.READINGS.values() for name in names}
    made = make_run(folder / f"fold-{fold}" / arm, make_evaluation(readings, name=arm, threshold=0.4))
    assert (Path(made) / "evaluation" / "evaluation.json").exists()
    answer(folder / f"fold-{fold}", arm)


def answer(fold: Path, arm: str) -> None:
    """What one arm says of ten presences and six absences, two prompts of one kind in a picture."""
    presence = {"": [0.1 * number for number in range(1, 11)]}
    presence |= {"random": [0.35, 0.45], "popular": [0.0, 0.1], "co_occurring": [0.9, 0.41]}
    prompts = [(row, kind, said) for kind, group in presence.items() for row, said in enumerate(group)]
    rows, kinds, said = (list(column) for column in zip(*prompts, strict=True))
    keys = [f"test-{row:08d}" for row in rows]
    phrases = [kind or "cat" for kind in kinds]
    present = [not kind for kind in kinds]
    (fold / "judge").mkdir(exist_ok=True)
    judged = {"image_key": keys, "phrase": phrases, "kind": kinds, "present": present, "split": ["test"] * len(rows)}
    pq.write_table(pa.table(judged), fold / "judge" / "samples.parquet")
    answers = pa.table({"key": keys, "phrase": phrases, "presence": pa.array(said, pa.float32())})
    pq.write_table(answers, fold / arm / "evaluation" / "predictions.parquet")
    (fold / arm / "build").mkdir()
    shown = {"phrase": ["cat"] * 20 + ["dog"], "split": ["train"] * 20 + ["val"], "present": [True] * 21}
    pq.write_table(pa.table(shown), fold / arm / "build" / "samples.parquet")


def test_arms_are_compared_where_they_find_as_many_presences(tmp_path: Path) -> None:
    evaluated(tmp_path, 0, "c", 0.5)
    answers = proof_recall.read_answers(tmp_path / "fold-0", "c")
    assert proof_recall.false_alarms(answers) == {"random": 0.5, "popular": 0.0, "adversarial": 1.0}
    all_found = proof_recall.false_alarms(answers, recall=1.0)
    assert all_found == {"random": 1.0, "popular": 0.5, "adversarial": 1.0}


def test_a_draw_weighs_pictures_for_the_threshold_and_for_the_alarms() -> None:
    answers = all_settings(
        replace(
            answers_of([0.5, 0.6, 0.9, 0.3], threshold=0.55),
            present_n=np.asarray([False, False, True, True]),
            kind_n=np.full(4, int(kind_codes(["random"])[0])),
            image_n=np.asarray([0, 1, 0, 1]),
        )
    )
    # the first picture alone: none of .5 above .9. The other alone, or both: all above .3
    alarms = proof_recall.drawn_alarms(answers)[:, 0]
    assert set(alarms.tolist()) == {0.0, 1.0}
    assert np.mean(alarms == 0.0) == pytest.approx(0.25, abs=0.05)
    # the first alone is right of both its prompts, the other wrong of both, and together they cancel
    mcc = proof_recall.drawn_mcc(answers)[:, 0]
    assert set(mcc.tolist()) == {-1.0, 0.0, 1.0}
    assert np.array_equal(mcc == 1.0, alarms == 0.0)


def test_the_points_of_a_sweep_are_compared_on_the_folds_that_all_have(tmp_path: Path) -> None:
    for fold, arms in enumerate([("c", "c-epochs-2"), ("c",)]):
        for number, arm in enumerate(arms):
            evaluated(tmp_path, fold, arm, 0.2 + 0.1 * number + 0.3 * fold)
    assert proof_page.main([str(tmp_path)]) == 0
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "### Epochs of phase 2\n" in text
    assert "| **the arms' own** | 1 | 0.50 / 0.00 / 1.00 |" in text
    assert "### Epochs of phase 2: more than the arms' own\n" in text
    assert "| 2 | 0.000 [0.000, 0.000] | 0.000 [0.000, 0.000] |" in text
    assert "### Random absences a picture" not in text  # one point alone
    assert (tmp_path / "proof-sweep-epochs.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_left_to_learn_is_the_last_epochs_loss_of_presence(tmp_path: Path) -> None:
    folder = tmp_path / "proof"
    for arm, last, reached in (("c", 0.2, 0.4), ("d-begin", 0.4, 0.2), ("g", 0.1, 0.1)):
        evaluated(folder, 0, arm, reached)
        losses = [(1, 0, {"align_match": 9.0}), (2, 0, {"presence": 0.9}), (2, 1, {"presence": last - 0.1})]
        lines = [loss_line(*line) for line in [*losses, (2, 1, {"presence": last + 0.1})]]
        make_run(folder / "fold-0" / arm / "run", history=lines)
    pairs = proof_learnt.learnt(folder, proof_tables.read_all(folder))
    assert sorted(pairs) == [("c", 0), ("d-begin", 0)]
    assert pairs["c", 0] == pytest.approx((0.2, 0.4))
    assert pairs["d-begin", 0] == pytest.approx((0.4, 0.2))
    assert "r = -1.00 over 2 runs" in proof_learnt.tell(pairs)
    assert proof_page.main([str(folder)]) == 0
    assert (folder / proof_learnt.NAME).read_bytes().startswith(b"\x89PNG")


def loss_line(phase: int, epoch: int, losses: dict[str, float]) -> LossLine:
    return LossLine(phase=phase, epoch=epoch, step=1, position=16, losses=losses, learning_rate=1e-3, samples_s=9.0)


def test_recall_is_told_by_how_often_train_shows_a_phrase_and_auc_within_it() -> None:
    answers = replace(
        answers_of([0.2, 0.6, 0.4, 0.9, 0.5, 0.5], threshold=0.5),
        present_n=np.asarray([False, False, True, True, False, True]),
        kind_n=np.full(6, int(kind_codes(["random"])[0])),
        phrase_n=np.asarray([0, 0, 0, 0, 1, 1]),
        shown_n=np.asarray([3, 3, 3, 15, 40, 40]),
    )
    assert proof_recall.recall_by_shown(answers, recall=0.6) == {"fewer than 15": 0, "15 to 39": 1, "40 and more": 1}
    found = proof_recall.auc_within(all_settings(answers))  # of five pairs three are right, and one is even
    assert set(found.values()) == {(3 + 0.5) / 5}


def all_settings(answers: proof_recall.Answers) -> proof_recall.Answers:
    """The same absences once in each of POPE's settings."""
    codes = kind_codes(["random", "popular", "co_occurring"])
    return proof_recall.Answers(
        prompts=list(answers.prompts) * 3,
        presence_n=np.concatenate([answers.presence_n] * 3),
        present_n=np.concatenate([answers.present_n] * 3),
        kind_n=np.repeat(codes, len(answers.kind_n)),
        image_n=np.concatenate([answers.image_n] * 3),
        phrase_n=np.concatenate([answers.phrase_n] * 3),
        shown_n=np.concatenate([answers.shown_n] * 3),
        threshold=answers.threshold,
    )


def test_mcc_is_read_where_val_chose_the_threshold(tmp_path: Path) -> None:
    evaluated(tmp_path, 0, "c", 0.5)
    answers = proof_recall.read_answers(tmp_path / "fold-0", "c")
    found = proof_recall.mcc_of_val(answers)  # presences .1 and .2 beside each pair of absences, from .4 on
    assert found == {"random": pytest.approx(-((1 / 3) ** 0.5)), "popular": 0.0, "adversarial": -1.0}
    assert set(proof_recall.mcc_of_val(replace(answers, threshold=None)).values()) == {0.0}


def test_means_intervals_and_differences_stand_on_the_page(tmp_path: Path) -> None:
    for fold, (c, d) in enumerate([(0.2, 0.3), (0.3, 0.5), (0.4, 0.7)]):
        evaluated(tmp_path, fold, "c", c)
        evaluated(tmp_path, fold, "d", d)
    evaluated(tmp_path, 0, "a", 0.1)
    evaluated(tmp_path, 0, "phase-1", 0.6)
    page = tmp_path / "results.md"
    page.write_text(
        "# Words of a person\n\n[there](#what-came-and-when)\n\n## What came, and when\n\n"
        "![alarms](proof-alarms.png)\n\n" + proof_page.BELOW + "\nstale"
    )
    assert proof_page.main([str(tmp_path)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Words of a person")
    assert "stale" not in text
    assert "| **c** b, random absences of COCO | 3 | 0.300 [0.052, 0.548] |" in text  # 4.303 * 0.1 / sqrt(3)
    assert "| d − c | 3 | 0.000 [0.000, 0.000] |" in text
    assert "| **a** positives only | 1 | 0.100" in text
    assert "| the teacher of phase 1, by itself | 1 | 0.600" in text
    assert "### Absent prompts called present where 70% of presences are" in text
    assert "| **a** positives only | 1 | 0.500 [0.000, 1.000] | 0.000 [0.000, " in text  # over pictures, as of one fold
    for name, _ in proof_figures.QUESTIONS.values():
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "results.html").read_text(encoding="utf-8")
    assert "<title>Words of a person</title>" in html
    assert 'href="#what-came-and-when"' in html
    assert '<h2 id="what-came-and-when">What came, and when</h2>' in html
    assert html.count('src="data:image/png;base64,') == 1
    assert "<td>0.500 [0.000, 1.000]</td>" in html


def test_differences_are_drawn_from_the_pictures_of_all_folds() -> None:
    first, second = proof_tables.ArmRead(), proof_tables.ArmRead()
    for fold in range(3):
        first.sums[fold] = {"miou": image_sums([1, 0, 1, 1])}
        second.sums[fold] = {"miou": image_sums([0, 0, 1, 0])}
    second.sums[7] = {"miou": image_sums([9, 9, 9, 9])}  # a fold that the first lacks
    found = proof_tables.between_pictures(first, second, "miou")
    assert found.value == pytest.approx(0.5)
    assert 0 < found.low < 0.5 < found.high < 1
    assert str(proof_tables.between_pictures(first, second, "il_fpr")) == "undefined"


def image_sums(parts: list[int]) -> ImageSums:
    keys = tuple(f"test-{number}" for number in range(len(parts)))
    return ImageSums(keys=keys, part_i=np.asarray(parts, np.float64), whole_i=np.ones(len(parts)))


def test_prompts_that_two_arms_disagree_on_are_found_largest_change_first() -> None:
    first = answers_of([0.9, 0.8, 0.7, 0.1, 0.9], threshold=0.5)
    second = answers_of([0.2, 0.6, 0.0, 0.9, 0.1], threshold=0.5)
    assert list(proof_pictures.changed(first, second, present=False, gained=False)) == [0, 2]
    assert list(proof_pictures.changed(first, second, present=False, gained=True)) == [3]
    assert list(proof_pictures.changed(first, second, present=True, gained=False)) == [4]
    one_picture = replace(first, image_n=np.zeros(5, np.int64))
    assert list(proof_pictures.changed(one_picture, second, present=False, gained=False)) == [0]


def answers_of(presence: list[float], *, threshold: float) -> proof_recall.Answers:
    """Absences and, last, a presence, each of a picture of its own."""
    num = len(presence)
    return proof_recall.Answers(
        prompts=[(f"test-{row}", "cat") for row in range(num)],
        presence_n=np.asarray(presence, np.float32),
        present_n=np.arange(num) == num - 1,
        kind_n=np.zeros(num, np.int64),
        image_n=np.arange(num),
        phrase_n=np.zeros(num, np.int64),
        shown_n=np.zeros(num, np.int64),
        threshold=threshold,
    )


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no evaluation; run benchmarks/proof\.py first"):
        proof_page.main([str(tmp_path)])
