"""
Where the CPU of the tick path goes: py-spy beside one cell of tick_path, by role and function.

    python -m benchmarks.tick_profile                                  # 10,000/s, 4 hosts, shm
    python -m benchmarks.tick_profile --plane ray --rate 5000 --json

Of each role the busiest process is sampled, whenever it holds Python's lock, so what waits counts
nothing, and nor does the kernel's part of a call. *Alone* is the function's own lines with all
that is C beneath them; *in all* also what it called. A sampler takes some of the machine itself:
the cell's times are told, and are no result.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.budgets import add_outputs, count, finish
from benchmarks.side_by_side import machine, versions
from benchmarks.tick_path_stage import Outcome, Stage, bench

SEED = 7
SAMPLES_PER_S = 500
PY_SPY = Path(sys.executable).with_name("py-spy")
TAIL_S = 60.0
"""What a recording may last beyond its time: it writes its file when it has ended."""

Stacks = Counter[tuple[str, ...]]


class Line(msgspec.Struct, frozen=True):
    """One function of one role; shares of the role's samples."""

    function: str
    alone: float
    in_all: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    said = _parser().parse_args(arguments)
    before = machine()
    outcome, stacks = asyncio.run(_run(said))
    lines = {role: lines_of(found, said.top) for role, found in sorted(stacks.items())}
    console = Console(stderr=True, width=110)
    for role, found in lines.items():
        console.print(_table(role, sum(stacks[role].values()), found))
    console.print(
        f"{said.plane}, {said.hosts} hosts, {outcome.sent_per_s:,.0f}/s under the samplers: "
        f"p50 {outcome.times.p50_ms:.2f} ms, {outcome.decided_share:.1%} decided",
        highlight=False,
    )
    told: dict[str, Any] = {
        "machine": before,
        "versions": versions("ray", "websockets", "msgspec", "py-spy"),
        "cell": msgspec.to_builtins(outcome),
        "shares": msgspec.to_builtins(lines),
    }
    return finish(said, told, [])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tick_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--plane", default="shm", help="shm, ray, calls (shm)")
    parser.add_argument("--hosts", type=count, default=4, help="strategy processes (4)")
    parser.add_argument("--rate", type=count, default=10_000, help="updates a second (10000)")
    parser.add_argument("--seconds", type=count, default=20, help="(20)")
    parser.add_argument("--top", type=count, default=12, metavar="N", help="functions a role (12)")
    add_outputs(parser)
    return parser


async def _run(said: argparse.Namespace) -> tuple[Outcome, dict[str, Stacks]]:
    async with bench(SEED) as run, run.stage(said.plane, said.hosts) as stage:
        measured = asyncio.create_task(stage.measure(said.rate, said.seconds + 1))
        await asyncio.sleep(1.5)  # the frames are prepared and the first second is no steady state
        stacks = await sampled(stage, said.seconds)
        return await measured, stacks


async def sampled(stage: Stage, seconds: int) -> dict[str, Stacks]:
    """Record the busiest feed and host of a stage for so long; return their stacks by role."""
    found: dict[str, Stacks] = defaultdict(Counter)
    with tempfile.TemporaryDirectory(prefix="arb-bench-profile-") as folder:
        recorded = [
            (role, _record(pid, Path(folder) / f"{pid}.txt", seconds))
            for role, pid in stage.busiest().items()
        ]
        all_stacks = await asyncio.gather(*(one for _, one in recorded))
    for (role, _), stacks in zip(recorded, all_stacks, strict=True):
        found[role].update(stacks)
    return dict(found)


async def _record(pid: int, file: Path, seconds: int) -> Stacks:
    how = ("--gil", "--nonblocking", "--function", "--format", "raw")
    what = ("--rate", str(SAMPLES_PER_S), "--duration", str(seconds), "--output", str(file))
    process = await asyncio.create_subprocess_exec(
        str(PY_SPY),
        *("record", "--pid", str(pid), *how, *what),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), seconds + TAIL_S)
    if process.returncode:
        raise RuntimeError(
            f"py-spy could not look into process {pid}: {errors.decode()[-300:].strip()}. "
            "It needs the right to trace: root, or kernel.yama.ptrace_scope = 0"
        )
    return _read(file)


def _read(file: Path) -> Stacks:
    return stacks_of(file.read_text().splitlines())


def stacks_of(lines: Iterable[str]) -> Stacks:
    """Return py-spy's raw lines as counts by stack, outermost function first."""
    stacks: Stacks = Counter()
    for line in lines:
        stack, _, samples = line.rpartition(" ")
        stacks[tuple(stack.split(";"))] += int(samples)
    return stacks


def lines_of(stacks: Mapping[tuple[str, ...], int], top: int) -> list[Line]:
    """Return the functions that ran most by themselves, most first."""
    alone: Counter[str] = Counter()
    in_all: Counter[str] = Counter()
    for stack, samples in stacks.items():
        alone[stack[-1]] += samples
        for function in set(stack):
            in_all[function] += samples
    whole = sum(alone.values()) or 1
    return [
        Line(function, round(samples / whole, 4), round(in_all[function] / whole, 4))
        for function, samples in alone.most_common(top)
    ]


def _table(role: str, samples: int, lines: Sequence[Line]) -> Table:
    table = Table(title=f"{role}: {samples:,} samples")
    for column in ("function", "alone", "in all"):
        table.add_column(column, justify="left" if column == "function" else "right")
    for one in lines:
        table.add_row(one.function, f"{one.alone:.1%}", f"{one.in_all:.1%}")
    return table


if __name__ == "__main__":
    sys.exit(main())
