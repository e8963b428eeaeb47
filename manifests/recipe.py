"""What the user asks for, read from TOML: the sources, their shares, and how prompts are put.

Every field has the meaning that `docs/recipes.md` gives it. A recipe is checked whole before anything runs; what is
wrong is said with the file, the path inside it, what was expected and what was found.
"""

import difflib
import hashlib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

import msgspec

from manifests import files
from manifests.errors import RecipeError
from manifests.sample import Evidence, NegativeKind

SPLITS = ("train", "val", "test")
Split = Literal["train", "val", "test"]
Share = float | Literal["rest"]
SOURCE_NAME = re.compile(r"[a-z0-9_]{1,32}")
GENERATED_KINDS = (NegativeKind.BLANK, NegativeKind.NOISE)
LABELLED_KINDS = (NegativeKind.RANDOM, NegativeKind.POPULAR, NegativeKind.CO_OCCURRING)


class Sa1bSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="format", tag="sa1b"):
    """SA-1B tars or unpacked folders, with phrases from a sidecar table."""

    data: str | list[str]
    phrases: str = ""
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
    mine: dict[str, object] | None = None
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
    """Where the recipe's own data files lie, by the name that the recipe gives them: lexicons and a vocabulary."""
    names = [*recipe.prompts.lexicon]
    if recipe.prompts.vocabulary != "present":
        names.append(recipe.prompts.vocabulary)
    return {name: recipe.resolve(name) for name in names}


def source_split(table: SourceTable) -> str | None:
    """The one split in which the source stands whole, if it was pinned to one."""
    return None if isinstance(table, BlankSource | NoiseSource) else table.split


_PATHS = frozenset({"data", "images", "annotations", "panoptic", "phrases", "data_files", "path"})


def portable(recipe: Recipe) -> Recipe:
    """The recipe with every path cut to its last name, so that it is the same wherever the inputs lie."""
    sources = {name: _portable_source(table) for name, table in recipe.sources.items()}
    prompts = msgspec.structs.replace(
        recipe.prompts,
        vocabulary=last_name(recipe.prompts.vocabulary),
        lexicon=[last_name(path) for path in recipe.prompts.lexicon],
    )
    return msgspec.structs.replace(recipe, folder="", sources=sources, prompts=prompts)


def _portable_source(table: SourceTable) -> SourceTable:
    changes: dict[str, str | list[str]] = {}
    for name in _PATHS & set(table.__struct_fields__):
        value: str | list[str] = getattr(table, name)
        changes[name] = last_name(value) if isinstance(value, str) else [last_name(path) for path in value]
    if isinstance(table, Sa1bSource):
        changes["exhaustive_over"] = [last_name(name) for name in table.exhaustive_over]
    return msgspec.structs.replace(table, **changes)


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


