"""
``arb-ray replay``: captured frames through the same engine, as fast as it goes.

One driver serves both ways. *process*: hosts, guard and ledger are objects here, the ledger
in memory. *ray*: the same classes in Ray actors, with an embedded PostgreSQL, in lock-step:
each step is awaited, and time is the recording's. The hash of the decision log must agree.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import msgspec

from arb_ray.actors.lockstep import HostReport
from arb_ray.actors.wire import unpack
from arb_ray.app.exit_codes import ExitCode
from arb_ray.app.progress import Progress
from arb_ray.app.recorded_pairs import pairs_of_recordings, recorded_depth
from arb_ray.app.registry import PairInstruments
from arb_ray.app.replay_driver import ReplayDriver
from arb_ray.app.replay_frames import first_prices, read_frames
from arb_ray.app.replay_shards import play_shards
from arb_ray.app.replay_world import ReplaySetup, open_world
from arb_ray.app.settings import Settings, load_settings
from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.domain.money import ZERO
from arb_ray.engine.decision_log import combined_hash
from arb_ray.engine.status import HostStatus
from arb_ray.engine.topology import symbols_by_host

HOSTS_ON_RAY = 2


class Played(Protocol):
    """What a driver tells when it has played."""

    frames: int
    last_ns: int


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay came to. ``decision_hash`` leaves out session ids and wall times."""

    through: str
    workers: int
    files: list[str]
    symbols: list[str]
    seed: int
    seconds_recorded: float
    seconds_taken: float
    frames: int
    updates_per_s: float
    decisions: int
    opportunities: int
    trades_opened: int
    trades_closed: int
    realized_pnl_usdt: str
    pnl_parts: dict[str, str]
    decision_hash: str


def run(
    *,
    files: Sequence[Path],
    seed: int | None,
    symbols: str | None,
    through: str,
    workers: int = 1,
    seconds: float | None = None,
    json: bool,
) -> int:
    """Replay and print the result."""
    overrides: dict[str, Any] = {
        "source": "replay",
        "recording.files": [str(file) for file in files],
        "symbols": symbols or "top:2000",
        "sim.market_seed": seed,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    settings = load_settings("dev", overrides)
    settings = load_settings("dev", overrides | recorded_depth(settings))
    pairs = pairs_of_recordings(settings)
    progress = Progress(sys.stderr)
    result = asyncio.run(
        replay(
            settings,
            pairs,
            through=through,
            progress=progress,
            workers=workers,
            seconds=seconds,
        )
    )
    if json:
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    else:
        sys.stdout.write(_in_words(result))
    return ExitCode.CLEAN


async def replay(
    settings: Settings,
    pairs: tuple[PairInstruments, ...],
    *,
    through: str,
    progress: Progress,
    hosts: int = HOSTS_ON_RAY,
    workers: int = 1,
    seconds: float | None = None,
) -> ReplayResult:
    """
    Replay the settings' recordings through one process or through Ray.

    With ``workers`` the symbols are dealt out over so many processes, which decide alike.
    """
    files = tuple(Path(file) for file in settings.recording.files)
    names = [str(pair.symbol) for pair in pairs]
    by_host = symbols_by_host(
        names, "auto", hosts if through == "ray" else min(workers, len(names))
    )
    groups = tuple(by_host.values())
    start_ns = next(iter(read_frames(files))).at_ns
    setup = ReplaySetup(
        seed=settings.sim.market_seed,
        start_ns=start_ns,
        pairs=pairs,
        groups=groups,
        prices_usdt=first_prices(settings, files, pairs),
    )
    began = time.perf_counter()
    end_ns = None if seconds is None else start_ns + int(seconds * 1e9)
    if through == "process" and len(groups) > 1:
        shards = await play_shards(settings, setup, files, end_ns)
        taken_s = time.perf_counter() - began
        return _result(settings, through, setup, shards, shards.reports, taken_s)
    async with open_world(settings, setup, through=through, progress=progress) as world:
        driver = ReplayDriver(world, setup, progress)
        await driver.play(
            takewhile(lambda frame: end_ns is None or frame.at_ns <= end_ns, read_frames(files))
        )
        reports = [unpack(await host.report(), HostReport) for host in world.hosts]
    return _result(settings, through, setup, driver, reports, time.perf_counter() - began)


def _result(
    settings: Settings,
    through: str,
    setup: ReplaySetup,
    driver: Played,
    reports: Sequence[HostReport],
    taken_s: float,
) -> ReplayResult:
    statuses = [unpack(report.status, HostStatus) for report in reports]
    parts = NO_PNL
    for status in statuses:
        parts = PnlParts(*(getattr(parts, n) + getattr(status.parts, n) for n in _PARTS))
    return ReplayResult(
        through=through,
        workers=len(setup.groups),
        files=[Path(file).name for file in settings.recording.files],
        symbols=[str(pair.symbol) for pair in setup.pairs],
        seed=setup.seed,
        seconds_recorded=round((driver.last_ns - setup.start_ns) / 1e9, 3),
        seconds_taken=round(taken_s, 3),
        frames=driver.frames,
        updates_per_s=round(driver.frames / taken_s, 1) if taken_s else 0.0,
        decisions=sum(status.decisions for status in statuses),
        opportunities=sum(status.opportunities for status in statuses),
        trades_opened=sum(status.trades_opened for status in statuses),
        trades_closed=sum(status.trades_closed for status in statuses),
        realized_pnl_usdt=str(sum((status.realized_usdt for status in statuses), ZERO)),
        pnl_parts={name: str(getattr(parts, name)) for name in _PARTS},
        decision_hash=combined_hash(head for report in reports for head in report.heads),
    )


_PARTS = PnlParts.__struct_fields__


def _in_words(result: ReplayResult) -> str:
    return (
        f"{result.frames:,} frames of {', '.join(result.files)} through {result.through}: "
        f"{result.seconds_recorded:g} s recorded, {result.seconds_taken:g} s taken\n"
        f"{result.decisions:,} decisions, {result.opportunities} opportunities, "
        f"{result.trades_opened} trades opened, {result.trades_closed} closed, "
        f"realized {result.realized_pnl_usdt} USDT\n"
        f"decision log {result.decision_hash}\n"
    )
