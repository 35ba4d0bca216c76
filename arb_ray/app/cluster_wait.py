"""Waiting until what is wanted runs: every actor new and well, every symbol live, none too many."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from arb_ray.app.deployment import Deployment
from arb_ray.app.job_lines import Counted, write_line
from arb_ray.app.settings import Settings
from arb_ray.domain.errors import ArbError, OutcomeUnknown
from arb_ray.engine.health import judge, live_symbols
from arb_ray.engine.status import SystemStatus
from arb_ray.ports import Clock

POLL_S = 0.5
STOP_MARGIN_S = 60.0
"""Beyond the time for closing positions: a Supervisor that must start, and every actor's end."""

PROBLEMS_MAX = 10
"""Sentences told of a start that failed; /health and the logs have all."""


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """How a start went; ``problems`` is empty when all is ready."""

    seconds: float
    live: int
    gateway: str
    problems: tuple[str, ...]


async def until_ready(
    actors: Any, deployment: Deployment, settings: Settings, clock: Clock
) -> Readiness:
    """Wait, with progress, until ``deployment`` is ready or its time is over."""
    from arb_ray.app.kit import SUPERVISOR

    began_ns = clock.mono_ns()
    problems = ["the Supervisor has not answered"]
    live = 0
    while True:
        try:
            status: SystemStatus = await actors.links.call(SUPERVISOR, "status", timeout_s=5.0)
            present = set(actors.present()) - {SUPERVISOR}
            problems = what_is_missing(status, deployment, present)
            live = len(live_symbols(status)[0] & set(deployment.symbols))
            write_line(Counted(live, len(deployment.symbols), "symbols live"))
        except ArbError as error:
            actors.links.forget(SUPERVISOR)
            problems = [str(error)]
        seconds = (clock.mono_ns() - began_ns) / 1e9
        if not problems or seconds > settings.session.ready_timeout_s:
            break
        await asyncio.sleep(POLL_S)
    gateway = settings.gateway
    return Readiness(
        seconds=seconds,
        live=live,
        gateway=f"http://{gateway.host}:{gateway.http_port}" if gateway.enabled else "",
        problems=tuple(problems[:PROBLEMS_MAX]),
    )


async def until_stopped(actors: Any, stopped: Deployment, clock: Clock) -> SystemStatus:
    """
    Wait until the Supervisor has carried a stopped state out.

    Raises:
        OutcomeUnknown: It has not done so in time; it goes on trying.
    """
    from arb_ray.app.kit import SUPERVISOR

    session = stopped.settings().session
    timeout_s = session.ready_timeout_s + session.stop_timeout_s + STOP_MARGIN_S
    deadline_ns = clock.mono_ns() + int(timeout_s * 1e9)
    while clock.mono_ns() < deadline_ns:
        try:
            status: SystemStatus = await actors.links.call(SUPERVISOR, "status", timeout_s=5.0)
            if status.stopped == stopped.version or status.deployment > stopped.version:
                return status
        except ArbError:
            actors.links.forget(SUPERVISOR)  # it starts again, and begins the stop again
        await asyncio.sleep(POLL_S)
    raise OutcomeUnknown("the stop of all actors", int(timeout_s * 1e3))


def what_is_missing(status: SystemStatus, deployment: Deployment, present: set[str]) -> list[str]:
    """Return what keeps a deployment from being ready, in sentences."""
    if status.deployment != deployment.version:
        return ["the Supervisor has not read the new wanted state"]
    problems = list(judge(status).problems)
    if status.risk.get("deployment") != deployment.version:
        problems.append("RiskGuard has not taken over the limits")
    wanted = {actor.name for actor in deployment.topology.actors}
    problems += [f"{name} has not been stopped yet" for name in sorted(present - wanted)]
    missing = set(deployment.symbols) - live_symbols(status)[0]
    if missing:
        listed = ", ".join(sorted(missing)[:PROBLEMS_MAX])
        problems.append(f"{len(missing)} symbols are not live: {listed}")
    return problems
