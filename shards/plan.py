"""The plan: who is in, where, and asked what; one pair of tables per shard, named by the digest of what they hold.

A shard's plan is complete: with it, the sources and the scanned masks, any worker writes that shard and no other
knowledge is needed. So a changed recipe rewrites only the shards whose plan changed.
"""

# N pictures, L labels, M mined rows, V phrases of the inventory; S samples, Q prompts of a split, G of generated ones

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import files
from manifests.errors import BuildError
from manifests.recipe import Recipe
from manifests.sample import KINDS, NO_RANK, Evidence, MaskState
from manifests.tables import CATALOG, PLAN, write_table
from shards.benchmark import ask_benchmark
from shards.candidates import Candidates, train_statistics
from shards.draw import GENERATED, SplitDraw, draw_splits, generated_sources, real_samples
from shards.inventory import KNOWN_BY, MASK_STATES, Inventory
from shards.labels import phrase_id
from shards.mined import EVIDENCES, Mined, nothing_mined
from shards.phrase_file import read_phrases
from shards.prompts import NO_KIND, NO_LABEL, NOT_MINED, Asked, ask_generated, ask_train
from shards.sources.source import EVIDENCE_OF
from shards.splits import Assignment

_Value = TypeVar("_Value", bound=np.generic)
_EVIDENCE_OF = np.array([EVIDENCES.index(EVIDENCE_OF[one]) for one in KNOWN_BY])
WRITER_VERSION = 1  # part of every shard's part name: raise it when the writer's output changes


class ShardPart(msgspec.Struct, frozen=True, kw_only=True):
    """One shard to be written."""

    name: str  # `<split>-<number>-<16 hex of its plan>`
    weight: int  # samples
    split: str
    number: int
    folder: str  # of its plan tables

    @property
    def plan(self) -> str:
        """Its prompts."""
        return files.join(self.folder, f"{self.name}.plan.parquet")

    @property
    def images(self) -> str:
        """Its pictures: a catalog row per sample, in written order, with the sample's key."""
        return files.join(self.folder, f"{self.name}.images.parquet")


def ask_splits(
    inventory: Inventory, draws: Sequence[SplitDraw], recipe: Recipe, mined: Mined | None = None
) -> list[Asked]:
    """Prompts of the real samples of every split; train may be asked what was mined.

    Raises:
        BuildError: `strict`, and a kind or a source ran short.
    """
    train = next((draw for draw in draws if draw.split == "train"), draws[0])
    pictures = train.picture_s[real_samples(train)]
    candidates = Candidates(inventory, _vocabulary(inventory, recipe, pictures))
    statistics = train_statistics(candidates, pictures)
    found: list[Asked] = []
    for draw in draws:
        rng = np.random.default_rng([recipe.seed, 1, len(found)])
        rows = draw.picture_s[real_samples(draw)]
        if draw.split == "train":
            found.append(ask_train(candidates, statistics, rows, recipe.prompts, rng, mined))
        else:
            found.append(ask_benchmark(candidates, statistics, rows, rng, draw.split))
    notes = [note for asked in found for note in asked.notes if note.startswith("train")]
    if recipe.prompts.strict and notes:
        raise BuildError(f"prompts ran short and strict is set: {'; '.join(notes)}. Add labels, or set strict = false")
    return found


def choose_samples(
    inventory: Inventory, assignment: Assignment, recipe: Recipe, *, where: str, mined: Mined | None = None
) -> tuple[list[SplitDraw], list[Asked]]:
    """Every split with the prompts of its real samples, each of which is asked something.

    What a picture without presences can be asked depends on what train holds, so it shows only once all are drawn;
    one that can be asked nothing is left out, and the splits are drawn again.

    Args:
        inventory: All that is known.
        assignment: Where every picture stands.
        recipe: What is asked for.
        where: The recipe's name in messages.
        mined: Absences that train may be asked besides those from labels.

    Raises:
        RecipeError, BuildError: see `shards.draw.draw_splits` and `ask_splits`.
    """
    mute_n = np.zeros(inventory.num_images, np.bool_)
    while True:
        draws = draw_splits(inventory, assignment, recipe, where=where, mute_n=mute_n, mined=mined)
        asked = ask_splits(inventory, draws, recipe, mined)
        real = [draw.picture_s[real_samples(draw)] for draw in draws]
        mute = [np.delete(rows, found.sample_q) for rows, found in zip(real, asked, strict=True)]
        if not any(map(len, mute)):
            return draws, asked
        mute_n[np.concatenate(mute)] = True


