"""Ctrl-C reaches the commands that tests start, also where a shell runs the tests in its background and ignores it."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
