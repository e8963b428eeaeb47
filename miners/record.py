"""What a run of the miner did, as it stands in the metadata of its table, in the manifest and on the page."""

import msgspec

from manifests.recipe import Mine
from miners.false_negatives import Audit

NO_INDEX = "none"  # false alarms alone were mined


class KindRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The candidates of one kind: every one is rejected by a guard, spare, or a row."""

    kind: str
    candidates: int
    rejected: dict[str, int]  # by the guard that took them
    spare: int  # passed, but a number, a range or a cap left them out
    rows: int
    short: int  # queries that took fewer rows than they might have
    margin: float | None  # of the score guard
    mean_standard_score: float
    mean_distance: float  # positive score minus score, both standard


class MiningRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole run."""

    schema: int = 1
    split: str
    encoder: str
    encoder_why: str
    encoder_digest: str  # of weights, preprocessing and templates
    embeddings_digest: str
    pictures: int
    phrases: int
    index: str  # flat, or which approximate one; NO_INDEX
    settings: Mine
    kinds: list[KindRecord]
    audit: Audit | None
    no_audit: str = ""  # why there is none


def encode_record(record: MiningRecord) -> str:
    """JSON of the record."""
    return msgspec.json.encode(record).decode()


def summarise_mining(record: MiningRecord, out: str) -> str:
    """What a person reads at the end of a run."""
    index = "no" if record.index == NO_INDEX else record.index
    lines = [
        f"encoder   {record.encoder}: {record.encoder_why}",
        f"pool      {record.pictures:,} pictures of {record.split}, {record.phrases:,} phrases, {index} index",
    ]
    for kind in record.kinds:
        rejected = ", ".join(f"{guard} {num:,}" for guard, num in kind.rejected.items()) or "none"
        margin = "no margin" if kind.margin is None else f"margin {kind.margin:.3f}"
        lines.append(
            f"{kind.kind:<9} {kind.rows:,} rows of {kind.candidates:,} candidates, mean standard score "
            f"{kind.mean_standard_score:.2f}, {margin}; rejected: {rejected}"
        )
        if kind.short and record.settings.num_negatives is not None:
            lines.append(f"{'':<9} {kind.short:,} queries found fewer than {record.settings.num_negatives}")
    return "\n".join([*lines, *_audit_lines(record.audit, record.no_audit), f"table     {out}"]) + "\n"


def _audit_lines(audit: Audit | None, no_audit: str) -> list[str]:
    if audit is None:
        return [f"audit     none: {no_audit}"]
    lines = [f"audit     {audit.num_hidden:,} known presences hidden, a share of {audit.hidden_share:g}"]
    for kind in audit.kinds:
        point = kind.at_margin
        lines.append(
            f"          {kind.kind}: false_share {point.false_share:.3f} [{point.low:.3f}, {point.high:.3f}] of "
            f"{point.num_rows:,} rows, leak {kind.leak:.3f} [{kind.leak_low:.3f}, {kind.leak_high:.3f}], hardness "
            f"{point.hardness:.2f}"
        )
    return [*lines, f"          assumed: {audit.assumption}"]
