"""One digest of a folder's files (name, size, version): it changes when any of them does, without reading one."""

import hashlib
import os
from collections.abc import Iterator

from manifests.buckets import place_at
from manifests.files import is_local


def folder_digest(uri: str) -> str:
    """A hex digest of all files below `uri`, in whatever order they are listed; a cache key, never part of a build."""
    total = 0
    for fact in _local_facts(uri) if is_local(uri) else _remote_facts(uri):
        total += int.from_bytes(hashlib.blake2b(fact.encode("utf-8", "surrogateescape"), digest_size=16).digest())
    return f"{total % (1 << 128):032x}"


def _local_facts(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # a link that leads nowhere
                    continue
                yield f"{os.path.relpath(entry.path, folder)}\0{status.st_size}\0{status.st_mtime_ns}"


def _remote_facts(folder: str) -> Iterator[str]:
    for name, found in place_at(folder).find_below().items():
        yield f"{name}\0{found.num_bytes}\0{found.version}"