def _vocabulary(inventory: Inventory, recipe: Recipe, train: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which phrases may be asked as absent: those present in train, or those of a file."""
    allowed_v = np.zeros(len(inventory.phrases), np.bool_)
    if recipe.prompts.vocabulary == "present":
        rows, _ = inventory.present(train)
        allowed_v[inventory.labels.phrase_l[rows]] = True
        return allowed_v
    wanted = read_phrases(recipe.resolve(recipe.prompts.vocabulary), "prompts.vocabulary").phrases
    folded = {phrase_id(text) for text in wanted}
    allowed_v[:] = [phrase_id(phrase) in folded for phrase in inventory.phrases]
    return allowed_v


def plan_shards(
    inventory: Inventory,
    draw: SplitDraw,
    asked: Asked,
    pictures: pa.Table,
    recipe: Recipe,
    *,
    folder: str,
    mined: Mined | None = None,
) -> list[ShardPart]:
    """Write the plan of every shard of one split.

    Args:
        inventory: All that is known.
        draw: The split in written order.
        asked: Prompts of its real samples.
        pictures: CATALOG rows of its generated pictures, in written order.
        recipe: For the number of generated prompts and the shard size.
        folder: Where the plans go.
        mined: What `asked` took mined absences from.
    """
    prompts = _prompt_rows(inventory, draw, asked, recipe, mined)
    images = _image_rows(inventory, draw, pictures)
    position = prompts["position"].to_numpy()
    parts = []
    for number, start in enumerate(range(0, len(draw.picture_s), recipe.shard_samples)):
        end = min(start + recipe.shard_samples, len(draw.picture_s))
        first, last = np.searchsorted(position, [start, end])
        shown = images.slice(start, end - start).combine_chunks()
        named = _named_apart(shown, draw.repeat_s[start:end])
        here = _with_keys(prompts.slice(int(first), int(last - first)), position[first:last] - start, shown, named)
        parts.append(_write_part(here, named, inventory, split=draw.split, number=number, folder=folder))
    return parts


def _prompt_rows(inventory: Inventory, draw: SplitDraw, asked: Asked, recipe: Recipe, mined: Mined | None) -> pa.Table:
    """PLAN columns but for the keys, in written order."""
    real = real_samples(draw)
    generated = np.flatnonzero(draw.picture_s == GENERATED)
    rng = np.random.default_rng([recipe.seed, 3, len(generated), *draw.split.encode()])
    histogram_v = np.bincount(asked.phrase_q, minlength=len(inventory.phrases))
    sample_g, phrase_g = ask_generated(len(generated), recipe.prompts.generated_per_image, histogram_v, rng)
    kinds = generated_sources(recipe)
    kind_of_source = np.array([KINDS.index(kinds[n]) if n in kinds else NO_KIND for n in draw.mix.names], np.int8)
    made = len(sample_g)
    position_q = np.concatenate([real[asked.sample_q], generated[sample_g]])
    order = np.argsort(position_q, kind="stable")
    rows = _Rows(
        position_q=position_q[order],
        phrase_q=np.concatenate([asked.phrase_q, phrase_g])[order],
        kind_q=np.concatenate([asked.kind_q, kind_of_source[draw.mix.order[generated[sample_g]]]])[order],
        label_q=np.concatenate([asked.label_q, np.full(made, NO_LABEL, np.int64)])[order],
        mined_q=np.concatenate([asked.mined_q, np.full(made, NOT_MINED, np.int64)])[order],
        made_q=np.concatenate([np.zeros(len(asked.kind_q), np.bool_), np.ones(made, np.bool_)])[order],
    )
    evidence_q, columns = _label_columns(inventory, rows)
    columns |= _mined_columns(rows.mined_q, evidence_q, nothing_mined() if mined is None else mined)
    return pa.table({"split": _taken([draw.split], np.zeros(len(order), np.int64)), **columns})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The prompts of a split in written order, as numbers."""

    position_q: NDArray[np.int64]
    phrase_q: NDArray[np.int32]
    kind_q: NDArray[np.int8]
    label_q: NDArray[np.int64]
    mined_q: NDArray[np.int64]
    made_q: NDArray[np.bool_]  # of a generated picture


def _label_columns(inventory: Inventory, rows: _Rows) -> tuple[NDArray[np.int64], dict[str, pa.Array]]:
    """How each prompt is known that was not mined, and what phrases, kinds and labels say of it."""
    labels, num = inventory.labels, len(rows.position_q)
    present_q = rows.label_q != NO_LABEL
    row_q = np.where(present_q, rows.label_q, 0)

    def of_label(column_l: NDArray[np.generic], otherwise: int) -> NDArray[np.int64]:
        """A label's column for present prompts, `otherwise` for absent ones."""
        return np.where(present_q, column_l[row_q], otherwise) if len(column_l) else np.full(num, otherwise)

    columns = {
        "position": pa.array(rows.position_q),
        "phrase": _taken(inventory.phrases, rows.phrase_q),
        "present": pa.array(present_q),
        "mask_state": _taken(
            [str(s) for s in MASK_STATES], of_label(labels.mask_state_l, MASK_STATES.index(MaskState.COMPLETE))
        ),
        "kind": _taken(["", *map(str, KINDS)], rows.kind_q.astype(np.int64) + 1),
        "masks_part": _taken(["", *(part.stem for part in inventory.parts)], of_label(labels.part_l, -1) + 1),
        "masks_offset": pa.array(of_label(labels.offset_l, 0)),
        "masks_num_bytes": pa.array(of_label(labels.num_bytes_l, 0).astype(np.int32)),
    }
    known_q = of_label(_EVIDENCE_OF[labels.known_by_l], EVIDENCES.index(Evidence.ANNOTATED))
    return np.where(rows.made_q, EVIDENCES.index(Evidence.GENERATED), known_q), columns


def _mined_columns(mined_q: NDArray[np.int64], evidence_q: NDArray[np.int64], mined: Mined) -> dict[str, pa.Array]:
    """What the negatives tables say of each prompt, as it stands there, and how the others are known."""
    here = mined_q != NOT_MINED
    row_q = mined_q[here]

    def filled(column_m: NDArray[_Value], otherwise: NDArray[np.int64] | int = 0) -> NDArray[_Value]:
        """A column of `mined`, `otherwise` for prompts that were not mined."""
        found: NDArray[_Value] = np.broadcast_to(otherwise, here.shape).astype(column_m.dtype)
        found[here] = column_m[row_q]
        return found

    def named(column_m: pa.DictionaryArray) -> pa.Array:
        index_q = filled(column_m.indices.to_numpy().astype(np.int64), -1)
        return _taken(["", *column_m.dictionary.to_pylist()], index_q + 1)

    return {
        "evidence": _taken([*map(str, EVIDENCES)], filled(mined.evidence_m, evidence_q).astype(np.int64)),
        "score": pa.array(filled(mined.score_m)),
        "standard_score": pa.array(filled(mined.standard_score_m)),
        "rank": pa.array(filled(mined.rank_m, NO_RANK)),
        "positive_key": named(mined.positive_key_m),
        "positive_score": pa.array(filled(mined.positive_score_m)),
        "miner": named(mined.miner_m),
    }


def _taken(values: Sequence[str], index: NDArray[np.integer]) -> pa.Array:
    """`values[index]`, stored once each."""
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int32)), pa.array(list(values), pa.string()))


