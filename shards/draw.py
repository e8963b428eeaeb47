"""Which pictures a build takes, and where each stands: splits, the exact mix, then a seeded draw from every source."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from manifests.errors import BuildError
from manifests.recipe import SPLITS, BlankSource, NoiseSource, Recipe, source_split
from manifests.sample import KINDS, MaskState, NegativeKind
from shards.inventory import ABSENT, MASK_STATES, PRESENT, Inventory
from shards.mined import Mined
from shards.mixing import Mix, SplitPlan, SplitRequest, plan_splits, resolve_mix
from shards.prompts import asks_absences
from shards.sources.generated import GeneratedKind
from shards.splits import NOT_PINNED, Assignment, assign_splits, generated_splits, seeded_hash

# N pictures of the inventory, S samples of a split in written order
GENERATED = -1
_INDICES_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitDraw:
    """One split in written order."""

    split: str
    mix: SplitPlan
    picture_s: NDArray[np.int64]  # row of the inventory, GENERATED for generated pictures
    repeat_s: NDArray[np.int32]  # 0 for the first time that a picture is drawn
    index_s: NDArray[np.int64]  # index of a generated picture in its source; −1 for real ones


def generated_sources(recipe: Recipe) -> dict[str, GeneratedKind]:
    """Kind (blank or noise) of every generated source, by name."""
    blank: dict[str, GeneratedKind] = {n: "blank" for n, t in recipe.sources.items() if isinstance(t, BlankSource)}
    return blank | {n: "noise" for n, t in recipe.sources.items() if isinstance(t, NoiseSource)}


def assign(inventory: Inventory, recipe: Recipe) -> Assignment:
    """Split and near-duplicate group of every picture."""
    pins = [source_split(recipe.sources[name]) for name in inventory.sources]
    pin_s = np.array([NOT_PINNED if pin is None else SPLITS.index(pin) for pin in pins], np.int8)
    hashes = inventory.images["perceptual_hash"].combine_chunks()
    return assign_splits(
        inventory.content_n,
        hashes.fill_null(0).to_numpy(),
        hashes.is_valid().to_numpy(zero_copy_only=False),
        pin_s[inventory.source_n],
        {str(split): share for split, share in recipe.splits.items()},
        recipe.seed,
    )


def askable(inventory: Inventory, recipe: Recipe, split: str, mined: Mined | None = None) -> NDArray[np.bool_]:
    """Pictures of which at least one prompt can be asked in `split`."""
    labels = inventory.labels
    owner = np.repeat(np.arange(inventory.num_images), np.diff(labels.starts))
    useful = labels.state_l == PRESENT
    denies = split != "train" or asks_absences(recipe.prompts)
    if denies:
        useful |= labels.state_l == ABSENT
    askable_n = np.bincount(owner[useful], minlength=inventory.num_images) > 0
    if split == "train" and denies:
        askable_n |= inventory.exhaustive_n()
    if split == "train" and mined is not None and recipe.prompts.absent_per_image > 0:
        offered_n = np.bincount(mined.image_m, minlength=inventory.num_images) > 0
        askable_n |= offered_n & inventory.known_n()
    return askable_n


def mixes(recipe: Recipe, *, where: str) -> dict[str, tuple[Fraction, Mix]]:
    """Share and exact mix of every split that gets samples; needs no picture, so it is asked before the scan, too.

    Raises:
        RecipeError: the shares of a split do not add up.
    """
    generated = generated_sources(recipe)
    fractions = {str(name): Fraction(str(share)) for name, share in recipe.splits.items()}
    return {
        split: (
            fractions[split],
            resolve_mix(recipe.shares(split), generated, where=f"{where}: [mix] of split {split}"),
        )
        for split in SPLITS
        if fractions.get(split)
    }


def draw_splits(
    inventory: Inventory,
    assignment: Assignment,
    recipe: Recipe,
    *,
    where: str,
    mute_n: NDArray[np.bool_] | None = None,
    mined: Mined | None = None,
) -> list[SplitDraw]:
    """Every split of the build, in the order of SPLITS; a split with a share of 0 is left out.

    Pictures of `mute_n` are not drawn, since they can be asked nothing. Of train's, those that `mined` is near_image to
    are drawn first.

    Raises:
        RecipeError: the shares of a split do not add up.
        BuildError: a source is short, see `shards.mixing.plan_splits`.
    """
    generated = generated_sources(recipe)
    pools: dict[str, dict[str, NDArray[np.int64]]] = {}
    near_n = None if mined is None else mined.best_rank_n(KINDS.index(NegativeKind.NEAR_IMAGE), inventory.num_images)
    requests: dict[str, SplitRequest] = {}
    for split, (fraction, mix) in mixes(recipe, where=where).items():
        usable_n = (assignment.split_n == SPLITS.index(split)) & askable(inventory, recipe, split, mined)
        if mute_n is not None:
            usable_n &= ~mute_n
        first_n = near_n if split == "train" else None
        pools[split] = {name: _pool(inventory, usable_n, name, recipe.seed, first_n) for name in mix.names}
        capacities = {name: None if name in generated else len(pools[split][name]) for name in mix.names}
        masked = [name for name in mix.names if _masked(inventory, pools[split][name]).any()]
        requests[split] = SplitRequest(mix=mix, fraction=fraction, capacities=capacities, first=masked)
    plans = plan_splits(
        requests, samples=recipe.samples, shard_samples=recipe.shard_samples, when_short=recipe.when_short
    )
    if not any(plan.num_samples for plan in plans.values()):
        raise BuildError(f"{where}: no split can hold a single sample; expected pictures whose phrases are known")
    return [_draw(inventory, split, plan, pools[split], generated, recipe) for split, plan in plans.items()]


def _pool(
    inventory: Inventory, usable_n: NDArray[np.bool_], source: str, seed: int, first_n: NDArray[np.int32] | None
) -> NDArray[np.int64]:
    """A source's usable pictures by `first_n`, then in a seeded order; an added picture shuffles none of the others."""
    if source not in inventory.sources:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(usable_n & (inventory.source_n == inventory.sources.index(source)))
    hashes = seeded_hash(inventory.content_n[rows], f"{seed} draw")
    return rows[np.lexsort((rows, hashes) if first_n is None else (rows, hashes, first_n[rows]))]


