"""Prompt templates as data: what is said around a phrase before an encoder reads it."""

import tomllib
from importlib.resources import files as package_files

import msgspec

from manifests import files
from manifests.errors import RecipeError

_PLACE = "{}"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    templates: tuple[str, ...]


def read_templates(name: str, *, family: str, uri: str = "") -> tuple[str, ...]:
    """The templates for the encoder `name`: its own table, or that of its `family`.

    Args:
        name: The encoder as the user names it.
        family: `conse` or `open_clip`.
        uri: A file of the user's; "" reads those that ship.

    Raises:
        RecipeError: there is no such file, it is no table of templates, or has none for this encoder.
    """
    where = uri or "miners/templates.toml"
    try:
        text = files.read_text(uri) if uri else package_files("miners").joinpath("templates.toml").read_text("utf-8")
        tables = msgspec.convert(tomllib.loads(text), dict[str, _Table])
    except OSError as error:
        raise RecipeError(f"{where}: the templates cannot be read: {error}; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        expected = 'a table per encoder, as [open_clip] with templates = ["a photo of a {}."]'
        raise RecipeError(f"{where}: no file of templates: {error}; expected {expected}") from error
    table = tables.get(name) or tables.get(family)
    if table is None:
        found = ", ".join(sorted(tables)) or "none"
        raise RecipeError(f"{where}: no templates for {name}; expected a table [{name}] or [{family}], found {found}")
    wrong = [template for template in table.templates if template.count(_PLACE) != 1]
    if wrong or not table.templates:
        found = repr(wrong[0]) if wrong else "none"
        raise RecipeError(f"{where}: templates for {name}: expected each to hold {_PLACE} once, found {found}")
    return table.templates


def filled(template: str, phrase: str) -> str:
    """`phrase` in its place."""
    return template.replace(_PLACE, phrase)
