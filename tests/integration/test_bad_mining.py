"""What the mining commands cannot use: one `error:` line with place and cure, or a reject that is counted."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.manifest import read_manifest
from manifests.tables import EMBEDDINGS, NEGATIVES, PREDICTIONS, read_metadata, read_table, table_writer
from miners import embed, hard_negatives, phrases
from miners.encoders import Chosen
from tests.colours import Colours
from tests.factories import make_build, make_samples
from tests.worlds import REPOSITORY, error_line

LOOSE = ("--absolute-margin=-1000000000",)
COMMANDS = ["miners.embed", "miners.hard_negatives", "miners.phrases"]
Spoil = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build whose pictures were embedded once, below `work`."""
    folder = make_build(tmp_path_factory.mktemp("bad") / "build", make_samples({"train": 24, "val": 3}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hard_negatives, "choose", choose_colours)
        assert hard_negatives.main([str(folder), "--out", str(folder.parent / "n.parquet"), "--quiet", *LOOSE]) == 0
    return folder


def choose_colours(_settings: object, *, allow_pickle: str = "") -> Chosen:
    return Chosen(encoder=Colours(), why=f"a test asked for it {allow_pickle}")


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hard_negatives, "choose", choose_colours)


class Runner:
    """The command over a build, and what it said."""

    def __init__(self, build: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.build, self.folder, self.capsys = build, folder, capsys
        self.out = folder / "negatives.parquet"
        self.work = build / "work"

    def mine(self, *options: str) -> int:
        place = ["--out", str(self.out), "--work", str(self.work), "--quiet"]
        return hard_negatives.main([str(self.build), *place, *options])

    def refused(self, *options: str) -> str:
        """The one line of a run that is refused; nothing is left behind it."""
        assert self.mine(*options) == 1
        assert not self.out.exists()
        return error_line(self.capsys.readouterr().err)

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return str(self.folder / name)


@pytest.fixture
def run(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], colours: None) -> Runner:
    return Runner(build, tmp_path, capsys)


def test_a_table_says_of_which_inputs_it_is(build: Path) -> None:
    metadata = read_metadata(str(build.parent / "n.parquet"), NEGATIVES)
    assert metadata["inputs_sha256"] == read_manifest(str(build)).inputs_sha256


# embeddings


def rows_of(change: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float16]]], object]) -> Spoil:
    def spoil(table: pa.Table) -> pa.Table:
        rows = np.stack([np.asarray(row, np.float16) for row in table["row"].to_pylist()])
        changed = change(rows)
        found = rows if changed is None else changed
        column = pa.array([list(row) for row in np.asarray(found)], EMBEDDINGS.field("row").type)
        return table.set_column(table.schema.get_field_index("row"), "row", column)

    return spoil


def renamed(table: pa.Table) -> pa.Table:
    keys = pa.array(["stranger-1", *table["key"].to_pylist()[1:]])
    return table.set_column(table.schema.get_field_index("key"), "key", keys)


def of_another_encoder(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({**table.schema.metadata, b"absentia.encoder_digest": b"f" * 16})


@pytest.mark.parametrize("kind", ["images", "crops", "phrases"])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_another_encoder, "rows of the encoder colours (ffffffffffffffff), expected colours (c0105500c0105500)"),
        (rows_of(lambda rows: rows[:, :32]), "row 0 holds 32 numbers, expected the encoder's width of 64"),
        (rows_of(lambda rows: rows[0].fill(np.nan)), "holds numbers that are not finite; expected a unit vector"),
        (rows_of(lambda rows: rows[0].fill(0)), "holds only zeros; expected a unit vector"),
        (renamed, "rows are of keys that the catalog does not hold, 'stranger-1' first; expected embeddings of the"),
        (lambda table: table.slice(1), "rows are not those that were asked for; expected "),
        (lambda table: table.take(list(reversed(range(len(table))))), "rows are not those that were asked for"),
    ],
)
def test_embeddings_that_are_not_this_builds_are_refused(run: Runner, kind: str, spoil: Spoil, said: str) -> None:
    run.work = run.folder / "work"
    shutil.copytree(run.build / "work", run.work)
    path = max((run.work / "embeddings" / kind).glob("*.parquet"), key=lambda path: pq.read_metadata(path).num_rows)
    pq.write_table(spoil(pq.read_table(path)), path)
    line = run.refused(*LOOSE)
    assert line.startswith(f"error: {path}: ")
    assert said in line


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_embeddings_that_are_cut_short_are_refused(run: Runner, share: float) -> None:
    run.work = run.folder / "work"
    shutil.copytree(run.build / "work", run.work)
    path = min((run.work / "embeddings" / "images").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    line = run.refused(*LOOSE)
    assert line.startswith(f"error: {path}: ")
    assert "cannot be read as Parquet" in line


# the pool, its vocabulary and the settings


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "the vocabulary is empty; expected one phrase a line"),
        ("\n  \n", "the vocabulary is empty"),
        ("unicorn\nyeti\n", "no phrase may be asked; expected some that the build's labels know. Choose another"),
        ("cat\n" + "word " * 1000, "phrase_too_long"),
    ],
)
def test_a_vocabulary_that_asks_nothing_is_refused(run: Runner, lines: str, said: str) -> None:
    assert said in run.refused("--vocabulary", run.write("words.txt", lines), *LOOSE)


