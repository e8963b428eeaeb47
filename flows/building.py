"""The stages of a build, composed: a recipe in, a finished build out.

Each stage finds what it finished before, so a killed build goes on where it was, and a build that is finished already
returns at once.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from rich.progress import Progress

from flows.mining import decided_presences, negatives_of
from flows.retrieving import retrieve_phrases
from manifests import files
from manifests.croissant import CROISSANT_NAME
from manifests.errors import BuildError, RecipeError
from manifests.manifest import MANIFEST_NAME, Manifest, index_name, read_manifest
from manifests.recipe import SPLITS, Recipe, Sa1bSource, last_name, mining_files, recipe_sha256, side_files
from manifests.tables import NEGATIVES, PREDICTIONS, open_table
from shards.build import write_shards
from shards.draw import assign, generated_sources, mixes
from shards.generate import generate_pictures, generated_folder
from shards.inventory import Inventory, load_inventory, vocabularies_of
from shards.labels import Lexicon, load_lexicon
from shards.locking import locked_build
from shards.mined import read_mined
from shards.phrase_file import read_phrases
from shards.plan import choose_samples, plan_shards
from shards.publish import SUMMARY_NAME, TABLES, Finished, inputs_sha256, mining_record, publish
from shards.scanning import prepare_sources, require_few_rejects, scan_sources
from shards.sources.registry import open_sources, unmatched_rows
from shards.sources.source import Prepared, Reject, Source

_RECEIPT = "receipt.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Where a build goes, what runs it, and what it is called."""

    out: str
    executor: Executor
    progress: Progress
    where: str
    require_held: Callable[[], None]  # raises if another build took the folder over


def build(recipe: Recipe, out: str, *, executor: Executor, progress: Progress, where: str = "recipe") -> Manifest:
    """The manifest of the finished build in `out`, built where it was not.

    Args:
        recipe: What to build.
        out: Folder of the build.
        executor: Where parts run.
        progress: Shows how far each stage is.
        where: The recipe's name in messages.

    Raises:
        AbsentiaError: the recipe, the sources or the disk do not allow it; `out` holds another build.
    """
    mixes(recipe, where=where)
    _refuse_another(recipe, out)
    work = files.join(out, "work")
    files.make_folder(work)
    with locked_build(work) as require_held:
        files.remove_unfinished(out, below=("shards", "work"))
        sources, prepared = _prepare(recipe, work, progress)
        lexicon = load_lexicon(
            [recipe.resolve(path) for path in recipe.prompts.lexicon],
            [group for holds in prepared.values() for group in holds.synonyms],
        )
        receipt = _receipt(recipe, prepared)
        if (done := _finished(out, receipt)) is not None:
            return done
        parts = scan_sources(sources, prepared, work=work, verify=recipe.verify, executor=executor, progress=progress)
        require_few_rejects(parts, recipe.max_reject_share)
        inventory = load_inventory(parts, prepared, lexicon, vocabulary_files=_vocabulary_files(recipe, prepared))
        require_few_rejects(parts, recipe.max_reject_share, num_duplicates=len(inventory.duplicates))
        inventory = decided_presences(inventory, recipe)
        manifest = _same_inputs(out, inventory, recipe)
        if manifest is None:
            files.remove(files.join(work, _RECEIPT))  # it speaks of the build that was here before
            roots = {source.name: source.root for source in sources}
            run = _Run(out=out, executor=executor, progress=progress, where=where, require_held=require_held)
            late = unmatched_rows(sources, prepared)
            manifest = _build(recipe, inventory, prepared, lexicon, roots, late, run)
        files.write_bytes(files.join(work, _RECEIPT), receipt.encode())
        return manifest


def _prepare(recipe: Recipe, work: str, progress: Progress) -> tuple[list[Source], dict[str, Prepared]]:
    """The sources, with phrases where a recipe asks for them, and what they hold.

    Looking phrases up may take hours, so whatever else may be missing is told before.
    """
    opened = open_sources(recipe)
    prepared = prepare_sources(opened, work)
    _require_vocabularies(recipe, prepared)
    _require_mining_files(recipe)
    sources = retrieve_phrases(opened, recipe, work=work, progress=progress)
    changed = [source for source, before in zip(sources, opened, strict=True) if source is not before]
    return sources, prepared | prepare_sources(changed, work)


def _build(
    recipe: Recipe,
    inventory: Inventory,
    prepared: Mapping[str, Prepared],
    lexicon: Lexicon,
    roots: Mapping[str, str],
    late_rejects: Sequence[tuple[str, Reject]],
    run: _Run,
) -> Manifest:
    """Everything after the scan."""
    out, executor, progress = run.out, run.executor, run.progress
    work = files.join(out, "work")
    assignment = assign(inventory, recipe)
    negatives = negatives_of(recipe, inventory, assignment, roots, lexicon, work=work, progress=progress)
    mined = read_mined(negatives, inventory, assignment, recipe) if recipe.mine is not None else None
    draws, asked = choose_samples(inventory, assignment, recipe, where=run.where, mined=mined)
    pictures = generate_pictures(inventory, draws, recipe, roots, work=work, executor=executor, progress=progress)
    roots = {**roots, **dict.fromkeys(generated_sources(recipe), generated_folder(work))}
    folder = files.join(work, "plan")
    parts = [
        part
        for draw, prompts in zip(draws, asked, strict=True)
        for part in plan_shards(inventory, draw, prompts, pictures[draw.split], recipe, folder=folder, mined=mined)
    ]
    records = write_shards(parts, roots, out=out, executor=executor, progress=progress)
    finished = Finished(
        recipe=recipe,
        inventory=inventory,
        prepared=prepared,
        assignment=assignment,
        draws=draws,
        asked=asked,
        pictures=pictures,
        parts=parts,
        records=records,
        late_rejects=late_rejects,
        mined=mined,
        negatives=negatives,
    )
    run.require_held()
    return publish(finished, out)


