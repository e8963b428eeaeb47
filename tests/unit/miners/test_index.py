"""The index: exact, repeatable, kept in a file, and clear about rows that it cannot take."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from manifests.errors import BuildError, StorageError, TableError
from miners.exact_search import make_pool, search_exactly
from miners.index import Index, IndexKind, choose_kind, exact_scores, index_bytes, open_index
from miners.inverted_lists import learn_centroids, nearest, num_codes, num_lists, recall_by_score

# N rows, Q queries, K neighbours, D width
Rows = NDArray[np.float16]
MEMORY = 1 << 20


def unit_rows(num: int, width: int = 32, seed: int = 0, spread: float = 0.5) -> Rows:
    """Rows around a few directions, as embeddings lie."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((8, width))
    rows_nd = centres[rng.integers(0, 8, num)] + spread * rng.standard_normal((num, width))
    rows_nd /= np.linalg.norm(rows_nd, axis=1, keepdims=True)
    return rows_nd.astype(np.float16)


def make_keys(num: int) -> pa.Array:
    return pa.array([f"k-{row:06d}" for row in range(num)], pa.string())


def make_index(
    rows_nd: Rows,
    folder: Path,
    *,
    keys: pa.Array | None = None,
    kind: IndexKind | None = None,
    memory_bytes: int = MEMORY,
    num_threads: int = 1,
) -> Index:
    return open_index(
        rows_nd,
        make_keys(len(rows_nd)) if keys is None else keys,
        folder=str(folder),
        memory_bytes=memory_bytes,
        num_threads=num_threads,
        kind=kind,
    )


