"""Builds with mined kinds from a table made by hand: exact shares, sound by every check, in any order of its rows."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from flows import building
from manifests.errors import BuildError, SourceError, TableError
from manifests.manifest import Manifest, read_manifest
from manifests.recipe import MINED_KINDS, Recipe
from manifests.recipe_file import load_recipe
from manifests.sample import NegativeKind, Prompt, decode_sample
from manifests.stage import Inline, progress_bar
from manifests.tables import NEGATIVES, VOCABULARIES, read_metadata, write_table
from shards.faults import Check
from shards.shortcuts import BOUND
from shards.verify import main as verify_command
from shards.verify import verify
from tests.damage import Held, forge, load, members, rows_of, seal, write_rows
from tests.negatives import Row, make_row, mine_at_random, write_negatives
from tests.worlds import build_bytes, build_world, write_recipe, write_world

SOURCES = {
    "sa1b": {"format": "sa1b", "data": "sa1b/sa_*.tar", "phrases": "sa1b/phrases.jsonl"},
    "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
    "blank": {"format": "blank"},
}
CHANGES: dict[str, object] = {
    "samples": 150,
    "shard_samples": 40,
    "when_short": "stop",
    "splits": {"train": 0.8, "val": 0.2},
    "mix": {"sa1b": 0.35, "coco": "rest", "blank": 0.04},
    "sources": SOURCES,
}
QUARTERS = {"random": 0.25, "co_occurring": 0.25, "near_text": 0.25, "near_image": 0.25}
RECORD = {"encoder": "conse", "encoder_why": "asked for", "audit": {"false_share": 0.03}, "counts": {"score": 12}}
_COLUMNS = ["kind", "evidence", "score", "standard_score", "rank", "positive_key", "positive_score"]


def mined_recipe(folder: Path, name: str = "mined.toml", table: str = "negatives.parquet", **prompts: object) -> Path:
    asked = {"absent_per_image": 2, "kinds": QUARTERS} | prompts
    return write_recipe(folder, name, **(CHANGES | {"prompts": asked, "mine": {"negatives": [table]}}))


def named_tables(recipe: Recipe, *_args: object, **_more: object) -> list[str]:
    """Stands in for the mining stage: the tables that the recipe names, and nothing mined besides."""
    return [] if recipe.mine is None else [recipe.resolve(name) for name in recipe.mine.negatives]


@pytest.fixture(scope="module", autouse=True)
def _no_miner() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "negatives_of", named_tables)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, a build of them without mining, and rows that were mined for most of its pictures."""
    folder = tmp_path_factory.mktemp("mined")
    plain = write_world(folder, coco_images=140, sa1b_images=90, **(CHANGES | {"prompts": {"absent_per_image": 2}}))
    build_world(plain, folder / "plain")
    return folder


@pytest.fixture(scope="module")
def rows(world: Path) -> list[Row]:
    return mine_at_random(world / "plain")


@pytest.fixture(scope="module")
def finished(world: Path, rows: list[Row]) -> Path:
    strangers = [make_row("coco-9999", "dog"), make_row(str(rows[0]["key"]), "zebra crossing")]
    metadata = {"mining": json.dumps(RECORD), "encoder": "conse"}
    write_negatives(world / "negatives.parquet", [*strangers, *rows], metadata)
    build_world(mined_recipe(world), world / "finished")
    return world / "finished"


def absent_kinds(manifest: Manifest) -> dict[str, tuple[float, int]]:
    return {kind: (share.requested, share.achieved) for kind, share in manifest.mix["train"].prompts.items()}


