"""Verdicts in words: each typed verdict becomes one sentence of a language, with the tone that it is said in."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from student.comparison import Comparison, How, Why
from student.metric_kinds import AT_VAL
from student.report_words import Words, milliseconds
from student.verdict_types import (
    BesideBlind,
    BesideEverything,
    Changed,
    Condition,
    GoalMet,
    GoalShare,
    KnowsAbsence,
    Latencies,
    Quantised,
    Started,
    TeacherShare,
    TradeOff,
    Undefined,
    Verdict,
    WorstKind,
)


class Tone(StrEnum):
    """How a sentence is meant."""

    GOOD = "good"
    BAD = "bad"
    CARE = "care"  # undefined, unclear, not comparable
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A verdict in words; `**` marks what is emphasised."""

    run: str
    tone: Tone
    text: str


def say_all(verdicts: Sequence[Verdict], comparison: Comparison, words: Words) -> list[Said]:
    """The sentences of all verdicts, in their order."""
    baseline = "" if comparison.baseline is None else comparison.subjects[comparison.baseline].name
    return [say(verdict, baseline, words) for verdict in verdicts]


def say(verdict: Verdict, baseline: str, words: Words) -> Said:  # noqa: C901, PLR0912 - a case per verdict
    """One verdict in words."""
    match verdict:
        case Started():
            tone, text = _started(verdict, words)
        case KnowsAbsence():
            tone, text = _knows_absence(verdict, words)
        case BesideBlind():
            tone, text = _beside_blind(verdict, words)
        case WorstKind():
            tone, text = _worst_kind(verdict, words)
        case BesideEverything():
            tone, text = _beside_everything(verdict, words)
        case Changed():
            tone, text = _changed(verdict, baseline, words)
        case TradeOff():
            tone, text = _trade_off(verdict, baseline, words)
        case TeacherShare():
            tone, text = _teacher_share(verdict, words)
        case GoalShare():
            tone, text = _goal_share(verdict, words)
        case GoalMet():
            tone, text = _goal_met(verdict, words)
        case Quantised():
            tone, text = _quantised(verdict, words)
        case Latencies():
            tone, text = _latencies(verdict, words)
        case Undefined():
            tone, text = _undefined(verdict, words)
    return Said(run=verdict.run, tone=tone, text=text)


def why_text(why: Why | None, said: str, words: Words) -> str:
    """Why a figure is undefined: in the report's language, or as it was given where nobody knows the reason."""
    return words.reason(said) if why is None else words.say("why", why)


def _started(found: Started, words: Words) -> tuple[Tone, str]:
    fields = {"start": words.say("start", found.start or "unknown")}
    if found.baseline_start is None:
        text = words.say("say", "started", **fields)
    else:
        other = words.say("start", found.baseline_start or "unknown")
        text = words.say("say", "started_beside", **fields, baseline_start=other[:1].lower() + other[1:])
    if found.one_class:
        return Tone.BAD, f"{text} {words.say('say', 'one_class')}"
    return Tone.PLAIN, text


def _in_brackets(key: str, low: float | None, high: float | None, words: Words) -> str:
    found = words.interval(key, low, high)
    return f" ({found})" if found else ""


def _knows_absence(found: KnowsAbsence, words: Words) -> tuple[Tone, str]:
    if found.value is None:
        return Tone.CARE, words.say("say", "knows_unknown", why=why_text(found.why, found.said, words))
    if found.knows is None:
        value = words.value(found.metric, found.value)
        return Tone.CARE, words.say("say", "knows_perhaps", metric=words.metric(found.metric), value=value)
    return (Tone.GOOD if found.knows else Tone.BAD), words.say(
        "say",
        "knows" if found.knows else "knows_not",
        metric=words.metric(found.metric),
        value=words.value(found.metric, found.value),
        interval=_in_brackets(found.metric, found.low, found.high, words),
    )


def _beside_blind(found: BesideBlind, words: Words) -> tuple[Tone, str]:
    is_above = found.value > found.blind_value
    tone = Tone.GOOD if found.has_interval else Tone.CARE
    return (tone if is_above else Tone.BAD), words.say(
        "say",
        "beside_blind_above" if is_above else "beside_blind_below",
        blind=words.metric(found.blind),
        value=words.value(found.blind, found.value),
        blind_value=words.value(found.blind, found.blind_value),
        certainty="" if found.has_interval else words.say("say", "no_interval"),
    )


def _worst_kind(found: WorstKind, words: Words) -> tuple[Tone, str]:
    threshold = words.say("say", "at_val") if found.metric.endswith(AT_VAL) else ""
    if not found.value:
        return Tone.GOOD, words.say("say", "no_alarm", threshold=threshold)
    return Tone.PLAIN, words.say(
        "say",
        "worst_kind",
        metric=words.metric(found.metric.removesuffix(AT_VAL), full=False),
        value=words.value(found.metric, found.value),
        interval=_in_brackets(found.metric, found.low, found.high, words),
        threshold=threshold,
    )


def _beside_everything(found: BesideEverything, words: Words) -> tuple[Tone, str]:
    is_above = found.value > found.everything
    return (Tone.GOOD if is_above else Tone.BAD), words.say(
        "say",
        "everything_above" if is_above else "everything_below",
        value=words.value("miou", found.value),
        everything=words.value("miou", found.everything),
    )


