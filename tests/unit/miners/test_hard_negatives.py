"""Mining on made grounds: what is never mined, what comes out the same, and what stops a run."""

import dataclasses
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from rich.progress import Progress

from manifests.errors import BuildError, Reason, TableError
from manifests.recipe import Mine
from manifests.sample import NegativeKind
from manifests.tables import NEGATIVES, REJECTS, read_metadata, read_table
from miners import mining
from miners.candidates import CONTEXT_WEIGHT, Searcher, near_text
from miners.composing import mine
from miners.context import can_vote
from miners.ground import Ground
from miners.mined_table import MinedTable, rejects_uri, write_mined
from miners.outside import NO_MASK, Said
from miners.phrase_queries import pair_scores
from miners.pool import gather_pool
from miners.proposing import open_searcher
from miners.record import NO_INDEX, summarise_mining
from shards.inventory import PRESENT
from tests.grounds import make_ground

FLAGS = NDArray[np.bool_]


def mined(ground: Ground, folder: Path, settings: Mine | None = None, *, split: str = "train") -> MinedTable:
    return mine(ground, settings or Mine(), split=split, seed=0, folder=str(folder), progress=Progress(disable=True))


def written(ground: Ground, folder: Path, settings: Mine | None = None, name: str = "negatives") -> pa.Table:
    out = str(folder / f"{name}.parquet")
    write_mined(mined(ground, folder, settings), out, inputs_sha256="1" * 64)
    return read_table(out, NEGATIVES)


def pairs(found: MinedTable, kind: NegativeKind | None = None) -> set[tuple[int, int]]:
    """(picture, phrase) of all rows."""
    rows = [
        (found.pool.picture_n[k.rows.row_c], found.pool.phrase_v[k.rows.column_c])
        for k in found.kinds
        if kind in (None, k.kind)
    ]
    return {pair for image, phrase in rows for pair in zip(image.tolist(), phrase.tolist(), strict=True)}


def present_pairs(ground: Ground) -> set[tuple[int, int]]:
    label, owner = ground.inventory.present(np.arange(ground.inventory.num_images))
    return set(zip(owner.tolist(), ground.inventory.labels.phrase_l[label].tolist(), strict=True))


def said(presences: dict[tuple[int, int], float], num_phrases: int) -> Said:
    ordered = sorted(presences)
    return Said(
        image_p=np.array([image for image, _ in ordered], np.int64),
        phrase_p=np.array([phrase for _, phrase in ordered], np.int32),
        presence_p=np.array([presences[pair] for pair in ordered]),
        mask_p=np.full(len(ordered), NO_MASK, np.int64),
        masks=(),
        num_phrases=num_phrases,
        rejects=(),
        num_rejects={},
    )


@pytest.mark.parametrize(
    "settings", [Mine(), Mine(absolute_margin=-9.0), Mine(relative_margin=0.1, margin_space="raw")]
)
def test_an_annotated_presence_is_never_mined(tmp_path: Path, settings: Mine) -> None:
    ground = make_ground(300, seed=3)
    found = mined(ground, tmp_path, settings)
    assert len(pairs(found)) > 100
    assert not pairs(found) & present_pairs(ground)


def test_mined_rows_are_harder_than_what_is_absent_by_chance(tmp_path: Path) -> None:
    loose = Mine(absolute_margin=-99.0, num_negatives=3)
    anything = msgspec.structs.replace(loose, sampling_strategy="random", range_max=300)
    found, drawn = mined(make_ground(300), tmp_path, loose), mined(make_ground(300), tmp_path, anything)
    for hard, chance in zip(found.kinds, drawn.kinds, strict=True):
        assert hard.rows.standard_c.mean() > chance.rows.standard_c.mean() + 0.2


def test_the_audit_with_the_guard_off_reads_far_above_zero_and_the_chosen_margin_brings_it_down(tmp_path: Path) -> None:
    ground = make_ground(400)
    off = mined(ground, tmp_path, Mine(absolute_margin=-1e6)).record.audit
    chosen = mined(ground, tmp_path, Mine(max_false_negative_rate=0.05)).record.audit
    assert off is not None
    assert chosen is not None
    for loose, strict in zip(off.kinds, chosen.kinds, strict=True):
        assert loose.at_margin.false_share > 0.1
        assert 0 < strict.at_margin.false_share <= 0.05
        assert strict.at_margin.low <= strict.at_margin.false_share <= strict.at_margin.high
        assert strict.leak < loose.leak


