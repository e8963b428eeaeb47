"""Which deployments a bare name means, and what to say where it means none or several.

A deployment's full name is `flow/deployment`. A bare name has no slash, and means every deployment that is called so
or whose flow is called so. One is run; several are listed, since to guess would run what nobody asked for.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What one deployment is called."""

    flow: str
    deployment: str

    @property
    def full_name(self) -> str:
        """What the stock command takes."""
        return f"{self.flow}/{self.deployment}"


def is_bare(name: str | None) -> bool:
    """Whether `name` is one that the stock command cannot take."""
    return name is not None and "/" not in name


def meant_by(bare: str, known: Iterable[Deployed]) -> list[str]:
    """The full names of all deployments that `bare` may mean, sorted."""
    return sorted(each.full_name for each in known if bare in {each.flow, each.deployment})


def nearest_to(bare: str, known: Iterable[Deployed]) -> str | None:
    """The bare name that is spelt most alike, whatever the case; None if none comes near."""
    spelt = {name.casefold(): name for each in known for name in (each.flow, each.deployment)}
    found = difflib.get_close_matches(bare.casefold(), sorted(spelt), n=1, cutoff=0.5)
    return spelt[found[0]] if found else None


def explain(bare: str, known: Sequence[Deployed], *, server: str) -> str:
    """One message for a bare name that does not mean exactly one deployment."""
    meant = meant_by(bare, known)
    if meant:
        lines = "".join(f"\n  prefect deployment run {name}" for name in meant)
        return f"{bare!r} means {len(meant)} deployments on {server}; expected one. Name the one to run:{lines}"
    if not known:
        return (
            f"{bare!r} cannot run, as nothing is deployed on {server}. Run `prefect --no-prompt deploy --all` in the "
            "repository, or `make serve`, which starts a server with all deployments"
        )
    said = f"{bare!r} is neither a flow nor a deployment on {server}"
    near = nearest_to(bare, known)
    if near is None:
        return f"{said}. `prefect deployment ls` lists what is"
    return f"{said}; the nearest is {near!r}. Run `prefect deployment run {meant_by(near, known)[0]}`"
