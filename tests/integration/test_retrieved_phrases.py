"""SA-1B without a sidecar: the recipe asks for phrases, and they stand in the build as what they are."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from manifests.errors import RecipeError, SourceError
from manifests.recipe_file import load_recipe
from manifests.tables import LABELS, PHRASES, SAMPLES, read_metadata, read_table
from miners import encoders, phrases
from miners.encoders import Chosen
from miners.encoders import choose_encoder as real_choice
from shards import catalog
from shards.verify import main as verify
from tests.colours import Colours
from tests.doors import ROOT
from tests.worlds import CATEGORIES, build_bytes, build_world, make_coco, make_sa1b, write_recipe

ALL = {"encoder": "conse", "vocabulary": "words.txt", "min_score": -100, "min_margin": -100, "min_area": 1}
OPTIONS = ["--encoder", "conse", "--min-score", "-100", "--min-margin", "-100", "--min-area", "1", "--quiet", "--json"]


def write_retrieving(folder: Path, **changes: object) -> Path:
    """A small world whose SA-1B has no phrases, and the recipe that retrieves them."""
    make_coco(12).write(folder / "coco")
    make_sa1b(12).write(folder / "sa1b")
    (folder / "words.txt").write_text("\n".join(CATEGORIES.values()) + "\n", encoding="utf-8")
    sa1b = {"format": "sa1b", "data": "sa1b/sa_*.tar", "phrases": "retrieve", "retrieve": ALL, **changes}
    coco = {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}
    return write_recipe(
        folder,
        samples=20,
        splits={"train": 1.0, "val": 0.0, "test": 0.0},
        mix={"sa1b": "rest", "coco": 0.5},
        sources={"sa1b": sa1b, "coco": coco},
    )


def choose_colours(name: str, *, templates: str = "", allow_pickle: str = "") -> Chosen:
    """The encoder of the tests, whatever is asked for."""
    return Chosen(encoder=Colours(), why=f"{name}{templates}{allow_pickle} was asked for.")


@pytest.fixture(scope="module", autouse=True)
def colours() -> Iterator[None]:
    """No weights are loaded but by the one test that asks for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "choose_encoder", choose_colours)
        patch.setattr(phrases, "choose_encoder", choose_colours)
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch in one thread: on a busy machine two wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retrieved")
    build_world(write_retrieving(folder), folder / "out")
    return folder


def test_retrieved_presences_are_partial_and_known_by_guards_alone(built: Path) -> None:
    labels = read_table(str(built / "out" / "labels.parquet"), LABELS)
    labels = labels.filter(pc.starts_with(labels["key"], "sa1b-"))
    assert labels.num_rows > 12
    assert set(labels["known_by"].to_pylist()) == {"retrieved"}
    assert set(labels["mask_state"].to_pylist()) == {"partial"}
    assert set(labels["phrase"].to_pylist()) <= set(CATEGORIES.values())
    samples = read_table(str(built / "out" / "samples.parquet"), SAMPLES)
    sa1b = samples.filter(pc.equal(samples["source"], "sa1b"))
    there = sa1b.filter(sa1b["present"])
    assert there.num_rows > 5
    assert set(there["evidence"].to_pylist()) == {"mined"}
    assert set(there["mask_state"].to_pylist()) == {"partial"}
    assert there.num_rows == sa1b.num_rows  # nothing is exhaustive, so nothing is absent
    coco = samples.filter(pc.equal(samples["source"], "coco"))
    assert set(coco["evidence"].to_pylist()) == {"annotated"}
    assert verify([str(built / "out"), "--deep"]) == 0


def test_a_file_that_is_missing_is_told_before_anything_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(name: str, **_options: str) -> Chosen:
        raise AssertionError(f"{name} was opened")

    monkeypatch.setattr(encoders, "choose_encoder", choose)
    recipe = write_retrieving(tmp_path)
    recipe.write_text(recipe.read_text() + '\n[mine]\nnegatives = ["nope.parquet"]\n')
    with pytest.raises(SourceError, match=r"\[mine\]: .*nope\.parquet does not exist"):
        build_world(recipe, tmp_path / "out")
    (tmp_path / "coco" / "instances.json").unlink()
    with pytest.raises(SourceError, match=r"\[sources\.coco\] annotations: nothing at .*instances\.json"):
        build_world(recipe, tmp_path / "out")


def test_a_build_that_starts_again_finds_what_was_looked_up_and_writes_the_same_bytes(built: Path) -> None:
    out = built / "out"
    before = build_bytes(out)
    looked_up = sorted((out / "work" / "phrases").glob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in looked_up]
    (out / "manifest.json").unlink()
    for path in (out / "work" / "catalog").iterdir():
        path.unlink()
    build_world(built / "recipe.toml", out)
    assert build_bytes(out) == before
    assert [path.stat().st_mtime_ns for path in looked_up] == times


