from pathlib import Path

import fsspec
import pytest

from manifests.errors import ManifestError
from manifests.stage import progress_bar
from manifests.tables import SAMPLES, read_table
from student.predict import predict_split
from tests.factories import make_build
from tests.predictors import Brightness, run


def test_a_build_in_a_bucket_gives_the_same_bytes(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    bucket = fsspec.filesystem("memory")
    bucket.put(f"{build}/", "/predicted/", recursive=True)
    run(Brightness(), str(build), tmp_path / "disk.parquet", batch_size=2)
    run(Brightness(), "memory://predicted", tmp_path / "bucket.parquet", batch_size=2)
    bucket.rm("/predicted", recursive=True)
    assert (tmp_path / "bucket.parquet").read_bytes() == (tmp_path / "disk.parquet").read_bytes()


def test_a_table_goes_to_a_bucket(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    run(Brightness(), str(build), tmp_path / "p.parquet")
    with progress_bar(quiet=True) as progress:
        predict_split(Brightness(), str(build), "train", "memory://tables/p.parquet", progress=progress)
    bucket = fsspec.filesystem("memory")
    assert bucket.cat_file("/tables/p.parquet") == (tmp_path / "p.parquet").read_bytes()
    assert sorted(path.rpartition("/")[2] for path in bucket.find("/tables")) == ["p.images.parquet", "p.parquet"]
    bucket.rm("/tables", recursive=True)


def test_a_picture_that_was_damaged_is_named(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build")
    row = read_table(f"{build}/samples.parquet", SAMPLES).to_pylist()[0]
    shard = build / row["shard"]
    data = bytearray(shard.read_bytes())
    data[row["offset"] : row["offset"] + row["num_bytes"]] = bytes(row["num_bytes"])
    shard.write_bytes(data)
    with pytest.raises(ManifestError, match=rf"at byte {row['offset']} \({row['key']}\): .*copy the shard again"):
        run(Brightness(), str(build), tmp_path / "p.parquet")
