"""An executor on a real Dask cluster of processes: what it hands back, and how each fault of a cluster ends."""

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

from flows import dask_cluster as fitness
from flows.dask_executor import DaskExecutor, Patience, dask_executor
from manifests import files
from manifests.errors import BuildError, SourceError
from manifests.stage import Step
from tests.dask_service import LIMIT_S, Cluster, dask_cluster
from tests.servers import free_port, wait_for


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers that nobody harms."""
    with dask_cluster(tmp_path_factory.mktemp("dask") / "cluster") as found:
        yield found


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[DaskExecutor]:
    with dask_executor(cluster.address) as found:
        yield found


def failure(future: Future[Any]) -> str:
    """What a call failed with, on purpose."""
    error = future.exception(LIMIT_S)
    assert isinstance(error, BuildError), error
    return str(error)


def refused(address: str, patience: Patience) -> str:
    """Why there is no executor at `address`."""
    with pytest.raises(BuildError) as refusal, dask_executor(address, patience=patience):
        pass
    return str(refusal.value)


def of_version(folder: Path, package: str, version: str) -> dict[str, str]:
    """Variables of a process in which `package` says that it has that version."""
    told = folder / f"{package}-{version}.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def gone(address: str) -> str:
    return (
        f"{address}: the connection to the Dask scheduler was lost; expected it to run until the end. "
        "Start it again and run the same command again to go on; finished parts are kept"
    )


def test_calls_come_back_with_what_they_returned_or_raised(executor: DaskExecutor, tmp_path: Path) -> None:
    powers = [executor.submit(pow, 2, exponent) for exponent in range(20)]
    missing = executor.submit(files.require_file, str(tmp_path / "none"), named_by="[mine]")
    assert [future.result(LIMIT_S) for future in powers] == [2**exponent for exponent in range(20)]
    assert executor.submit(os.getpid).result(LIMIT_S) != os.getpid()
    with pytest.raises(SourceError) as here:
        files.require_file(str(tmp_path / "none"), named_by="[mine]")
    assert str(missing.exception(LIMIT_S)) == str(here.value)
    assert isinstance(missing.exception(), SourceError)
    assert isinstance(executor.submit(os.stat, str(tmp_path / "none")).exception(LIMIT_S), FileNotFoundError)


def test_leaving_waits_for_what_was_submitted(cluster: Cluster) -> None:
    with dask_executor(cluster.address) as executor:
        futures = [executor.submit(time.sleep, 0.2) for _ in range(3)]
    assert all(future.done() for future in futures)


def test_leaving_by_an_error_takes_back_what_has_not_begun(cluster: Cluster, tmp_path: Path) -> None:
    begun_s = time.monotonic()

    def leave_early() -> None:
        with dask_executor(cluster.address) as executor:
            for number in range(8):
                executor.submit(time.sleep, 2.0)
                executor.submit(os.mkdir, tmp_path / str(number))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave_early()
    with dask_executor(cluster.address) as executor:
        wait([executor.submit(time.sleep, 0.0) for _ in range(4)])  # after the two that had begun
    assert time.monotonic() - begun_s < LIMIT_S
    assert len(list(tmp_path.iterdir())) < 8


def test_parts_in_flight_follow_the_size_of_the_cluster(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", num_workers=1) as cluster, dask_executor(cluster.address) as executor:
        assert executor.at_once == 2
        cluster.add_worker()
        wait_for("a second worker is counted", lambda: executor.at_once == 4, cluster.log("worker-1"))
        assert executor.submit(pow, 2, 3).result(LIMIT_S) == 8


def test_dask_keeps_its_own_log_to_itself_and_gives_it_back(cluster: Cluster) -> None:
    before = logging.getLogger("distributed").level
    with dask_executor(cluster.address):
        assert logging.getLogger("distributed").level > logging.CRITICAL
    assert logging.getLogger("distributed").level == before


def test_without_the_package_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert refused("tcp://there:8786", Patience()) == (
        "tcp://there:8786: needs the package distributed. In Absentia's folder: pip install -e '.[dask]'"
    )


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1", "http://127.0.0.1:80", "tls://127.0.0.1:80"])
def test_an_address_that_is_none_is_told(address: str) -> None:
    said = refused(address, Patience())
    assert said.startswith(f"{address}: no Dask scheduler answers within 5 s; expected one at tcp://HOST:PORT (")
    assert said.endswith("Start one (dask scheduler), or check the address and that this machine may reach it")


def test_nobody_and_somebody_who_says_nothing_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitness, "CONNECT_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for port in (free_port(), silent.getsockname()[1]):
            begun_s = time.monotonic()
            assert "no Dask scheduler answers within 0.5 s" in refused(f"tcp://127.0.0.1:{port}", Patience())
            assert time.monotonic() - begun_s < LIMIT_S / 2


def test_a_folder_that_the_workers_do_not_see_is_told(executor: DaskExecutor, tmp_path: Path) -> None:
    executor.require_sees(str(tmp_path / "out"))
    assert files.names_in(str(tmp_path / "out")) == []
    with pytest.raises(BuildError) as refusal:
        executor.require_sees("memory://out")  # of each process its own
    assert re.fullmatch(
        r"memory://out: not seen by 2 of 2 Dask workers, first tcp://127.0.0.1:\d+; expected one folder for all. "
        r"Choose an --out on a disk that all machines share, or in a bucket",
        str(refusal.value),
    )


def test_a_worker_that_came_later_and_does_not_see_the_stage_is_told(executor: DaskExecutor, tmp_path: Path) -> None:
    step: Step[Any, Any] = Step("write", abs, str(tmp_path / "elsewhere"))
    said = failure(executor.submit(step, -2))
    assert re.fullmatch(
        rf"{tmp_path}/elsewhere: not seen by the Dask worker at tcp://127.0.0.1:\d+; expected one folder for all. "
        "Choose an --out on a disk that all machines share, or in a bucket",
        said,
    )


def test_other_versions_are_refused_before_the_start_and_on_workers_that_come_later(tmp_path: Path) -> None:
    other = of_version(tmp_path / "other", "absentia", "99.0")
    with dask_cluster(tmp_path / "dask", num_workers=1) as cluster:
        with dask_executor(cluster.address) as executor:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
            late = executor.submit(pow, 2, 3)
            cluster.add_worker(**other)
            said = failure(late)
            assert "the Dask worker at tcp://127.0.0.1:" in said
        refusal = refused(cluster.address, Patience())
    for text in (said, refusal):
        assert re.search(
            r"has other versions than this command: absentia \S+ here, 99.0 there; expected the same", text
        )
        assert text.endswith("Install the same environment there (constraints.txt), and start it again")
    assert f"{cluster.address}: the worker at tcp://" in refusal


def test_another_version_of_the_scheduler_is_refused_where_it_matters(tmp_path: Path) -> None:
    variables = of_version(tmp_path / "other", "msgspec", "99.0") | of_version(tmp_path / "other", "numpy", "99.0")
    with dask_cluster(tmp_path / "dask", num_workers=1, **variables) as cluster:
        said = refused(cluster.address, Patience())
    assert f"{cluster.address}: the scheduler has other versions than this command: msgspec" in said
    assert "numpy" not in said


def test_of_python_the_minor_version_decides() -> None:
    here = {"python": "3.11.7.final.0", "numpy": "2.4.6"}
    assert fitness.differences(here, {"python": "3.11.9.final.0", "numpy": "2.4.6"}, ("numpy",)) == []
    assert fitness.differences(here, {"python": "3.12.1.final.0", "numpy": None}, ("numpy",)) == [
        "Python 3.11 here, 3.12 there",
        "numpy 2.4.6 here, missing there",
    ]


def test_a_cluster_without_workers_is_given_up(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", num_workers=0) as cluster:
        assert refused(cluster.address, Patience(worker_s=0.5)) == (
            f"{cluster.address}: the Dask cluster has had no worker for 0.5 s; expected one or more. Start some "
            f"(dask worker {cluster.address}) and run the same command again to go on"
        )


def test_a_part_that_kills_its_workers_is_named(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path / "dask", DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="1") as cluster,
        dask_executor(cluster.address) as executor,
    ):
        said = failure(executor.submit(os._exit, 9))
    assert re.fullmatch(
        rf"{cluster.address}: a call: 2 Dask workers died while they ran it, the last at tcp://127.0.0.1:\d+; expected "
        r"one to live. Look into its log \(often memory: give workers more, or fewer threads\), then run the same "
        r"command again to go on",
        said,
    )


def test_workers_that_all_die_and_do_not_come_back_are_given_up(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path / "dask") as cluster,
        dask_executor(cluster.address, patience=Patience(worker_s=1.0)) as executor,
    ):
        waiting = [executor.submit(time.sleep, LIMIT_S) for _ in range(3)]
        for worker in cluster.workers:
            os.kill(worker.pid, signal.SIGKILL)
        assert {failure(future).partition(";")[0] for future in waiting} == {
            f"{cluster.address}: the Dask cluster has had no worker for 1 s"
        }


def test_a_part_of_a_killed_worker_runs_on_another(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask") as cluster, dask_executor(cluster.address) as executor:
        pids = {worker.pid for worker in cluster.workers}
        running = [executor.submit(time.sleep, 1.0) for _ in range(4)]
        os.kill(cluster.workers[0].pid, signal.SIGKILL)
        assert [future.result(LIMIT_S) for future in running] == [None] * 4
        assert executor.submit(os.getpid).result(LIMIT_S) in pids - {cluster.workers[0].pid}


def test_a_frozen_worker_costs_its_part(tmp_path: Path) -> None:
    with (
        dask_cluster(tmp_path / "dask", DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="3s") as cluster,
        dask_executor(cluster.address) as executor,
    ):
        running = [executor.submit(time.sleep, 1.0) for _ in range(4)]
        os.kill(cluster.workers[0].pid, signal.SIGSTOP)
        assert [future.result(LIMIT_S) for future in running] == [None] * 4


def test_calls_taken_back_when_the_command_is_stopped_keep_nothing_waiting(cluster: Cluster) -> None:
    for step in range(20):  # how a client ends is a race between its thread and this one
        with contextlib.suppress(KeyboardInterrupt), dask_executor(cluster.address) as executor:
            for _ in range(300):
                executor.submit(time.sleep, 0.0)
            time.sleep(step / 50)
            raise KeyboardInterrupt
    with dask_executor(cluster.address) as executor:
        assert executor.submit(pow, 2, 3).result(LIMIT_S) == 8


def test_a_part_that_hangs_is_named_and_the_command_ends(cluster: Cluster) -> None:
    begun_s = time.monotonic()
    with dask_executor(cluster.address, patience=Patience(part_s=1.0)) as executor:
        said = failure(executor.submit(time.sleep, 6.0))
    assert time.monotonic() - begun_s < 6.0 + LIMIT_S / 2
    assert said == (
        f"{cluster.address}: no part has ended for 1 s, and 1 are waited for, first a call; expected minutes. Look at "
        "the workers' logs and at the disk that they read, restart the workers, and run the same command again to go on"
    )


def test_a_killed_scheduler_ends_every_call_and_takes_no_more(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask") as cluster, dask_executor(cluster.address) as executor:
        waiting = [executor.submit(time.sleep, LIMIT_S) for _ in range(3)]
        assert cluster.scheduler is not None
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
        assert {failure(future) for future in waiting} == {gone(cluster.address)}
        with pytest.raises(BuildError) as refusal:
            executor.submit(pow, 2, 3)
        assert str(refusal.value) == gone(cluster.address)
        with pytest.raises(BuildError) as blind:
            executor.require_sees(str(tmp_path))
        assert str(blind.value) == gone(cluster.address)


def test_a_scheduler_killed_while_it_hands_a_result_on_is_told_as_such(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask") as cluster, dask_executor(cluster.address) as executor:
        waiting = [executor.submit(bytes, 300_000_000) for _ in range(2)]  # so large that its way takes a while
        sent = [found for _, found in executor._sent.values()]
        wait_for("a call that ran", lambda: any(found.status == "finished" for found in sent))
        assert cluster.scheduler is not None
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
        assert {failure(future) for future in waiting} == {gone(cluster.address)}


def test_a_frozen_scheduler_is_given_up(tmp_path: Path) -> None:
    with dask_cluster(tmp_path / "dask", num_workers=1) as cluster:
        with dask_executor(cluster.address, patience=Patience(answer_s=1.0)) as executor:
            waiting = executor.submit(time.sleep, LIMIT_S)
            assert cluster.scheduler is not None
            os.kill(cluster.scheduler.pid, signal.SIGSTOP)
            assert failure(waiting) == gone(cluster.address)
            left_s = time.monotonic()
        assert time.monotonic() - left_s < LIMIT_S / 2
