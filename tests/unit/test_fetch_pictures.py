"""Pictures are fetched from a real server, checked byte for byte, and fetched once."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.worlds import REPOSITORY

PICTURES = {"1.jpg": b"one", "2 a.jpg": b"two"}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server whose repository someone/pictures holds PICTURES."""
    folder = tmp_path / "served" / "someone" / "pictures" / "HEAD" / "val"
    folder.mkdir(parents=True)
    for name, data in PICTURES.items():
        (folder / name).write_bytes(data)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Handler(*given, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_sources(folder: Path, **changed: dict[str, str]) -> Path:
    """A SOURCES.json of PICTURES, some entries changed or added."""
    entries = {
        name: {
            "image_repo": "someone/pictures",
            "image_path": f"val/{name}",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for name, data in PICTURES.items()
    }
    path = folder / "SOURCES.json"
    path.write_text(json.dumps(entries | changed))
    return path


def fetch(sources: Path, out: Path, host: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "examples" / "fetch_pictures.py"), str(sources)]
    return subprocess.run(
        [*command, "--out", str(out), "--from", host], capture_output=True, text=True, check=False, timeout=60
    )


def test_what_is_named_is_fetched_once(host: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = fetch(write_sources(tmp_path), out, host)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == PICTURES
    kept = {path.name: path.stat().st_ino for path in out.iterdir()}
    assert fetch(tmp_path / "SOURCES.json", out, "http://127.0.0.1:9").returncode == 0  # asks nobody
    assert {path.name: path.stat().st_ino for path in out.iterdir()} == kept


def test_other_bytes_and_missing_pictures_are_named_and_not_kept(host: str, tmp_path: Path) -> None:
    other = {"image_repo": "someone/pictures", "image_path": "val/1.jpg", "sha256": "0" * 64}
    gone = {"image_repo": "someone/pictures", "image_path": "val/none.jpg", "sha256": "1" * 64}
    done = fetch(write_sources(tmp_path, **{"other.jpg": other, "gone.jpg": gone}), tmp_path / "out", host)
    assert done.returncode == 1
    assert f"2 of 4 pictures lie in {tmp_path / 'out'}" in done.stdout
    assert f"error: {host}/someone/pictures/HEAD/val/1.jpg: sha256 is {sha256(b'one')}" in done.stdout
    assert f"error: {host}/someone/pictures/HEAD/val/none.jpg: HTTP Error 404" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(PICTURES)


def test_a_name_that_leaves_the_folder_is_refused(host: str, tmp_path: Path) -> None:
    bad = {"image_repo": "someone/pictures", "image_path": "val/1.jpg", "sha256": "0" * 64}
    done = fetch(write_sources(tmp_path, **{"../escaped.jpg": bad}), tmp_path / "out", host)
    assert done.returncode == 1
    assert "'../escaped.jpg' is no file name" in done.stderr
    assert not (tmp_path / "escaped.jpg").exists()
