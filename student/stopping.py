"""A polite end: SIGTERM lets the step at hand finish, so that a checkpoint can be written."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def until_sigterm() -> Iterator[threading.Event]:
    """An event that is set once this process is asked to end; a second SIGTERM ends it at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread alone
        return
    before = signal.getsignal(signal.SIGTERM)

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