def test_repeated_blank_and_unknown_phrases_are_counted_and_passed_over(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = run.write("words.txt", "cat\n\nDog\ndog\nkite\nunicorn\n")
    assert run.mine("--vocabulary", words, *LOOSE) == 0
    assert f"vocabulary {words}: 1 repeated and 1 blank lines and 1 phrases that no label knows" in caplog.text
    assert set(read_table(str(run.out), NEGATIVES)["phrase"].to_pylist()) <= {"cat", "dog", "kite"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--split", "test", *LOOSE), "split test holds no picture of which anything is known; expected some"),
        (("--num-negatives", "26", *LOOSE), "num_negatives = 26, but the pool has only 25 pictures; expected at most"),
        (("--num-negatives", "5", "--split", "val", *LOOSE), "but the pool has only 4 pictures"),
        (("--num-negatives", "6", *LOOSE), "num_negatives = 6, but the pool has only 5 phrases"),
        (
            ("--relative-margin", "0.1", "--max-false-negative-rate", "0.1", *LOOSE),
            "gives max_false_negative_rate and relative_margin and absolute_margin; exactly one says how strict",
        ),
        (("--relative-margin", "0.1", *LOOSE), "gives relative_margin and absolute_margin; exactly one"),
        (
            ("--absolute-margin", "1e9"),
            "by the guard 'semantic' (besides: annotation 98, score 56); expected some to pass. To",
        ),
        (("--max-false-negative-rate", "0.00001"), "only 24 pictures have exhaustive labels; expected at least 100000"),
        (("--range-min", "25", *LOOSE), "none lies between range_min and range_max; expected some. Lower range_min"),
        (("--range-min", "3", "--range-max", "2", *LOOSE), "leave no rank; expected range_min below range_max"),
        (("--num-negatives", "2.5", *LOOSE), "$.num_negatives"),
        (("--max-score", "high", *LOOSE), "$.max_score"),
        (("--memory-gb", "nan", *LOOSE), "mine.memory_gb = nan; expected a finite number above 0"),
        (("--hidden-share", "1", *LOOSE), "mine.hidden_share = 1.0; expected a number between 0 and 1"),
        (("--lexicon", "nowhere.toml", *LOOSE), "nowhere.toml: cannot be read"),
        (("--predictions", "nowhere.parquet", *LOOSE), "nowhere.parquet: not found; expected the predictions table"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(run: Runner, options: Sequence[str], said: str) -> None:
    assert said in run.refused(*options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seed", "-1"), "--seed -1: expected 0 or more"),
        (("--seed", "one"), "invalid int value: 'one'"),
        (("--split", "dev"), "invalid choice: 'dev'"),
        (("--sampling-strategy", "best"), "invalid choice: 'best' (choose from 'top', 'random')"),
        (("--margin-space", "cosine"), "invalid choice: 'cosine'"),
        (("--negatives", "n.parquet"), "unrecognized arguments"),
    ],
)
def test_options_that_do_not_exist_are_told_with_the_usage(run: Runner, options: Sequence[str], said: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run.mine(*options)
    assert said in run.capsys.readouterr().err.splitlines()[-1]


def test_places_that_hold_no_build_or_take_no_table_are_refused(run: Runner) -> None:
    run.out = run.build / "manifest.json" / "negatives.parquet"
    assert str(run.build / "manifest.json") in run.refused(*LOOSE)
    run.build = run.folder / "nowhere"
    assert "expected a finished build. Build it" in run.refused(*LOOSE)


def test_words_for_masks_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tmp_path / "words.txt"
    for lines, said in (("", "the vocabulary is empty"), ("dog\n" + "word " * 1000, "phrase_too_long")):
        words.write_text(lines, encoding="utf-8")
        command = [str(tmp_path / "sa_*.tar"), "--vocabulary", str(words), "--out", str(tmp_path / "out"), "--quiet"]
        assert phrases.main(command) == 1
        line = error_line(capsys.readouterr().err)
        assert line.startswith(f"error: {words}: ")
        assert said in line
    assert phrases.main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"), "--max-masks", "0"]) == 1
    assert error_line(capsys.readouterr().err) == "error: --max-masks 0: expected 1 or more"


# what others say


def predictions(run: Runner, *rows: tuple[str, str, float]) -> str:
    uri = str(run.folder / "predictions.parquet")
    with table_writer(uri, PREDICTIONS) as writer:
        for key, phrase, presence in rows:
            writer.add(key, phrase, presence, {"size": [], "counts": ""})
    return uri


def decisions(run: Runner, *rows: tuple[str, str]) -> str:
    made = [{"key": key, "phrase": phrase, "decision": "absent", "by": "ann"} for key, phrase in rows]
    return run.write("decisions.json", json.dumps({"schema": 1, "decisions": made}))


@pytest.mark.parametrize("option", ["--predictions", "--verifier", "--decisions"])
def test_what_was_said_of_another_build_is_refused_before_anything_is_embedded(run: Runner, option: str) -> None:
    run.work = run.folder / "work"
    said = ("other-1", "cat")
    path = decisions(run, said) if option == "--decisions" else predictions(run, (*said, 0.9))
    line = run.refused(option, path, *LOOSE)
    assert line.startswith(f"error: {path}: none of its 1 rows belongs to this build")
    assert "'other-1', 'cat'; expected keys and phrases of the build" in line
    assert not list(run.work.rglob("embeddings/images/*"))


@pytest.mark.parametrize("option", ["--predictions", "--verifier", "--decisions"])
def test_rows_of_other_pictures_and_phrases_are_counted(
    run: Runner, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    known = "photos-train_00"
    unheard = [(known, "unicorn"), (known, " "), (known, "word " * 1000)]
    rows = [(known, "dog"), ("other-1", "cat"), ("other-2", "cat"), *unheard]
    path = decisions(run, *rows) if option == "--decisions" else predictions(run, *((*row, 0.2) for row in rows))
    assert run.mine(option, path, *LOOSE) == 0
    assert f"rows that are left out: 2 unknown_key, 3 unknown_phrase; the first: {path}: " in caplog.text


def test_false_alarms_of_another_split_are_refused(run: Runner) -> None:
    path = predictions(run, ("photos-train_00", "kite", 0.9), ("photos-val_00", "cat", 0.9))
    line = run.refused("--predictions", path, *LOOSE)
    assert "photos-val_00 stands in split val; expected pictures of train alone, 1 rows are not" in line
    assert "Predict with --split train" in line


# weights


@pytest.mark.parametrize("module", [embed, hard_negatives, phrases], ids=lambda module: module.__name__)
def test_weights_that_are_a_pickle_are_refused(
    module: ModuleType,
    build: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text("{}")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"\x80\x04.")
    command = [str(build), "--out", str(tmp_path / "out"), "--encoder", f"local-dir:{folder}", "--quiet"]
    if module is phrases:
        command[0] = str(tmp_path / "sa_*.tar")
    assert module.main(command) == 1
    line = error_line(capsys.readouterr().err)
    assert f"{folder / 'open_clip_pytorch_model.bin'} is no safetensors file, and a pickle can run code" in line
    assert "--allow-pickle" in line
    assert module.main([*command, "--allow-pickle", str(tmp_path / "another.bin")]) == 1
    assert "is no safetensors file" in capsys.readouterr().err


def test_a_pickle_that_is_allowed_by_name_is_what_the_encoder_is_asked_with(run: Runner) -> None:
    assert run.mine("--allow-pickle", "weights.bin", "--json", *LOOSE) == 0
    assert json.loads(run.capsys.readouterr().out)["encoder_why"] == "a test asked for it weights.bin"


# the commands themselves


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_whole_works_from_any_folder_and_loads_neither_torch_nor_faiss(module: str, tmp_path: Path) -> None:
    script = (
        "import contextlib, importlib, sys\n"
        f"command = importlib.import_module({module!r})\n"
        "with contextlib.suppress(SystemExit): command.main(['--help'])\n"
        "print(sorted({'torch', 'faiss', 'open_clip', 'transformers', 'webdataset'} & set(sys.modules)))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True, timeout=240
    )
    assert found.stdout.splitlines()[-1] == "[]"
    options = found.stdout.partition("options:\n")[2]
    assert found.stdout.startswith(f"usage: python -m {module} ")
    for option in ("--out", "--encoder", "--templates", "--lexicon", "--allow-pickle", "--json", "--quiet"):
        assert f"  {option}" in options
    assert found.stderr == ""


def test_help_explains_every_option() -> None:
    for module in (embed, hard_negatives, phrases):
        for action in module._parser()._actions:
            assert action.help not in (None, "", argparse.SUPPRESS), action.option_strings
