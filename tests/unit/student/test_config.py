"""Training configs: what no student can be made of is refused before any data is read."""

from pathlib import Path

import pytest

from manifests.errors import RecipeError
from student.config import read_config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[model]\ntext_heads = 3\n", "text_heads = 3 does not divide text_width = 128"),
        (b"[model]\nattention_heads = 3\n", "attention_heads = 3 does not divide width = 128"),
        (b"seed = 9223372036854775808\n", "seed"),
        (b'precision = "\xff"\n', "utf-8"),
        (b"[model]\nsizes = 64\n", "sizes"),
    ],
)
def test_what_no_student_can_be_made_of_is_refused_in_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "student.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=rf"{path}: .*{said}.*; docs/training\.md lists the keys"):
        read_config(str(path))


def test_a_byte_order_mark_before_a_config_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "student.toml"
    path.write_text("\ufeffseed = 5\n", encoding="utf-8")
    assert read_config(str(path)).seed == 5
