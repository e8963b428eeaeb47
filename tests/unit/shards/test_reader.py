"""The reader: batches against the samples they were made of, buckets and their cache, passes, features, refusals."""

import dataclasses
import gc
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
from numpy.typing import NDArray

from manifests import files
from manifests.errors import AbsentiaError, ManifestError, RecipeError, StorageError, TableError
from manifests.manifest import MANIFEST_NAME, encode_manifest, read_manifest
from manifests.sample import Evidence, MaskState, NegativeKind
from shards.blocks import CachedBlocks, LocalShards, SampleIndex, read_index
from shards.images import decode_letterboxed, letterbox_geometry
from shards.masks import resize_mask_groups
from shards.order import BLOCK_SAMPLES
from shards.reader import (
    KIND_CODES,
    MASK_STATE_CODES,
    NO_CODE,
    Batch,
    LoaderOptions,
    augmentation_rng,
    open_loader,
    open_pass,
    webdataset_urls,
)
from tests.factories import Made, absent, make_build, make_mask, make_sample, make_samples, present

SIZE = 32


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return make_build(tmp_path / "build")


def of_split(split: str) -> list[Made]:
    return [made for made in make_samples() if made.split == split]


def many(num_samples: int, *, name: str = "many") -> list[Made]:
    mask = make_mask(16, 12, left=2, top=2, right=9, bottom=9)
    return [
        make_sample(f"{name}-{number:04d}", present("cat", mask), absent("dog"), width=16, height=12)
        for number in range(num_samples)
    ]


def in_memory(build: Path, name: str) -> str:
    """The URL of a copy of `build` in a bucket of this process."""
    url = f"memory://{name}"
    for path in sorted(build.rglob("*")):
        if path.is_file():
            files.write_bytes(f"{url}/{path.relative_to(build).as_posix()}", path.read_bytes())
    return url


