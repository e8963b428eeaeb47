import re

import msgspec

from student.config import TrainConfig, encode_config
from tests.doors import ROOT


def test_the_page_lists_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    block = re.search(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    assert msgspec.toml.decode(block[1]) == msgspec.toml.decode(encode_config(TrainConfig()))
