"""A plain object to host in a real Ray actor, and the kit that builds it there."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from arb_ray.actors.hosting import Loops
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.domain.errors import Fenced, StoreUnavailable
from arb_ray.domain.risk_intent import Granted, Refused, RiskRefusal


class Sample:
    """Writes a line at each birth, each start of its loop, and its orderly end."""

    def __init__(self, path, metrics):
        self._metrics = metrics
        self._path = Path(path)
        self._loops = Loops()
        self._end = asyncio.Event()
        self._note("born")

    def start(self):
        self._loops.start("work", self._work())

    def _note(self, what):
        with self._path.open("a", encoding="ascii") as file:
            file.write(f"{what} {os.getpid()}\n")

    async def _work(self):
        self._note("loop")
        await self._end.wait()

    async def pid(self):
        return os.getpid()

    async def count(self, name):
        self._metrics.inc(name)

    async def sample(self, name, value):
        self._metrics.observe(name, value)

    async def end_loop(self):
        self._end.set()

    async def fail(self, kind):
        if kind == "typed":
            raise Fenced("RiskGuard", 1, 2)
        raise AssertionError("a bug over there")

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    async def deliver(self, batch):
        return len(batch)

    async def reserve(self, intent):
        if intent.symbol == "AWAY":
            raise StoreUnavailable("postgres", "away")
        if intent.symbol == "NO":
            return Refused(intent.trade_id, RiskRefusal.BALANCE, "none left")
        return Granted(intent.trade_id, 3, intent.deadline_ns)

    async def stop(self):
        self._note("stop")
        await self._loops.stop()


class SampleKit(msgspec.Struct, frozen=True):
    """Implements ``ActorKit``."""

    folder: str

    def metrics(self, wanted):
        return PrometheusMetrics(wanted.role, wanted.key)

    def build(self, wanted, links, metrics):
        return Sample(f"{self.folder}/{wanted.key}", metrics)
