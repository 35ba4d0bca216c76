"""Is the system well? Judged from what its actors say; silence is a problem."""

from __future__ import annotations

import msgspec

from arb_ray.engine.status import SystemStatus


class Health(msgspec.Struct, frozen=True):
    """``ready``: every wanted actor runs and every symbol is live. ``problems`` in sentences."""

    healthy: bool
    ready: bool
    problems: tuple[str, ...]


def judge(status: SystemStatus) -> Health:
    """Judge a supervisor's status."""
    waiting = [f"{name} has not answered" for name in status.missing]
    broken: list[str] = []
    for name, host in status.hosts.items():
        if not host.ready:
            waiting.append(f"{name} is not ready: {host.why}")
    for name, feed in status.feeds.items():
        if not feed.ready:
            waiting.append(f"{name} is not ready: {feed.why}")
        elif not feed.connected:
            broken.append(f"{name} has no connection")
    if not status.risk.get("ready"):
        waiting.append("RiskGuard is recovering")
    if status.persistence.get("postgres") != "up":
        broken.append("PostgreSQL is away: entries stop, rows are spooled")
    live, wanted = live_symbols(status)
    if live != wanted or not wanted:
        waiting.append(f"{len(live)} of {len(wanted)} symbols are live")
    problems = (*waiting, *broken)
    return Health(healthy=not problems, ready=not waiting, problems=problems)


def live_symbols(status: SystemStatus) -> tuple[set[str], set[str]]:
    """Return the symbols whose books have all arrived, and all that are wanted."""
    live = {symbol for host in status.hosts.values() for symbol in host.live}
    wanted = {symbol for host in status.hosts.values() for symbol in host.symbols}
    return live, wanted
