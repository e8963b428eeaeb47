import contextlib
import io
import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from student.graphs import Graphs, encode_graphs
from student.layer_groups import layer_groups
from student.parity import difference, made_pictures
from student.quantisation import Quantiser, Recipe
from student.quantize import INT4_OPS, INT8_OPS, int4_graph, int8_graph, read_ranges
from tests.exports import TINY, make_predictor, make_record, tiny_graphs, tiny_student


@pytest.fixture(scope="module")
def quantiser() -> Quantiser:
    return Quantiser(tiny_graphs(), make_record(), made_pictures(TINY.size))


def ops(graphs: Graphs, graph: str) -> Counter[str]:
    return Counter(node.op_type for node in graphs[graph].graph.node)  # type: ignore[index]


def far(graphs: Graphs) -> float:
    found = difference(tiny_student(), make_predictor(graphs, "quantised"), made_pictures(TINY.size))
    return max(found.presence, found.mask)


def test_whole_numbers_are_much_smaller_and_say_nearly_the_same(quantiser: Quantiser) -> None:
    found = quantiser.graphs_of(Recipe(name="int8-int4"))
    sizes, whole = ({graph: len(data) for graph, data in encode_graphs(one).items()} for one in (found, tiny_graphs()))
    assert sizes["text"] < 0.25 * whole["text"]
    assert sizes["image"] < 0.5 * whole["image"]
    assert 1e-4 < far(found) < 0.25


def test_the_token_embedding_is_in_four_bits_and_every_matrix_too(quantiser: Quantiser) -> None:
    found = ops(quantiser.graphs_of(Recipe(name="int8-int4")), "text")
    assert found["GatherBlockQuantized"] == 1
    assert found["MatMulNBits"] == ops(tiny_graphs(), "text")["MatMul"] - 2  # queries by keys, and these by values


def test_activations_are_unsigned_and_weights_signed(quantiser: Quantiser) -> None:
    graph = quantiser.graphs_of(Recipe(name="int8-int4"))["image"].graph
    kinds = {one.name: one.data_type for one in graph.initializer}
    unsigned, signed = 2, 3  # of onnx.TensorProto
    points = {kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert points == {unsigned}
    weights = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in kinds]
    assert signed in {kinds[name] for name in weights}


def test_quantising_again_gives_the_same_bytes(quantiser: Quantiser) -> None:
    again = Quantiser(tiny_graphs(), make_record(), made_pictures(TINY.size))
    recipe = Recipe(name="int8-int4")
    assert encode_graphs(again.graphs_of(recipe)) == encode_graphs(quantiser.graphs_of(recipe))


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_ranges_can_be_read_otherwise(quantiser: Quantiser, method: str) -> None:
    found = quantiser.graphs_of(Recipe(name="other", method=method))  # type: ignore[arg-type]
    assert far(found) < 0.25


def test_ranges_do_not_depend_on_how_many_pictures_are_in_memory() -> None:
    model = tiny_graphs()["image"]
    pictures = [one.image_3ss for one in made_pictures(TINY.size)]
    ranges = read_ranges(model, [{"image": one[None]} for one in pictures], "minmax")
    alone = [read_ranges(model, [{"image": one[None]}], "minmax") for one in pictures]
    for name in ranges.keys():  # noqa: SIM118 - onnxruntime's table of ranges is no mapping
        low, high = (np.ravel(one)[0] for one in ranges[name].range_value)
        each = [[np.ravel(one)[0] for one in found[name].range_value] for found in alone]
        assert (low, high) == (min(one[0] for one in each), max(one[1] for one in each))


def test_every_layer_that_is_quantised_is_in_one_group() -> None:
    groups = layer_groups(tiny_graphs())
    assert len(groups) <= 9
    assert len({group.name for group in groups}) == len(groups)
    for graph, model in tiny_graphs().items():
        known = INT4_OPS if graph == "text" else INT8_OPS
        names = Counter(name for group in groups if group.graph == graph for name in group.nodes)
        assert set(names) == {node.name for node in model.graph.node if node.op_type in known}
        assert set(names.values()) == {1}


def test_groups_are_named_by_where_they_are() -> None:
    names = [group.name for group in layer_groups(tiny_graphs())]
    assert names[0].startswith("image encoder stem")
    assert names[-5:] == ["text embedding", "text layers", "decoder attention", "decoder presence", "decoder mask"]


def test_a_group_alone_leaves_the_rest_in_float(quantiser: Quantiser) -> None:
    embedding = next(group for group in quantiser.groups if group.name == "text embedding")
    found = quantiser.alone(embedding)
    assert ops(found, "text")["GatherBlockQuantized"] == 1
    assert ops(found, "text")["MatMulNBits"] == 0
    assert found["image"] is tiny_graphs()["image"]


def test_groups_that_are_kept_stay_in_float(quantiser: Quantiser) -> None:
    kept = quantiser.graphs_of(Recipe(name="kept", kept=("text embedding", "decoder mask")))
    whole = quantiser.graphs_of(Recipe(name="int8-int4"))
    assert ops(kept, "text")["GatherBlockQuantized"] == 0
    assert 0 < ops(kept, "decoder")["QuantizeLinear"] < ops(whole, "decoder")["QuantizeLinear"]


def test_a_graph_without_the_named_nodes_is_left_as_it_is() -> None:
    assert int8_graph(tiny_graphs()["decoder"], None, {"no such node"}) is tiny_graphs()["decoder"]


def test_a_block_of_zeros_is_quantised_without_a_warning() -> None:
    copied = type(tiny_graphs()["text"])()
    copied.CopyFrom(tiny_graphs()["text"])
    table = max(copied.graph.initializer, key=lambda one: len(one.raw_data))
    table.raw_data = bytes(len(table.raw_data))
    assert "GatherBlockQuantized" in {node.op_type for node in int4_graph(copied).graph.node}


@contextlib.contextmanager
def listening() -> Iterator[io.StringIO]:
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        yield heard


def test_nothing_is_printed_and_logging_is_as_it_was() -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), root.manager.disable)
    with listening() as heard:
        inputs = [{"image": one.image_3ss[None]} for one in made_pictures(TINY.size, 1)]
        read_ranges(tiny_graphs()["image"], inputs, "entropy")
        int4_graph(tiny_graphs()["text"])
    assert heard.getvalue() == ""
    assert (root.level, list(root.handlers), root.manager.disable) == before
