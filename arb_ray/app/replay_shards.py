"""
A replay over several processes: the symbols dealt out, one RiskGuard and one ledger for all.

Each worker reads the whole recording and plays the frames of its own symbols, and of F, on a
clock of its own. What it asks of the guard, and what it posts, comes here with the recording's
time, and is done in the order of time: a call waits until every other worker has come as far or
waits itself. So the guard sees what it would see from one process, and all decide alike. What
concerns one symbol alone (its journal, its orders) is done at once.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import re
import traceback
from collections.abc import Iterator, Sequence
from itertools import takewhile
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.actors.lockstep import HostReport, LockstepGuard
from arb_ray.actors.wire import unpack
from arb_ray.adapters.clock import VirtualClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.telemetry.logs import configure_logs
from arb_ray.app.progress import Progress
from arb_ray.app.replay_driver import ReplayDriver
from arb_ray.app.replay_frames import ReplayFrame, read_frames
from arb_ray.app.replay_world import (
    ReplaySetup,
    World,
    make_feed,
    make_guard,
    make_host,
    venues_of,
)
from arb_ray.app.settings import Settings

RISK = frozenset({"reserve", "settle", "mark", "free"})
IN_ORDER = RISK | {"post", "balances"}
"""Calls whose result depends on what other symbols did before; all others commute."""

MARK, REST, PAST = 0, 1, 2
"""Within one instant: every worker's marks, then all else worker by worker, then it is over."""

Key = tuple[int, int, int]  # recording's time, part of the instant, worker

# The stream's or market's name stands first in every frame of market data.
NAME = re.compile(r'"(?:stream|code|cd)":\s*"([^"@.]+)')
HEAD_CHARS = 160


class Call(msgspec.Struct, frozen=True):
    """A worker waits for this."""

    method: str
    arguments: tuple[Any, ...]
    key: Key


class Past(msgspec.Struct, frozen=True):
    """A worker will not ask for anything of this instant any more."""

    key: Key


class Done(msgspec.Struct, frozen=True):
    """A worker has played everything; ``frames`` counts those of all symbols."""

    report: bytes
    frames: int
    last_ns: int


class Failed(msgspec.Struct, frozen=True):
    """A worker ended by an error."""

    trace: str


class Shards(msgspec.Struct):
    """What all workers came to."""

    frames: int
    last_ns: int
    reports: list[HostReport]


class _Worker(msgspec.Struct):
    process: Any
    connection: Connection
    reached: Key  # whatever it asks for next comes at this point or later
    waits: Call | None = None
    done: Done | None = None


async def play_shards(
    settings: Settings, setup: ReplaySetup, files: Sequence[Path], end_ns: int | None
) -> Shards:
    """Play the recording, a process for each of the setup's groups. Raises what one raised."""
    configure_logs("error", "json")
    clock, store = VirtualClock(setup.start_ns), MemoryStore()
    guard = LockstepGuard(make_guard(settings, setup, store, clock), clock)
    await guard.recover(setup.start_ns)
    # What is imported and read is there at once. This process has no threads, and the workers
    # run a loop of their own.
    context = multiprocessing.get_context("fork")
    workers: list[_Worker] = []
    try:
        for index in range(len(setup.groups)):
            ours, theirs = context.Pipe()
            said = (theirs, settings, setup, index, tuple(files), end_ns)
            process = context.Process(target=_work, args=said, daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(process, ours, (setup.start_ns, MARK, index)))
        while any(one.done is None for one in workers):
            _hear(workers)
            while (one := _servable(workers)) is not None:
                assert one.waits is not None
                clock.set(one.waits.key[0])
                target = guard if one.waits.method in RISK else store
                result = await getattr(target, one.waits.method)(*one.waits.arguments)
                one.reached, one.waits = max(one.reached, one.waits.key), None
                one.connection.send(result)
    finally:
        for one in workers:
            one.process.terminate()
            one.process.join()
            one.connection.close()
    done = [one.done for one in workers if one.done is not None]
    reports = [unpack(one.report, HostReport) for one in done]
    return Shards(done[0].frames, done[0].last_ns, reports)


