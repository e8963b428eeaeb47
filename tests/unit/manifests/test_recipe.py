"""Recipes: what is read, and what is said of a wrong one."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.errors import AbsentiaError, RecipeError
from manifests.recipe import Recipe, opened_mine, portable, recipe_sha256, side_files
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
            'name = "mix"\nsplits = { train = 0.7, val = 0.3000000000000001 }',
            "add up to 1.0000000000000001;",
        ),
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
        (
            'format = "blank"',
            'format = "blank"\n[prompts]\nkinds = { near_text = 1.0 }',
            r"asks for near_text, but there is no \[mine\] table; add one",
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


def with_mine(keys: str, *, kinds: str = "") -> str:
    prompts = f"[prompts]\nkinds = {kinds}\n" if kinds else ""
    return f"{GOOD}\n{prompts}[mine]\n{keys}\n"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("max_false_negative_rate = 0.0", "mine.max_false_negative_rate = 0.0; expected a number between 0 and 1"),
        ("max_false_negative_rate = 1", "mine.max_false_negative_rate = 1.0; expected a number between 0 and 1"),
        ("relative_margin = nan", "mine.relative_margin = nan; expected a finite number"),
        ("absolute_margin = inf", "mine.absolute_margin = inf; expected a finite number"),
        ("max_score = nan", "mine.max_score = nan; expected a finite number"),
        ("min_score = -inf", "mine.min_score = -inf; expected a finite number"),
        ("min_score = 0.5\nmax_score = 0.4", "mine.min_score = 0.5 is above max_score = 0.4"),
        ("range_min = -1", "mine.range_min = -1; expected 0 or more"),
        ("range_max = 0", "mine.range_max = 0; expected 1 or more"),
        ("range_min = 10\nrange_max = 10", "range_min = 10 and range_max = 10 leave no rank; expected range_min below"),
        ("num_negatives = 0", "mine.num_negatives = 0; expected 1 or more"),
        ("max_per_image = 0", "mine.max_per_image = 0; expected 1 or more"),
        ("max_per_phrase_share = 0", "mine.max_per_phrase_share = 0.0; expected a share above 0 and no more than 1"),
        ("max_per_phrase_share = 1.1", "mine.max_per_phrase_share = 1.1; expected a share above 0"),
        ("hidden_share = 1.0", "mine.hidden_share = 1.0; expected a number between 0 and 1"),
        ("memory_gb = 0", "mine.memory_gb = 0.0; expected a finite number above 0"),
        ("memory_gb = inf", "mine.memory_gb = inf; expected a finite number above 0"),
        (
            "relative_margin = 0.1\nabsolute_margin = 0.1",
            "gives relative_margin and absolute_margin; exactly one says how strict",
        ),
        (
            "max_false_negative_rate = 0.1\nrelative_margin = 0.1\nabsolute_margin = 0.1",
            "gives max_false_negative_rate and relative_margin and absolute_margin; exactly one says",
        ),
        (
            'sampling_strategy = "best"',
            r"Invalid enum value 'best'.*mine\.sampling_strategy`; expected one of top, random",
        ),
        ('margin_space = "cosine"', "expected one of standard, raw"),
        ("relative_marign = 0.1", "unknown field `relative_marign`.*did you mean `relative_margin`"),
    ],
)
def test_a_wrong_mine_table_is_said_with_place_expectation_and_cure(keys: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        parsed(with_mine(keys))
    assert str(caught.value).startswith("r.toml")


def test_a_recipe_that_mines_has_four_kinds_unless_it_names_others() -> None:
    kinds = {"random": 0.75, "co_occurring": 0.1, "near_text": 0.05, "near_image": 0.1}
    assert parsed(with_mine("")).prompts.kinds == kinds
    assert parsed(with_mine("").replace("[mine]", "[prompts]\nstrict = true\n[mine]")).prompts.kinds == kinds
    assert parsed(with_mine("", kinds="{ near_image = 1.0 }")).prompts.kinds == {"near_image": 1}
    with pytest.raises(
        RecipeError, match=r"there is a \[mine\] table, but prompts.kinds asks for nothing that is mined"
    ):
        parsed(with_mine("", kinds="{ random = 1.0, near_text = 0 }"))


def test_false_alarms_need_a_table_to_come_from() -> None:
    with pytest.raises(RecipeError, match=r"asks for false_alarm, .* add its predictions table as mine.predictions"):
        parsed(with_mine("", kinds="{ false_alarm = 1.0 }"))
    for key in ("predictions", "negatives"):
        assert parsed(with_mine(f'{key} = ["a.parquet"]', kinds="{ false_alarm = 1.0 }")).mine is not None
    with pytest.raises(RecipeError, match=r"prompts.kinds asks for none; give false_alarm a share, say 0.25 of all"):
        parsed(with_mine('predictions = ["a.parquet"]'))


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ("max_score = 0.9", "gives max_score, which bounds"),
        ("min_score = 0.6\nmax_score = 0.9", "gives max_score and min_score, which bounds"),
    ],
)
def test_bounds_on_likeness_need_a_kind_that_they_act_on(bounds: str, said: str) -> None:
    keys = f'predictions = ["a.parquet"]\n{bounds}'
    with pytest.raises(RecipeError, match=rf"r.toml: \[mine\] {said} .*; expected near_text or near_image beside them"):
        parsed(with_mine(keys, kinds="{ random = 0.5, false_alarm = 0.5 }"))
    assert parsed(with_mine(keys, kinds="{ near_text = 0.5, false_alarm = 0.5 }")).mine is not None


def test_paths_of_the_mine_table_are_side_files_and_no_part_of_the_digest() -> None:
    keys = """
    encoder = "ViT-B-32@weights/clip.safetensors"
    templates = "data/templates.toml"
    negatives = ["round-1/negatives.parquet"]
    predictions = ["student/predictions.parquet"]
    verifier = ["sam3/verifier.parquet"]
    decisions = ["s3://bucket/decisions.json"]
    """
    kinds = "{ random = 0.75, false_alarm = 0.25 }"
    recipe = parsed(with_mine(keys, kinds=kinds))
    assert side_files(recipe) == {
        "data/templates.toml": "/data/data/templates.toml",
        "weights/clip.safetensors": "/data/weights/clip.safetensors",
        "round-1/negatives.parquet": "/data/round-1/negatives.parquet",
        "student/predictions.parquet": "/data/student/predictions.parquet",
        "sam3/verifier.parquet": "/data/sam3/verifier.parquet",
        "s3://bucket/decisions.json": "s3://bucket/decisions.json",
    }
    opened = opened_mine(recipe)
    assert opened is not None
    assert opened.encoder == "ViT-B-32@/data/weights/clip.safetensors"
    assert opened.templates == "/data/data/templates.toml"
    assert opened.decisions == ["s3://bucket/decisions.json"]
    cut = portable(recipe).mine
    assert cut is not None
    assert (cut.encoder, cut.templates, cut.negatives) == (
        "ViT-B-32@clip.safetensors",
        "templates.toml",
        ["negatives.parquet"],
    )
    assert (cut.predictions, cut.verifier, cut.decisions) == (
        ["predictions.parquet"],
        ["verifier.parquet"],
        ["decisions.json"],
    )
    elsewhere = keys.replace("round-1/", "elsewhere/").replace("weights/", "/w/")
    moved = parsed(with_mine(elsewhere, kinds=kinds), folder="/other")
    assert recipe_sha256(moved) == recipe_sha256(recipe)


@pytest.mark.parametrize("encoder", ["auto", "conse", "ViT-B-32-256/datacomp_s34b_b86k", "hf-hub:org/name@main"])
def test_an_encoder_s_name_that_is_no_path_stays_as_it_is(encoder: str) -> None:
    recipe = parsed(with_mine(f'encoder = "{encoder}"'))
    assert side_files(recipe) == {}
    assert opened_mine(recipe) == recipe.mine
    assert portable(recipe).mine == recipe.mine


def test_an_encoder_s_folder_is_resolved_and_cut_to_its_name() -> None:
    recipe = parsed(with_mine('encoder = "local-dir:models/clip"'))
    opened = opened_mine(recipe)
    assert opened is not None
    assert opened.encoder == "local-dir:/data/models/clip"
    cut = portable(recipe).mine
    assert cut is not None
    assert cut.encoder == "local-dir:clip"


def test_a_recipe_of_generated_pictures_alone_is_refused() -> None:
    text = 'name = "x"\n[mix]\nblank = "rest"\n[sources.blank]\nformat = "blank"\n'
    with pytest.raises(RecipeError, match="expected at least one real source"):
        parsed(text)
    with pytest.raises(RecipeError, match=r"no \[sources\.NAME\] table"):
        parsed('name = "x"\nmix = {}\nsources = {}\n')


def test_a_byte_order_mark_before_a_recipe_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(f"\ufeff{GOOD}", encoding="utf-8")
    assert load_recipe(str(tmp_path / "r.toml")) == parsed(folder=str(tmp_path))


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
