"""False alarms at equal recall: how many absences an arm calls present where it finds a given share of presences.

A student that says "present" less often hallucinates less, whatever it knows. So arms are compared where each of them,
by a threshold of its own, finds as many of the presences of test.
"""

from collections import defaultdict
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.sample import NegativeKind

RECALL = 0.7
KINDS = (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING)
_PRESENT = ""  # what stands for the kind of a presence


def false_alarms(fold: Path, arm: str, *, recall: float = RECALL) -> dict[str, float]:
    """The share of the absent prompts of each kind that one arm of a fold calls present, at a recall.

    Raises:
        FileNotFoundError: the arm was not judged there.
    """
    said = pq.read_table(fold / arm / "evaluation" / "predictions.parquet", columns=["key", "phrase", "presence"])
    presence_of = dict(
        zip(zip(*_columns(said, "key", "phrase"), strict=True), *_columns(said, "presence"), strict=True)
    )
    asked = pq.read_table(
        fold / "judge" / "samples.parquet", columns=["image_key", "phrase", "kind"], filters=[("split", "=", "test")]
    )
    by_kind: dict[str, list[float]] = defaultdict(list)
    for key, phrase, kind in zip(*_columns(asked, "image_key", "phrase", "kind"), strict=True):
        by_kind[kind].append(presence_of[key, phrase])
    present = sorted(by_kind[_PRESENT], reverse=True)
    threshold = present[ceil(recall * len(present)) - 1]
    return {kind: sum(one >= threshold for one in by_kind[kind]) / len(by_kind[kind]) for kind in KINDS}


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]
