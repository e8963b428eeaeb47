"""The words and number formats of a report in one language, out of `report_words.toml`."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files as package_files
from typing import Literal

import msgspec

from student.metric_kinds import AT_VAL, Group, metric_kind

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = ("en", "ko")
MOST_NAMES = 5  # in one sentence
_FIELD = re.compile(r"\{(\w+)\}")


@cache
def _texts() -> dict[str, dict[str, str | dict[str, str]]]:
    data = package_files("student").joinpath("report_words.toml").read_bytes()
    return msgspec.toml.decode(data, type=dict[str, dict[str, str | dict[str, str]]])


class Words:
    """A language: texts by section and key, and figures as it writes them."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._texts = _texts()[language]

    def section(self, name: str) -> dict[str, str]:
        """All texts of a section."""
        found = self._texts[name]
        return found if isinstance(found, dict) else {}

    def say(self, section: str, key: str, **fields: str) -> str:
        """A text with its fields filled in."""
        return self.section(section)[key].format(**fields)

    def plain(self, key: str, **fields: str) -> str:
        """A text that stands in no section."""
        return str(self._texts[key]).format(**fields)

    def metric(self, key: str, *, full: bool = True) -> str:
        """A metric's name; `full` where no heading names its group."""
        if key.endswith(AT_VAL):
            return self.say("metric", "at_val", metric=self.metric(key.removesuffix(AT_VAL), full=full))
        if key in self.section("metric"):
            return self.section("metric")[key]
        if key.startswith("hallucination_"):
            kind = self._kind(key.removeprefix("hallucination_"))
            return self.say("metric", "hallucination_full" if full else "hallucination", kind=kind)
        if key.startswith("pope_"):
            return self._pope(key.removeprefix("pope_"), full=full)
        return key.replace("_", " ")

    def _pope(self, key: str, *, full: bool) -> str:
        setting = next((kind for kind in self.section("kind") if key.startswith(f"{kind}_")), "")
        measure = key.removeprefix(f"{setting}_")
        name = self.section("measure").get(measure, measure.replace("_", " "))
        said = self.say("metric", "pope", setting=self._kind(setting), measure=name) if setting else name
        return f"POPE {said}" if full else said

    def _kind(self, kind: str) -> str:
        return self.section("kind").get(kind, kind.replace("_", " "))

    def reason(self, given: str) -> str:
        """A reason that an evaluation gives in English; as it stands where it is none of those known."""
        for pattern, text in self.section("given").items():
            if found := re.fullmatch(_FIELD.sub(r"(?P<\1>\\S+)", pattern), given):
                fields = found.groupdict()
                return text.format(**fields | ({"kind": self._kind(fields["kind"])} if "kind" in fields else {}))
        return given

    def value(self, key: str, value: float) -> str:
        """A metric's figure: rates in per cent, what else lies around 1 with four decimals."""
        if is_rate(key):
            return self.percent(value)
        return number(value)

    def goal(self, key: str, value: float) -> str:
        """A goal, as round as it was given."""
        return self.round_percent(value) if is_rate(key) else f"{value:g}"

    def difference(self, key: str, value: float) -> str:
        """A difference of two figures of a metric, with its sign."""
        sign = "−" if value < 0 else "+"
        if is_rate(key):
            return self.plain("points", number=f"{sign}{100 * abs(value):.1f}")
        return sign + number(abs(value))

    def differences(self, key: str, low: float, high: float) -> tuple[str, str]:
        """The ends of a difference's interval; the unit stands at the last."""
        last = self.difference(key, high)
        return (f"{'−' if low < 0 else '+'}{100 * abs(low):.1f}" if is_rate(key) else self.difference(key, low)), last

    def percent(self, share: float, decimals: int = 1) -> str:
        """A share in per cent, with a true minus."""
        return self.plain("percent", number=_signed(f"{100 * share:.{decimals}f}"))

    def round_percent(self, share: float) -> str:
        """A share that is a round number of per cent as such."""
        return self.plain("percent", number=f"{100 * share:.6g}")

    def apart(self, share: float, bound: float) -> tuple[str, str]:
        """A share and a bound in per cent, with as many decimals as it takes to tell one from the other."""
        said = self.round_percent(bound)
        for decimals in range(1, 16):
            text = self.percent(share, decimals)
            if share == bound or float(f"{100 * share:.{decimals}f}") != float(f"{100 * bound:.6g}"):
                return text, said
        return self.plain("percent", number=repr(100 * share)), self.plain("percent", number=repr(100 * bound))

    def times(self, ratio: float) -> str:
        """How many times as much."""
        return self.plain("times", number=f"{ratio:,.1f}" if ratio < 1e6 else f"{ratio:.3g}")

    def change(self, key: str, ratio: float | None, delta: float) -> str:
        """A change as it reads best: a factor from twice as much on, else per cent, else the difference."""
        if ratio is None:
            return self.difference(key, delta)
        if ratio >= 2:
            return self.times(ratio)
        sign = "−" if ratio < 1 else "+"
        return sign + self.percent(abs(ratio - 1))

    def interval(self, key: str, low: float | None, high: float | None) -> str:
        """An interval in words; "" where there is none."""
        if low is None or high is None:
            return ""
        return self.plain("interval", low=self.value(key, low), high=self.value(key, high))

    def listed(self, names: Sequence[str]) -> str:
        """Names as a list in a sentence, the last ones only counted where there are many."""
        if len(names) > MOST_NAMES:
            names = [*names[: MOST_NAMES - 1], self.say("say", "more", num=str(len(names) - MOST_NAMES + 1))]
        if len(names) < 2:
            return "".join(names)
        return ", ".join(names[:-1]) + self.plain("list_end") + names[-1]


def is_rate(key: str) -> bool:
    """Whether a metric is told in per cent."""
    return metric_kind(key).group in (Group.HALLUCINATION, Group.COST) or key.startswith("il_fpr")


def number(value: float) -> str:
    """A figure with four decimals, or four digits where it is large or tiny; with a true minus."""
    text = f"{value:.4f}" if value == 0 or 5e-4 <= abs(value) < 10 else f"{value:.4g}"
    return _signed(text)


def _signed(text: str) -> str:
    """A number with a true minus, and none before zero."""
    return text.replace("-", "−" if text.strip("-0.") else "")


def milliseconds(ms: float) -> str:
    """A latency with three digits or so."""
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.3g} ms"
