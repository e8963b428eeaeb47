"""Fetch the pictures that a SOURCES.json names from the public repositories that hold them, byte for byte.

    python examples/fetch_pictures.py SOURCES.json --out FOLDER [--from https://raw.githubusercontent.com]

Each entry names a repository, a path in it and the sha256 of the bytes. A picture that is there and sound is not
fetched again, so the same command goes on after a stop; one that comes with other bytes is not kept.
"""

import argparse
import hashlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec
from rich.progress import track

HOST = "https://raw.githubusercontent.com"
TIMEOUT_S = 60.0

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Source(msgspec.Struct, frozen=True):
    """Where one picture lies."""

    image_repo: str  # owner/name on GitHub
    image_path: str
    sha256: Sha256


def read_sources(path: Path) -> dict[str, Source]:
    """What `path` names, by file name.

    Raises:
        SystemExit: it is no such file, or names a file outside a folder.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, Source])
    except (OSError, msgspec.MsgspecError) as error:
        raise SystemExit(f"error: {path}: {error}; expected a SOURCES.json") from error
    for name in found:
        if PurePosixPath(name).name != name:
            raise SystemExit(f"error: {path}: {name!r} is no file name; expected one without a folder")
    return found


def is_sound(path: Path, source: Source) -> bool:
    """Whether the picture lies at `path` with the bytes that it should have."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256


def fetch(source: Source, path: Path, host: str) -> str:
    """Fetch one picture to `path`; why not, or an empty string."""
    url = f"{host}/{source.image_repo}/HEAD/{urllib.parse.quote(source.image_path)}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  (the user names the host)
            data = answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        return f"{url}: {error}"
    if (found := hashlib.sha256(data).hexdigest()) != source.sha256:
        return f"{url}: sha256 is {found}, expected {source.sha256}; the repository has other bytes now"
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sources", type=Path, metavar="SOURCES.json")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--from", dest="host", default=HOST, metavar="URL", help="where repositories are [%(default)s]")
    options = parser.parse_args(argv)
    sources = read_sources(options.sources)
    options.out.mkdir(parents=True, exist_ok=True)
    missing = {name: one for name, one in sources.items() if not is_sound(options.out / name, one)}
    failures = [
        failure
        for name, source in track(missing.items(), description="pictures", total=len(missing))
        if (failure := fetch(source, options.out / name, options.host))
    ]
    print(f"{len(sources) - len(failures)} of {len(sources)} pictures lie in {options.out}")
    for failure in failures:
        print(f"error: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
