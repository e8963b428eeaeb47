"""The reader as training asks for it: a rank's slice, masks at the student's size, the teacher's rows in phase 1."""

import multiprocessing

from shards.reader import Loader, LoaderOptions, open_loader, open_pass
from student.distributed import Ranks
from student.model import STRIDE
from student.preparing import Prepared
from student.schedule import ALIGNMENT


def open_train(prepared: Prepared, ranks: Ranks, *, phase: int, position: int, num_steps: int) -> Loader:
    """The batches of train from step `position` on, until `num_steps` of the run are done.

    Raises:
        RecipeError: the batch does not divide by the ranks, or the builds are no mixture.
        ManifestError: a build is damaged.
        TableError: the teacher lacks a picture.
    """
    config = prepared.settled.config
    builds = prepared.train_builds
    given = prepared.request.builds
    weights = {folder: weight for folder in builds if (weight := given[folder]) is not None}
    teacher = prepared.teacher
    return open_loader(
        weights or builds,
        batch_size=config.batch_size,
        size=config.model.size,
        seed=config.seed,
        position=position * config.batch_size,
        num_samples=num_steps * config.batch_size,
        num_workers=prepared.request.num_workers,
        rank=ranks.rank,
        world_size=ranks.world_size,
        options=LoaderOptions(
            mask_size=config.model.size // STRIDE,
            features=teacher.parts if teacher is not None and phase == ALIGNMENT else (),
            pin_memory=ranks.device.type == "cuda",
        ),
    )


def open_val(prepared: Prepared, ranks: Ranks) -> Loader:
    """Every sample of val once, each time that it is gone through.

    Its workers come from a small process: forked from this one, whose heap has grown, they would make the next step
    copy every page that it writes to.

    Raises:
        RecipeError, ManifestError: as `open_train`.
    """
    config = prepared.settled.config
    multiprocessing.set_forkserver_preload(["shards.reader"])
    return open_pass(
        prepared.val_builds,
        batch_size=config.batch_size,
        size=config.model.size,
        num_workers=prepared.request.num_workers,
        rank=ranks.rank,
        world_size=ranks.world_size,
        options=LoaderOptions(
            mask_size=config.model.size // STRIDE,
            pin_memory=ranks.device.type == "cuda",
            start_method="forkserver",
        ),
    )
