"""The libraries that took part in a build, with their versions: another one of them may write other bytes."""

import platform
from importlib.metadata import PackageNotFoundError, version

from PIL import features

from manifests.recipe import RETRIEVE, HfSource, Recipe, Sa1bSource

_ALWAYS = ("msgspec", "numpy", "pillow", "pyarrow", "pycocotools")
_ENCODING = ("torch", "timm", "open_clip_torch", "tokenizers", "faiss-cpu", "numba")  # of the miners, and of retrieval


def library_versions(recipe: Recipe) -> dict[str, str]:
    """Versions by the names that pip knows; "" for what was put here without pip. They decide nothing."""
    tables = recipe.sources.values()
    retrieves = any(isinstance(table, Sa1bSource) and table.phrases == RETRIEVE for table in tables)
    names = list(_ALWAYS)
    if recipe.mine is not None or retrieves:
        names += _ENCODING
    if any(isinstance(table, HfSource) for table in tables):
        names.append("datasets")
    return (
        {"python": platform.python_version(), "absentia": version("absentia")}
        | {name: _version(name) for name in names}
        | {"libjpeg_turbo": features.version_feature("libjpeg_turbo") or ""}
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # such as faiss, built by hand
        return ""
