"""Who keeps one order of events over all hosts of a replay: frames, timers, sleepers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from arb_ray.app.progress import Progress
from arb_ray.app.replay_frames import ReplayFrame
from arb_ray.app.replay_progress import Part
from arb_ray.app.replay_world import ReplaySetup, World

HEARTBEAT_NS = 500_000_000
SWEEP_NS = 250_000_000


class ReplayDriver:
    """Keeps one order of events over all hosts."""

    def __init__(self, world: World, setup: ReplaySetup, progress: Progress) -> None:
        self._world = world
        self._setup = setup
        self._progress = progress
        self._dues: list[tuple[int, str] | None] = [None] * len(world.hosts)
        self._next_heartbeat_ns = setup.start_ns
        self._next_sweep_ns = setup.start_ns
        self.frames = 0
        self.last_ns = setup.start_ns

    async def play(self, frames: Iterator[ReplayFrame]) -> None:
        """Play every frame, with heartbeats and sweeps in between."""
        start_ns = self._setup.start_ns
        await self._world.guard_recover(start_ns)
        for host in self._world.hosts:
            await host.prepare(start_ns)
        for venue, feed in self._world.feeds.items():
            await self._deliver(venue, await feed.connect(start_ns), start_ns)
        for frame in frames:
            await self.until(frame.at_ns)
            self.reach(frame.at_ns, Part.FRAME)
            feed = self._world.feeds.get(frame.venue)
            if feed is None:
                continue
            batch = await feed.frame(msgspec.msgpack.encode(frame.to_feed()))
            await self._deliver(frame.venue, batch, frame.at_ns)
            self.frames += 1
            self.last_ns = frame.at_ns
            if self.frames % 20_000 == 0:
                done_s = (frame.at_ns - start_ns) / 1e9
                self._progress.say(f"{self.frames:,} frames, {done_s:.0f} s of the recording")

    def reach(self, at_ns: int, part: Part) -> None:
        """Take note that all before a part of an instant is done."""

    async def until(self, at_ns: int) -> None:
        """Do what is due before a frame: sleepers, heartbeats and sweeps, in order of time."""
        while True:
            timer_ns = min(self._next_heartbeat_ns, self._next_sweep_ns)
            await self._wake_until(min(timer_ns, at_ns))
            if timer_ns > at_ns:
                return
            if self._next_heartbeat_ns == timer_ns:
                self._next_heartbeat_ns += HEARTBEAT_NS
                for venue, feed in self._world.feeds.items():
                    await self._deliver(venue, await feed.heartbeat(timer_ns), timer_ns)
            else:
                self._next_sweep_ns += SWEEP_NS
                await self._sweep(timer_ns)

    async def _wake_until(self, at_ns: int) -> None:
        while True:
            dues = [(due, index) for index, due in enumerate(self._dues) if due is not None]
            if not dues:
                return
            (due_ns, _), index = min(dues)
            if due_ns > at_ns:
                return
            self._dues[index] = _due(await self._world.hosts[index].wake())

    async def _sweep(self, now_ns: int) -> None:
        # Marks of all hosts first, and nobody looks before all have learned what the guard made
        # of them: so it is the same however the symbols are dealt out.
        self.reach(now_ns, Part.MARK)
        for host in self._world.hosts:
            await host.mark(now_ns)
        self.reach(now_ns, Part.LEARN)
        for host in self._world.hosts:
            await host.learn(now_ns)
        self.reach(now_ns, Part.LOOK)
        for index, host in enumerate(self._world.hosts):
            self._dues[index] = _due(await host.sweep(now_ns))
        self.reach(now_ns, Part.FRAME)

    async def _deliver(self, venue: str, batch: bytes, now_ns: int) -> None:
        del venue
        for index, host in enumerate(self._world.hosts):
            self._dues[index] = _due(await host.step(batch, now_ns))


def _due(told: Any) -> tuple[int, str] | None:
    return None if told is None else (int(told[0]), str(told[1]))
