"""What a flow run leaves in the Prefect UI: tables of the mix, of audits and of rejects, and links to the pages."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.news import told
from manifests import files
from manifests.manifest import Manifest, encode_manifest
from shards.summary import summarise

if TYPE_CHECKING:
    from flows.loop_record import LoopRecord
    from miners.record import MiningRecord
    from student.readings import Evaluation, Reading

Rows = list[dict[str, Any]]  # as Prefect takes a table


def publish_build(manifest: Manifest, build: str) -> None:
    """The artifacts of the finished build in the folder `build`: tables, contact sheet, and the gallery if it mined."""
    told(create_markdown_artifact, summarise(manifest), key="summary", description=f"Build {manifest.name}")
    publish_table("mix", mix_rows(manifest), "Samples by source and absent prompts by kind")
    publish_table("shortcut-audit", audit_rows(manifest), "0.5 is perfect, 1.0 a leak")
    publish_table("rejects", reject_rows(manifest), "Inputs left out, by reason")
    digest = hashlib.sha256(encode_manifest(manifest)).hexdigest()[:16]
    page = files.join(build, "work", f"page-{digest}.html")
    if not files.exists(page):
        _draw_build(build, page)
    publish_page("contact-sheet", page, "The contact sheet: every picture of the build with its prompts")
    if manifest.mining:
        gallery = files.join(build, "work", f"gallery-{digest}.html")
        if not files.exists(gallery):
            _draw_pairs(files.join(build, "negatives.parquet"), build, gallery)
        publish_page("gallery", gallery, "The gallery: mined pairs beside what they resemble, to look at and decide")


def publish_mining(record: "MiningRecord", build: str, out: str) -> None:
    """The artifacts of a mining run over `build`, whose table lies at `out`; the gallery is written beside it."""
    from miners.record import summarise_mining

    said = f"```\n{summarise_mining(record, out)}\n```\n"
    told(create_markdown_artifact, said, key="mining", description=f"Hard negatives: {out}")
    rows: Rows = [
        {"kind": str(kind.kind), "guard": guard, "rejected": num}
        for kind in record.kinds
        for guard, num in kind.rejected.items()
    ]
    publish_table("mining-rejects", rows or [{"guard": "none", "rejected": 0}], "Candidates that a guard took")
    if any(kind.rows for kind in record.kinds):
        gallery = f"{out.removesuffix('.parquet')}.html"
        _draw_pairs(out, build, gallery)
        publish_page("gallery", gallery, "The gallery: mined pairs beside what they resemble, to look at and decide")


def publish_evaluation(found: "Evaluation", run: str) -> None:
    """The artifacts of a student whose run lies at `run`."""
    rows = [{"metric": name, **_cells(reading)} for name, reading in found.readings.items()]
    publish_table("evaluation", rows, f"{found.name} on {found.split} of {found.build}, 95 % intervals")
    page = files.join(run, "evaluation", "failures.html")
    publish_page("failures", page, "False alarms and misses, with pictures")


def publish_loop(found: "LoopRecord", out: str) -> None:
    """The artifacts of a closed loop in the folder `out`: the rounds side by side, and the report of all of them."""
    names = {name: None for one in found.rounds for name in one.readings}
    rows: Rows = [
        {"metric": name, **{f"round {one.number}": _value(one.readings.get(name)) for one in found.rounds}}
        for name in names
    ]
    publish_table("rounds", rows, f"Every round on {found.split} of {found.judged_on}")
    publish_page("report", files.join(out, found.report), "The report of all rounds")


def _draw_build(build: str, page: str) -> None:
    from shards.show import View, show_build

    show_build(build, page, View(quiet=True))


def _draw_pairs(table: str, build: str, page: str) -> None:
    from shards.show import View, show_pairs

    show_pairs(table, "negatives", build, page, View(quiet=True))


def publish_page(key: str, page: str, description: str) -> None:
    """A link to a page that lies on this machine or in a bucket."""
    link = Path(page).resolve().as_uri() if files.is_local(page) else page
    told(create_link_artifact, link, key=key, description=f"{description}. It lies at {page}")


def publish_table(key: str, rows: Rows, description: str) -> None:
    """Any other table."""
    told(create_table_artifact, rows, key=key, description=description)


def mix_rows(manifest: Manifest) -> Rows:
    """What was asked for and what was achieved, by split."""
    rows: Rows = []
    for split, mix in manifest.mix.items():
        for what, shares in (("samples of", mix.samples), ("absent prompts", mix.prompts)):
            rows += [
                {"split": split, "what": f"{what} {name}", "requested": share.requested, "achieved": share.achieved}
                for name, share in shares.items()
            ]
    return rows


def audit_rows(manifest: Manifest) -> Rows:
    """How well a guess does that sees one trait alone."""
    found = manifest.shortcuts
    traits = {"phrase": found.phrase, "source": found.source, "pixels": found.pixels, "bytes": found.num_bytes}
    return [{"trait": trait, "AUC": round(auc, 3)} for trait, auc in traits.items()]


def reject_rows(manifest: Manifest) -> Rows:
    """How many inputs were left out, by reason; one row that says so if there were none."""
    counts: Mapping[str, int] = manifest.rejects.by_reason
    return [{"reason": reason, "inputs": num} for reason, num in counts.items()] or [{"reason": "none", "inputs": 0}]


def _cells(reading: "Reading") -> dict[str, object]:
    return {"value": _value(reading), "low": reading.low, "high": reading.high, "of": reading.num}


def _value(reading: "Reading | None") -> object:
    """The value, or why there is none."""
    if reading is None:
        return "not read"
    return f"undefined: {reading.undefined}" if reading.value is None else reading.value
