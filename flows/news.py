"""What a run tells the server is news, not work: a server out of reach for a while is asked again, then left out.

An artifact that cannot be told would otherwise end a build whose files are sound. Prefect's client has no say in how
long that takes: it waits for a server that it has reached before, and gives up at once where it has not.
"""

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import httpx
from prefect import get_run_logger
from prefect.exceptions import MissingContextError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before each further try; a server and its database are up again in less

P = ParamSpec("P")
T = TypeVar("T")


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
        _warn(f"the server did not take {what}; the run goes on ({str(error)[:200] or type(error).__name__})")
        return None


def passes(error: httpx.HTTPError) -> bool:
    """Whether the server may take it later: it is out of reach, overloaded, or without its database."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in {408, 429}
    return isinstance(error, httpx.TransportError)


def _ask(tell: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        return tell(*args, **kwargs)


def _warn(text: str) -> None:
    try:
        get_run_logger().warning(text)
    except MissingContextError:  # outside of a run, where nobody could read it
        return
