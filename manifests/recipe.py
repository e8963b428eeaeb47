"""What the user asks for: the sources, their shares, and how prompts are put.

Every field has the meaning that `docs/recipes.md` gives it; `manifests.recipe_file` reads and checks a recipe.
"""

import hashlib
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Literal

import msgspec

from manifests import files
from manifests.sample import Evidence, NegativeKind

SPLITS = ("train", "val", "test")
Split = Literal["train", "val", "test"]
Share = float | Literal["rest"]
SOURCE_NAME = re.compile(r"[a-z0-9_]{1,32}")
GENERATED_KINDS = (NegativeKind.BLANK, NegativeKind.NOISE)
MINED_KINDS = (NegativeKind.NEAR_TEXT, NegativeKind.NEAR_IMAGE, NegativeKind.FALSE_ALARM)
ENCODER_FOLDER = "local-dir:"
RETRIEVE = "retrieve"  # as `phrases` of an SA-1B source
DEFAULT_RATE = 0.05  # false negatives among what is mined
LABELLED_KINDS = (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING)


class Retrieve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How phrases are found for masks that have none: each mask's crop is looked up among those of a vocabulary.

    A score says by how many standard deviations a phrase lies above what the crop scores with other phrases; the margin
    is the distance to the next phrase that says something else.
    """

    vocabulary: str = ""  # file of one phrase a line; "" takes the one that comes along
    encoder: str = "auto"  # as in [mine]
    templates: str = ""  # file of prompt templates; "" takes the encoder's own
    min_score: float | None = None  # None where the encoder's own is known
    min_margin: float | None = None
    min_area: float = 1024.0  # pixels of a mask; smaller ones show too little
    max_masks: int = 32  # of one picture, largest first


class Sa1bSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="sa1b"):
    """SA-1B tars or unpacked folders, with phrases from a sidecar table, or found by an encoder."""

    data: str | list[str]
    phrases: str = ""  # a sidecar, or RETRIEVE
    retrieve: Retrieve = Retrieve()
    licence: str = "SA-1B research"
    exhaustive_over: list[str] = []
    split: Split | None = None
    min_predicted_iou: float = 0.0
    min_stability_score: float = 0.0
    min_area: float = 0.0  # pixels
    min_phrase_score: float = 0.0


class CocoSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="coco"):
    """COCO instances, boxes, panoptic or LVIS; several annotation files complete each other."""

    images: str
    annotations: str | list[str]
    panoptic: str = ""  # the folder of a panoptic file's PNGs
    licence: str = ""  # "" takes each image's own from the file
    exhaustive: bool = True  # False where the file's categories were not looked for everywhere
    split: Split | None = None


class SacoSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="saco"):
    """SA-Co: image–phrase pairs with masks."""

    images: str
    annotations: str | list[str]
    licence: str = ""
    split: Split | None = None


class HfColumns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which column of a data set holds what."""

    image: str = "image"
    id: str = ""  # "" numbers the rows
    phrases: str = ""  # a list of strings or class labels, or one
    masks: str = ""  # one per phrase: a mask image, or COCO RLE
    absent: str = ""  # phrases that are known to be absent
    objects: str = ""  # a column of dicts, as `objects` in detection sets
    category: str = "category"  # inside `objects`
    segmentation: str = ""  # inside `objects`: polygons or RLE


class HfSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="hf"):
    """Any image data set that `datasets.load_dataset` opens."""

    path: str  # as `load_dataset` takes it: parquet, arrow, imagefolder, webdataset, or a hub name
    data_files: str | list[str] = []
    subset: str = ""
    rows: str = "train"  # the data set's own split
    streaming: bool = True
    columns: HfColumns = HfColumns()
    licence: str = ""
    exhaustive: bool = False
    split: Split | None = None


class BuildSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="build"
):
    """A finished build."""

    data: str
    split: Split | None = None


class BlankSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="blank"
):
    """Pictures of nothing: solid, gradient, near-black, near-white, over-exposed."""


class NoiseSource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="noise"
):
    """Pictures of noise: Gaussian, uniform, salt-and-pepper, 1/f, phase-scrambled."""


RealSource = Sa1bSource | CocoSource | SacoSource | HfSource | BuildSource
GeneratedSource = BlankSource | NoiseSource
SourceTable = RealSource | GeneratedSource


