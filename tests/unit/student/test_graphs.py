import numpy as np
import onnx
import pytest
import torch

from manifests.errors import ExportError, RecipeError
from student.export_record import GRAPHS, Difference
from student.graphs import encode_graphs, half_graphs, scope_of
from student.onnx_predictor import OnnxPredictor
from student.parity import BOUND, difference, made_pictures, require_parity
from student.torch_predictor import TorchPredictor
from tests.exports import PHRASES, TINY, make_predictor, make_record, tiny_graphs, tiny_student

ASKED = ("cat", "dog", "a red car", "kite", "zebra")


def test_every_shape_is_fixed_and_the_picture_comes_in_as_bytes() -> None:
    graphs = tiny_graphs()
    inputs = {one.name: one.type.tensor_type for graph in GRAPHS for one in graphs[graph].graph.input}
    shapes = {name: [dim.dim_value for dim in found.shape.dim] for name, found in inputs.items()}
    assert shapes["image"] == [1, 3, TINY.size, TINY.size]
    assert inputs["image"].elem_type == onnx.TensorProto.UINT8
    assert shapes["tokens"] == [PHRASES, TINY.context]
    assert shapes["rows"] == [PHRASES, TINY.width]
    assert all(size > 0 for shape in shapes.values() for size in shape)
    outputs = [[dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in graphs["decoder"].graph.output]
    assert outputs == [[PHRASES], [PHRASES, TINY.size // 4, TINY.size // 4]]


def test_the_export_says_what_torch_says_to_a_thousandth_of_a_logit() -> None:
    found = difference(tiny_student(), make_predictor(tiny_graphs()), made_pictures(TINY.size))
    assert max(found.presence_logit, found.mask_logit) <= BOUND
    require_parity(found)


@pytest.mark.parametrize("wrong", [0.0011, float("nan")])
def test_an_export_that_strays_is_refused(wrong: float) -> None:
    strays = Difference(variant="fp32", presence_logit=0.0, mask_logit=wrong, presence=0.0, mask=0.0)
    with pytest.raises(ExportError, match=r"strays from its student by .* expected at most 0\.001\. Try another"):
        require_parity(strays)


def test_another_student_than_the_exported_one_is_told_apart() -> None:
    other = type(tiny_student())(TINY).eval()
    found = difference(other, make_predictor(tiny_graphs()), made_pictures(TINY.size))
    with pytest.raises(ExportError, match="strays"):
        require_parity(found)


def test_the_predictor_answers_as_the_student_does_in_torch() -> None:
    images = np.stack([one.image_3ss for one in made_pictures(TINY.size, 2)])
    asked = [list(ASKED), ["kite"]]
    theirs = TorchPredictor(tiny_student()).predict(images, asked)
    ours = make_predictor(tiny_graphs()).predict(images, asked)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.presence_p, other.presence_p, atol=1e-4)
        np.testing.assert_allclose(one.masks_phw, other.masks_phw, atol=1e-4)
    assert [len(one.presence_p) for one in ours] == [5, 1]


def test_an_answer_does_not_depend_on_what_else_is_asked() -> None:
    image = made_pictures(TINY.size, 1)[0].image_3ss[None]
    together = make_predictor(tiny_graphs()).predict(image, [ASKED])[0]
    for place, phrase in enumerate(ASKED):
        alone = make_predictor(tiny_graphs()).predict(image, [[phrase]])[0]
        np.testing.assert_allclose(alone.presence_p[0], together.presence_p[place], atol=1e-6)


def test_a_picture_of_which_nothing_is_asked_has_no_answers() -> None:
    found = make_predictor(tiny_graphs()).predict(made_pictures(TINY.size, 1)[0].image_3ss[None], [[]])[0]
    assert found.presence_p.shape == (0,)
    assert found.masks_phw.shape == (0, TINY.size // 4, TINY.size // 4)


def test_a_phrase_beyond_the_context_is_refused() -> None:
    predictor = make_predictor(tiny_graphs())
    with pytest.raises(RecipeError, match=r"tokens with its ends; expected at most 16\. Shorten it, or train"):
        predictor.predict(np.zeros((1, 3, TINY.size, TINY.size), np.uint8), [["word " * 20]])


def test_digests_tell_graphs_apart() -> None:
    half = half_graphs(tiny_graphs())
    assert make_predictor(tiny_graphs()).digest() == make_predictor(tiny_graphs(), "other").digest()
    assert make_predictor(half, "fp16").digest() != make_predictor(tiny_graphs()).digest()


def test_a_graph_that_onnxruntime_cannot_read_is_one_error() -> None:
    broken = {**encode_graphs(tiny_graphs()), "text": b"no graph"}
    with pytest.raises(ExportError, match=r"the text graph cannot be run: .*; expected one of student\.export"):
        OnnxPredictor(make_record(), broken)


def test_half_precision_halves_the_files_and_stays_near() -> None:
    half = half_graphs(tiny_graphs())
    sizes, whole = ({graph: len(data) for graph, data in encode_graphs(one).items()} for one in (half, tiny_graphs()))
    assert sizes["text"] < 0.55 * whole["text"]
    found = difference(tiny_student(), make_predictor(half, "fp16"), made_pictures(TINY.size))
    assert 0 < found.presence < 0.02


def test_exported_files_tell_nothing_of_the_machine_that_made_them() -> None:
    for data in encode_graphs(tiny_graphs()).values():
        assert b".py" not in data
        assert b"site-packages" not in data


def test_nodes_are_named_by_their_modules() -> None:
    scopes = {scope_of(node.name) for node in tiny_graphs()["decoder"].graph.node}
    assert {"layers.0.tell", "presence", "kernel.2"} <= scopes
    names = [node.name for node in tiny_graphs()["image"].graph.node]
    assert len(set(names)) == len(names)


def test_the_text_tower_holds_no_gemm_as_these_stay_in_float() -> None:
    assert "Gemm" not in {node.op_type for node in tiny_graphs()["text"].graph.node}


def test_exporting_leaves_the_student_as_it_was() -> None:
    tiny_graphs()
    assert not tiny_student().training
    assert all(parameter.dtype == torch.float32 for parameter in tiny_student().parameters())
