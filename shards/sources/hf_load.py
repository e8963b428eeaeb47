"""A Hugging Face data set opened without decoding a picture, running foreign code or telling anybody.

`datasets` is slow to import and is therefore imported here, when a source asks for it. What it raises on data that it
cannot read becomes one sentence; what it would unpickle is refused.
"""

import difflib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from manifests import files
from manifests.errors import RecipeError, SourceError
from manifests.recipe import HfColumns, HfSource, Recipe

_REFUSED = ("pandas", "sql")  # the one unpickles, the other runs queries

# What `datasets` and the readers below it raise on files that are not what they claim to be.
_LOAD_ERRORS = (OSError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, EOFError, pa.ArrowException)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """One opened data set."""

    where: str  # for messages
    rows: Any  # datasets.Dataset or IterableDataset; yields dicts
    columns: tuple[str, ...]
    features: Mapping[str, Any] | None  # None where the data set does not know them
    data_files: tuple[str, ...]
    digest_input: bytes  # what changes when a data file does


def open_data_set(name: str, table: HfSource, recipe: Recipe, *, cache_folder: str) -> DataSet:
    """The data set that `table` describes, its columns checked.

    Raises:
        RecipeError: a column that the recipe names does not exist.
        SourceError: the data set cannot be opened.
    """
    import datasets

    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it has to say stands in our one line
    where = f"sources.{name}: {table.path} (rows {table.rows})"
    asked = _arguments(table, recipe)
    try:
        with warnings.catch_warnings(action="ignore"):
            builder = datasets.load_dataset_builder(**asked, cache_dir=cache_folder)
            _require_plain(type(builder).__module__, where)
            rows = datasets.load_dataset(**asked, split=table.rows, streaming=table.streaming, cache_dir=cache_folder)
    except (*_LOAD_ERRORS, datasets.exceptions.DatasetsError) as error:
        raise SourceError(
            f"{where}: cannot be opened: {_one_line(error)}; expected what datasets.load_dataset opens. Check path, "
            "data_files, subset and rows"
        ) from error
    columns = tuple(rows.column_names or _first_row(rows, where))
    _require_columns(f"sources.{name}.columns", table.columns, columns, where)
    features = rows.features
    for column, feature in (features or {}).items():
        if (plain := _undecoded(feature)) != feature:
            rows = rows.cast_column(column, plain)
    data_files = builder.config.data_files or {}
    return DataSet(
        where=where,
        rows=rows,
        columns=columns,
        features=features,
        data_files=tuple(str(uri) for uris in data_files.values() for uri in uris),
        digest_input=msgspec.json.encode(
            [
                msgspec.structs.replace(table, path="", data_files=[]),
                builder.dataset_name,
                {str(split): [list(uris), uris.origin_metadata] for split, uris in data_files.items()},
            ]
        ),
    )


def iterate(data_set: DataSet) -> Iterator[tuple[int, dict[str, object]]]:
    """The rows with their numbers.

    Raises:
        SourceError: a row cannot be read.
    """
    import datasets

    rows = iter(data_set.rows)
    number = 0
    while True:
        try:
            with warnings.catch_warnings(action="ignore"):
                row = next(rows)
        except StopIteration:
            return
        except (*_LOAD_ERRORS, datasets.exceptions.DatasetsError) as error:
            raise SourceError(
                f"{data_set.where}: row {number} cannot be read: {_one_line(error)}; mend or fetch its file again"
            ) from error
        yield number, row
        number += 1


def feature_at(features: Mapping[str, Any] | None, column: str) -> Any:  # noqa: ANN401 (a feature of `datasets`)
    """The feature of `column`, lists taken off; None where it is not known."""
    if features is None:
        return None
    feature: Any = features
    for step in [column] if column in features else column.split("."):
        feature = _without_lists(feature)
        feature = feature.get(step) if isinstance(feature, Mapping) else None
    return _without_lists(feature)


def class_names(feature: Any) -> tuple[str, ...]:  # noqa: ANN401 (a feature of `datasets`)
    """The names of a ClassLabel; none of anything else."""
    return tuple(getattr(feature, "names", None) or ())


def _arguments(table: HfSource, recipe: Recipe) -> dict[str, object]:
    """What `load_dataset` is asked: paths as the recipe's folder sees them."""
    patterns = [table.data_files] if isinstance(table.data_files, str) else table.data_files
    resolved = [_all_below(recipe.resolve(pattern)) for pattern in patterns]
    folder = recipe.resolve(table.path)
    is_folder = files.is_local(folder) and os.path.isdir(folder)
    return {
        "path": folder if is_folder else table.path,
        "name": table.subset or None,
        "data_files": {table.rows: resolved} if resolved else None,
    }


def _all_below(uri: str) -> str:
    return files.join(uri, "**") if files.is_local(uri) and os.path.isdir(uri) else uri


def _require_plain(module: str, where: str) -> None:
    found = module.split(".")
    for refused in _REFUSED:
        if refused in found:
            raise SourceError(
                f"{where}: is read by the {refused!r} builder, which may run code; expected parquet, arrow, "
                "imagefolder or webdataset. Convert it"
            )


def _one_line(error: BaseException) -> str:
    """What was wrong in the first place: `datasets` wraps it in sentences that say nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _first_row(rows: Any, where: str) -> list[str]:  # noqa: ANN401 (a data set)
    for row in rows:
        return list(row)
    raise SourceError(f"{where}: holds no row; expected at least one picture")


def _require_columns(place: str, columns: HfColumns, found: tuple[str, ...], where: str) -> None:
    """Stop if a column that the recipe names is not there; `json.phrases` names a field of the column `json`."""
    for field in ("image", "id", "phrases", "masks", "absent", "objects"):
        asked = getattr(columns, field)
        if asked and asked not in found and asked.split(".")[0] not in found:
            near = difflib.get_close_matches(asked, found, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise RecipeError(
                f"{place}.{field} = {asked!r}: {where} has no such column; {hint}It has: {', '.join(found)}"
            )


def _undecoded(feature: Any) -> Any:  # noqa: ANN401 (a feature of `datasets`)
    """`feature` with every picture left as its bytes."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List | datasets.LargeList):
        return type(feature)(_undecoded(feature.feature))
    if isinstance(feature, Mapping):
        return {name: _undecoded(below) for name, below in feature.items()}
    return feature


def _without_lists(feature: Any) -> Any:  # noqa: ANN401 (a feature of `datasets`)
    import datasets

    while isinstance(feature, datasets.List | datasets.LargeList):
        feature = feature.feature
    return feature
