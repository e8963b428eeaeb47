"""Scan all sources into `work/catalog`, part by part; a part that was scanned before is not scanned again."""

import argparse
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec
import pyarrow.compute as pc
from rich.progress import Progress

from manifests import files
from manifests.errors import BuildError, Reason
from manifests.recipe_file import load_recipe
from manifests.stage import local_executor, progress_bar, run_command, run_stage
from manifests.tables import CATALOG, LABEL_RANGES, read_table
from shards.scan import ScannedPart, ScanRecord, ScanTask, scan_part
from shards.sources.source import Prepared, Source

CATALOG_RECIPE = "recipe.json"  # below `work`: whose sources were scanned
CATALOG_VERSION = 1  # part of every part's name: raise it when a scan's output changes


def prepare_sources(sources: Sequence[Source], work: str) -> dict[str, Prepared]:
    """What each source holds, by its name, before any picture is read."""
    return {source.name: source.prepare(work) for source in sources}


def scan_sources(
    sources: Sequence[Source],
    prepared: dict[str, Prepared],
    *,
    work: str,
    verify: str,
    executor: Executor,
    progress: Progress,
) -> list[ScannedPart]:
    """Every part of every source, scanned; parts that were scanned before are not scanned again."""
    folder = files.join(work, "catalog")
    tag = hashlib.sha256(f"{CATALOG_VERSION} {verify}".encode()).hexdigest()[:8]
    tasks = [
        ScanTask(name=f"{part.name}-{tag}", weight=part.weight, source=source, part=part)
        for source in sources
        for part in prepared[source.name].parts
    ]
    run = partial(scan_part, folder=folder, verify=verify)
    records = run_stage("scan", tasks, run, ScanRecord, folder=folder, executor=executor, progress=progress)
    return [
        ScannedPart(source=task.source.name, stem=task.name, folder=folder, record=record)
        for task, record in zip(tasks, records, strict=True)
    ]


def require_few_rejects(parts: Sequence[ScannedPart], max_share: float, *, num_duplicates: int = 0) -> None:
    """Stop if too many of the input pictures were rejected, `num_duplicates` of them for a key of another part.

    Raises:
        BuildError: with the reasons by number, and what to do.
    """
    images = sum(part.record.images for part in parts)
    rejected = sum(part.record.rejected_images for part in parts) + num_duplicates
    if rejected > max_share * images:
        reasons = sum((Counter(part.record.rejects) for part in parts), Counter[str]())
        reasons += Counter({str(Reason.DUPLICATE_KEY): num_duplicates})
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
        raise BuildError(
            f"{rejected} of {images} input images were rejected, more than max_reject_share = {max_share:g}: {listed}. "
            f"Look at {parts[0].folder}/*.rejects.parquet, mend the inputs, or raise max_reject_share"
        )


class SourceCount(msgspec.Struct, frozen=True, kw_only=True):
    """What the scan of one source found."""

    source: str
    images: int
    rejected_images: int
    awaiting_phrases: int  # catalogued, but nothing is known of them yet
    rejects: dict[str, int]
    repaired: dict[str, int]


def count_source(source: str, parts: Sequence[ScannedPart]) -> SourceCount:
    """The counts of one source over its parts."""
    records = [part.record for part in parts]
    waiting = 0
    for part in parts:
        images = read_table(part.catalog, CATALOG, ["key", "exhaustive_over"])
        labelled = read_table(part.labels, LABEL_RANGES, ["key"])["key"].unique()
        closed = pc.greater(pc.list_value_length(images["exhaustive_over"]), 0)
        known = pc.or_(pc.is_in(images["key"], labelled), closed)
        waiting += images.num_rows - (pc.sum(known).as_py() or 0)
    return SourceCount(
        source=source,
        images=sum(record.images for record in records),
        rejected_images=sum(record.rejected_images for record in records),
        awaiting_phrases=waiting,
        rejects=dict(sorted(sum((Counter(r.rejects) for r in records), Counter[str]()).items())),
        repaired=dict(sorted(sum((Counter(r.repaired) for r in records), Counter[str]()).items())),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command: scan the sources of a recipe and say what they hold."""
    from shards.sources.registry import open_sources  # imports this module's callers' formats, slow for --help

    parser = argparse.ArgumentParser(prog="python -m shards.catalog", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", metavar="RECIPE.toml", help="whose sources to scan; see docs/recipes.md")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the build; a later build goes on there")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("--json", action="store_true", help="print the counts as JSON on stdout")
    options = parser.parse_args(argv)
    recipe = load_recipe(options.recipe)
    work = files.join(options.out, "work")
    sources = open_sources(recipe)
    files.write_bytes(files.join(work, CATALOG_RECIPE), msgspec.json.encode(recipe))
    with local_executor(options.workers) as executor, progress_bar() as progress:
        prepared = prepare_sources(sources, work)
        parts = scan_sources(sources, prepared, work=work, verify=recipe.verify, executor=executor, progress=progress)
    counts = [count_source(source.name, [p for p in parts if p.source == source.name]) for source in sources]
    if options.json:
        sys.stdout.write(msgspec.json.encode(counts).decode() + "\n")
        return 0
    for count in counts:
        dropped = ", ".join(f"{reason} {num}" for reason, num in count.rejects.items()) or "none"
        sys.stdout.write(
            f"{count.source}: {count.images} images, {count.rejected_images} rejected, {count.awaiting_phrases} "
            f"awaiting phrases; rejects: {dropped}\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
