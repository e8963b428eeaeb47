"""The flows that Prefect deploys: typed parameters in, the plain functions beneath, artifacts for the UI out.

`prefect.yaml` names them. What they build is what the plain commands build, byte for byte; a run that was cut short is
gone on with by the next one into the same folder.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Annotated, Any, Literal, ParamSpec

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import Field

from flows.artifacts import publish_build, publish_evaluation, publish_loop, publish_mining
from flows.building import build as build_plain
from flows.demo import BUILD, CONFIG, demo_recipe
from flows.news import outlasting
from flows.next_recipe import FALSE_ALARM_SHARE
from flows.progress_artifacts import ArtifactProgress
from flows.tasks import open_tasks, run_as_task
from manifests import files
from manifests.errors import AbsentiaError
from manifests.manifest import read_manifest
from manifests.recipe import DEFAULT_RATE, Mine
from manifests.recipe_file import load_recipe

Recipe = Annotated[str, Field(description="path or URL of a RECIPE.toml; empty: the demo world")]
Build = Annotated[str, Field(description="folder of a finished build; empty: the demo world's, built if need be")]
Config = Annotated[str, Field(description="a FILE.toml of model, losses and optimiser; empty: the defaults")]
Epochs = Annotated[int, Field(ge=0, description="how often a student sees train; 0: the default")]
Workers = Annotated[int, Field(ge=0, description="processes on this machine; 0: one per core")]
Scheduler = Annotated[str, Field(description="address of a Dask scheduler, as tcp://host:8786; empty: this machine")]
Tables = Annotated[Sequence[str], Field(description="tables of student.predict, for false alarms")]
P = ParamSpec("P")


def _told(function: Callable[P, str]) -> Callable[P, "str | State[Any]"]:
    """`function`, whose mistakes of the user end as one line in a failed run, and not as a traceback."""
    patient = outlasting(function)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> "str | State[Any]":
        try:
            return patient(*args, **kwargs)
        except AbsentiaError as error:
            get_run_logger().error("error: %s", error)
            return Failed(message=f"error: {error}")

    return run


@flow(name="build-shards", flow_run_name="{out}", persist_result=False)
@_told
def build_shards(
    recipe: Recipe = "",
    out: Annotated[str, Field(description="folder of the build; made if it is not there")] = BUILD,
    workers: Workers = 0,
    scheduler: Scheduler = "",
) -> str:
    """Build shards from a recipe; the manifest's place comes back."""
    _build(recipe or demo_recipe(), out, workers=workers, scheduler=scheduler)
    return files.join(out, "manifest.json")


@flow(name="mine-negatives", flow_run_name="{out}", persist_result=False)
@_told
def mine_negatives(
    build: Build = "",
    out: Annotated[str, Field(description="the table to write; its gallery comes beside it")] = "demo/mined.parquet",
    encoder: Annotated[str, Field(description="auto, conse, or any that open_clip has; see docs/encoders.md")] = "auto",
    predictions: Tables = (),
    decisions: Annotated[Sequence[str], Field(description="a person's decisions, from the gallery")] = (),
    max_false_negative_rate: Annotated[float, Field(gt=0, lt=1, description="the audit chooses the margin")] = (
        DEFAULT_RATE
    ),
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Workers = 0,
    scheduler: Scheduler = "",
) -> str:
    """Mine hard negatives from a finished build; the table's place comes back."""
    from miners.hard_negatives import Request, mine_build

    folder, place = build or _demo_build(workers, scheduler), files.absolute(out) if scheduler else out
    settings = Mine(
        encoder=encoder,
        predictions=list(predictions),
        decisions=list(decisions),
        max_false_negative_rate=max_false_negative_rate,
    )
    with open_tasks(place, workers, scheduler) as executor, ArtifactProgress() as progress:
        record = mine_build(Request(build=folder, out=place, seed=seed), settings, executor=executor, progress=progress)
    publish_mining(record, folder, out)
    return out


@flow(name="train-student", flow_run_name="{out}", persist_result=False)
@_told
def train_student(
    build: Build = "",
    out: Annotated[str, Field(description="folder of the run; a run that was cut short goes on")] = "demo/trained",
    config: Config = "",
    epochs: Epochs = 0,
    split: Annotated[Literal["train", "val", "test"], Field(description="on which it is evaluated")] = "test",
) -> str:
    """Train a student on a build and evaluate it; the evaluation's place comes back."""
    from flows.training import evaluate, train
    from student.config import read_config

    folder = build or _demo_build(0, "")
    learning = read_config(config or (None if build else CONFIG))
    with ArtifactProgress() as progress:
        run_as_task("train", partial(train, folder, out, config=learning, epochs=epochs or None), progress)
        found = run_as_task("evaluate", partial(evaluate, out, folder, split=split), progress)
    publish_evaluation(found, out)
    return files.join(out, "evaluation")


@flow(name="close-the-loop", flow_run_name="{out}", persist_result=False)
@_told
def close_the_loop(
    recipe: Recipe = "",
    out: Annotated[str, Field(description="folder of the loop, on this machine")] = "demo/loop",
    rounds: Annotated[int, Field(ge=1, description="students that are trained, each on its own build")] = 2,
    config: Config = "",
    epochs: Epochs = 0,
    false_alarms: Annotated[
        float, Field(gt=0, lt=1, description="of train's absent prompts from round 2 on, where the recipe gives none")
    ] = FALSE_ALARM_SHARE,
    workers: Workers = 0,
    scheduler: Scheduler = "",
) -> str:
    """Build, train, judge, and build again with what the student took for present; the report's place comes back."""
    from flows.rounds import Learning
    from flows.rounds import close_the_loop as close_plain
    from student.config import read_config

    name, place = recipe or demo_recipe(), files.absolute(out) if scheduler else out
    learning = Learning(config=read_config(config or (None if recipe else CONFIG)), epochs=epochs or None)
    with open_tasks(place, workers, scheduler) as executor, ArtifactProgress() as progress:
        found = close_plain(
            load_recipe(name),
            place,
            executor=executor,
            progress=progress,
            rounds=rounds,
            learning=learning,
            share=false_alarms,
            run=run_as_task,
            where=name,
        )
    last = files.join(out, found.rounds[-1].build)
    publish_build(read_manifest(last), last)
    publish_loop(found, out)
    return files.join(out, found.report)


def _build(recipe: str, out: str, *, workers: int, scheduler: str) -> None:
    """A finished build, told in artifacts."""
    asked, place = load_recipe(recipe), files.absolute(out) if scheduler else out
    with open_tasks(place, workers, scheduler) as executor, ArtifactProgress() as progress:
        manifest = build_plain(asked, place, executor=executor, progress=progress, where=recipe)
    publish_build(manifest, out)


def _demo_build(workers: int, scheduler: str) -> str:
    """The folder of the demo world's build, built where it is not."""
    _build(demo_recipe(), BUILD, workers=workers, scheduler=scheduler)
    return BUILD
