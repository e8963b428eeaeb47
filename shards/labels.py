"""What is known of each phrase of an image: phrases made comparable, annotations merged, synonyms and hypernyms.

Every source reads its own format and then says the same three things: this annotation shows the phrase, this one was
broken, the source denies or leaves open that phrase. `merge_labels` turns those findings into one label per phrase, so
that the rule "a corrupt annotation leaves its phrase open, never absent" is written once.
"""

import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import files
from manifests.errors import Reason, RecipeError, Rejected
from manifests.sample import Mask, MaskState
from shards.sources.source import KnownBy, Label, LabelState

MAX_PHRASE_CHARACTERS = 200
BUNDLED_LEXICON = str(Path(__file__).with_name("lexicon.toml"))

_SHOWN = 40  # characters of a bad phrase that a message quotes


def normalise_phrase(text: str) -> str:
    """`text` as NFC with each run of whitespace as one space, stripped; its case is kept.

    Raises:
        Rejected: EMPTY_PHRASE, PHRASE_TOO_LONG, PHRASE_NOT_UTF8 (a lone surrogate).
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = ascii(text[:_SHOWN])
        raise Rejected(Reason.PHRASE_NOT_UTF8, f"phrase {shown} has a lone surrogate; expected UTF-8 text") from error
    phrase = " ".join(unicodedata.normalize("NFC", text).split())
    if not phrase:
        raise Rejected(Reason.EMPTY_PHRASE, f"phrase {text[:_SHOWN]!r} is empty; expected a noun phrase")
    if len(phrase) > MAX_PHRASE_CHARACTERS:
        raise Rejected(
            Reason.PHRASE_TOO_LONG,
            f"phrase {phrase[:_SHOWN]!r}... has {len(phrase)} characters; expected at most {MAX_PHRASE_CHARACTERS}",
        )
    return phrase


def phrase_id(phrase: str) -> str:
    """What two phrases share exactly if they are equal: `phrase` (already normalised), casefolded."""
    return unicodedata.normalize("NFC", phrase.casefold())


def category_phrase(name: str) -> str:
    """The phrase of a category called `name`; `_` is read as a space.

    Raises:
        Rejected: as `normalise_phrase`.
    """
    return normalise_phrase(name.replace("_", " "))


class Outcome(StrEnum):
    """What one annotation, or one remark of the source, says of a phrase."""

    PRESENT = "present"  # a sound annotation: masks, or a box alone
    REJECTED = "rejected"  # an annotation that was dropped: something may be there
    ABSENT = "absent"  # the source denies the phrase by name
    OPEN = "open"  # the source says that it did not look for all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One annotation's word on one phrase of one image."""

    phrase: str  # normalised
    outcome: Outcome
    masks: tuple[Mask, ...] = ()  # where PRESENT; none for a box alone
    layer: int = 0  # findings of one layer (one annotation file) add up; layers complete each other
    known_by: KnownBy = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """The labels of one image."""

    labels: tuple[Label, ...]  # one per phrase, sorted by `phrase_id`
    contradictions: tuple[str, ...]  # phrases both shown and denied; each is OPEN among `labels`


def merge_labels(findings: Iterable[Finding]) -> Merged:
    """One label per phrase (by `phrase_id`; the first spelling stays).

    Within a layer: masks alone make the phrase present and COMPLETE; with a rejected annotation, a box without a mask
    or an OPEN remark beside them, PARTIAL; boxes alone NONE; rejections or remarks alone leave it OPEN. Between layers
    the most complete presence wins, then the earlier layer. A phrase that is both shown and denied is OPEN.
    """
    found: dict[str, dict[int, list[Finding]]] = defaultdict(lambda: defaultdict(list))
    spelling: dict[str, str] = {}
    for finding in findings:
        key = phrase_id(finding.phrase)
        spelling.setdefault(key, finding.phrase)
        found[key][finding.layer].append(finding)
    labels: list[Label] = []
    contradictions: list[str] = []
    for key in sorted(found):
        layers = [_merge_layer(spelling[key], group) for _, group in sorted(found[key].items())]
        said = {finding.outcome for group in found[key].values() for finding in group}
        if {Outcome.PRESENT, Outcome.ABSENT} <= said:
            contradictions.append(spelling[key])
            labels.append(Label(phrase=spelling[key], state=LabelState.OPEN, known_by=layers[0].known_by))
        else:
            labels.append(max(layers, key=_knowledge))
    return Merged(labels=tuple(labels), contradictions=tuple(contradictions))


