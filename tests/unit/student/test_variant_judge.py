from pathlib import Path

import pytest

from student import variant_judge


def test_memory_that_takes_too_long_to_tell_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variant_judge, "_MEMORY_S", 1e-3)

    assert variant_judge.peak_ram(str(tmp_path)) is None
