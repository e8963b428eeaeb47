"""A finished build read back as a source: its real pictures with all that is known of them, and nothing else."""

import hashlib
import shutil
from pathlib import Path

import fsspec
import msgspec
import pyarrow as pa
import pytest

from manifests import tables
from manifests.errors import ManifestError, Reason, SourceError, TableError
from manifests.recipe import BuildSource
from manifests.sample import Mask, MaskState
from shards.sources.build import BuiltPictures, open_build
from shards.sources.source import Found, LabelState, Picture, Reject
from tests.factories import (
    LICENCE,
    OPEN_PHRASE,
    PHRASES,
    Made,
    absent,
    make_build,
    make_mask,
    make_recipe,
    make_sample,
    make_samples,
    present,
)
from tests.worlds import build_world, make_coco, write_recipe


def source_at(folder: Path) -> BuiltPictures:
    return open_build("old", BuildSource(data=str(folder)), make_recipe())


def found_in(source: BuiltPictures) -> list[Found]:
    return [found for part in source.prepare("").parts for found in source.scan(part)]


def pictures_in(source: BuiltPictures) -> dict[str, Picture]:
    return {found.key: found for found in found_in(source) if isinstance(found, Picture)}


def rejects_in(source: BuiltPictures) -> list[Reject]:
    return [found for found in found_in(source) if isinstance(found, Reject)]


def real(samples: list[Made]) -> dict[str, Made]:
    """By key, without repeats and generated pictures."""
    return {
        made.sample.key: made
        for made in samples
        if made.sample.key == made.image_key and not made.sample.source.startswith("blank")
    }


def rewrite(folder: Path, table: str, schema: pa.Schema, **columns: list[object]) -> None:
    """Replace columns of a table of the build."""
    uri = str(folder / f"{table}.parquet")
    rows = tables.read_table(uri, schema)
    for name, values in columns.items():
        place = schema.get_field_index(name)
        rows = rows.set_column(place, schema.field(name), pa.array(values, schema.field(name).type))
    tables.write_table(uri, rows, schema)


def test_real_pictures_come_back_with_their_bytes_and_keys(tmp_path: Path) -> None:
    samples = make_samples()
    source = source_at(make_build(tmp_path / "b", samples))
    wanted = real(samples)
    found = pictures_in(source)
    assert list(found) == list(wanted)
    assert len(wanted) == 15
    for key, picture in found.items():
        made = wanted[key]
        assert picture.data == made.jpeg
        assert picture.claimed_size == (made.sample.width, made.sample.height)
        assert (picture.licence, picture.exhaustive_over, picture.open_over) == (LICENCE, made.exhaustive_over, ())
        with (tmp_path / "b" / picture.uri).open("rb") as shard:
            shard.seek(picture.offset)
            assert shard.read(len(picture.data)) == made.jpeg


def test_labels_come_from_the_table_and_not_from_what_was_asked(tmp_path: Path) -> None:
    samples = make_samples()
    found = pictures_in(source_at(make_build(tmp_path / "b", samples)))
    first = {label.phrase: label for label in found["photos-train_00"].labels}
    asked = {p.phrase: p for p in real(samples)["photos-train_00"].sample.prompts}
    assert set(first) == {*PHRASES[:2], OPEN_PHRASE}
    assert first[OPEN_PHRASE].state is LabelState.OPEN
    for phrase in PHRASES[:2]:
        assert (first[phrase].state, first[phrase].mask_state) == (LabelState.PRESENT, MaskState.COMPLETE)
        assert first[phrase].masks == asked[phrase].masks
    (tree,) = next(picture for key, picture in found.items() if key.startswith("tars-")).labels
    assert (tree.phrase, tree.mask_state, len(tree.masks)) == ("tree", MaskState.PARTIAL, 1)


