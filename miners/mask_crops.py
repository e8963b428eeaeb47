"""The masks of pictures as crops through an encoder, a bounded number of pictures decoded ahead of it.

Every mask is seen twice: with its surroundings faded, and cut out of them. What both views are near to is more often
right than what either is (docs/phrases.md has the figures), so the mean of their rows stands for the mask.
"""

# S views of a crop, K crops of a picture, C crops of all, H W side of the encoder's input, D width

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.errors import Rejected
from manifests.sample import Mask
from miners.encoders import Encoder
from miners.streaming import BATCH, require_directions
from miners.views import Box, Geometry, crop_box, fit, make_views
from shards.masks import check_masks, mask_to_array
from shards.sources.sa1b_labels import Annotation, Floors, Sa1bFile

FADES = (0.3, 0.0)  # what is left of the surroundings in each view
_GREY = (124, 116, 104)  # ImageNet's mean, which the surroundings fade to
_AHEAD = 8  # pictures whose crops are decoded before they are asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class CropLimits:
    """Which masks of a picture are looked at: sound ones, by size."""

    floors: Floors  # as the recipe has them: what the scan would not believe need not be named
    min_area: float  # pixels
    max_masks: int  # a picture, largest first


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropRows:
    """Embedded crops, and the masks that they were cut around."""

    image_id_c: NDArray[np.int64]
    annotation_id_c: NDArray[np.int64]
    crops_cd: NDArray[np.float32]  # mean of the views' unit rows: shorter where they disagree
    num_masks: int  # of all pictures, with those that were not looked at


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cut:
    """The crops of one picture."""

    image_id: int
    annotation_ids: tuple[int, ...]
    views_kshw3: NDArray[np.uint8]  # S fades


def embed_masks(
    pictures: Sequence[tuple[Sa1bFile, bytes]],
    encoder: Encoder,
    limits: CropLimits,
    *,
    fades: Sequence[float] = FADES,
) -> CropRows:
    """The row of every mask of `pictures` that is looked at; pictures that do not decode give none.

    Raises:
        BuildError: the encoder gives a row that is no direction.
    """
    image_ids: list[int] = []
    annotation_ids: list[int] = []
    rows = [np.empty((0, encoder.dim), np.float32)]
    pending: list[NDArray[np.uint8]] = []
    for cut in _cut_ahead(pictures, partial(_cut, geometry=encoder.geometry, limits=limits, fades=fades)):
        image_ids += [cut.image_id] * len(cut.annotation_ids)
        annotation_ids += cut.annotation_ids
        pending += list(cut.views_kshw3)
        while len(pending) >= BATCH:
            rows.append(_encode(pending[:BATCH], encoder, image_ids))
            pending = pending[BATCH:]
    if pending:
        rows.append(_encode(pending, encoder, image_ids))
    return CropRows(
        image_id_c=np.array(image_ids, np.int64),
        annotation_id_c=np.array(annotation_ids, np.int64),
        crops_cd=np.concatenate(rows),
        num_masks=sum(len(file.annotations) for file, _ in pictures),
    )


def _encode(views: Sequence[NDArray[np.uint8]], encoder: Encoder, image_ids: Sequence[int]) -> NDArray[np.float32]:
    """The mean of each crop's unit rows [C, D]."""
    names = [f"a mask near image {image_ids[-1]}"] * len(views)
    seen_cshw3 = np.stack(views)
    rows = [
        require_directions(encoder.encode_images(seen_cshw3[:, view, None]), names, encoder)
        for view in range(seen_cshw3.shape[1])
    ]
    mean_cd: NDArray[np.float32] = np.mean(rows, axis=0, dtype=np.float32)
    return mean_cd


def _cut_ahead(pictures: Iterable[tuple[Sa1bFile, bytes]], cut: Callable[[Sa1bFile, bytes], _Cut]) -> Iterator[_Cut]:
    """Every picture's crops in order, a few pictures decoded ahead."""
    running: deque[Future[_Cut]] = deque()
    with ThreadPoolExecutor(min(_AHEAD, os.cpu_count() or 1)) as executor:
        for file, data in pictures:
            running.append(executor.submit(cut, file, data))
            if len(running) > _AHEAD:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _cut(file: Sa1bFile, data: bytes, *, geometry: Geometry, limits: CropLimits, fades: Sequence[float]) -> _Cut:
    asked = masks_to_look_at(file, limits)
    boxes = [crop_box(mask) for _, mask in asked]
    ids = tuple(annotation_id for annotation_id, _ in asked)
    views_kshw3 = np.empty((len(asked), len(fades), geometry.height, geometry.width, 3), np.uint8)
    try:
        crops_khw3 = make_views(data, geometry, whole=False, boxes=boxes).crops_khw3 if asked else ()
    except Rejected:  # the scan meets the same picture, and counts it with its reason
        return _Cut(image_id=file.image.image_id, annotation_ids=(), views_kshw3=views_kshw3[:0])
    for place, (crop_hw3, (_, mask), box) in enumerate(zip(crops_khw3, asked, boxes, strict=True)):
        views_kshw3[place] = faded_views(crop_hw3, mask, box, geometry, fades)
    return _Cut(image_id=file.image.image_id, annotation_ids=ids, views_kshw3=views_kshw3)


def faded_views(
    crop_hw3: NDArray[np.uint8], mask: Mask, box: Box, geometry: Geometry, fades: Sequence[float] = FADES
) -> NDArray[np.uint8]:
    """The crop once per fade [S, H, W, 3], what is not `mask` faded towards grey."""
    x, y, width, height = map(int, box)
    inside = mask_to_array(mask)[y : y + height, x : x + width]
    stencil = Image.fromarray(np.where(inside, np.uint8(255), np.uint8(0))).convert("RGB")
    share_hw3 = fit(stencil, geometry).astype(np.float32) / 255
    grey_3 = np.array(_GREY, np.float32)
    crop = crop_hw3.astype(np.float32)
    kept = [share_hw3 + fade * (1 - share_hw3) for fade in fades]
    return np.stack([np.rint(crop * one + grey_3 * (1 - one)).astype(np.uint8) for one in kept])


def masks_to_look_at(file: Sa1bFile, limits: CropLimits) -> list[tuple[int, Mask]]:
    """Id and mask of the annotations within `limits`, largest first; of those with one id the first."""
    size = (file.image.height, file.image.width)
    once: dict[int, Annotation] = {}
    for annotation in file.annotations:
        once.setdefault(annotation.id, annotation)
    fitting = [one for one in once.values() if one.segmentation.size == size and _is_believed(one, limits.floors)]
    check = check_masks(
        [one.segmentation.counts for one in fitting], [size[0]] * len(fitting), [size[1]] * len(fitting)
    )
    floor = max(limits.min_area, limits.floors.area, 1.0)
    sound = [
        (-area, one.id, one.segmentation.counts)
        for one, area, fault in zip(fitting, check.areas.tolist(), check.faults.tolist(), strict=True)
        if not fault and area >= floor
    ]
    kept = sorted(sound)[: limits.max_masks]
    return [(number, Mask(size=size, counts=counts)) for _, number, counts in kept]


def _is_believed(annotation: Annotation, floors: Floors) -> bool:
    return annotation.predicted_iou >= floors.predicted_iou and annotation.stability_score >= floors.stability_score
