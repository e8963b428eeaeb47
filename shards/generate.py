"""Paint the generated pictures of a build, part by part, each modelled on a real picture of its split."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.progress import Progress

from manifests import files
from manifests.errors import BuildError
from manifests.recipe import Recipe
from manifests.stage import run_stage
from manifests.tables import CATALOG, TableWriter, read_table, table_writer
from shards.draw import SplitDraw, generated_sources, real_samples
from shards.inventory import Inventory
from shards.originals import Original
from shards.sources.generated import GeneratedKind, GeneratedPicture, generate

GENERATOR_VERSION = 1  # part of every part's name: raise it when a picture's bytes change
_PICTURES_A_PART = 200


class GeneratedPart(msgspec.Struct, frozen=True, kw_only=True):
    """Some generated pictures of one source and split."""

    name: str
    weight: int
    source: str
    kind: GeneratedKind
    seed: int
    indices: tuple[int, ...]
    models: tuple[Original, ...]  # the picture that each is modelled on
    licences: tuple[str, ...]  # of the models


class GeneratedRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Says that a part is finished."""

    pictures: int


def generate_pictures(
    inventory: Inventory,
    draws: Sequence[SplitDraw],
    recipe: Recipe,
    roots: Mapping[str, str],
    *,
    work: str,
    executor: Executor,
    progress: Progress,
) -> dict[str, pa.Table]:
    """CATALOG rows of the generated pictures of every split, in written order; their bytes lie in `work/generated`."""
    folder = generated_folder(work)
    parts = {draw.split: _generated_parts(inventory, draw, recipe, roots) for draw in draws}
    everything = [part for found in parts.values() for part, _ in found]
    run = partial(_generate_part, folder=folder)
    run_stage("generate", everything, run, GeneratedRecord, folder=folder, executor=executor, progress=progress)
    tables = {}
    for draw in draws:
        found = parts[draw.split]
        rows = [read_table(files.join(folder, f"{part.name}.parquet"), CATALOG) for part, _ in found]
        positions = np.concatenate([p for _, p in found]) if found else np.empty(0, np.int64)
        joined = pa.concat_tables(rows) if rows else CATALOG.empty_table()
        tables[draw.split] = joined.take(np.argsort(positions, kind="stable"))
    return tables


def generated_folder(work: str) -> str:
    """Where the bytes of generated pictures lie until they are written into shards."""
    return files.join(work, "generated")


def _generated_parts(
    inventory: Inventory, draw: SplitDraw, recipe: Recipe, roots: Mapping[str, str]
) -> list[tuple[GeneratedPart, NDArray[np.int64]]]:
    """Parts of one split, with the written positions of their pictures."""
    models = draw.picture_s[real_samples(draw)]
    found = []
    for name, kind in generated_sources(recipe).items():
        if name not in draw.mix.names:
            continue
        positions = np.flatnonzero(draw.mix.order == draw.mix.names.index(name))
        for start in range(0, len(positions), _PICTURES_A_PART):
            here = positions[start : start + _PICTURES_A_PART]
            found.append((_generated_part(inventory, draw, recipe, roots, name, kind, here, models), here))
    return found


def _generated_part(
    inventory: Inventory,
    draw: SplitDraw,
    recipe: Recipe,
    roots: Mapping[str, str],
    source: str,
    kind: GeneratedKind,
    positions: NDArray[np.int64],
    models: NDArray[np.int64],
) -> GeneratedPart:
    indices = draw.index_s[positions]
    if not len(models):
        raise BuildError(f"split {draw.split}: source {source} has no real picture to take sizes from; add a real one")
    chosen = [
        models[np.random.default_rng([recipe.seed, 2, sum(source.encode()), index]).integers(len(models))]
        for index in indices.tolist()
    ]
    rows = (
        inventory.images.take(chosen)
        .select(["key", "source", "uri", "offset", "num_bytes", "licence", "sha256"])
        .to_pylist()
    )
    lent = [(row["sha256"], row["licence"]) for row in rows]
    content = [source, kind, recipe.seed, GENERATOR_VERSION, indices.tolist(), lent]
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
    return GeneratedPart(
        name=f"{source}-{draw.split}-{digest}",
        weight=len(positions),
        source=source,
        kind=kind,
        seed=recipe.seed,
        indices=tuple(indices.tolist()),
        models=tuple(
            Original(
                key=row["key"],
                uri=files.join(roots[row["source"]], row["uri"]),
                offset=row["offset"],
                num_bytes=row["num_bytes"],
                sha256=row["sha256"],
            )
            for row in rows
        ),
        licences=tuple(row["licence"] for row in rows),
    )


def _generate_part(part: GeneratedPart, *, folder: str) -> GeneratedRecord:
    data_name = f"{part.name}.jpgs"
    with (
        files.commit(files.join(folder, data_name)) as data,
        table_writer(files.join(folder, f"{part.name}.parquet"), CATALOG) as catalog,
    ):
        offset = 0
        for index, model, licence in zip(part.indices, part.models, part.licences, strict=True):
            picture = generate(part.source, part.kind, index, seed=part.seed, model=model.read())
            data.write(picture.jpeg)
            lent = licence if picture.variant == "phase_scrambled" else ""
            _add_row(catalog, part.source, picture, data_name, offset, lent)
            offset += len(picture.jpeg)
    return GeneratedRecord(pictures=len(part.indices))


def _add_row(catalog: TableWriter, source: str, picture: GeneratedPicture, uri: str, offset: int, licence: str) -> None:
    nothing: list[str] = []
    catalog.add(
        picture.key,
        source,
        uri,
        offset,
        len(picture.jpeg),
        picture.sha256,
        picture.width,
        picture.height,
        "jpeg",
        False,
        licence,
        nothing,
        nothing,
        None,
        picture.origin,
    )
