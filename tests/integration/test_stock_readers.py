"""A build opens in the tools that people have: wids, webdataset, datasets, duckdb and mlcroissant; nothing is lost."""

import io
import json
import logging
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.manifest import read_manifest
from manifests.recipe import SPLITS
from manifests.sample import Mask
from shards.masks import area, union
from shards.masks import mask_to_array as to_array
from tests.worlds import build_world, write_world

WEBDATASET = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # it leaves shards to the collector
RDFLIB = pytest.mark.filterwarnings("ignore:ConjunctiveGraph is deprecated:DeprecationWarning")  # rdflib's own call
PANDAS = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.reset_index")  # mlcroissant calls it so


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A sample as its bytes lie in the shard."""

    key: str
    jpeg: bytes
    text: bytes

    @property
    def json(self) -> dict[str, Any]:
        """What the JSON says."""
        found: dict[str, Any] = json.loads(self.text)
        return found


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small build that was moved after it was written, without its `work/`."""
    world = tmp_path_factory.mktemp("world")
    build_world(write_world(world), world / "build")
    shutil.rmtree(world / "build" / "work")
    return Path(shutil.move(world / "build", tmp_path_factory.mktemp("elsewhere") / "build"))


@pytest.fixture(scope="module")
def stored(build: Path) -> dict[str, list[Stored]]:
    """Every sample by split in written order, read with `tarfile`."""
    return {split: list(read_split(build, split)) for split in SPLITS}


def shard_paths(build: Path, split: str) -> list[str]:
    return [str(build / shard.url) for shard in read_manifest(str(build)).splits[split]]


def read_split(build: Path, split: str) -> Iterator[Stored]:
    for path in shard_paths(build, split):
        with tarfile.open(path) as tar:
            data = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        keys = [name.removesuffix(".json") for name in data if name.endswith(".json")]
        yield from (Stored(key=key, jpeg=data[f"{key}.jpg"], text=data[f"{key}.json"]) for key in keys)


@pytest.mark.parametrize("split", SPLITS)
def test_wids_reads_every_sample_of_an_index(
    build: Path, stored: dict[str, list[Stored]], split: str, tmp_path: Path
) -> None:
    import wids

    # its default transformation is a string, which it calls deprecated itself
    dataset = wids.ShardListDataset(str(build / f"{split}.json"), cache_dir=str(tmp_path), transformations=[])

    assert len(dataset) == len(stored[split])
    for number, expected in enumerate(stored[split]):
        found = dataset[number]
        assert found["__key__"] == expected.key
        assert found[".jpg"].read() == expected.jpeg
        assert found[".json"].read() == expected.text


@WEBDATASET
@pytest.mark.parametrize("split", SPLITS)
def test_webdataset_decodes_every_sample(build: Path, stored: dict[str, list[Stored]], split: str) -> None:
    import webdataset

    pipeline = webdataset.WebDataset(shard_paths(build, split), shardshuffle=False).decode("rgb8")
    found = list(pipeline)

    assert [sample["__key__"] for sample in found] == [sample.key for sample in stored[split]]
    for sample, expected in zip(found, stored[split], strict=True):
        assert sample["json"] == expected.json
        assert np.array_equal(sample["jpg"], np.asarray(Image.open(io.BytesIO(expected.jpeg)).convert("RGB")))


@WEBDATASET
def test_masks_that_webdataset_hands_out_fit_the_picture(build: Path) -> None:
    import webdataset

    num_masks = 0
    for sample in webdataset.WebDataset(shard_paths(build, "train"), shardshuffle=False).decode("rgb8"):
        for prompt in sample["json"]["prompts"]:
            masks = [Mask(size=tuple(mask["size"]), counts=mask["counts"]) for mask in prompt["masks"]]
            num_masks += len(masks)
            assert all(to_array(mask).shape == sample["jpg"].shape[:2] for mask in masks)
            assert prompt["present"] == bool(masks)
            assert not masks or area(union(masks)) > 0
    assert num_masks > 50


