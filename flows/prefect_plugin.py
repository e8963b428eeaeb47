"""Lets `prefect deployment run build-shards` take a bare name, and end in one line where the server does not answer.

Stock Prefect demands `flow/deployment`. It loads plugins when it is imported, but only where they are switched on: a
line in `absentia_prefect.pth`, which Python reads when it starts, does so for this one command. The one function that
is replaced is private, so that it is looked at first: where it has changed, the stock command stays as it is.
"""

import inspect
import os
import sys
import urllib.parse
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from types import ModuleType
from typing import TYPE_CHECKING

import httpx
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.plugins import HookContext, register_hook, run_startup_hooks
from prefect.settings import get_current_settings

from flows.bare_names import Deployed, explain, is_bare, meant_by

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

    Find = Callable[[PrefectClient, str | None, str | None], Awaitable[DeploymentResponse]]

PLUGIN = "absentia"  # the name of the entry point
WRAPPED = "_get_deployment"  # of prefect.cli.deployment
SWITCHES = ("PREFECT_PLUGINS_ENABLED", "PREFECT_PLUGINS_ALLOW")  # what the line in the .pth file sets
PAGE = 200  # deployments or flows; as many as the server gives at once

_PARAMETERS = ["client", "name", "deployment_id"]


@register_hook
async def setup_environment(*, ctx: HookContext) -> None:
    """Replace the function that finds a deployment, and take back what switched plugins on."""
    import prefect.cli.deployment

    replace(prefect.cli.deployment, version=ctx.prefect_version, argv=sys.argv)
    if os.environ.get(SWITCHES[1]) == PLUGIN:
        await _leave_others_as_they_were(ctx)


def replace(cli: ModuleType, *, version: str, argv: Sequence[str]) -> None:
    """Wrap the function in `cli` that finds a deployment.

    Raises:
        SystemExit: it is not there or takes other parameters, and `argv` runs a deployment by its bare name.
    """
    stock = getattr(cli, WRAPPED, None)
    if callable(stock) and list(inspect.signature(stock).parameters) == _PARAMETERS:
        setattr(cli, WRAPPED, finding_bare_names(stock))
        return
    bare = next((word for word in argv[argv.index("run") + 1 :][:1] if not word.startswith("-")), None)
    if is_bare(bare):
        raise SystemExit(
            f"error: {bare!r} is a bare name, and Prefect {version} finds deployments in another way than the release "
            f"that constraints.txt names; expected prefect.cli.deployment.{WRAPPED}({', '.join(_PARAMETERS)}). "
            "Name the flow too, as `prefect deployment ls` lists it, or install that release"
        )


def finding_bare_names(stock: "Find") -> "Find":
    """`stock`, which is asked for a full name where the user gave a bare one that means one deployment."""

    @wraps(stock)
    async def find(client: "PrefectClient", name: str | None, deployment_id: str | None) -> "DeploymentResponse":
        try:
            if name is not None and is_bare(name) and deployment_id is None:
                name = await _full_name(client, name)
            return await stock(client, name, deployment_id)
        except httpx.TransportError as error:
            raise SystemExit(f"error: {_unreachable(error)}") from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
                raise
            raise SystemExit(f"error: {_refused(error.response.status_code)}") from error

    return find


async def _full_name(client: "PrefectClient", bare: str) -> str:
    """The full name of the one deployment that is meant."""
    try:
        known = await _deployed(client)
    except (ObjectNotFound, PrefectHTTPStatusError) as error:
        status = getattr(getattr(error, "response", None), "status_code", httpx.codes.NOT_FOUND)
        if status not in {httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED}:
            raise
        raise SystemExit(
            f"error: {_server()} answers, but is no Prefect API; expected an address as "
            "http://127.0.0.1:4200/api. Set PREFECT_API_URL to it"
        ) from error
    meant = meant_by(bare, known)
    if len(meant) != 1:
        raise SystemExit(f"error: {explain(bare, known, server=_server())}")
    return meant[0]


async def _deployed(client: "PrefectClient") -> list[Deployed]:
    """What every deployment on the server is called."""
    deployments: list[DeploymentResponse] = []
    while page := await client.read_deployments(limit=PAGE, offset=len(deployments)):
        deployments += page
    flows: dict[object, str] = {}
    while found := await client.read_flows(limit=PAGE, offset=len(flows)):
        flows |= {flow.id: flow.name for flow in found}
    return [Deployed(flow=flows[each.flow_id], deployment=each.name) for each in deployments if each.flow_id in flows]


async def _leave_others_as_they_were(ctx: HookContext) -> None:
    """Undo the switches, for processes that this one starts; run the plugins that the user has switched on himself."""
    from prefect.context import refresh_global_settings_context

    for switch in SWITCHES:
        os.environ.pop(switch, None)
    refresh_global_settings_context()
    if get_current_settings().plugins.enabled:
        await run_startup_hooks(ctx)


def _server() -> str:
    """What messages call the server; never with the password that its address may hold."""
    url = get_current_settings().api.url
    if not url:
        return "the temporary server (no PREFECT_API_URL is set; `make serve` says to what)"
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _unreachable(error: httpx.TransportError) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{_server()}: no Prefect server answers ({said}). Start one with `make serve`, or set PREFECT_API_URL to the "
        "address of one that runs"
    )


def _refused(status: int) -> str:
    given = "is wrong" if get_current_settings().api.auth_string else "is not set"
    return (
        f"{_server()}: the server refuses the password ({status}); PREFECT_API_AUTH_STRING {given}. Set it to the "
        "server's own PREFECT_SERVER_API_AUTH_STRING, as user:password"
    )
