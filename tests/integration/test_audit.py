"""The shortcut audit over whole builds: it shouts at the naive mix and is content with the default one."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests.manifest import Manifest
from shards.shortcuts import BOUND, audit
from tests.worlds import REPOSITORY, build_world, write_recipe, write_world

REAL_COCO = REPOSITORY.parent / "shared" / "data" / "coco_train"
GENERATED = ["blank", "noise"]


def naive_mix(samples: pa.Table) -> pa.Table:
    """What a mix of presences from one source and absences from the other looks like."""
    shown = pc.and_(pc.equal(samples["source"], "sa1b"), samples["present"])
    denied = pc.and_(pc.equal(samples["source"], "coco"), pc.invert(samples["present"]))
    return samples.filter(pc.or_(shown, denied))


def test_the_audit_shouts_at_the_naive_mix(tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    manifest = build_world(recipe, tmp_path / "out")
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    found = audit(naive_mix(samples), GENERATED)
    assert found.source > 0.9
    assert found.source > manifest.shortcuts.source + 0.3
    assert any("guessed from the source alone" in warning for warning in found.warnings)
    assert any("every prompt of source sa1b is present" in warning for warning in found.warnings)
    assert any("every prompt of source coco is absent" in warning for warning in found.warnings)


def test_sa_1b_whose_labels_deny_nothing_is_warned_of_in_manifest_and_summary(tmp_path: Path) -> None:
    sources = {
        "sa1b": {"format": "sa1b", "data": "sa1b/sa_*.tar", "phrases": "sa1b/phrases.jsonl"},
        "coco": {"format": "coco", "images": "coco/pictures", "annotations": "coco/instances.json"},
    }
    recipe = write_world(tmp_path, sources=sources, mix={"sa1b": "rest", "coco": 0.5}, splits={"train": 1.0})
    manifest = build_world(recipe, tmp_path / "out")
    assert manifest.mix["train"].pairs["sa1b"].absent.achieved == 0
    assert manifest.shortcuts.source > BOUND
    assert any("every prompt of source sa1b is present" in warning for warning in manifest.shortcuts.warnings)
    assert "train: source sa1b gets no absent prompts, because its labels deny nothing" in manifest.notes
    summary = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "**Warning:** every prompt of source sa1b is present" in summary


def values(manifest: Manifest) -> dict[str, float]:
    found = manifest.shortcuts
    return {"phrase": found.phrase, "source": found.source, "pixels": found.pixels, "num_bytes": found.num_bytes}


@pytest.mark.real_data
@pytest.mark.skipif(not REAL_COCO.exists(), reason="../shared/data is missing: it holds the real COCO pictures")
def test_the_default_mix_stays_under_the_bound_on_real_coco(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        samples=None,
        shard_samples=200,
        when_short="stop",
        splits={"train": 0.8, "val": 0.1, "test": 0.1},
        mix={"coco": "rest", "blank": 0.025, "noise": 0.025},
        prompts={},
        sources={
            "coco": {
                "format": "coco",
                "images": str(REAL_COCO / "train2017"),
                "annotations": str(REAL_COCO / "annotations" / "instances_train2017.json"),
            },
            "blank": {"format": "blank"},
            "noise": {"format": "noise"},
        },
    )
    manifest = build_world(recipe, tmp_path / "out")
    assert {name: value for name, value in values(manifest).items() if value > BOUND} == {}
    assert manifest.shortcuts.warnings == []
    assert manifest.mix["train"].pairs["coco"].absent.achieved > 1000
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert audit(samples, GENERATED) == manifest.shortcuts
