"""Graphs in whole numbers: 8 bits for image tower and decoder, from ranges that were read; 4 bits for the text tower.

Activations are unsigned and weights signed, which runs about twice as fast on CPUs as both signed. Norms and softmax
stay in float: onnxruntime has no whole-number kernels for them, so that rounding them costs accuracy and saves nothing.
Of the text tower the token embedding is most, so it is quantised as the matrices are.
"""

# K calibration inputs

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

Method = Literal["minmax", "percentile", "entropy"]
Inputs = Mapping[str, NDArray[Any]]  # of one call of a graph, by name
Ranges = Any  # onnxruntime's TensorsData: the range of each tensor by its name

INT8_OPS = ("Add", "Clip", "Conv", "Gemm", "MatMul", "Relu", "Reshape", "Resize", "Split", "Transpose")
INT4_OPS = ("MatMul", "Gather")
INT4_BLOCK = 32  # weights that share a scale
PERCENTILE = 99.99


def read_ranges(model: onnx.ModelProto, inputs: Sequence[Inputs], method: Method) -> Ranges:
    """The range of each activation of `model` over `inputs`, by `method`; one input is in memory at a time."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    methods = {
        "minmax": (CalibrationMethod.MinMax, {}),
        "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE, "symmetric": False}),
        "entropy": (CalibrationMethod.Entropy, {"symmetric": False}),
    }
    calibration_method, options = methods[method]
    with tempfile.TemporaryDirectory(prefix="absentia-ranges-") as folder, _quiet():
        source = Path(folder) / "model.onnx"
        onnx.save(model, source)
        calibrator = create_calibrator(
            source,
            list(INT8_OPS),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=calibration_method,
            extra_options=options,
        )
        for one in inputs:
            calibrator.collect_data(_Once(one))
        return calibrator.compute_data()


class _Once:
    """One input, in the form in which onnxruntime reads inputs."""

    def __init__(self, inputs: Inputs) -> None:
        self._left: list[Inputs] = [inputs]

    def get_next(self) -> Inputs | None:
        """The input, and None afterwards."""
        return self._left.pop() if self._left else None


def int8_graph(model: onnx.ModelProto, ranges: Ranges, nodes: Collection[str] | None = None) -> onnx.ModelProto:
    """`model` with 8-bit weights, by channel, and activations; of the named nodes alone where some are named."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import save_and_reload_model_with_shape_infer

    chosen = [
        node.name for node in model.graph.node if node.op_type in INT8_OPS and (nodes is None or node.name in nodes)
    ]
    if not chosen:
        return model
    with _quiet():
        quantizer = QDQQuantizer(
            save_and_reload_model_with_shape_infer(model),
            True,  # by channel: depthwise convolutions have channels of very different ranges
            False,  # not reduced to 7 bits
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            chosen,
            [],
            list(INT8_OPS),
            {},
        )
        quantizer.quantize_model()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


def int4_graph(model: onnx.ModelProto, nodes: Collection[str] | None = None) -> onnx.ModelProto:
    """`model` with 4-bit matrices and embeddings, in blocks; of the named nodes alone where some are named."""
    with _quiet():
        from onnxruntime.quantization import QuantFormat
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    config = DefaultWeightOnlyQuantConfig(
        block_size=INT4_BLOCK,
        is_symmetric=False,
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=INT4_OPS,
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    kept = [node.name for node in copied.graph.node if nodes is not None and node.name not in nodes]
    with _quiet(), np.errstate(all="ignore"):  # a block of zeros is divided by its scale before that is looked at
        quantizer = MatMulNBitsQuantizer(copied, nodes_to_exclude=kept, algo_config=config)
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what onnxruntime prints and logs off the user's screen, and undo what importing it does to logging."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