def _draw(
    inventory: Inventory,
    split: str,
    plan: SplitPlan,
    pools: Mapping[str, NDArray[np.int64]],
    generated: Collection[str],
    recipe: Recipe,
) -> SplitDraw:
    picture_s = np.full(plan.num_samples, GENERATED, np.int64)
    repeat_s = np.zeros(plan.num_samples, np.int32)
    index_s = np.full(plan.num_samples, -1, np.int64)
    fractions = {str(name): share for name, share in recipe.splits.items()}
    for number, name in enumerate(plan.names):
        positions = np.flatnonzero(plan.order == number)
        if name in generated:
            index_s[positions] = _indices(name, len(positions), split, fractions, recipe.seed)
        elif len(positions):
            pool = _mask_first(inventory, pools[name]) if positions[0] == 0 else pools[name]
            turn = np.arange(len(positions))
            picture_s[positions] = pool[turn % len(pool)]
            repeat_s[positions] = turn // len(pool)
    return SplitDraw(split=split, mix=plan, picture_s=picture_s, repeat_s=repeat_s, index_s=index_s)


def _masked(inventory: Inventory, pool: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pictures of `pool` have a mask."""
    labels = inventory.labels
    masked_l = (labels.state_l == PRESENT) & (labels.mask_state_l != MASK_STATES.index(MaskState.NONE))
    rows, owner = labels.rows_of(pool)
    return np.bincount(owner[masked_l[rows]], minlength=len(pool)) > 0


def _mask_first(inventory: Inventory, pool: NDArray[np.int64]) -> NDArray[np.int64]:
    """`pool` with a picture that has a mask in front: loaders infer the type of a mask from the first row."""
    found = np.flatnonzero(_masked(inventory, pool))
    if not len(found):
        return pool
    return np.concatenate([pool[found[:1]], np.delete(pool, found[0])])


def _indices(source: str, count: int, split: str, fractions: Mapping[str, float], seed: int) -> NDArray[np.int64]:
    """The first `count` indices of a generated source that stand in `split`."""
    wanted = SPLITS.index(split)
    found: list[NDArray[np.int64]] = []
    start = num_found = 0
    while num_found < count:
        indices = np.arange(start, start + _INDICES_AT_ONCE)
        here = indices[generated_splits(source, indices, fractions, seed) == wanted]
        found.append(here)
        start, num_found = start + _INDICES_AT_ONCE, num_found + len(here)
    return np.concatenate([*found, np.empty(0, np.int64)])[:count].astype(np.int64)


def real_samples(draw: SplitDraw) -> NDArray[np.int64]:
    """Written positions of the real samples of a split."""
    return np.flatnonzero(draw.picture_s != GENERATED)


def leak_keys(inventory: Inventory, leaks: Sequence[int]) -> list[str]:
    """Keys that name groups torn apart by pins."""
    return [inventory.images["key"][row].as_py() for row in leaks]
