"""The layers hold, the contract that says so can be broken, and what a build needs not is not imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors import PACKAGES, ROOT

LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the packages and of the contract."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )


def test_every_layer_imports_only_layers_below_it(copied: Path) -> None:
    result = lint_imports(copied)

    assert result.returncode == 0, result.stdout
    assert "1 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("manifests", "shards.tar"),
        ("shards", "miners"),
        ("shards", "flows.build_shards"),
        ("miners", "student"),
        ("student", "miners"),
    ],
)
def test_a_forbidden_import_breaks_the_contract(copied: Path, module: str, imported: str) -> None:
    (copied / module / "forbidden.py").write_text(f'"""Reaches up."""\n\nimport {imported}\n')

    result = lint_imports(copied)

    assert result.returncode == 1, result.stdout
    assert f"{module}.forbidden -> {imported}" in result.stdout


def imported_by(statement: str, folder: Path) -> set[str]:
    """What a fresh Python has imported after `statement`."""
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_a_build_imports_neither_torch_nor_faiss_nor_prefect(tmp_path: Path) -> None:
    found = imported_by(
        "import flows.build_shards, shards.catalog, shards.verify, shards.examine, shards.show", tmp_path
    )

    assert "shards.verify" in found
    assert found.isdisjoint({"torch", "torchvision", "webdataset", "faiss", "open_clip", "prefect", "datasets"})


def test_nothing_in_shards_but_the_reader_and_its_batches_imports_torch(tmp_path: Path) -> None:
    files = sorted((ROOT / "shards").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.name != "__init__.py"]
    names = [name for name in names if name not in {"shards.reader", "shards.batch"}]

    assert "torch" not in imported_by(f"import {', '.join(names)}", tmp_path)
    assert "torch" in imported_by("import shards.reader", tmp_path)
