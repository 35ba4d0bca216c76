"""
One frame to one event, by each venue's codec: beside json, orjson and msgspec's typed decoding.

    python -m benchmarks.decode --check
    python -m benchmarks.decode --repeats 5 --json

Real frames where ../shared/market_data is there, and those of the simulated exchanges otherwise
and for what was not recorded. All contenders get the same frames in turns: json and orjson make
dictionaries with prices still text; *bare* is msgspec's typed decoding of the same frame into
structs with float64 in them, and nothing else: it bounds no number, puts nothing in order, and an
Upbit book stays as it came. Ours ends with the event that the engine takes: bounds and order
looked at, (price, size) levels, stamps in ns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from arb_ray.adapters.venues.binance import codec as binance
from arb_ray.adapters.venues.upbit import codec as upbit
from arb_ray.domain.instrument import Venue
from benchmarks.budgets import Verdict, add_outputs, at_most, count, finish, judged
from benchmarks.decode_frames import FrameSet, frame_sets
from benchmarks.side_by_side import Contender, Figures, machine, ratio, side_by_side, versions

RATIO_MAX = 1.25
"""Ours by bare typed decoding (issue 6)."""

Read = Callable[..., Any]
Levels = list[tuple[float, float]]


class BareTop(msgspec.Struct):
    """A bookTicker's fields."""

    s: str
    u: int
    b: float
    B: float
    a: float
    A: float
    E: int = 0


class BareDiff(msgspec.Struct):
    """A depth update's fields."""

    s: str
    U: int
    u: int
    b: Levels
    a: Levels
    E: int
    pu: int | None = None


class BarePartial(msgspec.Struct):
    """A partial book's fields."""

    lastUpdateId: int  # noqa: N815  (the venue's spelling)
    bids: Levels
    asks: Levels


class BareUnit(msgspec.Struct):
    """One level of an Upbit book, both sides."""

    ask_price: float
    bid_price: float
    ask_size: float
    bid_size: float


class BareBook(msgspec.Struct):
    """An Upbit book."""

    code: str
    timestamp: int
    orderbook_units: list[BareUnit]
    stream_type: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    told: dict[str, Any] = {"machine": machine(), "versions": versions("msgspec", "orjson")}
    found: dict[str, dict[str, Figures]] = {}
    for frames in frame_sets():
        contenders = [Contender(name, _timed(read, frames)) for name, read in _readers(frames)]
        found[frames.name] = side_by_side(contenders, repeats=said.repeats)
    verdicts = [_verdict(name, one) for name, one in found.items()]
    told["ns_per_frame"] = {
        name: {who: round(one.median, 1) for who, one in by_reader.items()}
        for name, by_reader in found.items()
    }
    told["frames"] = {one.name: f"{len(one.frames)} {one.source}" for one in frame_sets()}
    Console(stderr=True).print(_table(told), judged(verdicts), highlight=False)
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decode",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=count, default=41, metavar="N", help="rounds (41)")
    add_outputs(parser)
    return parser


def _readers(frames: FrameSet) -> list[tuple[str, Read]]:
    readers: list[tuple[str, Read]] = [
        ("ours", _ours(frames)),
        ("bare", _bare(frames)),
        ("json", json.loads),
    ]
    try:
        import orjson
    except ImportError:
        return readers
    return [*readers, ("orjson", orjson.loads)]


def _ours(frames: FrameSet) -> Read:
    if frames.venue is Venue.UPBIT:
        return upbit.decode
    return binance.decode


def _bare(frames: FrameSet) -> Read:
    wire = {"bookTicker": BareTop, "diff": BareDiff, "partial": BarePartial}.get(frames.kind)
    if wire is None:
        return msgspec.json.Decoder(BareBook).decode
    envelope = msgspec.defstruct("Envelope", [("stream", str), ("data", wire)])
    return msgspec.json.Decoder(envelope, strict=False).decode


def _timed(read: Read, frames: FrameSet) -> Callable[[], float]:
    if read is binance.decode:
        return _timed_with(read, frames)

    def measure() -> float:
        began_ns = time.perf_counter_ns()
        for frame in frames.frames:
            read(frame)
        return (time.perf_counter_ns() - began_ns) / len(frames.frames)

    return measure


def _timed_with(read: Read, frames: FrameSet) -> Callable[[], float]:
    # A loop of its own: a wrapper that adds the venue would be a tenth of what is measured.
    def measure() -> float:
        venue = frames.venue
        began_ns = time.perf_counter_ns()
        for frame in frames.frames:
            read(frame, venue)
        return (time.perf_counter_ns() - began_ns) / len(frames.frames)

    return measure


def _verdict(name: str, found: dict[str, Figures]) -> Verdict:
    return at_most(
        f"{name}: ours / bare", ratio(found["ours"], found["bare"]), RATIO_MAX, "x", "same frames"
    )


def _table(told: dict[str, Any]) -> Table:
    table = Table(title="ns per frame, medians")
    for column in ("frames", "ours", "bare", "json", "orjson", "what"):
        table.add_column(column, justify="left" if column in {"frames", "what"} else "right")
    for name, by_reader in told["ns_per_frame"].items():
        cells = [
            f"{by_reader[who]:,.0f}" if who in by_reader else "not installed"
            for who in ("ours", "bare", "json", "orjson")
        ]
        table.add_row(name, *cells, told["frames"][name])
    return table


if __name__ == "__main__":
    sys.exit(main())