def load_recipe(path: str) -> Recipe:
    """The recipe at `path`, checked.

    Raises:
        RecipeError: with the file, the place in it, what was expected and what was found.
    """
    try:
        text = files.read_bytes(path).decode("utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe; expected a TOML file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    folder = os.path.dirname(os.path.abspath(path)) if files.is_local(path) else path.rpartition("/")[0]
    return parse_recipe(text, where=path, folder=folder)


def parse_recipe(text: str, *, where: str, folder: str) -> Recipe:
    """The recipe in `text`; `where` names it in messages.

    Raises:
        RecipeError: see `load_recipe`.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"{where}: not valid TOML: {error}") from error
    if "folder" in table:
        raise RecipeError(f"{where}: Object contains unknown field `folder` - at `$`; remove it")
    try:
        recipe = msgspec.convert({**table, "folder": folder}, Recipe)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RecipeError(f"{where}: {_located(error, table)}{_hint(str(error))}") from error
    _check(recipe, where)
    return recipe


def _located(error: Exception, table: Mapping[str, object]) -> str:
    """What is wrong, with the source's name where msgspec says only `sources[...]`."""
    sources = table.get("sources")
    if "$.sources[...]" in str(error) and isinstance(sources, Mapping):
        for name, one in sources.items():
            try:
                msgspec.convert(one, SourceTable)
            except msgspec.ValidationError:
                return str(error).replace("$.sources[...]", f"$.sources.{name}")
    return str(error)


_KEYS = sorted(
    {
        field.name
        for table in (Recipe, Prompts, Sa1bSource, CocoSource, SacoSource, HfSource, HfColumns, BuildSource)
        for field in msgspec.structs.fields(table)
    }
    - {"folder"}
)
_FORMATS = ("sa1b", "coco", "saco", "hf", "build", "blank", "noise")
_CHOICES = {
    ".format": _FORMATS,
    ".split": SPLITS,
    "$.splits": SPLITS,
    "$.prompts.kinds": tuple(NegativeKind),
    "$.prompts.evidence": tuple(Evidence),
    "$.when_short": ("stop", "repeat", "shrink"),
    "$.verify": ("structure", "decode"),
}


def _hint(message: str) -> str:
    """What a misspelt key may have meant, or which values there are."""
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown:
        near = difflib.get_close_matches(unknown.group(1), _KEYS, n=1)
        return f"; did you mean `{near[0]}`?" if near else "; remove it"
    if message.startswith(("Invalid enum value", "Invalid value")):
        choices = next((values for place, values in _CHOICES.items() if place in message), None)
        return f"; expected one of {', '.join(choices)}" if choices else ""
    return ""


def _check(recipe: Recipe, where: str) -> None:
    _check_numbers(recipe, where)
    _check_sources(recipe, where)
    _check_shares({str(k): v for k, v in recipe.splits.items()}, f"{where}: splits")
    _check_kinds(recipe, where)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RecipeError(message)


def _check_numbers(recipe: Recipe, where: str) -> None:
    prompts = recipe.prompts
    _require(bool(recipe.name.strip()), f"{where}: name is empty; expected a name for the build")
    _require(0 <= recipe.seed < 2**63, f"{where}: seed = {recipe.seed}; expected a whole number from 0 to 2^63 − 1")
    _require(
        recipe.samples is None or recipe.samples > 0,
        f"{where}: samples = {recipe.samples}; expected a positive number, or leave it out for as many as there are",
    )
    _require(recipe.shard_samples > 0, f"{where}: shard_samples = {recipe.shard_samples}; expected a positive number")
    _require(
        0 <= recipe.max_reject_share <= 1,
        f"{where}: max_reject_share = {recipe.max_reject_share}; expected a share from 0 to 1",
    )
    _require(
        math.isfinite(prompts.absent_per_image) and prompts.absent_per_image >= 0,
        f"{where}: prompts.absent_per_image = {prompts.absent_per_image}; expected 0 or more",
    )
    _require(
        prompts.present_per_image > 0 and prompts.generated_per_image > 0,
        f"{where}: prompts.present_per_image = {prompts.present_per_image} and generated_per_image = "
        f"{prompts.generated_per_image}; expected positive numbers",
    )


def _check_sources(recipe: Recipe, where: str) -> None:
    _require(bool(recipe.sources), f"{where}: no [sources.NAME] table; expected at least one")
    for name in recipe.sources:
        _require(
            SOURCE_NAME.fullmatch(name) is not None,
            f"{where}: source name {name!r}; expected 1 to 32 of the characters a-z, 0-9 and _",
        )
    for name in recipe.mix:
        near = difflib.get_close_matches(name, recipe.sources, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the sources are {', '.join(sorted(recipe.sources))}"
        _require(name in recipe.sources, f"{where}: mix.{name} names no [sources.{name}] table; {hint}")
    for name in recipe.sources:
        _require(
            name in recipe.mix, f"{where}: [sources.{name}] has no share in [mix]; give it one, or remove the table"
        )
    _require(
        any(isinstance(table, RealSource) for table in recipe.sources.values()),
        f"{where}: all sources are generated; expected at least one real source",
    )
    for name, share in recipe.mix.items():
        _require(
            share == "rest" or (math.isfinite(share) and 0 <= share <= 1),
            f'{where}: mix.{name} = {share}; expected a share from 0 to 1, or "rest"',
        )


def _check_shares(shares: Mapping[str, float], place: str) -> None:
    total = sum((Fraction(str(v)) for v in shares.values() if math.isfinite(v)), Fraction(0))
    _require(
        all(math.isfinite(v) and v >= 0 for v in shares.values()) and total == 1,
        f"{place} = {dict(shares)} add up to {float(total):g}; expected shares from 0 to 1 that add up to 1",
    )


def _check_kinds(recipe: Recipe, where: str) -> None:
    kinds = recipe.prompts.kinds
    for kind in kinds:
        _require(
            kind not in GENERATED_KINDS,
            f"{where}: prompts.kinds.{kind} is a kind of generated pictures; give that source a share in [mix]",
        )
    mined = [str(kind) for kind in kinds if kind not in LABELLED_KINDS]
    if mined or recipe.mine is not None:
        asked = f"prompts.kinds asks for {', '.join(mined)}" if mined else "there is a [mine] table"
        raise RecipeError(
            f"{where}: {asked}, but this version does not mine; expected kinds among {', '.join(LABELLED_KINDS)}. "
            "Remove the [mine] table and the mined kinds"
        )
    _check_shares({str(k): v for k, v in kinds.items()}, f"{where}: prompts.kinds")
