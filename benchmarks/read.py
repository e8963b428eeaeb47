"""Read: batches of small pictures and masks from large JPEGs, beside webdataset + PIL + pycocotools as usually written.

    python benchmarks/read.py [--samples 96] [--rounds 3] [--json FILE]

Both sides read the same shards from this machine's disk in one process, and end in tensors of equal shapes: a picture
of 256 pixels in a square, and for each prompt the union of its instances in that square. The usual way decodes every
picture and every instance at full size and then scales them down. Rounds alternate, the median counts.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from benchmarks.sa1b_like import soft_noise
from manifests.sample import Mask
from shards.masks import mask_from_array
from shards.reader import open_pass, webdataset_urls
from tests.factories import Made, absent, make_build, make_sample, present

WIDTH, HEIGHT, SIZE = 2250, 1500, 256
BATCH = 16
PRESENT, INSTANCES, ABSENT = 8, 2, 5  # prompts of an image as a default build plans them
BOUND = 3.0

Read = Iterator[tuple[torch.Tensor, list[NDArray[np.bool_]]]]  # pictures and masks, batch by batch


def photograph(rng: np.random.Generator) -> bytes:
    """A JPEG with detail at every scale, about as heavy as SA-1B's (some hundred kB)."""
    sizes = enumerate((4, 12, 40, 120, 400))
    layers = [soft_noise(rng, WIDTH, HEIGHT, cells) / (1 + octave) for octave, cells in sizes]
    grey = sum(layers, np.zeros((HEIGHT, WIDTH), np.float32))
    tint = np.stack([grey, 0.8 * grey + 0.2 * layers[0], grey[:, ::-1]], axis=-1)
    scaled = 255 * (tint - tint.min()) / np.ptp(tint)
    encoded = io.BytesIO()
    Image.fromarray(scaled.astype(np.uint8)).save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def blob(rng: np.random.Generator) -> Mask:
    """An instance with a ragged edge."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    row, column = rng.integers(200, HEIGHT - 200), rng.integers(200, WIDTH - 200)
    radius = rng.integers(80, 400)
    away = np.hypot(rows - row, columns - column) / radius
    return mask_from_array(away + 0.6 * soft_noise(rng, WIDTH, HEIGHT, 60) < 1.1)


def photographed(number: int, seed: int) -> Made:
    rng = np.random.default_rng([seed, number])
    prompts = [present(f"thing {p}", *(blob(rng) for _ in range(INSTANCES))) for p in range(PRESENT)]
    prompts += [absent(f"other {p}") for p in range(ABSENT)]
    return make_sample(f"sa1b-{number}", *prompts, jpeg=photograph(rng), width=WIDTH, height=HEIGHT)


def read_ours(build: str) -> Read:
    for batch in open_pass(build, split="train", batch_size=BATCH, size=SIZE):
        yield batch.images, [masks[: len(p)].numpy() for masks, p in zip(batch.masks, batch.phrases, strict=True)]


def read_usually(build: str) -> Read:
    pipeline = wds.WebDataset(webdataset_urls(build, "train"), shardshuffle=False).decode("pil").map(usual_sample)
    yield from pipeline.batched(BATCH, collation_fn=usual_batch)


def usual_sample(sample: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    picture = sample["jpg"]
    scale = SIZE / max(picture.size)
    scaled = (round(picture.width * scale), round(picture.height * scale))
    left, top = (SIZE - scaled[0]) // 2, (SIZE - scaled[1]) // 2
    canvas = Image.new("RGB", (SIZE, SIZE))
    canvas.paste(picture.resize(scaled, Image.Resampling.BICUBIC), (left, top))
    masks = np.zeros((len(sample["json"]["prompts"]), SIZE, SIZE), np.bool_)
    for number, prompt in enumerate(sample["json"]["prompts"]):
        if prompt["masks"]:
            union = np.zeros((picture.height, picture.width), np.uint8)
            for mask in prompt["masks"]:
                union |= coco.decode({"size": mask["size"], "counts": mask["counts"].encode()})
            small = np.asarray(Image.fromarray(union).resize(scaled, Image.Resampling.NEAREST))
            masks[number, top : top + scaled[1], left : left + scaled[0]] = small
    return torch.from_numpy(np.asarray(canvas).transpose(2, 0, 1).copy()), torch.from_numpy(masks)


def usual_batch(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, list[NDArray[np.bool_]]]:
    masks = torch.nn.utils.rnn.pad_sequence([masks for _, masks in samples], batch_first=True)
    return torch.stack([image for image, _ in samples]), list(masks.numpy())


def seconds(read: Callable[[str], Read], build: str) -> float:
    start = time.perf_counter()
    for _ in read(build):
        pass
    return time.perf_counter() - start


def compare(build: str) -> dict[str, float]:
    """How far the two sides' first batches lie apart: mean grey levels, and smallest IoU of the masks."""
    (ours, our_masks), (usual, usual_masks) = next(read_ours(build)), next(read_usually(build))
    pairs = [(a, b) for x, y in zip(our_masks, usual_masks, strict=True) for a, b in zip(x, y, strict=True) if b.any()]
    return {
        "mean_difference": float((ours.float() - usual.float()).abs().mean()),
        "smallest_iou": min(float((a & b).sum() / (a | b).sum()) for a, b in pairs),
    }


def measure(num_samples: int, num_rounds: int) -> dict[str, Any]:
    """The figures of one run."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = [photographed(number, seed=0) for number in range(num_samples)]
        kilobytes = statistics.mean(len(made.jpeg) for made in pictures) / 1000
        build = str(make_build(Path(folder) / "build", pictures, shard_samples=32))
        agreement = compare(build)
        rounds = [(seconds(read_usually, build), seconds(read_ours, build)) for _ in range(num_rounds)]
    usual_s, our_s = (statistics.median(side) for side in zip(*rounds, strict=True))
    return {
        "benchmark": "read",
        "conditions": {
            "picture": f"{WIDTH} x {HEIGHT}, {kilobytes:.0f} kB",
            "prompts": f"{PRESENT} present with {INSTANCES} masks each, {ABSENT} absent",
            "samples": num_samples,
            "rounds": num_rounds,
            "size": SIZE,
            "batch": BATCH,
            "processes": 1,
        },
        "rows": [
            {"way": "webdataset + PIL + pycocotools", "ms_per_sample": 1000 * usual_s / num_samples},
            {"way": "shards.reader", "ms_per_sample": 1000 * our_s / num_samples},
        ],
        "ratio": usual_s / our_s,
        "bound": BOUND,
        "agreement": agreement,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(options.samples, options.rounds)
    for name, value in figures["conditions"].items():
        print(f"{name:32}{value}")
    for row in figures["rows"]:
        print(f"{row['way']:32}{row['ms_per_sample']:.1f} ms a sample")
    print(f"{'ratio':32}{figures['ratio']:.1f} (expected at least {BOUND:.0f})")
    print(f"{'mean difference of pictures':32}{figures['agreement']['mean_difference']:.2f} of 255")
    print(f"{'smallest IoU of masks':32}{figures['agreement']['smallest_iou']:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
