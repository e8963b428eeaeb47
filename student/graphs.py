"""The student as three ONNX graphs of fixed shapes: image tower, text tower, and decoder for so many phrases.

Shapes are fixed because phones plan memory and kernels for them once, and slow down many times over when they change.
Three graphs, because the towers run once however often the decoder does. The picture comes in as bytes.
"""

# S side of the picture, L tokens, P phrases of one call, C width, N cells at stride 16

import ast
from collections.abc import Mapping

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from student.export_record import Graph
from student.model import Answer, Decoder, Seen, Student

Graphs = dict[Graph, onnx.ModelProto]
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter says of which module a node is


class _Image(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, image_13ss: Tensor) -> tuple[Tensor, Tensor]:
        seen: Seen = self.tower(image_13ss)
        return seen.cells_bnc, seen.pixels_bchw


class _Text(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens_pl: Tensor) -> Tensor:
        rows_pc: Tensor = self.tower(tokens_pl)
        return rows_pc


class _Decoder(nn.Module):
    def __init__(self, tower: Decoder) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, cells_1nc: Tensor, pixels_1chw: Tensor, rows_pc: Tensor) -> tuple[Tensor, Tensor]:
        answer: Answer = self.tower(Seen(cells_bnc=cells_1nc, pixels_bchw=pixels_1chw), rows_pc[None])
        return answer.presence_bp[0], answer.masks_bphw[0]


def export_graphs(student: Student, num_phrases: int) -> Graphs:
    """The three graphs; logits of presence [P] and masks [P, S / 4, S / 4] come out of the last."""
    config = student.config
    image_13ss = torch.zeros((1, 3, config.size, config.size), dtype=torch.uint8)
    tokens_pl = torch.ones((num_phrases, config.context), dtype=torch.int64)
    image, text = _Image(student.image).eval(), _Text(student.text).eval()
    with torch.no_grad():
        cells_1nc, pixels_1chw = image(image_13ss)
        rows_pc = text(tokens_pl)
    decoder = _Decoder(student.decoder).eval()
    decoder_inputs = {"cells": cells_1nc, "pixels": pixels_1chw, "rows": rows_pc}
    return {
        "image": _export(image, {"image": image_13ss}, ["cells", "pixels"]),
        "text": _without_gemm(_export(text, {"tokens": tokens_pl}, ["rows"])),
        "decoder": _export(decoder, decoder_inputs, ["presence", "masks"]),
    }


def _export(module: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    program = torch.onnx.export(
        module, tuple(inputs.values()), dynamo=True, input_names=list(inputs), output_names=outputs, verbose=False
    )
    if program is None:
        raise TypeError("torch.onnx.export(dynamo=True) gives a program")
    return _named(program.model_proto)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with each node named by its module, and without the exporter's traces of our source and folders."""
    scope = ""
    for number, node in enumerate(model.graph.node):
        found = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES)
        scopes = ast.literal_eval(found) if found else []
        scope = scopes[-2].removeprefix("tower").removeprefix(".") if len(scopes) > 1 else scope
        node.name = f"{scope}/{node.op_type}_{number}"
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    model.graph.doc_string = model.doc_string = ""
    return model


def _without_gemm(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with every plain Gemm of constant weights as MatMul and Add: 4 bits are made for matrices alone."""
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.extend(_split_gemm(graph, node, constants) or [node])
    _drop_unused(graph)
    return model


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take out constants that no node reads."""
    read = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _split_gemm(
    graph: onnx.GraphProto, node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """The nodes that do what `node` does; none where it is no plain Gemm."""
    settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
    if node.op_type != "Gemm" or not plain or node.input[1] not in constants:
        return []
    weights = numpy_helper.to_array(constants[node.input[1]])
    turned = np.ascontiguousarray(weights.T) if settings.get("transB", 0) else weights
    name, result = f"{node.input[1]}_of_{node.output[0]}", node.output[0]
    graph.initializer.append(numpy_helper.from_array(turned, name))
    if len(node.input) < 3:
        return [onnx.helper.make_node("MatMul", [node.input[0], name], [result], name=f"{node.name}_MatMul")]
    product = f"{result}_product"
    return [
        onnx.helper.make_node("MatMul", [node.input[0], name], [product], name=f"{node.name}_MatMul"),
        onnx.helper.make_node("Add", [product, node.input[2]], [result], name=f"{node.name}_Add"),
    ]


def scope_of(node_name: str) -> str:
    """The module that a node belongs to, such as "encoder.blocks.3.0.conv_dw"; "" for the tower itself."""
    return node_name.partition("/")[0]


def half_graphs(graphs: Graphs) -> Graphs:
    """The same graphs in half precision, but for what goes in and out."""
    return {graph: _half(model) for graph, model in graphs.items()}


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    converted: onnx.ModelProto = convert_float_to_float16(copied, keep_io_types=True)
    return converted


def encode_graphs(graphs: Graphs) -> dict[Graph, bytes]:
    """The graphs as they stand in files."""
    return {graph: model.SerializeToString(deterministic=True) for graph, model in graphs.items()}