def _refuse_another(recipe: Recipe, out: str) -> None:
    """Stop if `out` holds a finished build of another recipe, or things that no build wrote."""
    if not files.exists(files.join(out, MANIFEST_NAME)):
        _refuse_foreign(out)
        return
    found = read_manifest(out)
    if found.recipe_sha256 != recipe_sha256(recipe):
        raise BuildError(
            f"{out}: holds the finished build {found.name!r} of another recipe; choose another "
            f"--out, or delete its {MANIFEST_NAME}: it is then built anew there, from what was scanned and embedded"
        )


def _refuse_foreign(out: str) -> None:
    """Stop if `out` holds files that no build wrote, such as a source's pictures: a build would mingle with them."""
    own = {CROISSANT_NAME, SUMMARY_NAME, *map(index_name, SPLITS), *(f"{name}.parquet" for name in TABLES)}
    foreign = [name for name in files.names_in(out) if name not in own]
    if foreign:
        raise BuildError(
            f"{out}: is no build, but holds {foreign[0]!r} and {len(foreign) - 1} other files; expected an empty or a "
            "new folder. Choose another --out"
        )


def _receipt(recipe: Recipe, prepared: Mapping[str, Prepared]) -> str:
    """Digest of the recipe and of all that the sources were found to hold, without reading pictures."""
    parts = [part.name for holds in prepared.values() for part in holds.parts]
    beside = {**side_files(recipe), **_vocabulary_files(recipe, prepared)}
    digests = [files.sha256_file(uri) if files.exists(uri) else "" for uri in beside.values()]
    return hashlib.sha256(json.dumps([recipe_sha256(recipe), parts, digests]).encode()).hexdigest()


def _finished(out: str, receipt: str) -> Manifest | None:
    """The manifest, if `out` holds the finished build of this very receipt and all its shards."""
    stored = files.join(out, "work", _RECEIPT)
    if not files.exists(files.join(out, MANIFEST_NAME)) or not files.exists(stored):
        return None
    if files.read_bytes(stored).decode() != receipt:
        return None
    return _if_whole(out)


def _same_inputs(out: str, inventory: Inventory, recipe: Recipe) -> Manifest | None:
    """The manifest, if `out` holds the finished build of these very inputs.

    Raises:
        BuildError: it holds that of other inputs.
    """
    if not files.exists(files.join(out, MANIFEST_NAME)):
        return None
    if read_manifest(out).inputs_sha256 != inputs_sha256(inventory, recipe):
        raise BuildError(
            f"{out}: holds a finished build of the same recipe from other inputs; choose another --out, or delete it "
            "first"
        )
    return _if_whole(out)


def _if_whole(out: str) -> Manifest | None:
    """The manifest if every shard is there in its size, and every table and index; otherwise it is taken away."""
    manifest = read_manifest(out)
    shards = [shard for listed in manifest.splits.values() for shard in listed]
    places = {files.join(out, shard.url): shard.filesize for shard in shards}
    whole = all(files.exists(uri) and files.num_bytes(uri) == size for uri, size in places.items())
    others = [*manifest.tables, *map(index_name, manifest.splits), SUMMARY_NAME, CROISSANT_NAME]
    if whole and all(files.exists(files.join(out, name)) for name in others):
        return manifest
    files.remove(files.join(out, MANIFEST_NAME))
    return None


def _vocabulary_files(recipe: Recipe, prepared: Mapping[str, Prepared]) -> dict[str, str]:
    """Vocabularies that no source brings, as files by their last names.

    Raises:
        RecipeError: two files, or a file and a source's vocabulary, have one name.
    """
    known = {name for holds in prepared.values() for name in holds.vocabularies}
    tables = [table for table in recipe.sources.values() if isinstance(table, Sa1bSource)]
    wanted = {name for table in tables for name in table.exhaustive_over}
    found: dict[str, str] = {}
    for text in sorted(wanted - known):
        name = last_name(text)
        if name in known | found.keys():
            raise RecipeError(
                f"exhaustive_over names {text!r}, but another vocabulary is called {name!r}; rename the file"
            )
        found[name] = recipe.resolve(text)
    return found


def _require_vocabularies(recipe: Recipe, prepared: Mapping[str, Prepared]) -> None:
    """Stop before the scan, which may take hours, if a vocabulary that the recipe names cannot be read."""
    vocabularies_of(prepared, _vocabulary_files(recipe, prepared))
    if recipe.prompts.vocabulary != "present":
        read_phrases(recipe.resolve(recipe.prompts.vocabulary), "prompts.vocabulary")


def _require_mining_files(recipe: Recipe) -> None:
    """Stop before the scan if a file that `[mine]` names is missing or is another table than it should be."""
    if recipe.mine is None:
        return
    for name in mining_files(recipe.mine):
        files.require_file(recipe.resolve(name), named_by="[mine]")
    negatives = [recipe.resolve(name) for name in recipe.mine.negatives]
    for uri in negatives:
        open_table(uri, NEGATIVES)
    mining_record(negatives)
    for name in [*recipe.mine.predictions, *recipe.mine.verifier]:
        open_table(recipe.resolve(name), PREDICTIONS)
