"""Training straight off a finished build: typed batches in an order that depends on the seed and the position alone.

`open_loader` reads mixtures of builds without end, `open_pass` every sample once. Both rest on torch's `DataLoader`
over the numbers of global batches, so that any number of workers gives the same batches, and a rank is a slice of each.
Nothing else in `shards` imports this file, because it imports torch.
"""

import itertools
import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from manifests import files
from manifests.errors import AbsentiaError, ManifestError, RecipeError
from manifests.manifest import read_manifest
from manifests.sample import Evidence
from shards.batch import KIND_CODES, MASK_STATE_CODES, NO_CODE, Batch, Example, make_batch, read_example
from shards.blocks import CachedBlocks, LocalShards, SampleBytes, SampleIndex, read_index
from shards.features import Features, read_features
from shards.order import Chain, Order, WrittenOrder

__all__ = [
    "KIND_CODES",
    "MASK_STATE_CODES",
    "NO_CODE",
    "Batch",
    "Loader",
    "LoaderOptions",
    "augmentation_rng",
    "open_loader",
    "open_pass",
    "webdataset_urls",
]

Build = str | os.PathLike[str]
Builds = Build | Mapping[str, float] | Sequence[Build]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What few loaders need to say."""

    mask_size: int | None = None  # side of the masks; None makes them as large as the images
    evidence: Collection[Evidence] = tuple(Evidence)  # absences known otherwise are left out; generated ones stay
    features: Sequence[str] = ()  # embeddings tables with a row per image key: Parquet files, or folders of parts
    prefetch_batches: int = 2  # per worker
    pin_memory: bool = False
    start_method: Literal["fork", "forkserver", "spawn"] | None = None  # of the workers; None takes Python's default
    cache_folder: str | None = None  # of a bucket's blocks: one for all ranks of a machine; None makes one for the run
    cache_bytes: int = 8 << 30  # what the blocks may take; a window of SA-1B takes half a GiB for each build


DEFAULT_OPTIONS = LoaderOptions()


def open_loader(
    builds: Builds,
    *,
    batch_size: int,
    split: str = "train",
    size: int = 256,
    seed: int = 0,
    shuffle: bool = True,
    position: int = 0,
    num_samples: int | None = None,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    options: LoaderOptions = DEFAULT_OPTIONS,
) -> "Loader":
    """Batches of a build, or of a mixture, without end.

    The global order depends on the builds, their weights, `seed` and `shuffle` alone. To resume, pass the `position`
    of the last batch that was trained on; workers, ranks and the batch size may have changed. Every batch is full and
    may straddle epochs.

    Args:
        builds: A finished build; several in proportion to their samples; or a weight for each.
        batch_size: Samples of a global batch: all ranks together.
        split: Which split of every build.
        size: Side of the square images in pixels.
        seed: Of the order.
        shuffle: False reads each epoch as it was written.
        position: Samples that all ranks consumed before.
        num_samples: Stop with the batch that reaches this position; None never stops.
        num_workers: Processes of this rank that read and decode; 0 does so in this one.
        rank: Which slice of each global batch.
        world_size: Number of slices.
        options: The rest.

    Raises:
        RecipeError: `batch_size` does not divide by `world_size`, a weight is not above 0, a build is listed twice.
        ManifestError: a build is unfinished or damaged, or has no such split.
    """
    share = _Share(batch_size=batch_size, rank=rank, world_size=world_size, position=position)
    indexes, chains = _open_builds(builds, split)
    order = Order(chains, seed=seed, shuffle=shuffle)
    num_batches = None if num_samples is None else max(0, -(-(num_samples - position) // batch_size))
    return Loader(indexes, order, share, num_batches, size=size, num_workers=num_workers, options=options)


def open_pass(
    builds: Builds,
    *,
    batch_size: int,
    split: str = "val",
    size: int = 256,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    options: LoaderOptions = DEFAULT_OPTIONS,
) -> "Loader":
    """Batches that hold every sample once, in written order, one build after another; for evaluation.

    The last global batch is short. Every rank gets equally many batches of equal sizes: where the samples do not
    divide, the last ranks' slices end in padding with key "", no phrases, and `valid` False. The arguments are those of
    `open_loader`.

    Raises:
        RecipeError: `batch_size` does not divide by `world_size`, a build is listed twice.
        ManifestError: a build is unfinished or damaged, or has no such split.
    """
    share = _Share(batch_size=batch_size, rank=rank, world_size=world_size)
    indexes, chains = _open_builds(builds, split)
    order = WrittenOrder(chains)
    num_batches = -(-order.num_samples // batch_size)
    return Loader(indexes, order, share, num_batches, size=size, num_workers=num_workers, options=options)


def webdataset_urls(build: Build, split: str = "train") -> list[str]:
    """The shards of a split, for any pipeline that reads tars: `wds.WebDataset(webdataset_urls(DIR, "train"))`.

    Raises:
        ManifestError: the build is unfinished, or has no such split.
    """
    folder = os.fspath(build)
    shards = read_manifest(folder).splits.get(split)
    if not shards:
        raise ManifestError(f"{folder}: has no samples of split {split!r}; look at its manifest.json")
    return [files.join(folder, shard.url) for shard in shards]


def augmentation_rng(seed: int, epoch: int, key: str) -> np.random.Generator:
    """The randomness of one sample's augmentation: the same however its batch was read."""
    return np.random.default_rng([seed, epoch, *key.encode()])


