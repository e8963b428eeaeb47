"""What builds ask of a student, before any picture is read: how many presences and absences, in which words."""

# N prompts

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from manifests import files, tables
from manifests.errors import TrainingError
from manifests.manifest import read_manifest
from manifests.sample import MaskState
from student.tokens import tokenize

_COLUMNS = ["key", "image_key", "split", "phrase", "present", "mask_state"]


@dataclass(slots=True, kw_only=True)
class Survey:
    """The prompts of one split of some builds."""

    num_present: int = 0
    num_absent: int = 0
    num_masked: int = 0  # of the present: with a whole mask
    phrases: set[str] = field(default_factory=set)
    image_keys: dict[str, str] = field(default_factory=dict)  # of repeated samples: theirs to their picture's


def survey(folders: Sequence[str], split: str) -> Survey:
    """All prompts of `split`; builds without it give none.

    Raises:
        TableError: a build's `samples.parquet` cannot be read.
    """
    found = Survey()
    for folder in folders:
        uri = files.join(folder, "samples.parquet")
        for group in tables.iterate_table(uri, tables.SAMPLES, _COLUMNS):
            rows = group.filter(pc.equal(group["split"], split))
            present_n = rows["present"].to_numpy().astype(np.bool_)
            found.num_present += int(present_n.sum())
            found.num_absent += int((~present_n).sum())
            whole_n = pc.equal(rows["mask_state"], MaskState.COMPLETE.value).to_numpy()
            found.num_masked += int((present_n & whole_n).sum())
            found.phrases.update(pc.unique(rows["phrase"]).to_pylist())
            again = rows.filter(pc.not_equal(rows["key"], rows["image_key"]))
            found.image_keys.update(zip(again["key"].to_pylist(), again["image_key"].to_pylist(), strict=True))
    return found


def having(builds: Mapping[str, float | None], split: str) -> list[str]:
    """The folders of `builds` with samples in `split`.

    Raises:
        ManifestError: a build is unfinished or damaged.
        TrainingError: none has any.
    """
    found = [folder for folder in builds if read_manifest(folder).splits.get(split)]
    if not found:
        raise TrainingError(
            f"{', '.join(builds)}: split {split} is empty; expected samples in train to learn from, and "
            "in val to choose the best weights by. Give that split a share in the recipe and build again"
        )
    return found


def require_both_classes(train: Survey, *, allowed: bool, builds: Sequence[str]) -> bool:
    """Whether train has prompts of one class alone; `allowed` says that the user insists on it.

    Raises:
        TrainingError: it has, and is not allowed to.
    """
    if train.num_present and train.num_absent:
        return False
    if not allowed:
        lacking = "absent" if train.num_present else "present"
        raise TrainingError(
            f"{', '.join(builds)}: train has {train.num_present} present and {train.num_absent} absent prompts, so a "
            f"student would learn nothing of presence; expected both. Build with {lacking} prompts, or insist with "
            "--allow-one-class"
        )
    return True


def require_short(found: Survey, *, context: int) -> None:
    """Stop at a phrase that the text tower cannot read whole.

    Raises:
        RecipeError: one has more tokens than the context.
    """
    tokenize(sorted(found.phrases), context=context)
