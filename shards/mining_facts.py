"""What a page's head says of mining: which encoder was taken and why, and the audit's curve over the margins.

The record comes from a table's metadata or a build's manifest. All of it is optional, and a record that cannot be read
is said on the page instead of keeping anybody from looking at pictures.
"""

from collections.abc import Mapping

import msgspec


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The audit at one margin."""

    margin: float
    num_rows: int
    false_share: float
    low: float  # of the interval around `false_share`
    high: float
    hardness: float | None = None


class KindAuditFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the mining audit found of one kind."""

    kind: str
    margin: float | None = None  # that was used; None without a score guard
    at_margin: CurvePoint | None = None
    leak: float | None = None
    curve: list[CurvePoint] = []


class AuditFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the mining audit found."""

    hidden_share: float | None = None
    assumption: str = ""
    kinds: list[KindAuditFacts] = []


class KindFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the candidates of one kind."""

    kind: str
    candidates: int = 0
    rejected: dict[str, int] = {}  # by guard
    spare: int = 0  # passed, but not taken
    rows: int = 0


class MiningFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of how rows were mined."""

    encoder: str = ""
    encoder_why: str = ""
    kinds: list[KindFacts] = []
    audit: AuditFacts | None = None
    no_audit: str = ""  # why there is none; earlier records do not say
    unreadable: str = ""  # why the record is not shown


def facts_of_record(record: Mapping[str, object]) -> MiningFacts:
    """What the page says of a manifest's or a table's mining record; fields that it does not know are left out."""
    try:
        return msgspec.convert(dict(record), MiningFacts)
    except msgspec.ValidationError as error:
        return MiningFacts(unreadable=f"the mining record cannot be shown: {error}")


def facts_of_text(text: str) -> MiningFacts:
    """What the page says of a record in JSON; "" has nothing to say."""
    try:
        return msgspec.json.decode(text or "{}", type=MiningFacts)
    except msgspec.MsgspecError as error:
        return MiningFacts(unreadable=f"the mining record cannot be shown: {error}")
