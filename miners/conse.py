"""ConSE, the encoder that needs no download: a classifier's probabilities, spent on embeddings of its class names.

A picture's row is the convex combination of the embeddings of its most probable ImageNet classes; a phrase's row is
its sentence embedding. Both lie in the space of the sentence encoder, so any phrase can be asked, not the thousand
class names alone. The weights come with pip packages.

Source: Norouzi et al., 2013, "Zero-Shot Learning by Convex Combination of Semantic Embeddings", arXiv 1312.5650, eq. 2.
"""

# B pictures, S views, C classes, V phrases, D width

import hashlib
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.fusion import fuse_conv_bn_eval

from manifests.packaged import LITE0_SHA256, lite0_weights
from miners.minilm import OTHERWISE, MiniLm
from miners.minilm import WEIGHTS_SHA256 as TEXT_SHA256
from miners.templates import filled
from miners.views import Geometry

log = logging.getLogger(__name__)
NAME = "conse"
_WEIGHTS = (LITE0_SHA256, TEXT_SHA256)
_SHOWN = 5  # unread phrases in the warning


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is free in ConSE; chosen by recall on COCO, see docs/encoders.md."""

    num_classes: int = 100  # T of the paper: the most probable classes that are combined
    temperature: float = 1.5  # of the softmax
    centred: bool = True  # the mean class embedding is taken from every row
    mean: float = 0.5  # of the pixels' channels, as TensorFlow's Lite models have them; ImageNet's own loses recall
    deviation: float = 0.5


# larger than the classifier was trained on, for the small things of a full picture; nothing at the edges is cut off
GEOMETRY = Geometry(height=288, width=288, resize="squash")
SETTINGS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conse:
    """The encoder; see `load_conse`."""

    classifier: torch.nn.Module
    text: MiniLm
    classes_cd: NDArray[np.float32]
    mean_d: NDArray[np.float32]
    templates: tuple[str, ...]
    settings: Settings
    geometry: Geometry
    digest: str
    weights_digest: str
    preprocessing_digest: str
    device: torch.device
    name: str = NAME

    @property
    def dim(self) -> int:
        """Width of its rows."""
        return int(self.classes_cd.shape[1])

    def encode_images(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """One unit row per picture [B, D]: the mean over its views of their convex combinations."""
        logits_bsc = self.logits(pixels_bshw3)
        return combine(logits_bsc, self.classes_cd, self.settings)

    def logits(self, pixels_bshw3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the classifier says of every view [B, S, C]."""
        num, views = pixels_bshw3.shape[:2]
        flat = torch.from_numpy(pixels_bshw3.reshape(-1, *pixels_bshw3.shape[2:])).to(self.device)
        with torch.inference_mode():  # permuted, the pixels lie as the classifier has them: channels last
            mean, deviation = self.settings.mean, self.settings.deviation
            pixels = torch.div(flat.permute(0, 3, 1, 2), 255 * deviation).sub_(mean / deviation)  # in two passes
            logits: NDArray[np.float32] = self.classifier(pixels).cpu().numpy()
        return logits.reshape(num, views, -1)

    def encode_texts(self, phrases: Sequence[str]) -> NDArray[np.float32]:
        """One unit row per phrase [V, D]; the log names those of which nothing is read."""
        self._warn_of_unread(phrases)
        return _unit(_text_rows(self.text, phrases, self.templates) - self.mean_d)

    def _warn_of_unread(self, phrases: Sequence[str]) -> None:
        """Say which phrases share a row because they are in a script that the sentence encoder does not know."""
        if not (unread := self.text.unread(phrases)):
            return
        shown = ", ".join(map(repr, unread[:_SHOWN])) + (", …" if len(unread) > _SHOWN else "")
        log.warning(
            "encoder %s: %d of %d phrases hold no word that it reads, so that nothing tells them apart: %s; expected "
            "English. Translate them, or name an encoder that reads them",
            self.name,
            len(unread),
            len(phrases),
            shown,
        )


def load_conse(templates: Sequence[str], settings: Settings = SETTINGS, geometry: Geometry = GEOMETRY) -> Conse:
    """ConSE with its weights loaded and its classes embedded; takes about a second.

    Raises:
        RecipeError: a package is not installed, or its weights are not those that were pinned.
    """
    text = MiniLm()
    names = class_names()
    rows_cd = text.encode(names)
    mean_d = rows_cd.mean(0) if settings.centred else np.zeros(rows_cd.shape[1], np.float32)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Conse(
        classifier=_load_classifier().to(device),
        device=device,
        text=text,
        classes_cd=_unit(rows_cd - mean_d),
        mean_d=mean_d,
        templates=tuple(templates),
        settings=settings,
        geometry=geometry,
        digest=_digest(*_WEIGHTS, names, templates, settings, geometry),
        weights_digest=_digest(*_WEIGHTS),
        preprocessing_digest=_digest(names, templates, settings, geometry),
    )


def _digest(*said: object) -> str:
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:16]


def class_names() -> list[str]:
    """What ImageNet's classes are called, in the classifier's order; of synonyms the first."""
    from timm.data.imagenet_info import ImageNetInfo

    return [names.partition(",")[0].strip() for names in ImageNetInfo().label_descriptions()]


def combine(
    logits_bsc: NDArray[np.float32], classes_cd: NDArray[np.float32], settings: Settings
) -> NDArray[np.float32]:
    """Unit rows [B, D]: the embeddings of each view's most probable classes, weighted by probability, views averaged.

    A class that is as probable as the last of them is combined, too.
    """
    scaled = logits_bsc.astype(np.float64) / settings.temperature
    probability = np.exp(scaled - scaled.max(2, keepdims=True))
    least = -np.partition(-probability, settings.num_classes - 1, axis=2)[:, :, settings.num_classes - 1, None]
    kept = np.where(probability >= least, probability, 0.0)
    weights_bc = (kept / kept.sum(2, keepdims=True)).mean(1)
    # by torch: numpy's own threads would go on spinning for a while, beside those of the next batch
    mixed = torch.from_numpy(weights_bc) @ torch.from_numpy(classes_cd.astype(np.float64))
    return _unit(mixed.numpy())


def _text_rows(text: MiniLm, phrases: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    """The mean over the templates, as unit rows [V, D]."""
    rows = [text.encode([filled(template, phrase) for phrase in phrases]) for template in templates]
    return _unit(np.mean(rows, axis=0))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _load_classifier() -> torch.nn.Module:
    """EfficientNet-Lite0; the package's tensors are timm's in the same order under other names."""
    import timm

    path = lite0_weights(named_by="encoder conse", otherwise=OTHERWISE)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    classifier: torch.nn.Module = timm.create_model("efficientnet_lite0", pretrained=False)
    classifier.load_state_dict(dict(zip(classifier.state_dict(), stored.values(), strict=True)))
    _fold_statistics(classifier.eval())
    return classifier.to(memory_format=torch.channels_last)  # 1.6 times as fast on a CPU


def _fold_statistics(module: torch.nn.Module) -> None:
    """Put each convolution's batch statistics into its weights, which saves a quarter of the time on a CPU."""
    children = list(module.named_children())
    for (_, convolution), (name, norm) in itertools.pairwise(children):
        if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
            folded = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = folded.weight, folded.bias
            setattr(module, name, getattr(norm, "act", torch.nn.Identity()))  # timm's norms hold the activation
    for _, child in children:
        _fold_statistics(child)
