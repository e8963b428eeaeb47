"""What a run tells the server is news, not work: a server that is out of reach for a while does not end it.

Prefect's client waits for a server that it has reached before, but artifacts are told and concurrency slots given back
by clients that are made for the purpose, which give up at once. So an artifact is told again and in the end left out;
and where Prefect itself broke off, the work is done again, which finds what it had finished.
"""

import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import httpx
from prefect import get_run_logger
from prefect.exceptions import MissingContextError, UnfinishedRun
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before each further try; a server and its database are up again in less

PATIENCE_S = (5.0, 15.0, 30.0, 60.0, 120.0, 240.0)  # before work that was broken off is done again

P = ParamSpec("P")
T = TypeVar("T")


def outlasting(work: Callable[P, T]) -> Callable[P, T]:
    """`work`, done again if Prefect broke it off since its server was out of reach; files tell it what is finished."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        for delay_s in PATIENCE_S:
            try:
                return work(*args, **kwargs)
            except (httpx.HTTPError, UnfinishedRun) as error:
                if not passes(error):
                    raise
                _warn(f"the server is out of reach ({_said(error)}); the run goes on in {delay_s:.0f} s")
                time.sleep(delay_s)
        return work(*args, **kwargs)

    return run


def told(tell: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What `tell` returns, once the server takes it; None, and a warning in the run's log, if it takes a minute."""
    for delay_s in DELAYS_S:
        try:
            return _ask(tell, *args, **kwargs)
        except httpx.HTTPError as error:
            if not passes(error):
                raise
            time.sleep(delay_s)
    return told_once(tell, *args, **kwargs)


def told_once(tell: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
    """The same without waiting, for what is soon told anew."""
    try:
        return _ask(tell, *args, **kwargs)
    except httpx.HTTPError as error:
        if not passes(error):
            raise
        what = f"the artifact {kwargs['key']}" if "key" in kwargs else "how far it is"
        _warn(f"the server did not take {what}; the run goes on ({_said(error)})")
        return None


def passes(error: httpx.HTTPError | UnfinishedRun) -> bool:
    """Whether the server may take it later: it is out of reach, overloaded, or without its database.

    A task run that never came to its start found no server to ask for its slot.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in {408, 429}
    return isinstance(error, httpx.TransportError | UnfinishedRun)


def _ask(tell: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        return tell(*args, **kwargs)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _warn(text: str) -> None:
    try:
        get_run_logger().warning(text)
    except MissingContextError:  # outside of a run, where nobody could read it
        return
