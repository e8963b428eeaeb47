"""What users of sentence-transformers reported of `mine_hard_negatives`: none of it happens here.

The numbers are those of issues and pull requests of huggingface/sentence-transformers.
"""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from manifests.errors import RecipeError, TableError
from manifests.recipe import Mine
from manifests.recipe_mine import check_mine
from manifests.sample import NegativeKind
from miners.composing import mine
from miners.embed_rows import embed_phrases
from miners.embedding_files import embedding_writer, read_embeddings
from miners.ground import Ground
from miners.hard_negatives import main
from miners.mined_table import MinedTable
from miners.mining import KindMined
from miners.views import Geometry
from shards.inventory import PRESENT
from tests.grounds import make_ground

# N pictures, V phrases, D width

LOOSE = -1e9  # a margin that everything keeps
KINDS = [NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT]


class Encoder:
    """Rows that depend on a template, of the length that is asked for."""

    name, dim = "made", 4
    weights_digest = preprocessing_digest = "0" * 16
    geometry = Geometry(height=8, width=8, resize="squash")

    def __init__(self, template: str = "{}", length: float = 1.0) -> None:
        self.template, self.length = template, length
        self.digest = f"{template:->16}"

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise NotImplementedError

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        texts = [self.template.format(phrase) for phrase in phrases]
        rows = np.array([[text.count(letter) + 0.5 for letter in "abcd"] for text in texts])
        rows *= self.length / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows.astype(np.float32)


def mined(ground: Ground, folder: Path, **settings: object) -> MinedTable:
    """What is mined without caps and with all margins open, unless the settings say otherwise."""
    free = {"max_per_image": 10**6, "max_per_phrase_share": 1.0}
    if not settings.keys() & {"relative_margin", "absolute_margin"}:
        free |= {"absolute_margin": LOOSE}
    table = Mine(**free | settings)  # type: ignore[arg-type]
    return mine(ground, table, split="train", seed=0, folder=str(folder), progress=Progress(disable=True))


def shown(*num_pictures: int, num: int) -> NDArray[np.int8]:
    """Labels of `num` pictures, of which the first so many show each phrase."""
    states_nv = np.full((num, len(num_pictures)), -1, np.int8)
    for phrase, several in enumerate(num_pictures):
        states_nv[:several, phrase] = PRESENT
    return states_nv


def rows_a_phrase(kind: KindMined, num_phrases: int) -> list[int]:
    counts: list[int] = np.bincount(kind.rows.column_c, minlength=num_phrases).tolist()
    return counts


def test_3819_a_relative_margin_lies_below_a_positive_score_that_is_negative(tmp_path: Path) -> None:
    """There `positive * (1 - margin)` lay above a negative positive score, and kept what was nearer."""
    found = mined(make_ground(300, noise=3.0), tmp_path, relative_margin=0.2, margin_space="raw")
    for kind in found.kinds:
        below_zero = kind.rows.positive_score_c < 0
        positive, score = kind.rows.positive_score_c[below_zero], kind.rows.score_c[below_zero]
        assert len(score) > 5
        assert (score <= 1.2 * positive + 1e-12).all()


def test_3871_rows_that_another_template_gave_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    """There the cache's key left the prompts out, and rows of one prompt were silently used for another."""
    plain, templated = Encoder(), Encoder("a bad cabbage and {}")
    before, after = (embed_phrases(one, ["a", "b"], folder=str(tmp_path)) for one in (plain, templated))
    np.testing.assert_array_equal(before, plain.encode_texts(["a", "b"]).astype(np.float16))
    np.testing.assert_array_equal(after, templated.encode_texts(["a", "b"]).astype(np.float16))
    assert (before != after).any()


@pytest.mark.parametrize("range_max", [5, None])
def test_3872_a_query_of_many_positives_finds_as_many_negatives_as_one_of_few(
    tmp_path: Path, range_max: int | None
) -> None:
    """There FAISS was asked for one row more than wanted, however many positives were taken out again."""
    ground = make_ground(100, 3, states_nv=shown(80, 40, 1, num=100), unseen=0.0, noise=0.2)
    near_image, _ = mined(ground, tmp_path, num_negatives=3, range_max=range_max).kinds
    assert rows_a_phrase(near_image, 3) == [3, 3, 3]
    pictures = make_ground(40, 30, states_nv=shown(*[40] * 20, *[5] * 5, *[0] * 5, num=40), unseen=0.0, noise=0.2)
    _, near_text = mined(pictures, tmp_path, num_negatives=3, range_max=range_max).kinds
    assert np.bincount(near_text.rows.row_c, minlength=40).tolist() == [3] * 40


