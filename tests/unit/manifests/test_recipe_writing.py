"""A recipe that was written is the recipe that was read, and its paths name the same places from another folder."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.recipe import CocoSource, HfSource, Mine, Recipe, Sa1bSource
from manifests.recipe_file import parse_recipe
from manifests.recipe_writing import encode_recipe, moved
from manifests.sample import NegativeKind

LONG = r"""
name = "all \"of\" it"
seed = 7
samples = 200
when_short = "shrink"
splits = { train = 0.7, val = 0.2, test = 0.1 }
[mix]
sa1b = "rest"
coco = 0.2
named = 0.1
photos = 0.1
old = 0.1
blank = 0.025
noise = 0.025
[prompts]
absent_per_image = 3.5
kinds = { random = 0.5, false_alarm = 0.5 }
evidence = ["annotated", "verified"]
vocabulary = "words/all.txt"
lexicon = ["words/dogs.toml"]
[mine]
encoder = "ViT-B-32@weights/b32.safetensors"
relative_margin = 0.1
predictions = ["alarms.parquet"]
decisions = ["said.json"]
[sources.sa1b]
format = "sa1b"
data = ["a/sa_*.tar", "s3://bucket/sa_*.tar"]
phrases = "retrieve"
retrieve = { vocabulary = "words/nouns.txt", min_score = 3.0 }
[sources.named]
format = "sa1b"
data = "b"
phrases = "phrases.parquet"
exhaustive_over = ["coco", "vocabularies/things.txt"]
[sources.coco]
format = "coco"
images = "coco/pictures"
annotations = "/elsewhere/instances.json"
split = "train"
[sources.photos]
format = "hf"
path = "photos"
columns = { image = "picture", phrases = "said" }
[sources.old]
format = "build"
data = "old build"
[sources.blank]
format = "blank"
[sources.noise]
format = "noise"
"""


def parsed(text: str = LONG, *, folder: str = "/data/recipes") -> Recipe:
    return parse_recipe(text, where="r.toml", folder=folder)


def reread(recipe: Recipe) -> Recipe:
    return parse_recipe(encode_recipe(recipe).decode(), where="again.toml", folder=recipe.folder)


def test_what_was_written_reads_as_the_same_recipe() -> None:
    recipe = parsed()
    assert reread(recipe) == recipe


def test_a_default_is_not_written() -> None:
    said = tomllib.loads(encode_recipe(parsed()).decode())
    assert "shard_samples" not in said
    assert "folder" not in said
    assert said["sources"]["blank"] == {"format": "blank"}
    assert said["mine"]["relative_margin"] == 0.1


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_text_is_written_so_that_it_is_read_again(text: str) -> None:
    recipe = msgspec.structs.replace(parsed(), name=text)
    assert tomllib.loads(encode_recipe(recipe).decode())["name"] == text


def test_paths_name_the_same_places_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "vocabularies").mkdir()
    (tmp_path / "vocabularies" / "things.txt").touch()
    recipe = parsed(folder=str(tmp_path))
    home = tmp_path / "loop" / "round_1"
    found = moved(recipe, str(home))
    sa1b, named, coco, mine = *(found.sources[name] for name in ("sa1b", "named", "coco")), found.mine
    assert isinstance(sa1b, Sa1bSource)
    assert isinstance(named, Sa1bSource)
    assert isinstance(coco, CocoSource)
    assert isinstance(mine, Mine)
    assert found.folder == str(home)
    assert sa1b.data == ["../../a/sa_*.tar", "s3://bucket/sa_*.tar"]
    assert sa1b.phrases == "retrieve"
    assert named.exhaustive_over == ["coco", "../../vocabularies/things.txt"]
    assert sa1b.retrieve.vocabulary == "../../words/nouns.txt"
    assert (coco.images, coco.annotations) == ("../../coco/pictures", "/elsewhere/instances.json")
    assert mine.encoder == "ViT-B-32@../../weights/b32.safetensors"
    assert mine.predictions == ["../../alarms.parquet"]
    assert found.prompts.vocabulary == "../../words/all.txt"
    assert moved(found, str(tmp_path)) == recipe
    assert reread(found) == found


def test_a_name_on_a_hub_stays_a_name_and_a_folder_of_that_name_is_a_path(tmp_path: Path) -> None:
    recipe = parsed(folder=str(tmp_path))
    home = str(tmp_path / "out")
    before, after = recipe.sources["photos"], moved(recipe, home).sources["photos"]
    (tmp_path / "photos").mkdir()
    there = moved(recipe, home).sources["photos"]
    assert isinstance(before, HfSource)
    assert isinstance(after, HfSource)
    assert isinstance(there, HfSource)
    assert (before.path, after.path, there.path) == ("photos", "photos", "../photos")


@pytest.mark.parametrize("kind", list(NegativeKind))
def test_kinds_are_written_by_their_names(kind: NegativeKind) -> None:
    recipe = msgspec.structs.replace(parsed(), prompts=msgspec.structs.replace(parsed().prompts, kinds={kind: 1.0}))
    assert tomllib.loads(encode_recipe(recipe).decode())["prompts"]["kinds"] == {str(kind): 1.0}
