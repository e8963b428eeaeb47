"""An exported student as a predictor: onnxruntime over three graphs of fixed shapes, and no torch."""

# B pictures, S side of pictures, P phrases of one call, L tokens, C width, H W of masks

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifests.errors import ExportError, RecipeError
from student.export_record import GRAPHS, Graph, VariantRecord, read_variant, variant_folder
from student.predictor import Predicted, Predictor

_Floats = NDArray[np.float32]
_FATAL_ONLY = 3  # of onnxruntime's log: errors; its warnings of graph rewriting are not the user's


class OnnxPredictor(Predictor):
    """A variant of an export; answers do not depend on what else is asked in the same call."""

    def __init__(self, record: VariantRecord, graphs: Mapping[Graph, bytes], *, threads: int | None = None) -> None:
        """A predictor over `graphs`; `threads` None leaves their number to onnxruntime.

        Raises:
            ExportError: onnxruntime cannot run a graph.
        """
        self.record = record
        self.name = f"onnx {record.name}"
        self.size = record.size
        self.mask_threshold = record.mask_threshold
        self.stretch = False
        self._digest = hashlib.sha256(b"".join(hashlib.sha256(graphs[graph]).digest() for graph in GRAPHS)).hexdigest()
        self._sessions = {graph: open_session(graph, graphs[graph], threads) for graph in GRAPHS}
        self._row_of: dict[str, _Floats] = {}

    def digest(self) -> str:
        """16 hex digits over the three graphs."""
        return self._digest[:16]

    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        """What is said of each RGB picture.

        Raises:
            RecipeError: a phrase is longer than the text tower reads.
        """
        return next(self.predict_rounds(images_b3ss, [phrases]))

    def predict_rounds(
        self, images_b3ss: NDArray[np.uint8], rounds: Iterable[Sequence[Sequence[str]]]
    ) -> Iterator[list[Predicted]]:
        """`predict` for one round of phrases after another; the image tower sees each picture once."""
        seen = [self.see(image_3ss) for image_3ss in images_b3ss]
        for phrases in rounds:
            self._read({phrase for asked in phrases for phrase in asked})
            yield [self._answer(one, asked) for one, asked in zip(seen, phrases, strict=True)]

    def see(self, image_3ss: NDArray[np.uint8]) -> dict[str, _Floats]:
        """What the image tower gives of one picture: what the decoder calls "cells" and "pixels"."""
        cells_1nc, pixels_1chw = self._sessions["image"].run(None, {"image": np.ascontiguousarray(image_3ss)[None]})
        return {"cells": cells_1nc, "pixels": pixels_1chw}

    def rows(self, phrases: Sequence[str]) -> _Floats:
        """The text tower's row of each phrase [len(phrases), C]; each is read once in a predictor's life."""
        self._read(set(phrases))
        return np.stack([self._row_of[phrase] for phrase in phrases])

    def decode(self, seen: Mapping[str, _Floats], phrases: Sequence[str]) -> tuple[_Floats, _Floats]:
        """Logits of presence [P] and masks [P, H, W] of any number of phrases, a few in a call."""
        answers = []
        for chunk in _chunks(phrases, self.record.num_phrases):
            presence_p, masks_phw = self._sessions["decoder"].run(None, {**seen, "rows": self.rows(chunk)})
            answers.append((presence_p, masks_phw))
        num = len(phrases)
        return np.concatenate([one for one, _ in answers])[:num], np.concatenate([one for _, one in answers])[:num]

    def fixed_call(self) -> Callable[[], object]:
        """See `fixed_call_of`."""
        return fixed_call_of(self._sessions, self.record)

    def _answer(self, seen: Mapping[str, _Floats], asked: Sequence[str]) -> Predicted:
        if not asked:
            side = seen["pixels"].shape[-1]
            return Predicted(presence_p=np.zeros(0, np.float32), masks_phw=np.zeros((0, side, side), np.float32))
        presence_p, masks_phw = self.decode(seen, asked)
        return Predicted(presence_p=_sigmoid(presence_p), masks_phw=_sigmoid(masks_phw))

    def _read(self, phrases: set[str]) -> None:
        """Take the rows of those phrases that have not been read, in an order that chance does not decide."""
        new = sorted(phrases - self._row_of.keys())
        for chunk in _chunks(new, self.record.num_phrases):
            tokens_pl = np.stack([self._tokens(phrase) for phrase in chunk])
            (rows_pc,) = self._sessions["text"].run(None, {"tokens": tokens_pl})
            self._row_of.update(zip(chunk, rows_pc, strict=True))

    def _tokens(self, phrase: str) -> NDArray[np.int64]:
        from student.tokens import token_ids  # torch comes with it, which measuring memory must not

        ids, context = token_ids(phrase), self.record.context
        if len(ids) > context:
            raise RecipeError(
                f"phrase {phrase[:60]!r} has {len(ids)} tokens with its ends; expected at most {context}. Shorten it, "
                "or train with a larger model.context"
            )
        return np.array([*ids, *[0] * (context - len(ids))], np.int64)


def open_onnx(folder: str, *, threads: int | None = None) -> OnnxPredictor:
    """The predictor of an export, or of one variant of it.

    Raises:
        ExportError: the folder is none, or a file in it is damaged.
    """
    record, graphs = read_variant(variant_folder(folder))
    return OnnxPredictor(record, graphs, threads=threads)


def onnx_runtime() -> tuple[str, str]:
    """What runs the graphs, and its version."""
    import onnxruntime

    return "onnxruntime", str(onnxruntime.__version__)


def fixed_call_of(sessions: Mapping[Graph, Any], record: VariantRecord) -> Callable[[], object]:
    """One whole call on a grey picture and equal tokens: what latency and memory are read of."""
    image_13ss = np.full((1, 3, record.size, record.size), 127, np.uint8)
    tokens_pl = np.full((record.num_phrases, record.context), 127, np.int64)

    def call() -> object:
        cells_1nc, pixels_1chw = sessions["image"].run(None, {"image": image_13ss})
        (rows_pc,) = sessions["text"].run(None, {"tokens": tokens_pl})
        return sessions["decoder"].run(None, {"cells": cells_1nc, "pixels": pixels_1chw, "rows": rows_pc})

    return call


def open_session(graph: Graph, data: bytes | str, threads: int | None) -> Any:  # noqa: ANN401 - onnxruntime is not typed
    """An onnxruntime session over a graph's bytes, or over the file at a path.

    Raises:
        ExportError: onnxruntime cannot run the graph.
    """
    from onnxruntime import InferenceSession, SessionOptions
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Unsupported

    options = SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    try:
        return InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidGraph, InvalidProtobuf, Unsupported) as error:
        said = " ".join(str(error).split())[:300]
        raise ExportError(
            f"the {graph} graph cannot be run: {said}; expected one of student.export, and an onnxruntime as new as "
            "the one that it was made with"
        ) from error


def _chunks(phrases: Sequence[str], num: int) -> Iterator[list[str]]:
    """Runs of exactly `num` phrases, the last one filled up with its first."""
    for first in range(0, len(phrases), num):
        chunk = list(phrases[first : first + num])
        yield chunk + chunk[:1] * (num - len(chunk))


def _sigmoid(logits: _Floats) -> _Floats:
    chance: _Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return chance