@pytest.mark.parametrize("strategy", ["top", "random"])
def test_3873_a_pool_smaller_than_the_candidates_asked_for_is_mined_to_its_end(tmp_path: Path, strategy: str) -> None:
    """There the search crashed, and with FAISS the -1 of a missing row stood for the last one."""
    states_nv = shown(9, 5, 1, 8, 0, 3, 2, 7, 6, num=9)
    ground = make_ground(9, 9, states_nv=states_nv)
    absent = {(n, v) for n, v in np.ndindex(9, 9) if states_nv[n, v] != PRESENT}
    for kind in mined(ground, tmp_path, num_negatives=9, range_max=500, sampling_strategy=strategy).kinds:
        pictures = kind.rows.row_c  # the pool's rows are in order of their keys, and s0-0 to s0-8 are
        pairs = list(zip(pictures.tolist(), kind.rows.column_c.tolist(), strict=True))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == absent


@pytest.mark.parametrize("strategy", ["top", "random"])
def test_3903_more_negatives_than_the_range_has_ranks_are_refused_by_name(strategy: str) -> None:
    """There a query wanted more than its window of ranks held, and a tensor's shape was what the user was told."""
    for given, window in (({"range_max": 3}, 3), ({"range_min": 2040, "range_max": 2048}, 8)):
        settings = Mine(num_negatives=10, sampling_strategy=strategy, **given)  # type: ignore[arg-type]
        with pytest.raises(RecipeError, match=rf"num_negatives = 10, but range_min = \d+ and .* leave {window} ranks"):
            check_mine(settings, KINDS, "recipe.toml")
    check_mine(Mine(num_negatives=8, range_min=2040, range_max=2048), KINDS, "recipe.toml")


def test_3903_the_command_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """See above."""
    options = ["--out", str(tmp_path / "out.parquet"), "--num-negatives", "10", "--range-max", "3"]
    assert main([str(tmp_path), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: options: mine.num_negatives = 10, but range_min = 0 and range_max = 3 leave 3 ranks")


def test_3504_queries_that_found_too_few_are_counted_once_each(tmp_path: Path) -> None:
    """There the message counted missing negatives as queries: 15 negatives a query, 15 times too many."""
    ground = make_ground(40, 4, states_nv=shown(38, 30, 20, 3, num=40))
    found = mined(ground, tmp_path, num_negatives=3)
    near_image, near_text = found.record.kinds
    assert rows_a_phrase(found.kinds[0], 4) == [2, 3, 3, 3]
    absent_n = np.array([*[0] * 3, *[1] * 17, *[2] * 10, *[3] * 8, *[4] * 2])
    assert (near_image.rows, near_image.short) == (11, 1)
    assert (near_text.rows, near_text.short) == (int(np.minimum(absent_n, 3).sum()), int((absent_n < 3).sum()))
    for kind in found.record.kinds:
        assert kind.candidates == kind.rows + kind.spare + sum(kind.rejected.values())


@pytest.mark.parametrize("length", [0.01, 7.0, 1e6])
def test_2944_rows_are_unit_rows_whatever_the_model_gives(tmp_path: Path, length: float) -> None:
    """There the rows of a model that does not normalise went into FAISS as they were: huge scores, or NaN."""
    expected = embed_phrases(Encoder(), ["a", "bad", "cab"], folder=str(tmp_path / "unit"))
    found = embed_phrases(Encoder(length=length), ["a", "bad", "cab"], folder=str(tmp_path / "long"))
    np.testing.assert_allclose(found.astype(float), expected.astype(float), atol=1e-3)
    with embedding_writer(str(tmp_path / "foreign.parquet"), Encoder(), input_digest="") as writer:
        writer.add("k", "", [], np.array([min(length, 100.0), 0, 0, 0], np.float16))
    with pytest.raises(TableError, match=r"row 0 \(k\) holds a row of length .*; expected a unit vector"):
        read_embeddings(str(tmp_path / "foreign.parquet"))


def test_3164_memory_grows_by_candidates_and_never_by_pictures_times_phrases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There all scores of all queries with all rows stood in memory together (#3816 is the same)."""
    monkeypatch.setattr("miners.candidates._BLOCK_CELLS", 1 << 16)
    num_phrases, sizes, peaks = 1500, (1000, 3000), []
    for num in sizes:
        states_nv = np.full((num, num_phrases), -1, np.int8)
        states_nv[np.arange(num), np.arange(num) % num_phrases] = PRESENT
        ground = make_ground(num, num_phrases, states_nv=states_nv, width=16, exhaustive_n=np.zeros(num, np.bool_))
        tracemalloc.start()
        mined(ground, tmp_path, num_negatives=1, range_max=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    a_picture = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    assert a_picture < num_phrases * 4 / 2  # half of one float32 for each phrase
