"""
What the tick path does with four times what it can look at.

    python -m benchmarks.tick_overload --check
    python -m benchmarks.tick_overload --plane ray --json

First the load on four hosts is doubled until fewer than 95 % of the updates are decided: the step
before is what is sustained. Then four times that is written for ten seconds, and the system is
asked how it is. Exit codes: 0, and 1 with ``--check`` where a budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence

import msgspec
from rich.console import Console

from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, finish, judged
from benchmarks.side_by_side import machine, versions
from benchmarks.tick_path_stage import SYMBOLS, Outcome, Stage, bench, planes
from benchmarks.tick_tables import ROWS

DECIDED_SHARE = 0.95
RATES = tuple(500 << step for step in range(7))
"""Up to 32,000 a second; more than one feed of Python reads."""

HOSTS = 4
SEED = 7
FACTOR = 4
SECONDS = 10
P99_FLOOR_MS = 5.0
"""The normal bound of an age is its p99 at the sustained load, and at least the budget for it."""

GROWTH_MB = 50.0
"""Memory of all feeds and hosts together may grow by this: caches and histograms fill."""


class Overloaded(msgspec.Struct, frozen=True):
    """What was seen under overload, beside the sustained load."""

    sustained: Outcome
    outcome: Outcome
    ramp: list[Outcome]
    growth_mb: float
    counted_share: float  # decided and overwritten updates, of those sent
    symbols_counted: int
    says: list[str]  # what feeds and hosts say of it, in words
    restarted: int  # processes that are not the same as before
    is_over: bool  # nobody is overloaded any more, ten seconds later


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tick_overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plane", choices=planes(), default=planes()[0], help="(%(default)s)")
    add_outputs(parser)
    said = parser.parse_args(arguments)
    console, before = Console(stderr=True, width=110), machine()
    seen = asyncio.run(_seen_on(said.plane, lambda one: console.print(one.words, highlight=False)))
    judgement = verdicts(seen)
    console.print(*seen.says, sep="\n")
    console.print(judged(judgement, "Overload"))
    told = {
        "machine": before,
        "versions": versions("ray", "websockets", "msgspec", "uvloop"),
        "overload": msgspec.to_builtins(seen),
    }
    return finish(said, told, judgement)


async def _seen_on(plane: str, tell: Callable[[Outcome], None]) -> Overloaded:
    async with bench(SEED) as run, run.stage(plane, HOSTS) as stage:
        return await overload(stage, tell)


async def overload(stage: Stage, tell: Callable[[Outcome], None]) -> Overloaded:
    """Find what is sustained, then write four times that."""
    ramp: list[Outcome] = []
    for per_s in RATES:
        ramp.append(await stage.measure(per_s, 3))
        tell(ramp[-1])
        if ramp[-1].decided_share < DECIDED_SHARE:
            break
    sustained = next((one for one in reversed(ramp) if one.decided_share >= DECIDED_SHARE), ramp[0])
    per_s = min(FACTOR * sustained.cell.per_s, ROWS // (SECONDS + 1))
    before, counted = await _processes(stage), await _counted(stage)
    outcome = await stage.measure(per_s, SECONDS)
    tell(outcome)
    says = await _says(stage)
    after, now = await _processes(stage), await _counted(stage)
    sent = outcome.sent
    await asyncio.sleep(10)
    return Overloaded(
        sustained=sustained,
        outcome=outcome,
        ramp=ramp,
        growth_mb=outcome.rss_mb - ramp[-1].rss_mb,
        counted_share=round((now - counted) / sent, 4),
        symbols_counted=await _symbols_counted(stage),
        says=says,
        restarted=len(before ^ after),
        is_over=not await _says(stage),
    )


async def _processes(stage: Stage) -> set[int]:
    feed, hosts = await stage.feed_status(), await stage.host_statuses()
    return {feed.born_ns, *(one.born_ns for one in hosts)}


async def _counted(stage: Stage) -> int:
    return sum(one.decisions + one.overwritten for one in await stage.host_statuses())


async def _symbols_counted(stage: Stage) -> int:
    pages: list[bytes] = await stage.metrics()
    lines = [line for page in pages for line in page.decode().splitlines()]
    counted = [one for one in lines if one.startswith("arb_symbol_updates_overwritten_total{")]
    return sum(float(one.rpartition(" ")[2]) > 0 for one in counted)


async def _says(stage: Stage) -> list[str]:
    feed = await stage.feed_status()
    whys = [feed.overloaded, *(one.overloaded for one in await stage.host_statuses())]
    return [why for why in whys if why]


def verdicts(seen: Overloaded) -> list[Verdict]:
    """Judge what was seen."""
    normal_ms = max(P99_FLOOR_MS, seen.sustained.times.p99_ms)
    where = f"{seen.outcome.cell.plane}, {seen.outcome.sent_per_s:,.0f}/s"
    return [
        at_most(
            "age of what is decided, p99", seen.outcome.times.p99_ms, 2 * normal_ms, "ms", where
        ),
        at_most("memory added", seen.growth_mb, GROWTH_MB, "MB", where),
        at_least("updates accounted for", seen.counted_share, 0.98, "", where),
        at_least("symbols whose losses are counted", seen.symbols_counted, SYMBOLS, "", where),
        at_most("processes that ended", seen.restarted, 0, "", where),
        at_least("feeds and hosts that say so", len(seen.says), 1, "", where),
        at_least("over ten seconds later", float(seen.is_over), 1, "", where),
    ]


if __name__ == "__main__":
    sys.exit(main())