def test_without_exhaustive_labels_a_rate_stops_the_run_and_a_margin_mines_with_evidence_mined(tmp_path: Path) -> None:
    ground = make_ground(200, exhaustive_n=np.zeros(200, np.bool_))
    with pytest.raises(BuildError, match=r"only 0 pictures have exhaustive labels.*relative_margin or absolute_margin"):
        mined(ground, tmp_path)
    table = written(ground, tmp_path, Mine(absolute_margin=0.0))
    assert table.num_rows > 50
    assert set(table["evidence"].to_pylist()) == {"mined"}


def test_evidence_says_who_denies_it(tmp_path: Path) -> None:
    first = make_ground(200)
    verified = next(iter(pairs(mined(first, tmp_path, Mine(absolute_margin=0.0)), NegativeKind.NEAR_IMAGE)))
    ground = make_ground(200, exhaustive_n=np.arange(200) < 100, verifier=said({verified: 0.1}, 12))
    table = written(ground, tmp_path, Mine(absolute_margin=0.0))
    evidence = {
        (int(key.split("-")[1]), int(phrase[1:])): word
        for key, phrase, word in zip(*(table[name].to_pylist() for name in ("key", "phrase", "evidence")), strict=True)
    }
    assert evidence.pop(verified) == "verified"
    assert {word for (image, _), word in evidence.items() if image < 100} == {"annotated"}
    assert {word for (image, _), word in evidence.items() if image >= 100} == {"mined"}


@pytest.mark.parametrize("kind", [NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT])
@pytest.mark.parametrize("reason", [Reason.REVIEWER, Reason.VERIFIER])
def test_a_person_and_a_second_model_take_out_what_they_see(tmp_path: Path, kind: NegativeKind, reason: Reason) -> None:
    loose = Mine(absolute_margin=-99.0)
    doubted = sorted(pairs(mined(make_ground(150), tmp_path, loose), kind))[:20]
    word = said(dict.fromkeys(doubted, 0.9), 12)
    ground = make_ground(150, decided=word) if reason is Reason.REVIEWER else make_ground(150, verifier=word)
    found = mined(ground, tmp_path, loose)
    assert not pairs(found, kind) & set(doubted)
    assert sum(k.num_rejected.get(reason, 0) for k in found.kinds) >= len(doubted)


def test_a_phrase_that_a_present_one_makes_doubtful_is_not_mined(tmp_path: Path) -> None:
    ground = make_ground(200, doubtful=[(0, 1)])
    found = mined(ground, tmp_path, Mine(absolute_margin=-99.0))
    shows_0 = {image for image, phrase in present_pairs(ground) if phrase == 0}
    assert not {(image, 1) for image in shows_0} & pairs(found)
    assert any(k.num_rejected.get(Reason.SEMANTIC) for k in found.kinds)


def test_a_copy_of_a_picture_that_shows_it_is_not_mined(tmp_path: Path) -> None:
    group_n = np.arange(200) // 2 * 2
    ground = make_ground(200, group_n=group_n)
    found = mined(ground, tmp_path, Mine(absolute_margin=-99.0))
    shown = present_pairs(ground)
    assert not {(image ^ 1, phrase) for image, phrase in shown} & pairs(found)
    assert any(k.num_rejected.get(Reason.DUPLICATE) for k in found.kinds)


def test_every_candidate_is_a_row_spare_or_rejected_with_its_guard(tmp_path: Path) -> None:
    found = mined(make_ground(250, doubtful=[(0, 1), (2, 3)]), tmp_path)
    for kind, record in zip(found.kinds, found.record.kinds, strict=True):
        assert kind.num_candidates == len(kind.rows) + kind.num_spare + sum(kind.num_rejected.values())
        assert record.candidates == record.rows + record.spare + sum(record.rejected.values())


def test_rejects_stand_beside_the_table_with_their_guards(tmp_path: Path) -> None:
    written(make_ground(250, doubtful=[(0, 1)]), tmp_path)
    rejects = read_table(rejects_uri(str(tmp_path / "negatives.parquet")), REJECTS)
    assert {"annotation", "semantic", "score"} <= set(rejects["reason"].to_pylist())
    assert all(detail.startswith("standard score") for detail in rejects["detail"].to_pylist())
    metadata = read_metadata(str(tmp_path / "negatives.parquet"), NEGATIVES)
    assert metadata["encoder"] == "made"
    assert metadata["inputs_sha256"] == "1" * 64
    assert '"false_share"' in metadata["mining"]


