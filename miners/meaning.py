"""Which phrases are too close in meaning: where one is present, the absence of the other may not be mined.

Every phrase becomes a node, and an edge leads from it to what its presence also says: synonyms and hypernyms of the
lexicon, the singular, the head of a compound, the bare word of a sense in parentheses. What lies above a phrase, or
below it, is doubtful where the phrase is present. A bare word of several senses is the end of every way up: a computer
mouse is a mouse, but not therefore an animal.

Parts go one way: a car makes a wheel doubtful, a wheel no car, since it may be a bicycle's; where a part does betray
its whole (a face, a person) `reveals` says so.
"""

# V phrases

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import permutations, product

import numpy as np

from miners.relation import Relation
from miners.words import English, Written, load_english
from shards.labels import Lexicon

_Pairs = set[tuple[int, int]]  # (present, doubtful)


def related(phrases: Sequence[str], lexicon: Lexicon, english: English | None = None) -> Relation:
    """For each of `phrases`, those whose absence its presence makes doubtful; itself is always among them.

    Args:
        phrases: V of them, as the inventory numbers them.
        lexicon: Synonyms and hypernyms; the same that the labels are read with.
        english: Rules and words of the language; the bundled ones if left out.
    """
    nodes = _Nodes(phrases, lexicon, english or load_english())
    pairs: _Pairs = {(v, v) for v in range(len(phrases))}
    for rule in (_comparable, _numbered, _asserted, _described, _parts, _dimensions):
        pairs.update(rule(nodes))
    columns = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return Relation.of_pairs(len(phrases), columns[:, 0], columns[:, 1])


