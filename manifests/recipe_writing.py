"""A recipe as a file: what it says besides the defaults, with its paths as they look from another folder."""

import os
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from manifests import files
from manifests.recipe import RETRIEVE, HfSource, Recipe, Sa1bSource, SourceTable, with_paths

_WORDS = ("", "present", RETRIEVE)  # stand where a path may stand, and are none


def moved(recipe: Recipe, folder: str) -> Recipe:
    """The same recipe as a file in `folder` says it: what was relative stays so, and names the same place."""
    home = files.absolute(folder)

    def seen(uri: str) -> str:
        if uri in _WORDS or not files.is_local(uri) or os.path.isabs(uri):
            return uri
        place = recipe.resolve(uri)
        return os.path.relpath(place, home) if files.is_local(place) and files.is_local(home) else place

    found = with_paths(recipe, seen)
    sources = {name: _with_names(table, recipe.sources[name], recipe) for name, table in found.sources.items()}
    return msgspec.structs.replace(found, sources=sources, folder=home)


def _with_names(table: SourceTable, before: SourceTable, recipe: Recipe) -> SourceTable:
    """`table` with what in it is a name and no path as it stood `before`."""
    if isinstance(table, HfSource) and isinstance(before, HfSource):
        place = recipe.resolve(before.path)
        is_folder = files.is_local(place) and os.path.isdir(place)
        return table if is_folder else msgspec.structs.replace(table, path=before.path)
    if isinstance(table, Sa1bSource) and isinstance(before, Sa1bSource):
        pairs = zip(before.exhaustive_over, table.exhaustive_over, strict=True)
        names = [old if old in recipe.sources or not files.exists(recipe.resolve(old)) else new for old, new in pairs]
        return msgspec.structs.replace(table, exhaustive_over=names)
    return table


def encode_recipe(recipe: Recipe) -> bytes:
    """The recipe in TOML, without what is the default; its folder is not in it."""
    said = _said(recipe)
    said.pop("folder", None)
    return msgspec.toml.encode(said)


def _said(struct: msgspec.Struct) -> dict[str, object]:
    """The fields that differ from their defaults, and the tag."""
    config = type(struct).__struct_config__
    found: dict[str, object] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if field.required or value != _default(field):
            found[field.encode_name] = _plain(value)
    return found


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return _said(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, StrEnum) else value