def _image_rows(inventory: Inventory, draw: SplitDraw, pictures: pa.Table) -> pa.Table:
    """CATALOG rows in written order, under the pictures' keys."""
    real = draw.picture_s != GENERATED
    row_s = np.where(real, draw.picture_s, inventory.num_images + np.cumsum(~real) - 1)
    return pa.concat_tables([inventory.images, pictures]).take(row_s)


def _named_apart(images: pa.Table, repeat_s: NDArray[np.int32]) -> pa.Table:
    """The rows of a shard under its samples' keys: a picture drawn again has `-r1` after its own."""
    if not repeat_s.any():
        return images
    pairs = zip(images["key"].to_pylist(), repeat_s.tolist(), strict=True)
    keys = [f"{key}-r{repeat}" if repeat else key for key, repeat in pairs]
    return images.set_column(0, "key", pa.array(keys, pa.string()))


def _with_keys(prompts: pa.Table, sample_q: NDArray[np.int64], images: pa.Table, named: pa.Table) -> pa.Table:
    """A shard's `prompts` with the keys of their samples and of those samples' images, in PLAN's columns."""
    rows = pa.array(sample_q)
    keyed = prompts.append_column("key", named["key"].take(rows))
    return keyed.append_column("image_key", images["key"].take(rows)).select(PLAN.names).combine_chunks()


def _write_part(
    prompts: pa.Table, images: pa.Table, inventory: Inventory, *, split: str, number: int, folder: str
) -> ShardPart:
    """Write one shard's plan under the digest of its rows and of the masks that they point to."""
    prompts = prompts.cast(PLAN)
    digest = hashlib.sha256(str(WRITER_VERSION).encode())
    scanned = {part.stem: part.record.sha256 for part in inventory.parts}
    used = prompts["masks_part"].unique().to_pylist()
    digest.update(msgspec.json.encode([scanned.get(stem, "") for stem in used]))
    for table in (prompts, images):
        for batch in table.to_batches():
            digest.update(batch.serialize())
    name = f"{split}-{number:06d}-{digest.hexdigest()[:16]}"
    part = ShardPart(name=name, weight=images.num_rows, split=split, number=number, folder=folder)
    if not (files.exists(part.plan) and files.exists(part.images)):
        write_table(part.images, images, CATALOG)
        write_table(part.plan, prompts, PLAN)
    return part
