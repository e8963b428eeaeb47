"""Flow overhead: a build as a Prefect flow beside the plain command, and what a rerun of a finished build takes.

    python benchmarks/flow_overhead.py [--gigabytes 2] [--shard-samples 20] [--rounds 1] [--workers 2] [--json FILE]

`python -m flows.serve` starts a server, a worker and the deployments in a folder of its own. Then the same recipe is
built by the plain command, by plain functions that also make the contact sheet, as the flow does, by the flow in a
process of its own (as the worker starts it), and by the deployment, from the moment when a run is asked for. One shard
is one task run. The flow's imports, its start and its artifacts are counted as overhead. Prefect's own start is a flow
that does nothing, in a process of its own.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sa1b_like import HEIGHT, RECIPE, WIDTH, write_world
from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, report
from manifests import files

HERE = Path(__file__).resolve().parent
SHARE, START_S, RERUN_S = 0.05, 10.0, 2.0  # the bounds: of the plain build, for Prefect, of a rerun
PLAIN, FUNCTIONS, FLOW = "plain command", "functions: build, contact sheet", "flow"
DEPLOYED, NOTHING = "deployment, from asking on", "flow that does nothing"
_FUNCTIONS = """
import sys
from flows.build_shards import main
from shards.show import View, show_build
assert not main([sys.argv[1], "--out", sys.argv[2], "--workers", sys.argv[3]])
show_build(sys.argv[2], sys.argv[2] + "/work/page.html", View(quiet=True))
"""
_FLOW = (
    "import sys; from flows.deployed import build_shards as b; b(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))"
)
_NOTHING = "from prefect import flow\n@flow\ndef nothing(): ...\nnothing()"
_ENDS = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running server with its worker."""

    url: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a process that runs a flow."""
        return {**os.environ, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.home), "DO_NOT_TRACK": "1"}

    def run_deployment(self, parameters: Mapping[str, object]) -> None:
        """Run the deployment to its end."""
        deployment = self._ask("/deployments/name/build-shards/build-shards")["id"]
        asked = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        run = self._ask(f"/deployments/{deployment}/create_flow_run", asked)["id"]
        while (state := self._ask(f"/flow_runs/{run}")["state_type"]) not in _ENDS:
            time.sleep(0.05)
        if state != "COMPLETED":
            raise SystemExit(f"the deployment's run ended {state}; expected it to complete")

    def num_tasks(self) -> int:
        """Of how many task runs it knows."""
        return int(self._ask("/task_runs/count", {}))

    def _ask(self, way: str, body: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  (JSON)
        """What the server answers to GET or, with a body, to POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{way}", data, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  (our own server)
            return json.load(answer)


@contextlib.contextmanager
def served(home: Path) -> Iterator[Service]:
    """What `make serve` starts, ended as Ctrl-C ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "flows.serve", "--port", str(port), "--folder", str(home)]
    process = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE)
    try:
        if not any(b"Ctrl-C" in line for line in process.stdout or ()):
            raise SystemExit(f"the server did not start; its logs lie in {home}")
        yield Service(url=f"http://127.0.0.1:{port}/api", home=home)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Builds:
    """The ways that are timed; each builds into a folder of its own."""

    recipe: Path
    folder: Path
    service: Service
    num_workers: int

    def builds(self) -> list[Way]:
        """All of them, each into a folder that is not there."""
        runs = {FUNCTIONS: self._functions, **self._runs()}
        return [Way(name, run, partial(self._clear, name)) for name, run in runs.items()]

    def reruns(self) -> list[Way]:
        """All of them upon what they finished, and Prefect's own start."""
        ways = [Way(name, run) for name, run in self._runs().items()]
        return [*ways, Way(NOTHING, lambda: self._python(_NOTHING))]

    def require_same(self) -> int:
        """The number of shards; stops unless all ways wrote the same ones."""
        plain, *others = (
            {path.name: files.sha256_file(str(path)) for path in Path(self._out(name), "shards").iterdir()}
            for name in (PLAIN, FUNCTIONS, FLOW, DEPLOYED)
        )
        if any(other != plain for other in others):
            raise SystemExit("the ways wrote other shards than the plain command; expected the same bytes")
        return len(plain)

    def _runs(self) -> dict[str, Callable[[], None]]:
        return {PLAIN: self._plain, FLOW: self._flow, DEPLOYED: self._deployed}

    def _out(self, way: str) -> str:
        return str(self.folder / way.split(maxsplit=1)[0].strip(",:"))

    def _clear(self, way: str) -> None:
        shutil.rmtree(self._out(way), ignore_errors=True)

    def _plain(self) -> None:
        options = [str(self.recipe), "--out", self._out(PLAIN), "--workers", str(self.num_workers)]
        command = [sys.executable, "-m", "flows.build_shards", *options]
        subprocess.run(command, check=True, cwd=HERE.parent, capture_output=True)

    def _functions(self) -> None:
        self._python(_FUNCTIONS, str(self.recipe), self._out(FUNCTIONS), str(self.num_workers))

    def _flow(self) -> None:
        self._python(_FLOW, str(self.recipe), self._out(FLOW), str(self.num_workers))

    def _deployed(self) -> None:
        given = {"recipe": str(self.recipe), "out": self._out(DEPLOYED), "workers": self.num_workers}
        self.service.run_deployment(given)

    def _python(self, text: str, *arguments: str) -> None:
        command = [sys.executable, "-c", text, *arguments]
        subprocess.run(command, check=True, cwd=HERE.parent, env=self.service.environment, capture_output=True)


