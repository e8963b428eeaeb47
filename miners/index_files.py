"""Index files: inverted lists beside a small record, under a digest of all that decides them, memory-mapped to search.

A flat index has no file: the stored rows are all of it.
"""

# N rows of the pool, L lists, D width

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

import msgspec
import pyarrow as pa

from manifests import files
from manifests.errors import BuildError
from miners.exact_search import Rows
from miners.inverted_lists import InvertedLists, centroids_of

_FORMAT = "1"  # in the digest: another way of building must not find old files


class IndexKind(StrEnum):
    """How the pool is searched."""

    FLAT = "flat"  # every row, exactly
    IVF_SQ = "ivf_sq"  # lists of float16 rows; exact where all lists are looked into
    IVF_PQ = "ivf_pq"  # lists of product codes, one byte for 8 dimensions


class IndexRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was built and what it came to, beside the index's file."""

    kind: IndexKind
    rows: int
    width: int
    lists: int  # nlist; 0 for flat
    probes: int  # nprobe: lists that a query looks into
    neighbours: int  # the k of recall@k
    recall: float  # by score, against exact, on rows of the pool
    seconds: float  # that the build took
    num_bytes: int  # of the file


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lists:
    """An opened file: what FAISS maps, and its centroids."""

    index: InvertedLists
    centroids_ld: Rows


def digest(rows_nd: Rows, keys: pa.Array, kind: IndexKind) -> str:
    """16 hex digits of all that decides the index: rows, keys and settings, not threads or memory."""
    found = hashlib.sha256(f"{_FORMAT} {kind} {rows_nd.shape}".encode())
    step = 1 << 14
    for start in range(0, len(rows_nd), step):
        found.update(rows_nd[start : start + step].tobytes())
        found.update("\n".join(keys[start : start + step].to_pylist()).encode())
    return found.hexdigest()[:16]


def record_path(path: str) -> str:
    """Where the record of the index at `path` stands."""
    return f"{path}.json"


def read_record(path: str) -> IndexRecord:
    """The record of the index at `path`.

    Raises:
        BuildError: it is damaged.
    """
    try:
        return msgspec.json.decode(files.read_bytes(record_path(path)), type=IndexRecord)
    except msgspec.DecodeError as error:
        raise BuildError(f"{record_path(path)}: no record of an index: {error}; delete it and run again") from error


def read_lists(path: str) -> Lists:
    """The index at `path`, memory-mapped.

    Raises:
        BuildError: it is damaged.
    """
    import faiss

    try:
        index = cast(InvertedLists, faiss.read_index(path, faiss.IO_FLAG_MMAP))
    except RuntimeError as error:
        raise BuildError(f"{path}: cannot be read as an index; delete it and its .json, and run again") from error
    return Lists(index=index, centroids_ld=centroids_of(index))


def write_index(index: InvertedLists, path: str) -> None:
    """Put the index at `path`, whole or not at all."""
    import faiss

    with _whole_file(path) as temporary:
        faiss.write_index(cast(faiss.Index, index), temporary)


@contextlib.contextmanager
def _whole_file(path: str) -> Iterator[str]:
    """A name to write to, which becomes `path` when the block ends and vanishes when it raises."""
    folder, name = os.path.split(path)
    temporary = files.join(folder, f"{files.TEMPORARY}{os.getpid()}-{name}")
    files.make_folder(folder)
    with files.storage_errors(path):
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            files.remove(temporary)
