"""The whole way on real COCO pictures: part of them as SA-1B tars, default rates, verified deep, masks redrawn."""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from manifests.manifest import Manifest, read_manifest
from manifests.sample import Mask
from shards.masks import downscale_mask_for_page, mask_from_array, union
from shards.page import drawn_masks
from tests.mask_overlap import iou

DATA = Path(__file__).parents[3] / "shared" / "data"
REPOSITORY = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def run(*command: str) -> str:
    found = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def folder_of(name: str, kind: str) -> tuple[str, str]:
    return str(DATA / name / f"{kind}2017"), str(DATA / name / "annotations" / f"instances_{kind}2017.json")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """coco_val as SA-1B, coco_train as COCO, and the build of both."""
    folder = tmp_path_factory.mktemp("real")
    as_sa1b, as_coco = folder_of("coco_val", "val"), folder_of("coco_train", "train")
    run("examples/coco_as_sa1b.py", "--as-sa1b", *as_sa1b, "--as-coco", *as_coco, "--out", str(folder))
    run(
        "-m", "flows.build_shards", str(folder / "mix.toml"), "--out", str(folder / "build"), "--workers", "2", "--json"
    )
    return folder


@pytest.fixture(scope="module")
def manifest(real: Path) -> Manifest:
    return read_manifest(str(real / "build"))


def test_the_default_mix_passes_the_deep_check(real: Path) -> None:
    run("-m", "shards.verify", str(real / "build"), "--deep")


def test_every_rate_is_within_one_and_nothing_was_lost(manifest: Manifest) -> None:
    assert manifest.rejects.images == 570
    assert manifest.rejects.rejected_images == 0
    for mix in manifest.mix.values():
        for share in [*mix.samples.values(), *mix.prompts.values()]:
            assert abs(share.achieved - share.requested) <= 1


def test_the_audit_stays_under_its_bound_on_real_pictures(manifest: Manifest) -> None:
    found = manifest.shortcuts
    assert max(found.phrase, found.source, found.pixels, found.num_bytes) < found.bound
    assert found.warnings == []
    assert manifest.leaks == []


def test_ten_masks_of_the_contact_sheet_agree_with_the_source_files(real: Path) -> None:
    page = real / "page.html"
    run("-m", "shards.show", str(real / "build"), "--out", str(page), "--limit", "60")
    drawn: dict[tuple[str, str], list[Mask]] = defaultdict(list)
    for mask in drawn_masks(page.read_text()):
        drawn[mask.key, mask.phrase].append(mask.mask)
    by_source = {"sa1b": folder_of("coco_val", "val")[1], "coco": folder_of("coco_train", "train")[1]}
    checked = 0
    for source, instances in by_source.items():
        coco = COCO(instances)
        for key, phrase in [place for place in drawn if place[0].startswith(f"{source}-")][:8]:
            image_id = int(key.split("-")[1])
            category = coco.getCatIds(catNms=[phrase])
            rows = coco.loadAnns(coco.getAnnIds(imgIds=[image_id], catIds=category))
            truth = np.any([coco.annToMask(row) for row in rows], axis=0)
            shown = union(drawn[key, phrase])
            expected = downscale_mask_for_page(mask_from_array(truth), max(shown.size))
            assert iou(shown, expected) >= 0.99, (key, phrase)
            checked += 1
    assert checked >= 10