@pytest.fixture
def hf(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - a module without types
    """`datasets`, kept off the network, where it would count its users."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def test_datasets_reads_the_table_of_samples(hf: Any, build: Path, tmp_path: Path) -> None:  # noqa: ANN401
    table = hf.load_dataset(
        "parquet", data_files=str(build / "samples.parquet"), split="train", cache_dir=str(tmp_path)
    )

    expected = pq.read_table(build / "samples.parquet")
    assert table.column_names == expected.column_names
    assert table.data.table.to_pylist() == expected.to_pylist()
    assert not any(column.null_count for column in table.data.table.columns)


def same_as_stored(rows: list[dict[str, Any]], expected: list[Stored]) -> None:
    """Every row, every field, and no null anywhere."""
    assert [row["__key__"] for row in rows] == [sample.key for sample in expected]
    assert [row["jpg"]["bytes"] for row in rows] == [sample.jpeg for sample in expected]
    assert [row["json"] for row in rows] == [sample.json for sample in expected]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_datasets_infers_the_type_of_every_field_from_the_first_samples(
    hf: Any,  # noqa: ANN401
    build: Path,
    stored: dict[str, list[Stored]],
    split: str,
    streaming: bool,
    tmp_path: Path,
) -> None:
    dataset = hf.load_dataset(
        "webdataset", data_files=shard_paths(build, split), split="train", cache_dir=str(tmp_path), streaming=streaming
    )

    same_as_stored(list(dataset.cast_column("jpg", hf.Image(decode=False))), stored[split])


def features(hf: Any) -> Any:  # noqa: ANN401
    """The types of a sample, said instead of inferred."""
    text, whole, real, truth = (hf.Value(name) for name in ("string", "int64", "float64", "bool"))
    origin = {"uri": text, "offset": whole, "num_bytes": whole, "sha256": text, "licence": text, "encoded": truth}
    prompt = {
        "phrase": text,
        "present": truth,
        "mask_state": text,
        "masks": hf.List({"size": hf.List(whole), "counts": text}),
        "kind": text,
        "evidence": text,
        "score": real,
        "standard_score": real,
        "rank": whole,
        "positive_key": text,
        "positive_score": real,
        "miner": text,
    }
    sample = {"schema": whole, "key": text, "source": text, "width": whole, "height": whole, "origin": origin}
    sample["prompts"] = hf.List(prompt)
    return hf.Features({"__key__": text, "__url__": text, "jpg": hf.Image(decode=False), "json": sample})


def test_datasets_reads_a_build_with_types_that_are_said(
    hf: Any,  # noqa: ANN401
    build: Path,
    stored: dict[str, list[Stored]],
    tmp_path: Path,
) -> None:
    dataset = hf.load_dataset(
        "webdataset",
        data_files=shard_paths(build, "train"),
        split="train",
        cache_dir=str(tmp_path),
        features=features(hf),
    )

    assert dataset.features == features(hf)
    same_as_stored(list(dataset), stored["train"])


def test_datasets_decodes_the_pictures(
    hf: Any,  # noqa: ANN401
    build: Path,
    stored: dict[str, list[Stored]],
    tmp_path: Path,
) -> None:
    dataset = hf.load_dataset(
        "webdataset", data_files=shard_paths(build, "val"), split="train", cache_dir=str(tmp_path)
    )

    assert [row["jpg"].size for row in dataset] == [(s.json["width"], s.json["height"]) for s in stored["val"]]


def test_duckdb_asks_the_tables_in_sql(build: Path, stored: dict[str, list[Stored]]) -> None:
    import duckdb

    samples, images = str(build / "samples.parquet"), str(build / "images.parquet")
    with duckdb.connect() as database:
        kinds = database.sql(f"SELECT split, kind, count(*) FROM '{samples}' GROUP BY ALL").fetchall()  # noqa: S608
        absent = database.sql(
            f"SELECT count(*) FROM '{samples}' s JOIN '{images}' i ON s.image_key = i.key"  # noqa: S608
            " WHERE NOT present AND list_contains(i.exhaustive_over, 'coco')"
        ).fetchall()
        offset, num_bytes, shard = database.sql(
            f"SELECT \"offset\", num_bytes, shard FROM '{samples}' WHERE key = '{stored['test'][-1].key}' LIMIT 1"  # noqa: S608
        ).fetchall()[0]

    expected = Counter((split, p["kind"]) for split in SPLITS for s in stored[split] for p in s.json["prompts"])
    assert {(split, kind): num for split, kind, num in kinds} == dict(expected)
    generated = sum(num for (_, kind), num in expected.items() if kind in ("blank", "noise"))
    present = sum(num for (_, kind), num in expected.items() if not kind)
    assert absent == [(expected.total() - present - generated,)]
    with (build / shard).open("rb") as file:
        file.seek(offset)
        assert file.read(num_bytes) == stored["test"][-1].jpeg


@RDFLIB
@PANDAS
def test_mlcroissant_validates_and_reads_every_table(build: Path, caplog: pytest.LogCaptureFixture) -> None:
    import mlcroissant

    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(jsonld=str(build / "croissant.json"))

    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert [issue for issue in issues.warnings if "datePublished" not in issue] == []  # a build holds no clock
    manifest = read_manifest(str(build))
    assert {record_set.id for record_set in dataset.metadata.record_sets} == {
        name.removesuffix(".parquet") for name in manifest.tables
    }
    for record_set in dataset.metadata.record_sets:
        rows = pq.read_table(build / f"{record_set.id}.parquet")
        assert [plain(record) for record in dataset.records(record_set.id)] == rows.select(
            [field.name for field in record_set.fields]
        ).to_pylist()


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """A record of mlcroissant under its columns' names, its bytes as the text that they are."""
    return {name.partition("/")[2]: as_text(value) for name, value in record.items()}


def as_text(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def test_croissant_names_every_file_with_its_size_and_digest(build: Path) -> None:
    found = json.loads((build / "croissant.json").read_bytes())
    manifest = read_manifest(str(build))

    listed = {file["contentUrl"]: (file["contentSize"], file["sha256"]) for file in found["distribution"]}
    shards = {s.url: (f"{s.filesize} B", s.sha256) for shards in manifest.splits.values() for s in shards}
    tables = {name: (f"{os.stat(build / name).st_size} B", sha) for name, sha in manifest.tables.items()}
    assert listed == {**shards, **tables}
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert found["license"] == ["CC BY 4.0", "SA-1B research"]


@RDFLIB
@PANDAS
def test_mlcroissant_refuses_a_table_that_was_changed(build: Path, tmp_path: Path) -> None:
    import mlcroissant

    copy = Path(shutil.copytree(build, tmp_path / "build"))
    with (copy / "vocabularies.parquet").open("ab") as file:
        file.write(b"x")
    dataset = mlcroissant.Dataset(jsonld=str(copy / "croissant.json"))

    with pytest.raises(Exception, match="vocabularies") as refused:
        list(dataset.records("vocabularies"))
    assert "is not identical with the reference in the Croissant JSON-LD" in str(refused.value.__cause__)
