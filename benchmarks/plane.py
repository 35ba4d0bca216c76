"""
The tick plane's choice: the same traffic through each candidate, in one run, in turns.

    python -m benchmarks.plane --check
    python -m benchmarks.plane --repeats 3 --seconds 2 --json

A writer process puts packed books of 15 levels for 50 symbols, some at a time as a socket brings
them, at a fixed pace; one reader process, and then four, wait for their share of the symbols and
note when each book came. Told are the writer's CPU time for each update, the readers' together,
the time from put to read, and the part of the updates that was read before it was overwritten.
Then, without a pace: what one put costs, and what happens to the writer while a reader is frozen
(SIGSTOP) in the middle of a read. Contenders that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import shutil
import signal
import statistics
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from arb_ray.adapters.plane import segments
from benchmarks.budgets import Verdict, add_outputs, at_least, at_most, count, finish, judged
from benchmarks.plane_contenders import available, make_reader, make_writer
from benchmarks.side_by_side import machine, versions

SYMBOLS = 50
BURST = 10
"""Updates of one turn: what a read of a socket brings when it is busy."""

READERS = (1, 4)
STAMP = struct.Struct("=q")
WRITER_MAX_US = 15.0
"""CPU of the writer an update, of 100 µs that there are at 10,000 a second; packing included."""

DELIVERED_MIN = 0.95
START_S = 30.0
FROZEN_PUTS = 100_000


class Told(msgspec.Struct):
    """One repeat of one contender."""

    writer_us: float
    reader_us: float
    p50_us: float
    p99_us: float
    delivered: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, judge, tell; return the exit code."""
    said = _parser().parse_args(arguments)
    console = Console(stderr=True)
    kinds = [kind for kind in available() if not said.only or kind in said.only]
    before = machine()
    rounds: dict[str, list[Told]] = {}
    for number in range(said.repeats):
        for kind in (*kinds[number % len(kinds) :], *kinds[: number % len(kinds)]):
            for readers in READERS:
                told = _run(kind, readers, said.rate, said.seconds)
                rounds.setdefault(f"{kind} to {readers}", []).append(told)
    medians = {name: _median(one) for name, one in sorted(rounds.items())}
    frozen = {kind: _frozen(kind) for kind in kinds if kind in {"board", "lmdb"}}
    console.print(_table(medians, said.rate), highlight=False)
    for kind, words in frozen.items():
        console.print(f"{kind}, a reader frozen in a read: {words}", highlight=False)
    verdicts = _judge(medians)
    console.print(judged(verdicts), highlight=False)
    whole = {
        "rate": said.rate,
        "medians": msgspec.to_builtins(medians),
        "rounds": msgspec.to_builtins(rounds),
        "frozen": frozen,
        "machine": before,
        "load_after": os.getloadavg(),
        "versions": versions("lmdb", "pyzmq", "iceoryx2", "msgspec"),
    }
    return finish(said, whole, verdicts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plane",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=count, default=5, metavar="N", help="rounds (5)")
    parser.add_argument("--rate", type=count, default=10_000, metavar="N", help="updates/s (10000)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="each (3)")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these contenders")
    add_outputs(parser)
    return parser


def _run(kind: str, readers: int, rate: int, seconds: float) -> Told:
    folder = _folder("pace")
    context = mp.get_context("spawn")
    answers: Any = context.Queue()
    stop, ready = context.Event(), context.Barrier(readers + 1)
    children = [
        context.Process(
            target=_read, args=(kind, str(folder), readers, number, stop, ready, answers)
        )
        for number in range(readers)
    ]
    for child in children:
        child.start()
    try:
        writer = make_writer(kind, folder, SYMBOLS, readers)
        ready.wait(START_S)
        time.sleep(0.3)  # who connects by itself has found its peer by then
        sent, writer_s = _write(writer, rate, seconds)
        time.sleep(0.2)
        stop.set()
        told = [answers.get(timeout=START_S) for _ in children]
    finally:
        for child in children:
            child.join(5)
            child.kill()
        shutil.rmtree(folder.parent, ignore_errors=True)
    delays = sorted(delay for one in told for delay in one["delays_ns"])
    return Told(
        writer_s / sent * 1e6,
        sum(one["cpu_s"] for one in told) / sent * 1e6,
        delays[len(delays) // 2] / 1e3,
        delays[len(delays) * 99 // 100] / 1e3,
        len(delays) / sent,
    )


def _folder(name: str) -> Path:
    folder = segments.SHARED_MEMORY / f"arb_ray-bench-{os.getpid()}" / name
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
    return folder


def _write(writer: Any, rate: int, seconds: float) -> tuple[int, float]:
    """Put at a pace, some at a time; return how many, and the CPU time that it took."""
    levels = tuple((50_000.0 + n, 1.5 + n) for n in range(15))
    encode = msgspec.msgpack.Encoder().encode
    sent, busy_s, began = 0, 0.0, time.monotonic()
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate)
        if sent + BURST > due:
            time.sleep(0.0002)
            continue
        before = time.thread_time()
        for _ in range(BURST):
            body = encode((sent, 0, sent, sent, levels, levels))
            writer.put(sent * 7 % SYMBOLS, STAMP.pack(time.monotonic_ns()) + body)
            sent += 1
        writer.turn()
        busy_s += time.thread_time() - before
    return sent, busy_s


def _read(
    kind: str, folder: str, readers: int, number: int, stop: Any, ready: Any, answers: Any
) -> None:
    reader = make_reader(kind, Path(folder), SYMBOLS, readers, number)
    decode = msgspec.msgpack.Decoder().decode
    delays: list[int] = []
    ready.wait(START_S)
    began = time.process_time()
    while not stop.is_set():
        for _ in range(100):
            for value in reader.wait():
                delays.append(time.monotonic_ns() - STAMP.unpack_from(value)[0])
                decode(value[STAMP.size :])
            if stop.is_set():
                break
    answers.put({"delays_ns": delays, "cpu_s": time.process_time() - began})


def _frozen(kind: str) -> str:
    """Freeze a reader in the middle of a read, write on, and tell what became of the writer."""
    folder = _folder("frozen")
    context = mp.get_context("spawn")
    inside = context.Event()
    child = context.Process(target=_freeze, args=(kind, str(folder), inside))
    child.start()
    try:
        writer = make_writer(kind, folder, SYMBOLS, 1)
        value = b"x" * 600
        for symbol in range(SYMBOLS):
            writer.put(symbol, value)
        writer.turn()
        assert inside.wait(START_S), "the reader never came"
        time.sleep(0.1)
        for number in range(FROZEN_PUTS):
            writer.put(number % SYMBOLS, value)
            try:
                writer.turn()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is told
                return f"the writer failed after {number:,} turns: {type(error).__name__}"
    finally:
        child.kill()
        child.join()
        shutil.rmtree(folder.parent, ignore_errors=True)
    return f"{FROZEN_PUTS:,} turns, nothing happened"


def _freeze(kind: str, folder: str, inside: Any) -> None:
    reader: Any = make_reader(kind, Path(folder), SYMBOLS, 1, 0)
    while not reader.look():
        time.sleep(0.01)
    inside.set()
    if kind == "lmdb":
        with reader.env.begin() as transaction:
            transaction.get(b"versions")
            os.kill(os.getpid(), signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)


def _median(rounds: Sequence[Told]) -> Told:
    fields = Told.__struct_fields__
    return Told(*(statistics.median(getattr(one, name) for one in rounds) for name in fields))


def _judge(medians: dict[str, Told]) -> list[Verdict]:
    verdicts = []
    for readers in READERS:
        ours = medians[f"board to {readers}"]
        verdicts += [
            at_most(f"writer, to {readers}", ours.writer_us, WRITER_MAX_US, "µs an update"),
            at_least(f"delivered, to {readers}", ours.delivered, DELIVERED_MIN, "of all"),
        ]
    return verdicts


def _table(medians: dict[str, Told], rate: int) -> Table:
    table = Table(title=f"{SYMBOLS} symbols, {rate:,} updates/s, {BURST} a turn")
    for column in ("", "writer µs", "readers µs", "p50 µs", "p99 µs", "delivered"):
        table.add_column(column, justify="right" if column else "left")
    for name, one in medians.items():
        table.add_row(
            name,
            f"{one.writer_us:.1f}",
            f"{one.reader_us:.1f}",
            f"{one.p50_us:.0f}",
            f"{one.p99_us:.0f}",
            f"{one.delivered:.1%}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
