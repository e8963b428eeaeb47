"""Tars like SA-1B's, cheaply and all of them different: JPEGs of 2250 x 1500 pixels, 100 masks each, a phrase sidecar.

    python benchmarks/sa1b_like.py --out FOLDER [--gigabytes 2]

Encoding thousands of large pictures would take longer than what is measured. So some pictures are encoded once, in 12
bands that a decoder reads independently (JPEG restart intervals), and every picture is a stack of bands of other
pictures: sound JPEGs of SA-1B's size, with detail, that no perceptual hash takes for the same. Masks come from a bank.
"""

import argparse
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from manifests.sample import Mask
from shards.masks import area, mask_from_array

WIDTH, HEIGHT = 2250, 1500
MASKS, PHRASES = 100, 8  # of a picture; masks without a phrase are not read
TAR_BYTES = 256_000_000
RECIPE, SIDECAR, VOCABULARY = "like.toml", "phrases.parquet", "things.txt"

_BAND_ROWS = 8  # of 16 pixels each
_NUM_BANDS = -(-HEIGHT // (16 * _BAND_ROWS))
_NUM_DONORS, _NUM_BLOBS, _NUM_THINGS = 24, 256, 200
_QUALITY = 80
_START_OF_SCAN, _END = b"\xff\xda", b"\xff\xd9"

_RECIPE = """name = "like-sa1b"
seed = 7
shard_samples = 500

[mix]
sa1b = "rest"

[sources.sa1b]
format = "sa1b"
data = "sa_*.tar"
phrases = "phrases.parquet"
exhaustive_over = ["things.txt"]
"""


def soft_noise(rng: np.random.Generator, width: int, height: int, cells: int) -> NDArray[np.float32]:
    """A field of `cells` blobs along the height, in 0 to 1."""
    coarse = Image.fromarray(rng.random((cells, max(1, cells * width // height))).astype(np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True, slots=True)
class Bands:
    """Pictures that were encoded once, taken apart."""

    head: bytes  # all before the coded bands
    bands: tuple[tuple[bytes, ...], ...]  # by picture, from the top

    def stack(self, rng: np.random.Generator) -> bytes:
        """A JPEG whose every band comes from another of the pictures."""
        stacked = bytearray(self.head)
        for place, donor in enumerate(rng.integers(len(self.bands), size=_NUM_BANDS).tolist()):
            stacked += self.bands[donor][place]
            if place < _NUM_BANDS - 1:
                stacked += bytes((0xFF, 0xD0 + place % 8))
        return bytes(stacked + _END)


def make_bands(rng: np.random.Generator) -> Bands:
    """Bands of pictures with detail at every scale."""
    encoded = [_encode(rng) for _ in range(_NUM_DONORS)]
    first = encoded[0]
    scan = first.index(_START_OF_SCAN)
    start = scan + 2 + int.from_bytes(first[scan + 2 : scan + 4], "big")
    return Bands(first[:start], tuple(tuple(re.split(rb"\xff[\xd0-\xd7]", one[start:-2])) for one in encoded))


def _encode(rng: np.random.Generator) -> bytes:
    layers = [
        soft_noise(rng, WIDTH, HEIGHT, cells) / (1 + octave) for octave, cells in enumerate((4, 12, 40, 120, 400))
    ]
    grey = sum(layers, np.zeros((HEIGHT, WIDTH), np.float32))
    tint = np.stack([grey, 0.8 * grey + 0.2 * layers[0], grey[:, ::-1]], axis=-1)
    scaled = (255 * (tint - tint.min()) / np.ptp(tint)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(scaled).save(encoded, "JPEG", quality=_QUALITY, restart_marker_rows=_BAND_ROWS)
    return encoded.getvalue()


def make_blob(rng: np.random.Generator) -> Mask:
    """An instance with a ragged edge, small ones more often than large ones."""
    radius = int(10 * 30 ** rng.random())
    rows, columns = np.ogrid[-1 : 1 : 2j * radius, -1 : 1 : 2j * radius]
    blob = np.hypot(rows, columns) + 0.4 * soft_noise(rng, 2 * radius, 2 * radius, 8) < 1
    array = np.zeros((HEIGHT, WIDTH), np.bool_)
    top, left = int(rng.integers(0, HEIGHT - radius)), int(rng.integers(0, WIDTH - radius))
    array[top : top + 2 * radius, left : left + 2 * radius] = blob[: HEIGHT - top, : WIDTH - left]
    return mask_from_array(array)


class World:
    """Pictures by number, and what a sidecar says of them."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._seed = seed
        self._bands = make_bands(rng)
        self._blobs = [(mask, area(mask)) for mask in (make_blob(rng) for _ in range(_NUM_BLOBS))]
        self.phrases = [f"thing {number}" for number in range(_NUM_THINGS)]

    def jpeg(self, number: int) -> bytes:
        """The picture `number`."""
        return self._bands.stack(np.random.default_rng([self._seed, 1, number]))

    def annotations(self, number: int) -> bytes:
        """The json of the picture `number`, with every field that SA-1B's have."""
        rng = np.random.default_rng([self._seed, 2, number])
        chosen = [self._blobs[place] for place in rng.integers(_NUM_BLOBS, size=MASKS).tolist()]
        scores = rng.uniform(0.88, 1.04, (MASKS, 2))
        points = rng.uniform(0, HEIGHT, (MASKS, 2))
        image = {"image_id": number, "width": WIDTH, "height": HEIGHT, "file_name": f"sa_{number}.jpg"}
        annotations = [
            {
                "bbox": [*map(round, points[place].tolist()), 100.0, 200.0],
                "area": pixels,
                "segmentation": {"size": list(mask.size), "counts": mask.counts},
                "predicted_iou": float(scores[place, 0]),
                "point_coords": [points[place].tolist()],
                "crop_box": [0.0, 0.0, float(WIDTH), float(HEIGHT)],
                "id": number * 1000 + place,
                "stability_score": float(scores[place, 1]),
            }
            for place, (mask, pixels) in enumerate(chosen)
        ]
        return json.dumps({"image": image, "annotations": annotations}).encode()

    def sidecar(self, numbers: range, num_phrases: int = PHRASES) -> pa.Table:
        """Phrases for the first `num_phrases` masks of each picture."""
        rng = np.random.default_rng([self._seed, 3])
        image_ids = np.repeat(np.arange(numbers.start, numbers.stop), num_phrases)
        places = np.tile(np.arange(num_phrases), len(numbers))
        phrase = rng.integers(_NUM_THINGS, size=len(image_ids))
        columns = {
            "image_id": image_ids,
            "annotation_id": image_ids * 1000 + places,
            "phrase": [self.phrases[number] for number in phrase.tolist()],
            "score": rng.uniform(0.8, 1, len(image_ids)),
        }
        return pa.table(columns)


def write_world(folder: Path, num_bytes: int, *, tar_bytes: int = TAR_BYTES) -> int:
    """How many pictures were written into `folder`: tars of `num_bytes` together, a sidecar and a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World()
    written = number = 0
    while written < num_bytes:
        path = folder / f"sa_{number:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in _fill(world, number, min(tar_bytes, num_bytes - written)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                number += name.endswith(".json")
        written += path.stat().st_size
    pq.write_table(world.sidecar(range(number)), folder / SIDECAR)
    (folder / VOCABULARY).write_text("\n".join(world.phrases) + "\n")
    (folder / RECIPE).write_text(_RECIPE)
    return number


def _fill(world: World, first: int, num_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Members from picture `first` on, until there are `num_bytes`."""
    written, number = 0, first
    while written < num_bytes:
        picture, annotations = world.jpeg(number), world.annotations(number)
        yield f"sa_{number}.jpg", picture
        yield f"sa_{number}.json", annotations
        written, number = written + len(picture) + len(annotations), number + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    options = parser.parse_args()
    print(write_world(options.out, round(options.gigabytes * 1e9)))


if __name__ == "__main__":
    main()