def naive(rows_nd: Rows, keys: list[str], queries_qd: Rows, num: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores_qn = queries_qd.astype(np.float64) @ rows_nd.astype(np.float64).T
    rows = [sorted(range(len(keys)), key=lambda row: (-scores[row], keys[row]))[:num] for scores in scores_qn]
    rows_qk = np.array(rows, np.int64).reshape(len(queries_qd), -1)
    return np.take_along_axis(scores_qn, rows_qk, axis=1), rows_qk


@pytest.mark.parametrize("kind", [IndexKind.FLAT, IndexKind.IVF_SQ])
@pytest.mark.parametrize("num_threads", [1, 8])
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_the_answer_is_the_naive_one_whatever_the_way(
    tmp_path: Path, kind: IndexKind, num_threads: int, chunk: int | None
) -> None:
    rows_nd, queries_qd = unit_rows(3000), unit_rows(40, seed=1)
    rows_nd[500:540] = rows_nd[7]  # equal rows: ties by key
    queries_qd[0] = rows_nd[7]
    keys = [f"k-{row * 7919 % 3000:06d}" for row in range(3000)]
    index = make_index(rows_nd, tmp_path, keys=pa.array(keys), kind=kind, num_threads=num_threads)
    found = index.search(queries_qd, 25, chunk=chunk, probes=3000)
    scores_qk, rows_qk = naive(rows_nd, keys, queries_qd, 25)
    assert (found.rows_qk == rows_qk).all()
    assert (found.scores_qk == scores_qk).all()


@pytest.mark.parametrize("memory_bytes", [1, 1 << 16, 1 << 30])
def test_a_small_memory_means_more_blocks_and_the_same_answer(tmp_path: Path, memory_bytes: int) -> None:
    rows_nd, queries_qd = unit_rows(5000), unit_rows(70, seed=1)
    found = make_index(rows_nd, tmp_path, kind=IndexKind.FLAT, memory_bytes=memory_bytes).search(queries_qd, 9)
    assert (found.rows_qk == naive(rows_nd, make_keys(5000).to_pylist(), queries_qd, 9)[1]).all()


def test_near_copies_that_float32_cannot_tell_apart_are_ranked_exactly() -> None:
    row_d = unit_rows(1, width=512)[0]
    rows_nd = np.repeat(row_d[None], 400, axis=0)
    bits = rows_nd.view(np.uint16)
    bits[np.arange(400), np.arange(400)] ^= 1  # each differs in the last bit of one number
    queries_qd = unit_rows(5, width=512, seed=2)
    pool = make_pool(rows_nd, make_keys(400), num_threads=1)
    found = search_exactly(pool, queries_qd, 10, block_rows=64, num_threads=1)
    scores_qk, rows_qk = naive(rows_nd, make_keys(400).to_pylist(), queries_qd, 10)
    assert (found.rows_qk == rows_qk).all()
    assert (found.scores_qk == scores_qk).all()


@pytest.mark.parametrize("kind", [IndexKind.IVF_SQ, IndexKind.IVF_PQ])
def test_lists_that_are_looked_into_in_part_give_one_answer_at_any_threads_and_chunks(
    tmp_path: Path, kind: IndexKind
) -> None:
    rows_nd, queries_qd = unit_rows(4000), unit_rows(50, seed=1)
    answers = []
    for num_threads, chunk in ((1, None), (8, None), (8, 3), (1, 1)):
        index = make_index(rows_nd, tmp_path / f"{num_threads}", kind=kind, num_threads=num_threads)
        answers.append(index.search(queries_qd, 10, chunk=chunk, probes=5))
    files = [sorted((tmp_path / name).glob("*.faiss")) for name in ("1", "8")]
    assert files[0][0].read_bytes() == files[1][0].read_bytes()
    assert all((answer.rows_qk == answers[0].rows_qk).all() for answer in answers)
    assert all((answer.scores_qk == answers[0].scores_qk).all() for answer in answers)


def test_more_neighbours_than_rows_are_filled_up(tmp_path: Path) -> None:
    for kind in (IndexKind.FLAT, IndexKind.IVF_SQ, IndexKind.IVF_PQ):
        found = make_index(unit_rows(300), tmp_path, kind=kind).search(unit_rows(3, seed=1), 310, probes=300)
        assert (found.rows_qk[:, 300:] == -1).all()
        assert (found.scores_qk[:, 300:] == -np.inf).all()
        assert (np.sort(found.rows_qk[:, :300], axis=1) == np.arange(300)).all()


def test_an_empty_pool_has_no_neighbours(tmp_path: Path) -> None:
    found = make_index(np.empty((0, 32), np.float16), tmp_path, kind=IndexKind.IVF_SQ).search(unit_rows(2), 3)
    assert found.rows_qk.tolist() == [[-1, -1, -1]] * 2
    assert (found.scores_qk == -np.inf).all()


@pytest.mark.parametrize("kind", list(IndexKind))
def test_nothing_asked_is_nothing_found(tmp_path: Path, kind: IndexKind) -> None:
    index = make_index(unit_rows(300), tmp_path, kind=kind)
    assert index.search(unit_rows(0), 5).rows_qk.shape == (0, 5)
    assert index.search(unit_rows(4), 0).rows_qk.shape == (4, 0)


def test_exact_scores_are_the_sums_of_fractions() -> None:
    rows_nd, queries_qd = unit_rows(6, width=384), unit_rows(2, width=384, seed=1)
    rows_qk = np.array([[5, -1, 0], [2, 2, 1]])
    found = exact_scores(queries_qd, rows_nd, rows_qk)
    for query, rows in enumerate(rows_qk):
        for place, row in enumerate(rows):
            pairs = zip(queries_qd[query].astype(float), rows_nd[row].astype(float), strict=True)
            scaled = sum(int(a * 2**24) * int(b * 2**24) for a, b in pairs)  # integers: no rounding anywhere
            assert found[query, place] == (scaled / 2**48 if row >= 0 else -np.inf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (np.nan, r"embeddings: row 3 \(k-000003\) holds NaN or infinity; expected a finite row of length 1"),
        (np.inf, r"row 3 \(k-000003\) holds NaN"),
        (0.0, r"row 3 \(k-000003\) is all zeros"),
        (0.25, r"row 3 \(k-000003\) has length 1\.41"),
    ],
)
def test_a_row_that_is_no_unit_row_is_named(tmp_path: Path, change: float, message: str) -> None:
    rows_nd = unit_rows(10)
    rows_nd[3] = change
    with pytest.raises(TableError, match=message):
        make_index(rows_nd, tmp_path)


