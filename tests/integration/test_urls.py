"""Sources from a bucket's URL give the build that the same files give from disk, and the reader reads from one too."""

from pathlib import Path

import fsspec
import pytest

from flows.building import build
from manifests import files
from manifests.recipe_file import load_recipe
from manifests.stage import Inline, progress_bar
from shards.reader import open_pass
from tests.worlds import build_bytes, build_world, write_world


def upload(folder: Path, url: str) -> None:
    """Copy every file below `folder` to `url`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.write_bytes(files.join(url, path.relative_to(folder).as_posix()), path.read_bytes())


def test_sources_in_a_bucket_give_the_same_bytes_as_on_disk(tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world")
    build_world(recipe, tmp_path / "disk")
    upload(tmp_path / "world", "memory://bucket/world")
    text = recipe.read_text()
    for name in ("sa1b/", "coco/"):
        text = text.replace(f'"{name}', f'"memory://bucket/world/{name}')
    remote = tmp_path / "remote.toml"
    remote.write_text(text)
    build_world(remote, tmp_path / "bucket")
    assert build_bytes(tmp_path / "bucket") == build_bytes(tmp_path / "disk")


def test_a_build_written_into_a_bucket_has_the_same_bytes_as_on_disk(tmp_path: Path) -> None:
    recipe = write_world(tmp_path / "world")
    build_world(recipe, tmp_path / "disk")
    out = "memory://bucket/written"
    with progress_bar(quiet=True) as progress:
        build(load_recipe(str(recipe)), out, executor=Inline(), progress=progress)
    found = {files.relative(uri, out): files.read_bytes(uri) for uri in files.list_files(out)}
    on_disk = build_bytes(tmp_path / "disk")
    assert {name: data for name, data in found.items() if not name.startswith("work/")} == on_disk


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_build_in_a_bucket_is_read_as_from_disk(tmp_path: Path) -> None:
    build_world(write_world(tmp_path / "world"), tmp_path / "build")
    for path in (tmp_path / "build").rglob("*.part-*"):
        path.unlink()
    upload(tmp_path / "build", "memory://bucket/build")
    assert fsspec.filesystem("memory").exists("/bucket/build/manifest.json")
    local = [(b.keys, b.images.sum().item()) for b in open_pass(str(tmp_path / "build"), split="train", batch_size=8)]
    remote = [(b.keys, b.images.sum().item()) for b in open_pass("memory://bucket/build", split="train", batch_size=8)]
    assert remote == local
