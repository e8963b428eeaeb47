"""How right retrieved phrases are on COCO with its labels hidden: precision against coverage, and what each view gives.

    python examples/coco_as_sa1b.py --as-sa1b IMAGES INSTANCES --as-coco IMAGES INSTANCES --out FOLDER
    python benchmarks/phrases.py TRAIN --json benchmarks/results/accuracy/phrases_train.json
    python benchmarks/phrases.py VAL --chosen-on FILE --json benchmarks/results/accuracy/phrases.json --docs PAGE

TRAIN and VAL hold COCO pictures as SA-1B's tars, whose jsons tell no category, and the truth as phrases.parquet. Every
mask is embedded once per view; the vocabularies are COCO's names and the bundled one. The thresholds are chosen from
the grid, or are those of FILE, the JSON of another run: choose on one half, judge on the other.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests.recipe import Recipe, Retrieve, Sa1bSource
from miners.encoders import Encoder, choose_encoder
from miners.mask_crops import CropLimits, CropRows, embed_masks
from miners.phrase_truth import Reading, Truth, judge, read_at, read_truth
from miners.retrieval import Retriever, look_up_rows, open_retriever
from miners.vocabulary import BUNDLED
from shards.labels import load_lexicon
from shards.sources.sa1b import open_sa1b

VIEWS = {"plain crop": (1.0,), "faded": (0.3,), "cut out": (0.0,), "faded + cut out": (0.3, 0.0)}
COVERAGES = (0.01, 0.02, 0.05, 0.1, 0.2)
SCORES, MARGINS = (5.0, 6.0, 7.0, 8.0), (0.0, 2.0, 2.5, 3.0)
NAMES = "COCO's names"
LEAST_PRECISION = 0.9  # of the names that the chosen thresholds let through, with COCO's names as the vocabulary
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Precision at fixed coverages, by score alone."""

    vocabulary: str
    views: str
    precision: dict[str, float]  # by coverage of all masks


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that is measured."""

    encoder: str
    encoder_digest: str
    pictures: int
    masks: int
    looked_up: int
    vocabularies: dict[str, int]
    curves: list[Curve]
    grid: dict[str, list[Reading]]
    chosen: dict[str, Reading]


def embed(folder: Path, encoder: Encoder) -> tuple[dict[str, CropRows], int]:
    """Rows of every mask by view, and how many pictures there are."""
    table = Sa1bSource(data=str(folder / "sa_*.tar"))
    source = open_sa1b("sa1b", table, Recipe(name="coco", mix={"sa1b": "rest"}, sources={"sa1b": table}))
    pictures = [one for part in source.prepare("").parts for one in source.pictures(part)]
    limits = CropLimits(floors=source.floors, min_area=Retrieve().min_area, max_masks=1 << 30)
    by_fade = {fade: embed_masks(pictures, encoder, limits, fades=(fade,)) for fade in (1.0, 0.3, 0.0)}
    rows = {}
    for name, fades in VIEWS.items():
        first = by_fade[fades[0]]
        crops_cd: NDArray[np.float32] = np.mean([by_fade[fade].crops_cd for fade in fades], axis=0, dtype=np.float32)
        rows[name] = CropRows(
            image_id_c=first.image_id_c,
            annotation_id_c=first.annotation_id_c,
            crops_cd=crops_cd,
            num_masks=first.num_masks,
        )
    return rows, len(pictures)


def measure(folder: Path, encoder_name: str, chosen_on: Figures | None = None) -> Figures:
    """Everything, on the pictures and the truth in `folder`; at the thresholds of `chosen_on`, or chosen here."""
    encoder = choose_encoder(encoder_name).encoder
    truth = read_truth(str(folder / "phrases.parquet"))
    rows, num_pictures = embed(folder, encoder)
    curves, grid, judged, vocabularies = [], {}, {}, {}
    lexicon = load_lexicon([])
    with tempfile.TemporaryDirectory() as work:
        names = Path(work) / "coco.txt"
        names.write_text("\n".join(sorted({said for told in truth.phrases.values() for said in told})) + "\n")
        for title, uri in ((NAMES, str(names)), ("bundled", BUNDLED)):
            retriever = open_retriever(Retrieve(vocabulary=uri), encoder, lexicon, work=work)
            vocabularies[title] = len(retriever.vocabulary.phrases)
            for views, crops in rows.items():
                curves.append(curve(title, views, crops, retriever, truth))
            judged[title] = judge(look_up_rows(rows["faded + cut out"], retriever), truth, lexicon)
            grid[title] = [read_at(judged[title], score, margin) for score in SCORES for margin in MARGINS]
    best = choose(grid[NAMES]) if chosen_on is None else chosen_on.chosen[NAMES]
    any_rows = next(iter(rows.values()))
    return Figures(
        encoder=encoder.name,
        encoder_digest=encoder.digest,
        pictures=num_pictures,
        masks=any_rows.num_masks,
        looked_up=len(any_rows.image_id_c),
        vocabularies=vocabularies,
        curves=curves,
        grid=grid,
        chosen={title: read_at(one, best.min_score, best.min_margin) for title, one in judged.items()},
    )


def choose(readings: Sequence[Reading]) -> Reading:
    """The reading that names most masks of those that are right often enough; of equals the stricter."""
    right = [one for one in readings if one.masks and one.precision >= LEAST_PRECISION]
    if not right:
        raise SystemExit(f"no thresholds of the grid reach a precision of {LEAST_PRECISION:g}; widen SCORES or MARGINS")
    return max(right, key=lambda one: (one.masks, one.min_score, one.min_margin))


def curve(title: str, views: str, crops: CropRows, retriever: Retriever, truth: Truth) -> Curve:
    """Precision of the masks that score highest."""
    judged = judge(look_up_rows(crops, retriever), truth, load_lexicon([]))
    right_m = judged.right_m[np.argsort(-judged.score_m, kind="stable")]
    nums = {f"{share:g}": int(share * judged.num_known) for share in COVERAGES}
    precision = {share: round(float(right_m[:num].mean()), 3) for share, num in nums.items() if 0 < num <= len(right_m)}
    return Curve(vocabulary=title, views=views, precision=precision)


def figures_page(found: Figures, chosen_on: Figures | None = None) -> str:
    """The tables of docs/phrases.md: of val2017, with thresholds chosen on train2017."""
    shares = [f"{share:g}" for share in COVERAGES]
    first = (
        f"COCO {'train' if chosen_on is None else 'val'}2017, {found.pictures} pictures, {found.masks} masks, "
        f"{found.looked_up} of them of 1,024 pixels and more; encoder {found.encoder} ({found.encoder_digest})."
    )
    lines = [
        first,
        "",
        *([] if chosen_on is None else [*choice_lines(chosen_on, found), ""]),
        "Precision of the best-scoring masks, by share of all masks:",
        "",
        "| vocabulary | views | " + " | ".join(f"{float(share):.0%}" for share in shares) + " |",
        "| --- | --- " + "| --- " * len(shares) + "|",
    ]
    for one in found.curves:
        cells = [f"{one.precision[share]:.2f}" if share in one.precision else "–" for share in shares]
        lines.append(f"| {one.vocabulary} ({found.vocabularies[one.vocabulary]}) | {one.views} | {' | '.join(cells)} |")
    lines += [
        "",
        "At thresholds, with both views (the last row of each vocabulary is what was chosen):",
        "",
        "| vocabulary | score | margin | masks | precision | narrower | coverage | precision of presences |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, readings in found.grid.items():
        lines += [
            f"| {title} | {one.min_score:g} | {one.min_margin:g} | {one.masks} | {one.precision:.2f} | "
            f"{one.narrower:.2f} | {one.coverage:.3f} | {one.presence_precision:.2f} |"
            for one in [*readings, found.chosen[title]]
        ]
    return "\n".join(lines) + "\n"


def choice_lines(chosen_on: Figures, judged_on: Figures) -> list[str]:
    """How the thresholds were chosen, and what they gave where."""
    best = chosen_on.chosen[NAMES]
    said = (
        f"Score {best.min_score:g} and margin {best.min_margin:g} are the pair of the grid below that names most masks "
        f"while {LEAST_PRECISION:.0%} and more of the names are right, with COCO's names on {chosen_on.pictures} "
        "pictures of train2017; val2017 had no say in it."
    )
    return [
        said,
        "",
        "| | vocabulary | masks | precision | narrower | coverage | precision of presences |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {where} | {title} | {one.masks} | {one.precision:.2f} | {one.narrower:.2f} | {one.coverage:.3f} | "
            f"{one.presence_precision:.2f} |"
            for where, figures in (("chosen on train2017", chosen_on), ("judged on val2017", judged_on))
            for title, one in figures.chosen.items()
        ),
    ]


def write_page(page: Path, figures: str) -> None:
    """Put `figures` between the page's marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{figures}{END}{rest.split(END)[1]}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what examples/coco_as_sa1b.py wrote")
    parser.add_argument("--encoder", default="conse")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chosen-on", type=Path, metavar="FILE", help="--json of another run: judge its thresholds")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="page whose figures are written anew")
    options = parser.parse_args(argv)
    chosen_on = msgspec.json.decode(options.chosen_on.read_bytes(), type=Figures) if options.chosen_on else None
    found = measure(options.folder, options.encoder, chosen_on)
    page = figures_page(found, chosen_on)
    print(page)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    if options.docs:
        write_page(options.docs, page)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
