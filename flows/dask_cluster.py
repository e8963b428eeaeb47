"""A Dask cluster, fit to be worked on or refused in one sentence: it answers, has workers, and runs our versions."""

import asyncio
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from manifests.errors import BuildError

if TYPE_CHECKING:
    import distributed
    from distributed.client import VersionsDict

CONNECT_S = 5.0
PACKAGES = ("absentia", "cloudpickle", "dask", "distributed", "msgspec", "numpy", "pillow", "pyarrow", "pycocotools")
_SCHEDULER_PACKAGES = ("absentia", "cloudpickle", "dask", "distributed", "msgspec")  # it unpickles what we send


def connect(address: str) -> "distributed.Client":
    """A client of the scheduler at `address`.

    Raises:
        BuildError: no scheduler answers there.
    """
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    try:
        asyncio.run(_greet(address))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # versions are compared below
            return Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever listens there may answer anything, and Dask raises what it makes of that
        said = " ".join(str(error).split()) or type(error).__name__
        raise BuildError(
            f"{address}: no Dask scheduler answers within {CONNECT_S:g} s; expected one at tcp://HOST:PORT ({said}). "
            "Start one (dask scheduler), or check the address and that this machine may reach it"
        ) from error


async def _greet(address: str) -> None:
    """Stop unless what listens at `address` speaks as Dask does; the client would wait for its first word for ever."""
    from distributed.comm.core import connect
    from distributed.security import Security

    secured = Security().get_connection_args("client")  # type: ignore[no-untyped-call]
    comm = await asyncio.wait_for(connect(address, timeout=CONNECT_S, **secured), CONNECT_S)  # type: ignore[no-untyped-call]
    await comm.close()


def require_workers(client: "distributed.Client", address: str, patience_s: float) -> None:
    """Stop if no worker comes within `patience_s`."""
    try:
        client.wait_for_workers(1, timeout=patience_s)
    except TimeoutError as error:
        raise no_worker(address, patience_s) from error


def no_worker(address: str, patience_s: float) -> BuildError:
    """What to say where there is none."""
    return BuildError(
        f"{address}: the Dask cluster has had no worker for {patience_s:g} s; expected one or more. Start some "
        f"(dask worker {address}) and run the same command again to go on"
    )


def require_same_versions(client: "distributed.Client", address: str) -> None:
    """Stop where another version of what decides bytes, or of what carries calls, runs elsewhere."""
    found = cast("VersionsDict", client.get_versions(packages=PACKAGES))  # this client is no asynchronous one
    here = found["client"]["packages"]
    places: dict[str, tuple[Any, tuple[str, ...]]] = {
        f"the worker at {name}": (told, PACKAGES) for name, told in found["workers"].items()
    }
    places["the scheduler"] = (found["scheduler"], _SCHEDULER_PACKAGES)
    for place, (told, names) in places.items():
        wrong = differences(here, told["packages"], names)
        if wrong:
            raise other_versions(f"{address}: {place}", wrong)


def other_versions(place: str, wrong: list[str]) -> BuildError:
    """What to say where `place` runs other versions."""
    return BuildError(
        f"{place} has other versions than this command: {', '.join(wrong)}; expected the same. "
        "Install the same environment there (constraints.txt), and start it again"
    )


def versions() -> dict[str, str | None]:
    """What runs in this process, by package."""
    from distributed.versions import get_package_info

    return get_package_info(PACKAGES)


def differences(
    here: Mapping[str, str | None], there: Mapping[str, str | None], names: tuple[str, ...] = PACKAGES
) -> list[str]:
    """What differs, as `numpy 2.4.6 here, 2.4.5 there`; of Python only the minor version matters."""
    pairs = [("Python", _minor(here.get("python")), _minor(there.get("python")))]
    pairs += [(name, here.get(name), there.get(name)) for name in names]
    return [
        f"{name} {mine or 'missing'} here, {theirs or 'missing'} there"
        for name, mine, theirs in pairs
        if mine != theirs
    ]


def _minor(python: str | None) -> str | None:
    return None if python is None else ".".join(python.split(".")[:2])
