"""The student's layers in a few groups, so that what each costs when it is quantised alone can be measured."""

from collections.abc import Callable
from dataclasses import dataclass

from student.export_record import Graph
from student.graphs import Graphs, scope_of
from student.quantize import INT4_OPS, INT8_OPS

ENCODER_PARTS = 3  # runs of the image encoder's blocks, of equally many convolutions
_ENCODER = "encoder.net."


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Some nodes of one graph."""

    name: str  # for people: "image encoder blocks.5 to blocks.6"
    graph: Graph
    nodes: frozenset[str]


def layer_groups(graphs: Graphs) -> list[LayerGroup]:
    """All nodes that are quantised, each in one group, in the order of the forward pass."""
    encoder = [name for name in _quantised(graphs, "image", INT8_OPS) if scope_of(name).startswith(_ENCODER)]
    groups = [_part_of_encoder(part) for part in _runs(encoder, ENCODER_PARTS)]
    groups.append(_group(graphs, "image", "image neck", lambda scope, _: not scope.startswith(_ENCODER)))
    groups.append(_group(graphs, "text", "text embedding", lambda _, op: op == "Gather"))
    groups.append(_group(graphs, "text", "text layers", lambda _, op: op != "Gather"))
    groups.append(_group(graphs, "decoder", "decoder attention", lambda scope, _: _head(scope) == "attention"))
    groups.append(_group(graphs, "decoder", "decoder presence", lambda scope, _: _head(scope) == "presence"))
    groups.append(_group(graphs, "decoder", "decoder mask", lambda scope, _: _head(scope) == "mask"))
    return [group for group in groups if group.nodes]


def _head(scope: str) -> str:
    first = scope.partition(".")[0]
    return {"query": "attention", "layers": "attention", "presence": "presence"}.get(first, "mask")


def _quantised(graphs: Graphs, graph: Graph, ops: tuple[str, ...]) -> list[str]:
    return [node.name for node in graphs[graph].graph.node if node.op_type in ops]


def _group(graphs: Graphs, graph: Graph, name: str, belongs: Callable[[str, str], bool]) -> LayerGroup:
    ops = INT4_OPS if graph == "text" else INT8_OPS
    nodes = [node for node in graphs[graph].graph.node if node.op_type in ops]
    return LayerGroup(
        name=name,
        graph=graph,
        nodes=frozenset(node.name for node in nodes if belongs(scope_of(node.name), node.op_type)),
    )


def _block(name: str) -> str:
    """The block of the encoder that a node belongs to: "blocks.3", "stages.2"; "" for its stem and its head."""
    first, _, rest = scope_of(name).removeprefix(_ENCODER).partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdigit() else ""


def _runs(encoder: list[str], num: int) -> list[list[str]]:
    """The encoder's nodes as `num` runs of whole blocks, about equally long."""
    runs: list[list[str]] = [[]]
    for place, name in enumerate(encoder):
        is_due = place >= len(runs) * len(encoder) / num
        if is_due and _block(name) != _block(encoder[place - 1]):
            runs.append([])
        runs[-1].append(name)
    return runs


def _part_of_encoder(part: list[str]) -> LayerGroup:
    first, last = (_block(part[0]) or "stem", _block(part[-1]) or "head") if part else ("", "")
    name = f"image encoder {first}" if first == last else f"image encoder {first} to {last}"
    return LayerGroup(name=name, graph="image", nodes=frozenset(part))