def test_repeats_and_generated_pictures_are_left_out(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    written = set(tables.read_table(str(folder / "samples.parquet"), tables.SAMPLES)["key"].to_pylist())
    left_out = written - set(pictures_in(source_at(folder)))
    assert sorted(key.partition("-")[0] for key in left_out) == ["blank", "blank", "blank", "photos"]
    assert "photos-train_00-r1" in left_out


def test_a_shard_of_generated_pictures_alone_is_no_part(tmp_path: Path) -> None:
    source = source_at(make_build(tmp_path / "b", make_samples({"train": 6}), shard_samples=1))
    assert len(source.prepare("").parts) == 7


def test_vocabularies_keep_their_names(tmp_path: Path) -> None:
    vocabularies = {"photos": PHRASES, "animals": ("cat", "dog")}
    source = source_at(make_build(tmp_path / "b", vocabularies=vocabularies))
    assert source.prepare("").vocabularies == vocabularies


def test_parts_are_shards_and_named_by_all_that_decides_them(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    first = source_at(folder).prepare("").parts
    numbers = {"train": 3, "val": 2, "test": 2}
    shards = [f"{split}-{number:06d}.tar" for split, count in numbers.items() for number in range(count)]
    assert [Path(part.uri).name for part in first] == shards
    assert source_at(folder).prepare("").parts == first
    assert sum(part.weight for part in first) == 15
    states = tables.read_table(str(folder / "labels.parquet"), tables.LABELS)["state"].to_pylist()
    rewrite(folder, "labels", tables.LABELS, state=["open", *states[1:]])
    second = source_at(folder).prepare("").parts
    assert {part.name for part in second}.isdisjoint(part.name for part in first)
    words = tables.read_table(str(folder / "vocabularies.parquet"), tables.VOCABULARIES)["phrase"].to_pylist()
    rewrite(folder, "vocabularies", tables.VOCABULARIES, phrase=["another", *words[1:]])
    assert {part.name for part in source_at(folder).prepare("").parts}.isdisjoint(part.name for part in second)
    assert all(part.name.startswith("old-") and "/" not in part.name for part in first)


def test_a_part_reads_only_the_row_groups_that_hold_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = make_samples()
    plain = pictures_in(source_at(make_build(tmp_path / "whole", samples)))
    monkeypatch.setattr(tables, "ROW_GROUP", 4)
    source = source_at(make_build(tmp_path / "many", samples))
    assert pictures_in(source) == plain
    samples_groups = tables.open_table(str(tmp_path / "many" / "samples.parquet"), tables.SAMPLES).num_row_groups
    read = [msgspec.json.decode(part.items[0])["samples"] for part in source.prepare("").parts]
    assert samples_groups > 12
    assert max(map(len, read)) <= 4


def test_the_build_may_lie_in_a_bucket_and_have_no_work_folder(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    bucket = fsspec.filesystem("memory")
    bucket.put(str(folder), "/builds/first", recursive=True)
    there = open_build("old", BuildSource(data="memory://builds/first"), make_recipe())
    assert pictures_in(there) == pictures_in(source_at(folder))


def test_a_build_that_did_not_finish_is_no_source(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    (folder / "manifest.json").unlink()
    with pytest.raises(ManifestError, match=r"manifest\.json: not found; expected a finished build"):
        source_at(folder).prepare("")


def test_a_build_without_real_pictures_is_no_source(tmp_path: Path) -> None:
    blank = [made for made in make_samples() if made.sample.source == "blank"]
    with pytest.raises(SourceError, match=r"source old: .*: no real picture in this build.*expected at least one"):
        source_at(make_build(tmp_path / "b", blank)).prepare("")
    with pytest.raises(SourceError, match="no real picture"):
        source_at(make_build(tmp_path / "c", [])).prepare("")


def test_tables_of_another_build_are_refused(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    shutil.copy(make_build(tmp_path / "c", shard_samples=1) / "samples.parquet", folder)
    with pytest.raises(TableError, match=r"samples\.parquet: names a shard that is not in the manifest"):
        source_at(folder).prepare("")


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b")
    source = source_at(folder)
    parts = source.prepare("").parts
    data = bytearray((folder / "labels.parquet").read_bytes())
    data[4:200] = bytes(196)
    (folder / "labels.parquet").write_bytes(data)
    with pytest.raises(TableError, match=r"labels\.parquet: the table is damaged: .*; copy the build again"):
        list(source.scan(parts[0]))


def test_a_shard_cut_short_loses_only_the_pictures_that_are_gone(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b", [make_sample(f"p-{n}", present("cat", make_mask())) for n in range(3)])
    shard = folder / "shards" / "train-000000.tar"
    offsets = tables.read_table(str(folder / "samples.parquet"), tables.SAMPLES)["offset"].to_pylist()
    shard.write_bytes(shard.read_bytes()[: offsets[2] + 10])
    (lost,) = rejects_in(source_at(folder))
    assert (lost.reason, lost.image, lost.where) == (Reason.TAR_CUT_SHORT, True, "shards/train-000000.tar: p-2")
    assert list(pictures_in(source_at(folder))) == ["p-0", "p-1"]


def test_changed_bytes_and_missing_shards_are_rejects(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b", [make_sample(f"p-{n}", absent("cat")) for n in range(4)], shard_samples=2)
    offset = tables.read_table(str(folder / "samples.parquet"), tables.SAMPLES)["offset"].to_pylist()[1]
    shard = folder / "shards" / "train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[offset + 300] ^= 1
    shard.write_bytes(data)
    (folder / "shards" / "train-000001.tar").unlink()
    lost = rejects_in(source_at(folder))
    assert [(reject.where[-3:], reject.reason, reject.image) for reject in lost] == [
        ("p-1", Reason.UNREADABLE, True),
        ("p-2", Reason.MISSING_FILE, True),
        ("p-3", Reason.MISSING_FILE, True),
    ]
    assert hashlib.sha256(data[offset : offset + 10]).hexdigest() not in lost[0].detail
    assert "samples.parquet says" in lost[0].detail


def test_a_picture_without_a_row_in_images_is_a_reject(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b", [make_sample(f"p-{n}", present("cat", make_mask())) for n in range(2)])
    rewrite(folder, "images", tables.IMAGES, key=["p-0", "other"])
    (lost,) = rejects_in(source_at(folder))
    assert (lost.reason, lost.image, lost.where) == (Reason.WRONG_FIELD, True, "shards/train-000000.tar: p-1")
    assert "images.parquet" in lost.detail


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Mask(size=(48, 64), counts="\x7f"), Reason.MASK_CORRUPT),
        (Mask(size=(48, 63), counts=make_mask().counts), Reason.MASK_SIZE),
        (make_mask(48, 64), Reason.MASK_SIZE),
        (make_mask(right=8), Reason.MASK_EMPTY),
    ],
)
def test_a_broken_mask_leaves_its_phrase_open_or_partial(tmp_path: Path, broken: Mask, reason: Reason) -> None:
    alone = make_sample("p-0", present("dog", broken))
    beside = make_sample("p-1", present("dog", make_mask(), broken))
    source = source_at(make_build(tmp_path / "b", [alone, beside]))
    found = pictures_in(source)
    (dog,) = found["p-0"].labels
    assert (dog.phrase, dog.state, dog.masks) == ("dog", LabelState.OPEN, ())
    (dog,) = found["p-1"].labels
    assert (dog.state, dog.mask_state, dog.masks) == (LabelState.PRESENT, MaskState.PARTIAL, (make_mask(),))
    assert [(reject.reason, reject.phrase, reject.image) for reject in rejects_in(source)] == [
        (reason, "dog", False),
        (reason, "dog", False),
    ]


def test_a_label_of_an_unknown_state_leaves_its_phrase_open(tmp_path: Path) -> None:
    folder = make_build(tmp_path / "b", [make_sample("p-0", present("dog", make_mask()))])
    rewrite(folder, "labels", tables.LABELS, state=["perhaps"])
    (lost,) = rejects_in(source_at(folder))
    assert (lost.reason, lost.phrase) == (Reason.WRONG_FIELD, "dog")
    assert "perhaps" in lost.detail
    (dog,) = pictures_in(source_at(folder))["p-0"].labels
    assert dog.state is LabelState.OPEN


def test_what_the_sources_of_a_build_call_the_same_comes_along(tmp_path: Path) -> None:
    world = make_coco(20)
    world.categories[0]["synonyms"] = ["person", "human being"]
    (tmp_path / "world").mkdir()
    world.write(tmp_path / "world" / "coco")
    table = {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"}
    recipe = write_recipe(tmp_path / "world", mix={"coco": 1.0}, sources={"coco": table}, splits={"train": 1.0})
    build_world(recipe, tmp_path / "b")
    (same,) = source_at(tmp_path / "b").prepare("").synonyms
    assert set(same) == {"person", "human being"}


@pytest.mark.parametrize("url", ["../secret.tar", "/etc/secret.tar", "shards/../../secret.tar"])
def test_a_manifest_whose_shard_leaves_the_build_is_refused(tmp_path: Path, url: str) -> None:
    folder = make_build(tmp_path / "b")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("shards/train-000000.tar", url))
    with pytest.raises(ManifestError, match=r"secret\.tar.*would leave its folder"):
        source_at(folder).prepare("")