def _hear(workers: Sequence[_Worker]) -> None:
    by_connection = {one.connection: one for one in workers if one.done is None}
    for connection in wait(list(by_connection)):
        one = by_connection[connection]  # type: ignore[index]
        try:
            said = one.connection.recv()
        except EOFError:
            raise RuntimeError(f"a worker ended: exit code {one.process.exitcode}") from None
        if isinstance(said, Call):
            one.waits = said
        elif isinstance(said, Past):
            one.reached = said.key
        elif isinstance(said, Done):
            one.done = said
        else:
            assert isinstance(said, Failed)
            raise RuntimeError(said.trace)  # noqa: TRY004  # a worker's bug, told where it is seen


def _servable(workers: Sequence[_Worker]) -> _Worker | None:
    """Return a worker whose call may be done now: nobody can still ask for anything before it."""
    for one in workers:
        call = one.waits
        if call is None:
            continue
        if call.method not in IN_ORDER or all(
            (other.waits.key if other.waits is not None else other.reached) > call.key
            for other in workers
            if other is not one and other.done is None
        ):
            return one
    return None


# -- in a worker ----------------------------------------------------------------------------


class _Line:
    """The worker's way to the guard and the ledger; both are asked by name."""

    def __init__(self, connection: Connection, clock: VirtualClock, index: int) -> None:
        self._connection = connection
        self._clock = clock
        self._index = index
        self.part = REST

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            key = (self._clock.now_ns(), self.part, self._index)
            self._connection.send(Call(method, arguments, key))
            # The worker has nothing else to do: its clock stands still until the answer.
            return self._connection.recv()

        return call

    async def flush(self) -> None:
        """Nothing is buffered."""

    async def close(self) -> None:
        """The parent closes."""

    def past(self, now_ns: int) -> None:
        """Tell that this instant is over."""
        self._connection.send(Past((now_ns, PAST, self._index)))


class _ShardDriver(ReplayDriver):
    """Tells the parent which part of an instant it is in."""

    line: _Line

    async def _sweep(self, now_ns: int) -> None:
        self.line.part = MARK
        for host in self._world.hosts:
            await host.mark(now_ns)
        self.line.part = REST
        await self._sweep_hosts(now_ns)
        self.line.past(now_ns)


class _Own:
    """The frames of a worker's symbols, of all frames that it reads."""

    def __init__(self, setup: ReplaySetup, group: Sequence[str]) -> None:
        self.frames = 0
        self.last_ns = setup.start_ns
        self._venues = frozenset(venues_of(setup))
        self._symbols = frozenset(
            str(instrument.venue_symbol)
            for pair in setup.pairs
            if pair.symbol in group
            for instrument in (pair.a, pair.b, pair.fx)
        )

    def of(self, frames: Iterator[ReplayFrame]) -> Iterator[ReplayFrame]:
        """Yield the own ones; one that names no market is everybody's."""
        for frame in frames:
            self.last_ns = frame.at_ns
            self.frames += frame.venue in self._venues
            if frame.snapshot_of:
                name = frame.snapshot_of
            else:
                found = NAME.search(frame.raw, 0, HEAD_CHARS)
                name = found[1].upper() if found else ""
            if not name or name in self._symbols:
                yield frame


def _work(
    connection: Connection,
    settings: Settings,
    setup: ReplaySetup,
    index: int,
    files: Sequence[Path],
    end_ns: int | None,
) -> None:
    try:
        connection.send(asyncio.run(_play(connection, settings, setup, index, files, end_ns)))
    except Exception:
        connection.send(Failed(traceback.format_exc()))
        raise


async def _play(
    connection: Connection,
    settings: Settings,
    setup: ReplaySetup,
    index: int,
    files: Sequence[Path],
    end_ns: int | None,
) -> Done:
    group = setup.groups[index]
    pairs = tuple(pair for pair in setup.pairs if pair.symbol in group)
    own_setup = msgspec.structs.replace(setup, pairs=pairs, groups=(group,))
    clock = VirtualClock(setup.start_ns)
    line = _Line(connection, clock, index)

    async def nothing(_: int) -> None:
        """Every call carries its time."""

    host = make_host(settings, own_setup, f"host:{index}", group, clock, line, line, nothing)
    feeds = {str(venue): make_feed(settings, own_setup, venue) for venue in venues_of(own_setup)}
    driver = _ShardDriver(World(feeds, [host], nothing), own_setup, Progress(io.StringIO()))
    driver.line = line
    own = _Own(setup, group)
    frames = takewhile(lambda one: end_ns is None or one.at_ns <= end_ns, read_frames(files))
    await driver.play(own.of(frames))
    await driver.until(own.last_ns)
    return Done(await host.report(), own.frames, own.last_ns)
