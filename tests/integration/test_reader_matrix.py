"""One global order: mixture x shuffle x workers x world x stop at any step under prefetch, resumed under others."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from shards.reader import Batch, Builds, LoaderOptions, open_loader
from tests.factories import absent, make_build, make_mask, make_sample, present

WORKERS = (0, 1, 4)
WORLDS = (1, 2, 4)
BATCH = 12  # divides none of the builds, nor a block
STEPS = 30  # three epochs of the smaller build and more
NEXT = 3  # steps read after a stop
SMALL = LoaderOptions(mask_size=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("builds")
    mask = make_mask(16, 12, left=2, top=2, right=9, bottom=9)
    made = []
    for name, num_samples in (("one", 151), ("two", 67)):
        samples = [
            make_sample(
                f"{name}-{number:04d}",
                *([present("cat", mask)] if number % 10 == 0 else []),
                absent("dog"),
                width=16,
                height=12,
            )
            for number in range(num_samples)
        ]
        made.append(str(make_build(root / name, samples, shard_samples=50)))
    return made[0], made[1]


def mixture(name: str, folders: tuple[str, str]) -> Builds:
    match name:
        case "alone":
            return folders[0]
        case "by size":
            return folders
        case _:
            return {folders[0]: 0.7, folders[1]: 0.3}


def global_batches(
    builds: Builds, *, world: int = 1, workers: int = 0, position: int = 0, shuffle: bool = True
) -> Iterator[Sequence[Batch]]:
    """What all ranks see at each step."""
    ranks = [
        open_loader(
            builds,
            batch_size=BATCH,
            size=8,
            seed=11,
            shuffle=shuffle,
            position=position,
            num_workers=workers,
            rank=rank,
            world_size=world,
            options=SMALL,
        )
        for rank in range(world)
    ]
    return zip(*ranks, strict=True)


def keys_of(ranks: Sequence[Batch]) -> list[str]:
    return [key for batch in ranks for key in batch.keys]


def train(
    builds: Builds, steps: int, *, world: int = 1, workers: int = 0, position: int = 0, shuffle: bool = True
) -> tuple[list[str], int]:
    """Keys in global order, and where to resume; workers have read further by then."""
    keys = []
    for ranks in itertools.islice(
        global_batches(builds, world=world, workers=workers, position=position, shuffle=shuffle), steps
    ):
        assert {len(batch.keys) for batch in ranks} == {BATCH // world}
        assert len({batch.position for batch in ranks}) == 1
        keys += keys_of(ranks)
        position = ranks[0].position
    return keys, position


def digest(keys: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("mix", ["alone", "by size", "by weight"])
def test_every_stop_in_any_world_resumes_to_the_same_order_in_any_other(
    folders: tuple[str, str], mix: str, *, shuffle: bool
) -> None:
    builds = mixture(mix, folders)
    whole, _ = train(builds, STEPS, shuffle=shuffle)
    assert {digest(train(builds, STEPS, world=world, shuffle=shuffle)[0]) for world in WORLDS} == {digest(whole)}
    for stop in range(1, STEPS - NEXT):
        more, position = train(builds, NEXT, world=WORLDS[stop % 3], position=stop * BATCH, shuffle=shuffle)
        assert digest(more) == digest(whole[stop * BATCH : (stop + NEXT) * BATCH])
        assert position == (stop + NEXT) * BATCH


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes:UserWarning")  # on small machines
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("workers", WORKERS)
def test_workers_and_worlds_see_one_order_stopped_under_prefetch(
    folders: tuple[str, str], workers: int, world: int
) -> None:
    builds = mixture("by weight", folders)
    whole = digest(train(builds, STEPS)[0])
    stop = int(np.random.default_rng([workers, world]).integers(1, STEPS))
    first, position = train(builds, stop, world=world, workers=workers)
    other_workers = WORKERS[(WORKERS.index(workers) + 1) % 3]
    other_world = WORLDS[(WORLDS.index(world) + 1) % 3]
    second, _ = train(builds, STEPS - stop, world=other_world, workers=other_workers, position=position)
    assert digest(first + second) == whole


def test_an_order_survives_many_stops(folders: tuple[str, str]) -> None:
    builds = mixture("by size", folders)
    whole, _ = train(builds, STEPS)
    rng = np.random.default_rng(1)
    keys: list[str] = []
    position = 0
    while len(keys) < len(whole):
        steps = min(int(rng.integers(1, 8)), (len(whole) - len(keys)) // BATCH)
        more, position = train(builds, steps, world=int(rng.choice(WORLDS)), position=position)
        keys += more
    assert keys == whole


@pytest.mark.parametrize("mix", ["alone", "by size", "by weight"])
def test_nothing_is_lost_and_nothing_comes_twice_in_an_epoch(folders: tuple[str, str], mix: str) -> None:
    keys, _ = train(mixture(mix, folders), 3 * (151 + 67) // BATCH + 1)
    for name, num_samples in (("one", 151), ("two", 67)):
        of_build = [key for key in keys if key.startswith(name)]
        whole_epochs = len(of_build) // num_samples
        assert whole_epochs >= 2 or mix == "alone" or name == "one"
        for epoch in range(whole_epochs):
            assert len(set(of_build[epoch * num_samples : (epoch + 1) * num_samples])) == num_samples
        tail = Counter(of_build[whole_epochs * num_samples :])
        assert not tail or max(tail.values()) == 1


def test_all_of_a_batch_is_the_same_whoever_made_it(folders: tuple[str, str]) -> None:
    builds = mixture("by weight", folders)
    alone = next(itertools.islice(global_batches(builds), 3, None))
    shared = next(itertools.islice(global_batches(builds, world=2, workers=1), 3, None))
    rows = [(batch, row) for batch in shared for row in range(len(batch.keys))]
    for number, (batch, row) in enumerate(rows):
        num_prompts = len(alone[0].phrases[number])
        assert batch.phrases[row] == alone[0].phrases[number]
        for name in ("images", "sizes", "epochs"):
            assert torch.equal(getattr(batch, name)[row], getattr(alone[0], name)[number]), name
        for name in ("present", "masks", "mask_state", "kinds", "valid"):
            found = getattr(batch, name)[row, :num_prompts]
            assert torch.equal(found, getattr(alone[0], name)[number, :num_prompts]), name
