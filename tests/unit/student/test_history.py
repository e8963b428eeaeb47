from pathlib import Path

import pytest

from manifests.errors import CheckpointError, StorageError
from student.curves import curves_of, draw_curves
from student.history import History, LossLine, ValLine, read_history
from student.validation import Validation


def line(step: int, **losses: float) -> LossLine:
    return LossLine(phase=2, epoch=0, step=step, position=8 * step, losses=losses, learning_rate=0.1, samples_s=100.0)


def seen(miou: float | None) -> Validation:
    return Validation(presence_loss=0.5, il_mcc=None, miou=miou, num_present=3, num_absent=0, num_masked=3)


def write(folder: Path, *, step: int = 0) -> None:
    history = History(str(folder), step=step)
    history.add_losses(line(step + 1, presence=0.5))
    history.add_losses(line(step + 2, presence=0.25))
    history.add_validation(2, 0, step + 2, seen(0.125))
    history.close()


def test_lines_come_back_as_they_were_logged(tmp_path: Path) -> None:
    write(tmp_path)
    val = {"presence_loss": 0.5, "il_mcc": None, "miou": 0.125, "num_present": 3, "num_absent": 0, "num_masked": 3}
    val |= {"mask_threshold": 0.5, "miou_there": None, "ciou_there": None}
    assert read_history(str(tmp_path)) == [
        line(1, presence=0.5),
        line(2, presence=0.25),
        ValLine(phase=2, epoch=0, step=2, val=val),
    ]


def test_a_resumed_history_drops_what_will_be_done_again_and_what_was_cut(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "history.jsonl").open("ab") as file:
        file.write(b'{"phase":2,"epo')
    write(tmp_path, step=1)
    assert [found.step for found in read_history(str(tmp_path))] == [1, 2, 3, 3]


def test_a_line_that_is_none_of_ours_names_its_place(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"what\n" + path.read_bytes())
    with pytest.raises(CheckpointError, match=r"history\.jsonl:1: expected a line of a training run"):
        read_history(str(tmp_path))


def test_curves_hold_every_loss_and_only_figures_that_are_defined(tmp_path: Path) -> None:
    write(tmp_path)
    assert curves_of(read_history(str(tmp_path))) == (
        {"presence": [(1, 0.5), (2, 0.25)]},
        {"miou": [(2, 0.125)], "presence_loss": [(2, 0.5)]},
    )
    draw_curves(str(tmp_path))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    empty = tmp_path / "empty"
    draw_curves(str(empty))
    assert (empty / "curves.png").exists()


def test_a_disk_that_fills_up_while_a_line_is_logged_is_said_with_its_cure(tmp_path: Path) -> None:
    history = History(str(tmp_path), step=0)
    history._file.close()
    history._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the history closes it
    with pytest.raises(StorageError, match=r"history\.jsonl: cannot be written: the disk is full; free some space"):
        history.add_losses(line(1, presence=0.5))
    history.close()
