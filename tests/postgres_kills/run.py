"""The run: kill, wait, start again; then count every row and audit every trade."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from tests.kill_matrix.server import Server
from tests.postgres_kills.writers import BEGAN_NS, Rows, Trades

ENV = "dev"
BACK_BOUND_S = 20.0
"""Rows flow again so soon after PostgreSQL's return, or the run ends."""


class Kill(NamedTuple):
    """One death of PostgreSQL: how long it was away, and how soon rows flowed again."""

    number: int
    away_s: float
    back_s: float


class Outcome(NamedTuple):
    """What a run came to; ``faults`` is empty when nothing was lost, doubled or wrong."""

    kills: tuple[Kill, ...]
    rows_sent: int
    rows_spooled: int
    round_trips: int
    left_without_postgres: int
    faults: tuple[str, ...]


async def run(
    *, seconds: float, every_s: float, away_s: float, rate: int, tell: Callable[[str], None]
) -> Outcome:
    """Write for ``seconds`` while PostgreSQL is killed every ``every_s``."""
    with tempfile.TemporaryDirectory(prefix="kills.", dir="/tmp") as name:
        folder = Path(name)
        async with Server(folder / "postgres") as server:
            rows = Rows(server.dsn, ENV, folder, rate)
            trades = Trades(server.dsn, ENV, folder)
            writing = [asyncio.create_task(rows.run()), asyncio.create_task(trades.run())]
            try:
                kills = await _kills(server, rows, trades, writing, seconds, every_s, away_s, tell)
                await _end(rows, trades, writing)
                faults = [*await _row_faults(server.dsn, rows), *await _ledger_faults(server.dsn)]
                faults += [f"the host failed: {error}" for error in trades.world.failed]
                if kills and not trades.left_without_postgres:
                    faults.append("no trade was left while PostgreSQL was away: the test is blind")
                faults += [f"a loop of Persistence ended: {one}" for one in rows.ends.ended]
            finally:
                for task in writing:
                    task.cancel()
                await asyncio.gather(*writing, return_exceptions=True)
                await trades.stop()
                await rows.persistence.stop()
    return Outcome(
        tuple(kills),
        rows.sent,
        rows.persistence.spooled,
        trades.round_trips,
        trades.left_without_postgres,
        tuple(faults),
    )


async def _kills(
    server: Server,
    rows: Rows,
    trades: Trades,
    writing: list[asyncio.Task[None]],
    seconds: float,
    every_s: float,
    away_s: float,
    tell: Callable[[str], None],
) -> list[Kill]:
    loop = asyncio.get_running_loop()
    began, kills = loop.time(), []
    while (due := began + (len(kills) + 1) * every_s) <= began + seconds:
        await _watched(writing, due - loop.time())
        if len(kills) % 2 == 0:
            # Every other death meets an open trade, which must be left without PostgreSQL.
            await trades.holding()
        killed = time.monotonic()
        await asyncio.to_thread(server.kill)
        await _watched(writing, away_s)
        await server.start_again()
        back = time.monotonic()
        written = rows.persistence.written
        async with asyncio.timeout(BACK_BOUND_S):
            while rows.persistence.written == written:  # noqa: ASYNC110 - it is what we measure
                await asyncio.sleep(0.01)
        kills.append(Kill(len(kills) + 1, back - killed, time.monotonic() - back))
        tell(
            f"kill {kills[-1].number}: away {kills[-1].away_s:.1f} s,"
            f" rows flow again after {kills[-1].back_s:.2f} s; {rows.sent} sent,"
            f" {rows.persistence.spooled} went by the disk"
        )
    return kills


async def _watched(writing: list[asyncio.Task[None]], seconds: float) -> None:
    """Wait; a writer that ends ends the run with its error."""
    done, _ = await asyncio.wait(
        writing, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED
    )
    for task in done:
        task.result()
        raise AssertionError("a writer ended by itself")


async def _end(rows: Rows, trades: Trades, writing: list[asyncio.Task[None]]) -> None:
    writing[0].cancel()
    await asyncio.gather(writing[0], return_exceptions=True)
    trades.end()
    await writing[1]
    await rows.persistence.flush()


async def _row_faults(dsn: str, rows: Rows) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetchrow(
            "SELECT count(*) AS stored, count(DISTINCT at_ns) AS different,"
            " count(*) FILTER (WHERE (payload->>'n')::bigint <> at_ns - $2) AS wrong"
            " FROM arb.metrics_snapshots WHERE env = $1",
            ENV,
            BEGAN_NS,
        )
    finally:
        await connection.close()
    faults = []
    if lost := rows.sent - found["different"]:
        faults.append(f"{lost} of {rows.sent} rows were lost")
    if doubled := found["stored"] - found["different"]:
        faults.append(f"{doubled} rows were written twice")
    if found["wrong"]:
        faults.append(f"{found['wrong']} rows are not as they were sent")
    if rows.persistence.dropped:
        faults.append(f"Persistence dropped {rows.persistence.dropped} rows")
    return faults


async def _ledger_faults(dsn: str) -> list[str]:
    report = await audit(dsn, Scope(ENV))
    return [f"audit: {outcome}" for outcome in report.outcomes if outcome.violations]
