"""One picture followed by its key, from the member of a tar to the loss and back through a table of predictions."""

import hashlib
import io
import tarfile
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from manifests.manifest import SplitIndex, read_manifest
from manifests.sample import decode_masks, decode_sample
from manifests.tables import CATALOG, IMAGES, LABEL_RANGES, LABELS, PLAN, SAMPLES, read_table
from shards.masks import mask_to_array
from shards.reader import open_pass
from tests.worlds import build_world, write_world

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def only(table: pa.Table, **wanted: object) -> list[dict[str, object]]:
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


def part_of(folder: Path, key: str) -> Path:
    """The catalog part that holds `key`."""
    parts = [path for path in folder.glob("*.parquet") if path.name.count(".") == 1]
    return next(path for path in parts if key in read_table(str(path), CATALOG)["key"].to_pylist())


def test_a_picture_keeps_its_key_its_bytes_and_its_mask_from_tar_member_to_loss_and_back(tmp_path: Path) -> None:
    recipe = write_world(tmp_path, samples=200)
    out = tmp_path / "build"
    build_world(recipe, out)
    with tarfile.open(tmp_path / "sa1b" / "sa_000000.tar") as tar:
        member = tar.getmember("sa_7.jpg")
        file = tar.extractfile(member)
        assert file is not None
        original = file.read()
        described = tar.extractfile("sa_7.json")
        assert described is not None
        truth = msgspec.json.decode(described.read())
    key = f"sa1b-{truth['image']['image_id']}"

    # catalog: the byte range of the member
    part = part_of(out / "work" / "catalog", key)
    (row,) = only(read_table(str(part), CATALOG), key=key)
    assert (row["uri"], row["offset"], row["num_bytes"]) == ("sa_000000.tar", member.offset_data, len(original))
    assert row["sha256"] == hashlib.sha256(original).hexdigest()

    # labels: the annotation's own RLE, by byte range while building and whole in the finished table
    first = truth["annotations"][0]["segmentation"]
    ranges = only(read_table(str(part.with_suffix(".labels.parquet")), LABEL_RANGES), key=key)
    stored = part.with_suffix(".masks").read_bytes()
    spans = [(int(str(r["masks_offset"])), int(str(r["masks_num_bytes"]))) for r in ranges]
    scanned = [mask.counts for start, length in spans for mask in decode_masks(stored[start : start + length])]
    assert first["counts"] in scanned
    labels = only(read_table(str(out / "labels.parquet"), LABELS), key=key)
    assert {r["phrase"] for r in labels} == {r["phrase"] for r in ranges}

    # plan and shard: the same bytes, and the prompts that were planned
    (image,) = only(read_table(str(out / "images.parquet"), IMAGES), key=key)
    rows = only(read_table(str(out / "samples.parquet"), SAMPLES), key=key)
    shard = out / str(rows[0]["shard"])
    plan = next((out / "work" / "plan").glob(f"{shard.stem}-*.plan.parquet"))
    planned = only(read_table(str(plan), PLAN), key=key)
    assert [(r["phrase"], r["present"]) for r in planned] == [(r["phrase"], r["present"]) for r in rows]
    offset, num_bytes = int(str(rows[0]["offset"])), int(str(rows[0]["num_bytes"]))
    assert shard.read_bytes()[offset : offset + num_bytes] == original
    with tarfile.open(shard) as tar:
        sample_file = tar.extractfile(f"{key}.json")
        assert sample_file is not None
        sample = decode_sample(sample_file.read())
    assert sample.origin.sha256 == row["sha256"]
    assert [p.phrase for p in sample.prompts] == [r["phrase"] for r in rows]

    # index and manifest name the shard
    index = msgspec.json.decode((out / f"{image['split']}.json").read_bytes(), type=SplitIndex)
    assert rows[0]["shard"] in [entry.url for entry in index.shardlist]
    assert index.shardlist == read_manifest(str(out)).splits[str(image["split"])]

    # batch: pixels, presence and mask of that key
    batches = open_pass(str(out), split=str(image["split"]), batch_size=4, size=64)
    batch, place = next((b, b.keys.index(key)) for b in batches if key in b.keys)
    assert batch.phrases[place] == [p.phrase for p in sample.prompts]
    assert batch.present[place][batch.valid[place]].tolist() == [p.present for p in sample.prompts]
    width, height = Image.open(io.BytesIO(original)).size
    assert batch.sizes[place].tolist() == [height, width]
    prompt = next(number for number, p in enumerate(sample.prompts) if p.present)
    union = np.any([mask_to_array(mask) for mask in sample.prompts[prompt].masks], axis=0)
    drawn = batch.masks[place, prompt].float()
    inside = drawn.sum() / (64 * 64 * min(width, height) / max(width, height))
    assert abs(float(inside) - union.mean()) < 0.05

    # loss, and back: a prediction joins the labels by key and phrase
    logits = torch.zeros(batch.present.shape, requires_grad=True)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[batch.valid], batch.present[batch.valid].float())
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    presence = torch.sigmoid(logits)[place]
    predictions = pa.table(
        {
            "key": [key] * len(sample.prompts),
            "phrase": batch.phrases[place],
            "presence": presence[batch.valid[place]].tolist(),
        }
    )
    joined = predictions.join(
        pa.table({name: [r[name] for r in rows] for name in ("key", "phrase", "present")}), ["key", "phrase"]
    )
    assert joined.num_rows == len(rows)
    assert None not in joined["present"].to_pylist()
