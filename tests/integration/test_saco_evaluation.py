"""SA-Co's figures from a user's files: annotations as they are published, a build, an evaluation, and its pages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from student.evaluate import main as evaluate
from student.readings import Evaluation, read_json
from student.report import main as report
from student.truth import read_truth
from tests.factories import make_mask
from tests.predictions import Said, oracle, write_predictions
from tests.worlds import CATEGORIES, Json, build_world, make_coco, make_scene, write_recipe

NUM_PICTURES = 24
SENTENCE = "SA-Co: a semantic mask counts as one instance, so phrases with several instances cost it recall"
NEVER = ("unicorn", "submarine", "lighthouse")


def write_saco(folder: Path) -> None:
    """Pictures and `gold.json` as SA-Co has them: a pair of picture and phrase is an "image", most have no mask.

    Every fourth picture has twins: the phrase "twin" with two instances.
    """
    (folder / "pictures").mkdir(parents=True)
    pairs: list[Json] = []
    annotations: list[Json] = []

    def ask(number: int, phrase: str, boxes: list[tuple[int, int, int, int]], width: int, height: int) -> None:
        pair = len(pairs) + 1
        flags = {"is_instance_exhaustive": 1, "is_pixel_exhaustive": 1, "queried_category": "0"}
        named = {"file_name": f"p{number}.jpg", "text_input": phrase, "width": width, "height": height}
        pairs.append({"id": pair, **named, **flags})
        for left, top, wide, high in boxes:
            mask = make_mask(width, height, left=left, top=top, right=left + wide, bottom=top + high)
            shape = {"segmentation": {"size": list(mask.size), "counts": mask.counts}, "bbox": [0, 0, 1, 1]}
            more = {"area": 0.1, "category_id": 1, "iscrowd": 0, "source": "manual"}
            annotations.append({"id": len(annotations) + 1, "image_id": pair, **shape, **more})

    for number in range(NUM_PICTURES):
        scene = make_scene(9000 + number)
        (folder / "pictures" / f"p{number}.jpg").write_bytes(scene.jpeg)
        size = scene.width, scene.height
        for thing in scene.things:
            ask(number, CATEGORIES[thing.category_id], [thing.box], *size)
        if number % 4 == 0:
            ask(number, "twin", [(0, 0, 12, 12), (scene.width - 12, scene.height - 12, 12, 12)], *size)
        for phrase in NEVER:
            ask(number, phrase, [], *size)
    whole = {"info": {}, "images": pairs, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "gold.json").write_text(json.dumps(whole))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO to learn from, and SA-Co to be judged by."""
    folder = tmp_path_factory.mktemp("saco")
    write_saco(folder / "saco")
    gold = {"format": "saco", "images": "saco/pictures", "annotations": "saco/gold.json", "split": "test"}
    sources: Json = {"gold": gold}
    for number, split in enumerate(("train", "val")):
        make_coco(16, first_seed=1000 * (number + 1)).write(folder / split)
        named = {"images": f"{split}/pictures", "annotations": f"{split}/instances.json"}
        sources[split] = {"format": "coco", "split": split, **named}
    phrases = [*CATEGORIES.values(), "twin", *NEVER]  # a phrase that train never shows is asked where a file names it
    (folder / "phrases.txt").write_text("\n".join(phrases))
    prompts = {"absent_per_image": 2, "vocabulary": "phrases.txt"}
    changes: Json = {"prompts": prompts, "samples": None, "mix": dict.fromkeys(sources, "rest"), "sources": sources}
    build_world(write_recipe(folder, **changes), folder / "build")
    return folder / "build"


def evaluation_of(build: Path, rows: list[Said], out: Path) -> Evaluation:
    table = write_predictions(out.parent / f"{out.name}.parquet", [*rows, *oracle(build, "val")])
    assert evaluate([table, str(build), "--out", str(out), "--json", "--quiet"]) == 0
    return read_json(str(out / "evaluation.json"), Evaluation)


def value(found: Evaluation, name: str) -> float:
    reading = found.readings[name]
    assert reading.value is not None, reading.undefined
    return reading.value


def test_a_users_saco_files_give_its_figures_with_masks_as_single_instances(build: Path, tmp_path: Path) -> None:
    rows = oracle(build)
    twins = [row.phrase == "twin" for row in rows if row.present]
    num_twins, num_single = twins.count(True), twins.count(False)
    assert num_twins == NUM_PICTURES // 4
    absent = {row.phrase for row in rows if not row.present}
    assert absent == set(NEVER)
    found = evaluation_of(build, rows, tmp_path / "perfect")
    # a union of two equal squares is no better than IoU 0.5 with either: a hit at the threshold 0.5 alone
    num_detections, num_instances = num_twins + num_single, 2 * num_twins + num_single
    hits = [num_detections] + 9 * [num_single]
    f1 = sum(2 * hit / (num_detections + num_instances) for hit in hits) / 10
    assert value(found, "saco_pmf1") == pytest.approx(f1, abs=2e-4)
    assert value(found, "saco_il_mcc") == pytest.approx(1, abs=1e-5)
    assert value(found, "saco_cgf1") == pytest.approx(100 * f1, abs=2e-2)
    assert found.readings["saco_il_mcc"].num == len(rows) == len(read_truth(str(build), "test"))


def test_false_alarms_lower_cgf1_and_never_pmf1(build: Path, tmp_path: Path) -> None:
    rows = oracle(build)
    loud = [replace(row, presence=0.9) if row.phrase == NEVER[0] else row for row in rows]
    quiet, alarmed = (evaluation_of(build, said, tmp_path / name) for said, name in ((rows, "quiet"), (loud, "loud")))
    assert value(alarmed, "saco_pmf1") == value(quiet, "saco_pmf1")
    tp, fp = sum(row.present for row in rows), sum(row.phrase == NEVER[0] for row in rows)
    tn = sum(not row.present for row in rows) - fp
    mcc = tp * tn / ((tp + fp) * tp * (tn + fp) * tn) ** 0.5
    assert value(alarmed, "saco_il_mcc") == pytest.approx(mcc, abs=1e-6)
    assert value(alarmed, "saco_cgf1") == pytest.approx(100 * value(alarmed, "saco_pmf1") * mcc, abs=1e-3)


def test_every_page_says_that_a_mask_counts_as_one_instance(
    build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation"
    table = write_predictions(tmp_path / "said.parquet", [*oracle(build), *oracle(build, "val")])
    assert evaluate([table, str(build), "--out", str(out), "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "saco_cgf1" in shown
    assert SENTENCE in shown
    assert SENTENCE in (out / "failures.html").read_text()
    assert report([str(out), "--out", str(tmp_path / "report")]) == 0
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert SENTENCE in markdown
    assert "| cgF1 |" in markdown
