"""The exception tree, and the closed enumeration of reasons why a row was dropped.

Two things can go wrong. The user's request can be impossible (a wrong recipe, an empty source, a full disk): that
stops the run with one `error:` line and is an `AbsentiaError`. Or one input among many can be bad: that input is
dropped with a `Reason`, counted, kept in `rejects.parquet`, and the run goes on. A traceback means a bug.

    AbsentiaError
    ├── RecipeError      the recipe asks for something that does not exist or does not add up
    ├── SourceError      a whole source cannot be read, or holds nothing
    ├── TableError       a Parquet file is not the table that it should be
    ├── ManifestError    a finished build is damaged, or is of another version
    ├── BuildError       the build cannot go on: a short source, too many rejects, a changed input
    │   └── NothingMinedError  every candidate was rejected
    ├── StorageError     a disk is full, a folder read-only, a bucket refuses
    │   └── UnreachableError  a disk or a bucket is out of reach for now: what passes by itself
    ├── CheckpointError  a student's checkpoint is missing, damaged, or does not fit what is asked
    ├── TrainingError    training cannot begin or go on: its data teaches nothing, or a loss is no number
    ├── PredictionError  a model cannot be asked, or what it answers is no probability
    ├── ExportError      an exported student is damaged, strays from what was trained, or cannot be quantised
    └── Rejected         one input is bad (caught by the stage that counts it)
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an input was dropped. Closed: tables of rejects hold no other word, and a test reaches every member."""

    # a whole image
    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_MODE = "unsupported_mode"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    SIZE_MISMATCH = "size_mismatch"
    DUPLICATE_ID = "duplicate_id"
    DUPLICATE_KEY = "duplicate_key"
    NO_ANNOTATION_FILE = "no_annotation_file"
    NO_IMAGE_FILE = "no_image_file"
    BROKEN_JSON = "broken_json"
    WRONG_FIELD = "wrong_field"
    # a container
    TAR_CUT_SHORT = "tar_cut_short"
    UNSAFE_NAME = "unsafe_name"
    NOT_A_FILE = "not_a_file"
    # one annotation or phrase
    MASK_SIZE = "mask_size"
    MASK_CORRUPT = "mask_corrupt"
    MASK_EMPTY = "mask_empty"
    ZERO_AREA = "zero_area"
    POLYGON_TOO_SHORT = "polygon_too_short"
    BAD_BOX = "bad_box"
    BELOW_FLOOR = "below_floor"
    DUPLICATE_ANNOTATION = "duplicate_annotation"
    UNKNOWN_CATEGORY = "unknown_category"
    UNKNOWN_IMAGE = "unknown_image"
    UNKNOWN_ANNOTATION = "unknown_annotation"
    CONTRADICTION = "contradiction"
    EMPTY_PHRASE = "empty_phrase"
    PHRASE_TOO_LONG = "phrase_too_long"
    PHRASE_NOT_UTF8 = "phrase_not_utf8"
    # a mined candidate: the guard that took it, or the row of a table that joins nothing
    ANNOTATION = "annotation"
    SEMANTIC = "semantic"
    SCORE = "score"
    DUPLICATE = "duplicate"
    OVERLAP = "overlap"
    VERIFIER = "verifier"
    REVIEWER = "reviewer"
    UNKNOWN_KEY = "unknown_key"
    UNKNOWN_PHRASE = "unknown_phrase"
    EVIDENCE = "evidence"
    NOT_FINITE = "not_finite"


class Repair(StrEnum):
    """What was put right without dropping anything; counted beside the rejects."""

    ENCODED = "encoded"
    AREA_RECOMPUTED = "area_recomputed"
    BOX_CLIPPED = "box_clipped"


class AbsentiaError(Exception):
    """Base of everything that Absentia raises on purpose; `str()` is the one line that the user reads."""


class RecipeError(AbsentiaError):
    """The recipe asks for something that does not exist or does not add up."""


class SourceError(AbsentiaError):
    """A whole source cannot be read, or holds nothing."""


class TableError(AbsentiaError):
    """A Parquet file is not the table that it should be."""


class ManifestError(AbsentiaError):
    """A finished build is damaged, or was written by a newer version."""


class BuildError(AbsentiaError):
    """The build cannot go on."""


class NothingMinedError(BuildError):
    """Mining left no row: guards rejected every candidate, or ranks left them out."""


class StorageError(AbsentiaError):
    """A disk is full, a folder is read-only, a bucket refuses."""


class UnreachableError(StorageError):
    """A disk or a bucket is out of reach for now.

    A type of its own, since what caused an error is lost on its way from one process to another.
    """


class CheckpointError(AbsentiaError):
    """A student's checkpoint is missing, damaged, or does not fit what is asked."""


class TrainingError(AbsentiaError):
    """Training cannot begin or go on."""


class PredictionError(AbsentiaError):
    """A model cannot be asked, or what it answers is no probability."""


class ExportError(AbsentiaError):
    """An exported student is damaged, strays from what was trained, or cannot be quantised."""


class Rejected(AbsentiaError):
    """One input is bad: the stage that meets it drops it, counts it and goes on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["Rejected"], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)
