"""
Is the system whole again after a fault? Judged from the Gateway's ``/status`` alone.

Pure: what was seen before the fault, its instant and what is seen now go in; what is still
missing comes out, in words. The benchmark and the chaos runs ask the same question here.

The instants are wall clock, so the judge and the run are on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from arb_ray.engine.health import live_symbols
from arb_ray.engine.status import FeedStatus, HostStatus, SystemStatus

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

STORE_REFUSALS = frozenset({"store_unavailable", "risk_unreachable", "not_owner"})
"""Why a symbol enters nothing while PostgreSQL, RiskGuard or its own recovery is away."""


class Fault(msgspec.Struct, frozen=True):
    """When it struck, and whom: one of ``victims``, births by name, must be another process."""

    at_ns: int
    victims: Mapping[str, int] = {}


def births(status: SystemStatus) -> dict[str, int]:
    """Return the birth stamp of every actor that tells one; another stamp is another process."""
    found = {name: host.born_ns for name, host in status.hosts.items()}
    found |= {name: feed.born_ns for name, feed in status.feeds.items()}
    for name in status.wanted:
        told = _singleton(status, name)
        if told is not None:
            found[name] = int(str(told.get("born_ns", 0)))
    return {name: born_ns for name, born_ns in found.items() if born_ns}


def missing_yet(status: SystemStatus, fault: Fault, seen_ns: int) -> str:
    """
    Return what is not whole yet; empty when trading goes on with fresh books.

    Args:
        status: The newest status.
        fault: What happened.
        seen_ns: When the status was asked for; what it tells is at least ``age_s`` older.
    """
    return next(_missing(status, fault, seen_ns), "")


def _missing(status: SystemStatus, fault: Fault, seen_ns: int) -> Iterator[str]:
    if status.age_s is None:
        yield "the supervisor has asked nobody yet"
        return
    told_ns = seen_ns - int(status.age_s * NS_PER_S)
    if told_ns <= fault.at_ns:
        yield "nobody was asked since the fault"
    yield from (f"{name} does not answer" for name in status.missing)
    born = births(status)
    victims = fault.victims
    if victims and all(born.get(name, before) == before for name, before in victims.items()):
        yield f"none of {', '.join(victims)} is another process yet"
    if not status.feeds or not status.hosts:
        yield "no feed or no host has answered"
    actors: dict[str, HostStatus | FeedStatus] = {**status.hosts, **status.feeds}
    for name, told in actors.items():
        if not told.ready:
            yield f"{name} is not ready: {told.why}"
    yield from _guard(status)
    live, wanted = live_symbols(status)
    if live != wanted or not wanted:
        yield f"{len(live)} of {len(wanted)} symbols are live"
    yield from _old_books(status, fault, told_ns)


def _guard(status: SystemStatus) -> Iterator[str]:
    risk = status.risk
    if not risk.get("ready"):
        yield "RiskGuard is recovering"
    elif unheard := risk.get("unheard"):
        yield f"RiskGuard grants nothing: {unheard} open trades have not been heard of"


def _old_books(status: SystemStatus, fault: Fault, told_ns: int) -> Iterator[str]:
    # A book is fresh again when its connection proved alive after the new process was born:
    # what a host had before the fault is no proof that the feed brings anything.
    born = births(status)
    reborn = (name for name in fault.victims if name.startswith(("host:", "feed:")))
    since_ns = max([fault.at_ns, *(born.get(name, 0) for name in reborn)])
    for name, host in status.hosts.items():
        rows = {row.symbol: row for row in host.rows}
        for symbol in host.symbols:
            row = rows.get(symbol)
            if row is None or not (row.bid_a_krw and row.bid_b_usdt):
                yield f"{name} has no books of {symbol}"
                continue
            oldest_ns = told_ns - int(max(row.age_a_ms, row.age_b_ms) * NS_PER_MS)
            if oldest_ns < since_ns:
                yield f"the books of {symbol} are older than the fault"
            if row.refusal in STORE_REFUSALS:
                yield f"{symbol} enters nothing: {row.refusal}"


def _singleton(status: SystemStatus, name: str) -> dict[str, object] | None:
    by_role = {
        "risk": status.risk,
        "persistence": status.persistence,
        "source": status.source,
        "gateway": status.gateway,
    }
    return by_role.get(name.partition(":")[0])