def _default_splits() -> dict[Split, float]:
    return {"train": 0.8, "val": 0.1, "test": 0.1}


def _default_kinds() -> dict[NegativeKind, float]:
    return {NegativeKind.RANDOM: 0.5, NegativeKind.CO_OCCURRING: 0.5}


def default_mined_kinds() -> dict[NegativeKind, float]:
    """The kinds of a recipe that mines and names none: most stay random, without which the rest costs recall."""
    return {
        NegativeKind.RANDOM: 0.75,
        NegativeKind.CO_OCCURRING: 0.1,
        NegativeKind.NEAR_TEXT: 0.05,
        NegativeKind.NEAR_IMAGE: 0.1,
    }


class Prompts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many phrases an image is asked, and which."""

    absent_per_image: float = 5.0
    present_per_image: int = 8
    generated_per_image: int = 5
    kinds: dict[NegativeKind, float] = msgspec.field(default_factory=_default_kinds)
    evidence: list[Evidence] = msgspec.field(
        default_factory=lambda: [Evidence.ANNOTATED, Evidence.VERIFIED, Evidence.MINED]
    )
    vocabulary: str = "present"
    lexicon: list[str] = []  # files of synonyms and hypernyms besides the one that comes along
    strict: bool = False


class Mine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard negatives are mined; the names are those of sentence-transformers' `mine_hard_negatives`.

    Of `max_false_negative_rate`, `relative_margin` and `absolute_margin` at most one is given: it says how strict the
    score guard is. Where none is, the audit chooses the margin for a false negative rate of `DEFAULT_RATE`.
    """

    encoder: str = "auto"  # or conse, an open_clip `model/pretrained`, `model@file.safetensors`, `hf-hub:name`
    templates: str = ""  # file of prompt templates; "" takes the encoder's own
    max_false_negative_rate: float | None = None
    relative_margin: float | None = None
    absolute_margin: float | None = None
    margin_space: Literal["standard", "raw"] = "standard"
    max_score: float | None = None  # of near_text and near_image; a false alarm's score is a presence, on no such scale
    min_score: float | None = None
    range_min: int = 0  # ranks below are passed over
    range_max: int | None = None  # ranks from here on are not looked at
    num_negatives: int | None = None  # per query; left out: as many as the build can ask
    sampling_strategy: Literal["top", "random"] = "top"
    max_per_image: int = 8  # near_image rows
    max_per_phrase_share: float = 0.05  # of all near_text rows, and of all false alarms
    hidden_share: float = 0.5  # of the known presences, which the audit hides
    memory_gb: float = 4.0  # of rows searched exactly in memory; above it the index is approximate
    negatives: list[str] = []  # finished tables to use besides
    predictions: list[str] = []  # of a student, for false alarms
    verifier: list[str] = []  # predictions of a second model
    decisions: list[str] = []  # of a person, from the gallery


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole recipe; `folder` is where its relative paths start and is no part of its digest."""

    name: str
    seed: int = 0
    samples: int | None = None
    shard_samples: int = 1000
    splits: dict[Split, float] = msgspec.field(default_factory=_default_splits)
    max_reject_share: float = 0.01
    when_short: Literal["stop", "repeat", "shrink"] = "stop"
    verify: Literal["structure", "decode"] = "structure"
    mix: dict[str, Share]
    prompts: Prompts = Prompts()
    sources: dict[str, SourceTable]
    mine: Mine | None = None
    folder: str = ""

    def resolve(self, uri: str) -> str:
        """`uri` as the recipe's folder sees it."""
        return files.resolve(self.folder, uri)

    def shares(self, split: str) -> dict[str, Fraction | Literal["rest"]]:
        """The shares of the sources that may stand in `split`, exactly as written."""
        return {
            name: share if share == "rest" else Fraction(str(share))
            for name, share in self.mix.items()
            if source_split(self.sources[name]) in (None, split)
        }


def side_files(recipe: Recipe) -> dict[str, str]:
    """Where the recipe's own data files lie, by the name that the recipe gives them: lexicons, tables, weights."""
    names = [*recipe.prompts.lexicon]
    if recipe.prompts.vocabulary != "present":
        names.append(recipe.prompts.vocabulary)
    if recipe.mine is not None:
        names += mining_files(recipe.mine)
    return {name: recipe.resolve(name) for name in names}


