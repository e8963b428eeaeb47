"""The teacher reads with its own tokenizer and the student with OpenCLIP's; they meet in the phrase as a string."""

from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from manifests.errors import RecipeError
from manifests.tables import EMBEDDINGS, table_writer
from miners.minilm import PACKAGE, MiniLm
from student.teacher import read_teacher
from student.tokens import ask, token_ids
from tests.sam3 import write_clip_tokenizer

DISAGREED = [
    "Red Kite",  # case
    "T-shirt (white)",  # punctuation
    "dog's bowl!!",
    "a 🐈 on a 🛹",  # emoji: no token of WordPiece, several byte pairs
    "café chair",  # accents are stripped by one alone
    "hors d'œuvre",
    "犬",
    "photosynthesising",  # split at other places
    "an " * 13 + "apple",  # long, but within both
]


@pytest.fixture(scope="module")
def word_piece() -> Tokenizer:
    found: Tokenizer = Tokenizer.from_file(str(files(PACKAGE) / "model" / "tokenizer.json"))
    found.no_padding()
    return found


@pytest.mark.parametrize("phrase", DISAGREED)
def test_each_side_gets_its_own_ids(phrase: str, word_piece: Tokenizer) -> None:
    teacher, student = word_piece.encode(phrase), token_ids(phrase)
    assert teacher.ids != list(student)
    assert (teacher.ids[0], teacher.ids[-1]) == (101, 102)  # [CLS] and [SEP]
    assert (student[0], student[-1]) == (49406, 49407)
    row = ask([[phrase]], context=32).tokens_ul[0].tolist()
    assert row == [*student, *[0] * (32 - len(student))]


def test_they_do_not_even_agree_on_how_many_tokens_there_are(word_piece: Tokenizer) -> None:
    differing = [phrase for phrase in DISAGREED if len(word_piece.encode(phrase).ids) != len(token_ids(phrase))]
    assert len(differing) >= 3
    assert "a 🐈 on a 🛹" in differing


def test_what_one_side_cannot_tell_apart_the_other_can(word_piece: Tokenizer) -> None:
    assert word_piece.encode("a 🐈").ids == word_piece.encode("a 🛹").ids  # unknown to WordPiece, both
    assert token_ids("a 🐈") != token_ids("a 🛹")
    assert word_piece.encode("cafe").ids == word_piece.encode("café").ids
    assert token_ids("cafe") != token_ids("café")


def test_the_student_refuses_what_the_teacher_would_cut(word_piece: Tokenizer) -> None:
    phrase = "chair " * 40
    word_piece.enable_truncation(16)
    assert word_piece.encode(phrase).ids == word_piece.encode(phrase + "zebra").ids
    word_piece.no_truncation()
    with pytest.raises(RecipeError, match="has 42 tokens with its ends; expected at most 32"):
        ask([[phrase.strip()]], context=32)


def test_rows_are_looked_up_by_the_phrase_and_never_by_ids(tmp_path: Path) -> None:
    phrases = [*DISAGREED, "cafe chair"]
    rows_vd = MiniLm().encode(phrases)
    uri = str(tmp_path / "phrases.parquet")
    with table_writer(uri, EMBEDDINGS, {"encoder": "minilm"}) as writer:
        writer.add_table(
            pa.table(
                {
                    "key": [""] * len(phrases),
                    "phrase": phrases,
                    "box": pa.array([[]] * len(phrases), pa.list_(pa.float32())),
                    "row": pa.array(list(rows_vd.astype("float16")), pa.list_(pa.float16())),
                },
                schema=EMBEDDINGS,
            )
        )
    teacher = read_teacher([uri])
    asked = ask([["cafe chair", "RED kite"], ["a 🐈 on a 🛹"]], context=32)
    found_ud, known_u = teacher.phrase_rows(asked.phrases)
    assert known_u.tolist() == [True, True, True]  # equality of phrases is casefolded, whatever tokenizers do
    expected = [phrases.index("cafe chair"), 0, phrases.index("a 🐈 on a 🛹")]
    assert found_ud.tolist() == rows_vd.astype("float16")[expected].tolist()
    assert asked.tokens_ul[1].tolist() == ask([["RED kite"]], context=32).tokens_ul[0].tolist()
    assert not teacher.phrase_rows(["a phrase that the teacher never read"])[1].item()


def test_sam3_has_a_tokenizer_of_its_own(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    write_clip_tokenizer(tmp_path)
    theirs = CLIPTokenizer.from_pretrained(str(tmp_path))
    assert theirs("a red kite")["input_ids"] == list(token_ids("a red kite"))  # both are CLIP's
    padded = theirs("a red kite", padding="max_length", max_length=32)["input_ids"]
    assert padded[5:] == [49407] * 27  # but it fills up with the end, where the student's rows hold zeros
    assert ask([["a red kite"]], context=32).tokens_ul[0, 5:].tolist() == [0] * 27
