"""What each picture adds to a metric, kept beside the readings so that two runs can be compared picture by picture.

Metrics that are Σ part ÷ Σ whole over pictures have a row here per picture: under the same draws of pictures the
difference of two runs has a much narrower interval than the two figures have. MCC and AUC are no such ratios.
"""

# N prompts, I pictures

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests.sample import CALLED_PRESENT, KINDS
from manifests.tables import IMAGE_SUMS, table_writer
from student.judged import Judged
from student.presence_metrics import says_present

_Number = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.bool_]


def write_image_sums(uri: str, judged: Judged, keys: pa.Array, *, has_masks: bool) -> None:
    """Write the sums of every metric and picture to `uri`; `keys` are those of the pictures by number."""
    with table_writer(uri, IMAGE_SUMS) as writer:
        for metric, part_n, whole_n in _parts(judged, has_masks=has_masks):
            part_i = np.bincount(judged.image_n, np.asarray(part_n, np.float64), len(keys))
            whole_i = np.bincount(judged.image_n, np.asarray(whole_n, np.float64), len(keys))
            told = np.flatnonzero(whole_i > 0)
            named = [metric] * len(told)
            writer.add_columns(
                keys.take(pa.array(told)).to_pylist(), named, part_i[told].tolist(), whole_i[told].tolist()
            )


def _parts(judged: Judged, *, has_masks: bool) -> Iterator[tuple[str, _Number, _Number]]:
    """Metric, and what each prompt adds to its numerator and denominator."""
    said_n, told_n = says_present(judged.presence_n, CALLED_PRESENT), judged.closed_n
    present_n, absent_n = judged.present_n & told_n, ~judged.present_n & told_n
    hit_n, alarm_n, miss_n, quiet_n = said_n & present_n, said_n & absent_n, ~said_n & present_n, ~said_n & absent_n
    if has_masks:
        yield "miou", judged.overlaps.iou_n, judged.complete_n
    yield "presence_precision", hit_n, hit_n | alarm_n
    yield "presence_recall", hit_n, present_n
    yield "presence_f1", 2 * hit_n, 2 * hit_n + alarm_n + miss_n
    yield "absence_f1", 2 * quiet_n, 2 * quiet_n + alarm_n + miss_n
    yield "il_fpr", alarm_n, absent_n
    yield "n_acc", quiet_n, absent_n
    yield "t_acc", hit_n, present_n
    yield "brier", (judged.presence_n - present_n) ** 2 * told_n, told_n
    for code, kind in enumerate(KINDS):
        yield f"hallucination_{kind}", alarm_n & judged.kinds_nk[:, code], judged.kinds_nk[:, code]
