"""
A year of snapshots: how long the program's queries take, and taking a month out of it.

    python -m benchmarks.year --check
    python -m benchmarks.year --rows 500000 --json

The program's own store and retention over a real PostgreSQL (embedded, fsync on), with the rows
of one session that was open all year, as --resume keeps it, for 50 symbols. They are made by the
server itself, month by month, which is only to be had sooner. Then each query of the program runs
again and again, on sessions and moments all over the year. At last the oldest month is detached
and dropped by `arb-ray db retention`, while a writer writes batches and a reader reads.

The tables go to stderr; with ``--json`` one line of JSON goes to stdout. ``--check`` makes
the exit code 1 where a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from arb_ray.adapters.storage.retention import retain
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from benchmarks.budgets import Verdict, add_outputs, at_most, count, finish, judged
from benchmarks.year_stage import LONG, SYMBOLS, Stage, months_of, stage

QUERY_MAX_MS = 100.0
DETACH_MAX_S = 5.0
WRITER_MAX_S = 1.0
"""A batch that is written while a month goes may take so long: the age of a batch by default."""

REPEATS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    told = asyncio.run(_measure(said, console))
    verdicts = _judge(told)
    console.print(_judged(told, verdicts), highlight=False)
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.year",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=count, default=5_000_000, metavar="N", help="(5000000)")
    add_outputs(parser)
    return parser


async def _measure(said: argparse.Namespace, console: Console) -> dict[str, Any]:
    now = datetime.now(UTC)
    months = months_of(now)
    load_before = os.getloadavg()[0]
    async with stage() as on:
        began = time.perf_counter()
        for month in months:
            await on.fill(month, said.rows // len(months))
            console.print(f"{month:%Y-%m} filled", highlight=False)
        await on.settle()
        rows = await on.count()
        filled_s = time.perf_counter() - began
        queries = {name: await _timed(query) for name, query in _queries(on, months).items()}
        gone = await _without_the_oldest(on, now, months)
        left = await on.count()
    return {
        "rows": rows,
        "left": left,
        "filled_s": round(filled_s, 1),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "queries": queries,
        **gone,
    }


def _queries(on: Stage, months: Sequence[datetime]) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Return the program's queries, each with values that differ from call to call."""
    chance = random.Random(1)

    def before_ns() -> int:
        return int(chance.choice(months[1:]).timestamp()) * 1_000_000_000

    def sound(_payload: Any, _at_ns: int) -> str:
        return ""

    def newest(table: str, symbol: str = "", before: int | None = None) -> Awaitable[Any]:
        return on.store.newest(table, LONG, symbol, sound, before)

    return {
        "newest session": lambda: newest("session_snapshots"),
        "newest risk state": lambda: newest("risk_guard_snapshots"),
        "newest of a symbol": lambda: newest("metrics_snapshots", chance.choice(SYMBOLS)),
        "newest position": lambda: newest("position_snapshots", chance.choice(SYMBOLS)),
        "session at a moment": lambda: newest("session_snapshots", "", before_ns()),
        "symbol at a moment": lambda: newest(
            "metrics_snapshots", chance.choice(SYMBOLS), before_ns()
        ),
        "a session that left none": lambda: on.store.latest("session_snapshots", "none"),
        "what was quarantined": lambda: on.store.quarantined(0),
    }


async def _timed(query: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    took_ms = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await query()
        took_ms.append((time.perf_counter() - began) * 1000)
    # The first opens a connection and plans; it counts like the others.
    return {"median_ms": round(statistics.median(took_ms), 2), "max_ms": round(max(took_ms), 2)}


async def _without_the_oldest(
    on: Stage, now: datetime, months: Sequence[datetime]
) -> dict[str, Any]:
    """Take the oldest month out while a writer and a reader go on."""
    stop = asyncio.Event()
    writer = asyncio.create_task(on.write_until(stop))
    reader = asyncio.create_task(on.read_until(stop))
    await asyncio.sleep(2)
    quiet = (len(on.write_s), max(on.write_s))
    days = (now - months[1]).days
    began = time.perf_counter()
    done = await retain(on.dsn, days, now)
    detach_s = time.perf_counter() - began
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(writer, reader)
    dropped = {name.rpartition("_y")[0] for name in done.dropped}
    assert dropped == BY_MONTH
    assert len(dropped) == len(done.dropped)
    return {
        "dropped": done.dropped,
        "detach_s": round(detach_s, 3),
        "writes": len(on.write_s),
        "writer_quiet_max_s": round(quiet[1], 3),
        "writer_max_s": round(max(on.write_s[quiet[0] :]), 3),
        "reader_max_s": round(max(on.read_s), 3),
    }


def _judge(told: dict[str, Any]) -> list[Verdict]:
    queries = [
        at_most(name, one["max_ms"], QUERY_MAX_MS, "ms") for name, one in told["queries"].items()
    ]
    return [
        *queries,
        at_most("a month detached and dropped", told["detach_s"], DETACH_MAX_S, "s"),
        at_most("longest write meanwhile", told["writer_max_s"], WRITER_MAX_S, "s"),
    ]


def _judged(told: dict[str, Any], verdicts: Sequence[Verdict]) -> Table:
    load = f"load {told['load_before']} before, {told['load_after']} after, {told['cores']} cores"
    return judged(verdicts, f"{told['rows']:,} rows, slowest of {REPEATS} each ({load})")


if __name__ == "__main__":
    sys.exit(main())
