"""SAM 3 as a teacher and a verifier, through `transformers`' `Sam3Model`: its presence, and its semantic mask.

It reads phrases with its own tokenizer and pictures as its own processor does: stretched over the square. A phrase that
is longer than its context is refused, as two phrases that are cut alike would be one question.
"""

# B pictures, P phrases of one call, V phrases, L tokens of the context, D width, S side, n cells of the coarsest level

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manifests import files
from manifests.errors import PredictionError, RecipeError
from student.predictor import FeatureGiver, Predicted, Predictor
from student.torch_predictor import digest_of_weights

_PROMPTS_AT_ONCE = 8  # of one picture: each takes a pass of the detector, with 85 MB of features at full size
_FILES, _WEIGHTS = ("config.json", "preprocessor_config.json"), ".safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.json")  # one of them
_MODEL_TYPES = ("sam3", "sam3_video")  # the second holds a sam3
_KEPT_PHRASES = 4096  # whose tokens' features are kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """What `transformers` loads, which it does not type."""

    model: Any  # Sam3Model
    tokenizer: Any  # CLIPTokenizer
    processor: Any  # Sam3ImageProcessor


class Sam3Predictor(Predictor, FeatureGiver):
    """SAM 3 in memory; see `open_sam3`."""

    def __init__(self, loaded: "Loaded", *, name: str) -> None:
        model, processor = loaded.model, loaded.processor
        self.name = name
        self.size = int(model.config.vision_config.image_size)
        self.stretch = True
        self._model = model
        self._tokenizer = loaded.tokenizer
        self._context = int(model.config.text_config.max_position_embeddings)
        self._device = next(iter(model.parameters())).device
        self._mean_c, self._std_c = (
            torch.tensor(found, device=self._device).view(-1, 1, 1) * 255
            for found in (processor.image_mean, processor.image_std)
        )
        self._texts: dict[str, tuple[Tensor, Tensor]] = {}  # features [L, D] and which tokens are no padding [L]
        vocabulary = msgspec.json.encode(sorted(self._tokenizer.get_vocab().items()))
        settings = [self.size, processor.image_mean, processor.image_std, hashlib.sha256(vocabulary).hexdigest()]
        self._digest = digest_of_weights(model.state_dict(), settings)

    def digest(self) -> str:
        """See `Predictor`; over weights, the tokenizer's vocabulary and how pictures are normalised."""
        return self._digest

    def token_ids(self, phrase: str) -> list[int]:
        """The model's own tokens of a phrase, without padding.

        Raises:
            RecipeError: there are more than it reads.
        """
        ids: list[int] = self._tokenizer(phrase)["input_ids"]
        if len(ids) > self._context:
            raise RecipeError(
                f"phrase {phrase[:60]!r} has {len(ids)} tokens for {self.name}; expected at most {self._context}. "
                "Leave it out of what is asked"
            )
        return ids

    def predict(self, images_b3ss: NDArray[np.uint8], phrases: Sequence[Sequence[str]]) -> list[Predicted]:
        """See `Predictor`."""
        return next(self.predict_rounds(images_b3ss, [phrases]))

    def predict_rounds(
        self, images_b3ss: NDArray[np.uint8], rounds: Iterable[Sequence[Sequence[str]]]
    ) -> Iterator[list[Predicted]]:
        """See `Predictor`; the vision encoder sees each picture once."""
        seen = [self._see(image_3ss) for image_3ss in images_b3ss]
        for phrases in rounds:
            yield [self._answer(one, asked) for one, asked in zip(seen, phrases, strict=True)]

    def image_rows(self, images_b3ss: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mean over the level that the detector reads, as a unit row per picture [B, D]."""
        levels = [self._see(image_3ss).fpn_hidden_states[-2] for image_3ss in images_b3ss]
        return _unit(torch.cat([level_1dhw.mean((2, 3)) for level_1dhw in levels]))

    def phrase_rows(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """The mean over each phrase's tokens as the detector reads them, as a unit row [V, D]."""
        return _unit(torch.stack([rows_ld[kept_l].mean(0) for rows_ld, kept_l in map(self._read, phrases)]))

    @torch.inference_mode()
    def _see(self, image_3ss: NDArray[np.uint8]) -> Any:  # noqa: ANN401 - transformers' own output class
        pixels_3ss = torch.from_numpy(np.ascontiguousarray(image_3ss)).to(self._device)
        return self._model.get_vision_features((pixels_3ss - self._mean_c).div(self._std_c)[None])

    @torch.inference_mode()
    def _read(self, phrase: str) -> tuple[Tensor, Tensor]:
        """The features of a phrase's tokens, padded to the context [L, D], and which are no padding [L]."""
        if phrase not in self._texts:
            if len(self._texts) >= _KEPT_PHRASES:
                self._texts.clear()
            ids = self.token_ids(phrase)
            padded = self._tokenizer(phrase, padding="max_length", max_length=self._context)["input_ids"]
            kept_l = torch.arange(self._context, device=self._device) < len(ids)
            found = self._model.get_text_features(
                torch.tensor([padded], device=self._device), attention_mask=kept_l[None].long()
            )
            self._texts[phrase] = found.pooler_output[0], kept_l
        return self._texts[phrase]

    def _answer(self, seen: Any, asked: Sequence[str]) -> Predicted:  # noqa: ANN401
        calls = [asked[start : start + _PROMPTS_AT_ONCE] for start in range(0, len(asked), _PROMPTS_AT_ONCE)]
        answers = [self._ask(seen, phrases) for phrases in calls]
        nothing = torch.zeros((0, 1, 1))
        return Predicted(
            presence_p=torch.cat([torch.zeros(0), *(presence_p for presence_p, _ in answers)]).numpy(),
            masks_phw=(torch.cat([masks_phw for _, masks_phw in answers]) if answers else nothing).numpy(),
        )

    @torch.inference_mode()
    def _ask(self, seen: Any, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Probabilities of presence [P] and of masks [P, h, w], on the CPU."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        rows_pld, kept_pl = (torch.stack(found) for found in zip(*map(self._read, phrases), strict=True))
        answer = self._model(
            vision_embeds=_repeated(seen, len(phrases)),
            text_embeds=BaseModelOutputWithPooling(pooler_output=rows_pld),
            attention_mask=kept_pl.long(),
        )
        return answer.presence_logits.sigmoid().flatten().cpu(), answer.semantic_seg.sigmoid()[:, 0].cpu()


def _repeated(seen: Any, num: int) -> Any:  # noqa: ANN401
    """What was seen of one picture, for `num` phrases; nothing is copied."""
    return type(seen)(
        fpn_hidden_states=tuple(level.expand(num, -1, -1, -1) for level in seen.fpn_hidden_states),
        fpn_position_encoding=tuple(level.expand(num, -1, -1, -1) for level in seen.fpn_position_encoding),
    )


def _unit(rows_nd: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = functional.normalize(rows_nd.float(), dim=1).cpu().numpy()
    return rows


def open_sam3(source: str, *, device: torch.device) -> Sam3Predictor:
    """SAM 3 from a folder that `save_pretrained` wrote (model, tokenizer, image processor), or from the hub.

    Raises:
        PredictionError: `transformers` is not installed, there is no such folder or repository, it holds something else
            or is not whole, or its weights are a pickle.
    """
    if find_spec("transformers") is None:
        raise PredictionError(
            f"sam3:{source}: transformers is not installed; expected the extra sam3. "
            "In Absentia's folder: pip install -e '.[sam3]'"
        )
    from safetensors import SafetensorError

    if local := os.path.isdir(source):
        _require_files(source)
    try:
        with _silent():
            loaded, missing = _load(source, local=local)
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())[:300]
        raise PredictionError(
            f"sam3:{source}: cannot be loaded: {said}; expected a folder with config.json, model.safetensors, the "
            "tokenizer's and the image processor's files, or a hub id within reach"
        ) from error
    if missing:
        raise PredictionError(
            f"sam3:{source}: {len(missing)} tensors are missing, {missing[0]} first; expected the weights of all of "
            "Sam3Model, as the rest would be random. Download them again"
        )
    loaded.model.eval().to(device)
    return Sam3Predictor(loaded, name=f"sam3 {os.path.basename(os.path.abspath(source)) if local else source}")


def _require_files(folder: str) -> None:
    """Stop early, and plainly, where a folder is no SAM 3: the library asks the hub for what it misses, and waits."""
    names = files.names_in(folder)
    lacking = [name for name in _FILES if name not in names]
    if not any(name.endswith(_WEIGHTS) for name in names):
        lacking.append(f"*{_WEIGHTS}")
    if not any(name in names for name in _TOKENIZERS):
        lacking.append(_TOKENIZERS[0])
    if lacking:
        raise PredictionError(
            f"sam3:{folder}: has no {', '.join(lacking)}; expected what save_pretrained wrote of the model, its "
            "tokenizer and its image processor (a pickle is not read). Download the folder again"
        )


def _load(source: str, *, local: bool) -> tuple[Loaded, list[str]]:
    """What lies at `source`, and the tensors that do not."""
    import transformers

    library: Any = transformers
    config, _ = library.PreTrainedConfig.get_config_dict(source, local_files_only=local)
    if (found := config.get("model_type")) not in _MODEL_TYPES:  # or a SAM 3 of full size would be made at random
        raise ValueError(f"its config is of a model {found!r}, not of sam3")
    model, report = library.Sam3Model.from_pretrained(
        source, use_safetensors=True, local_files_only=local, output_loading_info=True
    )
    tokenizer = library.CLIPTokenizer.from_pretrained(source, local_files_only=local)
    processor = library.Sam3ImageProcessor.from_pretrained(source, local_files_only=local)
    return Loaded(model=model, tokenizer=tokenizer, processor=processor), sorted(report["missing_keys"])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the bars that `transformers` draws while it loads."""
    from transformers.utils import logging as quiet

    logging: Any = quiet
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
