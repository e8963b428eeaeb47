from pathlib import Path

import msgspec
import pytest

from manifests.errors import ExportError
from student.export_record import (
    EXPORT_NAME,
    VARIANT_NAME,
    ExportRecord,
    is_export,
    read_export,
    read_variant,
    variant_folder,
    write_export,
    write_variant,
)
from student.exporting import remove_export
from tests.exports import fake_graphs, make_record


def write_two(folder: Path) -> Path:
    for name in ("fp32", "fp16"):
        write_variant(str(folder / name), make_record(name), fake_graphs())
    write_export(str(folder), ExportRecord(variants=["fp32", "fp16"], chosen="fp16"))
    return folder


def test_an_export_opens_as_its_chosen_variant_and_a_variant_as_itself(tmp_path: Path) -> None:
    out = write_two(tmp_path)
    assert is_export(str(out))
    assert is_export(str(out / "fp32"))
    assert variant_folder(str(out)) == str(out / "fp16")
    assert variant_folder(str(out / "fp32")) == str(out / "fp32")
    record, graphs = read_variant(str(out / "fp32"))
    assert (record.name, graphs) == ("fp32", fake_graphs())


def test_a_folder_that_is_no_export_is_refused_by_name(tmp_path: Path) -> None:
    assert not is_export(str(tmp_path))
    with pytest.raises(ExportError, match=r"has neither variant\.json nor export\.json; expected the folder of a fin"):
        variant_folder(str(tmp_path))


@pytest.mark.parametrize("name", ["image.onnx", VARIANT_NAME])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    out = write_two(tmp_path)
    (out / "fp32" / name).unlink()
    with pytest.raises(ExportError, match=rf"{name}: there is no such file; expected"):
        read_variant(str(out / "fp32"))


def test_a_graph_that_was_changed_or_cut_short_is_refused(tmp_path: Path) -> None:
    out = write_two(tmp_path)
    (out / "fp32" / "text.onnx").write_bytes(b"")
    with pytest.raises(
        ExportError, match=r"text\.onnx: expected sha256 .* found .*; it is cut short or changed\. Copy"
    ):
        read_variant(str(out / "fp32"))


def test_a_record_of_a_newer_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    write_export(str(tmp_path), ExportRecord(schema=2, variants=["fp32"], chosen="fp32"))
    with pytest.raises(ExportError, match=r"export\.json: schema 2 is newer than 1; upgrade absentia"):
        read_export(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": "1"}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / EXPORT_NAME).write_text(text)
    with pytest.raises(ExportError, match=r"export\.json: expected ExportRecord as JSON, found: .*; export again"):
        read_export(str(tmp_path))


def test_a_chosen_variant_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write_export(str(tmp_path), ExportRecord(variants=["fp32"], chosen="int3"))
    with pytest.raises(ExportError, match=r"chose 'int3'; expected one of its variants fp32\. Export again"):
        variant_folder(str(tmp_path))


def test_a_variant_that_is_being_written_again_is_none_until_it_is_whole(tmp_path: Path) -> None:
    out = write_two(tmp_path)
    with pytest.raises(KeyError):
        write_variant(str(out / "fp32"), make_record(), {"image": b"i"})
    assert not is_export(str(out / "fp32"))


def test_records_say_of_which_checkpoint_they_are(tmp_path: Path) -> None:
    written = write_variant(str(tmp_path / "fp32"), make_record(), fake_graphs())
    assert written.student_sha256 == "0" * 64
    assert set(written.sha256) == {"image", "text", "decoder"}
    assert msgspec.json.decode((tmp_path / "fp32" / VARIANT_NAME).read_bytes(), type=type(written)) == written


@pytest.mark.parametrize("chosen", ["../other", "/fp32", "a/b", "..", "", "c:fp32", "a\\b"])
def test_what_is_chosen_is_a_plain_name(tmp_path: Path, chosen: str) -> None:
    write_export(str(tmp_path), ExportRecord(variants=[chosen], chosen=chosen))

    with pytest.raises(ExportError, match=r"export\.json: chose .*; expected the plain name of a folder beside it"):
        variant_folder(str(tmp_path))


def test_an_earlier_export_is_removed_and_what_is_none_of_it_stays(tmp_path: Path) -> None:
    out = write_two(tmp_path)
    for name in ("quantisation.json", "latency.json", "fp16/latency.json"):
        (out / name).write_text("{}")
    (out / "work").mkdir()
    kept = [out / "work" / "answers.parquet", out / "notes.txt", out / "fp16" / "notes.txt"]
    for path in kept:
        path.write_text("")

    remove_export(str(out))
    remove_export(str(out / "absent"))

    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(kept)
