"""The report's command: what the story says by itself, in two languages, and what it answers to mistakes."""

import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from student.readings import Latency, Reading
from student.report import main
from tests.doors import ROOT
from tests.runs import (
    NOTED,
    STORY,
    make_evaluation,
    make_history,
    make_quantisation,
    make_reading,
    make_run,
    write_failures_of,
)

SAID = (
    "mIoU **+57.3 %** beside baseline: 0.0571 → 0.0898",
    "Prompt Sensitivity **× 89.5** beside baseline",
    "**59.0 % of the teacher**",
    "The goal of 0.12 for mIoU is **78.8 % of the teacher** (0.1522), and not 80 %.",
    "Quantisation drop 2.1 % against FP16: **over** the bound of 2 %.",
    "The latencies 62.7 ms and 356 ms (baseline) are **not comparable**: of neither did anybody note device, threads",
    "Presence F1 is **undefined**: no absent prompt was evaluated.",
    "Whether it knows what is not there **cannot be said**: no absent prompt was evaluated.",
)
SAID_IN_KOREAN = (
    "mIoU **+57.3%** (기준 모델 baseline 대비): 0.0571 → 0.0898",
    "프롬프트 민감도 **89.5배**",
    "**교사 모델의 59.0%**",
    "mIoU 목표 0.12: 80%가 아니라 **교사 모델의 78.8%**",
    "FP16 대비 양자화 하락 2.1%: 한도 2% **초과**입니다.",
    "지연 시간 62.7 ms 및 356 ms(baseline)는 **비교할 수 없습니다**",
    "존재 F1: **정의되지 않음**. 부재 프롬프트를 하나도 평가하지 않았습니다.",
)


def plain_of(page: str) -> str:
    """A page's text without its tags."""
    body = page.partition("<body>")[2]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", body)).replace("\u00a0", " ").split())


@pytest.mark.parametrize(("language", "expected"), [("en", SAID), ("ko", SAID_IN_KOREAN)])
def test_the_story_is_told_from_its_figures_alone(tmp_path: Path, language: str, expected: tuple[str, ...]) -> None:
    assert main([str(STORY), "--lang", language, "--out", str(tmp_path)]) == 0

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    page = plain_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    for sentence in expected:
        assert sentence in markdown
        assert sentence.replace("**", "") in page


def test_another_figure_makes_another_sentence(tmp_path: Path) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(STORY.read_text(encoding="utf-8").replace("0.0898", "0.0900").replace("0.021", "0.019"))

    main([str(changed), "--out", str(tmp_path)])

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "mIoU **+57.6 %**" in markdown
    assert "**within** the bound" in markdown
    assert "57.3" not in markdown


def test_runs_of_training_are_compared_with_all_that_lies_in_them(tmp_path: Path) -> None:
    figures = {
        "miou": make_reading(0.4),
        "il_mcc": make_reading(0.6),
        "saco_cgf1": Reading(undefined="the predictions hold no masks"),
    }
    run = make_run(
        tmp_path / "lite & co",
        make_evaluation(figures, notes=["a <note>"]),
        latency=Latency(ms=12.0, conditions=NOTED),
        quantisation=make_quantisation(),
        history=make_history(),
    )
    write_failures_of(run / "evaluation" / "failures.html", ["<i>cat</i>", "dog"])
    base = make_run(
        tmp_path / "base", make_evaluation({"miou": make_reading(0.3)}), latency=Latency(ms=24.0, conditions=NOTED)
    )

    assert (
        main(
            [
                str(run),
                "--baseline",
                str(base),
                "--teacher",
                str(STORY),
                "--goal",
                "miou=0.5",
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )

    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 2
    assert "&lt;i&gt;cat&lt;/i&gt;" in page
    assert 'href="../lite &amp; co/evaluation/failures.html"' in page
    assert "<note>" not in page + markdown
    assert page.count('class="curve"') == 4 + 2  # losses and val of one run, reliability of two
    assert "× 2.0 as fast as base" in markdown
    assert "int8-int4" in markdown
    assert "**over** 2 %" in markdown
    assert "undefined: the predictions hold no masks" in markdown


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        main([str(STORY), "--out", str(tmp_path / name)])

    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()
    assert (tmp_path / "a/report.md").read_bytes() == (tmp_path / "b/report.md").read_bytes()


def test_verdicts_are_printed_as_json(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    main([str(STORY), "--json", "--out", str(tmp_path)])

    report = json.loads(capfdbinary.readouterr().out)
    verdicts = {verdict["type"]: verdict for verdict in report["verdicts"]}
    assert verdicts["Quantised"] | {"is_within": False, "drop": 0.021} == verdicts["Quantised"]
    assert report["runs"] == ["baseline", "student", "teacher"]
    assert len(report["said"]) == len(report["verdicts"])


def test_a_mistake_is_one_line_and_leaves_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tmp_path / "gone"), "--out", str(tmp_path / "out")]

    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("goal", ["miou", "miou=", "=0.1", "miou=nan", "miou=inf", "miou=high"])
def test_a_goal_that_is_none_is_refused(tmp_path: Path, goal: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(STORY), "--goal", goal, "--out", str(tmp_path)])

    assert stopped.value.code == 2
    assert "expected METRIC=NUMBER, such as miou=0.12" in capsys.readouterr().err


def test_help_needs_no_torch_and_answers_at_once() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "student.report", "--help"]
    started = time.perf_counter()
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)

    assert time.perf_counter() - started < 5  # 0.2 s on a quiet machine
    assert "--baseline" in found.stdout
    assert not {"torch", "numpy", "pyarrow", "PIL"} & {
        line.rpartition("|")[2].strip() for line in found.stderr.splitlines()
    }
