"""The page on encoders holds the recall that was measured, and names every form that a name may have."""

import re

import msgspec
import pytest

from benchmarks.recall import PAGE, table
from benchmarks.timing import RESULTS, Figures
from tests.doors import ROOT

MEASURED = RESULTS / "recall.json"


@pytest.mark.skipif(not MEASURED.exists(), reason="benchmarks/recall.py has left no figures yet")
def test_the_table_is_what_was_measured() -> None:
    figures = msgspec.json.decode(MEASURED.read_bytes(), type=Figures)
    assert table(figures) in PAGE.read_text(), f"run {figures.command} --json {MEASURED}"


@pytest.mark.parametrize(
    "form", ["`auto`", "`conse`", "`MODEL/PRETRAINED`", "`MODEL@FILE.safetensors`", "`hf-hub:ORG/NAME`"]
)
def test_every_form_of_a_name_is_on_the_page(form: str) -> None:
    assert form in PAGE.read_text()


def test_the_flow_that_mines_sends_its_users_to_this_page() -> None:
    said = (ROOT / "flows" / "deployed.py").read_text(encoding="utf-8")
    assert re.findall(r"open_clip has; see ([\w/]+\.md)", said) == [str(PAGE.relative_to(ROOT))]