def test_of_each_guard_the_hardest_rejects_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = make_ground(250, doubtful=[(0, 1)])
    every = mined(ground, tmp_path)
    monkeypatch.setattr(mining, "REJECTS_A_GUARD", 5)
    for whole, kept in zip(every.kinds, mined(ground, tmp_path).kinds, strict=True):
        verdicts = np.unique(whole.rejects.verdict_c).tolist()
        hardest = [np.sort(whole.rejects.standard_c[whole.rejects.verdict_c == v])[::-1][:5] for v in verdicts]
        assert max(map(len, hardest)) == 5
        assert kept.rejects.standard_c.tolist() == np.concatenate(hardest).tolist()
        assert kept.num_rejected == whole.num_rejected


def test_no_picture_and_no_phrase_floods_the_result(tmp_path: Path) -> None:
    table = written(make_ground(300, 20), tmp_path, Mine(absolute_margin=-99.0, max_per_image=2))
    for kind, column, cap in (("near_image", "key", 2), ("near_text", "phrase", None)):
        rows = [row for row in table.to_pylist() if row["kind"] == kind]
        most = max(np.unique([row[column] for row in rows], return_counts=True)[1])
        assert most <= (cap or -(-300 * 4 // 10))


def same(left: pa.Table, right: pa.Table) -> bool:
    return bool(left.equals(right))


def test_the_table_is_the_same_chunked_or_not_and_in_any_order_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make_ground(220)
    whole = written(ground, tmp_path / "a")
    monkeypatch.setattr("miners.candidates._BLOCK_CELLS", 64)
    monkeypatch.setattr("miners.phrase_queries._BLOCK_CELLS", 96)
    assert same(whole, written(ground, tmp_path / "b"))
    again = mined(ground, tmp_path / "c")
    assert same(whole, written(ground, tmp_path / "d"))
    assert again.record.embeddings_digest == "made"


@pytest.mark.parametrize("threads", [1, 8])
def test_the_table_is_the_same_with_any_number_of_threads(tmp_path: Path, threads: int) -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    whole = written(make_ground(220), tmp_path / "a")
    try:
        faiss.omp_set_num_threads(threads)
        assert same(whole, written(make_ground(220), tmp_path / "b"))
    finally:
        faiss.omp_set_num_threads(before)


def searcher_of(ground: Ground, folder: Path) -> Searcher:
    pictures = np.arange(ground.inventory.num_images)
    pool = gather_pool(ground.inventory, pictures, ground.phrase_v, ground.embedded, ground.texts_vd)
    return open_searcher(pool, Mine(), str(folder), votes=can_vote(pool))


def nearest_phrases(searcher: Searcher, depth: int) -> list[list[int]]:
    """The columns that `near_text` should give for each picture: all phrases scored, ties by column."""
    pool, ranking = searcher.pool, searcher.queries.ranking
    column_v, found = np.arange(pool.num_phrases), []
    for row in range(pool.num_pictures):
        row_v = np.full(pool.num_phrases, row)
        standard_v = ranking.standard(pair_scores(pool.images_nd, row_v, ranking.rows_vd, column_v), column_v)
        hardness_v = standard_v + CONTEXT_WEIGHT * searcher.context.bonus(row_v, column_v)
        found.append(np.lexsort((column_v, -hardness_v))[:depth].tolist())
    return found


@pytest.mark.parametrize("depth", [1, 5, 20, 50, 90])
def test_of_equal_phrases_the_first_are_a_pictures_nearest(tmp_path: Path, depth: int) -> None:
    """Forty phrases have one row, more than any slack: which of them are cut off must not be left to a partition."""
    equal_v = np.random.default_rng(2).permutation(80) < 40
    ground = make_ground(30, 80, states_nv=np.full((30, 80), -1, np.int8))
    texts_vd = ground.texts_vd.copy()
    texts_vd[equal_v] = texts_vd[0]
    searcher = searcher_of(dataclasses.replace(ground, texts_vd=texts_vd), tmp_path)
    assert len(np.unique(searcher.queries.ranking.rows_vd[equal_v], axis=0)) == 1
    found = list(near_text(searcher, depth))
    row_c, column_c = (np.concatenate([getattr(block, name) for block in found]) for name in ("row_c", "column_c"))
    columns = [column_c[row_c == row].tolist() for row in range(searcher.pool.num_pictures)]
    assert columns == nearest_phrases(searcher, depth)


def test_margins_in_raw_space_mean_what_they_mean_in_sentence_transformers(tmp_path: Path) -> None:
    for settings in (
        Mine(relative_margin=0.3, margin_space="raw"),
        Mine(absolute_margin=0.1, margin_space="raw"),
        Mine(absolute_margin=-9.0, margin_space="raw", max_score=0.2, min_score=0.05),
    ):
        found = mined(make_ground(200), tmp_path, settings)
        rows = found.kinds[0].rows
        assert len(rows)
        positive, score = rows.positive_score_c, rows.score_c
        if settings.relative_margin:
            assert (score <= positive - 0.3 * np.abs(positive) + 1e-12).all()
        elif settings.max_score is None:
            assert (score <= positive - 0.1 + 1e-12).all()
        else:
            assert ((score <= 0.2) & (score >= 0.05)).all()


def test_range_and_number_are_per_query(tmp_path: Path) -> None:
    found = mined(make_ground(200), tmp_path, Mine(absolute_margin=-99.0, range_min=3, range_max=8, num_negatives=2))
    rows = found.kinds[0].rows
    assert set(rows.rank_c.tolist()) <= set(range(3, 8))
    assert np.bincount(rows.column_c).max() == 2


def test_random_sampling_draws_from_the_range_and_repeats_itself(tmp_path: Path) -> None:
    settings = Mine(absolute_margin=-99.0, num_negatives=3, range_max=40, sampling_strategy="random")
    first, second = (mined(make_ground(200), tmp_path, settings) for _ in range(2))
    assert pairs(first) == pairs(second)
    assert first.kinds[0].rows.rank_c.mean() > 8
    assert pairs(first) != pairs(mined(make_ground(200), tmp_path, Mine(absolute_margin=-99.0, num_negatives=3)))


def test_more_negatives_than_the_pool_has_is_an_error_that_names_both(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"num_negatives = 500, but the pool has only 100 pictures"):
        mined(make_ground(100), tmp_path, Mine(num_negatives=500))


def test_an_empty_split_and_an_empty_vocabulary_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="split val holds no picture"):
        mined(make_ground(50), tmp_path, split="val")
    ground = dataclasses.replace(
        make_ground(50), phrase_v=np.empty(0, np.int32), texts_vd=np.empty((0, 32), np.float16)
    )
    with pytest.raises(BuildError, match="no phrase may be asked"):
        mined(ground, tmp_path)


def test_if_every_candidate_is_rejected_the_message_names_the_guard_and_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"by the guard 'score'.*raise max_false_negative_rate, or lower the margin"):
        mined(make_ground(100), tmp_path, Mine(absolute_margin=1e6))
    everywhere = make_ground(60, 3, states_nv=np.full((60, 3), PRESENT, np.int8))
    with pytest.raises(BuildError, match=r"by the guard 'annotation'"):
        mined(everywhere, tmp_path, Mine(absolute_margin=-99.0))
    with pytest.raises(BuildError, match="lies between range_min and range_max"):
        mined(make_ground(60, 3), tmp_path, Mine(absolute_margin=-1e9, range_min=5000, range_max=6000))


