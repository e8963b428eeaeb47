"""What users and other programs rely on, each in one golden file: names, options, recipe keys, file formats."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import ModuleType

import msgspec
import pyarrow as pa
import pytest

from flows import loop_record
from manifests import errors, manifest, recipe, sample, tables
from manifests.manifest import read_manifest
from shards.reader import open_pass
from student import config, export_record, history, readings, run_record
from tests.doors import GOLDEN, ROOT, UPDATE, compare
from tests.factories import make_build, make_samples

COMMANDS = (
    "flows.build_shards",
    "flows.close_the_loop",
    "flows.serve",
    "miners.embed",
    "miners.hard_negatives",
    "miners.phrases",
    "shards.catalog",
    "shards.show",
    "shards.verify",
    "student.evaluate",
    "student.export",
    "student.latency",
    "student.predict",
    "student.report",
    "student.train",
)
PUBLIC = (
    "manifests/errors.py",
    "manifests/manifest.py",
    "manifests/recipe.py",
    "manifests/sample.py",
    "manifests/tables.py",
    "shards/batch.py",
    "shards/reader.py",
    "shards/show.py",
    "shards/verify.py",
    "miners/encoders.py",
    "miners/record.py",
    "student/config.py",
    "student/model.py",
    "student/predictor.py",
    "student/readings.py",
    "flows/build_shards.py",
)
BUILD_1 = GOLDEN / "build-1"


def public_names(path: str) -> Iterator[str]:
    """What a module defines without a leading underscore: parameters of functions, fields and methods of classes."""
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) if not name.startswith("_"):
                yield name
            case ast.ClassDef(name=name) if not name.startswith("_"):
                yield f"class {name}({', '.join(map(ast.unparse, node.bases))})"
                yield from (f"{name}.{member}" for member in map(signature, node.body) if member)
            case ast.FunctionDef(name=name) if signature(node):
                yield signature(node)


def signature(node: ast.stmt) -> str:
    """A function, or a field of a class, as it is written; "" if it is private or anything else."""
    match node:
        case ast.FunctionDef(name=name) if not name.startswith("_"):
            return f"{name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else ''}"
        case ast.AnnAssign(target=ast.Name(id=name)) if not name.startswith("_"):
            return ast.unparse(node)
        case _:
            return ""


def test_public_names_and_their_parameters_are_as_promised() -> None:
    lines = [f"{path.removesuffix('.py').replace('/', '.')}: {name}" for path in PUBLIC for name in public_names(path)]

    compare(GOLDEN / "public_names.txt", "\n".join(lines) + "\n")


def options(module: str, folder: Path) -> list[str]:
    """The arguments in a command's help, without the explanations."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.findall(r"^  (\S(?:\S| (?! ))*)", result.stdout[result.stdout.index("\n\n") :], re.MULTILINE)
    return [f"python -m {module}: {argument}" for argument in found]


def test_every_command_takes_the_options_that_it_promised(tmp_path: Path) -> None:
    lines = [line for module in COMMANDS for line in options(module, tmp_path)]

    compare(GOLDEN / "commands.txt", "\n".join(lines) + "\n")


def structs(module: ModuleType) -> Iterator[tuple[str, type[msgspec.Struct], dict[str, str]]]:
    """The structs that a module defines, each with its annotations as they are written."""
    for node in ast.parse(inspect.getsource(module)).body:
        found = getattr(module, node.name) if isinstance(node, ast.ClassDef) else None
        if isinstance(node, ast.ClassDef) and inspect.isclass(found) and issubclass(found, msgspec.Struct):
            fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
            yield node.name, found, {ast.unparse(field.target): ast.unparse(field.annotation) for field in fields}


def struct_lines(module: ModuleType) -> Iterator[str]:
    for name, struct, annotations in structs(module):
        tag = struct.__struct_config__.tag
        for field in msgspec.structs.fields(struct):
            if not name.startswith("_"):
                place = f"{name}[{tag}].{field.encode_name}" if tag else f"{name}.{field.encode_name}"
                yield f"{place}: {annotations[field.name]}{default(field)}"


def default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f" = {json.dumps(msgspec.to_builtins(field.default_factory()))}"
    if field.required:
        return ""
    value = field.default
    return f" = {type(value).__name__}()" if isinstance(value, msgspec.Struct) else f" = {json.dumps(value)}"


def test_recipe_keys_and_their_defaults_are_as_promised() -> None:
    compare(GOLDEN / "recipe.txt", "\n".join(struct_lines(recipe)) + "\n")


def test_training_keys_and_their_defaults_are_as_promised() -> None:
    compare(GOLDEN / "training.txt", "\n".join(struct_lines(config)) + "\n")


def test_every_file_format_is_as_promised() -> None:
    schemas = {name: found for name, found in vars(tables).items() if isinstance(found, pa.Schema)}
    columns = [f"{name.lower()}.{column.name}: {column.type}" for name, schema in schemas.items() for column in schema]
    enumerations: list[type[StrEnum]] = [
        sample.NegativeKind,
        sample.Evidence,
        sample.MaskState,
        errors.Reason,
        errors.Repair,
    ]
    values = [f"{kind.__name__}: {' '.join(kind)}" for kind in enumerations]

    modules = (sample, manifest, readings, run_record, history, export_record, loop_record)
    records = [line for module in modules for line in struct_lines(module)]
    lines = [*columns, *records, *values]
    compare(GOLDEN / "formats.txt", "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def build_1() -> str:
    """A build of schema 1 as it was written once; never written again while the schema is 1."""
    if UPDATE and not BUILD_1.exists():
        make_build(BUILD_1, make_samples({"train": 1, "val": 1, "test": 1}), shard_samples=4)
    return str(BUILD_1)


def test_a_build_of_schema_1_is_readable_for_ever(build_1: str) -> None:
    found = read_manifest(build_1)

    assert (found.schema, found.name) == (1, "tiny")
    assert {split: sum(shard.nsamples for shard in shards) for split, shards in found.splits.items()} == {
        "train": 4,
        "val": 3,
        "test": 3,
    }


def test_the_samples_of_a_build_of_schema_1_are_read_as_they_were_written(build_1: str) -> None:
    (batch,) = open_pass(build_1, batch_size=4, split="train", size=64)

    assert batch.keys == ["photos-train_00", "photos-train_00-r1", "tars-sa_2", "blank-3-00e68890"]
    assert batch.phrases[0] == ["cat", "dog", "kite", "red car"]
    assert batch.present[0].tolist() == [True, True, False, False]
    assert batch.masks[0].flatten(1).any(1).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "num_rows"), [("samples", 25), ("images", 9), ("labels", 12), ("vocabularies", 4), ("rejects", 1)]
)
def test_the_tables_of_a_build_of_schema_1_are_read(build_1: str, name: str, num_rows: int) -> None:
    table = tables.read_table(f"{build_1}/{name}.parquet", getattr(tables, name.upper()))

    assert table.num_rows == num_rows