def test_mined_kinds_stand_in_train_at_their_exact_rate(finished: Path) -> None:
    manifest = read_manifest(str(finished))
    kinds = absent_kinds(manifest)
    total = sum(achieved for _, achieved in kinds.values())
    assert kinds.keys() == QUARTERS.keys()
    assert total > 200
    assert all(abs(achieved - total / 4) <= 1 for _, achieved in kinds.values())
    assert all(abs(achieved - requested) <= 1 for requested, achieved in kinds.values())
    assert not [note for note in manifest.notes if note.startswith("train:")]
    samples = pq.read_table(finished / "samples.parquet")
    mined = samples.filter(pc.is_in(samples["kind"], pc.cast([str(kind) for kind in MINED_KINDS], "string")))
    assert set(mined["split"].to_pylist()) == {"train"}
    by_source = Counter(zip(mined["source"].to_pylist(), mined["evidence"].to_pylist(), strict=True))
    assert by_source.keys() == {("sa1b", "mined"), ("coco", "annotated")}


def test_every_source_has_one_ratio_and_the_audit_is_content(finished: Path) -> None:
    manifest = read_manifest(str(finished))
    pairs = manifest.mix["train"].pairs
    ratios = {name: pairs[name].absent.achieved / pairs[name].present for name in ("sa1b", "coco")}
    assert abs(ratios["sa1b"] - ratios["coco"]) < 0.02
    found = manifest.shortcuts
    assert max(found.phrase, found.source, found.pixels, found.num_bytes) < BOUND
    assert found.warnings == []


def test_without_mining_the_source_gives_presence_away(world: Path) -> None:
    assert read_manifest(str(world / "plain")).shortcuts.source > BOUND


