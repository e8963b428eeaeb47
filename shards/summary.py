"""What a build holds, in a page of Markdown: the mix asked for and achieved, rejects, the audit, where things lie."""

from collections.abc import Iterable, Sequence

from manifests.manifest import Achieved, Manifest
from shards.mining_facts import AuditFacts, CurvePoint, MiningFacts, facts_of_record


def summarise(manifest: Manifest) -> str:
    """The summary of a finished build."""
    blocks = [
        f"# {manifest.name}",
        _sizes(manifest),
        "## Samples by source",
        _table(("split", "source", "requested", "achieved"), _samples(manifest)),
        "## Absent prompts by kind",
        _table(("split", "kind", "requested", "achieved"), _kinds(manifest)),
        "## Present and absent prompts by source",
        _table(("split", "source", "present", "absent", "requested absent"), _pairs(manifest)),
        "## Shortcut audit (train, real images; 0.5 is perfect, 1.0 a leak)",
        _audit(manifest),
    ]
    if manifest.mining:
        blocks += ["## Mining (train)", _mining(facts_of_record(manifest.mining))]
    blocks += ["## Rejects", _rejects(manifest)]
    if manifest.notes:
        blocks += ["## Notes", "\n".join(f"- {note}" for note in manifest.notes)]
    return "\n\n".join(blocks) + "\n"


def _sizes(manifest: Manifest) -> str:
    samples = {split: sum(s.nsamples for s in listed) for split, listed in manifest.splits.items()}
    size = sum(shard.filesize for listed in manifest.splits.values() for shard in listed)
    split_text = ", ".join(f"{split} {num}" for split, num in samples.items())
    leaks = f"{len(manifest.leaks)} near-duplicate groups leak between splits" if manifest.leaks else "no leaks"
    return f"{sum(samples.values())} samples ({split_text}), {size / 1e6:.1f} MB, seed {manifest.seed}, {leaks}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _both(achieved: Achieved) -> tuple[str, str]:
    return _number(achieved.requested), str(achieved.achieved)


def _samples(manifest: Manifest) -> list[tuple[str, ...]]:
    return [(split, name, *_both(share)) for split, mix in manifest.mix.items() for name, share in mix.samples.items()]


def _kinds(manifest: Manifest) -> list[tuple[str, ...]]:
    return [(split, kind, *_both(share)) for split, mix in manifest.mix.items() for kind, share in mix.prompts.items()]


def _pairs(manifest: Manifest) -> list[tuple[str, ...]]:
    return [
        (split, name, str(pairs.present), str(pairs.absent.achieved), _number(pairs.absent.requested))
        for split, mix in manifest.mix.items()
        for name, pairs in mix.pairs.items()
    ]


def _audit(manifest: Manifest) -> str:
    found = manifest.shortcuts
    values = {"phrase": found.phrase, "source": found.source, "pixels": found.pixels, "byte count": found.num_bytes}
    lines = [f"Presence guessed from {name} alone: AUC {value:.3f}" for name, value in values.items()]
    lines += [f"**Warning:** {warning}" for warning in found.warnings]
    lines += [
        "Phrases that give most away: "
        + ", ".join(f"{w.phrase} ({w.present} present, {w.absent} absent)" for w in found.worst_phrases[:5])
    ]
    return "\n".join(f"- {line}" for line in lines)


_UNSAID = "no picture has exhaustive labels"  # what pages said of every record that gives no reason


def _mining(facts: MiningFacts) -> str:
    lines = [facts.unreadable] if facts.unreadable else [f"Encoder {facts.encoder}: {facts.encoder_why}"]
    for kind in facts.kinds:
        taken = ", ".join(f"{guard} {num}" for guard, num in kind.rejected.items()) or "none"
        lines.append(f"{kind.kind}: {kind.rows} rows of {kind.candidates} candidates; rejected: {taken}")
    if facts.audit is None:
        return "\n".join(f"- {line}" for line in [*lines, f"No audit: {facts.no_audit or _UNSAID}"])
    lines += [_false_share(found.kind, found.at_margin, facts.audit) for found in facts.audit.kinds if found.at_margin]
    return "\n".join(f"- {line}" for line in [*lines, f"Assumed: {facts.audit.assumption}"])


def _false_share(kind: str, point: CurvePoint, audit: AuditFacts) -> str:
    interval = f"95 % interval {point.low:.3f} to {point.high:.3f}"
    hidden = f"{audit.hidden_share or 0:.0%} of the known presences hidden"
    return f"{kind}: false share {point.false_share:.3f} ({interval}) with {hidden}"


def _rejects(manifest: Manifest) -> str:
    found = manifest.rejects
    lines = [f"{found.rejected_images} of {found.images} input images rejected"]
    lines += [f"{reason}: {count}" for reason, count in found.by_reason.items()]
    lines += [f"put right: {repair} {count}" for repair, count in found.repaired.items()]
    if found.awaiting_phrases:
        lines.append(f"awaiting phrases: {found.awaiting_phrases} of {found.images} images (not planned)")
    return "\n".join(f"- {line}" for line in lines)
