"""A real PostgreSQL in a folder of its own, run by a user that is not root, as it demands."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

DEBIAN = Path("/usr/lib/postgresql")
USERS = ("postgres", "nobody")  # as whom it runs where the tests are root
LIMIT_S = 240.0
MISSING = "no PostgreSQL on this machine"


def find_programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; Debian leaves them out of PATH."""
    found = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("postgres")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


@dataclass(slots=True, kw_only=True)
class Postgres:
    """A cluster that can be stopped and started again."""

    programs: Path
    folder: Path
    port: int
    password: str
    user: str | None  # None: whoever runs the tests
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def start(self) -> None:
        """Start it as its image does once the cluster is made, and wait until it takes connections."""
        assert self.command[0] == "postgres", self.command
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), *self.command[1:]],
                env={"PATH": "/usr/bin:/bin", "PGDATA": str(self.folder / "data"), "LC_ALL": "C.UTF-8"},
                user=self.user,
                cwd="/",
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, *, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it as its image is stopped: connections are cut, what was committed stays."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(LIMIT_S)
            self.process = None

    def ask(self, sql: str, *, database: str = "prefect") -> str:
        """What `psql` answers to one statement."""
        command = [str(self.programs / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return self.client(command, database=database)

    def client(self, command: Sequence[str], *, database: str = "prefect", given: IO[str] | None = None) -> str:
        """What one of PostgreSQL's own clients says, logged in with the password, when it reads `given`."""
        environment = {
            "PATH": f"{self.programs}:/usr/bin:/bin",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "prefect",
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }
        done = subprocess.run(
            command, env=environment, stdin=given, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextlib.contextmanager
def postgres(*, port: int, password: str, command: Sequence[str]) -> Iterator[Postgres]:
    """A new cluster that runs `command`, with the user of docker-compose.yml, made as its image makes it."""
    programs = find_programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="absentia-postgres-"))
    made = Postgres(programs=programs, folder=folder, port=port, password=password, user=_other_user(), command=command)
    try:
        _make(made)
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make(made: Postgres) -> None:
    """`initdb` with a password, as the image's entry point calls it; only the port and the socket are the test's."""
    secret = made.folder / "password"
    secret.write_text(made.password)
    for path in (made.folder, secret):
        if made.user is not None:
            shutil.chown(path, made.user)
    command = [str(made.programs / "initdb"), "-D", str(made.folder / "data"), "-U", "prefect", "-E", "UTF8"]
    command += ["--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    done = subprocess.run(
        command, user=made.user, cwd="/", env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with (made.folder / "data" / "postgresql.conf").open("a") as conf:
        conf.write(f"port = {made.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")


def _other_user() -> str | None:
    if os.getuid() != 0:
        return None
    known = {each.pw_name for each in pwd.getpwall()}
    return next(name for name in USERS if name in known)
