"""`docs/recipes.md` names every key of a recipe with its default, and its examples are recipes."""

import re
from pathlib import Path

import msgspec
import pytest

from manifests.recipe import (
    BlankSource,
    BuildSource,
    CocoSource,
    HfColumns,
    HfSource,
    Mine,
    NoiseSource,
    Prompts,
    Recipe,
    Retrieve,
    Sa1bSource,
    SacoSource,
)
from manifests.recipe_file import parse_recipe
from tests.doors import ROOT

PAGE = ROOT / "docs" / "recipes.md"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "The recipe": Recipe,
    "`[prompts]`": Prompts,
    "`[mine]`": Mine,
    'format = "sa1b"': Sa1bSource,
    "`[sources.NAME.retrieve]`": Retrieve,
    'format = "coco"': CocoSource,
    'format = "saco"': SacoSource,
    'format = "hf"': HfSource,
    "`[sources.NAME.columns]`": HfColumns,
    'format = "build"': BuildSource,
    'format = "blank"': BlankSource,
    'format = "noise"': NoiseSource,
}


def toml(value: object) -> str:
    """A default as one would write it in a recipe; an em dash where nothing can be written for it."""
    match value:
        case None:
            return "—"
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if isinstance(value, msgspec.Struct):
        return "—"
    return toml(msgspec.to_builtins(value))


def rows(section: str) -> dict[str, str]:
    """Default by key, of the tables below the headings that hold `section`."""
    found: dict[str, str] = {}
    for part in re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE):
        heading, _, body = part.partition("\n")
        if section in heading:
            found |= dict(re.findall(r"^\| `(\w+)` \| `?(.*?)`? \|", body, re.MULTILINE))
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_names_every_key_and_its_default(section: str) -> None:
    fields = msgspec.structs.fields(SECTIONS[section])

    assert rows(section) == {field.name: default(field) for field in fields if field.name != "folder"}


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md"])
def test_every_recipe_in_the_docs_is_one(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    recipes = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)

    names = [parse_recipe(recipe, where=page, folder=str(Path("/data"))).name for recipe in recipes]

    assert names
