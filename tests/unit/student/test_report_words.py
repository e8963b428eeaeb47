"""What a report says is whole in both languages, and figures are written so that nobody misreads them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.sample import NegativeKind
from student.comparison import Why
from student.metric_kinds import Group
from student.report_words import LANGUAGES, Words, milliseconds, number
from tests.doors import ROOT

TEXTS = tomllib.loads(Path(ROOT / "student" / "report_words.toml").read_text(encoding="utf-8"))


def flat(texts: dict[str, str | dict[str, str]]) -> Iterator[tuple[str, str]]:
    for name, found in texts.items():
        if isinstance(found, dict):
            yield from ((f"{name}.{key}", text) for key, text in found.items())
        else:
            yield name, found


def test_both_languages_say_the_same_things_with_the_same_fields() -> None:
    said = {
        language: {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in flat(TEXTS[language])}
        for language in LANGUAGES
    }

    assert said["en"].keys() == said["ko"].keys()
    differing = {key for key, fields in said["en"].items() if fields != said["ko"][key]}
    assert differing <= {"say.no_change", "say.undefined", "metric.hallucination"}


def test_every_sentence_of_the_korean_report_is_korean() -> None:
    names = re.compile(r"^(metric|measure|group)\.|^points$")  # mIoU stays mIoU, and %p is Korean
    own = {key: re.sub(r"\{\w+\}", "", text) for key, text in flat(TEXTS["ko"]) if not names.match(key)}

    assert [key for key, text in own.items() if re.search("[A-Za-z]", text) and not re.search("[가-힣]", text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_group_kind_and_reason_has_its_words(language: str) -> None:
    texts = TEXTS[language]

    assert set(Group) <= texts["group"].keys()
    assert set(NegativeKind) <= texts["kind"].keys()
    assert set(Why) <= texts["why"].keys()


@pytest.mark.parametrize(
    ("key", "english", "korean"),
    [
        ("miou", "mIoU", "mIoU"),
        ("presence_f1_at_val", "Presence F1 (threshold from val)", "존재 F1 (val에서 정한 임계값)"),
        ("hallucination_near_text", "hallucination on phrases near in meaning", "환각률(뜻이 가까운 구문)"),
        ("pope_adversarial_yes_ratio", "POPE adversarial: yes ratio", "POPE 적대적: 긍정 응답 비율"),
        ("their_own_score", "their own score", "their own score"),
    ],
)
def test_a_metric_has_a_name_in_each_language(key: str, english: str, korean: str) -> None:
    assert (Words("en").metric(key), Words("ko").metric(key)) == (english, korean)


def test_a_small_change_is_told_in_per_cent_and_a_large_one_as_a_factor() -> None:
    english, korean = Words("en"), Words("ko")

    assert english.change("miou", 0.0898 / 0.0571, 0.0327) == "+57.3 %"
    assert english.change("miou", 0.0900 / 0.0571, 0.0329) == "+57.6 %"
    assert english.change("prompt_sensitivity", 0.1343 / 0.0015, 0.13) == "× 89.5"
    assert korean.change("prompt_sensitivity", 0.1343 / 0.0015, 0.13) == "89.5배"
    assert english.change("ece", 0.75, -0.01) == "−25.0 %"
    assert english.change("il_mcc", None, -0.2) == "−0.2000"
    assert english.change("hallucination_blank", None, -0.2) == "−20.0 pp"


@pytest.mark.parametrize(
    ("share", "bound", "said"),
    [(0.021, 0.02, "2.1 %"), (0.02004, 0.02, "2.004 %"), (0.02, 0.02, "2.0 %"), (0.0199999, 0.02, "1.99999 %")],
)
def test_a_share_beside_its_bound_has_the_decimals_that_tell_them_apart(share: float, bound: float, said: str) -> None:
    assert Words("en").apart(share, bound) == (said, "2 %")


def test_numbers_keep_four_decimals_or_four_digits_and_no_minus_before_zero() -> None:
    assert [number(value) for value in (0.0571, 0.0, -0.25, 123.456, 0.00012)] == [
        "0.0571",
        "0.0000",
        "−0.2500",
        "123.5",
        "0.00012",
    ]
    assert Words("en").percent(-0.0001) == "0.0 %"
    assert [milliseconds(ms) for ms in (356.2, 62.7, 0.1234)] == ["356 ms", "62.7 ms", "0.123 ms"]


def test_reasons_of_an_evaluation_are_told_in_the_report_s_language() -> None:
    korean = Words("ko")

    assert korean.reason("the predictions hold no masks") == "예측 표에 마스크가 없습니다"
    assert (
        korean.reason("no near_text prompt was asked")
        == "이 종류의 프롬프트를 하나도 묻지 않았습니다: 뜻이 가까운 구문"
    )
    without = "a table of predictions holds no mask probabilities, and there is no x.images.parquet beside it"
    assert korean.reason(without) == "예측 표에는 마스크 확률이 없고 그 옆에 x.images.parquet 파일도 없습니다"
    assert korean.reason("somebody's own reason") == "somebody's own reason"


def test_long_lists_are_cut_with_a_count() -> None:
    assert Words("en").listed(["a", "b", "c"]) == "a, b and c"
    assert Words("en").listed(list("abcdefg")) == "a, b, c, d and 3 more"
    assert Words("en").listed([]) == ""
