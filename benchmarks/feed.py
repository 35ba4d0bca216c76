"""
Frames into a feed until the book is handed to the fan-out: CPU per frame, beside peers.

    python -m benchmarks.feed --check
    python -m benchmarks.feed --repeats 3 --json

Two stages. *Handlers* take the same frames without a socket: ours with everything between socket
and fan-out (book, continuity, liveness, clock, counters), cryptofeed's and ccxt.pro's own message
handlers with no network behind them. *Sockets* read frames that another process sends in bulk over
loopback: bare readers that count, readers that also decode into typed structs and keep the newest,
and our feed on either library. A turn of the loop brings our handler one frame of each coin; of
what one read of a socket brings, our feed works off the newest of each book (decision 22), while
the readers beside it take every frame. Each contender is a process of its own and tells its own
CPU time; what lies behind the fan-out is measured by ``benchmarks.plane`` and
``benchmarks.tick_path``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import feed_peers
from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, count, finish, judged
from benchmarks.feed_frames import KINDS, Kind, kind_named
from benchmarks.side_by_side import Contender, Figures, machine, ratio, side_by_side, versions

BARE_SHARE_MIN = 0.70
"""Our feed's frames a second of CPU by the bare reader's of the same transport (issue 6)."""

PEER_FACTOR_MIN = {True: 8.0, False: 3.0}
"""A peer's handler by ours, CPU per frame: books, and the rest (issue 6)."""

PICOWS_SHARE_MAX = 1 / 3
"""Paced, picows must cost less than this of websockets to be worth an extra (issue 6)."""

HANDLED_FRAMES = 3_000
BULK_FRAMES = 8_000
PACED_FRAMES = 4_000
PACED_PER_S = 5_000
SOCKET_KINDS = ("upbit orderbook 15", "binance depth diff", "binance bookTicker")
PEERS = {"cryptofeed": "cryptofeed", "ccxt.pro": "ccxt"}
TRANSPORTS = ("websockets", "picows")

Found = dict[str, dict[str, Figures]]


class Worker:
    """A contender's process."""

    def __init__(self, *arguments: str) -> None:
        self._name = " ".join(arguments)
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        """Return its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return line

    def cpu_us(self, task: dict[str, Any]) -> float:
        """Let it do a task; return µs of its CPU per frame."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(task).decode() + "\n")
        self._process.stdin.flush()
        cpu_s, _ = msgspec.json.decode(self.line(), type=tuple[float, float])
        return cpu_s / int(task["count"]) * 1e6

    def end(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    told: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("websockets", "picows", "aiohttp", "msgspec", "cryptofeed", "ccxt"),
    }
    handled = {kind.name: _handlers(kind, said.repeats) for kind in KINDS}
    bulk, paced = _sockets(said.repeats, is_check=said.check)
    verdicts = [*_of_handlers(handled), *_of_sockets(bulk), *_of_paced(paced)]
    told["cpu_us_per_frame"] = {
        stage: {
            kind: {who: round(one.median, 2) for who, one in by_name.items()}
            for kind, by_name in found.items()
        }
        for stage, found in (("handlers", handled), ("bulk", bulk), ("paced", paced))
    }
    tables = [_table(stage, found) for stage, found in told["cpu_us_per_frame"].items()]
    Console(stderr=True).print(*tables, judged(verdicts), highlight=False)
    return finish(said, told, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.feed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=count, default=7, metavar="N", help="rounds (7)")
    add_outputs(parser)
    return parser


def _handlers(kind: Kind, repeats: int) -> dict[str, Figures]:
    names = ["ours", *(name for name, package in PEERS.items() if feed_peers.has(package, kind))]
    workers = {name: Worker("benchmarks.feed_reader", name) for name in names}
    task = {"kind": kind.name, "count": HANDLED_FRAMES}
    try:
        return side_by_side(_contenders(workers, task), repeats=repeats)
    finally:
        for worker in workers.values():
            worker.end()


def _sockets(repeats: int, *, is_check: bool) -> tuple[Found, Found]:
    bare = [f"{library}, {what}" for library in TRANSPORTS for what in ("bare", "decoding")]
    names = [*bare, *(f"ours on {library}" for library in TRANSPORTS)]
    if not is_check:
        names.append("aiohttp, bare")
    workers = {name: Worker("benchmarks.feed_reader", name) for name in names}
    sender = Worker("benchmarks.feed_sender")
    port = int(sender.line())
    bulk: Found = {}
    try:
        for kind in SOCKET_KINDS:
            task = {"kind": kind, "count": BULK_FRAMES, "port": port, "rate": 0}
            bulk[kind] = side_by_side(_contenders(workers, task), repeats=repeats)
        pacing = {f"{one}, bare": workers[f"{one}, bare"] for one in TRANSPORTS}
        kind = "binance bookTicker"
        task = {"kind": kind, "count": PACED_FRAMES, "port": port, "rate": PACED_PER_S}
        paced = {kind: side_by_side(_contenders(pacing, task), repeats=repeats)}
    finally:
        for worker in (sender, *workers.values()):
            worker.end()
    return bulk, paced


def _contenders(workers: dict[str, Worker], task: dict[str, Any]) -> list[Contender]:
    def measure(worker: Worker) -> Callable[[], float]:
        return lambda: worker.cpu_us(task)

    return [Contender(name, measure(worker)) for name, worker in workers.items()]


def _of_handlers(handled: Found) -> list[Verdict]:
    verdicts = []
    for kind, found in handled.items():
        least = PEER_FACTOR_MIN[kind_named(kind).is_book]
        for peer in PEERS:
            if peer in found:
                factor = ratio(found[peer], found["ours"])
                verdicts.append(at_least(f"{kind}: {peer} / ours", factor, least, "x", "handlers"))
    return verdicts


def _of_sockets(bulk: Found) -> list[Verdict]:
    verdicts = []
    for kind, found in bulk.items():
        for library in TRANSPORTS:
            ours = found[f"ours on {library}"]
            # Reading with picows costs less than any decoding: its reader must decode to compare.
            what = "bare" if library == "websockets" else "decoding"
            share = ratio(found[f"{library}, {what}"], ours)
            name = f"{kind}: ours on {library} / {library}, {what}"
            verdicts.append(at_least(name, share, BARE_SHARE_MIN, "x", "frames a CPU second"))
    return verdicts


def _of_paced(paced: Found) -> list[Verdict]:
    return [
        at_most(
            f"{kind}: picows / websockets",
            ratio(found["picows, bare"], found["websockets, bare"]),
            round(PICOWS_SHARE_MAX, 3),
            "x",
            f"CPU a frame at {PACED_PER_S:,}/s",
        )
        for kind, found in paced.items()
    ]


def _table(stage: str, found: dict[str, dict[str, float]]) -> Table:
    names = list(dict.fromkeys(name for by_name in found.values() for name in by_name))
    table = Table(title=f"{stage}: µs of CPU per frame, medians")
    table.add_column("frames")
    for name in names:
        table.add_column(name, justify="right")
    for kind, by_name in found.items():
        cells = (f"{by_name[name]:,.2f}" if name in by_name else "-" for name in names)
        table.add_row(kind, *cells)
    return table


if __name__ == "__main__":
    sys.exit(main())
