"""Prefect on one machine in one command: `python -m flows.serve` starts the server, the deployments and a worker.

Ctrl-C ends them in order: first the worker with its runs, which still tell the server that they were cut short, then
the server. What a run had finished lies in its folder, and a retry goes on from there.
"""

import argparse
import fcntl
import http
import http.client
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.prefect_commands import Commands, StoppedError, stopped_by_signals
from flows.process_tree import adopt_orphans
from manifests.errors import AbsentiaError
from manifests.stage import run_command

HOST = "127.0.0.1"
POOL = "absentia"
PORT = 4200  # Prefect's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says."""

    port: int
    folder: Path


def parse(argv: Sequence[str] | None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default: {PORT}")
    parser.add_argument(
        "--folder",
        default=os.environ.get("PREFECT_HOME") or "~/.prefect",
        metavar="DIR",
        help="where Prefect's database and the logs lie (default: PREFECT_HOME or ~/.prefect)",
    )
    found = parser.parse_args(argv)
    if not 0 < found.port < 2**16:
        parser.error(f"--port {found.port}: expected 1 to 65535")
    return Options(port=found.port, folder=Path(found.folder).expanduser().resolve())


def main(argv: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, 1 for a user's mistake; a wrong option exits with 2."""
    options = parse(argv)
    return run_command(lambda: _run(options))


def _run(options: Options) -> int:
    project = Path.cwd()
    if not (project / "prefect.yaml").exists():
        raise AbsentiaError(
            f"{project}: expected prefect.yaml, which names the deployments; run this in the repository"
        )
    _make_folder(options.folder)
    with (options.folder / "absentia-serve.lock").open("w") as lock:
        _require_sole(lock.fileno(), options.folder)
        _require_free(options.port)
        adopt_orphans()
        commands = Commands(folder=options.folder, environment=_environment(options), stop=stopped_by_signals())
        try:
            _start(commands, options, project)
            _say(_how_to_go_on(options))
            commands.wait(lambda: False, what="serving", limit_s=float("inf"))
        except StoppedError:
            _say("Stopping: runs are cut short; a retry in the UI, or the same command, goes on where they were")
        finally:
            commands.end()
    _say("Stopped")
    return 0


def _start(commands: Commands, options: Options, project: Path) -> None:
    """Server, work pool, deployments, worker: each needs the one before."""
    _say("Starting the Prefect server (the first time takes some seconds more)")
    port = ("--host", HOST, "--port", str(options.port))
    # in its own folder, so that a .env in the repository, as the compose file has one, does not set its password
    commands.start("server", "server", "start", *port, "--analytics-off", cwd=options.folder)
    commands.wait(lambda: _answers(options.port), what="the start of the server")
    _say("Deploying what prefect.yaml names")
    commands.run("pool", "work-pool", "create", POOL, "--type", "process", cwd=project)
    commands.run("deploy", "deploy", "--all", cwd=project)
    worker = commands.start("worker", "worker", "start", "--pool", POOL, "--type", "process", cwd=project)
    commands.wait(lambda: b"started!" in worker.log.read_bytes(), what="the start of the worker")


def _how_to_go_on(options: Options) -> str:
    """Where to look and what to type next.

    `prefect profile use local` would not do: of a home that has no profiles yet it says that it did, and is not heeded.
    """
    own = Path(sys.executable).with_name("prefect")
    prefect = "prefect" if shutil.which("prefect") == str(own) else str(own)
    url = f"http://{HOST}:{options.port}"
    lines = [
        "",
        f"The UI:    {url}",
        f"Its logs:  {options.folder}/absentia-server.log, absentia-worker.log",
        "",
        "In a second terminal:",
        "",
        f"    export PREFECT_API_URL={url}/api",
        f"    {prefect} deployment run build-shards",
        "",
        "Ctrl-C stops everything",
    ]
    return "\n".join(lines)


def _environment(options: Options) -> dict[str, str]:
    """That of the commands: no profile of the user has a say in it, and nothing is told to anybody."""
    mine = {name: value for name, value in os.environ.items() if name not in {"PREFECT_PROFILE", "PREFECT_API_KEY"}}
    password = mine.get("PREFECT_SERVER_API_AUTH_STRING")
    direct = ",".join(filter(None, [mine.get("NO_PROXY") or mine.get("no_proxy"), HOST]))
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "2",  # so that a run starts soon after it was asked for
        "PREFECT_CLIENT_MAX_RETRIES": "8",  # a server that is restarted is waited for
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        **mine,
        **({"PREFECT_API_AUTH_STRING": password} if password else {}),
        **dict.fromkeys(("NO_PROXY", "no_proxy"), direct),
        "PREFECT_HOME": str(options.folder),
        "PREFECT_PROFILES_PATH": str(options.folder / "absentia-no-profiles.toml"),
        "PREFECT_API_URL": f"http://{HOST}:{options.port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_COLORS": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "absentia-serve.lock").touch()
    except OSError as error:
        raise AbsentiaError(
            f"{folder}: {error.strerror}; expected a folder to write to. Choose another --folder"
        ) from error


def _require_sole(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise AbsentiaError(
            f"{folder}: another `make serve` runs with it; stop that, or choose another --folder"
        ) from error


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise AbsentiaError(
                f"port {port} cannot be had: {error.strerror}. Stop what uses it, or choose another --port"
            ) from error


def _answers(port: int) -> bool:
    """Whether the server is up; asked without a proxy, whatever the environment says."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
