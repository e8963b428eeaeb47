"""The rows of many tables, sorted into one in memory that does not grow with them: runs are spilled, then merged."""

import bisect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from manifests import files
from manifests.tables import iterate_table, table_writer

RUN_BYTES = 256 << 20  # of rows that are sorted at once
_BLOCK_ROWS = 1024  # of a run; one block of each is held while they are merged


def write_sorted(
    uris: Sequence[str],
    out: str,
    schema: pa.Schema,
    order: Sequence[str],
    *,
    work: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the rows of all tables at `uris` as one table at `out`, by ascending `order`.

    Args:
        uris: Tables of `schema`, their rows in any order.
        out: Where the table appears once it is whole.
        schema: Of all of them.
        order: Columns of text or of numbers; no two rows are alike in all of them.
        work: Folder for spilled runs, `run-*.arrow`, which are deleted once `out` is there.
        metadata: Goes into the table's own.
    """
    spilled: list[str] = []
    gathered = _gather(uris, schema)
    held = next(gathered, schema.empty_table())
    for following in gathered:
        spilled.append(files.join(work, f"run-{len(spilled):05}.arrow"))
        _spill(_sorted_blocks(held, order), spilled[-1], schema)
        held = following
    with table_writer(out, schema, metadata) as writer:
        for rows in _merge([*map(_read_blocks, spilled), _sorted_blocks(held, order)], order):
            writer.add_table(rows)
    for uri in spilled:
        files.remove(uri)


def _gather(uris: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows, some `RUN_BYTES` of them at once."""
    pending: list[pa.Table] = []
    num_bytes = 0
    for uri in uris:
        for rows in iterate_table(uri, schema):
            pending.append(rows)
            num_bytes += rows.nbytes
            if num_bytes >= RUN_BYTES:
                yield pa.concat_tables(pending)
                pending, num_bytes = [], 0
    if pending:
        yield pa.concat_tables(pending)


def _sorted_blocks(rows: pa.Table, order: Sequence[str]) -> Iterator[pa.Table]:
    places = pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in order])
    for start in range(0, rows.num_rows, _BLOCK_ROWS):
        yield rows.take(places.slice(start, _BLOCK_ROWS))


def _spill(blocks: Iterator[pa.Table], uri: str, schema: pa.Schema) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with files.commit(uri) as file, pa.ipc.new_stream(file, schema, options=options) as writer:
        for block in blocks:
            writer.write_table(block)


def _read_blocks(uri: str) -> Iterator[pa.Table]:
    with files.open_input(uri) as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _merge(runs: Sequence[Iterator[pa.Table]], order: Sequence[str]) -> Iterator[pa.Table]:
    """All rows of sorted runs in order, as many at once as no later block can hold a row before."""
    unread = {at: block for at, run in enumerate(runs) if (block := next(run, None)) is not None}
    while unread:
        bound = min(_place(order, rows, rows.num_rows - 1) for rows in unread.values())
        taken = []
        for at, rows in list(unread.items()):
            count = bisect.bisect_right(range(rows.num_rows), bound, key=partial(_place, order, rows))
            taken.append(rows.slice(0, count))
            rest = rows.slice(count) if count < rows.num_rows else next(runs[at], None)
            if rest is None:
                del unread[at]
            else:
                unread[at] = rest
        yield from _sorted_blocks(pa.concat_tables(taken), order)


def _place(order: Sequence[str], rows: pa.Table, row: int) -> tuple[str | float, ...]:
    """Where a row stands; Python orders text as Arrow does, by code points."""
    return tuple(rows[name][row].as_py() for name in order)
