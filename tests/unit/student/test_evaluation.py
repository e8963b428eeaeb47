import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.errors import ManifestError, TableError
from manifests.recipe import SacoSource
from manifests.sample import MaskState, NegativeKind
from manifests.tables import IMAGE_SUMS, IMAGES, LABELS, PREDICTIONS, SAMPLES, read_table, write_table
from shards.masks import mask_to_array
from student import judged as judged_module
from student.answers import read_answers
from student.drops import counts_of
from student.evaluation import Asked, Evaluated, evaluate
from student.image_sums import write_image_sums
from student.judged import judge
from student.readings import Evaluation
from student.truth import read_truth
from tests.factories import Made, absent, make_build, make_mask, make_recipe, make_sample, make_samples, present
from tests.predictions import Said, oracle, write_predictions
from tests.worlds import build_world, write_world

NUM_DRAWS = 40
UNDEFINED_WITHOUT_PRESENCE = "no present prompt was evaluated"
UNDEFINED_WITHOUT_ABSENCE = "no absent prompt was evaluated"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    build_world(write_world(folder), folder / "build")
    return folder / "build"


@pytest.fixture(scope="module")
def guesses(build: Path) -> list[Said]:
    """A model that guesses presence and paints one rectangle, on test and val."""
    rng = np.random.default_rng(5)
    sizes: dict[str, list[int]] = {}
    for split in ("test", "val"):
        truth = read_truth(str(build), split)
        sizes |= dict(zip(truth.keys.to_pylist(), truth.size_i2.tolist(), strict=True))
    rows = []
    for row in [*oracle(build, "test"), *oracle(build, "val")]:
        height, width = sizes[row.key]
        mask = make_mask(
            width, height, left=2, top=3, right=int(rng.integers(10, width)), bottom=int(rng.integers(10, height))
        )
        rows.append(replace(row, presence=min(1.0, max(0.0, rng.normal(0.6 if row.present else 0.4, 0.3))), mask=mask))
    return rows


def evaluated(build: Path, predictions: str, **changes: object) -> Evaluated:
    return evaluate(Asked(predictions=predictions, build=str(build), num_draws=NUM_DRAWS, **changes))  # type: ignore[arg-type]


def evaluation_of(build: Path, path: Path, rows: list[Said], **changes: object) -> Evaluation:
    return evaluated(build, write_predictions(path, rows), **changes).evaluation


def test_an_oracle_is_perfect(build: Path, tmp_path: Path) -> None:
    rows = [*oracle(build, "test"), *oracle(build, "val")]
    predictions = write_predictions(tmp_path / "oracle.parquet", rows, sensitivity=lambda _: 0.25)
    found = evaluated(build, predictions).evaluation
    perfect = ("miou", "giou", "ciou", "n_acc", "t_acc", "presence_f1", "absence_f1", "il_mcc", "il_mcc_at_val")
    assert {key: found.readings[key].value for key in perfect} == dict.fromkeys(perfect, 1.0)
    assert found.readings["presence_auc"].value == 1.0
    assert found.readings["pope_adversarial_mcc"].value == 1.0
    assert found.readings["hallucination_random"].value == 0.0
    assert found.readings["prompt_sensitivity"].value == pytest.approx(0.25)
    assert found.readings["ece"].value == pytest.approx(0.1)
    assert found.readings["ece_scaled"].value == pytest.approx(0.0, abs=1e-3)
    assert found.readings["saco_cgf1"].undefined == "no prompt is of an SA-Co source"
    assert (found.fitted_on, found.name, found.notes) == ("val", "oracle", [])