def keys(batches: Sequence[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def test_a_pass_gives_every_sample_as_it_was_written(build: Path) -> None:
    made = of_split("train")
    batches = list(open_pass(build, split="train", batch_size=4, size=SIZE))
    rows = [(batch, row) for batch in batches for row in range(len(batch.keys))]
    assert keys(batches) == [one.sample.key for one in made]
    for (batch, row), one in zip(rows, made, strict=True):
        sample = one.sample
        assert batch.sizes[row].tolist() == [sample.height, sample.width]
        picture = decode_letterboxed(one.jpeg, SIZE).transpose(2, 0, 1)
        assert np.array_equal(batch.images[row].numpy(), picture)
        assert batch.phrases[row] == [prompt.phrase for prompt in sample.prompts]
        assert batch.valid[row].tolist() == [place < len(sample.prompts) for place in range(batch.valid.shape[1])]
        letterbox = letterbox_geometry(sample.width, sample.height, SIZE)
        for place, prompt in enumerate(sample.prompts):
            assert bool(batch.present[row, place]) == prompt.present
            assert int(batch.mask_state[row, place]) == MASK_STATE_CODES[prompt.mask_state]
            assert int(batch.kinds[row, place]) == (NO_CODE if prompt.kind is None else KIND_CODES[prompt.kind])
            expected = resize_mask_groups([prompt.masks], letterbox, SIZE)[0]
            assert np.array_equal(batch.masks[row, place].numpy(), expected)
        assert not batch.masks[row, len(sample.prompts) :].any()


def test_tensors_have_the_promised_shapes_and_types(build: Path) -> None:
    options = LoaderOptions(mask_size=16)
    batch = next(iter(open_loader(build, batch_size=9, size=SIZE, options=options)))
    assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (9, 3, SIZE, SIZE))
    assert (batch.sizes.dtype, tuple(batch.sizes.shape)) == (torch.int64, (9, 2))
    assert (batch.masks.dtype, tuple(batch.masks.shape)) == (torch.bool, (9, 4, 16, 16))
    assert {batch.present.dtype, batch.valid.dtype} == {torch.bool}
    assert {batch.mask_state.dtype, batch.kinds.dtype} == {torch.int8}
    assert batch.epochs.dtype == torch.int64
    assert batch.features is None


def test_codes_never_change() -> None:
    assert MASK_STATE_CODES == {MaskState.COMPLETE: 0, MaskState.PARTIAL: 1, MaskState.NONE: 2}
    assert list(KIND_CODES.items()) == [
        (NegativeKind.BLANK, 0),
        (NegativeKind.NOISE, 1),
        (NegativeKind.RANDOM, 2),
        (NegativeKind.POPULAR, 3),
        (NegativeKind.CO_OCCURRING, 4),
        (NegativeKind.NEAR_TEXT, 5),
        (NegativeKind.NEAR_IMAGE, 6),
        (NegativeKind.FALSE_ALARM, 7),
    ]


def test_moving_a_batch_moves_every_tensor(build: Path) -> None:
    table = build / "features.parquet"
    write_features(table, [made.image_key for made in make_samples()])
    options = LoaderOptions(features=[str(table)])
    batch = next(iter(open_loader(build, batch_size=2, size=8, options=options)))
    moved = batch.to("meta")
    for field in dataclasses.fields(Batch):
        value = getattr(moved, field.name)
        if isinstance(value, torch.Tensor):
            assert value.device.type == "meta", field.name
        else:
            assert value == getattr(batch, field.name)


def test_a_short_end_of_a_pass_is_padded_to_the_ranks_alone(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", many(13), shard_samples=5)
    ranks = [list(open_pass(build, split="train", batch_size=8, size=8, rank=r, world_size=4)) for r in range(4)]
    assert [[len(batch.keys) for batch in batches] for batches in ranks] == [[2, 2]] * 4
    joined = [key for batches in zip(*ranks, strict=True) for key in keys(batches)]
    assert joined == [made.sample.key for made in many(13)] + [""] * 3
    assert ranks[0][-1].position == ranks[3][-1].position == 13
    padded = ranks[3][-1]
    assert not padded.valid.any()
    assert not padded.images.any()
    assert padded.phrases == [[], []]
    alone = list(open_pass(build, split="train", batch_size=8, size=8))
    assert [len(batch.keys) for batch in alone] == [8, 5]


def test_a_pass_over_several_builds_reads_one_after_the_other(tmp_path: Path) -> None:
    one = make_build(tmp_path / "one", many(3, name="one"))
    two = make_build(tmp_path / "two", many(4, name="two"))
    read = keys(list(open_pass([one, two], split="train", batch_size=5, size=8)))
    assert read == [made.sample.key for made in [*many(3, name="one"), *many(4, name="two")]]


def test_training_stops_with_the_batch_that_reaches_num_samples(build: Path) -> None:
    loader = open_loader(build, batch_size=4, size=8, num_samples=10)
    assert [batch.position for batch in loader] == [4, 8, 12]
    assert [batch.position for batch in open_loader(build, batch_size=4, size=8, num_samples=10, position=8)] == [12]
    assert list(open_loader(build, batch_size=4, size=8, num_samples=10, position=12)) == []
    assert (loader.num_batches, loader.epoch_samples) == (3, 9)


def test_a_resumed_run_may_have_another_batch_size(build: Path) -> None:
    whole = keys(list(open_loader(build, batch_size=4, size=8, num_samples=36)))
    first = list(open_loader(build, batch_size=4, size=8, num_samples=12))
    second = list(open_loader(build, batch_size=3, size=8, num_samples=36, position=first[-1].position))
    assert keys(first) + keys(second) == whole


def test_epochs_are_counted_per_sample(build: Path) -> None:
    batches = list(open_loader(build, batch_size=6, size=8, num_samples=27))
    epochs = torch.cat([batch.epochs for batch in batches]).tolist()
    assert epochs[:27] == [0] * 9 + [1] * 9 + [2] * 9


def test_absences_of_other_evidence_are_left_out_but_generated_ones_stay(build: Path) -> None:
    options = LoaderOptions(evidence=[Evidence.VERIFIED])
    batch = next(iter(open_pass(build, split="train", batch_size=9, size=8, options=options)))
    kinds = set(batch.kinds[batch.valid].tolist())
    assert kinds == {NO_CODE, KIND_CODES[NegativeKind.BLANK]}
    assert int(batch.present[batch.valid].sum()) == 2 * 7 + 1


def write_features(path: Path, image_keys: Sequence[str], *, width: int = 5) -> dict[str, NDArray[np.float16]]:
    rows = {key: np.random.default_rng(list(key.encode())).random(width).astype(np.float16) for key in image_keys}
    values = pa.array(np.concatenate(list(rows.values())))
    lists = pa.FixedSizeListArray.from_arrays(values, width)
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"key": pa.array(list(rows)), "embedding": lists}), path)
    return rows


