"""A progress bar that the Prefect UI shows: every stage is a progress artifact of its flow run."""

import re
import time
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.progress import Progress, TaskID

from flows.news import told, told_once

EVERY_S = 2.0  # a longer stage tells as often how far it is


class ArtifactProgress(Progress):
    """Shows nothing here, and tells the server how far each stage is."""

    def __init__(self) -> None:
        super().__init__(disable=True)
        self._told: dict[TaskID, tuple[UUID | None, float]] = {}  # None where the server was out of reach

    def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:  # noqa: ANN401  (rich's own)
        """A further stage, whose artifact is there from now on."""
        added = super().add_task(description, *args, **kwargs)
        key = "-".join(re.findall("[a-z0-9]+", description.lower()))
        artifact = told(create_progress_artifact, progress=0.0, key=f"progress-{key}", description=description)
        if artifact is not None and not isinstance(artifact, UUID):
            raise TypeError(f"stage {description!r} runs inside an event loop; expected a flow that is no coroutine")
        self._told[added] = (artifact, time.monotonic())
        return added

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """So much further; the server hears of it now and then, and always of the end."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  (rich's own)
        """What rich's `update` does, told on."""
        super().update(task_id, *args, **kwargs)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        shown = self._tasks[task_id]
        artifact, told_s = self._told[task_id]
        now_s = time.monotonic()
        if artifact is None or (not shown.finished and now_s < told_s + EVERY_S):
            return
        eta = "" if shown.finished or shown.time_remaining is None else f", {shown.time_remaining:.0f} s to go"
        said = f"{shown.description}: {shown.completed:,.0f} of {shown.total or 0:,.0f}{eta}"
        told_once(update_progress_artifact, artifact, progress=shown.percentage, description=said)
        self._told[task_id] = (artifact, now_s)
