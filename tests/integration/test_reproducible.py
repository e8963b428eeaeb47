"""The same recipe and inputs give the same bytes, whatever the machine is set to, and nothing is done twice."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from flows.build_shards import main
from manifests.errors import BuildError, RecipeError, SourceError
from manifests.manifest import read_manifest
from manifests.recipe import Recipe
from manifests.tables import SAMPLES, VOCABULARIES, read_table
from shards.draw import generated_sources
from shards.sources.generated import GeneratedKind
from shards.verify import verify
from tests.worlds import build_bytes, build_world, error_line, make_coco, run_command_line, write_recipe, write_world

SA1B_AND_NOISE = {
    "sa1b": {"format": "sa1b", "data": "sa1b/sa_*.tar", "phrases": "sa1b/phrases.jsonl"},
    "noise": {"format": "noise"},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    out = recipe.parent / "finished"
    build_world(recipe, out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A finished build that the test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file outside `work/`."""
    return {name: _stamp(folder / name) for name in build_bytes(folder)}


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.mark.parametrize(
    ("num_workers", "out_name", "settings"),
    [
        (1, "oüt", {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}),
        (
            3,
            "out",
            {
                "TZ": "America/Caracas",
                "LC_ALL": "C",
                "PYTHONUTF8": "0",
                "PYTHONCOERCECLOCALE": "0",
                "PYTHONHASHSEED": "2",
                "OMP_NUM_THREADS": "3",
            },
        ),
    ],
)
def test_workers_folder_clock_locale_hash_seed_threads_and_temporary_folder_change_no_byte(
    finished: Path, recipe: Path, tmp_path: Path, num_workers: int, out_name: str, settings: dict[str, str]
) -> None:
    moved = tmp_path / "another place" / "world"
    shutil.copytree(recipe.parent, moved, ignore=shutil.ignore_patterns("finished"), copy_function=shutil.copy)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    out = tmp_path / out_name
    done = run_command_line(
        moved / recipe.name, out, num_workers=num_workers, env={**settings, "TMPDIR": str(temporary)}
    )
    assert done.returncode == 0, done.stderr
    assert differing(build_bytes(out), build_bytes(finished)) == []
    assert list(temporary.iterdir()) == []


def test_another_seed_gives_other_bytes(finished: Path, recipe: Path, tmp_path: Path) -> None:
    other = write_recipe(recipe.parent, "seeded.toml", seed=4)
    build_world(other, tmp_path / "out")
    assert any(name.startswith("shards/") for name in differing(build_bytes(tmp_path / "out"), build_bytes(finished)))


def test_without_work_and_manifest_the_same_bytes_come_back(finished: Path, recipe: Path, out: Path) -> None:
    shutil.rmtree(out / "work")
    (out / "manifest.json").unlink()
    build_world(recipe, out)
    assert differing(build_bytes(out), build_bytes(finished)) == []


def test_an_equal_finished_build_returns_at_once(recipe: Path, out: Path) -> None:
    before = stamps(out)
    work = {path: _stamp(path) for path in (out / "work").rglob("*") if path.suffix in {".parquet", ".masks", ".jpgs"}}
    manifest = build_world(recipe, out)
    assert stamps(out) == before
    assert {path: _stamp(path) for path in work} == work
    assert manifest.name == "tiny"


def test_an_equal_finished_build_without_work_is_not_written_again(recipe: Path, out: Path) -> None:
    shutil.rmtree(out / "work")
    before = stamps(out)
    build_world(recipe, out)
    assert stamps(out) == before


