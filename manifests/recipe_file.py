"""Read a recipe from TOML and check it whole before anything runs.

What is wrong is said with the file, the place in it, what was expected and what was found.
"""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

import msgspec

from manifests import files
from manifests.errors import RecipeError
from manifests.recipe import (
    GENERATED_KINDS,
    LABELLED_KINDS,
    MINED_KINDS,
    RETRIEVE,
    SOURCE_NAME,
    SPLITS,
    BuildSource,
    CocoSource,
    HfColumns,
    HfSource,
    Mine,
    Prompts,
    RealSource,
    Recipe,
    Retrieve,
    Sa1bSource,
    SacoSource,
    SourceTable,
    default_mined_kinds,
)
from manifests.recipe_mine import check_mine
from manifests.sample import Evidence, NegativeKind


def load_recipe(path: str) -> Recipe:
    """The recipe at `path`, checked.

    Raises:
        RecipeError: with the file, the place in it, what was expected and what was found.
    """
    try:
        text = files.read_text(path)
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
    if recipe.mine is not None and "kinds" not in table.get("prompts", {}):
        prompts = msgspec.structs.replace(recipe.prompts, kinds=default_mined_kinds())
        recipe = msgspec.structs.replace(recipe, prompts=prompts)
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
        for table in (
            Recipe,
            Prompts,
            Mine,
            Sa1bSource,
            Retrieve,
            CocoSource,
            SacoSource,
            HfSource,
            HfColumns,
            BuildSource,
        )
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
    "$.mine.margin_space": ("standard", "raw"),
    "$.mine.sampling_strategy": ("top", "random"),
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
    for name, table in recipe.sources.items():
        if isinstance(table, Sa1bSource):
            _check_retrieve(table, f"{where}: sources.{name}")
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


def _check_retrieve(table: Sa1bSource, place: str) -> None:
    """Whether what is said of phrases and of their retrieval goes together."""
    asked = table.retrieve
    if table.phrases != RETRIEVE:
        _require(
            asked == Retrieve(), f'{place}.retrieve is given, but phrases = "{table.phrases}"; expected "{RETRIEVE}"'
        )
        return
    _require(
        not table.exhaustive_over,
        f'{place}.exhaustive_over is given, but phrases = "{RETRIEVE}" finds some of what is there, never all of it; '
        "remove exhaustive_over",
    )
    _require(asked.max_masks > 0, f"{place}.retrieve.max_masks = {asked.max_masks}; expected a positive number")
    for name in ("min_score", "min_margin", "min_area"):
        value: float | None = getattr(asked, name)
        _require(value is None or math.isfinite(value), f"{place}.retrieve.{name} = {value}; expected a finite number")


def _check_shares(shares: Mapping[str, float], place: str) -> None:
    total = sum((Fraction(str(v)) for v in shares.values() if math.isfinite(v)), Fraction(0))
    _require(
        all(math.isfinite(v) and v >= 0 for v in shares.values()) and total == 1,
        f"{place} = {dict(shares)} add up to {Decimal(total.numerator) / total.denominator}; "
        "expected shares from 0 to 1 that add up to exactly 1",
    )


def _check_kinds(recipe: Recipe, where: str) -> None:
    kinds = recipe.prompts.kinds
    for kind in kinds:
        _require(
            kind not in GENERATED_KINDS,
            f"{where}: prompts.kinds.{kind} is a kind of generated pictures; give that source a share in [mix]",
        )
    _check_shares({str(k): v for k, v in kinds.items()}, f"{where}: prompts.kinds")
    mined = [kind for kind in MINED_KINDS if kinds.get(kind)]
    if recipe.mine is None:
        _require(
            not mined,
            f"{where}: prompts.kinds asks for {', '.join(mined)}, but there is no [mine] table; add one ([mine] alone "
            f"takes the defaults), or keep to {', '.join(LABELLED_KINDS)}",
        )
    else:
        check_mine(recipe.mine, mined, where)
