"""What the scan of each source found, as `shards.catalog` tells it."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import pyarrow.compute as pc

from manifests.tables import CATALOG, LABEL_RANGES, read_table
from shards.scan import ScannedPart


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
