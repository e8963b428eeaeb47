"""A folder of COCO as people have them: several files of instances, one of boxes alone, pictures beside them."""

import json
from pathlib import Path

from PIL import Image

COCO_NAMES = ("cat", "dog", "kite")


def make_coco_folder(folder: Path, num: int) -> Path:
    """`num` pictures with one thing each: two thirds with its mask, a third with its box alone."""
    (folder / "all" / "annotations").mkdir(parents=True)
    (folder / "all" / "pictures").mkdir()
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(COCO_NAMES)]
    for first, name in enumerate(("instances", "instances_more", "boxes")):
        images, annotations = [], []
        for number in range(first, num, 3):
            file_name = f"{number:06d}.jpg"
            Image.new("RGB", (32, 24), (number, 90, 200)).save(folder / "all" / "pictures" / file_name)
            images.append({"id": number, "file_name": file_name, "width": 32, "height": 24})
            box = {
                "id": number,
                "image_id": number,
                "category_id": number % 3 + 1,
                "bbox": [2, 2, 10, 10],
                "area": 100,
                "iscrowd": 0,
            }
            if name != "boxes":
                box["segmentation"] = [[2, 2, 12, 2, 12, 12, 2, 12]]
            annotations.append(box)
        told = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "all" / "annotations" / f"{name}_val.json").write_text(json.dumps(told))
    return folder
