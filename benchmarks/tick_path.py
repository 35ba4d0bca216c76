"""
From a frame that an exchange writes to the decision of its strategy, through the real actors.

    python -m benchmarks.tick_path --check        # the budgeted cells and what they compare with
    python -m benchmarks.tick_path                # and 1,000 to 20,000 updates/s, 1, 4, 50 hosts
    python -m benchmarks.tick_path --hosts 4 --rates 10000 --planes ray process
    python -m benchmarks.tick_overload --check    # four times what it sustains; 4 hosts

Inside the measured path: the write to the exchange's socket, the kernel, the feed's transport,
codec and book, the plane, the host's view, and the strategy's look at the symbol. The load
generator is on the same machine and its CPU is told. An update counts as decided when its
strategy looked at it before a newer one had taken its place.

Exit codes: 0, and 1 with ``--check`` where a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, count, finish, judged
from benchmarks.side_by_side import machine, versions
from benchmarks.tick_kit import CALLS, PROCESS
from benchmarks.tick_path_stage import SYMBOLS, Bench, Cell, Outcome, Stage, bench, planes

RATES = (1_000, 5_000, 10_000, 20_000)
HOSTS = (1, 4, 50)
SEED = 7

TABLE_CHARS = 110
COLUMNS = (
    *("plane", "updates/s", "p50", "p99", "p99.9", "decided"),
    *("feed", "hosts", "Ray", "generator", "late"),
)

PACKED = Cell("", 4, 10_000)
ALONE = Cell("", 50, 5_000)
P50_PACKED_MS = 0.5
P99_PACKED_MS = 5.0
DECIDED_PACKED = 0.95
P50_ALONE_MS = 1.0
BETTER_THAN_RAY = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True, width=TABLE_CHARS)
    own = planes()
    outcomes = asyncio.run(_run(said, own, console))
    verdicts = _verdicts(outcomes, own[0])
    for hosts in sorted({one.cell.hosts for one in outcomes}):
        console.print(_table([one for one in outcomes if one.cell.hosts == hosts], hosts))
    if verdicts:
        console.print(judged(verdicts))
    told: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("ray", "websockets", "msgspec", "uvloop"),
        "symbols": SYMBOLS,
        "cells": msgspec.to_builtins(outcomes),
    }
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tick_path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hosts", type=count, nargs="+", help="strategy processes")
    parser.add_argument("--rates", type=count, nargs="+", help="updates a second")
    parser.add_argument("--planes", nargs="+", help="shm, ray, calls, process")
    parser.add_argument("--seconds", type=count, default=5, help="of each cell")
    parser.add_argument("--repeats", type=count, default=3, help="of the budgeted cells")
    add_outputs(parser)
    return parser


async def _run(said: argparse.Namespace, own: Sequence[str], console: Console) -> list[Outcome]:
    async with bench(SEED) as run:
        if said.check:
            return await _budgeted(run, own, said, console)
        outcomes: list[Outcome] = []
        for hosts in said.hosts or HOSTS:
            for plane in said.planes or (*own, CALLS, PROCESS):
                async with run.stage(plane, hosts) as stage:
                    outcomes += [
                        await _told(stage, per_s, said.seconds, console)
                        for per_s in said.rates or RATES
                    ]
        if said.hosts or said.rates or said.planes:
            return outcomes
        # A cell by itself says less than the middle one of some rounds in turns.
        judged_cells = await _budgeted(run, own, said, console)
        again = {one.cell for one in judged_cells}
        outcomes = [*(one for one in outcomes if one.cell not in again), *judged_cells]
        order = (*own, CALLS, PROCESS)
        return sorted(outcomes, key=lambda one: (order.index(one.cell.plane), one.cell.per_s))


async def _budgeted(
    run: Bench, own: Sequence[str], said: argparse.Namespace, console: Console
) -> list[Outcome]:
    """
    Measure the budgeted cells in turns, all planes of one number of hosts alive.

    Fifty hosts stand by themselves: fifty more that only live would take a core.
    """
    outcomes: list[Outcome] = []
    for cell, compared in ((PACKED, (*own, PROCESS)), (ALONE, own[:1])):
        async with contextlib.AsyncExitStack() as stack:
            stages = [
                await stack.enter_async_context(run.stage(plane, cell.hosts)) for plane in compared
            ]
            rounds: list[Outcome] = []
            for number in range(said.repeats):
                first = number % len(stages)
                rounds += [
                    await _told(stage, cell.per_s, said.seconds, console)
                    for stage in (*stages[first:], *stages[:first])
                ]
            outcomes += [_median(rounds, stage.plane) for stage in stages]
    return outcomes


async def _told(stage: Stage, per_s: int, seconds: int, console: Console) -> Outcome:
    one = await stage.measure(per_s, seconds)
    console.print(one.words, highlight=False)
    return one


def _median(outcomes: Iterable[Outcome], plane: str) -> Outcome:
    """Return the repeat of a plane that is the middle one by its p50."""
    mine = sorted((o for o in outcomes if o.cell.plane == plane), key=lambda o: o.times.p50_ms)
    return mine[len(mine) // 2]


def _verdicts(outcomes: Sequence[Outcome], plane: str) -> list[Verdict]:
    by_cell = {one.cell: one for one in outcomes}
    verdicts = []
    for wanted, p50_ms in ((PACKED, P50_PACKED_MS), (ALONE, P50_ALONE_MS)):
        where = f"{wanted.hosts} hosts, {wanted.per_s:,}/s"
        ours = by_cell.get(Cell(plane, wanted.hosts, wanted.per_s))
        if ours is None:
            continue
        name = f"{plane} p50, {where}"
        verdicts.append(at_most(name, ours.times.p50_ms, p50_ms, "ms"))
        if wanted is PACKED:
            verdicts += [
                at_most(f"{plane} p99, {where}", ours.times.p99_ms, P99_PACKED_MS, "ms"),
                at_least(f"{plane} decided, {where}", ours.decided_share, DECIDED_PACKED, ""),
            ]
        calls = by_cell.get(Cell("ray", wanted.hosts, wanted.per_s))
        if calls is not None and calls is not ours:
            better = calls.times.p50_ms / ours.times.p50_ms
            verdicts.append(
                at_least(f"p50 of ray / {plane}, {where}", better, BETTER_THAN_RAY, "times")
            )
    return verdicts


def _table(outcomes: Sequence[Outcome], hosts: int) -> Table:
    table = Table(
        title=f"{SYMBOLS} symbols, {hosts} strategy processes; times in ms, CPU in µs an update"
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "plane" else "right")
    for one in outcomes:
        table.add_row(
            one.cell.plane,
            f"{one.sent_per_s:,.0f}",
            *(f"{v:,.2f}" for v in (one.times.p50_ms, one.times.p99_ms, one.times.p999_ms)),
            f"{one.decided_share:.1%}",
            *(f"{v:,.0f}" for v in (one.cost.feed_us, one.cost.hosts_us, one.cost.ray_us)),
            f"{one.generator_cpu_share:.0%}",
            f"{one.generator_late_ms:,.1f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
