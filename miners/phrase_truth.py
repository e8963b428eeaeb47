"""How right retrieved phrases are, and how many masks get one, where the true phrase of masks is known but was hidden.

A phrase is right if the label says it, or a synonym, or something broader: a car called "vehicle" is one. A narrower
one (a bird called "gull") may be right, but the label cannot tell, so it counts as not right and is shown beside.
"""

# M masks that were looked up and whose phrase is known

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Rejected, SourceError
from shards.labels import Lexicon, normalise_phrase, phrase_id
from shards.sources.sidecar_rows import BadRow, read_rows

GRID_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of the masks looked up, whose scores make the rows of the grid
GRID_MARGINS = (0.0, 1.0, 2.0, 3.0)

_Mask = tuple[int, int]  # image id, annotation id


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is known of the masks of some pictures."""

    phrases: Mapping[_Mask, tuple[str, ...]]
    of_image: Mapping[int, tuple[str, ...]]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What thresholds give."""

    min_score: float
    min_margin: float
    masks: int  # accepted, of those whose phrase is known
    precision: float  # of the masks
    narrower: float  # share of accepted masks whose phrase is narrower than the label
    coverage: float  # accepted masks of all that are known, also those too small to be looked at
    presences: int  # distinct phrases of pictures
    presence_precision: float  # of the presences: the phrase is somewhere in the picture


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The looked-up masks whose phrase is known."""

    score_m: NDArray[np.float64]
    margin_m: NDArray[np.float64]
    right_m: NDArray[np.bool_]
    narrower_m: NDArray[np.bool_]
    in_image_m: NDArray[np.bool_]  # the phrase is somewhere in the picture
    presence_m: NDArray[np.int64]  # number of the picture's phrase: masks of one presence share it
    num_known: int  # masks whose phrase is known, looked up or not


def read_truth(uri: str) -> Truth:
    """The true phrases at `uri`, a sidecar that names annotations.

    Raises:
        SourceError: there is no such file, it is no sidecar, or names no annotation.
    """
    files.require_file(uri, named_by="--truth")
    phrases: dict[_Mask, list[str]] = defaultdict(list)
    of_image: dict[int, list[str]] = defaultdict(list)
    for rows in read_rows([uri]):
        if isinstance(rows, BadRow):
            continue
        columns = [rows.column(name).to_pylist() for name in ("image_id", "annotation_id", "phrase")]
        for image_id, annotation_id, raw in zip(*columns, strict=True):
            phrase = _phrase(raw)
            if phrase is not None and annotation_id >= 0:
                phrases[image_id, annotation_id].append(phrase)
                of_image[image_id].append(phrase)
    if not phrases:
        raise SourceError(f"{uri}: no row names an annotation and a phrase; expected image_id, annotation_id, phrase")
    return Truth(
        phrases={mask: tuple(said) for mask, said in phrases.items()},
        of_image={image_id: tuple(said) for image_id, said in of_image.items()},
    )


def _phrase(raw: bytes) -> str | None:
    try:
        return normalise_phrase(raw.decode("utf-8"))
    except (UnicodeDecodeError, Rejected):
        return None


def judge(rows: pa.Table, truth: Truth, lexicon: Lexicon) -> Judged:
    """Every looked-up mask of `rows` (the PHRASES table) whose phrase is known.

    Raises:
        SourceError: none is.
    """
    image_ids, annotation_ids = rows["image_id"].to_pylist(), rows["annotation_id"].to_pylist()
    known = np.array([mask in truth.phrases for mask in zip(image_ids, annotation_ids, strict=True)], np.bool_)
    if not known.any():
        raise SourceError(
            f"--truth: none of its {len(truth.phrases)} masks is among the {rows.num_rows} that were looked up; "
            "expected the image and annotation ids of these pictures"
        )
    rows = rows.filter(pa.array(known))
    masks = list(zip(rows["image_id"].to_pylist(), rows["annotation_id"].to_pylist(), strict=True))
    said = rows["phrase"].to_pylist()
    broad = _Implied(lexicon)
    right = [broad.covers(truth.phrases[mask], phrase) for mask, phrase in zip(masks, said, strict=True)]
    wider = [broad.is_narrower(phrase, truth.phrases[mask]) for mask, phrase in zip(masks, said, strict=True)]
    in_image = [broad.covers(truth.of_image[mask[0]], phrase) for mask, phrase in zip(masks, said, strict=True)]
    presences: dict[tuple[int, str], int] = {}
    presence = [
        presences.setdefault((mask[0], phrase_id(phrase)), len(presences))
        for mask, phrase in zip(masks, said, strict=True)
    ]
    right_m = np.array(right, np.bool_)
    return Judged(
        score_m=rows["score"].to_numpy().astype(np.float64),
        margin_m=rows["margin"].to_numpy().astype(np.float64),
        right_m=right_m,
        narrower_m=np.array(wider, np.bool_) & ~right_m,
        in_image_m=np.array(in_image, np.bool_),
        presence_m=np.array(presence, np.int64),
        num_known=len(truth.phrases),
    )


class _Implied:
    """What phrases imply, each asked once."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._of_phrase: dict[str, frozenset[str]] = {}

    def covers(self, phrases: Sequence[str], said: str) -> bool:
        """Whether one of `phrases` being there says that `said` is."""
        return any(phrase_id(said) in self._of(phrase) for phrase in phrases)

    def is_narrower(self, said: str, phrases: Sequence[str]) -> bool:
        """Whether `said` being there says that one of `phrases` is."""
        return any(phrase_id(phrase) in self._of(said) for phrase in phrases)

    def _of(self, phrase: str) -> frozenset[str]:
        found = self._of_phrase.get(phrase)
        if found is None:
            found = self._of_phrase[phrase] = frozenset(self._lexicon.implied([phrase]))
        return found


def read_at(judged: Judged, min_score: float, min_margin: float) -> Reading:
    """Precision and coverage at two thresholds."""
    kept = (judged.score_m >= min_score) & (judged.margin_m >= min_margin)
    num = int(kept.sum())
    presences, first = np.unique(judged.presence_m[kept], return_index=True)
    return Reading(
        min_score=min_score,
        min_margin=min_margin,
        masks=num,
        precision=float(judged.right_m[kept].mean()) if num else 0.0,
        narrower=float(judged.narrower_m[kept].mean()) if num else 0.0,
        coverage=num / judged.num_known,
        presences=len(presences),
        presence_precision=float(judged.in_image_m[kept][first].mean()) if num else 0.0,
    )


def read_grid(judged: Judged) -> list[Reading]:
    """Readings over a grid: scores at which set shares of the masks are left, and margins."""
    scores = sorted({round(float(np.quantile(judged.score_m, 1 - share)), 1) for share in GRID_SHARES}, reverse=True)
    return [read_at(judged, score, margin) for score in scores for margin in GRID_MARGINS]
