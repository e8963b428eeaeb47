"""What a flow run leaves in the Prefect UI: tables of the mix, of audits and of rejects, and links to the pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from manifests import files
from manifests.manifest import Manifest
from miners.record import MiningRecord, summarise_mining
from shards.summary import summarise
from student.readings import Evaluation, read_json

Rows = list[dict[str, Any]]  # as Prefect takes a table


def publish_build(manifest: Manifest, page: str) -> None:
    """The artifacts of a finished build, whose contact sheet lies at `page`."""
    create_markdown_artifact(summarise(manifest), key="summary", description=f"Build {manifest.name}")
    create_table_artifact(mix_rows(manifest), key="mix", description="Samples by source and absent prompts by kind")
    create_table_artifact(audit_rows(manifest), key="shortcut-audit", description="0.5 is perfect, 1.0 a leak")
    create_table_artifact(reject_rows(manifest), key="rejects", description="Inputs left out, by reason")
    publish_page("contact-sheet", page, "The contact sheet: every picture of the build with its prompts")


def publish_page(key: str, page: str, description: str) -> None:
    """A link to a page that lies on this machine or in a bucket."""
    link = Path(page).resolve().as_uri() if files.is_local(page) else page
    create_link_artifact(link, key=key, description=f"{description}. It lies at {page}")


def publish_table(key: str, rows: Rows, description: str) -> None:
    """Any other table."""
    create_table_artifact(rows, key=key, description=description)


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


def publish_mining(record: MiningRecord, out: str) -> None:
    """The artifacts of a mining run, whose table lies at `out`."""
    said = summarise_mining(record, out)
    create_markdown_artifact(f"```\n{said}\n```\n", key="mining", description=f"Hard negatives: {out}")
    rows: Rows = [
        {"kind": str(kind.kind), "guard": guard, "rejected": num}
        for kind in record.kinds
        for guard, num in kind.rejected.items()
    ]
    publish_table("mining-rejects", rows or [{"guard": "none", "rejected": 0}], "Candidates that a guard took")


def publish_evaluation(run: str) -> None:
    """The artifacts of an evaluated student, whose run lies at `run`."""
    folder = files.join(run, "evaluation")
    found = read_json(files.join(folder, "evaluation.json"), Evaluation)
    rows: Rows = [
        {"metric": name, "value": reading.value, "low": reading.low, "high": reading.high, "of": reading.num}
        for name, reading in found.readings.items()
    ]
    publish_table("evaluation", rows, f"{found.name} on {found.split} of {found.build}, 95 % intervals")
    publish_page("failures", files.join(folder, "failures.html"), "False alarms and misses, with pictures")
