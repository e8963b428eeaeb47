"""Which phrases are too close in meaning: the tricky pairs, pair by pair, and the rules that decide them."""

import tomllib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from manifests.errors import RecipeError
from miners.meaning import related
from miners.relation import Relation
from miners.words import load_english
from shards.labels import Lexicon, load_lexicon

TRICKY_PAIRS = Path(__file__).with_name("tricky_pairs.toml")
KINDS = {"synonym", "hypernym", "part", "homonym", "plural", "compound", "spelling", "innocent"}


class Pair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    present: str
    candidate: str
    may_be_mined: bool
    kind: str


class _PairsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pairs: list[Pair]
    held_out: list[Pair]


def tricky_pairs() -> list[Pair]:
    read = msgspec.convert(tomllib.loads(TRICKY_PAIRS.read_text()), _PairsFile)
    return [*read.pairs, *read.held_out]


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return load_lexicon([])


def test_the_tricky_pairs_are_many_of_every_kind_and_none_stands_twice() -> None:
    pairs = tricky_pairs()
    assert len(pairs) >= 200
    assert {pair.kind for pair in pairs} == KINDS
    assert min(Counter(pair.may_be_mined for pair in pairs).values()) >= 100
    assert max(Counter((pair.present, pair.candidate) for pair in pairs).values()) == 1


def test_every_tricky_pair_is_decided_as_its_line_says(lexicon: Lexicon) -> None:
    pairs = tricky_pairs()
    phrases = sorted({phrase for pair in pairs for phrase in (pair.present, pair.candidate)})
    number = {phrase: v for v, phrase in enumerate(phrases)}
    relation = related(phrases, lexicon)
    wrong = [
        pair for pair in pairs if relation.holds(number[pair.present], number[pair.candidate]) == pair.may_be_mined
    ]
    assert wrong == []


def test_a_pair_is_decided_alike_whatever_the_vocabulary_around_it(lexicon: Lexicon) -> None:
    pairs = tricky_pairs()[::30]
    for pair in pairs:
        relation = related([pair.candidate, pair.present], lexicon)
        assert relation.holds(1, 0) != pair.may_be_mined, pair


def test_words_that_no_list_knows_are_decided_by_rules(lexicon: Lexicon) -> None:
    phrases = [
        "zorp",
        "zorps",
        "red zorp",
        "blue zorps",
        "zorp lamp",
        "pair of zorps",
        "two zorps",
        "zorp-lamp",
        "zorp (animal)",
    ]
    doubtful = [[int(v) for v in row(related(phrases, lexicon), place)] for place in range(len(phrases))]
    assert set(doubtful[0]) == {0, 1, 2, 3, 5, 6, 8}
    assert 3 not in doubtful[2]
    assert set(doubtful[4]) == {4, 7}


def row(relation: Relation, present: int) -> list[int]:
    doubtful: list[int] = relation.doubtful_r[relation.starts[present] : relation.starts[present + 1]].tolist()
    return doubtful


def test_the_relation_holds_every_phrase_itself_and_numbers_them_as_they_come(lexicon: Lexicon) -> None:
    phrases = ["car", "cat", "Automobile", "kitten"]
    relation = related(phrases, lexicon)
    assert [row(relation, v) for v in range(4)] == [[0, 2], [1, 3], [0, 2], [1, 3]]
    turned = related(phrases[::-1], lexicon)
    assert [row(turned, v) for v in range(4)] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def test_no_phrases_have_no_relation(lexicon: Lexicon) -> None:
    assert related([], lexicon).num_phrases == 0


def test_a_lexicon_of_ones_own_counts(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('synonyms = [["zorp", "gadget"]]\n[hypernyms]\ntool = ["zorp"]\n')
    relation = related(["gadgets", "tool", "red zorp"], load_lexicon([str(own)]))
    assert [row(relation, v) for v in range(3)] == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_phrases_of_odd_shape_are_taken_as_they_are(lexicon: Lexicon) -> None:
    phrases = ["(animal)", "-", "of", "a", "12", "犬", "’s", "word " * 30]
    relation = related(phrases, lexicon)
    assert all(v in row(relation, v) for v in range(len(phrases)))


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"),
        ("cherries", "cherry"),
        ("benches", "bench"),
        ("knives", "knife"),
        ("mice", "mouse"),
        ("gloves", "glove"),
    ],
)
def test_plurals_lead_to_their_singular(plural: str, singular: str) -> None:
    assert singular in load_english().singulars(plural)


@pytest.mark.parametrize("word", ["bus", "glass", "scissors", "tennis", "is", "gas", "dog"])
def test_what_only_ends_like_a_plural_has_no_singular(word: str) -> None:
    assert load_english().singulars(word) == ()


def test_a_meaning_file_that_is_none_or_missing_is_refused_with_its_name(tmp_path: Path) -> None:
    broken = tmp_path / "meaning.toml"
    broken.write_text("spellings = 3")
    with pytest.raises(RecipeError, match=r"meaning\.toml: no meaning file: .*expected the tables of"):
        load_english(str(broken))
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        load_english(str(tmp_path / "none.toml"))
