"""Scans all sources into `work/catalog`, part by part; a part that was scanned before is not scanned again."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial

from rich.progress import Progress

from manifests import files
from manifests.errors import BuildError, Reason
from manifests.stage import run_stage
from shards.scan import ScannedPart, ScanRecord, ScanTask, scan_part
from shards.sources.source import Prepared, Source

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
