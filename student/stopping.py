"""A polite end: SIGTERM lets the step at hand finish, so that a checkpoint can be written."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def until_sigterm() -> Iterator[threading.Event]:
    """An event that is set once this process is asked to end, however often."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread alone
        return
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
