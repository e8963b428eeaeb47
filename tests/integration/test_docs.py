"""The commands and programs of README and docs are run as they stand there, page by page, in a folder of their own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from tests.doors import ROOT

IMAGES = 120
SMALL_STUDENT = "[model]\nsize = 64\nwidth = 32\ntext_layers = 1\n"
FENCE = re.compile(r"^```(\w+)?( long)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = {"bash", "python"}
SHOWN = {"toml", "json", None}  # recipes are parsed by test_recipes_page.py
LONG = {  # blocks that run outside the tests
    ("README.md", "make demo     # the environment"),
    ("docs/flows.md", "python -m flows.close_the_loop"),
    ("docs/storage.md", "pip install -c constraints.txt -e '.[s3]'"),  # tests/integration/test_s3.py runs such commands
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block of a page."""

    page: str
    language: str | None
    is_long: bool
    text: str
    line: int


def blocks() -> Iterator[Block]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            yield Block(
                page=path.relative_to(ROOT).as_posix(),
                language=found[1],
                is_long=bool(found[2]),
                text=found[3],
                line=text.count("\n", 0, found.start()) + 1,
            )


def program(page: str) -> list[Block]:
    """The blocks of a page that run, in order."""
    return [block for block in blocks() if block.page == page and block.language in RUN and not block.is_long]


def run(command: list[str], folder: Path, what: str) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
    assert result.returncode == 0, f"{what}:\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `make demo` and the first build of the README have run, but for their size."""
    folder = tmp_path_factory.mktemp("docs")
    world = [sys.executable, str(ROOT / "examples" / "demo_world.py"), "--out", "demo/world"]
    run([*world, "--images", str(IMAGES), "--workers", "1"], folder, "the demo world")
    recipe = ["-m", "flows.build_shards", "demo/world/demo.toml", "--workers", "1"]
    run([sys.executable, *recipe, "--out", "demo/build"], folder, "the demo build")
    shutil.copytree(folder / "demo" / "build", folder / "mix")  # the same recipe: it need not be built twice
    (folder / "small.toml").write_text(SMALL_STUDENT)
    train = ["-m", "student.train", "demo/build", "--out", "demo/student", "--config", "small.toml", "--epochs", "1"]
    run([sys.executable, *train], folder, "the demo student")
    return folder


@pytest.mark.parametrize("page", sorted({block.page for block in blocks() if program(block.page)}))
def test_what_a_page_says_can_be_typed_as_it_stands(page: str, demo: Path, tmp_path: Path) -> None:
    """Python blocks that follow each other are one program, as in a notebook."""
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    for language, group in groupby(program(page), key=lambda block: block.language):
        members = list(group)
        start = ["bash", "-euo", "pipefail", "-c"] if language == "bash" else [sys.executable, "-c"]
        run([*start, "".join(block.text for block in members)], tmp_path, f"{page}:{members[0].line}")


def test_only_known_blocks_are_too_long_to_run() -> None:
    found = {(block.page, block.text) for block in blocks() if block.is_long}

    assert {(page, next(start for known, start in LONG if page == known)) for page, _ in found} == LONG
    for page, text in found:
        assert any(page == known and text.startswith(start) for known, start in LONG), f"{page}: {text}"


def test_every_block_runs_or_is_known_to_be_shown_alone() -> None:
    strange = [
        f"{block.page}:{block.line}: {block.language}" for block in blocks() if block.language not in RUN | SHOWN
    ]

    assert strange == []


def test_no_opening_fence_escapes_the_pattern() -> None:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        fences = len(re.findall(r"^\s*```", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert fences == 2 * sum(block.page == path.relative_to(ROOT).as_posix() for block in blocks()), path
