"""What val chooses once a run has its best weights: they answer every val, and temperature and threshold are fitted.

The same way that `student.evaluate` goes, so that both come to the same figures; train and test have no part in it.
"""

import shutil
from collections.abc import Mapping

import torch
from rich.progress import Progress

from manifests import files
from student.checkpoint import load_student
from student.estimates import number_of
from student.fitted import FITTED_SPLIT, fit_on_val
from student.predict import predict_split
from student.run_record import BuildUsed, ValChoice, name_of
from student.torch_predictor import TorchPredictor

_FOLDER = "val"  # of the run, while its best weights answer


def choose_on_val(
    run: str, builds: Mapping[str, BuildUsed], *, device: torch.device, progress: Progress, why_not: str = ""
) -> ValChoice:
    """What the vals of `builds` (by folder) choose together for the best weights of the run.

    Answers lie in the run's folder until all are given; a process that is killed between goes on with them.

    Args:
        run: The run's folder, on this machine; its best weights are there.
        builds: Those that have a val, and what the run calls them.
        device: Where the student answers.
        progress: Where the bars are drawn.
        why_not: Why nothing is to be chosen; "" for a student that has learnt presence.

    Raises:
        AbsentiaError: a val cannot be read, or the weights answer with what is no number.
    """
    loaded = load_student(run)
    predictor = TorchPredictor(loaded.student.to(device), name=name_of(run), mask_threshold=loaded.state.mask_threshold)
    digests = sorted(used.sha256 for used in builds.values())
    if why_not:
        return ValChoice(student=predictor.digest(), builds=digests, num_prompts=0, why_not=why_not)
    work = files.join(run, _FOLDER)
    tables = {folder: files.join(work, f"{number}.parquet") for number, folder in enumerate(builds)}
    for folder, table in tables.items():
        predict_split(predictor, folder, FITTED_SPLIT, table, progress=progress)
    fitted = fit_on_val(tables, max_missing_share=0)
    shutil.rmtree(work)
    return ValChoice(
        student=predictor.digest(),
        builds=digests,
        num_prompts=fitted.num_prompts,
        temperature=number_of(fitted.temperature),
        threshold=number_of(fitted.threshold),
        why_not=fitted.why_not,
    )
