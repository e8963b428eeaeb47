"""Tables of predictions for tests: an oracle's, and whatever a test makes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.sample import KINDS, Mask
from manifests.tables import PREDICTED_IMAGES, PREDICTIONS, table_writer
from shards.masks import union
from student.predict import images_table
from student.truth import Truth, read_truth, true_masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One row."""

    key: str
    phrase: str
    presence: float | None
    mask: Mask | None = None  # None: an empty one
    present: bool = False  # what is true
    kinds: tuple[str, ...] = ()
    no_mask: bool = False  # null where the mask would stand


def oracle(build: Path, split: str = "test") -> list[Said]:
    """What is true of every prompt, said with presence 0.9 or 0.1."""
    truth = read_truth(str(build), split)
    masks = {prompt: union(found) for prompt, found in true_masks(truth, np.ones(len(truth), np.bool_))}
    return [_said(truth, prompt, masks.get(prompt)) for prompt in range(len(truth))]


def _said(truth: Truth, prompt: int, mask: Mask | None) -> Said:

    present = bool(truth.present_n[prompt])
    kinds = tuple(str(kind) for code, kind in enumerate(KINDS) if truth.kinds_nk[prompt, code])
    presence = 0.9 if present else 0.1
    return Said(
        key=truth.key(prompt), phrase=truth.phrase(prompt), presence=presence, mask=mask, present=present, kinds=kinds
    )


def write_predictions(
    path: Path,
    rows: Sequence[Said],
    *,
    sensitivity: Callable[[str], float] | None = None,
    name: str = "oracle",
    metadata: Mapping[str, str] | None = None,
) -> str:
    """A table of `rows` at `path`, with the pictures' table beside it where `sensitivity` tells of them."""
    with table_writer(str(path), PREDICTIONS, {"predictor": name, **(metadata or {})}) as writer:
        for row in rows:
            mask = (
                {"size": [0, 0], "counts": ""}
                if row.mask is None
                else {"size": row.mask.size, "counts": row.mask.counts}
            )
            writer.add(row.key, row.phrase, row.presence, None if row.no_mask else mask)
    if sensitivity is not None:
        with table_writer(images_table(str(path)), PREDICTED_IMAGES) as writer:
            for key in sorted({row.key for row in rows}):
                writer.add(key, sensitivity(key), 2)
    return str(path)
