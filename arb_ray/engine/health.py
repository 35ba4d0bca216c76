"""
Is the system well? Judged from what its actors say; silence is a problem.

Three kinds of sentences. ``waiting``: something that must run has not said that it does; the
system is neither ready nor healthy. ``broken``: it was complete and something stopped working;
not healthy. ``warnings``: it works as it was built to work in such a case, and a person should
know; a probe that restarted it for this would make things worse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.status import FeedStatus, HostStatus, SystemStatus

STALE_S = 15.0
"""A status that is older tells of a past; the supervisor asks twice a second."""

NAMES_MAX = 10
"""Names in one sentence; the rest is a number."""


class Health(msgspec.Struct, frozen=True):
    """``ready``: every wanted actor runs and every symbol is live. The rest in sentences."""

    healthy: bool
    ready: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class StatusAnswer(SystemStatus, kw_only=True):
    """What the Gateway's ``/status`` answers: the supervisor's status, judged."""

    health: Health


def judge(status: SystemStatus) -> Health:
    """Judge a supervisor's status."""
    waiting = tuple(_waiting(status))
    problems = (*waiting, *_broken(status))
    return Health(
        healthy=not problems,
        ready=not waiting,
        problems=problems,
        warnings=tuple(_warnings(status)),
    )


def without_answer(problem: str) -> Health:
    """Return the judgement on a supervisor that does not answer: the worst there is."""
    return Health(healthy=False, ready=False, problems=(problem,))


def _waiting(status: SystemStatus) -> Iterator[str]:
    if status.age_s is None:
        yield "the supervisor has not asked its actors yet"
    elif status.age_s > STALE_S:
        yield f"what the supervisor knows is {status.age_s:.0f} s old"
    if status.draining:
        yield "it is being stopped: no entries"
    yield from (f"{name} has not answered" for name in status.missing)
    if not status.feeds:
        yield "no feed has answered"
    actors: dict[str, HostStatus | FeedStatus] = {**status.hosts, **status.feeds}
    yield from (
        f"{name} is not ready: {told.why}" for name, told in actors.items() if not told.ready
    )
    if not status.risk:
        yield "RiskGuard has not answered"
    elif not status.risk.get("ready"):
        yield "RiskGuard is recovering"
    elif status.risk.get("state") not in list(RiskState):
        yield f"RiskGuard is in no state that is known: {status.risk.get('state')}"
    yield from (f"{name} is drained: no entries" for name, h in status.hosts.items() if h.draining)
    live, wanted = live_symbols(status)
    if live != wanted or not wanted:
        dead = f": {_listed(sorted(wanted - live))} not" if wanted - live else ""
        yield f"{len(live)} of {len(wanted)} symbols are live{dead}"


def _broken(status: SystemStatus) -> Iterator[str]:
    for name, feed in status.feeds.items():
        if feed.ready and not feed.connected:
            yield f"{name} has no connection"
    if not status.persistence:
        yield "Persistence has not answered: whether PostgreSQL takes rows is not known"
    elif status.persistence.get("postgres") != "up":
        yield "PostgreSQL is away: entries stop, rows are spooled"


def _warnings(status: SystemStatus) -> Iterator[str]:
    state = status.risk.get("state")
    if status.risk.get("ready") and state != RiskState.ACTIVE:
        yield f"entries are stopped: risk is {state}, {status.risk.get('reason')}"
    if status.risk.get("unheard"):
        yield f"no entries until {status.risk['unheard']} open trades are heard of, or too late"
    in_force = status.risk.get("deployment", status.deployment)
    if status.risk.get("ready") and in_force != status.deployment:
        yield "RiskGuard has not taken over the limits of the newest wanted state"
    if status.risk.get("unwritten"):
        yield "a change of the risk state is in force and not yet in PostgreSQL"
    if status.persistence and status.persistence.get("redis") != "up":
        yield "Redis is away: state and caches are in PostgreSQL and memory only"
    if status.persistence.get("disk"):
        yield f"{status.persistence['disk']}: nothing is entered"
    if status.persistence.get("snapshots_dropped"):
        yield f"{status.persistence['snapshots_dropped']} snapshot rows were lost at a bound"
    yield from _without_shared_memory(status)
    for name, host in status.hosts.items():
        yield from (f"{name}: {trouble}" for trouble in host.troubles)
    actors: dict[str, HostStatus | FeedStatus] = {**status.feeds, **status.hosts}
    yield from (
        f"{name} is overloaded: {told.overloaded}"
        for name, told in actors.items()
        if told.overloaded
    )
    for name, feed in status.feeds.items():
        if feed.stale:
            yield f"{name}: the books of {_listed(feed.stale)} are stale"


def _without_shared_memory(status: SystemStatus) -> Iterator[str]:
    actors: dict[str, HostStatus | FeedStatus] = {**status.feeds, **status.hosts}
    names_by_why: dict[str, list[str]] = {}
    for name, told in actors.items():
        if told.plane_why:
            names_by_why.setdefault(told.plane_why, []).append(name)
    for why, names in names_by_why.items():
        yield f"Ray calls, which are slower, carry the ticks of {_listed(names)}: {why}"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    more = len(found) - NAMES_MAX
    return ", ".join(found[:NAMES_MAX]) + (f" and {more} more" if more > 0 else "")


def live_symbols(status: SystemStatus) -> tuple[set[str], set[str]]:
    """Return the symbols whose books have all arrived, and all that are wanted."""
    live = {symbol for host in status.hosts.values() for symbol in host.live}
    wanted = {symbol for host in status.hosts.values() for symbol in host.symbols}
    return live, wanted
