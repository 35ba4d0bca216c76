"""
RiskGuard in a process of its own on a real PostgreSQL, so that it can be frozen and thawed.

    python -m tests.guard_process DSN ENV

Says its epoch when it is ready. Each line of stdin is a symbol to ask room for, in trade 1; the
answer is a line: ``granted``, ``refused`` or ``error``, and why.
"""

from __future__ import annotations

import asyncio
import sys
import time

from arb_ray.actors.hosting import Loops
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.domain.errors import ArbError
from arb_ray.domain.risk_intent import Granted
from tests.risk_world import intent
from tests.shell_world import make_guard


def ask(symbol):
    """An intent for trade 1 of ``symbol``, good for a minute."""
    now_ns = time.time_ns()
    return intent(1, symbol, asked_ns=now_ns, deadline_ns=now_ns + 60 * 10**9)


async def main(dsn, env):
    """Serve until stdin ends, or the guard leaves."""
    store = PostgresRiskStore(Postgres(dsn), env)
    guard = make_guard(store, SystemClock(), loops=Loops())
    await guard.recover()
    guard.start()
    say((await guard.status())["epoch"])
    while symbol := (await asyncio.to_thread(sys.stdin.readline)).strip():
        try:
            verdict = await guard.reserve(ask(symbol))
            say("granted" if isinstance(verdict, Granted) else f"refused {verdict.reason}")
        except ArbError as error:
            say(f"error {type(error).__name__} {error}")


def say(what):
    """Write a line, at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
