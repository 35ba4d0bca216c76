"""
A replay over several processes: the symbols dealt out, one RiskGuard and one ledger for all.

Each worker reads the whole recording and plays the frames of its own symbols, and of F, on a
clock of its own. What it asks of the guard, and what it posts, comes here with the recording's
time, and is done in the order of time: a call waits until every other worker has come as far or
waits itself (`replay_progress.py`). So the guard sees what it would see from one process, and all
decide alike. What concerns one symbol alone (its journal, its orders) is done at once.
"""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import re
import selectors
import traceback
from collections.abc import Iterator, Sequence
from itertools import takewhile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.actors.lockstep import HostReport, LockstepGuard
from arb_ray.actors.wire import unpack
from arb_ray.adapters.clock import VirtualClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.storage.recordings import LEFT_OUT
from arb_ray.adapters.telemetry.logs import configure_logs
from arb_ray.app.progress import Progress
from arb_ray.app.replay_driver import ReplayDriver
from arb_ray.app.replay_frames import ReplayFrame, read_frames
from arb_ray.app.replay_progress import IN_ORDER, RISK, Part, Progresses
from arb_ray.app.replay_world import (
    ReplaySetup,
    World,
    make_feed,
    make_guard,
    make_host,
    venues_of,
)
from arb_ray.app.settings import Settings

# The stream's or market's name stands first in every frame of market data. It is looked for in
# the recording's line, where the frame is a string and its quotes are escaped.
NAME = re.compile(rb'\\"(?:stream|code|cd)\\":\s*\\"([^"@.\\!]+)')
HEAD_BYTES = 200


class Call(msgspec.Struct, frozen=True):
    """A worker waits for this."""

    method: str
    arguments: tuple[Any, ...]
    key: int  # a point of the progress


class Past(msgspec.Struct, frozen=True):
    """A worker has passed what others wait for; how far it is stands in the progress."""


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
    index: int
    process: Any
    connection: Connection
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
    progress = Progresses(setup.start_ns, len(setup.groups))
    workers: list[_Worker] = []
    with selectors.DefaultSelector() as selector:
        try:
            for index in range(len(setup.groups)):
                ours, theirs = context.Pipe()
                said = (theirs, settings, setup, index, tuple(files), end_ns, progress)
                process = context.Process(target=_work, args=said, daemon=True)
                process.start()
                theirs.close()
                workers.append(_Worker(index, process, ours))
                selector.register(ours, selectors.EVENT_READ, workers[-1])
            while any(one.done is None for one in workers):
                for key, _ in selector.select():
                    _hear(key.data)
                    if key.data.done is not None:
                        selector.unregister(key.fileobj)
                while (one := _servable(workers, progress)) is not None:
                    assert one.waits is not None
                    clock.set(progress.at_ns(one.waits.key))
                    target = guard if one.waits.method in RISK else store
                    result = await getattr(target, one.waits.method)(*one.waits.arguments)
                    one.waits = None
                    one.connection.send(result)
        finally:
            for one in workers:
                one.process.terminate()
                one.process.join()
                one.connection.close()
    done = [one.done for one in workers if one.done is not None]
    reports = [unpack(one.report, HostReport) for one in done]
    return Shards(done[0].frames, done[0].last_ns, reports)


def _hear(one: _Worker) -> None:
    try:
        said = one.connection.recv()
    except EOFError:
        raise RuntimeError(f"a worker ended: exit code {one.process.exitcode}") from None
    if isinstance(said, Call):
        one.waits = said
    elif isinstance(said, Done):
        one.done = said
    elif isinstance(said, Failed):
        raise RuntimeError(said.trace)  # noqa: TRY004  # a worker's bug, told where it is seen
    else:
        assert isinstance(said, Past)


