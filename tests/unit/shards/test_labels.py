"""Phrases, the one rule that merges findings into labels, and the lexicon."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import Reason, RecipeError, Rejected
from manifests.sample import Mask, MaskState
from shards.labels import (
    MAX_PHRASE_CHARACTERS,
    Finding,
    Outcome,
    category_phrase,
    load_lexicon,
    merge_labels,
    normalise_phrase,
    phrase_id,
)
from shards.sources.source import Label, LabelState

MASK = Mask(size=(2, 2), counts="04")
OTHER_MASK = Mask(size=(2, 2), counts="13")


def finding(outcome: Outcome, *masks: Mask, phrase: str = "dog", layer: int = 0) -> Finding:
    return Finding(phrase=phrase, outcome=outcome, masks=masks, layer=layer)


def merged(*findings: Finding) -> Label:
    labels = merge_labels(findings).labels
    assert len(labels) == 1
    return labels[0]


def lexicon_file(folder: Path, text: str) -> str:
    path = folder / "words.toml"
    path.write_text(text)
    return str(path)


def test_a_phrase_is_composed_and_its_whitespace_collapsed() -> None:
    assert normalise_phrase("  cafe\u0301 \n\t table\u00a0") == "caf\u00e9 table"
    assert normalise_phrase("Hot Dog") == "Hot Dog"


def test_equal_phrases_share_their_id_whatever_the_case() -> None:
    assert phrase_id("STRASSE") == phrase_id("stra\u00dfe")
    assert phrase_id("dog") != phrase_id("dogs")


def test_an_underscore_in_a_category_is_a_space() -> None:
    assert category_phrase("car_(automobile)") == "car (automobile)"


@pytest.mark.parametrize(
    ("text", "reason", "found"),
    [
        (" \n ", Reason.EMPTY_PHRASE, "is empty"),
        ("x" * 10_240, Reason.PHRASE_TOO_LONG, "10240 characters"),
        ("dog \ud800", Reason.PHRASE_NOT_UTF8, r"dog \ud800"),
    ],
)
def test_a_phrase_that_cannot_be_one_is_rejected(text: str, reason: Reason, found: str) -> None:
    with pytest.raises(Rejected) as caught:
        normalise_phrase(text)
    assert caught.value.reason is reason
    assert found in caught.value.detail
    assert len(caught.value.detail) < 200
    caught.value.detail.encode()


def test_a_phrase_of_the_longest_length_is_taken() -> None:
    assert len(normalise_phrase("x" * MAX_PHRASE_CHARACTERS)) == MAX_PHRASE_CHARACTERS


@pytest.mark.parametrize(
    ("findings", "state", "mask_state"),
    [
        ([finding(Outcome.PRESENT, MASK)], LabelState.PRESENT, MaskState.COMPLETE),
        ([finding(Outcome.PRESENT, MASK), finding(Outcome.REJECTED)], LabelState.PRESENT, MaskState.PARTIAL),
        ([finding(Outcome.PRESENT, MASK), finding(Outcome.OPEN)], LabelState.PRESENT, MaskState.PARTIAL),
        ([finding(Outcome.PRESENT, MASK), finding(Outcome.PRESENT)], LabelState.PRESENT, MaskState.PARTIAL),
        ([finding(Outcome.PRESENT)], LabelState.PRESENT, MaskState.NONE),
        ([finding(Outcome.PRESENT), finding(Outcome.REJECTED)], LabelState.PRESENT, MaskState.NONE),
        ([finding(Outcome.REJECTED)], LabelState.OPEN, MaskState.COMPLETE),
        ([finding(Outcome.OPEN)], LabelState.OPEN, MaskState.COMPLETE),
        ([finding(Outcome.ABSENT)], LabelState.ABSENT, MaskState.COMPLETE),
        ([finding(Outcome.ABSENT), finding(Outcome.REJECTED)], LabelState.OPEN, MaskState.COMPLETE),
        ([finding(Outcome.ABSENT), finding(Outcome.OPEN)], LabelState.OPEN, MaskState.COMPLETE),
    ],
)
def test_findings_of_one_file_merge_by_the_rule(
    findings: list[Finding], state: LabelState, mask_state: MaskState
) -> None:
    for order in itertools.permutations(findings):
        label = merged(*order)
        assert (label.state, label.mask_state) == (state, mask_state)


def test_a_phrase_both_shown_and_denied_is_open_and_named() -> None:
    found = merge_labels([finding(Outcome.PRESENT, MASK), finding(Outcome.ABSENT, layer=1)])
    assert [label.state for label in found.labels] == [LabelState.OPEN]
    assert found.labels[0].masks == ()
    assert found.contradictions == ("dog",)


def test_all_masks_of_one_file_are_kept_in_order_and_spellings_join() -> None:
    label = merged(finding(Outcome.PRESENT, MASK, phrase="Dog"), finding(Outcome.PRESENT, OTHER_MASK, phrase="dog"))
    assert (label.phrase, label.masks) == ("Dog", (MASK, OTHER_MASK))


def test_of_two_files_the_more_complete_presence_stands() -> None:
    boxed, partial = finding(Outcome.PRESENT), [finding(Outcome.PRESENT, MASK, layer=1), finding(Outcome.OPEN, layer=1)]
    complete = finding(Outcome.PRESENT, OTHER_MASK, layer=2)
    assert merged(boxed, *partial).mask_state is MaskState.PARTIAL
    assert merged(boxed, *partial, complete).masks == (OTHER_MASK,)
    assert merged(finding(Outcome.REJECTED), finding(Outcome.PRESENT, MASK, layer=1)).mask_state is MaskState.COMPLETE
    assert merged(finding(Outcome.ABSENT), finding(Outcome.REJECTED, layer=1)).state is LabelState.OPEN


def test_labels_stand_in_one_order() -> None:
    found = merge_labels([finding(Outcome.OPEN, phrase=phrase) for phrase in ("zebra", "Ant", "bee")])
    assert [label.phrase for label in found.labels] == ["Ant", "bee", "zebra"]


def test_the_bundled_lexicon_knows_what_is_said_and_what_only_sounds_alike() -> None:
    lexicon = load_lexicon([])
    assert {"sofa", "furniture"} <= lexicon.implied(["Couch"])
    assert {"person", "human"} <= lexicon.implied(["woman"])
    assert {"dog", "mammal", "animal"} <= lexicon.implied(["puppy"])
    assert {"vehicle", "automobile"} <= lexicon.implied(["car"])
    assert not {"dog", "animal"} & lexicon.implied(["hot dog"])
    assert "bear" not in lexicon.implied(["teddy bear"])
    assert "dog" not in lexicon.implied(["animal"])
    assert lexicon.implied(["Unheard Of"]) == {"unheard of"}


def test_no_coco_thing_implies_another_of_the_eighty() -> None:
    things = [
        "person",
        "bicycle",
        "car",
        "bus",
        "truck",
        "boat",
        "bench",
        "dog",
        "cat",
        "bear",
        "zebra",
        "sheep",
        "cow",
    ]
    things += ["chair", "couch", "bed", "cup", "wine glass", "bowl", "fork", "knife", "oven", "microwave", "toaster"]
    things += ["tv", "laptop", "mouse", "cell phone", "book", "teddy bear", "handbag", "backpack", "suitcase", "donut"]
    for place, implied in enumerate(load_lexicon([]).closure(things)):
        assert implied.tolist() == [place]


def test_closure_says_the_same_as_implied() -> None:
    lexicon = load_lexicon([], [["moggy", "Cat"]])
    vocabulary = ["dog", "Sofa", "animal", "couch", "moggy", "unheard of", "DOG", "puppy", "mammal"]
    for phrase, places in zip(vocabulary, lexicon.closure(vocabulary), strict=True):
        implied = lexicon.implied([phrase])
        assert places.dtype == np.int64
        assert places.tolist() == [i for i, other in enumerate(vocabulary) if phrase_id(other) in implied]


def test_a_lexicon_of_ones_own_adds_to_the_bundled_one(tmp_path: Path) -> None:
    path = lexicon_file(tmp_path, 'synonyms = [["Pickle Ball", "pb"]]\n[hypernyms]\nball = ["pb"]\n')
    assert {"pb", "ball"} <= load_lexicon([path]).implied(["pickle ball"])


def test_a_byte_order_mark_before_a_lexicon_is_passed_over(tmp_path: Path) -> None:
    path = lexicon_file(tmp_path, '\ufeffsynonyms = [["Pickle Ball", "pb"]]\n')
    assert "pb" in load_lexicon([path]).implied(["pickle ball"])


def test_what_a_source_calls_the_same_may_close_a_circle() -> None:
    lexicon = load_lexicon([], [("person", "man", "woman")])
    assert "woman" in lexicon.implied(["man"])
    assert "animal" not in lexicon.implied(["man"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[hypernyms]\ndog = ["animal"]\n', "broader than itself"),
        ('synonyms = [["dog", "animal"]]\n', "broader than itself"),
        ('[hypernyms]\ndog = ["dog"]\n', "broader than itself"),
        ('synonym = [["a", "b"]]\n', "unknown field `synonym`"),
        ('synonyms = [["a", " "]]\n', "is empty"),
        ("synonyms = [[", "no lexicon"),
    ],
)
def test_a_lexicon_that_cannot_be_is_refused_with_its_name(tmp_path: Path, text: str, found: str) -> None:
    path = lexicon_file(tmp_path, text)
    with pytest.raises(RecipeError, match="expected") as caught:
        load_lexicon([path])
    assert str(caught.value).startswith(path)
    assert found in str(caught.value)


def test_a_missing_lexicon_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot be read"):
        load_lexicon([str(tmp_path / "none.toml")])
