"""Tiny training runs: a model of a moment, eight pictures that it can learn, and a teacher of random rows."""

import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from manifests import tables
from manifests.sample import MaskState
from manifests.stage import progress_bar
from shards.batch import MASK_STATE_CODES, Batch
from student.config import AugmentConfig, ModelConfig, OptimiserConfig, TrainConfig, encode_config
from student.distributed import Ranks
from student.history import LossLine, ValLine, read_history
from student.preparing import Prepared, Request, prepare
from student.saving import Standing
from student.training import train
from tests.factories import Made, absent, make_mask, make_sample, present

TINY = ModelConfig(
    size=64,
    image_encoder="test_efficientnet",
    pretrained=False,
    width=16,
    attention_layers=1,
    attention_heads=2,
    text_width=16,
    text_layers=1,
    text_heads=2,
    context=16,
)
COLOURS = {"red box": (220, 30, 30), "green box": (30, 200, 40), "blue box": (40, 50, 230)}


def tiny_config(**changes: object) -> TrainConfig:
    """A config of a tiny student that logs every step."""
    config = TrainConfig(
        batch_size=8,
        log_steps=1,
        checkpoint_steps=1000,
        model=TINY,
        optimiser=OptimiserConfig(learning_rate=3e-3, image_learning_rate=1e-3),
        augmentation=AugmentConfig(),
    )
    return msgspec.structs.replace(config, **changes)


def write_config(folder: Path, config: TrainConfig) -> str:
    """The config as a file."""
    path = folder / "config.toml"
    path.write_bytes(encode_config(config))
    return str(path)


class StopAfter:
    """As a `threading.Event` that is set once it was asked a number of times: after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def prepared(build: Path, out: Path, **changes: object) -> Prepared:
    """A run that may begin."""
    request = Request(builds={str(build): None}, out=str(out), quiet=True)
    found = prepare(Request(**{**_fields(request), "config": tiny_config(), "epochs": (2,), **changes}))  # type: ignore[arg-type]
    assert isinstance(found, Prepared)
    return found


def _fields(request: Request) -> dict[str, object]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def run_training(build: Path, out: Path, *, stop_after: int = 10**9, **changes: object) -> Standing:
    """How far a run in this process came."""
    with progress_bar(quiet=True) as progress:
        return train(prepared(build, out, **changes), Ranks(), progress, StopAfter(stop_after))  # type: ignore[arg-type]


def losses_of(out: Path) -> list[dict[str, float]]:
    """The losses of every line of the history."""
    return [line.losses for line in read_history(str(out)) if isinstance(line, LossLine)]


def vals_of(out: Path) -> list[dict[str, float | None]]:
    """What each epoch ended in."""
    return [line.val for line in read_history(str(out)) if isinstance(line, ValLine)]


def coloured_boxes(split: str, num: int) -> list[Made]:
    """Pictures with one box whose colour is its phrase; the other colours are absent."""
    return [_coloured(split, number) for number in range(num)]


def _coloured(split: str, number: int) -> Made:
    phrase = list(COLOURS)[number % len(COLOURS)]
    left, top = 4 + 5 * (number % 5), 3 + 4 * (number % 4)
    picture = Image.new("RGB", (64, 48), (120 + number, 120, 120))
    picture.paste(COLOURS[phrase], (left, top, left + 30, top + 25))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=95)
    mask = make_mask(left=left, top=top, right=left + 30, bottom=top + 25)
    gone = [absent(other) for other in COLOURS if other != phrase]
    return make_sample(f"photos-{split}_{number}", present(phrase, mask), *gone, split=split, jpeg=encoded.getvalue())


def write_teacher(build: Path, folder: Path, *, width: int = 6, without: Sequence[str] = ()) -> Path:
    """An embeddings table of unit rows for every picture of `build` and every phrase but those `without`."""
    samples = pq.read_table(build / "samples.parquet")
    rng = np.random.default_rng(5)
    rows = [(key, "") for key in sorted(set(samples["image_key"].to_pylist()))]
    rows += [("", phrase) for phrase in sorted(set(samples["phrase"].to_pylist()) - set(without))]
    path = folder / "teacher.parquet"
    with tables.table_writer(str(path), tables.EMBEDDINGS) as writer:
        for key, phrase in rows:
            row = rng.normal(size=width)
            writer.add(key, phrase, [], (row / np.linalg.norm(row)).astype(np.float16))
    return path


def make_batch(*, padding: int = 0) -> Batch:
    """Two pictures: one with a cat and no dog, one without a cat; `padding` prompts besides."""
    width = 2 + padding
    present = torch.zeros(2, width, dtype=torch.bool)
    present[0, 0] = True
    valid = torch.zeros(2, width, dtype=torch.bool)
    valid[0, :2] = valid[1, :1] = True
    masks = torch.zeros(2, width, 16, 16, dtype=torch.bool)
    masks[0, 0, 4:9, 4:9] = True
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Batch(
        images=images,
        sizes=torch.full((2, 2), 64),
        phrases=[["cat", "dog", *["kite"] * padding], ["cat"]],
        present=present,
        masks=masks,
        mask_state=torch.full((2, width), MASK_STATE_CODES[MaskState.COMPLETE], dtype=torch.int8),
        kinds=torch.full((2, width), -1, dtype=torch.int8),
        valid=valid,
        keys=["a", "b"],
        epochs=torch.zeros(2, dtype=torch.int64),
        position=2,
        features=None,
    )
