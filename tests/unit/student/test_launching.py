import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from student.launching import launch


def script(code: str) -> list[str]:
    """A process that knows its rank and does what `code` says."""
    return [sys.executable, "-S", "-c", f"import os, sys, time\nrank = int(os.environ['RANK'])\n{code}"]


def test_all_processes_know_who_they_are_and_end_well(tmp_path: Path) -> None:
    said = "open(sys.argv[1] + '/' + str(rank), 'w').write(os.environ['WORLD_SIZE'] + os.environ['MASTER_PORT'])"
    assert launch([*script(said), str(tmp_path)], 2) == 0
    first, second = ((tmp_path / name).read_text() for name in ("0", "1"))
    assert first == second
    assert first.startswith("2")


def test_an_error_that_all_have_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "sys.stderr.write('error: no such build\\n'); sys.stderr.flush()\n"
        "time.sleep(0.3 if rank == 0 else 9)\nsys.exit(1)"
    )
    assert launch(script(code), 2) == 1
    assert capfd.readouterr().err == "error: no such build\n"


def test_an_error_that_one_process_alone_has_is_said_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    code = "rank and sys.stderr.write('error: a shard of mine\\n')\nsys.stderr.flush()\ntime.sleep(60)"
    start = time.monotonic()
    assert launch(script(code), 2, grace_s=0.3) == 1
    assert capfd.readouterr().err == "error: a shard of mine\n"
    assert time.monotonic() - start < 20


def test_a_process_that_dies_takes_the_others_with_it() -> None:
    code = "rank and os._exit(7)\ntime.sleep(60)"
    assert launch(script(code), 2, grace_s=0.1) == 7


def test_sigterm_reaches_all_of_them(tmp_path: Path) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        "open(sys.argv[1] + '/' + str(rank), 'w').close()\ntime.sleep(60)"
    )

    def end() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=end)
    thread.start()
    assert launch([*script(code), str(tmp_path)], 2) == 0
    thread.join()


def test_a_word_error_within_a_line_ends_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    code = "rank and sys.stderr.write('a warning of an error: none\\n')\nsys.stderr.flush()\ntime.sleep(0.6)"
    assert launch(script(code), 2, grace_s=0.1) == 0
    assert capfd.readouterr().err == ""


def test_the_first_ctrl_c_lets_them_end_well(tmp_path: Path) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(3 if rank == 0 else 0))\n"
        "open(sys.argv[1] + '/' + str(rank), 'w').close()\ntime.sleep(60)"
    )

    def end() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=end)
    thread.start()
    assert launch([*script(code), str(tmp_path)], 2) == 130
    thread.join()
