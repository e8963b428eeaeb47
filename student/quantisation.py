"""What an export loses in whole numbers, which layers cost it, and what brings it back.

The int8-int4 variant is judged over a build's split against fp16 and fp32, then each group of layers by itself. Where
a drop is over the bound, remedies are tried until none is: ranges that are read otherwise, then the costliest groups
kept in float. All of them are told, with what they bought.
"""

# K calibration inputs, P phrases of one call

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np

from manifests import files
from student.drops import METRICS, drop_of, num_flipped
from student.export_record import Graph, VariantRecord, write_variant
from student.graphs import Graphs, encode_graphs
from student.latency import time_export
from student.layer_groups import LayerGroup, layer_groups
from student.onnx_predictor import OnnxPredictor
from student.parity import Asked
from student.quantize import Inputs, Method, Ranges, int4_graph, int8_graph, read_ranges
from student.readings import QUANTISATION_NAME, Drop, LayerCost, Quantisation, Variant, write_json
from student.variant_judge import Answered, VariantJudge, peak_ram, readings_of, sizes_of

QUANTISED = "int8-int4"
BASES = ("fp32", "fp16")
MOST_KEPT = 3  # groups of layers that are left in float at most
_METHODS: tuple[Method, ...] = ("percentile", "entropy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to quantise."""

    name: str
    remedy: str = ""
    method: Method = "minmax"
    kept: tuple[str, ...] = ()  # groups of layers left in float


class Quantiser:
    """Makes quantised graphs; ranges are read once for each method."""

    def __init__(self, graphs: Graphs, record: VariantRecord, asked: Sequence[Asked]) -> None:
        self.groups = layer_groups(graphs)
        self._graphs = graphs
        self._inputs = _inputs(graphs, record, asked)
        self._ranges: dict[tuple[Graph, Method], Ranges] = {}

    def graphs_of(self, recipe: Recipe) -> Graphs:
        """The graphs that `recipe` makes."""
        return self._quantised([group for group in self.groups if group.name not in recipe.kept], recipe.method)

    def alone(self, group: LayerGroup) -> Graphs:
        """The graphs of which `group` alone is quantised."""
        return self._quantised([group], "minmax")

    def _quantised(self, groups: Sequence[LayerGroup], method: Method) -> Graphs:
        made = dict(self._graphs)
        for graph in {group.graph for group in groups}:
            nodes = frozenset[str]().union(*(group.nodes for group in groups if group.graph == graph))
            model = self._graphs[graph]
            made[graph] = (
                int4_graph(model, nodes) if graph == "text" else int8_graph(model, self._range(graph, method), nodes)
            )
        return made

    def _range(self, graph: Graph, method: Method) -> Ranges:
        if (graph, method) not in self._ranges:
            self._ranges[graph, method] = read_ranges(self._graphs[graph], self._inputs[graph], method)
        return self._ranges[graph, method]


def _inputs(graphs: Graphs, record: VariantRecord, asked: Sequence[Asked]) -> dict[Graph, list[Inputs]]:
    """What goes into the image tower and the decoder in float: every prompt of every picture."""
    predictor = OnnxPredictor(record, encode_graphs(graphs))
    images: list[Inputs] = []
    decoded: list[Inputs] = []
    for one in asked:
        images.append({"image": one.image_3ss[None]})
        seen = predictor.see(one.image_3ss)
        for first in range(0, len(one.phrases), record.num_phrases):
            chosen = np.arange(first, first + record.num_phrases) % len(one.phrases)
            decoded.append({**seen, "rows": predictor.rows([one.phrases[at] for at in chosen.tolist()])})
    return {"image": images, "decoder": decoded}


@dataclass(slots=True, kw_only=True, eq=False)
class Trial:
    """One quantisation under way: the bases, what was tried, and what it came to."""

    folder: str  # of the export
    record: VariantRecord  # of fp32: shapes and origin
    judge: VariantJudge
    bound: float
    threads: int
    answered: dict[str, Answered] = field(default_factory=dict)  # of the bases
    variants: list[Variant] = field(default_factory=list)

    def add(self, name: str, graphs: Graphs, remedy: str = "") -> Variant:
        """Write, judge and time a variant."""
        encoded = encode_graphs(graphs)
        folder = files.join(self.folder, name)
        record = write_variant(folder, msgspec.structs.replace(self.record, name=name), encoded)
        predictor = OnnxPredictor(record, encoded, threads=self.threads)
        answered = self.judge.answers(predictor)
        if name in BASES:
            self.answered[name] = answered
        variant = Variant(
            name=name,
            remedy=remedy,
            num_bytes=sizes_of(encoded),
            peak_ram_bytes=peak_ram(folder),
            readings=readings_of(answered),
            drops=self.drops(answered, [base for base in self.answered if base != name]),
            flipped_presences=num_flipped(self.answered["fp32"].judged, answered.judged),
            num_prompts=len(answered.judged),
            latency=time_export(predictor, self.threads),
        )
        self.variants.append(variant)
        return variant

    def drops(self, answered: Answered, bases: Sequence[str]) -> list[Drop]:
        """The drops from each of `bases`, of each metric that has one."""
        found = (
            drop_of(metric, base, self.answered[base].counts, answered.counts, self.bound)
            for base in bases
            for metric in METRICS
        )
        return [drop for drop in found if drop is not None]

    def layer_costs(self, quantiser: Quantiser) -> list[LayerCost]:
        """What each group of layers costs against fp32 when it is quantised alone, the costliest first."""
        costs = []
        for group in quantiser.groups:
            record = msgspec.structs.replace(self.record, name=group.name)
            predictor = OnnxPredictor(record, encode_graphs(quantiser.alone(group)), threads=self.threads)
            drops = self.drops(self.judge.answers(predictor), ["fp32"])
            costs += [LayerCost(layer=group.name, metric=drop.metric, drop=drop.drop) for drop in drops]
        return sorted(costs, key=lambda cost: -cost.drop)


def worst_drop(variant: Variant) -> float:
    """The largest drop of a variant; minus infinity where it has none."""
    return max((drop.drop for drop in variant.drops), default=-np.inf)


def is_over(variant: Variant) -> bool:
    """Whether any of a variant's drops is over its bound."""
    return any(drop.verdict == "over" for drop in variant.drops)


def quantise(trial: Trial, bases: Mapping[str, Graphs], asked: Sequence[Asked]) -> Quantisation:
    """All variants of an export, judged; written as `quantisation.json`."""
    for name in BASES:
        trial.add(name, bases[name])
    quantiser = Quantiser(bases["fp32"], trial.record, asked)
    trial.add(QUANTISED, quantiser.graphs_of(Recipe(name=QUANTISED)))
    costs = trial.layer_costs(quantiser)
    if is_over(trial.variants[-1]):
        remedy(trial, quantiser, costs)
    found = Quantisation(
        name=trial.record.student,
        bound=trial.bound,
        variants=trial.variants,
        layers=costs,
        notes=list(_notes(trial, len(asked))),
    )
    write_json(files.join(trial.folder, QUANTISATION_NAME), found)
    return found


class Trying(Protocol):
    """What remedies are tried in."""

    variants: list[Variant]

    def add(self, name: str, graphs: Graphs, remedy: str = "") -> Variant:
        """Judge one more variant."""


class Making(Protocol):
    """What makes graphs by recipes."""

    def graphs_of(self, recipe: Recipe) -> Graphs:
        """The graphs that `recipe` makes."""


def remedy(trial: Trying, quantiser: Making, costs: Sequence[LayerCost]) -> None:
    """Try remedies until one brings every drop within its bound; groups of layers that cost nothing stay quantised."""
    tried = {"minmax": worst_drop(trial.variants[-1])}
    for method in _METHODS:
        recipe = Recipe(name=f"{QUANTISED}-{method}", remedy=f"ranges by {method}", method=method)
        variant = trial.add(recipe.name, quantiser.graphs_of(recipe), recipe.remedy)
        if not is_over(variant):
            return
        tried[method] = worst_drop(variant)
    best: Method = min(("minmax", *_METHODS), key=lambda method: tried[method])
    ranked = list(dict.fromkeys(cost.layer for cost in costs if cost.drop > 0))
    for num in range(1, min(MOST_KEPT, len(ranked)) + 1):
        kept = tuple(ranked[:num])
        told = f"ranges by {best}, {' and '.join(kept)} in float"
        recipe = Recipe(name=f"{QUANTISED}-float{num}", remedy=told, method=best, kept=kept)
        if not is_over(trial.add(recipe.name, quantiser.graphs_of(recipe), told)):
            return


def chosen_of(variants: Sequence[Variant]) -> str:
    """The smallest variant whose every drop is known and within its bound; fp16 where there is none."""
    bases = sum(variant.name in BASES for variant in variants)
    judged = [one for one in variants if one.name not in BASES and len(one.drops) == bases * len(METRICS)]
    within = [one for one in judged if not is_over(one)]
    return min(within, key=lambda one: sum(one.num_bytes.values())).name if within else "fp16"


def _bought(plain: Variant, remedied: Variant) -> str:
    """What a remedy made of each drop, beside no remedy."""
    pairs = [pair for pair in zip(plain.drops, remedied.drops, strict=True) if pair[0].base == BASES[-1]]
    return ", ".join(f"{before.metric} drops {after.drop:.2%} for {before.drop:.2%}" for before, after in pairs)


def _notes(trial: Trial, num_calibration: int) -> Iterator[str]:
    truth = trial.judge.truth
    yield f"judged on split {truth.split} of build {truth.build}"
    yield f"ranges were read on {num_calibration} pictures of train"
    yield "latency is of one whole call on this machine; on a phone: not measured"
    told = {(drop.base, drop.metric) for drop in trial.variants[len(BASES)].drops}
    for base in BASES:
        for metric in METRICS:
            if (base, metric) not in told:
                reading = next(one for one in trial.variants if one.name == base).readings[metric]
                found = reading.undefined or f"{reading.value:.4f}"
                yield f"{metric}: no drop from {base}, which has {found}; a relative drop needs a base above 0"
    plain, *remedied = trial.variants[len(BASES) :]
    for variant in remedied:
        yield f"{variant.remedy}: {_bought(plain, variant)}"
    if is_over(trial.variants[-1]):
        yield f"no remedy brought every drop within {trial.bound:.2%}; {chosen_of(trial.variants)} is chosen"
