"""Open, kill everything, start again, trade, close; then the audit and the count of trades."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import asyncpg

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit
from tests.kill_matrix.server import Server
from tests.resume.stage import ENV
from tests.shell_world import TERMS

ROOT = Path(__file__).parents[2]
OPEN_BOUND_S = 300.0
RESUME_BOUND_S = 120.0

SESSION = """
    INSERT INTO arb.sessions (env, session_id, source, started_ns) VALUES ($1, $2, 'sim', 1)"""


class Resumed(NamedTuple):
    """How long it took from a PostgreSQL that accepts connections, and what was wrong."""

    positions: int
    seconds: float
    faults: tuple[str, ...]


async def resume(positions: int) -> Resumed:
    """Do it once."""
    with tempfile.TemporaryDirectory(prefix="resume.", dir="/tmp") as name:
        async with Server(Path(name) / "postgres") as server:
            await _rows(server.dsn, SESSION, ENV, TERMS.session_id)
            async with _stage(server.dsn, "open", positions) as process:
                await _says(process, "holding", OPEN_BOUND_S)
                process.kill()
                await process.wait()
                await asyncio.to_thread(server.kill)
            await server.start_again()
            before = await _open_trades(server.dsn)
            began = time.monotonic()
            async with _stage(server.dsn, "trade", positions) as process:
                await _says(process, "trading", RESUME_BOUND_S)
                seconds = time.monotonic() - began
                after = await _open_trades(server.dsn)
                assert process.stdin is not None
                process.stdin.write(b"close\n")
                await _says(process, "closed", OPEN_BOUND_S)
                await process.wait()
            faults = [*_lost(positions, before, after), *await _wrong(server.dsn)]
    return Resumed(positions, seconds, tuple(faults))


def _lost(positions: int, before: set[str], after: set[str]) -> list[str]:
    faults = []
    if len(before) != positions:
        faults.append(f"{len(before)} of {positions} positions outlived the kill")
    if lost := before - after:
        faults.append(f"{len(lost)} positions were not taken up: {sorted(lost)[:5]}")
    if len(after) != positions + 1:
        faults.append(f"{len(after)} positions are open, and {positions + 1} should be")
    return faults


async def _wrong(dsn: str) -> list[str]:
    faults = [f"{len(left)} trades stay open"] if (left := await _open_trades(dsn)) else []
    report = await audit(dsn, Scope(ENV))
    return faults + [f"audit: {outcome}" for outcome in report.outcomes if outcome.violations]


async def _open_trades(dsn: str) -> set[str]:
    rows = await _rows(
        dsn, "SELECT trade_id FROM arb.trades WHERE env = $1 AND status = 'open'", ENV
    )
    return {row["trade_id"] for row in rows}


async def _rows(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _stage(dsn: str, aim: str, positions: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.resume.stage", dsn, aim, str(positions),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        process._transport.close()  # type: ignore[attr-defined]


async def _says(process: asyncio.subprocess.Process, word: str, timeout_s: float) -> None:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), timeout_s)
    assert line.decode().strip() == word, f"{word!r} was due, and it said {line!r}"
