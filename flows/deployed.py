"""The flows that Prefect deploys: typed parameters in, the plain functions beneath, artifacts for the UI out.

`prefect.yaml` names them. What they build is what the plain commands build, byte for byte.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Failed
from pydantic import Field

from flows.artifacts import publish_build, publish_evaluation, publish_mining
from flows.building import build as build_plain
from flows.commands import run_module
from flows.progress_artifacts import ArtifactProgress
from flows.tasks import open_tasks
from manifests import files
from manifests.errors import AbsentiaError
from manifests.manifest import Manifest, encode_manifest
from manifests.recipe_file import load_recipe
from student.readings import read_json

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path("demo")  # from the folder that the worker runs in

Workers = Annotated[int, Field(ge=0, description="processes on this machine; 0: one per core")]
Scheduler = Annotated[str, Field(description="address of a Dask scheduler, as tcp://host:8786; empty: this machine")]
P = ParamSpec("P")


def _told(function: Callable[P, str]) -> Callable[P, "str | State[Any]"]:
    """`function`, whose mistakes of the user end as one line in a failed run, and not as a traceback."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> "str | State[Any]":
        try:
            return function(*args, **kwargs)
        except AbsentiaError as error:
            get_run_logger().error("error: %s", error)
            return Failed(message=f"error: {error}")

    return run


@flow(name="build-shards", flow_run_name="{out}", persist_result=False)
@_told
def build_shards(
    recipe: Annotated[str, Field(description="path or URL of a RECIPE.toml; empty: the demo world")] = "",
    out: Annotated[str, Field(description="folder of the build; made if it is not there")] = "demo/build",
    workers: Workers = 0,
    scheduler: Scheduler = "",
) -> str:
    """Build shards from a recipe; the manifest's place comes back."""
    _build(recipe or _demo_recipe(), out, workers=workers, scheduler=scheduler)
    return files.join(out, "manifest.json")


@flow(name="mine-negatives", flow_run_name="{out}", persist_result=False)
@_told
def mine_negatives(
    build: Annotated[str, Field(description="folder of a finished build")] = "demo/build",
    out: Annotated[str, Field(description="the table to write")] = "demo/negatives.parquet",
    encoder: Annotated[str, Field(description="auto, conse, or any that open_clip has; see docs/mining.md")] = "auto",
    predictions: Annotated[Sequence[str], Field(description="tables of student.predict, for false alarms")] = (),
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Workers = 0,
    scheduler: Scheduler = "",
) -> str:
    """Mine hard negatives from a finished build; the table's place comes back."""
    from manifests.recipe import Mine
    from miners.hard_negatives import Request, mine_build

    request = Request(build=build, out=out, seed=seed)
    settings = Mine(encoder=encoder, predictions=list(predictions))
    with open_tasks(workers, scheduler, tags=(_storage(out),)) as executor, ArtifactProgress() as progress:
        record = mine_build(request, settings, executor=executor, progress=progress)
    publish_mining(record, out)
    return out


@flow(name="train-student", flow_run_name="{out}", persist_result=False)
@_told
def train_student(
    build: Annotated[str, Field(description="folder of a finished build")] = "demo/build",
    out: Annotated[str, Field(description="folder of the run; a run that was cut short goes on")] = "demo/student",
    config: Annotated[str, Field(description="a FILE.toml of model, losses and optimiser; empty: the defaults")] = "",
    epochs: Annotated[int, Field(ge=0, description="of phase 2; 0: the default")] = 0,
    split: Annotated[Literal["train", "val", "test"], Field(description="on which it is evaluated")] = "test",
) -> str:
    """Train a student on a build and evaluate it; the evaluation's place comes back."""
    tell = get_run_logger().info
    given = [*(("--config", config) if config else ()), *(("--epochs", str(epochs)) if epochs else ())]
    if _is_trained(out):
        tell(f"{out}: is trained already; to train anew, choose another folder, or delete it first")
    else:
        begun = files.exists(files.join(out, "last.safetensors"))
        train = task(run_module, name="train", task_run_name="train", cache_policy=NO_CACHE, persist_result=False)
        train("student.train", [build, "--out", out, *given, *(["--resume"] if begun else [])], tell=tell)
    judge = task(run_module, name="evaluate", task_run_name="evaluate", cache_policy=NO_CACHE, persist_result=False)
    judge("student.evaluate", [out, build, "--split", split], tell=tell)
    publish_evaluation(out)
    return files.join(out, "evaluation")


def _build(recipe: str, out: str, *, workers: int, scheduler: str) -> Manifest:
    """The finished build with its contact sheet, told in artifacts."""
    from shards.show import View, show_build

    asked = load_recipe(recipe)
    with open_tasks(workers, scheduler, tags=(_storage(out),)) as executor, ArtifactProgress() as progress:
        manifest = build_plain(asked, out, executor=executor, progress=progress, where=recipe)
    page = files.join(out, "work", f"page-{hashlib.sha256(encode_manifest(manifest)).hexdigest()[:16]}.html")
    if not files.exists(page):
        show_build(out, page, View(quiet=True))
    publish_build(manifest, page)
    return manifest


def _is_trained(run: str) -> bool:
    """Whether training into this folder came to its end."""
    from student.run_record import RUN_NAME, RunRecord

    record = files.join(run, RUN_NAME)
    return files.exists(record) and read_json(record, RunRecord).finished


def _storage(uri: str) -> str:
    """The tag of a part by where it writes, so that a concurrency limit can spare a disk or a bucket."""
    return "storage-disk" if files.is_local(uri) else f"storage-{uri.partition('://')[0]}"


def _demo_recipe() -> str:
    """The recipe over the demo world, which is written where it is not there yet."""
    world = DEMO / "world"
    command = [sys.executable, str(ROOT / "examples" / "demo_world.py"), "--out", str(world), "--images", "1800"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  (our own script)
    if done.returncode:
        raise AbsentiaError(f"{world}: the demo world cannot be written: {done.stderr.strip()}")
    return str(world / "demo.toml")
