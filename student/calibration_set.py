"""Pictures of train with what is asked of them: what a quantised student's ranges are read from."""

# N pictures, S side of pictures

import itertools
from collections.abc import Iterable, Sequence

from manifests.errors import ExportError
from shards.batch import Batch
from shards.reader import LoaderOptions, open_loader, open_pass
from student.parity import Asked

NUM_PICTURES = 64


def calibration_set(build: str, *, size: int, num: int = NUM_PICTURES, seed: int = 0) -> list[Asked]:
    """`num` pictures of the split train, drawn by `seed`, with all their prompts; fewer where it has no more.

    Raises:
        ManifestError: the build has no such split, or is damaged.
        ExportError: nothing absent, or nothing present, is asked of them: ranges of such answers are not seen.
    """
    options = LoaderOptions(mask_size=8)
    loader = open_loader(build, batch_size=1, split="train", size=size, seed=seed, num_samples=num, options=options)
    num_own = min(num, loader.epoch_samples)
    asked = _take(loader, num_own)
    require_both(asked, build)
    return asked


def require_both(asked: Sequence[Asked], build: str) -> None:
    """Stop at a calibration set that asks for one class alone.

    Raises:
        ExportError: nothing absent, or nothing present, is asked of its pictures.
    """
    num_present = sum(sum(one.present) for one in asked)
    num_absent = sum(len(one.present) for one in asked) - num_present
    for found, word in ((num_absent, "absent"), (num_present, "present")):
        if not found:
            raise ExportError(
                f"{build}: the calibration set, {len(asked)} pictures of train, asks for nothing {word} "
                f"({num_present} present and {num_absent} absent prompts); expected both, as ranges that were read "
                "without them cut such answers off. Give a build that asks both, or a larger calibration set"
            )


def split_pictures(build: str, split: str, *, size: int, num: int) -> list[Asked]:
    """The first `num` pictures of a split with their prompts.

    Raises:
        ManifestError: the build has no such split, or is damaged.
    """
    return _take(open_pass(build, batch_size=1, split=split, size=size, options=LoaderOptions(mask_size=8)), num)


def _take(batches: Iterable[Batch], num: int) -> list[Asked]:
    asked = []
    for batch in itertools.islice(batches, num):
        phrases = tuple(batch.phrases[0])
        present = tuple(batch.present[0, : len(phrases)].tolist())
        if phrases:
            asked.append(Asked(image_3ss=batch.images[0].numpy(), phrases=phrases, present=present))
    return asked
