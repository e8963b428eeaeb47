"""Folders as training, evaluation, latency and export leave them, out of a few figures; and their readings."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from manifests.tables import IMAGE_SUMS, table_writer
from shards.build_pictures import Thumbnail
from shards.masks import mask_from_array
from student.failures_page import FailureGroup, FailurePicture, FailureRow, FailuresAbout, write_failures_page
from student.history import LossLine, ValLine
from student.readings import (
    Bin,
    Conditions,
    Drop,
    Evaluation,
    Latency,
    LayerCost,
    Quantisation,
    Reading,
    Start,
    Variant,
    write_json,
)
from student.run_record import RunRecord

STORY = Path(__file__).parent / "readings" / "story.json"
NOTED = Conditions(
    device="cpu Example", threads=2, batch=1, resolution=256, num_phrases=8, precision="float32", runtime="torch 2.15"
)


def make_reading(value: float, half: float = 0.02, *, num: int = 400) -> Reading:
    """A figure with an interval of `half` on either side."""
    return Reading(value=value, low=value - half, high=value + half, num=num)


def make_evaluation(readings: Mapping[str, Reading], *, name: str = "student", **fields: object) -> Evaluation:
    """An evaluation with these readings."""
    base = Evaluation(
        name=name,
        build="coco-mix",
        build_sha256="ab" * 32,
        split="test",
        temperature=1.31,
        threshold=0.42,
        fitted_on="val",
        num_images=120,
        num_present=300,
        num_absent=420,
        readings=dict(readings),
        by_source={},
        by_kind={},
        by_phrase={},
        reliability=[Bin(mean_presence=x / 10, share_present=(x / 10) ** 1.3, num=40) for x in range(1, 10)],
        counted={},
        notes=[],
    )
    return msgspec.structs.replace(base, **fields)


def make_quantisation(*, drop: float = 0.021, bound: float = 0.02) -> Quantisation:
    """Float and quantised forms, the latter `drop` below FP16."""
    over = Drop(
        metric="miou",
        base="fp16",
        base_value=0.41,
        value=0.41 * (1 - drop),
        drop=drop,
        low=drop - 0.004,
        high=drop + 0.004,
        bound=bound,
        verdict="within" if drop <= bound else "over",
    )
    latency = Latency(ms=21.4, p95_ms=23.0, first_ms=90.0, num_calls=50, conditions=NOTED)
    return Quantisation(
        name="student",
        bound=bound,
        variants=[
            _variant("fp32", 46_000_000, [], num_flipped=0, latency=latency),
            _variant("int8-int4", 9_100_000, [over], num_flipped=9),
        ],
        layers=[
            LayerCost(layer="decoder", metric="miou", drop=0.004),
            LayerCost(layer="image tower", metric="miou", drop=0.013),
        ],
        notes=[],
    )


def _variant(
    name: str, num_bytes: int, drops: list[Drop], *, num_flipped: int, latency: Latency | None = None
) -> Variant:
    return Variant(
        name=name,
        num_bytes={"student.onnx": num_bytes},
        readings={"miou": make_reading(0.41), "il_mcc": make_reading(0.6)},
        drops=drops,
        flipped_presences=num_flipped,
        num_prompts=720,
        latency=latency,
    )


def make_run(
    folder: Path,
    evaluation: Evaluation | None = None,
    *,
    start: Start = "scratch",
    latency: Latency | None = None,
    quantisation: Quantisation | None = None,
    history: Sequence[LossLine | ValLine] = (),
    sums: Mapping[str, Sequence[tuple[str, float, float]]] | None = None,
    **fields: object,
) -> Path:
    """A training run with what other commands put into its folder."""
    folder.mkdir(parents=True)
    record = RunRecord(
        name=folder.name,
        start=start,
        began="scratch",
        builds=[],
        teacher=[],
        phases=[2],
        epochs=[3],
        num_parameters=11_000_000,
        num_present=1000,
        num_absent=1500,
        one_class=False,
        positives_only=False,
        versions={},
        finished=True,
    )
    write_json(str(folder / "run.json"), msgspec.structs.replace(record, **fields))
    if evaluation is not None:
        write_json(str(folder / "evaluation" / "evaluation.json"), evaluation)
    if latency is not None:
        write_json(str(folder / "latency.json"), latency)
    if quantisation is not None:
        write_json(str(folder / "export" / "quantisation.json"), quantisation)
    if history:
        (folder / "history.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in history))
    if sums is not None:
        write_sums(folder / "evaluation" / "sums.parquet", sums)
    return folder


def write_sums(path: Path, sums: Mapping[str, Sequence[tuple[str, float, float]]]) -> None:
    """What each picture adds to metrics: (key, part, whole) by metric."""
    with table_writer(str(path), IMAGE_SUMS) as writer:
        for metric, rows in sums.items():
            keys, parts, wholes = zip(*rows, strict=True)
            writer.add_columns(list(keys), [metric] * len(rows), list(parts), list(wholes))


def make_history(*, epochs: int = 3, steps: int = 40, rate: float = 0.02) -> list[LossLine | ValLine]:
    """Losses that fall and a validation that rises."""
    lines: list[LossLine | ValLine] = []
    for step in range(10, epochs * steps + 1, 10):
        losses = {"presence": 0.7 * math.exp(-rate * step), "mask_dice": 0.9 - 0.001 * step}
        epoch = (step - 1) // steps
        shared = {"phase": 2, "epoch": epoch, "step": step}
        lines.append(LossLine(**shared, position=step * 32, losses=losses, learning_rate=1e-3, samples_s=90.0))
        if step % steps == 0:
            lines.append(ValLine(**shared, val={"miou": 0.1 * epoch, "il_mcc": 0.2 * epoch, "num_present": 30.0}))
    return lines


def write_failures_of(path: Path, phrases: Sequence[str]) -> None:
    """A page of failures: every phrase is a false alarm on a picture of its own, the last one a miss."""
    rows, pictures = [], []
    for number, phrase in enumerate(phrases):
        picture = np.full((60, 80, 3), 40 * number % 255, np.uint8)
        picture[10:40, 20:60] = (90, 150, 200)
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, "WEBP")
        pictures.append(
            FailurePicture(
                key=f"p{number}", source="coco", thumbnail=Thumbnail(data=encoded.getvalue(), width=80, height=60)
            )
        )
        inside = np.zeros((60, 80), np.bool_)
        inside[15:35, 25:50] = True
        counts = mask_from_array(inside).counts
        is_miss = number == len(phrases) - 1
        rows.append(
            FailureRow(
                group=int(is_miss),
                picture=number,
                phrase=phrase,
                kinds=() if is_miss else ("co_occurring",),
                presence=0.1 if is_miss else 0.97 - 0.05 * number,
                iou=None,
                predicted="" if is_miss else counts,
                true=counts if is_miss else "",
            )
        )
    groups = [
        FailureGroup(name="alarm_co_occurring", title="False alarms", num_found=len(rows) - 1, num_asked=99),
        FailureGroup(name="unseen", title="Misses", num_found=1, num_asked=99),
    ]
    about = FailuresAbout(title="Failures", what="", threshold=0.5, groups=groups, tiles=[], notes=[])
    write_failures_page(str(path), rows, pictures, about)