def measure(gigabytes: float, shard_samples: int, rounds: int, num_workers: int) -> Figures:
    """The figures of one run."""
    conditions = machine("prefect")
    with tempfile.TemporaryDirectory() as name, served(Path(name) / "prefect") as service:
        folder = Path(name)
        num_pictures = write_world(folder / "world", round(gigabytes * 1e9))
        recipe = folder / "world" / RECIPE
        recipe.write_text(re.sub("shard_samples = .*", f"shard_samples = {shard_samples}", recipe.read_text()))
        builds = Builds(recipe=recipe, folder=folder, service=service, num_workers=num_workers)
        alternate(builds.reruns()[-1:], 1)  # once unmeasured: the server fills its caches
        before = service.num_tasks()
        times = alternate(builds.builds(), rounds, settle=True)
        num_tasks = (service.num_tasks() - before) // (2 * rounds)
        again = alternate(builds.reruns(), max(3, rounds))
        num_shards = builds.require_same()
    return Figures(
        benchmark="flow_overhead",
        title="Flows beside the plain command",
        command=f"python benchmarks/flow_overhead.py --gigabytes {gigabytes:g} --shard-samples {shard_samples} "
        f"--rounds {rounds} --workers {num_workers}",
        conditions={
            **conditions,
            "pictures": f"{num_pictures} of {WIDTH} x {HEIGHT}, {gigabytes:g} GB of tars",
            "shards": num_shards,
            "task runs of a build": num_tasks,
            "workers": num_workers,
            "rounds": rounds,
            "database": "SQLite, as `make serve` has it",
        },
        rows=_rows(times, again),
        claims=_claims(times, again),
    )


def _rows(times: Mapping[str, list[float]], again: Mapping[str, list[float]]) -> list[dict[str, Value]]:
    build: list[dict[str, Value]] = [
        {"way": name, "build s": median(found), "rerun s": median(again[name]) if name in again else ""}
        for name, found in times.items()
    ]
    return [*build, {"way": NOTHING, "build s": "", "rerun s": median(again[NOTHING])}]


def _claims(times: Mapping[str, list[float]], again: Mapping[str, list[float]]) -> list[Claim]:
    plain, flow = median(times[FUNCTIONS]), median(times[FLOW])
    own_start = median(again[NOTHING])
    figures = {
        f"the flow's time beyond that of the functions and {SHARE:.0%} of it": (flow - (1 + SHARE) * plain, START_S),
        "rerun of a finished build, plain": (median(again[PLAIN]), RERUN_S),
        "rerun of a finished build, flow, beyond Prefect's own start": (median(again[FLOW]) - own_start, RERUN_S),
    }
    return [Claim(name=name, value=s, bound=bound, at_least=False, unit="s") for name, (s, bound) in figures.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--shard-samples", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    report(measure(options.gigabytes, options.shard_samples, options.rounds, options.workers), options.json)


if __name__ == "__main__":
    main()
