"""
A recording through the engine: beside nautilus_trader's backtest, and over one and two cores.

    python -m benchmarks.replay --check
    python -m benchmarks.replay --peers PYTHON --repeats 3 --updates 20000 --json

The same top-of-book updates, decoded and in memory, go through a strategy host of the program's
own wiring (view, gates, bounds, counters; one update a batch) and through nautilus_trader's
backtest with a strategy in Python that keeps the newest quotes and prices both directions, and
through hftbacktest's with the same strategy compiled by numba, as all of its strategies are: the
bare limit. CPU time an update, in turns. Peers run in processes of their own, by ``--peers``'
interpreter where they are not installed beside ours; one that is nowhere is skipped.

Then ``arb-ray replay`` plays venue frames, drawn from a seed, from the file to the last fill:
decoding, books, strategy, RiskGuard, paper execution; by one process and by two. Their rates are
by the wall, the start of the workers included, and the hashes of their decisions must be equal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.domain.book import TickBatch
from arb_ray.domain.instrument import Instrument, InstrumentId, Venue
from benchmarks.budgets import Verdict, add_outputs, at_least, count, finish, judged
from benchmarks.replay_recording import START_NS, SYMBOLS, write_recording
from benchmarks.side_by_side import Contender, Figures, machine, ratio, side_by_side, versions
from benchmarks.strategy_stage import Market, settings_of, start_host

NAUTILUS_RATIO_MIN = 2.0
"""Updates a second of our engine, by those of nautilus_trader's backtest (issue 6)."""

CORES_RATIO_MIN = 1.8
"""Frames a second of two workers, by those of one (issue 6)."""

COINS = 10
PEERS = {"nautilus": "nautilus_trader", "hftbacktest": "hftbacktest"}
SEEN_SHARE_MIN = 0.99
"""hftbacktest ends at the last event without telling of it."""
REPLAY = Path(sys.executable).with_name("arb-ray")
TIMEOUT_S = 300.0

NAMES = {
    "ours": "engine, us of CPU an update",
    "nautilus": "nautilus_trader, us of CPU an update",
    "hftbacktest": "hftbacktest, compiled, us of CPU an update",
    "one": "arb-ray replay, frames/s",
    "two": "arb-ray replay --workers 2, frames/s",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    before = machine()
    with tempfile.TemporaryDirectory(prefix="arb-bench-replay-") as folder:
        contenders = [*_engines(said, Path(folder), console), *_replays(said, Path(folder))]
        found = side_by_side(contenders, repeats=said.repeats)
    verdicts = _judge(found)
    console.print(_table(said, found), judged(verdicts), highlight=False)
    told: dict[str, Any] = {
        "updates": said.updates,
        "frames": said.frames,
        "repeats": said.repeats,
        "machine": before,
        "versions": versions("msgspec", "nautilus_trader", "hftbacktest"),
        "figures": {name: msgspec.to_builtins(one) for name, one in found.items()},
    }
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--updates", type=count, default=20_000, metavar="N", help="(20000)")
    parser.add_argument("--frames", type=count, default=100_000, metavar="N", help="(100000)")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="rounds (3)")
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="that has the peers"
    )
    add_outputs(parser)
    return parser


def _engines(said: argparse.Namespace, folder: Path, console: Console) -> list[Contender]:
    host = asyncio.run(start_host(settings_of(COINS)))
    market = Market(list(host.runners.values()))
    drawn = _draw(market, said.updates)
    rows = [
        [_name(instrument), START_NS + number * 10**6, bid[0], ask[0], 5.0]
        for number, (instrument, bid, ask) in enumerate(drawn)
    ]
    file = folder / "updates.json"
    file.write_text(json.dumps(rows))
    contenders = [Contender("ours", _ours(host, market, drawn))]
    for name, package in PEERS.items():
        if _has(said.peers, package):
            seen = _moved(drawn) if name == "hftbacktest" else len(rows)
            contenders.append(Contender(name, _peer(said.peers, name, file, len(rows), seen)))
        else:
            console.print(f"{package} is not installed: skipped")
    return contenders


Row = tuple[Instrument, tuple[float, float], tuple[float, float]]