def test_the_command_writes_a_table_that_a_recipe_takes_and_measures_it(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, truth = str(built / "words.txt"), str(built / "sa1b" / "phrases.jsonl")
    out = tmp_path / "labels.parquet"
    tar = str(built / "sa1b" / "sa_*.tar")
    assert phrases.main([tar, "--vocabulary", words, "--out", str(out), "--truth", truth, *OPTIONS]) == 0
    said = json.loads(capsys.readouterr().out)
    rows = read_table(str(out), PHRASES)
    assert said["accepted"] == rows.num_rows == sum(said["phrases"].values())
    assert (said["pictures"], said["vocabulary"], said["encoder"]) == (12, len(CATEGORIES), "colours")
    assert said["measured"]["chosen"]["masks"] == rows.num_rows
    assert said["measured"]["chosen"]["coverage"] == 1.0
    assert read_metadata(str(out), PHRASES)["encoder"] == "colours"
    recipe = write_retrieving(tmp_path, phrases="labels.parquet", retrieve={})
    build_world(recipe, tmp_path / "out")
    for name in ("labels.parquet", "samples.parquet"):  # the same as if the recipe had asked for them
        assert pq.read_table(built / "out" / name).to_pylist() == pq.read_table(tmp_path / "out" / name).to_pylist()
    (tmp_path / "all").mkdir()
    closed = write_retrieving(tmp_path / "all", phrases=str(out), retrieve={}, exhaustive_over=["coco"])
    with pytest.raises(SourceError, match=r"sources\.sa1b: exhaustive_over is given, but .*holds what an encoder"):
        build_world(closed, tmp_path / "all" / "out")


@pytest.mark.usefixtures("one_thread")
def test_the_embedded_encoder_looks_up_real_weights_and_is_the_one_whose_thresholds_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(phrases, "choose_encoder", real_choice)
    make_sa1b(1).write(tmp_path)
    words, out, tar = tmp_path / "words.txt", tmp_path / "labels.parquet", tmp_path / "sa_000000.tar"
    words.write_text("\n".join(CATEGORIES.values()) + "\n", encoding="utf-8")
    assert phrases.main([str(tar), "--vocabulary", str(words), "--out", str(out), "--max-masks", "1", *OPTIONS]) == 0
    rows = read_table(str(out), PHRASES)
    assert rows.num_rows == 1
    assert np.isfinite(rows["score"].to_numpy()).all()
    assert read_metadata(str(out), PHRASES)["encoder"] == "conse"
    measured = json.loads((ROOT / "benchmarks" / "results" / "accuracy" / "phrases.json").read_text())
    assert json.loads(capsys.readouterr().out)["encoder_digest"] == measured["encoder_digest"]


def test_a_build_finds_what_the_command_looked_up_in_the_folder_of_a_catalog(tmp_path: Path) -> None:
    recipe, folder = write_retrieving(tmp_path), tmp_path / "out"
    assert catalog.main([str(recipe), "--out", str(folder), "--workers", "1", "--json"]) == 0
    words, out = str(tmp_path / "words.txt"), str(tmp_path / "labels.parquet")
    assert phrases.main([str(folder), "--source", "sa1b", "--vocabulary", words, "--out", out, *OPTIONS]) == 0
    looked_up = sorted((folder / "work" / "phrases").glob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in looked_up]
    build_world(recipe, folder)
    assert looked_up == sorted((folder / "work" / "phrases").glob("*.parquet"))
    assert [path.stat().st_mtime_ns for path in looked_up] == times


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"exhaustive_over": ["coco"]},
            r'sources\.sa1b\.exhaustive_over is given, but phrases = "retrieve" finds some',
        ),
        (
            {"phrases": "p.parquet"},
            r'sources\.sa1b\.retrieve is given, but phrases = "p\.parquet"; expected "retrieve"',
        ),
        ({"retrieve": {"max_masks": 0}}, r"sources\.sa1b\.retrieve\.max_masks = 0; expected a positive number"),
        ({"retrieve": {"vocabulry": "w.txt"}}, r"unknown field `vocabulry`.*did you mean `vocabulary`"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(write_retrieving(tmp_path, **changes)))


def test_a_vocabulary_that_is_not_there_stops_before_anything_is_looked_up(tmp_path: Path) -> None:
    recipe = write_retrieving(tmp_path, retrieve={**ALL, "vocabulary": "none.txt"})
    with pytest.raises(RecipeError, match=r"no file at .*none\.txt"):
        build_world(recipe, tmp_path / "out")
