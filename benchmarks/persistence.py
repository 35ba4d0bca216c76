"""
Snapshot rows into PostgreSQL: through Persistence, and by asyncpg's bare COPY of the same rows.

    python -m benchmarks.persistence --check
    python -m benchmarks.persistence --repeats 3 --rows 20000 --seconds 5 --json

The program's own Persistence and store over a real PostgreSQL (embedded, fsync on). Both sides
take turns, a round each, so that whatever else the machine does meets both alike: one hands
encoded rows to ``Persistence.put`` and waits until all are written, with batch ids, checksums
and digests; the other COPYs the same rows, ready as records, in pieces as large as its batches,
into the same tables, without ids. Then rows come at a fixed rate, as from many producers, and
what waits and what the process weighs is looked at. All rows are counted in the database.

The tables go to stderr; with ``--json`` one line of JSON goes to stdout. ``--check`` makes
the exit code 1 where a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, count, finish, judged
from benchmarks.persistence_stage import Stage, make_rows, stage

RATIO_MIN = 0.70
"""Rows a second through Persistence, by those of the bare COPY (issue 5)."""

RATE_MIN_PER_S = 10_000.0
"""Rows a second that are sustained on two cores (issue 5)."""

GROWTH_MAX_MIB = 64.0
"""The buffer's bound (persistence.buffer_max_bytes) and no more may be added while rows come."""

MIB = 1024 * 1024
CALL_ROWS = 250
"""Rows of one call: 25 symbols of a host, with a position or two each and some waiting."""

TICK_S = 0.05


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
        prog="python -m benchmarks.persistence",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=count, default=40_000, metavar="N", help="a round (40000)")
    parser.add_argument("--repeats", type=count, default=7, metavar="N", help="rounds (7)")
    parser.add_argument(
        "--rate", type=count, default=10_000, metavar="N", help="rows/s of the steady part (10000)"
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="of the steady part (20)"
    )
    add_outputs(parser)
    return parser


async def _measure(said: argparse.Namespace, console: Console) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    rounds: list[dict[str, float]] = []
    async with stage() as on:
        await _round(on, said.rows // 4, -1)
        for number in range(said.repeats):
            rounds.append(await _round(on, said.rows, number))
            console.print(_line(rounds[-1]), highlight=False)
        steady = await _steady(on, said.rate, said.seconds)
        stored = await on.count()
    expected = 2 * (said.rows // 4 + said.repeats * said.rows) + steady["steady_rows"]
    if stored != expected:
        raise RuntimeError(f"the database has {stored} rows, and {expected} were expected")
    return {
        "rows": said.rows,
        "repeats": said.repeats,
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "stored": stored,
        **{
            figure: round(statistics.median(one[figure] for one in rounds), 3)
            for figure in rounds[0]
        },
        **steady,
    }


async def _round(on: Stage, count: int, number: int) -> dict[str, float]:
    """Measure both sides, each first in every other round."""
    rows = make_rows(count, number)
    sides = (_ours_s, _bare_s) if number % 2 else (_bare_s, _ours_s)
    took = {side.__name__: await side(on, rows, number) for side in sides}
    ours, bare = count / took["_ours_s"], count / took["_bare_s"]
    return {"ours_per_s": ours, "bare_per_s": bare, "ratio": ours / bare}


async def _ours_s(on: Stage, rows: Sequence[Any], _number: int) -> float:
    calls = [on.encoded(rows[at : at + CALL_ROWS]) for at in range(0, len(rows), CALL_ROWS)]
    began = time.perf_counter()
    for call in calls:
        await on.put(call)
    await on.persistence.flush()
    return time.perf_counter() - began


async def _bare_s(on: Stage, rows: Sequence[Any], number: int) -> float:
    pieces = on.records(rows, number)
    began = time.perf_counter()
    for table, records in pieces:
        await on.copy(table, records)
    return time.perf_counter() - began


async def _steady(on: Stage, rate: int, seconds: float) -> dict[str, Any]:
    """Let rows come at ``rate``; return what was written, what waited, and what was weighed."""
    process = psutil.Process()
    rows = make_rows(CALL_ROWS, 10**6)
    before = on.persistence.written
    weights, waiting = [process.memory_full_info().uss / MIB], [0]
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    while (now := loop.time()) < began + seconds:
        while sent < rate * (now - began):
            await on.put(on.encoded(rows))
            sent += len(rows)
        waiting.append((await on.persistence.status())["buffered"])
        weights.append(process.memory_full_info().uss / MIB)
        await asyncio.sleep(TICK_S)
    await on.persistence.flush()
    written = on.persistence.written - before
    return {
        "steady_rows": written,
        "steady_per_s": round(written / (loop.time() - began), 1),
        "waiting_rows_max": max(waiting),
        "growth_mib": round(max(weights) - weights[0], 1),
        "spooled": on.persistence.spooled,
        "dropped": on.persistence.dropped,
    }


def _judge(told: dict[str, Any]) -> list[Verdict]:
    ratio, rate, growth = told["ratio"], told["steady_per_s"], told["growth_mib"]
    lost = told["spooled"] + told["dropped"]
    # The last call comes up to a turn of the clock early, and its batch is waited for.
    rate_min = RATE_MIN_PER_S * 0.98
    return [
        at_least("Persistence / bare COPY", ratio, RATIO_MIN, ""),
        at_least("rows written as they come", rate, rate_min, "1/s"),
        at_most("memory that this adds", growth, GROWTH_MAX_MIB, "MiB"),
        at_most("rows spooled or dropped", lost, 0, "rows"),
    ]


def _line(figures: dict[str, float]) -> str:
    return (
        f"Persistence {figures['ours_per_s']:,.0f} rows/s, bare COPY"
        f" {figures['bare_per_s']:,.0f} rows/s (x {figures['ratio']:.2f})"
    )


def _judged(told: dict[str, Any], verdicts: Sequence[Verdict]) -> Table:
    load = f"load {told['load_before']} before, {told['load_after']} after, {told['cores']} cores"
    words = f"median of {told['repeats']}: {_line(told)}; at most {told['waiting_rows_max']} waited"
    return judged(verdicts, f"{words} ({load})")


if __name__ == "__main__":
    sys.exit(main())
