"""A polite end: SIGTERM or one Ctrl-C lets the step at hand finish, so that a checkpoint can be written."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


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


@contextlib.contextmanager
def until_interrupt(ask: Callable[[], None]) -> Iterator[threading.Event]:
    """An event that is set by the first Ctrl-C, which calls `ask`, too; the second one interrupts as ever."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)

    def first(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        interrupted.set()
        ask()

    signal.signal(signal.SIGINT, first)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
