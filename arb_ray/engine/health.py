"""Is the system well? Judged from what its actors say; silence is a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from arb_ray.engine.topology import Role


class Health(msgspec.Struct, frozen=True):
    """``ready``: every wanted actor runs and every symbol is live. ``problems`` in sentences."""

    healthy: bool
    ready: bool
    problems: tuple[str, ...]


def judge(status: Mapping[str, Any]) -> Health:
    """Judge a supervisor's status."""
    actors: Mapping[str, Mapping[str, Any]] = status["actors"]
    waiting: list[str] = []
    broken: list[str] = []
    for name in status["wanted"]:
        told = actors.get(name)
        if told is None:
            waiting.append(f"{name} has not answered yet")
        elif not told.get("ready", True):
            waiting.append(f"{name} is not ready: {told.get('why', 'starting')}")
        elif name.startswith(Role.PERSISTENCE) and told.get("postgres") == "down":
            broken.append("PostgreSQL is away; entries stop and rows are spooled")
        elif name.startswith(Role.FEED) and not told.get("connected", False):
            broken.append(f"{name} has no connection")
    problems = (*waiting, *broken)
    return Health(healthy=not problems, ready=not waiting, problems=problems)


def live_symbols(status: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the symbols whose books have all arrived, and all that are wanted."""
    live: set[str] = set()
    wanted: set[str] = set()
    for name in status["wanted"]:
        if not name.startswith(Role.HOST):
            continue
        told = status["actors"].get(name, {})
        live.update(told.get("live", ()))
        wanted.update(told.get("symbols", ()))
    return live, wanted
