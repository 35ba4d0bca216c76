"""
Local disks: what a process appended outlives it, and its node's next processes find it.

A host is mostly started where it was before, and at times on the other node, so that its
successor claims first and what it left meets a newer owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from arb_ray.adapters.storage.spool_records import AnyWrite, EventWrite, OrderWrite, decode_write
from arb_ray.domain.errors import StoreUnavailable
from tests.sim.faults import Chance
from tests.sim.history import History
from tests.sim.loop import Process, VirtualLoop

NEVER_SPOOLED = (
    "Signal", "ReserveAnswered", "ReserveUnanswered", "EdgeConfirmed", "EdgeGone", "Settled"
)  # fmt: skip


class SimSpool:
    """One process's spool on its node's disk; implements ``WriteSpool``."""

    def __init__(self, node: Node, owner: Process) -> None:
        self.name = owner.name
        self.holder = owner
        self.died_s: float | None = None
        self.records: list[bytes] = []
        self._node = node

    @property
    def pending(self) -> int:
        return len(self.records)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.records))

    async def append(self, payload: bytes) -> int:
        node, process, rates = self._node, self.holder, self._node.chance.rates
        if not process.is_alive:
            await process.hang()
        await asyncio.sleep(node.chance.between(0.0005, 0.01))
        if not process.is_alive:
            await process.hang()
        if node.chance.happens(rates.disk_refuses):
            raise StoreUnavailable("sim", "the disk is full")
        if node.chance.happens(rates.crash_before_write):
            process.kill()
            await process.hang()
        self.records.append(payload)
        node.appended(process, payload)
        if node.chance.happens(rates.crash_after_write):
            process.kill()
            await process.hang()
        return len(self.records)

    async def replay(self, deliver: Callable[[bytes], Awaitable[None]]) -> int:
        count = 0
        while self.records:
            await deliver(self.records[0])
            await asyncio.sleep(0.001)  # a crash here repeats the record
            del self.records[0]
            count += 1
        return count


class SimKept:
    """What the books refused on one node; implements ``KeptRecords``."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._stories: set[tuple[str, int]] = set()
        self.files: list[str] = []

    def is_broken(self, write: AnyWrite) -> bool:
        return (write.trade_id, write.owner_epoch) in self._stories

    async def keep(self, spool: str, payload: bytes, write: AnyWrite | None, reason: str) -> None:
        if write is None:
            self._history.violated("spool.read", f"{spool}: {payload!r} cannot be read")
            return
        self._history.say(spool, f"kept: {reason} {payload[:120]!r}")
        self._stories.add((write.trade_id, write.owner_epoch))


class Node:
    """One machine's disk, and what happened on it."""

    def __init__(self, name: str, loop: VirtualLoop, chance: Chance, history: History) -> None:
        self.name = name
        self.loop = loop
        self.chance = chance
        self.history = history
        self.kept = SimKept(history)
        self.spools: list[SimSpool] = []
        self.looked_s: dict[str, float] = {}  # by process, when it last found nothing left

    def appended(self, process: Process, payload: bytes) -> None:
        """A record is on the disk: its writer goes by it from here on."""
        write = decode_write(payload)
        self.history.say(process.name, f"spooled {payload[:200]!r}")
        if isinstance(write, OrderWrite):
            order = write.order
            self.history.spooled_ns.setdefault(order.client_order_id, self.loop.now_ns())
            if str(order.purpose) == "entry":
                text = f"{order.client_order_id} enters, and PostgreSQL is away"
                self.history.violated("spool.entry", text)
        elif isinstance(write, EventWrite):
            for kind in NEVER_SPOOLED:
                if f'"type":"{kind}"' in write.event:
                    self.history.violated("spool.entry", f"{write.trade_id}: {kind} was spooled")

    def claimed(self, process: str, symbol: str) -> None:
        """A symbol was claimed from this node: nothing of it may have been left here before."""
        looked_s = self.looked_s.get(process, -1.0)
        for spool in self.spools:
            is_older = spool.died_s is not None and spool.died_s <= looked_s
            is_left = spool.died_s is not None and (looked_s < 0 or is_older)
            if is_left and any(decode_write(one).symbol == symbol for one in spool.records):
                text = f"{process} claimed {symbol} before {spool.name}'s records were replayed"
                self.history.violated("spool.claim", text)

    def at_the_end(self, living: Sequence[Process]) -> None:
        """All is healed: who lives here has brought everything into the books."""
        for spool in self.spools:
            if spool.records and living:
                text = f"{len(spool.records)} records of {spool.name} are not in the books"
                self.history.violated("spool.left", text)


class NodePlace:
    """A node's spools as one process sees them; implements ``SpoolPlace``."""

    def __init__(self, node: Node, process: Process) -> None:
        self._node = node
        self._process = process
        self.reconciliation = node.kept

    async def open_own(self) -> SimSpool:
        spool = SimSpool(self._node, self._process)
        self._node.spools.append(spool)
        return spool

    async def left(self) -> Sequence[SimSpool]:
        if not self._process.is_alive:
            await self._process.hang()
        found = [one for one in self._node.spools if not one.holder.is_alive and one.records]
        for spool in found:
            spool.holder = self._process
        if not found and not self.others_with_records():
            self._node.looked_s[self._process.name] = self._node.loop.time()
        return found

    def others_with_records(self) -> Sequence[str]:
        name = self._process.name
        return [one.name for one in self._node.spools if one.name != name and one.records]

    async def remove(self, spool: Any) -> None:
        if self._process.is_alive:
            spool.holder = _NOBODY
            if not spool.records:
                self._node.spools.remove(spool)


class _Nobody:
    is_alive = False


_NOBODY: Any = _Nobody()