def _merge_layer(phrase: str, findings: Sequence[Finding]) -> Label:
    """The label of the findings of one layer on one phrase."""
    present = [finding for finding in findings if finding.outcome is Outcome.PRESENT]
    known_by = (present or findings)[0].known_by
    if not present:
        denied = all(finding.outcome is Outcome.ABSENT for finding in findings)
        return Label(phrase=phrase, state=LabelState.ABSENT if denied else LabelState.OPEN, known_by=known_by)
    masks = tuple(mask for finding in present for mask in finding.masks)
    if not masks:
        state = MaskState.NONE
    elif len(present) == len(findings) and all(finding.masks for finding in present):
        state = MaskState.COMPLETE
    else:
        state = MaskState.PARTIAL
    return Label(phrase=phrase, state=LabelState.PRESENT, mask_state=state, masks=masks, known_by=known_by)


def _knowledge(label: Label) -> int:
    """How much a layer's label knows: a presence by its masks, then open before absent, which is the safer word."""
    match label.state:
        case LabelState.ABSENT:
            return 0
        case LabelState.OPEN:
            return 1
        case LabelState.PRESENT:
            return 2 + (MaskState.NONE, MaskState.PARTIAL, MaskState.COMPLETE).index(label.mask_state)


class _LexiconFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lexicon as it stands in TOML."""

    source: str = ""  # who says so
    synonyms: list[list[str]] = []
    hypernyms: dict[str, list[str]] = {}  # broader phrase -> narrower ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Which phrases say the same, and which say less than others; equality is casefolded.

    Phrases of one group are synonyms; `broader` holds, per group, all groups that its presence implies, its own too.
    """

    group_of_phrase: Mapping[str, int]
    phrases_of_group: tuple[tuple[str, ...], ...]
    broader: tuple[tuple[int, ...], ...]

    def implied(self, phrases: Iterable[str]) -> set[str]:
        """All that is said present (casefolded) where `phrases` are: themselves, their synonyms and hypernyms."""
        implied: set[str] = set()
        groups: set[int] = set()
        for phrase in phrases:
            key = phrase_id(phrase)
            implied.add(key)
            if (group := self.group_of_phrase.get(key)) is not None:
                groups.update(self.broader[group])
        for group in groups:
            implied.update(self.phrases_of_group[group])
        return implied

    def closure(self, vocabulary: Sequence[str]) -> list[NDArray[np.int64]]:
        """For each phrase of `vocabulary`, the sorted places in it that the phrase's presence implies, its own too."""
        places: dict[str, list[int]] = defaultdict(list)
        places_of_group: dict[int, list[int]] = defaultdict(list)
        keys = [phrase_id(phrase) for phrase in vocabulary]
        for place, key in enumerate(keys):
            places[key].append(place)
            if (group := self.group_of_phrase.get(key)) is not None:
                places_of_group[group].append(place)
        closed: dict[str, NDArray[np.int64]] = {}
        for key, own in places.items():
            group = self.group_of_phrase.get(key)
            broader = self.broader[group] if group is not None else ()
            found = {place for other in broader for place in places_of_group.get(other, ())} | set(own)
            closed[key] = np.array(sorted(found), np.int64)
        return [closed[key] for key in keys]


