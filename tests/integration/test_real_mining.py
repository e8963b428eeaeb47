"""Mining on real COCO: the audit reads above zero, its margin keeps the rate, and no labelled presence is mined."""

# N pictures, C candidates, A pictures of one half

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.recall import present_of, scan
from manifests.recipe import DEFAULT_RATE, Mine
from manifests.sample import NegativeKind
from miners.auditing import run_trials
from miners.candidates import NearKind
from miners.composing import mine, score_guard
from miners.encoders import choose_encoder
from miners.false_negatives import Trial, choose_margin, margins_of, taken_at
from miners.ground import Ground, prepare_ground
from miners.mined_table import MinedTable
from miners.pool import Pool, gather_pool
from shards.labels import load_lexicon
from shards.splits import Assignment

DATA = Path(__file__).parents[3] / "shared" / "data"
KINDS: tuple[NearKind, ...] = (NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT)
HIDINGS, HALVES = 25, 4  # 100 splits: what is hidden is drawn anew, and for each the pictures are halved
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not here"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("mining"))


@pytest.fixture(scope="module")
def ground(work: str) -> Ground:
    """coco_val, all in train, embedded once."""
    inventory, roots = scan(DATA, Path(work), [("coco_val", "val2017")])
    num = inventory.num_images
    return prepare_ground(
        inventory,
        Assignment(split_n=np.zeros(num, np.int8), group_n=np.arange(num), leaks=()),
        roots,
        load_lexicon([], []),
        np.arange(len(inventory.phrases), dtype=np.int32),
        choose_encoder("conse"),
        Mine(),
        split="train",
        folder=work,
        progress=Progress(disable=True),
    )


@pytest.fixture(scope="module")
def pool(ground: Ground) -> Pool:
    pictures = np.arange(ground.inventory.num_images)
    return gather_pool(ground.inventory, pictures, ground.phrase_v, ground.embedded, ground.texts_vd)


def mined(ground: Ground, work: str, settings: Mine, seed: int = 0) -> MinedTable:
    return mine(ground, settings, split="train", seed=seed, folder=work, progress=Progress(disable=True))


def num_present(ground: Ground, found: MinedTable) -> int:
    """Mined rows that the labels call present."""
    present_nv, picture_n, phrase_v = present_of(ground.inventory), found.pool.picture_n, found.pool.phrase_v
    rows = [kind.rows for kind in found.kinds]
    return sum(int(present_nv[picture_n[one.row_c], phrase_v[one.column_c]].sum()) for one in rows)


def test_with_the_guard_off_the_audit_reads_clearly_above_zero(ground: Ground, work: str) -> None:
    found = mined(ground, work, Mine(absolute_margin=-1e6))
    assert found.record.audit is not None
    for kind in found.record.audit.kinds:
        assert kind.at_margin.low > 0.08, kind.kind
        assert kind.leak > 0.2
    assert num_present(ground, found) == 0


def test_at_the_default_the_audit_reads_the_rate_or_less_and_no_labelled_presence_is_mined(
    ground: Ground, work: str
) -> None:
    found = mined(ground, work, Mine())
    assert found.record.audit is not None
    for kind, rows in zip(found.record.audit.kinds, found.kinds, strict=True):
        assert 0 < kind.at_margin.false_share <= DEFAULT_RATE
        assert len(rows.rows) > 300
    assert num_present(ground, found) == 0


class Shares(NamedTuple):
    """What a margin gives in pictures that it was not chosen by."""

    pooled: float  # false rows of all rows
    picture: float  # the mean over the pictures of their shares


def half_of(trial: Trial, picture_a: NDArray[np.int64]) -> Trial:
    """The trial's candidates in some of its pictures alone."""
    place_n = np.full(trial.num_pictures, -1, np.int64)
    place_n[picture_a] = np.arange(len(picture_a))
    here = np.flatnonzero(place_n[trial.picture_c] >= 0)

    def take(kept_c: NDArray[np.bool_]) -> NDArray[np.bool_]:
        all_kept_c = np.zeros(len(trial.picture_c), np.bool_)
        all_kept_c[here] = kept_c
        return trial.take(all_kept_c)[here]

    columns = {field.name: getattr(trial, field.name)[here] for field in fields(trial) if field.name.endswith("_c")}
    columns["picture_c"] = place_n[columns["picture_c"]]
    return replace(trial, num_pictures=len(picture_a), take=take, **columns)


def shares_at(trial: Trial, margin: float) -> Shares:
    taken_c = taken_at(trial, margin)
    num_a = np.bincount(trial.picture_c[taken_c], minlength=trial.num_pictures)
    false_a = np.bincount(trial.picture_c[taken_c & trial.false_c], minlength=trial.num_pictures)
    return Shares(
        pooled=float(false_a.sum() / max(1, num_a.sum())), picture=float((false_a / np.maximum(num_a, 1)).mean())
    )


def splits(ground: Ground, pool: Pool, work: str, hidings: int) -> Iterator[tuple[Trial, Trial]]:
    """Halves of the pictures: one to choose the margin by, one to judge it."""
    guard, _ = score_guard(Mine())
    for seed in range(hidings):
        _, trials = run_trials(pool, KINDS, ground.knowledge, guard, Mine(), seed=seed, folder=work)
        rng = np.random.default_rng([seed, 9])
        for trial in trials:
            for _ in range(HALVES):
                shuffled = rng.permutation(trial.num_pictures)
                middle = trial.num_pictures // 2
                yield half_of(trial, np.sort(shuffled[:middle])), half_of(trial, np.sort(shuffled[middle:]))


def test_over_a_hundred_splits_the_chosen_margin_keeps_the_rate_in_pictures_that_it_has_not_seen(
    ground: Ground, pool: Pool, work: str
) -> None:
    found: dict[str, list[Shares]] = {str(kind): [] for kind in KINDS}
    for chosen_by, judged_by in splits(ground, pool, work, HIDINGS):
        margin = choose_margin(chosen_by, margins_of(chosen_by).tolist(), DEFAULT_RATE)
        if margin is not None:
            found[chosen_by.kind].append(shares_at(judged_by, margin))
    for kind, shares in found.items():
        assert len(shares) >= 0.9 * HIDINGS * HALVES, kind  # where no margin keeps the rate, nothing is mined
        for name in Shares._fields:
            values = np.array([getattr(share, name) for share in shares])
            error = values.std(ddof=1) / np.sqrt(len(values))
            assert 0 < values.mean() <= DEFAULT_RATE + 2 * error, (kind, name)


def test_a_margin_softer_than_the_chosen_one_breaks_the_rate(ground: Ground, pool: Pool, work: str) -> None:
    for chosen_by, judged_by in splits(ground, pool, work, 1):
        assert min(shares_at(judged_by, -np.inf)) > 2 * DEFAULT_RATE
        assert choose_margin(chosen_by, [-np.inf], DEFAULT_RATE) is None
