"""What training sees: the samples of one step as tensors, each with its shape beside it.

Pictures are decoded at the nearest scale above the target and masks go from run lengths straight to the target, so
neither is ever unpacked at full size. This file imports torch; in `shards` the reader alone imports it.
"""

# B samples of a rank's batch, P prompts of the image that has most, S side of images, M side of masks, D feature width

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifests.errors import ManifestError, Reason, Rejected
from manifests.sample import Evidence, Mask, MaskState, NegativeKind, Prompt, Sample, decode_sample
from shards.images import decode_letterboxed, letterbox_geometry
from shards.masks import resize_mask_groups
from shards.tar import json_after

NO_CODE = -1  # of the kind of a present prompt, and of all codes where a prompt is padding
MASK_STATE_CODES = {state: code for code, state in enumerate(MaskState)}
KIND_CODES = {kind: code for code, kind in enumerate(NegativeKind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A rank's share of one global batch."""

    images: Tensor  # uint8 [B, 3, S, S] RGB, centred in a black square; channels last in memory
    sizes: Tensor  # int64 [B, 2] height and width of the original in pixels
    phrases: list[list[str]]  # B lists of up to P phrases
    present: Tensor  # bool [B, P]
    masks: Tensor  # bool [B, P, M, M] union of a prompt's instances, in the same square as the image
    mask_state: Tensor  # int8 [B, P] MASK_STATE_CODES
    kinds: Tensor  # int8 [B, P] KIND_CODES; NO_CODE where present
    valid: Tensor  # bool [B, P] False where a prompt is padding: image b has len(phrases[b]) of them, first
    keys: list[str]  # B; "" where a sample is padding (at the end of a pass alone)
    epochs: Tensor  # int64 [B] how often the sample's build was gone through before
    position: int  # samples consumed by all ranks once this batch is trained on: where to resume
    features: Tensor | None  # float16 [B, D] rows of the features table, where one was asked for

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            images=change(self.images),
            sizes=change(self.sizes),
            present=change(self.present),
            masks=change(self.masks),
            mask_state=change(self.mask_state),
            kinds=change(self.kinds),
            valid=change(self.valid),
            epochs=change(self.epochs),
            features=None if self.features is None else change(self.features),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One sample as it was read."""

    sample: Sample
    prompts: Sequence[Prompt]  # those that are asked
    jpeg: memoryview
    where: str  # for messages
    epoch: int
    feature: NDArray[np.float16] | None  # [D]


def read_example(
    data: bytes,
    jpeg_bytes: int,
    *,
    where: str,
    epoch: int,
    evidence: Collection[Evidence],
    feature: NDArray[np.float16] | None,
) -> Example:
    """The sample in `data`, which reaches from its JPEG to the end of its JSON; absences known otherwise left out.

    Raises:
        ManifestError: there is no sample.
    """
    try:
        encoded = json_after(data, jpeg_bytes)
    except ValueError as error:
        raise ManifestError(f"{where}: {error}; copy the shard again or build it again") from error
    sample = decode_sample(encoded, where=where)
    known_by = {*evidence, Evidence.GENERATED}
    return Example(
        sample=sample,
        prompts=[prompt for prompt in sample.prompts if prompt.present or prompt.evidence in known_by],
        jpeg=memoryview(data)[:jpeg_bytes],
        where=f"{where} ({sample.key})",
        epoch=epoch,
        feature=feature,
    )


def make_batch(
    examples: Sequence[Example], *, num_rows: int, size: int, mask_size: int, feature_width: int, position: int
) -> Batch:
    """The batch of `examples`, padded to `num_rows` samples.

    Raises:
        ManifestError: a picture or mask cannot be decoded.
    """
    num_prompts = max([1, *(len(example.prompts) for example in examples)])
    images = np.zeros((num_rows, size, size, 3), np.uint8)
    masks = np.zeros((num_rows, num_prompts, mask_size, mask_size), np.bool_)
    features = np.zeros((num_rows, feature_width), np.float16)
    sizes = np.zeros((num_rows, 2), np.int64)
    for row, example in enumerate(examples):
        sizes[row] = example.sample.height, example.sample.width
        _decode(example, images[row], masks[row])
        if example.feature is not None:
            features[row] = example.feature
    rows = [list(example.prompts) for example in examples] + [[] for _ in range(num_rows - len(examples))]
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        sizes=torch.from_numpy(sizes),
        phrases=[[prompt.phrase for prompt in prompts] for prompts in rows],
        present=_column(rows, num_prompts, lambda prompt: prompt.present, padding=False, dtype=torch.bool),
        masks=torch.from_numpy(masks),
        mask_state=_column(rows, num_prompts, lambda prompt: MASK_STATE_CODES[prompt.mask_state]),
        kinds=_column(rows, num_prompts, lambda prompt: NO_CODE if prompt.kind is None else KIND_CODES[prompt.kind]),
        valid=_column(rows, num_prompts, lambda _: True, padding=False, dtype=torch.bool),
        keys=[example.sample.key for example in examples] + [""] * (num_rows - len(examples)),
        epochs=torch.tensor([example.epoch for example in examples] + [0] * (num_rows - len(examples))),
        position=position,
        features=torch.from_numpy(features) if feature_width else None,
    )


def _column(
    rows: Sequence[Sequence[Prompt]],
    num_prompts: int,
    value: Callable[[Prompt], int],
    *,
    padding: int = NO_CODE,
    dtype: torch.dtype = torch.int8,
) -> Tensor:
    """`value` of every prompt [B, P]."""
    padded = [[*map(value, prompts), *[padding] * (num_prompts - len(prompts))] for prompts in rows]
    return torch.tensor(padded, dtype=dtype)


def _decode(example: Example, image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> None:
    """Fill `image` [S, S, 3] and the `masks` [P, M, M] of prompts that have some."""
    sample = example.sample
    masked = [number for number, prompt in enumerate(example.prompts) if prompt.masks]
    mask_size = masks.shape[-1]
    try:
        decode_letterboxed(example.jpeg, len(image), out=image)
        if masked:
            letterbox = letterbox_geometry(sample.width, sample.height, mask_size)
            groups = [example.prompts[number].masks for number in masked]
            _require_size(groups, (sample.height, sample.width))
            masks[masked] = resize_mask_groups(groups, letterbox, mask_size)
    except Rejected as error:
        raise ManifestError(f"{example.where}: {error}; copy the shard again or build it again") from error


def _require_size(groups: Sequence[Sequence[Mask]], size: tuple[int, int]) -> None:
    """Stop at a mask that would have to be stretched to lie over its picture."""
    for found in {mask.size for masks in groups for mask in masks} - {size}:
        raise Rejected(
            Reason.MASK_SIZE, f"a mask is {found[0]} x {found[1]}, its picture {size[0]} x {size[1]} (height x width)"
        )