def test_every_reading_lies_within_its_interval_or_says_why_it_is_undefined(
    build: Path, tmp_path: Path, guesses: list[Said]
) -> None:
    found = evaluation_of(build, tmp_path / "guesses.parquet", guesses)
    groups = [found.readings, *found.by_source.values(), *found.by_kind.values(), *found.by_phrase.values()]
    readings = [reading for group in groups for reading in group.values()]
    assert len(readings) > 300
    for reading in readings:
        assert (reading.value is None) == bool(reading.undefined)
        if reading.value is not None and reading.low is not None and reading.high is not None:
            assert reading.low <= reading.value <= reading.high
            assert reading.num > 0
    assert set(found.by_source) == {"sa1b", "coco", "blank"}
    assert set(found.by_kind) >= {"random", "popular", "co_occurring", "blank"}
    assert set(found.by_phrase) == set(read_truth(str(build), "test").phrases)
    assert sum(one.num for one in found.reliability) == found.num_present + found.num_absent


def test_masks_are_judged_as_their_pixels_say(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    found = evaluation_of(build, tmp_path / "guesses.parquet", guesses)
    said = {(row.key, row.phrase): row.mask for row in guesses}
    ious = []
    for row in oracle(build, "test"):
        mask = said[row.key, row.phrase]
        if row.mask is not None and mask is not None:
            one, other = mask_to_array(mask), mask_to_array(row.mask)
            ious.append((one & other).sum() / (one | other).sum())
    assert found.readings["miou"].value == pytest.approx(np.mean(ious))
    assert found.readings["miou"].num == len(ious)


def test_a_phrase_that_is_asked_under_three_kinds_counts_once_in_what_is_pooled(tmp_path: Path) -> None:
    thrice = [absent("owl", kind) for kind in (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING)]
    sample = make_sample("photos-1", present("cat", make_mask()), *thrice, absent("dog"), split="test")
    again = replace(sample, sample=make_sample("photos-1-r1", *sample.sample.prompts).sample)
    build = make_build(tmp_path / "build", [sample, again])
    alarm = [replace(row, presence=0.8 if row.phrase == "owl" else row.presence) for row in oracle(build)]
    found = evaluation_of(build, tmp_path / "said.parquet", alarm)
    assert (found.num_images, found.num_present, found.num_absent) == (1, 1, 2)
    assert found.readings["il_fpr"].value == 0.5
    rates = {kind: found.readings[f"hallucination_{kind}"] for kind in ("random", "popular", "co_occurring")}
    assert {kind: (rate.value, rate.num) for kind, rate in rates.items()} == {
        "random": (0.5, 2),
        "popular": (1.0, 1),
        "co_occurring": (1.0, 1),
    }
    assert found.by_kind["popular"]["hallucination_popular"].value == 1.0


def test_the_labels_of_test_do_not_move_what_was_fitted_on_val(
    build: Path, tmp_path: Path, guesses: list[Said]
) -> None:
    predictions = write_predictions(tmp_path / "guesses.parquet", guesses)
    turned = shutil.copytree(build, tmp_path / "turned", ignore=shutil.ignore_patterns("shards", "work"))
    label_exhaustively(turned)
    before = evaluated(turned, predictions).evaluation
    turn_labels(turned, "test")
    after = evaluated(turned, predictions).evaluation
    assert before.threshold is not None
    assert (after.threshold, after.temperature) == (before.threshold, before.temperature)
    assert after.readings["il_mcc"].value == pytest.approx(-(before.readings["il_mcc"].value or 0))
    turn_labels(turned, "val")
    assert evaluated(turned, predictions).evaluation.temperature != before.temperature


def label_exhaustively(build: Path) -> None:
    """Every picture, so that none is left out of presence whatever is asked of it."""
    uri = str(build / "images.parquet")
    rows = read_table(uri, IMAGES).to_pylist()
    write_table(uri, pa.Table.from_pylist([row | {"exhaustive_over": ["coco"]} for row in rows], IMAGES), IMAGES)


def turn_labels(build: Path, split: str) -> None:
    """Present becomes absent and absent present (without a mask), in one split."""
    uri = str(build / "samples.parquet")
    rows = read_table(uri, SAMPLES)
    columns = {name: rows[name].to_pylist() for name in rows.column_names}
    for at, name in enumerate(columns["split"]):
        if name == split:
            columns["kind"][at] = "random" if columns["present"][at] else ""
            columns["mask_state"][at] = "complete" if columns["present"][at] else "none"
            columns["present"][at] = not columns["present"][at]
    write_table(uri, pa.table(columns, SAMPLES), SAMPLES)


def test_readings_at_vals_threshold_are_of_what_reaches_it(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    found = evaluation_of(build, tmp_path / "guesses.parquet", guesses)
    threshold = found.threshold or 0.0
    of_test = without_val(guesses, build)
    for kind, key in (("", "il_fpr"), ("popular", "hallucination_popular")):
        alarms = [row.presence or 0.0 for row in of_test if not row.present and (not kind or kind in row.kinds)]
        rates = [float(np.mean([np.float32(one) >= at for one in alarms])) for at in (0.5, threshold)]
        assert [found.readings[key].value, found.readings[f"{key}_at_val"].value] == pytest.approx(rates)
        assert rates[0] != rates[1]


def without_val(rows: list[Said], build: Path) -> list[Said]:
    keys = set(read_truth(str(build), "test").keys.to_pylist())
    return [row for row in rows if row.key in keys]


def test_without_rows_of_val_threshold_and_temperature_are_undefined_and_say_why(
    build: Path, tmp_path: Path, guesses: list[Said]
) -> None:
    of_test = without_val(guesses, build)
    found = evaluation_of(build, tmp_path / "test.parquet", of_test)
    why = "the predictions answer none of the prompts of val"
    assert (found.threshold, found.temperature, found.fitted_on) == (None, None, why)
    assert found.readings["il_mcc_at_val"].undefined == why
    assert found.readings["ece_scaled"].undefined == why
    assert found.readings["hallucination_random_at_val"].undefined == why
    assert found.readings["il_mcc"].value is not None
    assert found.notes == [f"no threshold and temperature were fitted: {why}"]


def test_rows_of_val_may_lie_in_a_table_of_their_own(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    both = evaluation_of(build, tmp_path / "both.parquet", guesses)
    of_test = without_val(guesses, build)
    of_val = write_predictions(tmp_path / "val.parquet", [row for row in guesses if row not in of_test])
    apart = evaluation_of(build, tmp_path / "test.parquet", of_test, val_predictions=of_val)
    assert (apart.threshold, apart.temperature) == (both.threshold, both.temperature)
    assert (both.counted["other_split"], apart.counted["other_split"]) == (len(guesses) - len(of_test), 0)


def test_a_part_of_val_fits_nothing(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    num_test, num_val = len(oracle(build)), len(oracle(build, "val"))
    found = evaluation_of(build, tmp_path / "some.parquet", guesses[: num_test + 1])
    assert found.fitted_on == f"the predictions answer 1 of {num_val} prompts of val"


def test_a_build_without_val_fits_nothing(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [made for made in make_samples() if made.split != "val"])
    found = evaluation_of(build, tmp_path / "said.parquet", oracle(build))
    assert found.fitted_on == "the build has no samples of val"


def test_judging_val_itself_says_that_it_was_fitted_there(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    [note] = evaluation_of(build, tmp_path / "guesses.parquet", guesses, split="val").notes
    assert note == "threshold and temperature were fitted on val, which is judged here: their gain is overstated"


def positives(split: str) -> Made:
    return make_sample(f"photos-{split}", present("cat", make_mask()), present("boxed"), split=split)


def test_without_absent_prompts_presence_is_undefined_and_never_0(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [positives("val"), positives("test")])
    rows = [replace(row, presence=0.1) for row in [*oracle(build), *oracle(build, "val")]]
    found = evaluation_of(build, tmp_path / "said.parquet", rows)
    for key in ("presence_f1", "absence_f1", "il_mcc", "il_fpr", "presence_auc", "n_acc", "blind_phrase_auc"):
        assert (found.readings[key].value, found.readings[key].undefined) == (None, UNDEFINED_WITHOUT_ABSENCE)
    assert found.fitted_on == UNDEFINED_WITHOUT_ABSENCE
    assert found.readings["miou"].value == 1.0
    assert found.readings["hallucination_random"].value is None


def test_what_is_not_masked_whole_is_judged_by_presence_alone(tmp_path: Path) -> None:
    partial = present("dog", make_mask(), mask_state=MaskState.PARTIAL)
    sample = make_sample(
        "photos-1", present("cat", make_mask()), partial, present("boxed"), absent("owl"), split="test"
    )
    build = make_build(tmp_path / "build", [sample])
    wrong = make_mask(left=50, right=60)
    rows = [replace(row, mask=row.mask if row.phrase == "cat" else wrong) for row in oracle(build)]
    found = evaluation_of(build, tmp_path / "said.parquet", rows)
    assert (found.readings["miou"].value, found.readings["miou"].num) == (1.0, 1)
    assert found.readings["t_acc"].num == 3
    assert found.notes[0] == (
        "2 present prompts have no mask, or not all of it: presence is judged there, masks are not"
    )


def test_predictions_without_masks_leave_masks_undefined(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    found = evaluation_of(build, tmp_path / "said.parquet", [replace(row, no_mask=True) for row in guesses])
    for key in ("miou", "giou", "ciou"):
        assert found.readings[key].undefined == "the predictions hold no masks"
    assert found.readings["il_mcc"].value is not None
    assert found.readings["miou_everything"].value is not None


def test_masks_that_are_all_empty_are_none(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    """What the documentation says a model without masks writes; half of the rows have null."""
    rows = [replace(row, mask=None, no_mask=at % 2 == 0) for at, row in enumerate(guesses)]
    found = evaluation_of(build, tmp_path / "said.parquet", rows)
    for key in ("miou", "giou", "ciou"):
        assert found.readings[key].undefined == "the predictions hold no masks"
    assert found.readings["n_acc"].value is not None


def test_masks_that_a_drawing_model_left_empty_are_an_iou_of_0(
    build: Path, tmp_path: Path, guesses: list[Said]
) -> None:
    rows = [replace(row, mask=None) for row in guesses]
    found = evaluated(build, write_predictions(tmp_path / "said.parquet", rows, metadata={"masks": "drawn"})).evaluation
    assert found.readings["miou"].value == 0.0


def closed_and_open() -> list[Made]:
    """In each split a picture that was asked an absence, and one of whose absences nothing is known."""
    return [
        made
        for split in ("val", "test")
        for made in (
            make_sample(f"photos-{split}0", present("cat", make_mask()), absent("dog"), split=split),
            make_sample(f"photos-{split}1", present("cat", make_mask()), present("dog", make_mask()), split=split),
        )
    ]


def test_pictures_without_exhaustive_labels_are_left_out_of_presence(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", closed_and_open())
    rows = [
        replace(row, presence=0.05) if row.key.endswith("1") else row for row in [*oracle(build), *oracle(build, "val")]
    ]
    found = evaluated(build, write_predictions(tmp_path / "said.parquet", rows))
    readings = found.evaluation.readings
    perfect = ("presence_f1", "presence_recall", "il_mcc", "il_mcc_at_val", "giou", "ciou", "t_acc", "presence_auc")
    assert {key: (readings[key].value, readings[key].num) for key in perfect} == dict.fromkeys(perfect, (1.0, 2)) | {
        "t_acc": (1.0, 1)
    }
    assert (readings["miou"].num, readings["ece"].num, readings["blind_phrase_auc"].num) == (3, 2, 2)
    assert sum(one.num for one in found.evaluation.reliability) == 2
    assert found.evaluation.by_phrase["dog"]["presence_f1"].undefined == UNDEFINED_WITHOUT_PRESENCE
    assert found.evaluation.notes[0] == (
        "1 of 2 pictures have no exhaustive labels and no known absence: masks are judged there, presence is not"
    )
    uri = str(tmp_path / "sums.parquet")
    write_image_sums(uri, found.judged, found.truth.keys, has_masks=True)
    keys = {(row["metric"], row["key"]) for row in read_table(uri, IMAGE_SUMS).to_pylist()}
    assert {key for metric, key in keys if metric == "miou"} == {"photos-test0", "photos-test1"}
    assert {key for metric, key in keys if metric != "miou"} == {"photos-test0"}
    counts = counts_of(found.judged, 2)
    assert (counts.value("il_mcc"), counts.counts_ic[:, 1].tolist()) == (1.0, [1, 2])


def test_exhaustive_labels_bring_a_picture_into_presence(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", closed_and_open())
    label_exhaustively(build)
    found = evaluation_of(build, tmp_path / "said.parquet", oracle(build))
    assert found.readings["presence_f1"].num == found.readings["ece"].num == 4
    assert not any("exhaustive" in note for note in found.notes)


def test_where_every_picture_is_left_out_presence_is_undefined(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", [made for made in closed_and_open() if made.image_key.endswith("1")])
    found = evaluation_of(build, tmp_path / "said.parquet", [*oracle(build), *oracle(build, "val")])
    for key in ("presence_recall", "t_acc", "n_acc", "giou", "ciou", "ece", "blind_source_auc", "presence_auc"):
        assert found.readings[key].undefined == UNDEFINED_WITHOUT_ABSENCE
    assert (found.readings["miou"].value, found.fitted_on) == (1.0, UNDEFINED_WITHOUT_ABSENCE)


@pytest.mark.parametrize("presence_type", [pa.float64(), pa.int64(), pa.bool_(), pa.string()])
def test_a_table_with_other_types_and_the_bytes_of_pycocotools_is_judged_alike(
    build: Path, tmp_path: Path, presence_type: pa.DataType
) -> None:
    rows = [replace(row, presence=float(row.present)) for row in [*oracle(build), *oracle(build, "val")]]
    uri = write_predictions(tmp_path / "said.parquet", rows)
    columns = read_table(uri, PREDICTIONS)
    mask = columns["mask"].cast(pa.struct([("size", pa.list_(pa.int64())), ("counts", pa.binary())]))
    presence = columns["presence"].cast(presence_type)
    expected = evaluated(build, uri).evaluation.readings
    other = columns.set_column(3, "mask", mask).set_column(2, "presence", presence)
    pq.write_table(other, uri, row_group_size=7)
    found = evaluated(build, uri).evaluation
    assert found.readings == expected
    assert found.readings["miou"].value == 1.0


def test_without_mask_probabilities_prompt_sensitivity_is_undefined(
    build: Path, tmp_path: Path, guesses: list[Said]
) -> None:
    found = evaluation_of(build, tmp_path / "said.parquet", guesses)
    assert found.readings["prompt_sensitivity"].undefined == (
        "a table of predictions holds no mask probabilities, and there is no said.images.parquet beside it"
    )


def test_missing_prompts_are_left_out_and_told(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    rows = [replace(guesses[0], presence=2.0), *guesses[2:]]
    found = evaluation_of(build, tmp_path / "said.parquet", rows, max_missing_share=0.2)
    num = len(oracle(build))
    assert found.num_present + found.num_absent == num - 2
    assert found.notes[0].startswith(f"2 of {num} prompts have no usable row and are left out (1 rows with a presence")
    with pytest.raises(TableError, match="have no usable row"):
        evaluation_of(build, tmp_path / "said.parquet", rows)


def test_strangers_are_told(build: Path, tmp_path: Path, guesses: list[Said]) -> None:
    strangers = [Said(key="gone-1", phrase="dog", presence=0.5), replace(guesses[0], phrase="zebra")]
    [note] = evaluation_of(build, tmp_path / "said.parquet", [*guesses, *strangers]).notes
    assert note == (
        "1 rows name pictures that the build does not hold, and 1 phrases that test never asks; they are not used"
    )


def test_passes_over_masks_change_nothing(
    build: Path, tmp_path: Path, guesses: list[Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = read_truth(str(build), "test")
    answers = read_answers(truth, write_predictions(tmp_path / "said.parquet", guesses), max_missing_share=0)
    whole = judge(truth, answers)
    monkeypatch.setattr(judged_module, "PASS_PROMPTS", 3)
    monkeypatch.setattr(judged_module, "_AT_ONCE", 2)
    parts = judge(truth, answers)
    for name in ("intersection_n", "predicted_n", "truth_n"):
        assert np.array_equal(getattr(whole.overlaps, name), getattr(parts.overlaps, name))
    assert whole.overlaps.intersection_n.any()


@pytest.mark.parametrize(
    "metric",
    ["miou", "presence_precision", "presence_f1", "absence_f1", "il_fpr", "t_acc", "brier", "hallucination_random"],
)
def test_the_sums_of_pictures_give_the_readings(build: Path, tmp_path: Path, guesses: list[Said], metric: str) -> None:
    found = evaluated(build, write_predictions(tmp_path / "said.parquet", guesses))
    uri = str(tmp_path / "sums.parquet")
    write_image_sums(uri, found.judged, found.truth.keys, has_masks=True)
    rows = [row for row in read_table(uri, IMAGE_SUMS).to_pylist() if row["metric"] == metric]
    assert len(rows) == len({row["key"] for row in rows}) > 3
    ratio = sum(row["part"] for row in rows) / sum(row["whole"] for row in rows)
    assert ratio == pytest.approx(found.evaluation.readings[metric].value)


def test_sources_of_sa_co_are_judged_instance_by_instance(tmp_path: Path) -> None:
    one, other = make_mask(left=0, right=20), make_mask(left=30, right=50)
    samples = [
        make_sample("pairs-1", present("cat", one, other), absent("owl"), split="test"),
        make_sample("photos-1", present("cat", one), absent("owl"), split="test"),
    ]
    sources = {
        "pairs": SacoSource(images="pictures", annotations="gold.json"),
        "photos": make_recipe().sources["photos"],
    }
    build = make_build(tmp_path / "build", samples, recipe=make_recipe(sources=sources))
    wrong = make_mask(left=60, right=64)
    rows = [replace(row, mask=one if row.key == "pairs-1" else wrong) if row.present else row for row in oracle(build)]
    found = evaluation_of(build, tmp_path / "said.parquet", rows)
    assert found.readings["saco_pmf1"].value == pytest.approx(2 / 3, abs=1e-3)  # one of two instances found
    assert found.readings["saco_il_mcc"].value == pytest.approx(1, abs=1e-3)
    assert found.readings["saco_il_mcc"].num == 2
    assert (
        found.notes[-1]
        == "SA-Co: a semantic mask counts as one instance, so phrases with several instances cost it recall"
    )


def test_a_build_whose_true_masks_are_broken_or_gone_is_refused(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    predictions = write_predictions(tmp_path / "said.parquet", oracle(build))
    uri = str(build / "labels.parquet")
    rows = read_table(uri, LABELS).to_pylist()
    for row in rows:
        for mask in row["masks"]:
            mask["counts"] = mask["counts"][:-1]
    write_table(uri, pa.Table.from_pylist(rows, LABELS), LABELS)
    with pytest.raises(
        ManifestError, match=r"labels\.parquet: expected sound masks, found: mask_\w+: .*; run python -m"
    ):
        evaluated(build, predictions)
    write_table(uri, LABELS.empty_table(), LABELS)
    with pytest.raises(ManifestError, match=r"labels\.parquet: has no mask of 'cat' in photos-test_00, which samples"):
        evaluated(build, predictions)
