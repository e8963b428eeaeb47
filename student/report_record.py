"""What `student.report` prints as JSON: where its files are, and its verdicts as data and in words."""

import msgspec

from student.verdict_types import Verdict


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A written report."""

    markdown: str
    page: str
    runs: list[str]  # baseline first, teacher last
    verdicts: list[Verdict]
    said: list[str]  # each verdict in words; `**` marks emphasis
