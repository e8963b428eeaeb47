"""What a command may not write over: the tables that a finished build's manifest names, wherever the build lies."""

from pathlib import Path

import pytest

from manifests.errors import BuildError, PredictionError
from miners import hard_negatives
from shards.publish import TABLES, is_own_table
from student import predict


def test_the_tables_of_a_build_are_its_own_by_whatever_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (tmp_path / "link").symlink_to(build)
    for table in TABLES:
        assert is_own_table(str(build), f"{build}/{table}.parquet")
    assert is_own_table(str(build), f"{tmp_path}/link/negatives.parquet")
    monkeypatch.chdir(build)
    assert is_own_table(str(build), "negatives.parquet")
    assert not is_own_table(str(build), f"{build}/mined.parquet")
    assert not is_own_table(str(build), f"{tmp_path}/negatives.parquet")


def test_those_of_a_build_in_a_bucket_are_its_own_too() -> None:
    assert is_own_table("s3://bucket/build", "s3://bucket/build/negatives.parquet")
    assert is_own_table("s3://bucket/build/", "s3://bucket/build/samples.parquet")
    assert not is_own_table("s3://bucket/build", "s3://bucket/negatives.parquet")
    assert not is_own_table("s3://bucket/build", "/data/build/negatives.parquet")


def test_miner_and_predictor_refuse_to_write_over_them(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"negatives\.parquet: is the finished build's own table.*another --out"):
        hard_negatives._require_own_place("s3://bucket/build", "s3://bucket/build/negatives.parquet")
    with pytest.raises(PredictionError, match=r"samples\.parquet: is the finished build's own table"):
        predict._require_own_place(str(tmp_path), f"{tmp_path}/samples.parquet")
    predict._require_own_place(str(tmp_path), f"{tmp_path}/predictions.parquet")
