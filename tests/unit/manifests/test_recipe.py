"""Recipes: what is read, and what is said of a wrong one."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import AbsentiaError, RecipeError
from manifests.recipe import Recipe, recipe_sha256
from manifests.recipe_file import load_recipe, parse_recipe

GOOD = """
name = "mix"
[mix]
coco = "rest"
blank = 0.05
[sources.coco]
format = "coco"
images = "images"
annotations = "instances.json"
[sources.blank]
format = "blank"
"""


def parsed(text: str = GOOD, *, folder: str = "/data") -> Recipe:
    return parse_recipe(text, where="r.toml", folder=folder)


def message_of(text: str) -> str:
    """What is said of `text`; nothing but the place where it is a recipe. Any other exception is a bug."""
    try:
        parsed(text)
    except AbsentiaError as error:
        return str(error)
    return "r.toml"


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_defaults_are_those_of_the_page() -> None:
    recipe = parsed()
    assert (recipe.seed, recipe.samples, recipe.shard_samples, recipe.max_reject_share) == (0, None, 1000, 0.01)
    assert recipe.splits == {"train": 0.8, "val": 0.1, "test": 0.1}
    assert (recipe.prompts.absent_per_image, recipe.prompts.present_per_image) == (5, 8)
    assert recipe.prompts.kinds == {"random": 0.5, "co_occurring": 0.5}


def test_shares_are_exact_and_read_per_split() -> None:
    text = changed('annotations = "instances.json"', 'annotations = "instances.json"\nsplit = "train"')
    recipe = parsed(text)
    assert recipe.shares("train") == {"coco": "rest", "blank": Fraction(1, 20)}
    assert recipe.shares("val") == {"blank": Fraction(1, 20)}


def test_paths_start_at_the_recipe_and_are_no_part_of_its_digest(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(GOOD)
    recipe = load_recipe(str(tmp_path / "r.toml"))
    assert recipe.resolve("images") == str(tmp_path / "images")
    assert recipe.resolve("s3://bucket/images") == "s3://bucket/images"
    moved = parsed(changed('images = "images"', 'images = "elsewhere"'), folder="/other")
    assert recipe_sha256(moved) == recipe_sha256(recipe)
    assert recipe_sha256(parsed(changed("0.05", "0.06"))) != recipe_sha256(recipe)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "mix"', 'nmae = "mix"', "unknown field `nmae`.*did you mean `name`"),
        ('name = "mix"', 'name = " "', "name is empty"),
        ('name = "mix"', 'name = "mix"\nseed = -1', "seed = -1; expected"),
        ('name = "mix"', 'name = "mix"\nsamples = 0', "samples = 0; expected"),
        ('name = "mix"', 'name = "mix"\nshard_samples = 0', "shard_samples = 0; expected"),
        ('name = "mix"', 'name = "mix"\nmax_reject_share = 2', "max_reject_share = 2"),
        ('name = "mix"', 'name = "mix"\nsplits = { train = 0.5 }', "add up to 0.5; expected"),
        ('name = "mix"', 'name = "mix"\nsplits = { train = 1.5, val = -0.5 }', "add up to 1; expected shares from 0"),
        (
            'name = "mix"',
            'name = "mix"\nsplits = { tarin = 1.0 }',
            "Invalid enum value 'tarin'.*expected one of train, val, test",
        ),
        ('name = "mix"', 'name = "mix"\nfolder = "x"', "unknown field `folder`"),
        ("blank = 0.05", "blank = 1.5", "mix.blank = 1.5; expected a share"),
        ("blank = 0.05", "blank = nan", "mix.blank = nan; expected a share"),
        ("blank = 0.05", 'blank = "most"', r"\$\.mix"),
        ("blank = 0.05", "blnk = 0.05", "mix.blnk names no .*did you mean 'blank'"),
        ("blank = 0.05", "", r"\[sources.blank\] has no share"),
        (
            'format = "coco"',
            'format = "cocoo"',
            r"Invalid value 'cocoo' - at `\$\.sources\.coco\.format`; expected one of sa1b, coco",
        ),
        ('images = "images"', "images = 3", r"Expected `str`, got `int` - at `\$\.sources"),
        ('images = "images"', "", "missing required field `images`"),
        ('format = "blank"', 'format = "blank"\n[mine]', r"there is a \[mine\] table, but this version does not mine"),
        (
            'format = "blank"',
            'format = "blank"\n[prompts]\nkinds = { near_text = 1.0 }',
            "asks for near_text, but this version does not mine",
        ),
        ('format = "blank"', 'format = "blank"\n[prompts]\nkinds = { blank = 1.0 }', "kind of generated pictures"),
        ('format = "blank"', 'format = "blank"\n[prompts]\nkinds = { random = 0.5 }', "add up to 0.5"),
        ('format = "blank"', 'format = "blank"\n[prompts]\nabsent_per_image = -1', "absent_per_image = -1.0; expected"),
        ('format = "blank"', 'format = "blank"\n[prompts]\npresent_per_image = 0', "present_per_image = 0"),
        ("[sources.blank]", '[sources."Bad Name"]', "source name 'Bad Name'|names no"),
    ],
)
def test_a_wrong_recipe_is_said_with_place_expectation_and_cure(old: str, new: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        parsed(changed(old, new))
    assert str(caught.value).startswith("r.toml")
    assert "\n" not in str(caught.value)


def test_a_recipe_of_generated_pictures_alone_is_refused() -> None:
    text = 'name = "x"\n[mix]\nblank = "rest"\n[sources.blank]\nformat = "blank"\n'
    with pytest.raises(RecipeError, match="expected at least one real source"):
        parsed(text)
    with pytest.raises(RecipeError, match=r"no \[sources\.NAME\] table"):
        parsed('name = "x"\nmix = {}\nsources = {}\n')


def test_files_that_are_no_recipe_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="cannot be read as UTF-8"):
        load_recipe(str(tmp_path / "bad.toml"))
    with pytest.raises(RecipeError, match="not valid TOML"):
        parsed("name = [")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_recipe_or_one_clear_error(text: str) -> None:
    assert message_of(text).startswith("r.toml")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.text(max_size=12), st.integers(0, 20))
def test_a_recipe_damaged_anywhere_is_a_recipe_or_one_clear_error(place: int, text: str, cut: int) -> None:
    assert message_of(GOOD[:place] + text + GOOD[place + cut :]).startswith("r.toml")
