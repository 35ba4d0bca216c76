"""
What the tick path does with four times what it can look at.

First the load is doubled until fewer than 95 % of the updates are decided: the step before is what
is sustained. Then four times that is written for some seconds, and the system is asked how it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from benchmarks.budgets import Verdict, at_least, at_most
from benchmarks.tick_path_stage import Outcome, Stage
from benchmarks.tick_tables import ROWS

DECIDED_SHARE = 0.95
RATES = tuple(500 << step for step in range(7))
"""Up to 32,000 a second; more than one feed of Python reads."""

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


def verdicts(seen: Overloaded, symbols: int) -> list[Verdict]:
    """Judge what was seen."""
    normal_ms = max(P99_FLOOR_MS, seen.sustained.times.p99_ms)
    where = f"{seen.outcome.cell.plane}, {seen.outcome.sent_per_s:,.0f}/s"
    return [
        at_most(
            "age of what is decided, p99", seen.outcome.times.p99_ms, 2 * normal_ms, "ms", where
        ),
        at_most("memory added", seen.growth_mb, GROWTH_MB, "MB", where),
        at_least("updates accounted for", seen.counted_share, 0.98, "", where),
        at_least("symbols whose losses are counted", seen.symbols_counted, symbols, "", where),
        at_most("processes that ended", seen.restarted, 0, "", where),
        at_least("feeds and hosts that say so", len(seen.says), 1, "", where),
        at_least("over ten seconds later", float(seen.is_over), 1, "", where),
    ]


def told(seen: Overloaded) -> dict[str, Any]:
    """Return it as plain JSON."""
    found: dict[str, Any] = msgspec.to_builtins(seen)
    return found