def test_false_alarms_are_what_a_student_calls_present_and_stand_in_train_alone(tmp_path: Path) -> None:
    plain = make_ground(150)
    absent = [(n, v) for n in range(150) for v in range(12) if (n, v) not in present_pairs(plain)]
    presences = {pair: 0.95 if k % 3 == 0 else 0.2 for k, pair in enumerate(absent)}
    decided = said(dict.fromkeys(absent, 0.0), 12)  # a person looked, so the overlap guard has nothing to say
    ground = make_ground(150, alarms=said(presences, 12), decided=decided)
    found = mined(ground, tmp_path, Mine(absolute_margin=-99.0))
    assert found.kinds[2].kind is NegativeKind.FALSE_ALARM
    rows = pairs(found, NegativeKind.FALSE_ALARM)
    assert rows
    assert rows <= {pair for pair in absent if presences[pair] > 0.9}
    split_n = np.zeros(150, np.int8)
    split_n[140:] = 1
    with pytest.raises(TableError, match=r"stands in split val; expected pictures of train alone.*--split train"):
        mined(make_ground(150, alarms=said(presences, 12), split_n=split_n), tmp_path, Mine(absolute_margin=-99.0))


def alarmed(num: int = 150) -> Ground:
    """A ground whose alarms are a third of all absences; a person looked, so the overlap guard has nothing to say."""
    plain = make_ground(num)
    absent = [(n, v) for n in range(num) for v in range(12) if (n, v) not in present_pairs(plain)]
    presences = {pair: 0.95 if k % 3 == 0 else 0.2 for k, pair in enumerate(absent)}
    return make_ground(num, alarms=said(presences, 12), decided=said(dict.fromkeys(absent, 0.0), 12))


def mined_alarms(ground: Ground, folder: Path, settings: Mine) -> MinedTable:
    return mine(
        ground,
        settings,
        split="train",
        seed=0,
        folder=str(folder),
        progress=Progress(disable=True),
        kinds=[NegativeKind.FALSE_ALARM],
    )