def _draw(market: Market, updates: int) -> list[Row]:
    """Return best prices of every market in turn, F's too; nothing pays."""
    instruments = [*market.instruments(), market.pairs[0].fx.instrument]
    rows: list[Row] = []
    for number in range(updates):
        one = instruments[number % len(instruments)]
        is_fx = one is instruments[-1]
        bids, asks = market.fx_book() if is_fx else market.walk(one)
        (bid, size), (ask, _) = bids[0], asks[0]
        rows.append((one, (round(bid, 4), size), (round(ask, 4), size)))
    return rows


def _moved(rows: Sequence[Row]) -> int:
    """Count the quotes at other prices than the former one: hftbacktest sees no others."""
    last: dict[InstrumentId, tuple[float, float]] = {}
    moved = 0
    for instrument, (bid, _), (ask, _) in rows:
        moved += last.get(instrument.id) != (bid, ask)
        last[instrument.id] = bid, ask
    return moved


def _name(instrument: Instrument) -> str:
    if instrument.asset == "USDT":
        return "KRWUSDT.UPBIT"
    venue = "UPBIT" if instrument.venue is Venue.UPBIT else "BINANCE"
    return f"{instrument.asset}USDT.{venue}"


def _ours(host: StrategyHost, market: Market, rows: Sequence[Row]) -> Callable[[], float]:
    def measure() -> float:
        batches: list[TickBatch] = [
            market.batch([(instrument, ((bid,), (ask,)))]) for instrument, bid, ask in rows
        ]
        read = host.parts.view.counts.read
        gc.collect()
        gc.freeze()  # the recording that lies in memory is not the engine's to look through
        began = time.thread_time_ns()
        for batch in batches:
            host.apply(batch)
        spent_us = (time.thread_time_ns() - began) / 1e3
        gc.unfreeze()
        assert host.parts.view.counts.read - read == len(rows), "every update was read"
        return spent_us / len(rows)

    return measure


def _has(python: str, package: str) -> bool:
    asked = subprocess.run(
        [python, "-c", f"import {package}"], capture_output=True, check=False, timeout=120
    )
    return asked.returncode == 0


def _peer(python: str, name: str, file: Path, updates: int, seen: int) -> Callable[[], float]:
    program = Path(__file__).with_name(f"replay_{name}.py")

    def measure() -> float:
        done = subprocess.run(
            [python, str(program), str(file)],
            capture_output=True,
            check=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        told = json.loads(done.stdout.splitlines()[-1])
        assert SEEN_SHARE_MIN * seen <= told["calls"] <= seen, (told, seen)
        return float(told["cpu_s"]) * 1e6 / updates

    return measure


def _replays(said: argparse.Namespace, folder: Path) -> list[Contender]:
    path = folder / "drawn.jsonl.zst"
    write_recording(path, symbols=SYMBOLS, frames=said.frames, swing_bps=40.0)
    hashes: set[str] = set()

    def rate(workers: int) -> float:
        done = subprocess.run(
            [REPLAY, "replay", "--json", "--workers", str(workers), str(path)],
            capture_output=True,
            check=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        told = json.loads(done.stdout)
        hashes.add(told["decision_hash"])
        assert len(hashes) == 1, "any number of workers decides alike"
        return float(told["updates_per_s"])

    contenders = [Contender("one", lambda: rate(1))]
    if (os.cpu_count() or 1) > 1:
        contenders.append(Contender("two", lambda: rate(2)))
    return contenders


def _judge(found: dict[str, Figures]) -> list[Verdict]:
    verdicts = []
    if "nautilus" in found:
        times = ratio(found["nautilus"], found["ours"])
        verdicts.append(at_least("engine / nautilus_trader", times, NAUTILUS_RATIO_MIN, "x"))
    if "two" in found:
        times = ratio(found["two"], found["one"])
        verdicts.append(at_least("two workers / one", times, CORES_RATIO_MIN, "x"))
    return verdicts


def _table(said: argparse.Namespace, found: dict[str, Figures]) -> Table:
    load = ", ".join(f"{one:g}" for one in machine()["load"])
    table = Table(title=f"Median of {said.repeats} rounds (load {load})")
    for column in ("", "median", "least", "most"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in found.items():
        table.add_row(NAMES[name], *(f"{x:,.2f}" for x in (one.median, one.least, one.most)))
    return table


if __name__ == "__main__":
    sys.exit(main())
