"""What can be said of one sample by itself: its picture, its masks, and the rules that its prompts keep."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from manifests.errors import Rejected
from manifests.sample import Evidence, MaskState, NegativeKind, Prompt, Sample
from shards.faults import Check
from shards.images import decode_rgb, inspect_image
from shards.labels import phrase_id
from shards.masks import check_masks, reason_of
from shards.rle import MaskFault

_GENERATED_KINDS = (NegativeKind.BLANK, NegativeKind.NOISE)


def image_faults(sample: Sample, jpeg: bytes, *, deep: bool) -> Iterator[tuple[Check, str]]:
    """Whether the picture is a JPEG of the sample's size; `deep` decodes it and holds its bytes to its origin."""
    origin = sample.origin
    if not origin.encoded and origin.num_bytes != len(jpeg):
        yield Check.IMAGE, f"its JPEG has {len(jpeg)} bytes, its origin {origin.num_bytes}, and it was not encoded"
    try:
        facts = inspect_image(jpeg)
        if facts.encoded:
            yield Check.IMAGE, f"its .jpg is a {facts.format}; expected a JPEG"
        if (facts.width, facts.height) != (sample.width, sample.height):
            said = f"{sample.width} × {sample.height}"
            yield Check.IMAGE, f"its JPEG has {facts.width} × {facts.height} pixels; its JSON says {said}"
        if deep:
            decode_rgb(jpeg)
    except Rejected as error:
        yield Check.IMAGE, f"its JPEG does not decode: {error}"
    if deep and not origin.encoded and hashlib.sha256(jpeg).hexdigest() != origin.sha256:
        yield Check.IMAGE, "its JPEG has another sha256 than its origin, though it was not encoded"


def mask_faults(sample: Sample, *, deep: bool) -> Iterator[tuple[Check, str]]:
    """Whether the masks have the picture's size; `deep` reads their runs."""
    masks = [(prompt.phrase, mask) for prompt in sample.prompts for mask in prompt.masks]
    for phrase, mask in masks:
        if mask.size != (sample.height, sample.width):
            yield (
                Check.MASK,
                f"a mask of {phrase!r} has size {list(mask.size)}; expected {[sample.height, sample.width]}",
            )
    if deep and masks:
        heights, widths = zip(*(mask.size for _, mask in masks), strict=True)
        found = check_masks([mask.counts for _, mask in masks], heights, widths)
        for (phrase, _), fault in zip(masks, found.faults.tolist(), strict=True):
            if fault:
                yield Check.MASK, f"a mask of {phrase!r} is no sound RLE: {reason_of(MaskFault(fault))}"


def prompt_faults(sample: Sample, split: str) -> Iterator[str]:
    """What breaks a rule among the prompts of one sample."""
    if not sample.prompts:
        yield "has no prompt; expected at least one"
    for prompt in sample.prompts:
        yield from _lone_prompt_faults(prompt)
    by_phrase: dict[str, list[Prompt]] = {}
    for prompt in sample.prompts:
        by_phrase.setdefault(phrase_id(prompt.phrase), []).append(prompt)
    for prompts in by_phrase.values():
        yield from _phrase_faults(prompts, split)


def _lone_prompt_faults(prompt: Prompt) -> Iterator[str]:
    phrase = repr(prompt.phrase)
    if prompt.present != (prompt.kind is None):
        yield f"{phrase} is {'present' if prompt.present else 'absent'} with kind {str(prompt.kind or '')!r}"
    if not prompt.present and (prompt.masks or prompt.mask_state is not MaskState.COMPLETE):
        yield f"{phrase} is absent with {len(prompt.masks)} masks, mask_state {prompt.mask_state}; expected complete, 0"
    if prompt.present and (prompt.mask_state is MaskState.NONE) != (not prompt.masks):
        yield f"{phrase} is present with {len(prompt.masks)} masks, but mask_state {prompt.mask_state}"
    if (prompt.kind in _GENERATED_KINDS) != (prompt.evidence is Evidence.GENERATED):
        yield f"{phrase} has kind {str(prompt.kind or '')!r} with evidence {prompt.evidence}"


def _phrase_faults(prompts: Sequence[Prompt], split: str) -> Iterator[str]:
    """What is wrong with the prompts of one phrase: asked twice under a kind, in train under two, or both ways."""
    phrase = repr(prompts[0].phrase)
    kinds = Counter(prompt.kind for prompt in prompts)
    if None in kinds and len(kinds) > 1:
        yield f"{phrase} is asked both as present and as absent"
    elif split == "train" and len(kinds) > 1:
        yield f"{phrase} stands under {len(kinds)} kinds; in train it may stand under one"
    for kind, num in kinds.items():
        if num > 1:
            yield f"{phrase} is asked {num} times under kind {str(kind or '')!r}"
