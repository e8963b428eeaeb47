"""Write real COCO pictures as true SA-1B tars with a phrase sidecar, and a recipe that mixes them with other COCO.

    python examples/coco_as_sa1b.py --as-sa1b IMAGES INSTANCES.json --as-coco IMAGES INSTANCES.json --out DIR

SA-1B itself may not be passed on, and has no phrases; this gives pictures in its exact format whose truth is known:
DIR/sa_000000.tar (bytes of the JPEGs untouched), DIR/phrases.parquet and DIR/mix.toml. Crowd regions become masks like
any other. An annotation without a pixel is left out, and its category with it where no other mask shows it.
"""

import argparse
import io
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from demo_formats import CompressedRle, Sa1bAnnotation, Sa1bFile, Sa1bImage
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from rich.progress import track

PICTURES_A_TAR = 1000
RECIPE = """\
# Real COCO pictures, part of them as SA-1B; written by examples/coco_as_sa1b.py.
name = "coco-mix"
seed = 7
shard_samples = 100

[mix]
sa1b = "rest"
coco = {share}
blank = 0.025
noise = 0.025

[sources.sa1b]
format = "sa1b"
data = "sa_*.tar"
phrases = "phrases.parquet"
licence = "COCO images under Flickr terms"
exhaustive_over = ["coco"]   # true here: both were labelled with COCO's categories

[sources.coco]
format = "coco"
images = "{images}"
annotations = "{annotations}"

[sources.blank]
format = "blank"
[sources.noise]
format = "noise"
"""


def annotations_of(coco: COCO, image_id: int, height: int, width: int) -> list[tuple[Sa1bAnnotation, str]]:
    """Each annotation of an image as SA-1B writes it, with its category's name."""
    found = []
    for row in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):
        rle = coco.annToRLE(row)
        area = int(coco_mask.area(rle))
        if not area:
            continue
        box = coco_mask.toBbox(rle).tolist()
        annotation = Sa1bAnnotation(
            id=row["id"],
            segmentation=CompressedRle(size=(height, width), counts=rle["counts"].decode()),
            bbox=(box[0], box[1], box[2], box[3]),
            area=area,
            predicted_iou=1.0,
            stability_score=1.0,
            crop_box=(0.0, 0.0, float(width), float(height)),
            point_coords=[(box[0], box[1])],
        )
        found.append((annotation, coco.cats[row["category_id"]]["name"]))
    return found


def write_tars(images: Path, instances: Path, out: Path) -> int:
    """Write all pictures of `instances`; how many there were."""
    coco = COCO(str(instances))
    phrases: dict[str, list[object]] = defaultdict(list)
    rows = sorted(coco.imgs.values(), key=lambda row: row["id"])
    for start in range(0, len(rows), PICTURES_A_TAR):
        with tarfile.open(out / f"sa_{start // PICTURES_A_TAR:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in track(rows[start : start + PICTURES_A_TAR], description="SA-1B"):
                name = f"sa_{row['id']}.jpg"
                named = annotations_of(coco, row["id"], row["height"], row["width"])
                for annotation, phrase in named:
                    for column, value in zip(
                        ("image_id", "annotation_id", "phrase", "score"),
                        (row["id"], annotation.id, phrase, 1.0),
                        strict=True,
                    ):
                        phrases[column].append(value)
                image = Sa1bImage(image_id=row["id"], width=row["width"], height=row["height"], file_name=name)
                described = Sa1bFile(image=image, annotations=[annotation for annotation, _ in named])
                add(tar, name, (images / row["file_name"]).read_bytes())
                add(tar, name.replace(".jpg", ".json"), msgspec.json.encode(described))
    pq.write_table(pa.table(dict(phrases)), out / "phrases.parquet")
    return len(rows)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add one member, with nothing of the machine in it."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--as-sa1b", nargs=2, type=Path, required=True, metavar=("IMAGES", "INSTANCES"))
    parser.add_argument("--as-coco", nargs=2, type=Path, required=True, metavar=("IMAGES", "INSTANCES"))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    pictures, instances = options.as_sa1b
    num_sa1b = write_tars(pictures, instances, options.out)
    images, annotations = (path.resolve() for path in options.as_coco)
    num_coco = len(COCO(str(annotations)).imgs)
    share = np.floor(95 * num_coco / (num_coco + num_sa1b)) / 100
    (options.out / "mix.toml").write_text(RECIPE.format(images=images, annotations=annotations, share=share))
    print(f"Build it: python -m flows.build_shards {options.out / 'mix.toml'} --out {options.out / 'build'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
