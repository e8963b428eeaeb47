"""Which libraries a manifest names."""

from importlib.metadata import version

import pytest

from manifests.recipe import Recipe
from manifests.recipe_file import parse_recipe
from shards import library_versions as module
from shards.library_versions import library_versions

PLAIN = ["python", "absentia", "msgspec", "numpy", "pillow", "pyarrow", "pycocotools"]
ENCODING = ["torch", "timm", "open_clip_torch", "tokenizers", "faiss-cpu", "numba"]
COCO = '[sources.x]\nformat = "coco"\nimages = "images"\nannotations = "instances.json"\n'
SA1B = '[sources.x]\nformat = "sa1b"\ndata = "*.tar"\nphrases = "retrieve"\n'
HF = '[sources.x]\nformat = "hf"\npath = "parquet"\ndata_files = "a.parquet"\n'


def recipe_of(tables: str) -> Recipe:
    return parse_recipe(f'name = "mix"\n[mix]\nx = "rest"\n{tables}', where="r.toml", folder="/data")


@pytest.mark.parametrize(
    ("tables", "more"),
    [
        (COCO, []),
        (f"{COCO}[mine]\nmax_false_negative_rate = 0.05\n", ENCODING),
        (SA1B, ENCODING),
        (HF, ["datasets"]),
    ],
    ids=["plain", "mine", "retrieve", "hf"],
)
def test_those_that_took_part_are_named_and_no_other(tables: str, more: list[str]) -> None:
    found = library_versions(recipe_of(tables))
    assert list(found) == [*PLAIN, *more, "libjpeg_turbo"]
    assert all(found[name] == version(name) for name in [*PLAIN[1:], *more])


def test_a_library_that_pip_does_not_know_stops_no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALWAYS", ("numpy", "faiss-of-ones-own"))
    assert library_versions(recipe_of(COCO))["faiss-of-ones-own"] == ""
