from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from manifests import tables
from manifests.errors import TableError
from manifests.sample import Mask
from shards.batch import Batch
from shards.reader import LoaderOptions, open_pass
from student.soft_targets import SoftTargets, read_soft_targets
from tests.factories import absent, make_build, make_mask, make_sample, present

NO_MASK = Mask(size=(48, 64), counts="")
Row = tuple[str, str, float, Mask]


def write_rows(path: Path, rows: list[Row]) -> str:
    with tables.table_writer(str(path), tables.PREDICTIONS) as writer:
        for key, phrase, presence, mask in rows:
            writer.add(key, phrase, presence, {"size": list(mask.size), "counts": mask.counts})
    return str(path)


def read(tmp_path: Path, rows: list[Row]) -> tuple[SoftTargets, Batch]:
    """The table of `rows`, and a batch of a picture and its repeat, each with a cat and no dog."""
    prompts = (present("Cat", make_mask()), absent("dog"))
    made = [make_sample("photos-1", *prompts), make_sample("photos-1-r1", *prompts, image_key="photos-1")]
    build = make_build(tmp_path / "build", made)
    soft = read_soft_targets(write_rows(tmp_path / "p.parquet", rows), {"photos-1-r1": "photos-1"})
    options = LoaderOptions(mask_size=16)
    return soft, next(iter(open_pass(build, split="train", batch_size=2, size=64, options=options)))


def test_presence_is_joined_by_picture_and_phrase_for_repeats_too(tmp_path: Path) -> None:
    soft, batch = read(tmp_path, [("photos-1", "cat", 0.75, NO_MASK), ("photos-2", "dog", 0.5, NO_MASK)])
    presence = soft.presence(batch)
    assert presence[:, 0].tolist() == [0.75, 0.75]
    assert presence[:, 1].isnan().all()


def test_masks_come_in_the_square_of_the_picture_where_both_say_present(tmp_path: Path) -> None:
    rows = [("photos-1", "cat", 0.9, make_mask()), ("photos-1", "dog", 0.9, make_mask())]
    soft, batch = read(tmp_path, rows)
    masks, has = soft.masks(batch, beside_whole=True)
    assert has.tolist() == [[True, False], [True, False]]
    assert torch.equal(masks[:, 0], batch.masks[:, 0])
    assert not soft.masks(batch, beside_whole=False)[1].any()  # the cat's own mask is whole
    doubtful, batch = read(tmp_path, [("photos-1", "cat", 0.4, make_mask())])
    assert not doubtful.masks(batch, beside_whole=True)[1].any()


def test_masks_of_what_the_teacher_calls_absent_are_not_held(tmp_path: Path) -> None:
    rows = [(f"photos-{number}", "cat", 0.4 + 0.1 * (number % 2), make_mask()) for number in range(40)]
    soft = read_soft_targets(write_rows(tmp_path / "p.parquet", rows), {})
    assert soft.mask_n.null_count == 20
    counts = pc.struct_field(soft.mask_n.combine_chunks(), "counts")
    assert counts.nbytes < 30 * len(make_mask().counts) + 8 * 40


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    soft, batch = read(tmp_path, [("photos-1", "cat", 0.9, make_mask(32, 24, right=20, bottom=20))])
    with pytest.raises(TableError, match=r"photos-1 has a mask of 24 x 32, its picture is 48 x 64 .* Predict again"):
        soft.masks(batch, beside_whole=True)


def test_a_broken_mask_is_refused(tmp_path: Path) -> None:
    soft, batch = read(tmp_path, [("photos-1", "cat", 0.9, Mask(size=(48, 64), counts="nonsense"))])
    with pytest.raises(TableError, match="photos-1: mask_corrupt"):
        soft.masks(batch, beside_whole=True)


@pytest.mark.parametrize("presence", [1.5, -0.1, float("nan")])
def test_a_presence_that_is_no_probability_is_refused(tmp_path: Path, presence: float) -> None:
    uri = write_rows(tmp_path / "p.parquet", [("photos-1", "cat", presence, NO_MASK)])
    with pytest.raises(TableError, match=r"row 0 \(photos-1, cat\) has presence .*; expected 0 to 1"):
        read_soft_targets(uri, {})


def test_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no Parquet file there; expected a predictions table"):
        read_soft_targets(str(tmp_path), {})
