"""Checks every hash, count, rate and invariant of a finished build, and what breaks stock readers.

    python -m shards.verify DIR [--deep]

One sentence per fault, with shard and key; the exit code is 1 if there is any. `--deep` also decodes every picture and
every mask. A shard is read once from start to end with one picture in memory; beside that stand eight bytes a prompt
and some thirty an image. What is slow to import is imported once there is something to do, so that `--help` answers at
once.
"""

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

import msgspec

from manifests.errors import TableError
from manifests.stage import Inline, local_executor, progress_bar, run_command
from shards.faults import Check, Fault, shortened

if TYPE_CHECKING:
    from rich.progress import Progress

    from manifests.manifest import Manifest, Shard
    from shards.label_check import LabelCheck
    from shards.mix_check import SplitTally
    from shards.shard_check import ShardFacts, Told

_AHEAD = 4  # shards being checked or waiting, per worker
_SMALL_BYTES = 64 << 20  # of shards; below, starting processes takes longer than the work


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong; the command prints it as JSON."""

    build: str
    deep: bool
    shards: int
    samples: int
    prompts: int
    num_bytes: int
    faults: list[Fault]

    @property
    def summary(self) -> str:
        """One line for people."""
        held = (
            f"{self.shards:,} shards, {self.samples:,} samples, {self.prompts:,} prompts, {self.num_bytes / 1e6:,.1f} MB"
        )
        depth = "every picture and mask decoded" if self.deep else "pictures and masks not decoded (--deep does)"
        if self.faults:
            return f"{len(self.faults)} faults in {held}; {depth}"
        return f"sound: {held}; every hash, count, rate and invariant holds; {depth}"


def verify(folder: str, deep: bool = False) -> list[Fault]:
    """Everything that is wrong with the build in `folder`.

    Args:
        folder: Path or URL of the build.
        deep: Also decode every picture and every mask.

    Raises:
        ManifestError: there is no finished build, or its manifest is damaged or newer.
    """
    with progress_bar(quiet=True) as progress:
        return examine(folder, deep=deep, executor=Inline(), num_workers=1, progress=progress).faults


def examine(folder: str, *, deep: bool, executor: Executor, num_workers: int, progress: "Progress") -> Report:
    """The report on the build in `folder`; shards are checked on `executor`.

    Raises:
        ManifestError: as `verify`.
    """
    from manifests.manifest import read_manifest
    from shards import build_check

    manifest = read_manifest(folder)
    run = _Run(folder, manifest, deep)
    faults = [
        *build_check.manifest_faults(manifest),
        *build_check.index_faults(folder, manifest),
        *build_check.file_faults(folder, manifest),
        *run.shards(executor, _AHEAD * num_workers, progress),
        *run.finish(),
    ]
    return Report(
        build=folder,
        deep=deep,
        shards=sum(len(shards) for shards in manifest.splits.values()),
        samples=run.num_samples,
        prompts=run.num_prompts,
        num_bytes=run.num_bytes,
        faults=list(shortened(faults)),
    )


class _Run:
    """One verification: shards one after another, and what only all of them show."""

    def __init__(self, folder: str, manifest: "Manifest", deep: bool) -> None:
        self._folder, self._manifest, self._deep = folder, manifest, deep
        self._tallies: dict[str, SplitTally] = {}
        self._has_mask: dict[str, list[bool]] = {}
        self._labels: LabelCheck | None = None
        self.num_samples = self.num_prompts = self.num_bytes = 0

    def shards(self, executor: Executor, at_once: int, progress: "Progress") -> Iterator[Fault]:
        """Faults of every shard, in their order, and of the tables' rows on the way."""
        from shards.shard_check import check_shard

        listed = [shard for shards in self._manifest.splits.values() for shard in shards]
        bar = progress.add_task("verify", total=sum(shard.filesize for shard in listed))
        waiting: deque[tuple[Told, Future[ShardFacts]]] = deque()
        for told in self._with_rows():
            if isinstance(told, Fault):
                yield told
                continue
            waiting.append((told, executor.submit(check_shard, told)))
            if len(waiting) >= at_once:
                yield from self._take(*waiting.popleft(), progress, bar)
        while waiting:
            yield from self._take(*waiting.popleft(), progress, bar)

    def _take(self, told: "Told", checked: "Future[ShardFacts]", progress: "Progress", bar: int) -> Iterator[Fault]:
        facts = checked.result()
        self.num_samples += facts.num_samples
        self.num_prompts += facts.num_prompts
        self.num_bytes += facts.num_bytes
        masks = self._has_mask.setdefault(told.split, facts.has_mask[:1])
        masks[1:] = [any(masks[1:]) or any(facts.has_mask)]
        progress.advance(bar, told.shard.filesize)  # type: ignore[arg-type]
        yield from facts.faults

    def _with_rows(self) -> "Iterator[Told | Fault]":
        """Every shard with its rows of samples.parquet; faults where there are none."""
        from shards.shard_check import Told

        rows = self._rows()
        for split, shards in self._manifest.splits.items():
            for shard in shards:
                found, faults = rows.of(shard)
                yield from faults
                if found is not None and self._labels is not None:
                    yield from self._tally(split, shard, found)
                yield Told(folder=self._folder, split=split, shard=shard, rows=found, deep=self._deep)
        yield from rows.rest()