def test_features_are_joined_by_image_key_also_for_repeats(build: Path, tmp_path: Path) -> None:
    made = make_samples()
    folder = tmp_path / "features"
    rows = write_features(folder / "a.parquet", sorted({one.image_key for one in made})[:4])
    rows |= write_features(folder / "b.parquet", sorted({one.image_key for one in made})[4:])
    options = LoaderOptions(features=[str(folder)])
    batch = next(iter(open_pass(build, split="train", batch_size=9, size=8, options=options)))
    assert batch.features is not None
    for row, one in enumerate(of_split("train")):
        assert np.array_equal(batch.features[row].numpy(), rows[one.image_key])
    assert any(key.endswith("-r1") for key in batch.keys)


def test_features_that_lack_an_image_are_refused_by_key(build: Path, tmp_path: Path) -> None:
    image_keys = [one.image_key for one in make_samples()]
    write_features(tmp_path / "some.parquet", image_keys[1:3])
    options = LoaderOptions(features=[str(tmp_path / "some.parquet")])
    with pytest.raises(TableError, match=rf"no row for 7 of 9 samples .*{image_keys[0]} first; embed that build"):
        open_loader(build, batch_size=3, options=options)


def test_tables_that_hold_no_features_are_refused(build: Path, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no Parquet file there"):
        open_loader(build, batch_size=3, options=LoaderOptions(features=[str(tmp_path / "nowhere")]))
    with pytest.raises(TableError, match="expected 'key' and one column of lists of numbers"):
        open_loader(build, batch_size=3, options=LoaderOptions(features=[str(build / "samples.parquet")]))
    (tmp_path / "broken.parquet").write_bytes(b"no")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        open_loader(build, batch_size=3, options=LoaderOptions(features=[str(tmp_path / "broken.parquet")]))
    write_features(tmp_path / "mixed" / "a.parquet", ["x"], width=3)
    write_features(tmp_path / "mixed" / "b.parquet", ["y"], width=4)
    with pytest.raises(TableError, match=r"rows of \[3, 4\] numbers, expected one width"):
        open_loader(build, batch_size=3, options=LoaderOptions(features=[str(tmp_path / "mixed")]))
    pq.write_table(pa.table({"key": ["x", "y"], "row": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(TableError, match="expected one length above 0"):
        open_loader(build, batch_size=3, options=LoaderOptions(features=[str(tmp_path / "ragged.parquet")]))


def test_a_bucket_gives_the_same_batches_as_a_disk(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", many(150), shard_samples=40)
    url = in_memory(build, "same")
    local = list(open_loader(build, batch_size=20, size=8, num_samples=300))
    remote = list(open_loader(url, batch_size=20, size=8, num_samples=300))
    assert keys(remote) == keys(local)
    assert all(torch.equal(a.images, b.images) for a, b in zip(remote, local, strict=True))
    forked = list(open_loader(url, batch_size=20, size=8, num_samples=300, num_workers=2))
    assert keys(forked) == keys(local)


def test_any_sample_of_a_bucket_has_the_bytes_that_the_disk_has(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", many(130), shard_samples=50)
    on_disk = LocalShards(read_index(str(build), "train"))
    cached = CachedBlocks(read_index(in_memory(build, "bytes"), "train"), str(tmp_path), 1 << 30)
    for sample in range(130):
        assert cached.read(sample) == on_disk.read(sample)


class CountedRanges:
    """Counts what is fetched."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, delay_s: float = 0.0) -> None:
        self.ranges: list[tuple[str, int, int]] = []
        self._delay_s = delay_s
        self._read = files.read_range
        monkeypatch.setattr(files, "read_range", self)

    def __call__(self, uri: str, offset: int, num_bytes: int) -> bytes:
        self.ranges.append((uri, offset, num_bytes))
        time.sleep(self._delay_s)
        return self._read(uri, offset, num_bytes)


def test_a_block_is_one_range_per_shard_and_fetched_once_by_all_that_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = make_build(tmp_path / "build", many(3 * BLOCK_SAMPLES), shard_samples=100)
    url = in_memory(build, "once")
    counted = CountedRanges(monkeypatch)
    options = LoaderOptions(cache_folder=str(tmp_path / "cache"))
    ranks = [
        open_loader(url, batch_size=16, size=8, num_samples=2 * 192, rank=rank, world_size=4, options=options)
        for rank in range(4)
    ]
    for _ in zip(*ranks, strict=True):
        pass
    assert len(counted.ranges) == len(set(counted.ranges)) == 4  # the second block lies in two shards
    assert sum(num_bytes for _, _, num_bytes in counted.ranges) < sum(
        path.stat().st_size for path in (build / "shards").iterdir()
    )


def test_a_full_cache_deletes_its_own_blocks_and_nothing_else(tmp_path: Path) -> None:
    index = read_index(in_memory(make_build(tmp_path / "build", many(3 * BLOCK_SAMPLES)), "full"), "train")
    folder = tmp_path / "cache"
    (folder / "mine").mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    cached = CachedBlocks(index, str(folder), 1)
    for sample in (0, BLOCK_SAMPLES, 2 * BLOCK_SAMPLES):
        cached.read(sample)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert (folder / "mine").is_dir()
    assert len(list(folder.glob("*.block"))) == 1


def test_features_that_float16_cannot_hold_are_refused_by_key(build: Path, tmp_path: Path) -> None:
    keys = sorted({made.image_key for made in make_samples()})
    for value in (float("nan"), 1e6):
        values = pa.array(np.array([0.5] * (2 * len(keys) - 1) + [value], np.float32))
        table = pa.table({"key": pa.array(keys), "embedding": pa.FixedSizeListArray.from_arrays(values, 2)})
        pq.write_table(table, tmp_path / "features.parquet")
        with pytest.raises(TableError, match=f"row of key '{keys[-1]}' holds a number that float16 cannot"):
            open_loader(build, batch_size=3, options=LoaderOptions(features=[str(tmp_path / "features.parquet")]))


def test_readers_that_miss_the_same_block_at_once_fetch_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = read_index(in_memory(make_build(tmp_path / "build", many(20)), "at_once"), "train")
    counted = CountedRanges(monkeypatch, delay_s=0.1)
    barrier = threading.Barrier(4)

    def read(sample: int) -> bytes:
        cached = CachedBlocks(index, str(tmp_path), 1 << 30)
        barrier.wait()
        return cached.read(sample)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    assert found == [LocalShards(read_index(str(tmp_path / "build"), "train")).read(sample) for sample in range(4)]
    assert len(counted.ranges) == len(set(counted.ranges))


def test_blocks_read_longest_ago_make_room(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", many(4 * BLOCK_SAMPLES), shard_samples=1000)
    index = read_index(in_memory(build, "room"), "train")
    block_bytes = max(e.stop - e.start for block in range(4) for e in index.block_extents(block))
    cache = tmp_path / "cache"
    cache.mkdir()
    cached = CachedBlocks(index, str(cache), 2 * block_bytes)
    for sample in (0, 64, 0, 128):
        cached.read(sample)
    kept = {path.name.split("-")[1] for path in cache.glob("*.block")}
    assert kept == {"0.block", "2.block"}
    tiny = CachedBlocks(index, str(cache), 1)
    assert tiny.read(200) == LocalShards(read_index(str(build), "train")).read(200)
    assert len(list(cache.glob("*.block"))) == 1


def test_a_cut_block_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    build = make_build(tmp_path / "build", many(10))
    cached = CachedBlocks(read_index(in_memory(build, "cut"), "train"), str(tmp_path), 1 << 30)
    whole = cached.read(3)
    (block,) = tmp_path.glob("*.block")
    block.write_bytes(block.read_bytes()[:100])
    assert cached.read(3) == whole


def test_the_folder_of_blocks_goes_with_its_loader(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    loader = open_loader(in_memory(build, "goes"), batch_size=3, size=8, num_samples=3)
    list(loader)
    (folder,) = (tmp_path / "temporary").iterdir()
    assert list(folder.glob("*.block"))
    del loader
    gc.collect()
    assert not folder.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1024])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_of_another_size_is_named_with_both_sizes(build: Path, workers: int) -> None:
    shard = build / "shards" / "train-000001.tar"
    size = shard.stat().st_size
    cut(shard)
    expected = rf"train-000001.tar: {size - 1024} bytes, expected {size} by the manifest; copy the shard again"
    with pytest.raises(ManifestError, match=expected) as caught:
        list(open_pass(build, split="train", batch_size=2, size=8, num_workers=workers))
    assert "\n" not in str(caught.value)


def test_a_bucket_s_shard_of_another_size_is_named_too(build: Path) -> None:
    cut(build / "shards" / "train-000000.tar")
    loader = open_loader(in_memory(build, "short"), batch_size=9, size=8, num_samples=9)
    with pytest.raises(ManifestError, match=r"memory://short/shards/train-000000.tar: \d+ bytes, expected \d+"):
        list(loader)


@pytest.mark.parametrize("remote", [False, True])
def test_a_missing_shard_is_named(build: Path, *, remote: bool) -> None:
    (build / "shards" / "train-000002.tar").unlink()
    folder = in_memory(build, "missing") if remote else str(build)
    with pytest.raises(ManifestError, match=r"train-000002.tar: not found, though the manifest names it"):
        list(open_loader(folder, batch_size=9, size=8, num_samples=9))


def test_a_bucket_that_breaks_off_is_an_error_of_storage(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = in_memory(build, "breaks")
    monkeypatch.setattr(files, "read_range", lambda *_: b"short")
    with pytest.raises(StorageError, match=r"5 bytes came from offset 512, expected \d+; run again"):
        list(open_loader(url, batch_size=9, size=8, num_samples=9, shuffle=False))

    def refuse(*_: object) -> bytes:
        raise OSError("connection reset")

    monkeypatch.setattr(files, "read_range", refuse)
    with pytest.raises(StorageError, match=r"train-000000.tar: cannot be read: connection reset"):
        list(open_loader(url, batch_size=9, size=8, num_samples=9, shuffle=False))


def place_of(build: Path, number: int) -> tuple[Path, int, int]:
    index: SampleIndex = read_index(str(build), "train")
    shard = Path(index.uri(int(index.shard_n[number])))
    return shard, int(index.offset_n[number]), int(index.jpeg_bytes_n[number])


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_a_picture_that_changed_is_named_with_its_key(build: Path) -> None:
    shard, offset, _ = place_of(build, 1)
    overwrite(shard, offset, b"nojpeg")
    with pytest.raises(ManifestError, match=r"at byte \d+ \(photos-train_01\): not_an_image.*copy the shard again"):
        list(open_pass(build, split="train", batch_size=3, size=8))


def test_a_sample_without_its_json_is_named(build: Path) -> None:
    shard, offset, jpeg_bytes = place_of(build, 1)
    overwrite(shard, offset + jpeg_bytes + (-jpeg_bytes) % 512, b"x" * 512)
    with pytest.raises(ManifestError, match=rf"{shard.name} at byte {offset}: no tar header after the JPEG"):
        list(open_pass(build, split="train", batch_size=3, size=8))


def rewrite_samples(build: Path, rows: pa.Table) -> None:
    pq.write_table(rows, build / "samples.parquet")


def test_a_table_of_samples_that_is_not_the_manifest_s_is_refused(build: Path) -> None:
    rows = pq.read_table(build / "samples.parquet")
    first = rows["key"][0].as_py()
    rewrite_samples(build, rows.filter(pa.array([key != first for key in rows["key"].to_pylist()])))
    with pytest.raises(ManifestError, match=r"2 samples in shards/train-000000.tar, expected 3; build it again"):
        open_loader(build, batch_size=3)
    rewrite_samples(build, rows.take(list(reversed(range(rows.num_rows)))))
    with pytest.raises(ManifestError, match=r"samples.parquet: rows are not in written order"):
        open_loader(build, batch_size=3)
    names = pa.array(["shards/other.tar"] * rows.num_rows)
    rewrite_samples(build, rows.set_column(rows.schema.get_field_index("shard"), "shard", names))
    with pytest.raises(ManifestError, match=r"names the shard shards/other.tar, which the manifest has not in train"):
        open_loader(build, batch_size=3)


def test_a_sample_that_goes_on_in_the_next_row_group_is_read_once(build: Path) -> None:
    rows = pq.read_table(build / "samples.parquet")
    pq.write_table(rows, build / "samples.parquet", row_group_size=1)
    assert keys(list(open_pass(build, split="train", batch_size=9, size=8))) == [
        made.sample.key for made in of_split("train")
    ]


def test_an_unfinished_build_and_an_absent_split_are_refused(build: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not found; expected a finished build"):
        open_loader(tmp_path / "nothing", batch_size=3)
    with pytest.raises(ManifestError, match=r"has no samples of split 'holdout'; it has train, val, test"):
        open_loader(build, batch_size=3, split="holdout")
    with pytest.raises(ManifestError, match=r"has no samples of split 'holdout'; look at its manifest.json"):
        webdataset_urls(build, "holdout")
    manifest = read_manifest(str(build))
    emptied = msgspec.structs.replace(manifest, splits={**manifest.splits, "val": []})
    (build / MANIFEST_NAME).write_bytes(encode_manifest(emptied))
    with pytest.raises(ManifestError, match=r"has no samples of split 'val'; it has train, test"):
        open_pass(build, batch_size=3)


def test_arguments_that_do_not_add_up_are_refused(build: Path, tmp_path: Path) -> None:
    refused: list[tuple[dict[str, int], str]] = [
        ({"batch_size": 6, "world_size": 4}, r"batch size 6 over 4 ranks; expected a multiple"),
        ({"batch_size": 0}, r"batch size 0 over 1 ranks"),
        ({"batch_size": 4, "world_size": 2, "rank": 2}, r"rank 2 of 2; expected 0 to 1"),
        ({"batch_size": 4, "position": -1}, r"position -1; expected the position of a batch"),
    ]
    for arguments, message in refused:
        with pytest.raises(RecipeError, match=message):
            open_loader(build, **arguments)  # type: ignore[arg-type]  # a dict of the integer ones
    with pytest.raises(RecipeError, match="no build to read"):
        open_loader([], batch_size=3)
    shutil.copytree(build, tmp_path / "copy")
    for twice in ([build, build], [build, tmp_path / "copy"]):
        with pytest.raises(RecipeError, match=r"hold the same samples; list one, with a larger weight"):
            open_loader(twice, batch_size=3)
    with pytest.raises(AbsentiaError, match="weight 0 of a build"):
        open_loader({str(build): 0}, batch_size=3)


def test_the_order_digest_tells_what_a_position_belongs_to(build: Path, tmp_path: Path) -> None:
    base = open_loader(build, batch_size=3)
    assert open_loader(build, batch_size=6, world_size=2, num_workers=1, position=9).order_digest == base.order_digest
    shutil.copytree(build, tmp_path / "moved")
    assert open_loader(tmp_path / "moved", batch_size=3).order_digest == base.order_digest
    others = [
        open_loader(build, batch_size=3, seed=1),
        open_loader(build, batch_size=3, shuffle=False),
        open_loader(build, batch_size=3, split="val"),
        open_pass(build, batch_size=3, split="train"),
    ]
    assert len({base.order_digest, *(loader.order_digest for loader in others)}) == 5


def test_reading_leaves_the_trainer_s_random_numbers_alone(build: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    list(open_loader(build, batch_size=3, size=8, num_samples=9, num_workers=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_depends_on_seed_epoch_and_key() -> None:
    draws = {augmentation_rng(*of).random() for of in [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, "")]}
    assert len(draws) == 5
    assert augmentation_rng(3, 2, "coco-1").random() == augmentation_rng(3, 2, "coco-1").random()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its shards open
def test_a_stock_webdataset_pipeline_opens_the_urls(build: Path) -> None:
    pipeline = wds.WebDataset(webdataset_urls(build, "train"), shardshuffle=False).decode("pil").to_tuple("jpg", "json")
    read = [(image.size, sample["key"]) for image, sample in pipeline]
    gc.collect()
    assert read == [((one.sample.width, one.sample.height), one.sample.key) for one in of_split("train")]


def test_the_urls_of_a_bucket_stay_urls(build: Path) -> None:
    assert webdataset_urls(in_memory(build, "urls"), "val") == [
        "memory://urls/shards/val-000000.tar",
        "memory://urls/shards/val-000001.tar",
    ]
    assert fsspec.open("memory://urls/shards/val-000000.tar").open().read(5)


def test_each_pass_over_a_loader_starts_where_it_was_opened(build: Path) -> None:
    loader = open_loader(build, batch_size=3, size=8)
    first = keys(list(itertools.islice(loader, 2)))
    assert keys(list(itertools.islice(loader, 2))) == first


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_workers_read_on_after_a_signal_to_the_whole_group(tmp_path: Path, sent: signal.Signals) -> None:
    build = make_build(tmp_path / "build", many(12))
    options = LoaderOptions(prefetch_batches=1)
    batches = iter(open_loader(build, batch_size=1, size=SIZE, num_samples=12, num_workers=1, options=options))
    positions = [next(batches).position]
    for worker in multiprocessing.active_children():
        assert worker.pid is not None
        os.kill(worker.pid, sent)
    assert positions + [batch.position for batch in batches] == list(range(1, 13))


def test_nothing_else_in_shards_imports_torch() -> None:
    names = [path.stem for path in Path("shards").glob("*.py") if path.stem not in ("reader", "batch", "__init__")]
    code = f"import sys, {', '.join(f'shards.{name}' for name in sorted(names))}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
