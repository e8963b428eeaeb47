"""One build at a time in a bucket's folder: a lease that its holder renews, and that a dead holder loses by itself.

A bucket knows no locks, but of several writers that put an object only if none is there yet, one succeeds. No clock is
compared with another one's: a lease is dead once it was watched for a while and nobody renewed it, or at once where its
holder was a process of this machine that is gone.
"""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from manifests import files
from manifests.buckets import Place, place_at
from manifests.errors import BuildError, StorageError, UnreachableError

LEASE_NAME = ".lease"
RENEW_S = 5.0
PATIENCE_S = 30.0  # without a sign of life

_log = logging.getLogger(__name__)


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """Who builds in a folder."""

    token: str
    host: str
    machine: str  # one boot and one space of process ids; empty where that cannot be told
    process: int
    started: str  # of the process, as the kernel counts it
    renewed: int = 0


@contextlib.contextmanager
def leased(folder: str) -> Iterator[Callable[[], None]]:
    """What raises once the lease was lost; other builds are kept out of the bucket's folder meanwhile.

    Raises:
        BuildError: another build is running there.
        StorageError: the bucket refuses.
    """
    holder = _Holder(place_at(files.join(folder, LEASE_NAME)), folder)
    holder.take()
    renewing = threading.Thread(target=holder.renew_on, daemon=True)
    renewing.start()
    try:
        yield holder.require_held
    finally:
        holder.left.set()
        renewing.join()
        holder.release()


class _Holder:
    """This process, which wants to be the only one."""

    def __init__(self, place: Place, folder: str) -> None:
        self.left = threading.Event()
        self._place, self._folder = place, folder
        self._version = ""
        self._lost = False
        self._lease = Lease(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            machine=_machine(),
            process=os.getpid(),
            started=_started(os.getpid()),
        )

    def take(self) -> None:
        """Become the holder, from nobody or from one that is dead."""
        while True:
            with contextlib.suppress(FileExistsError):
                self._place.create(msgspec.json.encode(self._lease))
            found = self._read()
            if found is None:
                continue  # it was given back just now
            theirs, self._version = found
            if theirs is not None and theirs.token == self._lease.token:
                return
            if not self._is_dead(theirs):
                continue
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                self._place.replace(msgspec.json.encode(self._lease), self._version)  # read once more before it counts

    def _is_dead(self, theirs: Lease | None) -> bool:
        """Whether nobody renews the version that was read; False if it was given back.

        Raises:
            BuildError: somebody does.
        """
        if theirs is not None and _has_ended(theirs):
            return True
        who = f"process {theirs.process} of {theirs.host}" if theirs is not None else "somebody"
        _log.warning("%s: %s builds here, or died; looking for %.0f s which of both", self._folder, who, PATIENCE_S)
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            time.sleep(1.0)
            found = self._place.find()
            if found is None:
                return False
            if found.version != self._version:
                raise BuildError(
                    f"{self._folder}: another build is running in this folder ({who}); wait for it, or choose another"
                )
        return True

    def _read(self) -> tuple[Lease | None, str] | None:
        """The lease that is there, None for one of another version of this program, and its version in the bucket."""
        found = self._place.find()
        if found is None:
            return None
        try:
            with self._place.open() as file:
                return msgspec.json.decode(file.read(), type=Lease), found.version
        except msgspec.MsgspecError:
            return None, found.version
        except FileNotFoundError:
            return None

    def renew_on(self) -> None:
        """Renew the lease until it is left or lost; out of reach it stays, until somebody takes it."""
        while not self.left.wait(RENEW_S):
            self._lease = msgspec.structs.replace(self._lease, renewed=self._lease.renewed + 1)
            try:
                self._version = self._place.replace(msgspec.json.encode(self._lease), self._version)
            except UnreachableError:
                continue
            except (StorageError, OSError):
                if not self._is_still_ours():
                    self._lost = True
                    return

    def _is_still_ours(self) -> bool:
        """Whether only the answer to a renewal was lost; then the version that is there is taken for ours."""
        with contextlib.suppress(StorageError):
            found = self._read()
            if found is not None and found[0] is not None and found[0].token == self._lease.token:
                self._version = found[1]
                return True
        return False

    def require_held(self) -> None:
        """Stop if another build took this one for dead."""
        if self._lost:
            raise BuildError(
                f"{self._folder}: another build took this folder over, since nothing was heard of this one for "
                f"{PATIENCE_S:.0f} s; expected to be alone. Wait for it, then run again"
            )

    def release(self) -> None:
        """Give the lease back, so that nobody has to wait."""
        with contextlib.suppress(StorageError, OSError):  # what remains is found dead
            if self._is_still_ours():
                self._place.remove()


def _machine() -> str:
    """Names a boot of a machine and a space of process ids, so that a process id means something (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process started, in ticks since the boot; empty if it is gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[19] if fields[0] != "Z" else ""
    return ""


def _has_ended(lease: Lease) -> bool:
    """Whether its holder was a process of this machine and is gone."""
    return bool(lease.machine) and lease.machine == _machine() and _started(lease.process) != lease.started
