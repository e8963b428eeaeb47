"""Embed: pictures of 640 pixels from JPEG files to rows, beside the bare model fed with decoded tensors.

    python benchmarks/embed.py [--pictures 192] [--rounds 5] [--threads N] [--json FILE]

Same batch and same torch threads on all sides. The bare model is fed with decoded tensors of 640 pixels that lie ready:
it resizes them (torch, antialiased), normalises, and runs the image tower. Ours reads every file, checks its digest,
decodes, resizes, normalises, runs the tower, and makes unit rows of float16. The tower alone, on its own floats,
is shown beside them. Rounds alternate. open_clip's default stands there with random weights, which run as fast.
"""

import argparse
import hashlib
import io
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.timing import Claim, Figures, Value, Way, add_options, alternate, machine, median_ratio, report
from miners.conse import Conse
from miners.encoders import DEFAULT, Encoder, choose_encoder
from miners.open_clip_encoder import OpenClip, quiet
from miners.streaming import BATCH, Wanted, encode_pictures
from shards.originals import Original

WIDTH, HEIGHT = 640, 480
BOUND = 0.9
MEAN, DEVIATION = 117.0, 58.0  # about those of every model; the values cost the same


def photograph(seed: int) -> bytes:
    """A JPEG with detail at every scale, about as heavy as COCO's."""
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for octave, cells in enumerate((4, 12, 40, 120, 400)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells * 4 // 3, 3), np.uint8))
        total += np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32) / (1 + octave)
    encoded = io.BytesIO()
    Image.fromarray((255 * total / total.max()).astype(np.uint8)).save(encoded, "JPEG", quality=92)
    return encoded.getvalue()


def write_pictures(folder: Path, num: int) -> list[Wanted]:
    wanted = []
    for number in range(num):
        data = photograph(number)
        path = folder / f"{number}.jpg"
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        original = Original(key=f"p-{number}", uri=str(path), offset=0, num_bytes=len(data), sha256=sha256)
        wanted.append(Wanted(original=original))
    return wanted


def encoders(folder: Path) -> list[Encoder]:
    """The two defaults."""
    model = DEFAULT.partition("/")[0]
    with quiet():
        state = open_clip.create_model(model).state_dict()
    weights = folder / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, str(weights))
    return [choose_encoder("conse").encoder, choose_encoder(f"{model}@{weights}").encoder]


def run_bare(encoder: Encoder, decoded: torch.Tensor, num: int) -> None:
    """Decoded pictures [BATCH, 3, HEIGHT, WIDTH] of bytes through the model, as often as `num` pictures need it."""
    geometry = encoder.geometry
    for start in range(0, num, BATCH):
        batch = decoded[: min(BATCH, num - start)]
        small = torch.nn.functional.interpolate(
            batch, (geometry.height, geometry.width), mode="bilinear", antialias=True
        )
        run_tower(encoder, (small.float() - MEAN) / DEVIATION, len(batch))


def run_tower(encoder: Encoder, pixels: torch.Tensor, num: int) -> None:
    """The image tower alone, as often as `num` pictures need it."""
    with torch.inference_mode():
        for start in range(0, num, BATCH):
            batch = pixels[: min(BATCH, num - start)]
            match encoder:
                case Conse():
                    encoder.classifier(batch)
                case OpenClip():
                    encoder.model.encode_image(batch)


def run_ours(encoder: Encoder, wanted: list[Wanted]) -> None:
    for _ in encode_pictures(wanted, encoder):
        pass


def measure_one(encoder: Encoder, wanted: list[Wanted], rounds: int) -> tuple[list[dict[str, Value]], float]:
    geometry = encoder.geometry
    pixels = torch.rand(BATCH, geometry.height, geometry.width, 3).permute(0, 3, 1, 2)  # as ours lie
    decoded = torch.randint(0, 256, (BATCH, HEIGHT, WIDTH, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    run_bare(encoder, decoded, BATCH)
    name = encoder.name.partition("@")[0]
    tower = Way(f"{name}: image tower alone", lambda: run_tower(encoder, pixels, len(wanted)))
    bare = Way(f"{name}: bare model, decoded 640 pixels", lambda: run_bare(encoder, decoded, len(wanted)))
    ours = Way(f"{name}: miners.streaming, JPEG files", lambda: run_ours(encoder, wanted))
    ways = [tower, bare, ours]
    times = alternate(ways, rounds)
    rows: list[dict[str, Value]] = [
        {"way": way.name, "pictures a second": len(wanted) / float(np.median(times[way.name]))} for way in ways
    ]
    return rows, median_ratio(times, bare.name, ours.name)


def measure(num: int, rounds: int) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        wanted = write_pictures(Path(folder), num)
        kilobytes = float(np.mean([one.original.num_bytes for one in wanted])) / 1000
        rows: list[dict[str, Value]] = []
        claims = []
        for encoder in encoders(Path(folder)):
            found, ratio = measure_one(encoder, wanted, rounds)
            rows += found
            name = f"throughput beside the bare model, {encoder.name.partition('@')[0]}"
            claims.append(Claim(name=name, value=ratio, bound=BOUND, at_least=True))
    conditions: dict[str, Value] = {
        "pictures": f"{num} of {WIDTH} x {HEIGHT}, {kilobytes:.0f} kB",
        "rounds": rounds,
        "batch": BATCH,
        "torch threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    return Figures(
        benchmark="embed",
        title="Embedding beside the bare model",
        command="python benchmarks/embed.py",
        conditions=conditions | machine("torch", "timm", "open_clip_torch"),
        rows=rows,
        claims=claims,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch, on both sides")
    add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report(measure(options.pictures, options.rounds), options.json)


if __name__ == "__main__":
    main()
