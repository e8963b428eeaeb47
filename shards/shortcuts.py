"""The shortcut audit: how well presence is guessed from what a model should not need, without looking at a picture.

If every SA-1B prompt is present and every COCO prompt absent, a presence head learns the source and the phrase prior
instead of looking. Each feature scores a prompt by the smoothed share of presences among prompts that share it; the
in-sample AUC of that score is 0.5 on perfect data and 1.0 on a leak.
"""

# Q prompts

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests.manifest import Shortcuts, WorstPhrase
from manifests.statistics import auc

AUDITED = ["split", "source", "phrase", "present", "width", "height", "num_bytes"]  # columns of samples.parquet
BOUND = 0.60
_SMOOTHING = 10
_DECILES = 10
_NUM_WORST = 10


def audit(prompts: pa.Table, generated: Sequence[str]) -> Shortcuts:
    """The audit of a build, over the real images of its train split.

    Args:
        prompts: Columns split, source, phrase, present, width, height and num_bytes of samples.parquet.
        generated: Names of the generated sources.
    """
    real = pc.and_(
        pc.equal(prompts["split"], "train"),
        pc.invert(pc.is_in(prompts["source"], pa.array(list(generated), pa.string()))),
    )
    rows = prompts.filter(real)
    present_q = rows["present"].to_numpy(zero_copy_only=False).astype(np.bool_)
    phrase_q, phrases = _encode(pc.utf8_lower(rows["phrase"]))
    source_q, sources = _encode(rows["source"])
    pixels = rows["width"].to_numpy().astype(np.int64) * rows["height"].to_numpy()
    found = {
        "phrase": guessed_auc(phrase_q, present_q),
        "source": guessed_auc(source_q, present_q),
        "pixels": guessed_auc(deciles(pixels), present_q),
        "num_bytes": guessed_auc(deciles(rows["num_bytes"].to_numpy()), present_q),
    }
    worst = worst_phrases(phrase_q, present_q, phrases)
    return Shortcuts(
        bound=BOUND, **found, worst_phrases=worst, warnings=_warnings(found, worst, present_q, source_q, sources)
    )


def guessed_auc(group_q: NDArray[np.int64], present_q: NDArray[np.bool_]) -> float:
    """AUC of guessing presence by the group's share of presences, (p + 10π) / (n + 10)."""
    if not len(group_q):
        return 0.5
    num = np.bincount(group_q)
    num_present = np.bincount(group_q, weights=present_q)
    scores = (num_present + _SMOOTHING * present_q.mean()) / (num + _SMOOTHING)
    return round(auc(scores[group_q], present_q), 4)


def deciles(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which tenth of all rows each value lies in; equal values lie together."""
    edges = np.quantile(values, np.arange(1, _DECILES) / _DECILES) if len(values) else np.empty(0)
    return np.searchsorted(edges, values, side="left")


def worst_phrases(
    phrase_q: NDArray[np.int64], present_q: NDArray[np.bool_], phrases: Sequence[str]
) -> list[WorstPhrase]:
    """The phrases that give most away: where presences and absences are furthest from the overall ratio, by number."""
    num = np.bincount(phrase_q, minlength=len(phrases))
    num_present = np.bincount(phrase_q, weights=present_q, minlength=len(phrases)).astype(np.int64)
    share = present_q.mean() if len(present_q) else 0.0
    excess = np.abs(num_present - num * share)
    order = np.lexsort((np.array(phrases, dtype=object), -excess))[:_NUM_WORST]
    return [
        WorstPhrase(phrase=phrases[i], present=int(num_present[i]), absent=int(num[i] - num_present[i]))
        for i in order.tolist()
    ]


def _encode(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    encoded = pc.dictionary_encode(column).combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _warnings(
    found: dict[str, float],
    worst: Sequence[WorstPhrase],
    present_q: NDArray[np.bool_],
    source_q: NDArray[np.int64],
    sources: Sequence[str],
) -> list[str]:
    warnings = [
        f"presence can be guessed from the {name.replace('num_bytes', 'byte count')} alone: AUC {value:.2f}, above "
        f"{BOUND:.2f}" + (f"; worst: {', '.join(w.phrase for w in worst[:5])}" if name == "phrase" else "")
        for name, value in found.items()
        if value > BOUND
    ]
    for number, source in enumerate(sources):
        here = present_q[source_q == number]
        if here.all():
            warnings.append(
                f"every prompt of source {source} is present, so the source gives presence away; let its labels deny "
                "something (exhaustive_over), or mine absences"
            )
        elif not here.any():
            warnings.append(f"every prompt of source {source} is absent, so the source gives presence away")
    return warnings
