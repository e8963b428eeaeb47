"""Words for masks without text: which phrase a crop gets, what is believed of it, and what a killed run leaves."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.phrases import BEGIN, END, NAMES, Figures, choose, figures_page
from manifests.errors import RecipeError, SourceError
from manifests.recipe import RETRIEVE, Recipe, Retrieve, Sa1bSource
from manifests.sample import MaskState
from manifests.stage import progress_bar
from manifests.tables import PHRASES, read_table
from miners import phrases, retrieval
from miners.lookup import NO_RIVAL, look_up, related_phrases, standard_scores
from miners.mask_crops import CropLimits, faded_views, masks_to_look_at
from miners.phrase_truth import Reading, judge, read_at, read_grid, read_truth
from miners.retrieval import MEASURED, Retrieval, Thresholds, accepted, open_retriever, retrieve, thresholds_of
from miners.views import Geometry
from miners.vocabulary import BUNDLED, load_vocabulary
from shards.labels import load_lexicon
from shards.sources.sa1b import Sa1b, open_sa1b
from shards.sources.sa1b_labels import Floors, decode_file
from shards.sources.source import Label, Picture
from tests.colours import Colours, Stopped
from tests.doors import ROOT
from tests.factories import make_mask
from tests.worlds import CATEGORIES, Sa1bWorld, make_sa1b

EVERYTHING = Thresholds(min_score=-100.0, min_margin=-100.0)
NO_FLOORS = Floors(predicted_iou=0.0, stability_score=0.0, area=0.0, phrase_score=0.0)
LEXICON = load_lexicon([])


def source_of(folder: Path, **changes: object) -> Sa1b:
    table = msgspec.convert({"format": "sa1b", "data": "sa_*.tar", "phrases": RETRIEVE, **changes}, Sa1bSource)
    recipe = Recipe(name="tiny", folder=str(folder), mix={"sa1b": "rest"}, sources={"sa1b": table})
    return open_sa1b("sa1b", table, recipe)


def vocabulary_file(folder: Path, *texts: str) -> str:
    path = folder / "vocabulary.txt"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return str(path)


def retrieved(
    folder: Path,
    work: Path,
    *,
    encoder: Colours | None = None,
    thresholds: Thresholds = EVERYTHING,
    words: Sequence[str] = tuple(CATEGORIES.values()),
    source: Sa1b | None = None,
    max_masks: int = 32,
) -> Retrieval:
    settings = Retrieve(vocabulary=vocabulary_file(folder, *words), min_area=1, max_masks=max_masks)
    retriever = open_retriever(settings, encoder or Colours(), LEXICON, work=str(work))
    with progress_bar(quiet=True) as progress:
        return retrieve(source or source_of(folder), retriever, thresholds, work=str(work), progress=progress)


def labels_of(found: Retrieval, work: Path) -> dict[str, tuple[Label, ...]]:
    pictures: dict[str, tuple[Label, ...]] = {}
    for part in found.source.prepare(str(work)).parts:
        for one in found.source.scan(part):
            if isinstance(one, Picture):
                pictures[one.image_id] = one.labels
    return pictures


def write_world(folder: Path, num_images: int = 6) -> Sa1bWorld:
    world = make_sa1b(num_images)
    world.write(folder)
    return world


# looking up


def test_the_best_phrase_wins_and_a_synonym_or_a_broader_phrase_does_not_narrow_its_margin() -> None:
    words = ["dog", "hound", "puppy", "animal", "car"]
    scores_cv = np.array([[9.0, 8.9, 8.5, 8.0, 3.0], [1.0, 1.0, 1.0, 1.0, 7.0]], np.float32)
    found = look_up(scores_cv, related_phrases(words, LEXICON))
    assert found.phrase_c.tolist() == [0, 4]
    assert found.score_c.tolist() == [9.0, 7.0]
    assert found.margin_c.tolist() == [6.0, 6.0]


def test_a_phrase_with_another_head_is_a_rival() -> None:
    found = look_up(np.array([[9.0, 8.5]], np.float32), related_phrases(["dog", "hot dog"], LEXICON))
    assert found.margin_c.tolist() == [0.5]


def test_equal_scores_take_the_first_phrase_and_one_phrase_alone_has_no_rival() -> None:
    tied = look_up(np.array([[2.0, 2.0]], np.float32), related_phrases(["kite", "car"], LEXICON))
    assert (tied.phrase_c.tolist(), tied.margin_c.tolist()) == ([0], [0.0])
    assert look_up(np.array([[2.0]], np.float32), related_phrases(["kite"], LEXICON)).margin_c.tolist() == [NO_RIVAL]


def test_looking_up_agrees_with_a_loop_over_crops_and_phrases() -> None:
    words = list(load_vocabulary().phrases[::25])
    related = related_phrases(words, LEXICON)
    scores_cv = np.random.default_rng(1).standard_normal((40, len(words))).astype(np.float32)
    found = look_up(scores_cv.copy(), related)
    for crop, row in enumerate(scores_cv):
        best = row.tolist().index(max(row.tolist()))
        rivals = [row[place] for place in range(len(words)) if place not in set(related[best].tolist())]
        assert found.phrase_c[crop] == best
        assert found.margin_c[crop] == pytest.approx(row[best] - max(rivals))


def test_standard_scores_are_deviations_over_the_reference_whatever_the_vocabulary() -> None:
    rng = np.random.default_rng(2)
    crops_cd, reference_rd = rng.standard_normal((3, 8)), rng.standard_normal((50, 8))
    crops, reference = crops_cd.astype(np.float32), reference_rd.astype(np.float32)
    cosines_cr = crops @ reference.T
    expected_cr = (cosines_cr - cosines_cr.mean(1, keepdims=True)) / cosines_cr.std(1, keepdims=True)
    assert np.allclose(standard_scores(crops, reference[:4], reference), expected_cr[:, :4], atol=1e-5)
    assert standard_scores(np.zeros((1, 8), np.float32), reference[:2], reference).tolist() == [[0.0, 0.0]]


# crops


def test_surroundings_are_faded_in_one_view_and_gone_in_the_other() -> None:
    geometry = Geometry(height=8, width=8, resize="squash")
    mask = make_mask(16, 16, left=4, top=4, right=12, bottom=12)
    white_hw3 = np.full((8, 8, 3), 255, np.uint8)
    faded_hw3, cut_hw3 = faded_views(white_hw3, mask, (0.0, 0.0, 16.0, 16.0), geometry)
    assert faded_hw3[4, 4].tolist() == cut_hw3[4, 4].tolist() == [255, 255, 255]
    assert cut_hw3[0, 0].tolist() == [124, 116, 104]
    assert faded_hw3[0, 0].tolist() == [163, 158, 149]


def test_masks_are_looked_at_by_size_and_broken_small_or_doubted_ones_are_not() -> None:
    sound = {"predicted_iou": 0.9, "stability_score": 0.9, "area": 1.0}
    rows = [
        {"id": 1, "segmentation": _rle(right=14), **sound},
        {"id": 2, "segmentation": _rle(right=30), **sound},
        {"id": 2, "segmentation": _rle(right=40), **sound},
        {"id": 3, "segmentation": {"size": [48, 64], "counts": "broken"}, **sound},
        {"id": 4, "segmentation": {**_rle(right=40), "size": [64, 48]}, **sound},
        {"id": 5, "segmentation": _rle(right=40), **sound, "predicted_iou": 0.1},
        {"id": 6, "segmentation": _rle(right=9), **sound},
        {"id": 7, "segmentation": _rle(right=20), **sound},
    ]
    file = decode_file(msgspec.json.encode({"image": {"image_id": 1, "width": 64, "height": 48}, "annotations": rows}))
    floors = Floors(predicted_iou=0.5, stability_score=0.0, area=0.0, phrase_score=0.0)
    looked_at = masks_to_look_at(file, CropLimits(floors=floors, min_area=100, max_masks=2))
    assert [number for number, _ in looked_at] == [2, 7]
    everything = masks_to_look_at(file, CropLimits(floors=floors, min_area=0, max_masks=9))
    assert [number for number, _ in everything] == [2, 7, 1, 6]


def _rle(*, right: int) -> dict[str, object]:
    mask = make_mask(64, 48, right=right)
    return {"size": list(mask.size), "counts": mask.counts}


# the stage


def test_every_mask_gets_the_phrase_that_it_shows_and_masks_of_one_phrase_are_one_partial_presence(
    tmp_path: Path,
) -> None:
    world = write_world(tmp_path, 12)
    found = retrieved(tmp_path, tmp_path / "work")
    truth = {(row["image_id"], row["annotation_id"]): row["phrase"] for row in world.rows}
    rows = read_table(found.looked_up[0], PHRASES).to_pylist()
    right = [truth[row["image_id"], row["annotation_id"]] == row["phrase"] for row in rows]
    assert len(rows) == len(truth)
    assert np.mean(right) > 0.8  # some things lie under others
    labels = labels_of(found, tmp_path / "work")
    assert len(labels) == 12
    for image_id, said in labels.items():
        here = [row["phrase"] for row in rows if str(row["image_id"]) == image_id]
        assert sorted(label.phrase for label in said) == sorted(set(here))
        assert sum(len(label.masks) for label in said) == len(here)
        assert {(label.known_by, label.mask_state) for label in said} == {("retrieved", MaskState.PARTIAL)}


def test_what_is_below_a_threshold_is_not_said_of_the_picture(tmp_path: Path) -> None:
    write_world(tmp_path)
    work = tmp_path / "work"
    all_rows = read_table(retrieved(tmp_path, work).looked_up[0], PHRASES)
    middle = Thresholds(min_score=float(np.median(all_rows["score"].to_numpy())), min_margin=2.0)
    found = retrieved(tmp_path, work, thresholds=middle)
    kept = read_table(found.accepted[0], PHRASES)
    expected = [
        row for row in all_rows.to_pylist() if row["score"] >= middle.min_score and row["margin"] >= middle.min_margin
    ]
    assert 0 < kept.num_rows < all_rows.num_rows
    assert kept.to_pylist() == expected
    assert found.found[0].masks == len(expected) == sum(found.phrase_counts.values())
    none = retrieved(tmp_path, work, thresholds=Thresholds(min_score=1e6, min_margin=0.0))
    assert all(said == () for said in labels_of(none, work).values())


def test_another_threshold_asks_the_encoder_nothing_and_another_vocabulary_asks_all_again(tmp_path: Path) -> None:
    write_world(tmp_path)
    work = tmp_path / "work"
    first, second, third, fourth = Colours(), Colours(), Colours(), Colours()
    retrieved(tmp_path, work, encoder=first)
    retrieved(tmp_path, work, encoder=second, thresholds=Thresholds(min_score=3.0, min_margin=1.0))
    retrieved(tmp_path, work, encoder=third, source=source_of(tmp_path, licence="another"))
    retrieved(tmp_path, work, encoder=fourth, words=("dog", "kite"))
    assert first.num_crops > 0
    assert second.num_crops == third.num_crops == 0
    assert fourth.num_crops == first.num_crops


def test_only_the_largest_masks_of_a_picture_are_looked_up(tmp_path: Path) -> None:
    write_world(tmp_path)
    found = retrieved(tmp_path, tmp_path / "work", max_masks=1)
    assert (found.records[0].pictures, found.records[0].looked_up) == (6, 6)
    assert found.records[0].masks > 6


def test_a_picture_that_does_not_decode_is_left_to_the_scan(tmp_path: Path) -> None:
    world = make_sa1b(3)
    world.replace("sa_2.jpg", b"\xff\xd8\xff nothing")
    world.write(tmp_path)
    rows = read_table(retrieved(tmp_path, tmp_path / "work").looked_up[0], PHRASES)
    assert set(rows["image_id"].to_pylist()) == {1, 3}


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_PICTURES", 5)
    write_world(tmp_path, 20)
    whole = Colours()
    expected = read_bytes(retrieved(tmp_path, tmp_path / "a", encoder=whole))
    num_batches = 0
    for stop_after in (3, 3, None):
        encoder = Colours(stop_after=stop_after)
        try:
            found = retrieved(tmp_path, tmp_path / "b", encoder=encoder)
        except Stopped:
            assert not list((tmp_path / "b" / "phrases").glob("*.json"))
        num_batches += encoder.num_batches
    assert read_bytes(found) == expected
    assert (whole.num_batches, num_batches) == (8, 10)  # two views a block; one view was lost in each of two runs
    assert sorted(path.suffix for path in (tmp_path / "b" / "phrases").glob("*-*")) == [".json", ".parquet"]


def read_bytes(found: Retrieval) -> list[bytes]:
    return [Path(uri).read_bytes() for uri in (*found.looked_up, *found.accepted)]


def test_thresholds_are_known_for_the_embedded_encoder_alone() -> None:
    class Conse(Colours):
        name = "conse"

    assert thresholds_of(Retrieve(), Conse()) == MEASURED["conse"]
    assert thresholds_of(Retrieve(min_score=1.0), Conse()).min_score == 1.0
    assert thresholds_of(Retrieve(min_score=1.0, min_margin=0.0), Colours()) == Thresholds(min_score=1.0, min_margin=0)
    with pytest.raises(RecipeError, match=r"encoder colours: no thresholds were measured .* conse.*--truth"):
        thresholds_of(Retrieve(min_score=1.0), Colours())


# the truth


def test_precision_and_coverage_agree_with_a_loop_over_the_masks(tmp_path: Path) -> None:
    said = [(1, 1, "dog", 9.0, 3.0), (1, 2, "animal", 8.0, 3.0), (1, 3, "puppy", 7.0, 1.0), (2, 4, "car", 6.0, 2.0)]
    said += [(2, 5, "dog", 5.0, 2.0), (2, 6, "kite", 4.0, 0.5), (3, 7, "kite", 9.5, 9.0)]
    table = tmp_path / "looked.parquet"
    columns = {name: [row[place] for row in said] for place, name in enumerate(PHRASES.names)}
    pq.write_table(pa.table(columns, schema=PHRASES), table)
    truths = [(1, 1, "hound"), (1, 2, "dog"), (1, 3, "dog"), (2, 4, "truck"), (2, 5, "kite"), (2, 6, "kite")]
    truths.append((2, 8, "cat"))
    truth = tmp_path / "truth.parquet"
    names = ("image_id", "annotation_id", "phrase")
    pq.write_table(pa.table({name: [row[place] for row in truths] for place, name in enumerate(names)}), truth)
    judged = judge(read_table(str(table), PHRASES), read_truth(str(truth)), LEXICON)
    everything = read_at(judged, -100.0, -100.0)
    assert everything.masks == 6  # nothing is known of the seventh
    assert everything.precision == pytest.approx(3 / 6)  # hound, a dog that is an animal, kite
    assert everything.narrower == pytest.approx(1 / 6)
    assert everything.coverage == pytest.approx(6 / 7)
    assert everything.presences == 6
    assert everything.presence_precision == pytest.approx(3 / 6)
    strict = read_at(judged, 6.0, 2.0)
    assert strict.masks == 3
    assert strict.precision == pytest.approx(2 / 3)
    assert read_at(judged, 100.0, 0.0).precision == 0.0
    grid = read_grid(judged)
    assert all(one == read_at(judged, one.min_score, one.min_margin) for one in grid)
    assert len({one.min_score for one in grid}) > 3


def test_a_truth_that_knows_none_of_the_masks_is_refused(tmp_path: Path) -> None:
    truth, table = tmp_path / "truth.parquet", tmp_path / "looked.parquet"
    pq.write_table(pa.table({"image_id": [9], "annotation_id": [9], "phrase": ["dog"]}), truth)
    columns = [[1], [1], ["dog"], [1.0], [1.0]]
    pq.write_table(pa.table(dict(zip(PHRASES.names, columns, strict=True)), schema=PHRASES), table)
    with pytest.raises(SourceError, match=r"none of its 1 masks is among the 1 that were looked up"):
        judge(read_table(str(table), PHRASES), read_truth(str(truth)), LEXICON)
    pq.write_table(pa.table({"image_id": [9], "annotation_id": [9], "phrase": [" "]}), truth)
    with pytest.raises(SourceError, match=r"truth\.parquet: no row names an annotation and a phrase"):
        read_truth(str(truth))
    with pytest.raises(SourceError, match=r"--truth: .*nowhere\.parquet does not exist"):
        read_truth(str(tmp_path / "nowhere.parquet"))


# vocabularies


def test_the_bundled_vocabulary_holds_over_a_thousand_phrases_each_once_with_its_source() -> None:
    found = load_vocabulary()
    assert len(found.phrases) >= 1000
    assert (found.num_repeated, found.num_blank) == (0, 0)
    assert list(found.phrases) == sorted(found.phrases, key=str.casefold)
    assert not [phrase for phrase in found.phrases if re.search(r"[_()]|\s{2}", phrase)]
    stated = Path(BUNDLED).with_suffix(".toml").read_text(encoding="utf-8")
    assert f"phrases = {len(found.phrases)}\n" in stated
    assert "CC BY 4.0" in stated


def test_repeated_and_blank_lines_of_a_vocabulary_are_counted(tmp_path: Path) -> None:
    found = load_vocabulary(vocabulary_file(tmp_path, "Dog", "", "kite", "dog", "  red   car ", "   "))
    assert found.phrases == ("Dog", "kite", "red car")
    assert (found.num_repeated, found.num_blank) == (1, 2)
    assert found.digest != load_vocabulary(vocabulary_file(tmp_path, "Dog", "kite")).digest


def test_a_byte_order_mark_is_no_part_of_the_first_phrase(tmp_path: Path) -> None:
    found = load_vocabulary(vocabulary_file(tmp_path, "\ufeffdog", "cat", "dog"))
    assert found.phrases == ("dog", "cat")
    assert (found.num_repeated, found.num_blank) == (1, 0)


def test_a_repeated_phrase_keeps_its_first_spelling_and_place(tmp_path: Path) -> None:
    found = load_vocabulary(vocabulary_file(tmp_path, "Red car", "dog", "red CAR", "Kite", "DOG", "red car"))
    assert found.phrases == ("Red car", "dog", "Kite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"vocabulary is empty; expected one phrase a line"),
        (b"\n \n", r"vocabulary is empty"),
        (b"dog\n\xff\xfe\n", r"one phrase a line in UTF-8"),
        (b"dog\n" + b"word " * 1000, r"phrase_too_long.*'word word .*expected at most 200"),
        (None, r"no file at .*words\.txt"),
    ],
)
def test_a_vocabulary_that_is_none_stops_with_its_place(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_vocabulary(str(path))


# the command


def test_the_command_takes_tars_a_recipe_or_the_folder_of_a_catalog(tmp_path: Path) -> None:
    write_world(tmp_path / "sa1b", 2)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "t"\nmix = { sa1b = "rest", two = 0.1 }\n'
        '[sources.sa1b]\nformat = "sa1b"\ndata = "sa1b/sa_*.tar"\n[sources.two]\nformat = "sa1b"\ndata = "two.tar"\n'
    )
    found, name, table = phrases.find_source(str(recipe), "sa1b")
    assert (found.folder, name, table) == (str(tmp_path), "sa1b", found.sources["sa1b"])
    with pytest.raises(RecipeError, match=r"expected one source of format sa1b, found several \(sa1b, two\)"):
        phrases.find_source(str(recipe), "")
    with pytest.raises(RecipeError, match=r"--source coco: expected one of sa1b, two"):
        phrases.find_source(str(recipe), "coco")
    work = tmp_path / "catalog" / "work"
    work.mkdir(parents=True)
    (work / "recipe.json").write_bytes(msgspec.json.encode(found))
    assert phrases.find_source(str(tmp_path / "catalog"), "two") == (found, "two", found.sources["two"])
    _, _, tars = phrases.find_source(str(tmp_path / "sa1b" / "sa_*.tar"), "")
    assert tars.data == str(tmp_path / "sa1b" / "sa_*.tar")


def test_rows_are_accepted_at_a_threshold_itself() -> None:
    rows = pa.table(dict(zip(PHRASES.names, [[1], [1], ["dog"], [2.0], [1.0]], strict=True)), schema=PHRASES)
    assert accepted(rows, Thresholds(min_score=2.0, min_margin=1.0)).num_rows == 1
    assert accepted(rows, Thresholds(min_score=2.0, min_margin=1.1)).num_rows == 0


def make_reading(min_score: float, min_margin: float, masks: int, precision: float) -> Reading:
    return Reading(
        min_score=min_score,
        min_margin=min_margin,
        masks=masks,
        precision=precision,
        narrower=0.0,
        coverage=masks / 100,
        presences=masks,
        presence_precision=precision,
    )


def test_the_thresholds_chosen_name_most_masks_of_those_that_are_right_often_enough() -> None:
    loose, right = make_reading(5.0, 0.0, 50, 0.89), make_reading(6.0, 0.0, 20, 0.9)
    strict, nothing = make_reading(7.0, 0.0, 9, 1.0), make_reading(9.0, 0.0, 0, 0.0)
    assert choose([strict, loose, nothing, right]) == right
    assert choose([right, make_reading(6.0, 2.0, 20, 0.9)]).min_margin == 2.0
    with pytest.raises(SystemExit, match=r"no thresholds of the grid reach a precision of 0\.9; widen"):
        choose([loose, nothing])


def read_figures(name: str) -> Figures:
    results = ROOT / "benchmarks" / "results" / "accuracy"
    return msgspec.json.decode((results / name).read_bytes(), type=Figures)


def test_the_page_holds_the_figures_of_the_benchmark_and_the_defaults_are_those_measured() -> None:
    page = (ROOT / "docs" / "phrases.md").read_text(encoding="utf-8")
    chosen_on, found = read_figures("phrases_train.json"), read_figures("phrases.json")
    assert f"{BEGIN}\n{figures_page(found, chosen_on)}{END}" in page
    assert chosen_on.encoder_digest == found.encoder_digest
    known = MEASURED[found.encoder]
    for one in (choose(chosen_on.grid[NAMES]), *chosen_on.chosen.values(), *found.chosen.values()):
        assert (one.min_score, one.min_margin) == (known.min_score, known.min_margin)