def _servable(workers: Sequence[_Worker], progress: Progresses) -> _Worker | None:
    """
    Return a worker whose call may be done now: nobody can still ask for anything before it.

    Where there is none, the others are asked to tell when they are past the first call that waits.
    """
    first: tuple[int, int] | None = None
    for one in workers:
        call = one.waits
        if call is None:
            continue
        if call.method not in IN_ORDER:
            return one
        key = (call.key, one.index)
        if first is None or key < first:
            first = key
    if first is None:
        progress.want(0)
        return None
    progress.want(first[0])
    # The progress is read after the wish is written, so one of the two sees the other.
    for other in workers:
        if other.index == first[1] or other.done is not None:
            continue
        point = progress.of(other.index) if other.waits is None else other.waits.key
        if (point, other.index) < first:
            return None
    return workers[first[1]]


# -- in a worker ----------------------------------------------------------------------------


class _Line:
    """The worker's way to the guard and the ledger; both are asked by name."""

    def __init__(
        self, connection: Connection, clock: VirtualClock, progress: Progresses, index: int
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._progress = progress
        self._index = index
        self.part = Part.WAKE

    def __getattr__(self, method: str) -> Any:
        async def call(*arguments: Any) -> Any:
            key = self._progress.point(self._clock.now_ns(), self.part)
            self._connection.send(Call(method, arguments, key))
            # The worker has nothing else to do: its clock stands still until the answer.
            return self._connection.recv()

        return call

    async def flush(self) -> None:
        """Nothing is buffered."""

    async def close(self) -> None:
        """The parent closes."""

    def reach(self, at_ns: int, part: Part) -> None:
        """Come to a part of an instant; all before it is over."""
        self.part = part
        if self._progress.reach(self._index, at_ns, part):
            self._connection.send(Past())


class _ShardDriver(ReplayDriver):
    """Tells the parent which part of which instant it is in."""

    line: _Line

    def reach(self, at_ns: int, part: Part) -> None:
        """Come to a part of an instant."""
        self.line.reach(at_ns, part)

    async def _wake_until(self, at_ns: int) -> None:
        self.line.part = Part.WAKE
        await super()._wake_until(at_ns)


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
        self._names = frozenset(
            name.encode() for one in self._symbols for name in (one, one.lower())
        )

    def wants(self, raw: msgspec.Raw) -> bool:
        """Tell by a frame's head whether to read it; one that names no market is everybody's."""
        found = NAME.search(memoryview(raw), 0, HEAD_BYTES)
        return found is None or found[1] in self._names

    def of(self, frames: Iterator[ReplayFrame]) -> Iterator[ReplayFrame]:
        """Yield the own ones."""
        for frame in frames:
            self.last_ns = frame.at_ns
            self.frames += frame.venue in self._venues
            if frame.snapshot_of:
                if frame.snapshot_of in self._symbols:
                    yield frame
            elif frame.raw is not LEFT_OUT:
                yield frame


def _work(
    connection: Connection,
    settings: Settings,
    setup: ReplaySetup,
    index: int,
    files: Sequence[Path],
    end_ns: int | None,
    progress: Progresses,
) -> None:
    try:
        playing = _play(connection, settings, setup, index, files, end_ns, progress)
        connection.send(asyncio.run(playing))
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
    progress: Progresses,
) -> Done:
    group = setup.groups[index]
    pairs = tuple(pair for pair in setup.pairs if pair.symbol in group)
    own_setup = msgspec.structs.replace(setup, pairs=pairs, groups=(group,))
    clock = VirtualClock(setup.start_ns)
    line = _Line(connection, clock, progress, index)

    async def nothing(_: int) -> None:
        """Every call carries its time."""

    host = make_host(settings, own_setup, f"host:{index}", group, clock, line, line, nothing)
    feeds = {str(venue): make_feed(settings, own_setup, venue) for venue in venues_of(own_setup)}
    driver = _ShardDriver(World(feeds, [host], nothing), own_setup, Progress(io.StringIO()))
    driver.line = line
    own = _Own(setup, group)
    read = read_frames(files, own.wants)
    frames = takewhile(lambda one: end_ns is None or one.at_ns <= end_ns, read)
    await driver.play(own.of(frames))
    await driver.until(own.last_ns)
    return Done(await host.report(), own.frames, own.last_ns)