def test_rows_of_another_type_or_too_few_and_keys_of_another_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"expected float16 rows \[rows, width\], found float32 of shape \[4, 32\]"):
        make_index(unit_rows(4).astype(np.float32), tmp_path)
    with pytest.raises(BuildError, match="learnt from at least 256 rows, found 200"):
        make_index(unit_rows(200), tmp_path, kind=IndexKind.IVF_PQ)
    with pytest.raises(TableError, match="4 rows for 3 keys"):
        make_index(unit_rows(4), tmp_path, keys=make_keys(3))


def test_queries_that_cannot_be_asked_are_refused(tmp_path: Path) -> None:
    index, bad = make_index(unit_rows(20), tmp_path), unit_rows(3)
    with pytest.raises(TableError, match="queries: rows of width 16, but the pool's have 32"):
        index.search(unit_rows(2, width=16), 1)
    bad[2] = np.nan
    with pytest.raises(TableError, match="queries: row 2 holds NaN"):
        index.search(bad, 1)
    with pytest.raises(BuildError, match="expected at least 0"):
        index.search(unit_rows(2), -1)
    with pytest.raises(BuildError, match="chunks of 0"):
        index.search(unit_rows(2), 1, chunk=0)


@pytest.mark.parametrize(
    ("num_rows", "memory_bytes", "kind"),
    [
        (0, 0, IndexKind.FLAT),
        (10_000, 0, IndexKind.FLAT),  # a pass over few rows is quick, in blocks of any size
        (2_000_000, 4 << 30, IndexKind.FLAT),
        (3_000_000, 4 << 30, IndexKind.IVF_SQ),
        (11_000_000, 4 << 30, IndexKind.IVF_PQ),
        (11_000_000, 16 << 30, IndexKind.IVF_SQ),
        (110_000_000, 16 << 30, IndexKind.IVF_PQ),
    ],
)
def test_the_kind_follows_from_rows_and_memory(num_rows: int, memory_bytes: int, kind: IndexKind) -> None:
    assert choose_kind(num_rows, 512, memory_bytes) is kind


@pytest.mark.parametrize("kind", [IndexKind.IVF_SQ, IndexKind.IVF_PQ])
def test_an_index_is_built_once_and_opened_again(tmp_path: Path, kind: IndexKind) -> None:
    rows_nd = unit_rows(2000)
    first = make_index(rows_nd, tmp_path, kind=kind)
    (path,) = tmp_path.glob("*.faiss")
    built = path.stat().st_mtime_ns
    again = make_index(rows_nd, tmp_path, kind=kind, num_threads=2)
    assert again.record == first.record
    assert path.stat().st_mtime_ns == built
    queries_qd = unit_rows(9, seed=3)
    assert (again.search(queries_qd, 5).rows_qk == first.search(queries_qd, 5).rows_qk).all()
    assert sorted(name.name for name in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]


def test_other_rows_or_keys_make_another_file(tmp_path: Path) -> None:
    rows_nd = unit_rows(500)
    make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ)
    make_index(unit_rows(500, seed=1), tmp_path, kind=IndexKind.IVF_SQ)
    make_index(rows_nd, tmp_path, keys=pa.array([f"x{row}" for row in range(500)]), kind=IndexKind.IVF_SQ)
    assert len(list(tmp_path.glob("*.faiss"))) == 3


def test_the_record_tells_the_recall_that_it_has(tmp_path: Path) -> None:
    rows_nd = unit_rows(4000, spread=1.0)
    index = make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ)
    record = index.record
    assert (record.rows, record.width, record.lists) == (4000, 32, num_lists(4000))
    assert 0.96 <= record.recall <= 1
    assert record.probes < record.lists
    exact = make_index(rows_nd, tmp_path, kind=IndexKind.FLAT).search(rows_nd[::9], record.neighbours)
    found = index.search(rows_nd[::9], record.neighbours)
    assert recall_by_score(found.scores_qk, exact.scores_qk) == pytest.approx(record.recall, abs=0.02)


