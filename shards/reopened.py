"""A finished build opened again: its pictures and labels as an inventory, with the splits and groups that it gave them.

The build is scanned as a source, so it needs no `work/` of its own and may lie in a bucket. What is scanned once is
found again in the work folder that the caller names.
"""

# N pictures

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import RecipeError
from manifests.manifest import Manifest, read_manifest
from manifests.recipe import SPLITS, BuildSource, Recipe
from manifests.tables import IMAGES, read_table
from shards.inventory import Inventory, load_inventory
from shards.labels import Lexicon, load_lexicon
from shards.scanning import prepare_sources, require_few_rejects, scan_sources
from shards.sources.registry import open_sources
from shards.splits import Assignment

_SOURCE = "build"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reopened:
    """All that is known of a finished build's real pictures."""

    manifest: Manifest
    inventory: Inventory
    assignment: Assignment
    roots: Mapping[str, str]  # by source, as the inventory's pictures name it
    lexicon: Lexicon


def reopen(folder: str, work: str, *, executor: Executor, progress: Progress, lexicons: Sequence[str] = ()) -> Reopened:
    """The finished build in `folder`, scanned into `work` where it was not.

    Args:
        folder: Of the build.
        work: Where the scan goes.
        executor: Where parts run.
        progress: Shows how far the scan is.
        lexicons: The recipe's own files of synonyms, which a build does not carry.

    Raises:
        ManifestError: there is no finished build.
        RecipeError: the build was made with lexicons, and none was given.
        AbsentiaError: as a scan.
    """
    manifest = read_manifest(folder)
    _require_lexicons(folder, manifest.recipe, lexicons)
    recipe = Recipe(name=manifest.name, mix={_SOURCE: "rest"}, sources={_SOURCE: BuildSource(data=folder)})
    sources = open_sources(recipe)
    prepared = prepare_sources(sources, work)
    lexicon = load_lexicon(lexicons, [group for holds in prepared.values() for group in holds.synonyms])
    parts = scan_sources(sources, prepared, work=work, verify=recipe.verify, executor=executor, progress=progress)
    require_few_rejects(parts, recipe.max_reject_share)
    inventory = load_inventory(parts, prepared, lexicon, vocabulary_files={})
    return Reopened(
        manifest=manifest,
        inventory=inventory,
        assignment=_assignment(inventory, folder),
        roots={source.name: source.root for source in sources},
        lexicon=lexicon,
    )


def _require_lexicons(folder: str, recipe: Recipe, lexicons: Sequence[str]) -> None:
    asked = recipe.prompts.lexicon
    if len(lexicons) < len(asked):
        raise RecipeError(
            f"{folder}: was built with the lexicons {', '.join(asked)}, which a build does not carry; expected them "
            f"here, found {len(lexicons)}, and their synonyms would be taken for absences. Give each by --lexicon"
        )


def _assignment(inventory: Inventory, folder: str) -> Assignment:
    """Splits and groups as the build's images table gives them."""
    table = read_table(files.join(folder, "images.parquet"), IMAGES, ["key", "split", "group"])
    row_n = pc.index_in(inventory.images["key"], value_set=table["key"].combine_chunks()).to_numpy()
    split = table["split"].take(pa.array(row_n))
    split_n = pc.index_in(split, value_set=pa.array(SPLITS)).to_numpy().astype(np.int8)
    return Assignment(split_n=split_n, group_n=_first_of_group(table["group"].take(pa.array(row_n))), leaks=())


def _first_of_group(group: pa.ChunkedArray) -> NDArray[np.int64]:
    """For every picture the first picture of its group."""
    numbers = pc.dictionary_encode(group).combine_chunks().indices.to_numpy()
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    first_n: NDArray[np.int64] = first[inverse].astype(np.int64)
    return first_n