class _Nodes:
    """All phrases that are known, by key, and what lies above each."""

    def __init__(self, phrases: Sequence[str], lexicon: Lexicon, english: English) -> None:
        self.english = english
        self._lexicon = lexicon
        self._written: dict[str, Written] = {}
        self._group = {self._add(phrase): group for phrase, group in lexicon.group_of_phrase.items()}
        self._broad_groups = {other for group, above in enumerate(lexicon.broader) for other in above if other != group}
        meaning = english.meaning
        self._senses: dict[str, set[str]] = defaultdict(set)
        for bare, senses in meaning.senses.items():
            self._senses[self._add(bare)] |= {self._add(sense) for sense in senses}
        self._several = set(self._senses)  # bare words that end every way up
        self.key_v = [self._add(phrase) for phrase in phrases]
        for written in list(self._written.values()):
            if written.sense:
                bare = self._register(Written(written.words))
                self._senses[bare].add(written.key)
                if not self._agree(bare, written.key):
                    self._several.add(bare)
        self.parts = {self._add(whole): [self._add(p) for p in parts] for whole, parts in meaning.parts.items()}
        self.reveals = {self._add(sign): [self._add(t) for t in things] for sign, things in meaning.reveals.items()}
        self.above = cache(self._above)
        self.plain = cache(self._plain)
        self.at: dict[str, list[int]] = defaultdict(list)  # phrases of a key
        self.below: dict[str, list[int]] = defaultdict(list)  # phrases with a key above them, those of the key too
        for v, key in enumerate(self.key_v):
            self.at[key].append(v)
            for higher in self.above(key):
                self.below[higher].append(v)

    def _agree(self, bare: str, sense: str) -> bool:
        """Whether what the lexicon says of the bare word may hold of its sense: a runner (carpet) is no person."""
        of_bare, of_sense = self._group.get(bare), self._group.get(sense)
        if of_bare is None:
            return True
        above = set(self._lexicon.broader[of_bare])
        return of_sense is not None and (len(above) == 1 or bool(above & set(self._lexicon.broader[of_sense])))

    def _add(self, phrase: str) -> str:
        return self._register(self.english.written(phrase))

    def _register(self, written: Written) -> str:
        """The key of a phrase; of its ways of being written the one with most words is kept."""
        known = self._written.get(written.key)
        if known is None or len(written.words) > len(known.words):
            self._written[written.key] = written
        return written.key

    def node(self, *words: str) -> str:
        """The key of some words."""
        return self._register(Written(words))

    def key_of(self, phrase: str) -> str:
        """The key of a phrase of the data files."""
        return self._add(phrase)

    def words(self, key: str) -> tuple[str, ...]:
        """The words of a key, without its sense."""
        return self._written[key].words

    def in_lexicon(self, key: str) -> bool:
        """Whether the lexicon knows a phrase of its own by this key."""
        return key in self._group

    def _above(self, start: str) -> frozenset[str]:
        """All that is said by the presence of `start`, itself too; of a word of several senses, by any of them."""
        return self._closed([start, *sorted(self._senses.get(start, ()))])

    def _plain(self, key: str) -> frozenset[str]:
        """What `key` says in every sense: without what its own senses, or words of several senses above it, may say."""
        return frozenset({key} if key in self._several else self._closed([key]) - self._several | {key})

    def _closed(self, waiting: list[str]) -> frozenset[str]:
        reached = set(waiting)
        while waiting:
            for target in self._edges(waiting.pop()):
                if target not in reached:
                    reached.add(target)
                    if target not in self._several:
                        waiting.append(target)
        return frozenset(reached)

    def _edges(self, key: str) -> Iterator[str]:
        """What the presence of `key` says directly."""
        if (group := self._group.get(key)) is not None:
            for other in self._lexicon.broader[group]:
                yield from map(self._add, self._lexicon.phrases_of_group[other])
        words, sense = self._written[key]
        if sense:
            yield self.node(*words)
            kind = self.node(*sense.split())
            if self._group.get(kind) in self._broad_groups:  # a crane (bird) is a bird, a pitcher (baseball) no ball
                yield kind
            return
        singulars = list(self._singulars(words))
        yield from singulars
        if not singulars:
            yield from self._heads(words)

    def _singulars(self, words: tuple[str, ...]) -> Iterator[str]:
        for singular in self.english.singulars(words[-1]):
            yield self.node(*words[:-1], singular)
        if len(words) > 1 and words[-1] in self.english.meaning.words.always_plural:  # wine glasses, not eyewear
            one = Written((*words[:-1], words[-1].removesuffix("es") if words[-1].endswith("sses") else words[-1][:-1]))
            if one.key in self._group:
                yield self._register(one)

    def singulars(self, key: str) -> Iterator[str]:
        """The keys of what `key` is the plural of."""
        words, sense = self._written[key]
        return iter(()) if sense else self._singulars(words)

    def _heads(self, words: tuple[str, ...]) -> Iterator[str]:
        """The phrases that `words` is a kind of, by its form."""
        head, preposition, rest = self.english.divided(words)
        if preposition:
            yield self.node(*head)
            if preposition == "of" and set(self.english.lemmas(head[-1])) & set(self.english.meaning.words.measures):
                yield self.node(*rest)
        elif len(words) > 1:
            if not self.english.misleads(words):
                yield self.node(*words[1:])
                if not self.in_lexicon("".join(words)):
                    yield from self._without_attribute(words)
            if words[-1] in self.english.meaning.words.transparent:
                yield self.node(*words[:-1])

    def _without_attribute(self, words: tuple[str, ...]) -> Iterator[str]:
        """A big red car is a big car."""
        found, rest = self.english.attributes(words)
        if len(found) > 1:
            for left_out in found.values():
                kept = [word for word in words[: len(words) - len(rest)] if word not in (left_out, "and")]
                yield self.node(*kept, *rest)

    def described(self, key: str) -> tuple[dict[str, str], str]:
        """The adjectives before a phrase, by what they speak of, and the key of the singular behind them."""
        words = self.words(key)
        if self.in_lexicon(key) or self._written[key].sense or self.english.divided(words).preposition:
            return {}, key
        found, rest = self.english.attributes(words)
        singular = next(self._singulars(rest), None)
        return found, singular or self.node(*rest)