def load_lexicon(paths: Sequence[str], extra_synonyms: Iterable[Sequence[str]] = ()) -> Lexicon:
    """The bundled lexicon with those at `paths` and the groups that sources call the same.

    What sources call the same may join a phrase and its hypernym (LVIS: man, person); then each implies the other.

    Raises:
        RecipeError: a file is missing, is no lexicon, or makes a phrase broader than itself.
    """
    groups = _Groups()
    edges: list[tuple[str, str]] = []  # narrower, broader
    for path in [BUNDLED_LEXICON, *paths]:
        lexicon = _read_lexicon(path)
        for synonyms in lexicon.synonyms:
            groups.join(synonyms)
        edges += [(narrow, broad) for broad, narrows in lexicon.hypernyms.items() for narrow in narrows]
        if (phrase := _phrase_above_itself(groups, edges)) is not None:
            raise RecipeError(
                f"{path}: hypernyms: {phrase!r} becomes broader than itself; expected that following hypernyms upwards "
                "comes to an end. Remove one of the lines that lead back to it"
            )
    for same in extra_synonyms:
        groups.join([phrase_id(phrase) for phrase in same])
    return _close(groups, edges)


def _read_lexicon(path: str) -> _LexiconFile:
    """The lexicon at `path`, its phrases casefolded.

    Raises:
        RecipeError: a file is missing or is no lexicon.
    """
    try:
        table = tomllib.loads(files.read_text(path))
        raw = msgspec.convert(table, _LexiconFile)
        return _LexiconFile(
            synonyms=[[phrase_id(normalise_phrase(text)) for text in group] for group in raw.synonyms],
            hypernyms={
                phrase_id(normalise_phrase(broad)): [phrase_id(normalise_phrase(text)) for text in narrows]
                for broad, narrows in raw.hypernyms.items()
            },
        )
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error}; expected a lexicon (prompts.lexicon)") from error
    except (ValueError, RecursionError, Rejected) as error:
        raise RecipeError(
            f"{path}: no lexicon: {error}; expected TOML with synonyms = [[...], ...] and [hypernyms] broader = [...]"
        ) from error


class _Groups:
    """Phrases that are joined step by step into groups of synonyms."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def head(self, phrase: str) -> str:
        """The phrase that stands for the group of `phrase`."""
        path = []
        while (parent := self._parent.setdefault(phrase, phrase)) != phrase:
            path.append(phrase)
            phrase = parent
        for passed in path:
            self._parent[passed] = phrase
        return phrase

    def join(self, phrases: Sequence[str]) -> None:
        """Make one group of the groups of `phrases`; the smallest phrase stands for it."""
        heads = sorted({self.head(phrase) for phrase in phrases})
        for head in heads[1:]:
            self._parent[head] = heads[0]

    def members(self) -> dict[str, list[str]]:
        """The sorted phrases of each group, by the group's head, in order of the heads."""
        members: dict[str, list[str]] = defaultdict(list)
        for phrase in sorted(self._parent):
            members[self.head(phrase)].append(phrase)
        return dict(sorted(members.items()))


def _above(groups: _Groups, edges: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    """For each group, the groups directly above it."""
    above: dict[str, set[str]] = defaultdict(set)
    for narrow, broad in edges:
        above[groups.head(narrow)].add(groups.head(broad))
    return above


def _reach(start: str, above: Mapping[str, set[str]]) -> set[str]:
    """All that lies above `start`; `start` itself only where a way leads back to it."""
    reached: set[str] = set()
    waiting = list(above.get(start, ()))
    while waiting:
        group = waiting.pop()
        if group not in reached:
            reached.add(group)
            waiting.extend(above.get(group, ()))
    return reached


def _phrase_above_itself(groups: _Groups, edges: Sequence[tuple[str, str]]) -> str | None:
    """A phrase that lies above itself, if there is one."""
    above = _above(groups, edges)
    return next((group for group in sorted(above) if group in _reach(group, above)), None)


def _close(groups: _Groups, edges: Sequence[tuple[str, str]]) -> Lexicon:
    """The lexicon with everything followed upwards to its end."""
    above = _above(groups, edges)
    members = groups.members()
    number = {head: index for index, head in enumerate(members)}
    return Lexicon(
        group_of_phrase={phrase: number[head] for head, phrases in members.items() for phrase in phrases},
        phrases_of_group=tuple(tuple(phrases) for phrases in members.values()),
        broader=tuple(
            tuple(sorted({number[head]} | {number[other] for other in _reach(head, above)})) for head in members
        ),
    )
