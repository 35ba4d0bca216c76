"""
The process that is killed, and the one that takes up what it left.

    python -m tests.resume.stage DSN open 200     opens 200 positions, says "holding", holds them
    python -m tests.resume.stage DSN trade 200    takes them up, enters one more, says "trading";
                                                  at a line on stdin closes all and says "closed"

Every symbol has the program's own runner, RiskGuard is the program's own, and all wait for
PostgreSQL as they do in a run; books come from nearby and at once.
"""

from __future__ import annotations

import asyncio
import sys

from arb_ray.adapters.storage.postgres_pool import Postgres
from tests.crowd_world import Crowd, room_for

ENV = "dev"
STEP_S = 0.02
POOL_SIZE = 8  # two connections for each of four hosts


def crowd_of(postgres: Postgres, count: int, positions: int) -> Crowd:
    """Return a market of ``count`` symbols whose limits have room for one more position."""
    most = positions + 1
    return Crowd(postgres, ENV, count=count, limits=room_for(most, open_trades_count=most))


async def hold(postgres: Postgres, positions: int) -> None:
    """Open a position on each symbol, and hold them until we are killed."""
    crowd = await crowd_of(postgres, positions, positions).start()
    while len(crowd.holding) < positions:
        crowd.look()
        await crowd.settle_down(seconds=300)
    say("holding")
    while True:
        await crowd.obey()
        crowd.look_at_held()
        await asyncio.sleep(STEP_S)


async def trade(postgres: Postgres, positions: int) -> None:
    """Take up every position; it trades again when a symbol without one has entered."""
    crowd = await crowd_of(postgres, positions + 1, positions).start()
    newcomer = crowd.runners[-1]
    while newcomer not in crowd.holding:
        crowd.look_at_held()  # a position's first look gives the mark that the guard waits for
        await crowd.obey()
        crowd.look()
        await crowd.settle_down(seconds=60)
    assert len(crowd.holding) == positions + 1, crowd.phases
    say("trading")
    await asyncio.to_thread(sys.stdin.readline)
    await crowd.close_all()
    say("closed")
    await crowd.stop()


def say(word: str) -> None:
    """Tell whoever started us."""
    print(word, flush=True)


async def main(dsn: str, aim: str, positions: str) -> None:
    """Carry an aim out."""
    postgres = Postgres(dsn, size=POOL_SIZE)
    try:
        await (hold if aim == "open" else trade)(postgres, int(positions))
    finally:
        await postgres.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