def _changed(found: Changed, baseline: str, words: Words) -> tuple[Tone, str]:
    if found.low is None or found.high is None:
        certainty = words.say("say", "no_interval")
    else:
        low, high = words.differences(found.metric, found.low, found.high)
        certainty = words.say(
            "say",
            "certain" if found.is_clear else "uncertain",
            delta=words.difference(found.metric, found.delta),
            low=low,
            high=high,
            how=words.say("how", found.how),
        )
    is_told = found.is_clear or found.how is How.NONE
    tone = {1: Tone.GOOD, -1: Tone.BAD, 0: Tone.PLAIN if is_told else Tone.CARE}[found.gain]
    return tone, words.say(
        "say",
        "changed",
        metric=words.metric(found.metric),
        change=words.change(found.metric, found.ratio, found.delta),
        baseline=baseline,
        before=words.value(found.metric, found.before),
        after=words.value(found.metric, found.after),
        certainty=certainty,
    )


def _trade_off(found: TradeOff, baseline: str, words: Words) -> tuple[Tone, str]:
    cases = {
        (True, True): (Tone.CARE, "trade_off"),
        (True, False): (Tone.GOOD, "all_better"),
        (False, True): (Tone.BAD, "all_worse"),
        (False, False): (Tone.PLAIN, "no_change"),
    }
    tone, key = cases[bool(found.better), bool(found.worse)]
    return tone, words.say(
        "say",
        key,
        baseline=baseline,
        better=words.listed([words.metric(name) for name in found.better]),
        worse=words.listed([words.metric(name) for name in found.worse]),
        by_chance=words.say("say", "by_chance") if found.by_chance else "",
    )


def _teacher_share(found: TeacherShare, words: Words) -> tuple[Tone, str]:
    metric = words.metric(found.metric)
    if found.share is None or found.teacher is None:
        return Tone.CARE, words.say("say", "teacher_undefined", metric=metric, why=why_text(found.why, "", words))
    return Tone.PLAIN, words.say(
        "say",
        "teacher_share",
        metric=metric,
        value=words.value(found.metric, found.value),
        share=words.percent(found.share),
        teacher=words.value(found.metric, found.teacher),
    )


def _goal_share(found: GoalShare, words: Words) -> tuple[Tone, str]:
    fields = {
        "metric": words.metric(found.metric),
        "goal": words.goal(found.metric, found.goal),
        "share": words.percent(found.share),
        "teacher": words.value(found.metric, found.teacher),
    }
    if found.mistaken_for is None:
        return Tone.PLAIN, words.say("say", "goal_share", **fields)
    return Tone.CARE, words.say("say", "goal_mistaken", **fields, mistaken=words.round_percent(found.mistaken_for))


def _goal_met(found: GoalMet, words: Words) -> tuple[Tone, str]:
    text = words.say(
        "say",
        "goal_met" if found.is_met else "goal_missed",
        metric=words.metric(found.metric),
        value=words.value(found.metric, found.value),
        goal=words.goal(found.metric, found.goal),
    )
    if found.is_clear is False:
        return Tone.CARE, text + words.say("say", "goal_unclear")
    return (Tone.GOOD if found.is_met else Tone.BAD), text


def _quantised(found: Quantised, words: Words) -> tuple[Tone, str]:
    drop, bound = words.apart(found.drop, found.bound)
    of = words.say("say", "drop_of", metric=words.metric(found.metric), variant=found.variant) if found.metric else ""
    text = words.say(
        "say", "within" if found.is_within else "over", drop=drop, of=of, bound=bound, base=found.base.upper()
    )
    if found.low is not None and found.high is not None and found.low <= found.bound < found.high:
        low, high = words.percent(found.low), words.percent(found.high)
        text += words.say("say", "drop_unclear", low=low, high=high)
    return (Tone.GOOD if found.is_within else Tone.BAD), text


def _latencies(found: Latencies, words: Words) -> tuple[Tone, str]:
    fields = {"ms": milliseconds(found.ms), "other_ms": milliseconds(found.other_ms), "other": found.other}
    if found.apart or found.unstable:
        reasons = [apart_text(found.apart, words)] if found.apart else []
        if found.unstable:
            reasons.append(words.say("say", "apart_unstable", names=words.listed(found.unstable)))
        return Tone.CARE, words.say("say", "latency_apart", **fields, apart="; ".join(reasons))
    factor = words.times(found.other_ms / found.ms)
    tone = Tone.GOOD if found.ms < found.other_ms else Tone.BAD
    return (Tone.PLAIN if factor == words.times(1.0) else tone), words.say(
        "say", "latency_faster", **fields, factor=factor
    )


def apart_text(apart: Sequence[Condition], words: Words) -> str:
    """In what two latencies' conditions differ, and what nobody noted."""
    names = words.section("column")
    said = [
        words.say(
            "say",
            "apart_one",
            name=names[one.name],
            ours=one.ours or words.say("say", "not_noted"),
            theirs=one.theirs or words.say("say", "not_noted"),
        )
        for one in apart
        if one.ours or one.theirs
    ]
    unsaid = [names[one.name] for one in apart if not one.ours and not one.theirs]
    if unsaid:
        listed = ", ".join(unsaid[:-1]) + words.plain("list_end") + unsaid[-1] if len(unsaid) > 1 else unsaid[0]
        said.append(words.say("say", "apart_unsaid", names=listed))
    return "; ".join(said)


def _undefined(found: Undefined, words: Words) -> tuple[Tone, str]:
    fields = {"metric": words.metric(found.metric), "why": why_text(found.why, found.said, words)}
    if found.given is None:
        return Tone.CARE, words.say("say", "undefined", **fields)
    given = words.value(found.metric, found.given)
    return Tone.CARE, words.say("say", "undefined_given", **fields, given=given)
