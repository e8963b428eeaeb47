"""Categories that annotators confuse, and alarms on known objects: what masks of one picture say of another."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from manifests.recipe import CocoSource, Recipe
from manifests.sample import Mask, MaskState, encode_masks
from miners import held_masks
from miners.confusable import confusable_relation, find_confusable
from miners.held_masks import masks_of
from miners.outside import Said
from miners.overlap import covered_share
from shards.inventory import MASK_STATES, PRESENT, Inventory, Labels, load_inventory
from shards.labels import load_lexicon
from shards.scan import ScannedPart, ScanRecord
from shards.scanning import prepare_sources, scan_sources
from shards.sources.registry import open_sources
from tests.factories import make_mask
from tests.inventories import make_inventory

CAR = make_mask(left=0, right=20)
TRUCK = make_mask(left=1, right=20)  # 19/20 of CAR
FAR = make_mask(left=40, right=60)

Picture = dict[int, list[Mask]]  # masks by phrase


def make_part(folder: Path, name: str, pictures: Sequence[Picture]) -> tuple[ScannedPart, list[tuple[int, int]]]:
    """A part whose masks lie on disk, and the byte range of each label."""
    data, ranges = b"", []
    for picture in pictures:
        for masks in (picture[phrase] for phrase in sorted(picture)):
            text = encode_masks(masks)
            ranges.append((len(data), len(text)))
            data += text
    (folder / f"{name}.masks").write_bytes(data)
    record = ScanRecord(images=len(pictures), rejected_images=0, rejects={}, repaired={}, sha256="")
    return ScannedPart(source="s0", stem=name, folder=str(folder), record=record), ranges


def make_masked(folder: Path, *parts: Sequence[Picture], num_phrases: int = 3) -> Inventory:
    """An inventory of pictures whose labels have the masks that `parts` give, part by part."""
    pictures = [picture for part in parts for picture in part]
    states = np.full((len(pictures), num_phrases), -1, np.int8)
    for n, picture in enumerate(pictures):
        states[n, list(picture)] = PRESENT
    bare = make_inventory(states)
    made = [make_part(folder, f"part{p}", part) for p, part in enumerate(parts)]
    spans = np.array([span for _, ranges in made for span in ranges], np.int64).reshape(-1, 2)
    labels = Labels(
        starts=bare.labels.starts,
        phrase_l=bare.labels.phrase_l,
        state_l=bare.labels.state_l,
        mask_state_l=np.full(len(spans), MASK_STATES.index(MaskState.COMPLETE), np.int8),
        part_l=np.repeat(np.arange(len(made)), [len(ranges) for _, ranges in made]).astype(np.int32),
        offset_l=spans[:, 0],
        num_bytes_l=spans[:, 1].astype(np.int32),
        known_by_l=bare.labels.known_by_l,
    )
    return replace(bare, labels=labels, parts=tuple(part for part, _ in made))


def everything(inventory: Inventory) -> NDArray[np.int64]:
    return np.arange(inventory.num_images)


def test_masks_come_picture_by_picture_whatever_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = make_masked(tmp_path, [{0: [CAR, FAR], 1: [TRUCK]}, {}], [{2: [FAR]}, {1: [CAR]}])
    for window in (1, 1 << 20):
        monkeypatch.setattr(held_masks, "_WINDOW_BYTES", window)
        found = [(s.picture, s.phrase_m.tolist(), s.masks) for s in masks_of(inventory, everything(inventory))]
        assert found == [(0, [0, 0, 1], (CAR, FAR, TRUCK)), (2, [2], (FAR,)), (3, [1], (CAR,))]
    assert [shown.picture for shown in masks_of(inventory, np.array([3, 0]))] == [0, 3]
    assert list(masks_of(inventory, np.array([1]))) == []


def test_phrases_whose_masks_cover_one_thing_are_confusable(tmp_path: Path) -> None:
    pictures: list[Picture] = [{0: [CAR], 1: [FAR, TRUCK], 2: [FAR]}, {0: [CAR], 1: [FAR]}, {0: [CAR, CAR]}]
    inventory = make_masked(tmp_path, pictures)
    assert find_confusable(inventory, everything(inventory)) == [(0, 1), (1, 2)]


def test_a_pair_must_overlap_enough_and_often_enough(tmp_path: Path) -> None:
    inventory = make_masked(tmp_path, [{0: [CAR], 1: [TRUCK]}, {0: [CAR], 1: [FAR]}, {0: [CAR], 1: [FAR]}])
    pictures = everything(inventory)
    assert len(find_confusable(inventory, pictures, least_share=1 / 3)) == 1
    assert find_confusable(inventory, pictures, least_share=0.34) == []
    assert find_confusable(inventory, pictures, least_pictures=2) == []
    assert find_confusable(inventory, pictures, least_iou=0.96) == []


def test_of_too_many_pictures_those_of_the_smallest_hash_are_read(tmp_path: Path) -> None:
    inventory = make_masked(tmp_path, [{0: [CAR], 1: [TRUCK]}, {0: [CAR], 2: [TRUCK]}])
    inventory = replace(inventory, content_n=np.array([9, 4], np.uint64))
    assert find_confusable(inventory, everything(inventory), max_pictures=1) == [(0, 2)]


def test_each_of_a_confusable_pair_makes_the_other_doubtful(tmp_path: Path) -> None:
    inventory = make_masked(tmp_path, [{0: [CAR], 2: [TRUCK]}])
    relation = confusable_relation(find_confusable(inventory, everything(inventory)), 3)
    assert [(relation.holds(0, 2), relation.holds(2, 0), relation.holds(0, 1))] == [(True, True, False)]
    assert confusable_relation([], 3).num_phrases == 3


def test_an_alarm_is_covered_by_the_objects_of_other_phrases_alone(tmp_path: Path) -> None:
    inventory = make_masked(tmp_path, [{0: [CAR], 1: [FAR]}, {2: [CAR]}, {}])
    alarm = make_mask(left=10, right=30)
    said = Said(
        image_p=np.array([0, 0, 1, 1, 2]),
        phrase_p=np.array([0, 2, 0, 1, 0], np.int32),
        presence_p=np.full(5, 0.9),
        mask_p=np.array([0, 0, -1, 1, 0]),
        masks=(alarm, make_mask(left=0, right=10)),
        num_phrases=3,
        rejects=(),
        num_rejects={},
    )
    image_c, phrase_c = np.array([1, 0, 0, 1, 2, 2]), np.array([1, 2, 0, 0, 0, 2], np.int32)
    found = covered_share(inventory, said, image_c, phrase_c)
    assert np.array_equal(found, [1.0, 0.5, 0.0, np.nan, 0.0, np.nan], equal_nan=True)


DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here")
def test_the_pairs_that_coco_annotators_confuse_are_found(tmp_path: Path) -> None:
    inventory = scanned(DATA / "coco_val", str(tmp_path))
    found = find_confusable(inventory, everything(inventory))
    names = {frozenset(inventory.phrases[phrase] for phrase in pair) for pair in found}
    expected = {("car", "truck"), ("cup", "bowl"), ("laptop", "tv"), ("chair", "couch"), ("handbag", "backpack")}
    assert {frozenset(pair) for pair in expected} <= names
    assert len(found) <= 10


def scanned(folder: Path, work: str) -> Inventory:
    """The pictures and labels of a COCO folder."""
    source = CocoSource(images=str(folder / "val2017"), annotations=str(folder / "annotations/instances_val2017.json"))
    sources = open_sources(Recipe(name="real", mix={"coco": "rest"}, sources={"coco": source}))
    prepared = prepare_sources(sources, work)
    with ThreadPoolExecutor(1) as executor, Progress(disable=True) as progress:
        parts = scan_sources(sources, prepared, work=work, verify="structure", executor=executor, progress=progress)
    return load_inventory(parts, prepared, load_lexicon([]), vocabulary_files={})