def _comparable(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """Phrases above each other, in both directions."""
    for v, key in enumerate(nodes.key_v):
        for higher in nodes.above(key):
            for other in nodes.at.get(higher, ()):
                yield v, other
                yield other, v


def _around(nodes: _Nodes, key: str) -> Iterator[int]:
    """The phrases above and below a key."""
    for higher in nodes.above(key):
        yield from nodes.at.get(higher, ())
    yield from nodes.below.get(key, ())


def _numbered(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """What is around a singular is around its plural too: one of the children may be a boy."""
    for v, key in enumerate(nodes.key_v):
        for singular in nodes.singulars(key):
            for other in _around(nodes, singular):
                yield v, other
                yield other, v


def _asserted(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """What a phrase names besides its head (a man riding a horse), belongs to (a car door), or reveals (a face)."""
    for v, key in enumerate(nodes.key_v):
        revealed = (thing for sign in nodes.plain(key) for thing in nodes.reveals.get(sign, ()))
        for thing in {*_named(nodes, key), *revealed}:
            for other in _around(nodes, thing):
                yield v, other


def _named(nodes: _Nodes, key: str) -> Iterator[str]:
    """The other things that a phrase's own words say are there."""
    words = nodes.words(key)
    without = nodes.english.meaning.words.without
    divided = nodes.english.divided(words)
    while divided.preposition and divided.preposition not in without:
        rest = nodes.english.divided(divided.rest)
        yield nodes.node(*rest.head)
        divided = rest
    if len(words) > 1 and not nodes.in_lexicon(key):
        whole = nodes.node(*words[:-1])
        last = nodes.node(*words[-1:])
        known = {part for k in nodes.plain(whole) for part in nodes.parts.get(k, ())}
        if known & nodes.above(last):
            yield whole


def _described(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """Things that may be one although neither phrase says so of the other: a red car and a parked car or a taxi."""
    described = [nodes.described(key) for key in nodes.key_v]
    for v, (found, base) in enumerate(described):
        if not found:
            continue
        for other in nodes.below.get(base, ()):
            others = described[other][0]
            if all(others.get(kind, word) == word for kind, word in found.items()):
                yield v, other
                yield other, v


def _parts(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """The parts of what is present; of narrower parts only those that name the whole."""
    for v, key in enumerate(nodes.key_v):
        above = nodes.above(key)
        for part in {part for k in nodes.plain(key) for part in nodes.parts.get(k, ())}:
            for other in nodes.below.get(part, ()):
                if _same_part(nodes, nodes.key_v[other], part, above):
                    yield v, other


def _same_part(nodes: _Nodes, key: str, part: str, wholes: Iterable[str]) -> bool:
    """Whether what is a kind of `part` is the same by another name, or with an adjective or the whole's name before."""
    base = nodes.described(key)[1]
    words = nodes.words(key)
    return base == part or base in nodes.plain(part) or (len(words) > 1 and nodes.node(*words[:-1]) in wholes)


def _dimensions(nodes: _Nodes) -> Iterator[tuple[int, int]]:
    """Kinds of one thing that are sorted in different ways: a woman may be a tennis player, but no man."""
    meaning = nodes.english.meaning
    exclusive: _Pairs = set()
    for phrase, others in meaning.exclusive.items():
        apart = {v for other in others for v in nodes.below.get(nodes.key_of(other), ())}
        exclusive.update(product(nodes.below.get(nodes.key_of(phrase), ()), apart))
    for lines in meaning.dimensions.values():
        below = [{v for kind in line for v in _plainly_below(nodes, nodes.key_of(kind))} for line in lines]
        for here, there in permutations(below, 2):
            for v, other in product(here - there, there - here):
                if (v, other) not in exclusive and (other, v) not in exclusive:
                    yield v, other


def _plainly_below(nodes: _Nodes, key: str) -> Iterator[int]:
    """The phrases that are a kind of `key` in every sense."""
    return (v for v in nodes.below.get(key, ()) if key in nodes.plain(nodes.key_v[v]))
