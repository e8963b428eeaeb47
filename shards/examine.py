"""One verification from start to end: the files, every shard beside its rows, and what only all of them show.

A shard is read once with one picture in memory. Beside that stand the rows of a few shards, eight bytes a prompt and
some thirty an image, and while the shortcut audit is counted again the seven columns that it looks at.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

import pyarrow as pa
from rich.progress import Progress

from manifests import files
from manifests.errors import TableError
from manifests.manifest import MANIFEST_NAME, Manifest
from shards import build_check
from shards.faults import Check, Fault, Report, shortened
from shards.image_index import ImageIndex, load_images
from shards.label_check import LabelCheck
from shards.labels import load_lexicon
from shards.mined_check import MinedCheck
from shards.mix_check import SplitTally, mix_faults
from shards.shard_check import ShardFacts, Told, check_shard
from shards.shard_rows import SAMPLES_NAME, ShardRows
from shards.sources.build import read_synonyms

_JOINED = {"images.parquet", "vocabularies.parquet", "labels.parquet"}


def examine(
    folder: str,
    manifest: Manifest,
    *,
    deep: bool,
    executor: Executor,
    at_once: int,
    progress: Progress,
    lexicons: Sequence[str] = (),
) -> Report:
    """The report on the build in `folder`.

    Args:
        folder: Path or URL of the build.
        manifest: The build's.
        deep: Also decode every picture and every mask.
        executor: Where shards are checked.
        at_once: Shards that wait or are being checked together.
        progress: Shows how many bytes are checked.
        lexicons: The recipe's own files of synonyms, which a build does not carry.

    Raises:
        RecipeError: a lexicon is missing or is none.
    """
    before = [
        *build_check.manifest_faults(manifest),
        *build_check.index_faults(folder, manifest),
        *build_check.file_faults(folder, manifest),
    ]
    named = {fault.where for fault in before if fault.check is Check.TABLE}
    sound = {name for name in build_check.SCHEMAS if name not in named and files.exists(files.join(folder, name))}
    run = _Run(folder, manifest, deep=deep, sound=sound, lexicons=lexicons)
    found = [*before, *run.check_shards(executor, at_once, progress), *run.finish()]
    return Report(
        build=folder,
        deep=deep,
        shards=sum(len(shards) for shards in manifest.splits.values()),
        samples=run.num_samples,
        prompts=run.num_prompts,
        num_bytes=run.num_bytes,
        faults=list(shortened(found)),
    )


class _Run:
    """What is known so far; a table that is not among `sound` was named before, and what leans on it is not asked."""

    def __init__(
        self, folder: str, manifest: Manifest, *, deep: bool, sound: set[str], lexicons: Sequence[str]
    ) -> None:
        self._folder, self._manifest, self._deep, self._sound = folder, manifest, deep, sound
        self._lexicons = lexicons
        self._tallies: dict[str, SplitTally] = {}
        self._labels: LabelCheck | None = None
        self._images: ImageIndex | None = None
        self._mined = MinedCheck(folder)
        self._first: dict[str, tuple[str, bool]] = {}  # by split: its first shard, whether its first sample has a mask
        self._masked: set[str] = set()  # splits with any mask
        self._has_all_rows = True  # what is counted from the rows would only echo a shard without them
        self.num_samples = self.num_prompts = self.num_bytes = 0

    def check_shards(self, executor: Executor, at_once: int, progress: Progress) -> Iterator[Fault]:
        """Faults of every shard in order, and on the way those of the rows of samples.parquet."""
        listed = [shard for shards in self._manifest.splits.values() for shard in shards]
        bar = progress.add_task("verify", total=sum(shard.filesize for shard in listed))
        waiting: deque[tuple[Told, Future[ShardFacts]]] = deque()

        def take() -> Iterator[Fault]:
            told, checked = waiting.popleft()
            yield from self._count(told, checked.result())
            progress.advance(bar, told.shard.filesize)

        for told in self._with_rows():
            if isinstance(told, Fault):
                yield told
                continue
            waiting.append((told, executor.submit(check_shard, told)))
            if len(waiting) >= at_once:
                yield from take()
        while waiting:
            yield from take()

    def _count(self, told: Told, facts: ShardFacts) -> Iterator[Fault]:
        self.num_samples += facts.num_samples
        self.num_prompts += facts.num_prompts
        self.num_bytes += facts.num_bytes
        if facts.num_samples:
            self._first.setdefault(told.split, (told.shard.url, facts.first_has_mask))
        if facts.num_masks:
            self._masked.add(told.split)
        yield from facts.faults

    def _with_rows(self) -> Iterator[Told | Fault]:
        """Every shard with its rows of samples.parquet, None where they are missing or cannot be read."""
        if self._sound >= _JOINED:
            yield from _guarded(self._open_labels)
        urls = [shard.url for shards in self._manifest.splits.values() for shard in shards]
        rows = ShardRows(self._folder, urls) if SAMPLES_NAME in self._sound else None
        for split, shards in self._manifest.splits.items():
            for shard in shards:
                found = None if rows is None else rows.take(shard.url)
                if found is None:
                    self._has_all_rows = False
                else:
                    yield from self._tally(split, shard.url, found)
                yield Told(folder=self._folder, split=split, shard=shard, rows=found, deep=self._deep)
        if rows is not None:
            rows.finish()
            yield from rows.faults

    def _open_labels(self) -> Iterator[Fault]:
        self._images = load_images(self._folder)
        yield from self._images.faults(self._manifest.leaks)
        synonyms = read_synonyms(files.join(self._folder, "vocabularies.parquet"))
        self._labels = LabelCheck(self._images, load_lexicon(self._lexicons, synonyms))

    def _tally(self, split: str, url: str, rows: pa.Table) -> Iterator[Fault]:
        self._tallies.setdefault(split, SplitTally()).add(rows)
        yield from self._mined.add(split, url, rows)
        if self._labels is not None:
            yield from self._labels.add(split, url, rows)

    def finish(self) -> Iterator[Fault]:
        """What only the whole build shows."""
        for split, (url, has_mask) in self._first.items():
            if split in self._masked and not has_mask:
                message = f"the first sample of {split} has no mask, though others have; loaders infer its type there"
                yield Fault(check=Check.FIRST, where=url, message=message)
        if self._has_all_rows:
            yield from mix_faults(self._manifest, self._tallies)
            if self._labels is not None and self._images is not None:
                yield from _guarded(self._labels.finish)
                yield from _guarded(self._images.unused)
            yield from _guarded(lambda: build_check.audit_faults(self._folder, self._manifest))
            if "negatives.parquet" in self._sound:
                yield from _guarded(self._mined.finish)
        if "rejects.parquet" in self._sound:
            yield from _guarded(lambda: build_check.reject_faults(self._folder, self._manifest))


def _guarded(ask: Callable[[], Iterator[Fault]]) -> Iterator[Fault]:
    """The faults that `ask` finds; one where a table turns out to be damaged inside."""
    try:
        yield from ask()
    except (TableError, pa.ArrowException, OSError) as error:
        yield Fault(check=Check.TABLE, where=MANIFEST_NAME, message=f"a table that it names is damaged: {error}")
