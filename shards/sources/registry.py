"""Which reader opens which source table of a recipe."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from manifests.recipe import (
    BlankSource,
    BuildSource,
    CocoSource,
    HfSource,
    NoiseSource,
    Recipe,
    Sa1bSource,
    SacoSource,
)
from shards.sources.build import open_build
from shards.sources.coco import open_coco
from shards.sources.hf import open_hf
from shards.sources.sa1b import Sa1b, open_sa1b
from shards.sources.saco import open_saco
from shards.sources.source import Prepared, Reject, Source


def open_sources(recipe: Recipe) -> list[Source]:
    """The real sources of a recipe, in its order; generated ones have nothing to open."""
    found: list[Source] = []
    for name, table in recipe.sources.items():
        match table:
            case Sa1bSource():
                found.append(open_sa1b(name, table, recipe))
            case CocoSource():
                found.append(open_coco(name, table, recipe))
            case SacoSource():
                found.append(open_saco(name, table, recipe))
            case HfSource():
                found.append(open_hf(name, table, recipe))
            case BuildSource():
                found.append(open_build(name, table, recipe))
            case BlankSource() | NoiseSource():
                pass
            case _:
                assert_never(table)
    return found


def unmatched_rows(sources: Sequence[Source], prepared: Mapping[str, Prepared]) -> list[tuple[str, Reject]]:
    """Rows of phrase sidecars whose picture no part held, by source; to be asked after the scan."""
    sidecars = [source for source in sources if isinstance(source, Sa1b)]
    return [(source.name, reject) for source in sidecars for reject in source.unmatched(prepared[source.name])]
