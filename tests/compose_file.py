"""docker-compose.yml as Compose reads it: parsed, merged, and its variables taken from an environment."""

import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from tests.worlds import REPOSITORY

COMPOSE = REPOSITORY / "docker-compose.yml"
VARIABLE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+)(?::(?P<mark>[?-])(?P<word>[^}]*))?\})")


class MissingError(Exception):
    """A variable that must be set is not."""


def services(variables: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Every service by its name; with `variables`, they are put in."""
    found: dict[str, dict[str, Any]] = whole()["services"]
    return found if variables is None else {name: put_in(each, variables) for name, each in found.items()}


def whole() -> dict[str, Any]:
    """The file, its anchors merged, its variables as they are written."""
    found: dict[str, Any] = YAML(typ="safe").load(COMPOSE.read_text(encoding="utf-8"))
    return found


def put_in(value: Any, variables: Mapping[str, str]) -> Any:  # noqa: ANN401  (YAML)
    """`value` with `${NAME:?message}` and `${NAME:-default}` replaced, and `$$` read as `$`.

    Raises:
        MissingError: a variable with a message is not set, or is empty.
    """
    if isinstance(value, dict):
        return {key: put_in(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [put_in(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def one(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        given = variables.get(found["name"], "")
        if not given and found["mark"] == "?":
            raise MissingError(f"{found['name']}: {found['word']}")
        return given or found["word"] or ""

    return VARIABLE.sub(one, value)
