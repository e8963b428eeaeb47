from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from manifests import tables
from student.teacher import Teacher, read_teacher
from student.teacher_check import LEAST_AUC, match_auc
from student.train import main
from tests.factories import make_build
from tests.students import coloured_boxes, tiny_config, write_config


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_build(
        tmp_path_factory.mktemp("boxes") / "build", [*coloured_boxes("train", 8), *coloured_boxes("val", 2)]
    )


def written(build: Path, path: Path, *, knows: bool) -> Path:
    """A table in which each phrase has an axis of its own, and pictures lie on that of what they show, or not."""
    samples = pq.read_table(build / "samples.parquet", columns=["image_key", "phrase", "present"])
    phrases = sorted(set(samples["phrase"].to_pylist()))
    axes = dict(zip(phrases, np.eye(len(phrases), dtype=np.float16), strict=True))
    shown = samples.filter(pc.field("present")).to_pydict()
    with tables.table_writer(str(path), tables.EMBEDDINGS) as writer:
        for key, phrase in zip(shown["image_key"], shown["phrase"], strict=True):
            writer.add(key, "", [], axes[phrase] if knows else axes[phrases[0]])
        for phrase, row in axes.items():
            writer.add("", phrase, [], row)
    return path


def test_a_teacher_that_knows_what_pictures_show_is_told_from_one_that_does_not(build: Path, tmp_path: Path) -> None:
    knowing = read_teacher([str(written(build, tmp_path / "a.parquet", knows=True))])
    found = match_auc(knowing, [str(build)])
    assert found is not None
    assert found > 0.7
    assert match_auc(read_teacher([str(written(build, tmp_path / "b.parquet", knows=False))]), [str(build)]) == 0.5
    nobodys = Teacher(parts=knowing.parts, row_of={}, rows_vd=knowing.rows_vd, mean=0, deviation=1)
    assert match_auc(nobodys, [str(build)]) is None


def test_a_teacher_of_noise_is_warned_of(build: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = write_config(tmp_path, tiny_config())
    argv = [str(build), "--config", config, "--phases", "1,2", "--epochs", "1,1", "--workers", "0", "--quiet"]
    for name, knows in (("a", True), ("b", False)):
        teacher = written(build, tmp_path / f"{name}.parquet", knows=knows)
        with caplog.at_level("INFO"):
            assert main([*argv, "--teacher", str(teacher), "--out", str(tmp_path / name)]) == 0
    told = [record for record in caplog.records if "the teacher's rows tell" in record.message]
    assert [record.levelname for record in told] == ["INFO", "WARNING"]
    assert f"AUC of 0.50; expected {LEAST_AUC} or more" in told[1].message
    assert "set losses.align_match = 0" in told[1].message