def test_verify_finds_nothing_wrong(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_command([str(finished), "--deep"]) == 0
    assert "sound: " in capsys.readouterr().out


def test_what_was_mined_arrives_to_the_last_bit_in_samples_and_shards(finished: Path, rows: list[Row]) -> None:
    stored = pq.read_table(finished / "negatives.parquet").to_pylist()
    told = {(row["key"], row["phrase"], row["kind"]): row for row in stored}
    samples = pq.read_table(finished / "samples.parquet").to_pylist()
    mined = [row for row in samples if row["kind"] in MINED_KINDS]
    assert mined
    for row in mined:
        assert {name: row[name] for name in _COLUMNS} == {
            name: told[row["key"], row["phrase"], row["kind"]][name] for name in _COLUMNS
        }
    in_shards = [
        (sample.key, prompt)
        for shard in sorted((finished / "shards").glob("train-*.tar"))
        for name, data in members(shard)
        if name.endswith(".json")
        for sample in [decode_sample(data)]
        for prompt in sample.prompts
        if prompt.kind in MINED_KINDS
    ]
    assert len(in_shards) == len(mined)
    for key, prompt in in_shards:
        row = told[key, prompt.phrase, str(prompt.kind)]
        assert {name: getattr(prompt, name) for name in _COLUMNS} == {name: row[name] for name in _COLUMNS}
        assert prompt.miner == "test"


def test_the_table_its_record_and_what_could_not_be_asked_are_kept(finished: Path, rows: list[Row]) -> None:
    manifest = read_manifest(str(finished))
    assert manifest.encoder == "conse"
    assert manifest.mining == RECORD
    assert read_metadata(str(finished / "negatives.parquet"), NEGATIVES)["encoder"] == "conse"
    assert pq.read_metadata(finished / "negatives.parquet").num_rows == len(rows) + 2
    (note,) = [note for note in manifest.notes if note.startswith("mined: ")]
    assert note.endswith("cannot be asked here: 1 unknown_key, 1 unknown_phrase")


def test_another_order_of_the_rows_gives_the_same_samples(world: Path, finished: Path, rows: list[Row]) -> None:
    write_negatives(world / "reversed.parquet", rows[::-1])
    build_world(mined_recipe(world, "reversed.toml", "reversed.parquet"), world / "reversed")
    one, other = build_bytes(finished), build_bytes(world / "reversed")
    same = [name for name in one if name.startswith(("shards/", "samples", "images", "labels", "train", "val"))]
    assert len(same) > 6
    assert [name for name in same if one[name] != other.get(name)] == []


def test_a_second_run_is_done_at_once_and_a_fresh_one_gives_the_same_bytes(world: Path, finished: Path) -> None:
    before = build_bytes(finished)
    build_world(world / "mined.toml", finished)
    assert build_bytes(finished) == before
    build_world(world / "mined.toml", world / "again")
    assert build_bytes(world / "again") == before


def test_a_changed_table_is_another_input(world: Path, finished: Path, rows: list[Row]) -> None:
    write_negatives(world / "changed.parquet", rows)
    recipe = mined_recipe(world, "changed.toml", "changed.parquet")
    build_world(recipe, world / "changed")
    write_negatives(world / "changed.parquet", rows[1:])
    with pytest.raises(BuildError, match="holds a finished build of the same recipe from other inputs"):
        build_world(recipe, world / "changed")


def test_kinds_of_which_too_little_was_mined_are_noted_and_stop_a_strict_build(world: Path, rows: list[Row]) -> None:
    few = [row for row in rows if row["kind"] == "near_text"] + [row for row in rows if row["kind"] == "near_image"][:9]
    write_negatives(world / "few.parquet", few)
    manifest = build_world(mined_recipe(world, "few.toml", "few.parquet"), world / "few")
    wanted, achieved = absent_kinds(manifest)["near_image"]
    assert achieved <= 9 < wanted
    assert any(f"train: {achieved} of {wanted:.0f} near_image prompts" in note for note in manifest.notes)
    assert sum(achieved for _, achieved in absent_kinds(manifest).values()) == pytest.approx(4 * wanted, abs=2)
    assert verify(str(world / "few")) == []
    with pytest.raises(BuildError, match=r"prompts ran short and strict is set: .* near_image prompts"):
        build_world(mined_recipe(world, "strict.toml", "few.parquet", strict=True), world / "strict")


def test_tables_that_are_missing_or_no_negatives_stop_before_anything_is_scanned(world: Path, tmp_path: Path) -> None:
    (world / "words.parquet").unlink(missing_ok=True)
    recipe = mined_recipe(world, "wrong.toml", "words.parquet")
    with pytest.raises(SourceError, match=r"\[mine\]: .*words.parquet does not exist"):
        build_world(recipe, tmp_path / "out")
    write_table(str(world / "words.parquet"), VOCABULARIES.empty_table(), VOCABULARIES)
    with pytest.raises(TableError, match=r"words.parquet: is no negatives table: columns key, "):
        build_world(recipe, tmp_path / "out")
    write_negatives(world / "words.parquet", [make_row("elsewhere-1", "dog")])
    with pytest.raises(TableError, match=r"words.parquet: none of its 1 rows is of a picture of this build"):
        build_world(recipe, tmp_path / "out")


def test_a_record_that_is_no_json_stops_before_anything_is_scanned(
    world: Path, rows: list[Row], tmp_path: Path
) -> None:
    write_negatives(world / "spoilt.parquet", rows, {"mining": "{", "encoder": "conse"})
    with pytest.raises(TableError, match=r"spoilt.parquet: its mining record is no JSON object"):
        build_world(mined_recipe(world, "spoilt.toml", "spoilt.parquet"), tmp_path / "out")
    assert not (tmp_path / "out" / "work" / "catalog").exists()


def test_pictures_that_are_near_to_a_phrase_are_drawn_first(world: Path, rows: list[Row], tmp_path: Path) -> None:
    near = {str(row["key"]) for row in rows if row["kind"] == NegativeKind.NEAR_IMAGE}
    chosen = sorted(key for key in near if key.startswith("coco-"))[:25]
    table = world / "near.parquet"
    write_negatives(table, [row for row in rows if row["key"] in chosen or not str(row["key"]).startswith("coco-")])
    recipe = load_recipe(str(mined_recipe(world, "near.toml", table.name)))
    with progress_bar(quiet=True) as progress:
        building.build(recipe, str(tmp_path / "out"), executor=Inline(), progress=progress)
    images = pq.read_table(tmp_path / "out" / "images.parquet", columns=["key", "split"])
    train = set(images.filter(pc.equal(images["split"], "train"))["key"].to_pylist())
    elsewhere = set(images["key"].to_pylist()) - train
    assert set(chosen) - elsewhere <= train


def test_what_a_person_found_is_a_presence_that_was_verified(world: Path, rows: list[Row], tmp_path: Path) -> None:
    found = next(row for row in rows if str(row["key"]).startswith("sa1b-"))
    there = {"key": found["key"], "phrase": found["phrase"], "decision": "present"}
    (world / "decisions.json").write_text(json.dumps({"schema": 1, "decisions": [there]}))
    write_negatives(world / "others.parquet", [row for row in rows if row["key"] != found["key"]])
    mine = {"negatives": ["others.parquet"], "decisions": ["decisions.json"]}
    build_world(write_recipe(world, "decided.toml", **(CHANGES | {"mine": mine})), tmp_path / "out")
    samples = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    (asked,) = [row for row in samples if (row["image_key"], row["phrase"]) == (found["key"], found["phrase"])]
    assert (asked["present"], asked["evidence"], asked["mask_state"]) == (True, "verified", "none")
    assert verify_command([str(tmp_path / "out"), "--deep"]) == 0


def spoilt(finished: Path, out: Path) -> Path:
    """A copy of the finished build that a test may spoil."""
    return Path(shutil.copytree(finished, out, ignore=shutil.ignore_patterns("work")))


def with_absence(prompts: Sequence[Prompt], **changes: object) -> tuple[Prompt, ...]:
    """The prompts, the last of them, an absence, changed."""
    return (*prompts[:-1], msgspec.structs.replace(prompts[-1], **changes))


def absent_sample(held: Sequence[Held], split: str, *, mined: bool) -> Held:
    """A sample of COCO in `split` whose last prompt is an absence, mined or not."""
    return next(
        one
        for one in held
        if one.split == split
        and one.sample.source == "coco"
        and one.sample.prompts[-1].kind is not None
        and (one.sample.prompts[-1].kind in MINED_KINDS) == mined
    )


def test_verify_names_a_mined_prompt_whose_row_the_table_does_not_hold(finished: Path, tmp_path: Path) -> None:
    out = spoilt(finished, tmp_path / "out")
    rows = rows_of(out, "negatives")
    asked = next(row for row in rows_of(out, "samples") if row["kind"] == "near_image")
    same = [row for row in rows if (row["key"], row["phrase"]) == (asked["key"], asked["phrase"])]
    same[0]["standard_score"] = 99.0
    write_rows(out, "negatives", rows)
    seal(out)
    (fault,) = verify(str(out))
    assert (fault.check, fault.key) == (Check.ROW, asked["key"])
    assert fault.message == f"{asked['phrase']!r} is asked as near_image, and negatives.parquet has no such row"


def test_verify_names_a_mined_prompt_outside_train(finished: Path, tmp_path: Path) -> None:
    out = spoilt(finished, tmp_path / "out")
    held = load(out)
    one = absent_sample(held, "val", mined=False)
    prompts = with_absence(one.sample.prompts, kind=NegativeKind.NEAR_TEXT)
    one.sample = msgspec.structs.replace(one.sample, prompts=prompts)
    forge(out, held)
    found = {(fault.check, fault.message) for fault in verify(str(out)) if fault.key == one.sample.key}
    phrase = prompts[-1].phrase
    assert (Check.KINDS, "is asked a mined prompt; those stand in train alone") in found
    assert (Check.ROW, f"{phrase!r} is asked as near_text, and negatives.parquet has no such row") in found


def test_verify_names_a_mined_prompt_that_the_labels_show(finished: Path, tmp_path: Path) -> None:
    out = spoilt(finished, tmp_path / "out")
    held = load(out)
    one = absent_sample(held, "train", mined=True)
    present, *others = one.sample.prompts
    shown = present.phrase
    one.sample = msgspec.structs.replace(one.sample, prompts=with_absence(others, phrase=shown))
    forge(out, held)
    found = [fault.message for fault in verify(str(out)) if fault.check is Check.LABEL]
    assert found == [f"{shown!r} is asked as absent, though the labels say that {shown!r} is present"]
