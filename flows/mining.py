"""The mining stage of a build: between the splits and the plan, on everything that was scanned."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec
from rich.progress import Progress

from manifests import files
from manifests.recipe import MINED_KINDS, Mine, Recipe, opened_mine, recipe_sha256
from manifests.sample import NegativeKind
from shards.inventory import Inventory
from shards.labels import Lexicon
from shards.publish import inputs_sha256
from shards.relabelled import with_presences
from shards.splits import Assignment

TRAIN = "train"
_VERSION = 2  # part of the table's name: raise it when mining finds other rows


def negatives_of(
    recipe: Recipe,
    inventory: Inventory,
    assignment: Assignment,
    roots: Mapping[str, str],
    lexicon: Lexicon,
    *,
    work: str,
    progress: Progress,
) -> list[str]:
    """The negatives tables that train may be asked from: what is mined here first, then those that the recipe names."""
    settings = opened_mine(recipe)
    if settings is None:
        return []
    kinds = _kinds_to_mine(recipe)
    if not kinds:
        return settings.negatives
    mined = mine_train(recipe, settings, kinds, inventory, assignment, roots, lexicon, work=work, progress=progress)
    return [mined, *settings.negatives]


def _kinds_to_mine(recipe: Recipe) -> list[NegativeKind]:
    """The mined kinds that train is asked; false alarms only where there are predictions to find them in."""
    asked = [kind for kind in MINED_KINDS if recipe.prompts.kinds.get(kind, 0) > 0]
    has_predictions = recipe.mine is not None and bool(recipe.mine.predictions)
    return [kind for kind in asked if kind is not NegativeKind.FALSE_ALARM or has_predictions]


def decided_presences(inventory: Inventory, recipe: Recipe) -> Inventory:
    """The inventory with the presences that a person found: "it is there" becomes a label without a mask."""
    settings = opened_mine(recipe)
    if settings is None or not settings.decisions:
        return inventory
    from miners.outside import read_decisions

    decided = read_decisions(settings.decisions, inventory)
    there = decided.presence_p == 1.0
    return with_presences(inventory, decided.image_p[there], decided.phrase_p[there])


def mine_train(
    recipe: Recipe,
    settings: Mine,
    kinds: Sequence[NegativeKind],
    inventory: Inventory,
    assignment: Assignment,
    roots: Mapping[str, str],
    lexicon: Lexicon,
    *,
    work: str,
    progress: Progress,
) -> str:
    """The negatives table of the train split, mined where it was not."""
    from miners.composing import mine, vocabulary_of
    from miners.ground import choose, prepare_ground  # these import torch and faiss, which no other build needs
    from miners.mined_table import rejects_uri, write_mined

    chosen, inputs = choose(settings), inputs_sha256(inventory, recipe)
    asked = [_VERSION, chosen.encoder.digest, recipe_sha256(recipe), inputs]
    content = [asked, assignment.split_n.tobytes(), assignment.group_n.tobytes()]
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
    out = files.join(work, "mining", f"{digest}.parquet")
    if files.exists(out) and files.exists(rejects_uri(out)):
        return out
    named = recipe.prompts.vocabulary
    phrase_v = vocabulary_of(inventory, assignment, named if named == "present" else recipe.resolve(named))
    ground = prepare_ground(
        inventory, assignment, roots, lexicon, phrase_v, chosen, settings, split=TRAIN, folder=work, progress=progress
    )
    mined = mine(ground, settings, split=TRAIN, seed=recipe.seed, folder=work, progress=progress, kinds=kinds)
    write_mined(mined, out, inputs_sha256=inputs)
    return out