def test_another_recipe_in_the_folder_of_a_finished_build_is_refused(
    recipe: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_recipe(recipe.parent, "other.toml", seed=99)
    before = stamps(out)
    assert main([str(other), "--out", str(out), "--workers", "1"]) == 1
    line = error_line(capsys.readouterr().err)
    assert line.startswith(f"error: {out}: holds the finished build 'tiny' of another recipe")
    assert "choose another --out, or delete its manifest.json" in line
    assert stamps(out) == before


def test_without_its_manifest_another_recipe_is_built_in_the_folder_from_what_was_scanned(tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world")
    out = tmp_path / "out"
    build_world(recipe, out)
    scanned = {path: path.stat().st_mtime_ns for path in (out / "work").rglob("*.parquet")}
    (out / "manifest.json").unlink()
    other = write_recipe(recipe.parent, "other.toml", seed=99)
    build_world(other, out)
    assert read_manifest(str(out)).seed == 99
    assert not list(verify(str(out), deep=True))
    assert scanned
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in scanned.items())


@pytest.mark.parametrize("keep_work", [True, False], ids=["with work", "without work"])
def test_changed_inputs_in_the_folder_of_a_finished_build_are_refused(tmp_path: Path, *, keep_work: bool) -> None:
    recipe = write_world(tmp_path / "world")
    out = tmp_path / "out"
    build_world(recipe, out)
    picture = tmp_path / "world" / "coco" / "pictures" / f"{1:012d}.jpg"
    with Image.open(picture) as image:
        image.load()
    image.save(picture, "JPEG", quality=50)
    if not keep_work:
        shutil.rmtree(out / "work")
    before = stamps(out)
    with pytest.raises(BuildError, match=r"of the same recipe from other inputs; choose another --out"):
        build_world(recipe, out)
    assert stamps(out) == before


@pytest.mark.parametrize("harm", ["deleted", "truncated"])
@pytest.mark.parametrize("keep_work", [True, False], ids=["with work", "without work"])
def test_a_lost_shard_is_written_again_and_no_other(
    finished: Path, recipe: Path, out: Path, harm: str, *, keep_work: bool
) -> None:
    shard = out / "shards" / "train-000001.tar"
    if harm == "deleted":
        shard.unlink()
    else:
        os.truncate(shard, 1024)
    before = stamps(out)
    if not keep_work:
        shutil.rmtree(out / "work")
    build_world(recipe, out)
    assert differing(build_bytes(out), build_bytes(finished)) == []
    if keep_work:
        shards = [name for name in before if name.startswith("shards/") and name != "shards/train-000001.tar"]
        assert {name: stamps(out)[name] for name in shards} == {name: before[name] for name in shards}


@pytest.mark.parametrize(
    "name", ["train.json", "summary.md", "samples.parquet", "rejects.parquet", "labels.parquet", "manifest.json"]
)
def test_a_deleted_file_comes_back(finished: Path, recipe: Path, out: Path, name: str) -> None:
    (out / name).unlink()
    build_world(recipe, out)
    assert differing(build_bytes(out), build_bytes(finished)) == []


def test_shards_of_an_unfinished_build_of_another_recipe_are_removed(
    finished: Path, recipe: Path, out: Path, tmp_path: Path
) -> None:
    (out / "manifest.json").unlink()
    fewer = write_recipe(recipe.parent, "fewer.toml", samples=30, splits={"train": 0.8, "test": 0.2})
    build_world(fewer, out)
    build_world(fewer, tmp_path / "fresh")
    assert differing(build_bytes(out), build_bytes(tmp_path / "fresh")) == []
    assert len(list((out / "shards").iterdir())) < len(list((finished / "shards").iterdir()))


def test_going_back_and_forth_between_recipes_of_an_unfinished_build_mixes_nothing(
    finished: Path, recipe: Path, out: Path
) -> None:
    other = write_recipe(
        recipe.parent,
        "kinds.toml",
        prompts={"absent_per_image": 2, "generated_per_image": 3, "kinds": {"random": 1.0}},
    )
    (out / "manifest.json").unlink()
    build_world(other, out)
    shards = [name for name in build_bytes(finished) if name.startswith("shards/")]
    found, expected = build_bytes(out), build_bytes(finished)
    assert any(len(found[name]) == len(expected[name]) and found[name] != expected[name] for name in shards)
    (out / "manifest.json").unlink()
    build_world(recipe, out)
    assert differing(build_bytes(out), expected) == []


def test_a_recipe_may_be_renamed_and_its_paths_written_otherwise(finished: Path, recipe: Path, tmp_path: Path) -> None:
    text = recipe.read_text().replace('"coco/pictures"', f'"{recipe.parent}/coco/pictures"')
    other = tmp_path / "renamed.toml"
    other.write_text(
        text.replace('"sa1b/', f'"{recipe.parent}/sa1b/').replace('"coco/inst', f'"{recipe.parent}/coco/inst')
    )
    build_world(other, tmp_path / "out")
    found, expected = build_bytes(tmp_path / "out"), build_bytes(finished)
    assert [name for name in differing(found, expected) if name != "manifest.json"] == []


def test_files_that_are_no_shards_of_a_build_are_left_alone(recipe: Path, tmp_path: Path) -> None:
    others = [tmp_path / "out" / "shards" / name for name in ("notes.txt", "sa_000000.tar", "old/train-000000.tar")]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_text("mine")
    build_world(recipe, tmp_path / "out")
    assert [other.read_text() for other in others] == ["mine"] * 3


def test_a_damaged_record_of_a_shard_writes_it_again(finished: Path, recipe: Path, out: Path) -> None:
    (out / "manifest.json").unlink()
    for record in (out / "work" / "shards").glob("*.json"):
        record.write_text('{"shard": {')
    build_world(recipe, out)
    assert differing(build_bytes(out), build_bytes(finished)) == []


def test_a_changed_licence_reaches_pictures_that_were_generated_before(tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world", mix={"sa1b": "rest", "noise": 0.5}, sources=SA1B_AND_NOISE)
    build_world(recipe, tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    sources = {**SA1B_AND_NOISE, "sa1b": {**SA1B_AND_NOISE["sa1b"], "licence": "other"}}
    write_recipe(tmp_path / "world", mix={"sa1b": "rest", "noise": 0.5}, sources=sources)
    build_world(recipe, tmp_path / "out")
    build_world(recipe, tmp_path / "fresh")
    assert differing(build_bytes(tmp_path / "out"), build_bytes(tmp_path / "fresh")) == []


def test_a_picture_that_changed_since_the_scan_is_no_model_for_generated_ones(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(recipe.parent, tmp_path / "world", ignore=shutil.ignore_patterns("finished")))
    pictures = {path: path.read_bytes() for path in (moved / "coco" / "pictures").iterdir()}
    first = next(iter(pictures.values()))

    def spoil(planned: Recipe) -> dict[str, GeneratedKind]:
        for path, data in pictures.items():
            path.write_bytes(first.ljust(len(data), b"\0"))
        return generated_sources(planned)

    monkeypatch.setattr("shards.generate.generated_sources", spoil)  # asked for after the scan
    with pytest.raises(BuildError, match="changed since"):
        build_world(moved / recipe.name, tmp_path / "out")
    assert not list((tmp_path / "out" / "work" / "generated").glob("*.json"))


def test_an_interrupted_rebuild_forgets_what_the_build_before_it_was_made_of(
    recipe: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "manifest.json").unlink()

    def stop(_: Recipe) -> dict[str, GeneratedKind]:
        raise KeyboardInterrupt

    monkeypatch.setattr("shards.generate.generated_sources", stop)
    with pytest.raises(KeyboardInterrupt):
        build_world(recipe, out)
    assert not (out / "work" / "receipt.txt").exists()


def test_the_same_pictures_twice_count_as_rejects(recipe: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(recipe.parent, tmp_path / "world", ignore=shutil.ignore_patterns("finished")))
    shutil.copy(moved / "sa1b" / "sa_000000.tar", moved / "sa1b" / "sa_000001.tar")
    with pytest.raises(BuildError, match=r"60 of 160 input images were rejected.*duplicate_key 60"):
        build_world(moved / recipe.name, tmp_path / "out")


def test_a_build_beside_the_source_that_it_was_made_of_stops(finished: Path, recipe: Path, tmp_path: Path) -> None:
    again = write_recipe(
        recipe.parent,
        "again.toml",
        mix={"old": "rest", "coco": 0.5},
        sources={
            "old": {"format": "build", "data": str(finished)},
            "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
        },
    )
    with pytest.raises(SourceError, match=r"sources old and coco both hold a picture of the key 'coco-"):
        build_world(again, tmp_path / "out")


@pytest.mark.parametrize("place", ["vocabulary", "exhaustive_over"])
def test_a_folder_as_vocabulary_is_one_clear_error(recipe: Path, tmp_path: Path, place: str) -> None:
    changes: dict[str, object] = {"prompts": {"vocabulary": "coco"}}
    if place == "exhaustive_over":
        table = {"format": "sa1b", "data": "sa1b/sa_*.tar", "exhaustive_over": ["sa1b/"]}
        changes = {"mix": {"sa1b": "rest"}, "sources": {"sa1b": table}}
    wrong = write_recipe(recipe.parent, f"{place}.toml", **changes)
    with pytest.raises(RecipeError, match=r"vocabulary.*expected"):
        build_world(wrong, tmp_path / "out")


def test_every_sample_is_asked_something_and_lies_where_its_rows_say(recipe: Path, tmp_path: Path) -> None:
    world = make_coco(60)
    for image_id in range(1, 21):
        world.annotations = [one for one in world.annotations if one["image_id"] != image_id]
    world.write(tmp_path / "coco")
    bare = write_recipe(
        tmp_path,
        samples=None,
        mix={"coco": 1.0},
        prompts={"absent_per_image": 2, "kinds": {"co_occurring": 1.0}},
        sources={"coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}},
    )
    manifest = build_world(bare, tmp_path / "out")
    rows = read_table(str(tmp_path / "out" / "samples.parquet"), SAMPLES).to_pylist()
    assert len({row["key"] for row in rows}) == sum(s.nsamples for listed in manifest.splits.values() for s in listed)
    for row in rows:
        data = (tmp_path / "out" / row["shard"]).read_bytes()[row["offset"] :][: row["num_bytes"]]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert world.pictures[f"{int(row['key'].removeprefix('coco-')):012d}.jpg"] == data


def write_with_words(world: Path, name: str, words: str) -> Path:
    table = {**SA1B_AND_NOISE["sa1b"], "exhaustive_over": [words]}
    return write_recipe(world, name, mix={"sa1b": "rest"}, sources={"sa1b": table})


def test_where_the_file_of_a_vocabulary_lies_changes_no_byte(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat\ndog\nbird\n")
    (recipe.parent / "lists").mkdir()
    shutil.copy(tmp_path / "words.txt", recipe.parent / "lists")
    build_world(write_with_words(recipe.parent, "near.toml", "lists/words.txt"), tmp_path / "near")
    build_world(write_with_words(recipe.parent, "far.toml", str(tmp_path / "words.txt")), tmp_path / "far")
    assert differing(build_bytes(tmp_path / "near"), build_bytes(tmp_path / "far")) == []
    vocabularies = read_table(str(tmp_path / "near" / "vocabularies.parquet"), VOCABULARIES)
    assert set(vocabularies["vocabulary"].to_pylist()) == {"words.txt"}


def test_a_vocabulary_file_of_a_name_that_is_taken_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("cat\n")
    (recipe.parent / "words.txt").write_text("dog\n")
    table = {**SA1B_AND_NOISE["sa1b"], "exhaustive_over": ["words.txt", str(tmp_path / "words.txt")]}
    twice = write_recipe(recipe.parent, "twice.toml", mix={"sa1b": "rest"}, sources={"sa1b": table})
    with pytest.raises(RecipeError, match=r"another vocabulary is called 'words.txt'; rename"):
        build_world(twice, tmp_path / "out")


def test_another_word_on_synonyms_alone_is_another_input(tmp_path: Path) -> None:
    world = make_coco(30)
    world.write(tmp_path / "coco")
    table = {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}
    recipe = write_recipe(tmp_path, mix={"coco": 1.0}, sources={"coco": table}, samples=None)
    build_world(recipe, tmp_path / "out")
    world.categories[0]["synonyms"] = ["person", "car"]
    world.write(tmp_path / "coco")
    with pytest.raises(BuildError, match="from other inputs"):
        build_world(recipe, tmp_path / "out")


def test_unfinished_files_of_a_build_in_a_folder_below_are_left_alone(recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "out" / "another" / "work" / ".part-1234-x.parquet"
    other.parent.mkdir(parents=True)
    other.write_text("being written")
    build_world(recipe, tmp_path / "out")
    assert other.exists()
