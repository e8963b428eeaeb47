"""What a build refuses before it reads a single picture, in one line."""

from pathlib import Path

import pytest

from manifests.errors import BuildError, RecipeError
from tests.worlds import build_world, write_recipe, write_world


def test_shares_that_do_not_add_up_stop_before_the_sources_are_looked_for(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, mix={"sa1b": 0.5, "coco": 0.3, "blank": 0.05, "noise": 0.05})
    with pytest.raises(RecipeError, match=r"\[mix\] of split train: .* = 0\.9, not 1"):
        build_world(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_not_filled(tmp_path: Path) -> None:
    recipe = write_world(tmp_path)
    with pytest.raises(BuildError, match=r"is no build, but holds '.*' and \d+ other files; expected an empty"):
        build_world(recipe, tmp_path / "coco" / "pictures")
    assert not (tmp_path / "coco" / "pictures" / "work").exists()
