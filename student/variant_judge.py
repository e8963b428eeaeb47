"""What a variant of an export is worth: its answers over a build's split, its files and its memory."""

# N prompts, I pictures

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from manifests import files
from manifests.sample import CALLED_PRESENT
from student.answers import read_answers
from student.drops import Counts, counts_of
from student.export_record import Graph, graph_name
from student.judged import Judged, judge
from student.mask_metrics import mask_metrics
from student.measure import as_readings
from student.onnx_predictor import OnnxPredictor
from student.predict import predict_split
from student.presence_metrics import presence_metrics
from student.readings import Readings
from student.truth import Truth, read_truth

_MEMORY_S = 120


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """A variant's answers beside what is true, and what was counted of them."""

    judged: Judged
    counts: Counts


class VariantJudge:
    """Judges predictors over one split; what they answered is kept in a folder, so that a second run goes on."""

    def __init__(self, build: str, split: str, work: str, progress: Progress) -> None:
        """A judge of variants.

        Raises:
            ManifestError: the build has no such split, or is damaged.
        """
        self.truth: Truth = read_truth(build, split)
        self._build, self._split, self._work, self._progress = build, split, work, progress

    def answers(self, predictor: OnnxPredictor) -> Answered:
        """What `predictor` answers to every prompt of the split."""
        out = files.join(self._work, f"{_slug(predictor.record.name)}-{predictor.digest()}.parquet")
        predict_split(predictor, self._build, self._split, out, progress=self._progress)
        judged = judge(self.truth, read_answers(self.truth, out, max_missing_share=0.0))
        return Answered(judged=judged, counts=counts_of(judged, len(self.truth.keys)))


def readings_of(answered: Answered) -> Readings:
    """The metrics that are told of a variant, with their intervals."""
    judged = answered.judged
    said_n = judged.presence_n >= CALLED_PRESENT
    masks = mask_metrics(
        judged.overlaps,
        present_n=judged.present_n,
        complete_n=judged.complete_n,
        said_n=said_n,
        image_n=judged.image_n,
        rng=np.random.default_rng(0),
    )
    known = judged.for_presence()
    known_said_n = known.presence_n >= CALLED_PRESENT
    presence = presence_metrics(known_said_n, known.present_n, known.image_n, rng=np.random.default_rng(0))
    told = {"miou": masks["miou"], "il_mcc": presence["il_mcc"], "il_fpr": presence["il_fpr"]}
    return as_readings(told)


def sizes_of(graphs: Mapping[Graph, bytes]) -> dict[str, int]:
    """Bytes of each file."""
    return {graph_name(graph): len(data) for graph, data in graphs.items()}


def peak_ram(folder: str) -> int | None:
    """Bytes that a fresh process needs at most to open the variant in `folder` and call it once, above its own.

    None where this system does not tell or takes too long, and for a bucket, whose files a session cannot open.
    """
    if not files.is_local(folder):
        return None
    command = [sys.executable, "-m", "student.peak_memory", folder]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_MEMORY_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return None
    said = done.stdout.strip()
    return int(said) if done.returncode == 0 and said.isdigit() else None


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
