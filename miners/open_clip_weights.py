"""Where the weights of an open_clip model lie: a tag's or a repository's in the hub's cache, a file, a folder.

The hub's cache is asked first, without the network; only a model that the user named is fetched. A weights file is
safetensors, which holds numbers and nothing else; a pickle can run code, and is refused unless it is allowed by name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from manifests.errors import RecipeError

HUB_PREFIX, FOLDER_PREFIX = "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"
_SAFE_SUFFIX = ".safetensors"
_SAFE_NAME, _PICKLE_NAME = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_EXAMPLE = "ViT-B-32-256/datacomp_s34b_b86k"
_WAYS = f"auto, conse, MODEL/PRETRAINED (as {_EXAMPLE}), MODEL@FILE.safetensors, hf-hub:ORG/NAME or local-dir:FOLDER"

Kind = Literal["tag", "file", "hub", "folder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A model of open_clip, as the user names it."""

    name: str
    kind: Kind
    model: str  # that open_clip knows; "" where the repository or the folder says what it is
    place: str  # the tag, the file, the repository or the folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The files of a model on this machine."""

    file: Path
    config: Path | None  # beside it, where a repository or a folder brings one


def parse_name(name: str) -> Named:
    """What `name` asks for.

    Raises:
        RecipeError: it has none of the forms that `miners.encoders` lists, or open_clip knows no such model or tag.
    """
    if name.startswith(HUB_PREFIX):
        place = name.removeprefix(HUB_PREFIX)
        if len([part for part in place.split("/") if part]) != 2:
            raise RecipeError(f"encoder {name!r}: expected {HUB_PREFIX}ORG/NAME")
        return Named(name=name, kind="hub", model="", place=place)
    if name.startswith(FOLDER_PREFIX):
        return Named(name=name, kind="folder", model="", place=name.removeprefix(FOLDER_PREFIX))
    model, separator, place = name.partition("@")
    if separator:
        return Named(name=name, kind="file", model=_known_model(model, name), place=place)
    model, separator, place = name.rpartition("/")
    if not separator:
        raise RecipeError(f"encoder {name!r}: expected {_WAYS}")
    return Named(name=name, kind="tag", model=_known_model(model, name), place=_known_tag(model, place, name))


def _known_model(model: str, name: str) -> str:
    import open_clip

    if open_clip.get_model_config(model) is None:
        like = [known for known in open_clip.list_models() if known.casefold().startswith(model[:5].casefold())]
        near = ", ".join(like[:8]) or "python -c 'import open_clip; print(open_clip.list_models())' lists them"
        raise RecipeError(f"encoder {name!r}: open_clip knows no model {model!r}; expected {_WAYS}. Models: {near}")
    return model


def _known_tag(model: str, tag: str, name: str) -> str:
    from open_clip.pretrained import is_pretrained_cfg, list_pretrained_tags_by_model

    if not is_pretrained_cfg(model, tag):
        known = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise RecipeError(f"encoder {name!r}: {model} has no pretrained tag {tag!r}; its tags: {known}")
    return tag


def licence_note(named: Named) -> str:
    """What the user must know of the weights' licence; "" where nothing is out of the ordinary."""
    if "mobileclip" in named.name.casefold():
        return " Its weights are licensed for research only (Apple's model licence): not for a product."
    return ""


def find_weights(named: Named, *, download: bool, allow_pickle: str = "") -> Weights | None:
    """The weights of `named` on this machine; None where they are not, and `download` is not asked.

    Raises:
        RecipeError: they cannot be had, or are a pickle that was not allowed.
    """
    match named.kind:
        case "file":
            return _of_file(named, Path(named.place), None, allow_pickle)
        case "folder":
            return _of_folder(named, allow_pickle)
        case "hub":
            return _of_hub(named, named.place, "", download=download, allow_pickle=allow_pickle)
        case "tag":
            repository, _, file = _hub_place(named).rpartition("/")
            return _of_hub(named, repository, file, download=download, allow_pickle=allow_pickle)


def _of_file(named: Named, file: Path, config: Path | None, allow_pickle: str) -> Weights:
    if not file.is_file():
        raise RecipeError(f"encoder {named.name}: {file} does not exist; expected the model's weights there")
    if not _is_safetensors(file) and not (allow_pickle and file.resolve() == Path(allow_pickle).resolve()):
        raise RecipeError(
            f"encoder {named.name}: {file} is no safetensors file, and a pickle can run code when it is read. Convert "
            "it, or, if you trust whoever made it, allow that very file by name (--allow-pickle)"
        )
    return Weights(file=file, config=config)


def _is_safetensors(file: Path) -> bool:
    """Whether the file is what its suffix says: the length of a JSON header, then the header."""
    with file.open("rb") as opened:
        head = opened.read(9)
    stated = int.from_bytes(head[:8], "little")
    return file.suffix == _SAFE_SUFFIX and head[8:] == b"{" and stated < file.stat().st_size


def _of_folder(named: Named, allow_pickle: str) -> Weights:
    folder = Path(named.place)
    config = folder / CONFIG
    if not config.is_file():
        raise RecipeError(f"encoder {named.name}: {config} does not exist; expected a folder as open_clip saves it")
    safe = sorted(folder.glob(f"*{_SAFE_SUFFIX}"))
    preferred = [file for file in safe if file.name == _SAFE_NAME]
    return _of_file(named, next(iter([*preferred, *safe]), folder / _PICKLE_NAME), config, allow_pickle)


def _hub_place(named: Named) -> str:
    """The hub's repository of a tag, with `/` and a file name or nothing after it."""
    from open_clip.pretrained import get_pretrained_cfg

    place: str = get_pretrained_cfg(named.model, named.place).get("hf_hub", "")
    if not place:
        raise RecipeError(f"encoder {named.name}: is on no hub; download its weights and name MODEL@FILE.safetensors")
    return place


def _of_hub(named: Named, repository: str, file: str, *, download: bool, allow_pickle: str) -> Weights | None:
    """The weights in the hub's cache, fetched where that is asked; `file` where the repository has names of its own."""
    pickled = file or _PICKLE_NAME
    safe = f"{pickled.rpartition('.')[0]}{_SAFE_SUFFIX}" if file else _SAFE_NAME
    wanted = pickled if allow_pickle and allow_pickle == f"{repository}/{pickled}" else safe
    needs = [wanted, CONFIG] if named.kind == "hub" else [wanted]
    found = [_cached(repository, one) for one in needs]
    if None in found and download:
        found = [_fetched(named, repository, one) for one in needs]
    weights = found[0]
    if weights is None or None in found:
        return None
    allowed = str(weights) if wanted == pickled else ""
    return _of_file(named, weights, found[1] if named.kind == "hub" else None, allowed)


def is_cached(repository: str) -> bool:
    """Whether the hub's cache holds the weights of a repository; neither the network nor open_clip is asked."""
    return _cached(repository, _SAFE_NAME) is not None


def _cached(repository: str, file: str) -> Path | None:
    """Where the hub's cache holds `file`; the network is not asked."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def _fetched(named: Named, repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repository, file))
    except (OSError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"encoder {named.name}: {file} of {repository} is neither in the hub's cache nor to be fetched: {said} "
            "Connect to the hub once, name MODEL@FILE.safetensors, or take conse, which needs no download"
        ) from error