def mining_files(mine: Mine) -> list[str]:
    """The files that `[mine]` names, as it names them."""
    tables = [path for name in _MINE_TABLES for path in getattr(mine, name)]
    weights = "" if mine.encoder.startswith(ENCODER_FOLDER) else _encoder_path(mine.encoder)[1]
    return [name for name in [mine.templates, weights, *tables] if name]


def opened_mine(recipe: Recipe) -> Mine | None:
    """The recipe's `[mine]` table, its paths as the recipe's folder sees them; None where it does not mine."""
    return recipe.mine and _mine_with_paths(recipe.mine, lambda path: recipe.resolve(path) if path else "")


def _encoder_path(encoder: str) -> tuple[str, str]:
    """What stands before the path in an encoder's name, and the path: `MODEL@FILE` or `local-dir:FOLDER`."""
    if encoder.startswith(ENCODER_FOLDER):
        return ENCODER_FOLDER, encoder.removeprefix(ENCODER_FOLDER)
    model, at, path = encoder.partition("@")
    return (model + at, path) if at and not model.startswith("hf-hub:") else (encoder, "")


def source_split(table: SourceTable) -> str | None:
    """The one split in which the source stands whole, if it was pinned to one."""
    return None if isinstance(table, BlankSource | NoiseSource) else table.split


_MINE_TABLES = ("negatives", "predictions", "verifier", "decisions")
_PATHS = frozenset({"data", "images", "annotations", "panoptic", "phrases", "data_files", "path"})


def portable(recipe: Recipe) -> Recipe:
    """The recipe with every path cut to its last name, so that it is the same wherever the inputs lie."""
    return msgspec.structs.replace(with_paths(recipe, last_name), folder="")


def with_paths(recipe: Recipe, change: Callable[[str], str]) -> Recipe:
    """The recipe with `change` done to all that may be a path: to empty ones, "present" and "retrieve", too."""
    sources = {name: _source_with_paths(table, change) for name, table in recipe.sources.items()}
    prompts = msgspec.structs.replace(
        recipe.prompts,
        vocabulary=change(recipe.prompts.vocabulary),
        lexicon=[change(path) for path in recipe.prompts.lexicon],
    )
    mine = None if recipe.mine is None else _mine_with_paths(recipe.mine, change)
    return msgspec.structs.replace(recipe, sources=sources, prompts=prompts, mine=mine)


def _mine_with_paths(mine: Mine, change: Callable[[str], str]) -> Mine:
    before, path = _encoder_path(mine.encoder)
    return msgspec.structs.replace(
        mine,
        encoder=before + change(path) if path else mine.encoder,
        templates=change(mine.templates),
        **{name: [change(path) for path in getattr(mine, name)] for name in _MINE_TABLES},
    )


def _source_with_paths(table: SourceTable, change: Callable[[str], str]) -> SourceTable:
    changes: dict[str, str | list[str] | Retrieve] = {}
    for name in _PATHS & set(table.__struct_fields__):
        value: str | list[str] = getattr(table, name)
        changes[name] = change(value) if isinstance(value, str) else [change(path) for path in value]
    if isinstance(table, Sa1bSource):
        changes["exhaustive_over"] = [change(name) for name in table.exhaustive_over]
        changes["retrieve"] = _with_paths(table.retrieve, change)
    return msgspec.structs.replace(table, **changes)


def resolved_retrieval(recipe: Recipe, retrieve: Retrieve) -> Retrieve:
    """The settings with their paths as the recipe's folder sees them."""
    return _with_paths(retrieve, recipe.resolve)


def _with_paths(retrieve: Retrieve, change: Callable[[str], str]) -> Retrieve:
    before, path = _encoder_path(retrieve.encoder)
    return msgspec.structs.replace(
        retrieve,
        vocabulary=change(retrieve.vocabulary) if retrieve.vocabulary else "",
        templates=change(retrieve.templates) if retrieve.templates else "",
        encoder=before + change(path) if path else retrieve.encoder,
    )


def last_name(uri: str) -> str:
    """The name of a file, whatever folder or bucket it lies in; a source's name as it is."""
    return uri.rstrip("/").rpartition("/")[2]


def recipe_sha256(recipe: Recipe) -> str:
    """Digest of what the recipe asks for; where its inputs lie does not matter, their contents are digested apart."""
    plain = msgspec.to_builtins(portable(recipe))
    for table in plain["sources"].values():
        for name in _PATHS & table.keys():
            del table[name]
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()
