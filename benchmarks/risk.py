"""
RiskGuard's yes, with its commit: beside a bare Ray call and a bare commit, and many at once.

    python -m benchmarks.risk --check
    python -m benchmarks.risk --repeats 3 --count 100 --seconds 3 --json

A real RiskGuard actor over a real PostgreSQL (embedded, fsync on). The asker measures in turn,
so that whatever else the machine does meets all alike: a call to an actor that answers at once,
one INSERT on a connection of its own, a reserve, and the reservation's void. Then every symbol
reserves and voids as fast as it can: the voids take part in that figure's load, and are not
counted. Every reservation is a new id, and is looked for in the database afterwards.

The tables go to stderr; with ``--json`` one line of JSON goes to stdout. ``--check`` makes
the exit code 1 where a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, count, finish, judged
from benchmarks.risk_stage import stage

RATIO_MAX = 1.5
"""The p50 of a reserve, by the sum of those of a bare call and a bare commit (issue 4)."""

RATE_MIN_PER_S = 500.0
"""Reservations a second that group commit sustains (issue 4)."""

WARM_UP = 30
HISTORY_S = 2.0
"""
So long symbols trade before anything is measured, and the database learns how large its tables
are: while they are empty it plans to read them whole. Autovacuum does so within a minute.
"""
PARTS = ("call", "commit", "reserve", "void")
TITLES = {
    "call": "bare Ray call, actor to actor",
    "commit": "bare commit, one INSERT",
    "reserve": "reserve",
    "void": "void of it",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    told = asyncio.run(_measure(said, console))
    verdicts = _judge(told)
    console.print(_serial_table(told), judged(verdicts), highlight=False)
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.risk",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--symbols", type=count, default=50, metavar="N", help="askers (50)")
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="rounds (5)")
    parser.add_argument(
        "--count", type=count, default=200, metavar="N", help="of each kind, a round (200)"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, metavar="S", help="all at once, a round (5)"
    )
    add_outputs(parser)
    return parser


async def _measure(said: argparse.Namespace, console: Console) -> dict[str, Any]:
    load_before = os.getloadavg()
    rounds: list[dict[str, Any]] = []
    async with stage(said.symbols) as on:
        history = await on.asker.sustained.remote(HISTORY_S)
        await on.analyze()
        await on.asker.serial.remote(WARM_UP)
        reservations = len(history["reserve"]) + WARM_UP
        for _ in range(said.repeats):
            serial = await on.asker.serial.remote(said.count)
            burst = await on.asker.sustained.remote(said.seconds)
            reservations += said.count + len(burst["reserve"])
            rounds.append(_round(serial, burst))
            console.print(_line(rounds[-1]), highlight=False)
        rows = await on.rows()
    expected = {"reservations": reservations, "holds": reservations, "open": 0, "held": 0}
    if rows != expected:
        raise RuntimeError(f"the database has {rows}, and {expected} were expected")
    return {
        "symbols": said.symbols,
        "repeats": said.repeats,
        "count": said.count,
        "seconds": said.seconds,
        "cores": os.cpu_count(),
        "load_before": round(load_before[0], 2),
        "load_after": round(os.getloadavg()[0], 2),
        "reservations": reservations,
        **{
            figure: round(statistics.median(one[figure] for one in rounds), 3)
            for figure in rounds[0]
        },
    }


def _round(serial: dict[str, list[float]], burst: dict[str, Any]) -> dict[str, float]:
    """Return the figures of one round; the run's are their medians."""
    figures: dict[str, float] = {}
    for name in PARTS:
        figures[f"{name}_p50_ms"] = statistics.median(serial[name])
        figures[f"{name}_p99_ms"] = _p99(serial[name])
    bare_ms = figures["call_p50_ms"] + figures["commit_p50_ms"]
    figures["ratio"] = figures["reserve_p50_ms"] / bare_ms
    figures["rate_per_s"] = len(burst["reserve"]) / burst["took_s"]
    figures["burst_p50_ms"] = statistics.median(burst["reserve"])
    figures["burst_p99_ms"] = _p99(burst["reserve"])
    return figures


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]


def _judge(told: dict[str, Any]) -> list[Verdict]:
    ratio, rate = told["ratio"], told["rate_per_s"]
    return [
        at_most("reserve p50 / (call + commit)", ratio, RATIO_MAX, ""),
        at_least("reservations with their voids", rate, RATE_MIN_PER_S, "1/s"),
    ]


def _line(figures: dict[str, float]) -> str:
    return (
        f"call {figures['call_p50_ms']:.2f} + commit {figures['commit_p50_ms']:.2f} ms,"
        f" reserve {figures['reserve_p50_ms']:.2f} ms (x {figures['ratio']:.2f}),"
        f" {figures['rate_per_s']:.0f} reservations/s"
    )


def _serial_table(told: dict[str, Any]) -> Table:
    load = f"load {told['load_before']} before, {told['load_after']} after, {told['cores']} cores"
    table = Table(title=f"Median of {told['repeats']} rounds ({load})")
    for column in ("", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    figures = [(TITLES[name], name) for name in PARTS]
    for title, name in (*figures, (f"reserve, {told['symbols']} at once", "burst")):
        table.add_row(title, f"{told[f'{name}_p50_ms']:.2f}", f"{told[f'{name}_p99_ms']:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
