"""An evaluation: a table of predictions, judged by what a build says is true of one of its splits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from rich.progress import Progress

from manifests import files
from manifests.tables import PREDICTED_IMAGES, PREDICTIONS, read_metadata, read_table
from student.answers import Answers, read_answers
from student.bootstrap import NUM_DRAWS
from student.calibration import reliability
from student.estimates import Estimated, Undefined, number_of
from student.fitted import FITTED_SPLIT, Fitted, fit_on_val
from student.judged import Judged, judge
from student.measure import Measuring, by_kind, by_phrase, by_source, pooled
from student.predict import MASK_THRESHOLD_KEY, images_table
from student.predictor import MASK_THRESHOLD
from student.readings import Evaluation
from student.sensitivity import prompt_sensitivity
from student.truth import Truth, read_truth

MAX_MISSING_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to evaluate."""

    predictions: str  # table of any model
    build: str
    split: str = "test"
    val_predictions: str = ""  # where the rows of val are; "" for the same table
    fitted: Fitted | None = None  # what val chose, where that is known already
    name: str = ""  # "" for what the table says of itself
    max_missing_share: float = MAX_MISSING_SHARE
    seed: int = 0  # of the bootstrap
    num_draws: int = NUM_DRAWS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluated:
    """An evaluation with what it was made of."""

    evaluation: Evaluation
    truth: Truth
    answers: Answers
    judged: Judged


def evaluate(asked: Asked, *, progress: Progress | None = None) -> Evaluated:
    """All readings of the predictions that `asked` names.

    Raises:
        ManifestError: the build is unfinished or damaged, or has no samples of the split.
        TableError: the predictions are none, or too many of them are missing.
    """
    step = _steps(progress)
    truth = read_truth(asked.build, asked.split)
    step("answers")
    answers = read_answers(truth, asked.predictions, max_missing_share=asked.max_missing_share)
    of_val = asked.val_predictions or asked.predictions
    fitted = asked.fitted or fit_on_val({asked.build: of_val}, max_missing_share=asked.max_missing_share)
    step("masks")
    judged = judge(truth, answers)
    step("measure")
    told = judged.for_presence()
    how = Measuring(fitted=fitted, has_masks=answers.has_masks, seed=asked.seed, num_draws=asked.num_draws)
    readings = pooled(judged, how, _sensitivity(truth, asked.predictions, how))
    step("by source")
    of_sources = by_source(judged, truth.sources, how)
    step("by kind")
    of_kinds = by_kind(judged, how)
    step("by phrase")
    of_phrases = by_phrase(judged, truth.phrases, how)
    step("done")
    evaluation = Evaluation(
        name=asked.name or _name_of(asked.predictions),
        build=truth.build,
        build_sha256=truth.build_sha256,
        split=truth.split,
        temperature=number_of(fitted.temperature),
        threshold=number_of(fitted.threshold),
        fitted_on=fitted.fitted_on,
        num_images=len(np.unique(judged.image_n)),
        num_present=int(judged.present_n.sum()),
        num_absent=int((~judged.present_n).sum()),
        readings=readings,
        by_source=of_sources,
        by_kind=of_kinds,
        by_phrase=of_phrases,
        reliability=reliability(told.presence_n, told.present_n),
        counted=answers.counted,
        notes=[*_notes(truth, judged, answers, fitted), *_of_masks(truth, asked.predictions)],
    )
    return Evaluated(evaluation=evaluation, truth=truth, answers=answers, judged=judged)


_NUM_STEPS = 7


def _steps(progress: Progress | None) -> Callable[[str], None]:
    """What is called after each step with the name of the next, and moves the bar."""
    if progress is None:
        return lambda _: None
    bar = progress.add_task("prompts", total=_NUM_STEPS)
    return lambda name: progress.update(bar, advance=1, description=name)


def _name_of(predictions: str) -> str:
    said = read_metadata(predictions, PREDICTIONS).get("predictor", "")
    return said or predictions.rstrip("/").rpartition("/")[2].removesuffix(".parquet")


def _sensitivity(truth: Truth, predictions: str, how: Measuring) -> Estimated:
    uri = images_table(predictions)
    if not files.exists(uri):
        name = uri.rstrip("/").rpartition("/")[2]
        return Undefined(f"a table of predictions holds no mask probabilities, and there is no {name} beside it")
    table = read_table(uri, PREDICTED_IMAGES)
    of_split = table.filter(pc.is_in(table["key"], value_set=truth.keys))
    sensitivity_i = pc.fill_null(of_split["prompt_sensitivity"], float("nan")).to_numpy()
    return prompt_sensitivity(sensitivity_i, rng=how.rng(), num_draws=how.num_draws)


def _of_masks(truth: Truth, predictions: str) -> Iterator[str]:
    """From where on a pixel is set, if not from one half on."""
    threshold = read_metadata(predictions, PREDICTIONS).get(MASK_THRESHOLD_KEY, str(MASK_THRESHOLD))
    if threshold != str(MASK_THRESHOLD):
        here = f"; {FITTED_SPLIT} is judged here, so mIoU is overstated" if truth.split == FITTED_SPLIT else ""
        yield f"a pixel of a mask is set above {threshold}, which {FITTED_SPLIT} chose when the model was trained{here}"


def _notes(truth: Truth, judged: Judged, answers: Answers, fitted: Fitted) -> Iterator[str]:
    """What a reader of the figures has to know, one sentence each."""
    counted = answers.counted
    if counted["missing"]:
        yield (
            f"{counted['missing']} of {len(truth)} prompts have no usable row and are left out "
            f"({counted['bad_presence']} rows with a presence outside 0 to 1, {counted['bad_mask']} with a broken mask "
            "or one of another size)"
        )
    if counted["unknown_key"] or counted["unknown_phrase"]:
        yield (
            f"{counted['unknown_key']} rows name pictures that the build does not hold, and "
            f"{counted['unknown_phrase']} phrases that {truth.split} never asks; they are not used"
        )
    incomplete = int((judged.present_n & ~judged.complete_n).sum())
    if incomplete:
        yield f"{incomplete} present prompts have no mask, or not all of it: presence is judged there, masks are not"
    left_out = len(np.unique(judged.image_n[~judged.closed_n]))
    if left_out:
        yield (
            f"{left_out} of {len(np.unique(judged.image_n))} pictures have no exhaustive labels and no known absence: "
            "masks are judged there, presence is not"
        )
    if fitted.why_not:
        yield f"no threshold and temperature were fitted: {fitted.why_not}"
    elif truth.split == FITTED_SPLIT:
        yield f"threshold and temperature were fitted on {FITTED_SPLIT}, which is judged here: their gain is overstated"
    if judged.is_saco_n.any():
        yield "SA-Co: a semantic mask counts as one instance, so phrases with several instances cost it recall"