def test_false_alarms_alone_need_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = mined(alarmed(), tmp_path, Mine(absolute_margin=-99.0))

    def search(*_args: object, **_more: object) -> object:
        raise AssertionError

    monkeypatch.setattr("miners.composing.open_searcher", search)
    found = mined_alarms(alarmed(), tmp_path, Mine(absolute_margin=-99.0))
    assert found.record.index == NO_INDEX
    assert "12 phrases, no index" in summarise_mining(found.record, "negatives.parquet")
    assert pairs(found) == pairs(every, NegativeKind.FALSE_ALARM) != set()
    write_mined(found, str(tmp_path / "alarms.parquet"), inputs_sha256="")
    write_mined(every, str(tmp_path / "every.parquet"), inputs_sha256="")
    rows, among = (read_table(str(tmp_path / f"{name}.parquet"), NEGATIVES) for name in ("alarms", "every"))
    assert rows.to_pylist() == [row for row in among.to_pylist() if row["kind"] == "false_alarm"]


@pytest.mark.parametrize(
    ("num_exhaustive", "why"),
    [
        (0, "no picture has exhaustive labels"),
        (7, "only 7 pictures have exhaustive labels; it takes 20"),
        (19, "only 19 pictures have exhaustive labels; it takes 20"),
        (20, ""),
    ],
)
def test_a_record_without_an_audit_says_why(tmp_path: Path, num_exhaustive: int, why: str) -> None:
    ground = make_ground(100, exhaustive_n=np.arange(100) < num_exhaustive)
    record = mined(ground, tmp_path, Mine(absolute_margin=0.0)).record
    assert record.no_audit == why
    assert (record.audit is None) == bool(why)
    assert not why or f"audit     none: {why}\n" in summarise_mining(record, "negatives.parquet")


def test_false_alarms_are_not_audited_whatever_the_labels_are(tmp_path: Path) -> None:
    record = mined_alarms(alarmed(), tmp_path, Mine()).record
    assert record.audit is None
    assert "audit     none: only false alarms were mined, " in summarise_mining(record, "negatives.parquet")
    among = mined(alarmed(), tmp_path).record
    assert among.audit is not None
    assert [kind.kind for kind in among.audit.kinds] == ["near_image", "near_text"]


@pytest.mark.parametrize("space", ["raw", "standard"])
def test_bounds_on_likeness_do_not_act_on_presences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: Literal["raw", "standard"]
) -> None:
    monkeypatch.setattr("miners.composing.covered_share", lambda *given: np.ones(len(given[-1])))
    ground = dataclasses.replace(make_ground(150), alarms=alarmed().alarms)  # verified rows would pass every bound
    free, bounded = Mine(absolute_margin=-99.0), Mine(absolute_margin=-99.0, margin_space=space, max_score=0.15)
    every, found = mined(ground, tmp_path, free), mined(ground, tmp_path, bounded)
    for kind in (NegativeKind.NEAR_IMAGE, NegativeKind.NEAR_TEXT):
        assert pairs(found, kind) != pairs(every, kind)
    assert pairs(found, NegativeKind.FALSE_ALARM) == pairs(every, NegativeKind.FALSE_ALARM) != set()


def test_raw_bounds_hold_cosines_also_where_the_audit_chooses_the_margin(tmp_path: Path) -> None:
    found = mined(make_ground(300), tmp_path, Mine(margin_space="raw", max_score=0.15))
    scores = np.concatenate([kind.rows.score_c for kind in found.kinds])
    assert scores.max() <= 0.15
    assert np.concatenate([kind.rows.standard_c for kind in found.kinds]).max() > 0.15


def test_a_single_phrase_and_one_without_positives_are_mined_by_their_text(tmp_path: Path) -> None:
    states_nv = np.full((80, 1), -1, np.int8)
    states_nv[:40] = PRESENT
    assert pairs(mined(make_ground(80, 1, states_nv=states_nv), tmp_path, Mine(absolute_margin=-99.0)))
    nobody = np.full((80, 1), -1, np.int8)
    assert pairs(mined(make_ground(80, 1, states_nv=nobody), tmp_path, Mine(absolute_margin=-99.0)))


def test_the_kinds_that_are_asked_for_are_mined_and_no_others(tmp_path: Path) -> None:
    found = mine(
        make_ground(200),
        Mine(),
        split="train",
        seed=0,
        folder=str(tmp_path),
        progress=Progress(disable=True),
        kinds=[NegativeKind.NEAR_TEXT],
    )
    assert [kind.kind for kind in found.kinds] == [NegativeKind.NEAR_TEXT]
    assert found.record.audit is not None
    assert [kind.kind for kind in found.record.audit.kinds] == ["near_text"]