class Loader:
    """Batches of one rank; each `iter` starts at the position that the loader was opened with."""

    def __init__(
        self,
        indexes: Sequence[SampleIndex],
        order: Order | WrittenOrder,
        share: "_Share",
        num_batches: int | None,
        *,
        size: int,
        num_workers: int,
        options: LoaderOptions,
    ) -> None:
        """Use `open_loader` or `open_pass`."""
        self.order_digest = order.digest  # a position means the same in loaders of equal digests, and there alone
        self.epoch_samples = sum(len(index) for index in indexes)  # of all builds together
        self.num_batches = num_batches  # of this loader; None if it never stops
        batches = _Batches(
            readers=self._open_readers(indexes, options),
            indexes=indexes,
            features=read_features(options.features, indexes) if options.features else None,
            order=order,
            share=share,
            size=size,
            mask_size=options.mask_size or size,
            evidence=options.evidence,
        )
        self._loader: DataLoader[Batch | AbsentiaError] = DataLoader(
            batches,
            batch_size=None,
            sampler=range(num_batches) if num_batches is not None else _Endless(),
            num_workers=num_workers,
            multiprocessing_context=options.start_method if num_workers else None,
            prefetch_factor=options.prefetch_batches if num_workers else None,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_the_trainer,
            pin_memory=options.pin_memory,
            generator=torch.Generator(),  # nothing here is random: leave the trainer's generator alone
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, AbsentiaError):
                raise batch
            yield batch

    def _open_readers(self, indexes: Sequence[SampleIndex], options: LoaderOptions) -> list[SampleBytes]:
        """What reads each build; blocks of a bucket are deleted with this loader, unless a folder for them is given."""
        folder = options.cache_folder or ""
        if not all(files.is_local(index.folder) for index in indexes):
            if folder:
                files.make_folder(folder)
            else:
                folder = tempfile.mkdtemp(prefix="absentia-blocks-")
                weakref.finalize(self, _remove_own, folder, os.getpid())
        return [
            LocalShards(index) if files.is_local(index.folder) else CachedBlocks(index, folder, options.cache_bytes)
            for index in indexes
        ]


def _remove_own(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker ends before its parent does
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """Which positions of the order a rank reads."""

    batch_size: int
    rank: int
    world_size: int
    position: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.world_size < 1 or self.batch_size % self.world_size:
            raise RecipeError(
                f"batch size {self.batch_size} over {self.world_size} ranks; expected a multiple of the number of ranks"
            )
        if not 0 <= self.rank < self.world_size:
            raise RecipeError(f"rank {self.rank} of {self.world_size}; expected 0 to {self.world_size - 1}")
        if self.position < 0:
            raise RecipeError(f"position {self.position}; expected the position of a batch, or 0 to start")

    def rows(self, number: int, end: int | None) -> tuple[int, int, int]:
        """First position, number of rows and position afterwards of global batch `number`; `end` cuts the last."""
        first = self.position + number * self.batch_size
        stop = first + self.batch_size if end is None else min(first + self.batch_size, end)
        num_rows = -(-(stop - first) // self.world_size)
        return min(first + self.rank * num_rows, stop), num_rows, stop


class _Endless(Iterable[int]):
    def __iter__(self) -> Iterator[int]:
        return itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batches(Dataset[Batch | AbsentiaError]):
    """Global batch number -> this rank's batch; an error is handed over whole, since workers would wrap it."""

    readers: Sequence[SampleBytes]
    indexes: Sequence[SampleIndex]
    features: Sequence[Features] | None
    order: Order | WrittenOrder
    share: _Share
    size: int
    mask_size: int
    evidence: Collection[Evidence]

    def __getitem__(self, number: int) -> Batch | AbsentiaError:
        try:
            return self._read(number)
        except AbsentiaError as error:
            return error

    def _read(self, number: int) -> Batch:
        end = self.order.num_samples if isinstance(self.order, WrittenOrder) else None
        first, num_rows, position = self.share.rows(number, end)
        places = self.order.at(first, min(first + num_rows, position))
        triples = zip(places.manifest_n.tolist(), places.epoch_n.tolist(), places.sample_n.tolist(), strict=True)
        return make_batch(
            [self._example(*triple) for triple in triples],
            num_rows=num_rows,
            size=self.size,
            mask_size=self.mask_size,
            feature_width=self.features[0].rows_rd.shape[1] if self.features else 0,
            position=position,
        )

    def _example(self, manifest: int, epoch: int, sample: int) -> Example:
        index = self.indexes[manifest]
        return read_example(
            self.readers[manifest].read(sample),
            int(index.jpeg_bytes_n[sample]),
            where=f"{index.uri(int(index.shard_n[sample]))} at byte {index.offset_n[sample]}",
            epoch=epoch,
            evidence=self.evidence,
            feature=self.features[manifest].of(sample) if self.features else None,
        )


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - torch types collate functions so
    return batch


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """A signal to the whole group ends a run by way of its trainer, which may want one more batch."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_builds(builds: Builds, split: str) -> tuple[list[SampleIndex], list[Chain]]:
    """The samples of each build, and its place in the mixture."""
    weights = list(builds.values()) if isinstance(builds, Mapping) else None
    folders = [os.fspath(build) for build in ([builds] if isinstance(builds, str | os.PathLike) else builds)]
    if not folders:
        raise RecipeError("no build to read; expected the folder of at least one finished build")
    indexes = [read_index(folder, split) for folder in folders]
    folder_of: dict[str, str] = {}
    for index in indexes:
        if index.digest in folder_of:
            other = folder_of[index.digest]
            raise RecipeError(f"{index.folder} and {other} hold the same samples; list one, with a larger weight")
        folder_of[index.digest] = index.folder
    shares = weights or [len(index) for index in indexes]
    chains = [
        Chain(num_samples=len(index), digest=index.digest, weight=weight)
        for index, weight in zip(indexes, shares, strict=True)
    ]
    return indexes, chains