@pytest.mark.parametrize("kind", [IndexKind.IVF_SQ, IndexKind.IVF_PQ])
def test_the_size_of_a_file_is_foretold(tmp_path: Path, kind: IndexKind) -> None:
    record = make_index(unit_rows(6000, width=64), tmp_path, kind=kind).record
    codebook = 4 * 256 * 64 if kind is IndexKind.IVF_PQ else 0
    overhead = record.num_bytes - codebook - index_bytes(kind, 6000, 64)
    assert 0 <= overhead < 1000 + 16 * record.lists


def test_a_damaged_file_or_record_is_named_with_its_cure(tmp_path: Path) -> None:
    rows_nd = unit_rows(500)
    make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ)
    (path,) = tmp_path.glob("*.faiss")
    record = path.with_name(f"{path.name}.json")
    whole = record.read_bytes()
    record.write_text("{}")
    with pytest.raises(BuildError, match=r"no record of an index: .*delete it and run again"):
        make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ)
    record.write_bytes(whole)
    path.write_bytes(b"nothing")
    with pytest.raises(BuildError, match=r"cannot be read as an index; delete it and its \.json"):
        make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ)


def test_an_index_without_its_record_is_built_anew(tmp_path: Path) -> None:
    rows_nd = unit_rows(500)
    record = make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ).record
    (path,) = tmp_path.glob("*.faiss")
    path.with_name(f"{path.name}.json").unlink()
    path.write_bytes(b"cut short")
    found = make_index(rows_nd, tmp_path, kind=IndexKind.IVF_SQ).record
    assert msgspec.structs.replace(found, seconds=record.seconds) == record


def test_lists_are_kept_in_local_folders_alone() -> None:
    with pytest.raises(StorageError, match="expected a local folder"):
        open_index(unit_rows(100), make_keys(100), folder="memory://index", memory_bytes=MEMORY, kind=IndexKind.IVF_SQ)


def test_memory_mapped_rows_are_searched_where_they_lie(tmp_path: Path) -> None:
    rows_nd, queries_qd = unit_rows(700), unit_rows(5, seed=1)
    np.save(tmp_path / "rows.npy", rows_nd)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    found = make_index(mapped, tmp_path).search(queries_qd, 6)
    assert (found.rows_qk == make_index(rows_nd, tmp_path).search(queries_qd, 6).rows_qk).all()


def test_centroids_are_unit_rows_that_lie_nearer_than_those_they_started_from() -> None:
    sample_sd = unit_rows(800)
    learnt_ld = learn_centroids(sample_sd, 16, 1)
    lengths = np.linalg.norm(learnt_ld.astype(np.float64), axis=1)
    assert np.allclose(lengths, 1, atol=1e-3)

    def mean_score(centroids_ld: Rows) -> float:
        near = centroids_ld[nearest(centroids_ld, sample_sd, 1)].astype(np.float64)
        return float((near * sample_sd).sum(axis=1).mean())

    assert mean_score(learnt_ld) > mean_score(sample_sd[:16]) + 0.01


def test_rows_that_cancel_leave_their_centroid_where_it_was() -> None:
    row_d = unit_rows(1)
    sample_sd = np.concatenate([row_d, -row_d])
    assert (learn_centroids(sample_sd, 1, 1) == row_d).all()


def test_codes_divide_the_width() -> None:
    assert [num_codes(width) for width in (1, 7, 8, 32, 100, 384, 512)] == [1, 1, 1, 4, 10, 48, 64]


def test_recall_by_score_counts_what_scores_as_high_as_the_last_true_neighbour() -> None:
    exact_qk = np.array([[0.9, 0.8], [0.5, 0.5]])
    assert recall_by_score(np.array([[0.9, 0.7], [0.5, 0.5]]), exact_qk) == 0.75
    assert recall_by_score(np.empty((0, 2)), np.empty((0, 2))) == 1.0
