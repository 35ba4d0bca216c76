"""
Lock-step: the same hosts, guard and feeds, driven one step at a time on a recording's clock.

Used by ``arb-ray replay``, in one process and through Ray alike. Each call returns when all
that it set off has finished or sleeps on the virtual clock, and tells when its next sleeper
is due, so that the driver can keep one order of events over any number of processes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.actors.wire import pack, unpack
from arb_ray.domain.book import SCHEMA, BookUpdate, FundingUpdate, TickBatch
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.domain.ledger import Balance
from arb_ray.domain.risk_intent import Mark, ReserveIntent, RiskStatus, Settlement, Verdict
from arb_ray.engine.decision_log import ChainHead
from arb_ray.engine.feed import FeedOutput, VenueFeed
from arb_ray.ports import RiskClient

NODE = "lockstep"
CONNECTION = 1

Due = tuple[int, str] | None


class StepClock(Protocol):
    """What of a virtual clock is needed here."""

    def now_ns(self) -> int:
        """Return the recording's time."""
        ...

    def set(self, now_ns: int) -> None:
        """Stand at an instant."""
        ...

    def next_due(self) -> Due:
        """Return the next sleeper."""
        ...

    async def settle(self) -> None:
        """Run what is queued."""
        ...

    async def wake_next(self) -> None:
        """Wake the next sleeper."""
        ...


class HostReport(msgspec.Struct, frozen=True):
    """What a host decided over a whole replay."""

    heads: tuple[ChainHead, ...]
    status: bytes  # encoded HostStatus


class LockstepHost:
    """A strategy host on a virtual clock."""

    def __init__(self, host: StrategyHost, clock: StepClock) -> None:
        self._host = host
        self._clock = clock

    def start(self) -> None:
        """Nothing runs by itself in lock-step."""

    async def prepare(self, now_ns: int) -> None:
        """Load rules, claim symbols, learn the guard's state."""
        self._clock.set(now_ns)
        await self._host.load()
        await self._host.recover()
        await self._host.refresh_risk()
        await self._host.refresh_free()

    async def step(self, batch: bytes, now_ns: int) -> Due:
        """Take a batch at an instant."""
        self._clock.set(now_ns)
        self._host.apply(unpack(batch, TickBatch))
        await self._clock.settle()
        return self._clock.next_due()

    async def wake(self) -> Due:
        """Let the next sleeper go on."""
        await self._clock.wake_next()
        return self._clock.next_due()

    async def mark(self, now_ns: int) -> None:
        """Send marks; the state that comes back may not know the other hosts' yet."""
        self._clock.set(now_ns)
        await self._host.refresh_risk()

    async def learn(self, now_ns: int) -> None:
        """Learn the guard's state, every host's marks among it, and what is free."""
        self._clock.set(now_ns)
        await self._host.refresh_risk()
        await self._host.refresh_free()

    async def sweep(self, now_ns: int) -> Due:
        """Look at every symbol."""
        self._clock.set(now_ns)
        self._host.sweep()
        await self._clock.settle()
        return self._clock.next_due()

    async def report(self) -> bytes:
        """Return the encoded ``HostReport``."""
        heads = self._host.parts.record.decisions.heads()
        return pack(HostReport(heads, await self._host.status()))

    async def stop(self) -> None:
        """Give connections back."""
        await self._host.parts.ledger.close()


class LockstepGuard:
    """RiskGuard, told the time with each call."""

    def __init__(self, guard: RiskGuard, clock: StepClock) -> None:
        self._guard = guard
        self._clock = clock

    def start(self) -> None:
        """Nothing runs by itself in lock-step."""

    async def recover(self, now_ns: int) -> None:
        """Rebuild from the ledger."""
        self._clock.set(now_ns)
        await self._guard.recover()

    async def set_time(self, now_ns: int) -> None:
        """Stand at an instant."""
        self._clock.set(now_ns)

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """See ``RiskGuard``."""
        return await self._guard.reserve(intent)

    async def settle(self, settlement: Settlement) -> bool:
        """See ``RiskGuard``."""
        return await self._guard.settle(settlement)

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """See ``RiskGuard``."""
        return await self._guard.mark(host, marks)

    async def free(self) -> Sequence[Balance]:
        """See ``RiskGuard``."""
        return await self._guard.free()

    async def stop(self) -> None:
        """Give connections back."""
        await self._guard.stop()


class TimedRisk:
    """A host's way to a guard whose clock is told the host's time first."""

    def __init__(
        self,
        inner: RiskClient,
        set_time: Callable[[int], Awaitable[object]],
        clock: StepClock,
    ) -> None:
        self._inner = inner
        self._set_time = set_time
        self._clock = clock

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """See ``RiskClient``."""
        await self._set_time(self._clock.now_ns())
        return await self._inner.reserve(intent)

    async def settle(self, settlement: Settlement) -> None:
        """See ``RiskClient``."""
        await self._set_time(self._clock.now_ns())
        await self._inner.settle(settlement)

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """See ``RiskClient``."""
        await self._set_time(self._clock.now_ns())
        return await self._inner.mark(host, marks)

    async def free(self) -> Sequence[Balance]:
        """See ``RiskClient``."""
        return await self._inner.free()


class FrameIn(msgspec.Struct, frozen=True, array_like=True):
    """One recorded frame for a feed; ``snapshot_of`` names the symbol of a REST book."""

    at_ns: int
    raw: str
    snapshot_of: str = ""


class LockstepFeed:
    """A venue's protocol object, fed frames one by one."""

    def __init__(self, venue: Venue, feed: VenueFeed) -> None:
        self._venue = venue
        self._feed = feed
        self._seq = 0

    def start(self) -> None:
        """Nothing runs by itself in lock-step."""

    async def connect(self, now_ns: int) -> bytes:
        """Open every planned connection."""
        outputs = [
            self._feed.on_connected(plan.plan, CONNECTION, now_ns) for plan in self._feed.plans()
        ]
        return self._batch(outputs, now_ns)

    async def frame(self, frame: bytes) -> bytes:
        """Take one encoded ``FrameIn``; return the batch that follows, encoded."""
        one = unpack(frame, FrameIn)
        if one.snapshot_of:
            symbol = VenueSymbol(one.snapshot_of)
            output = self._feed.on_snapshot(symbol, one.raw, one.at_ns, one.at_ns)
        else:
            plan = self._plan_of(one.raw)
            output = self._feed.on_frame(plan, CONNECTION, one.raw, one.at_ns, one.at_ns)
        return self._batch([output], one.at_ns)

    async def heartbeat(self, now_ns: int) -> bytes:
        """
        Prove every connection alive.

        A recording holds no pongs; but a connection that delivers again later, without a
        reconnect in between, was alive all the time.
        """
        for plan in self._feed.plans():
            self._feed.on_alive(plan.plan, CONNECTION, now_ns)
        return self._batch([self._feed.on_tick(now_ns)], now_ns)

    async def counts(self) -> dict[str, Any]:
        """Return what was counted."""
        counters = self._feed.counters
        return {
            "venue": str(self._venue),
            "frames": counters.frames,
            "gaps": counters.gaps,
            "malformed": counters.malformed,
            "unknown": dict(counters.unknown),
        }

    async def stop(self) -> None:
        """Nothing to give back."""

    def _plan_of(self, raw: str) -> int:
        """Find the connection by the stream's name, which stands first in a combined frame."""
        plans = self._feed.plans()
        head = raw[:120]
        return next(
            (plan.plan for plan in plans if any(f'"{code}"' in head for code in plan.codes)), 0
        )

    def _batch(self, outputs: Sequence[FeedOutput], now_ns: int) -> bytes:
        updates: list[BookUpdate] = []
        funding: list[FundingUpdate] = []
        for output in outputs:
            funding.extend(output.funding)
            for change in output.books:
                self._seq += 1
                updates.append(
                    BookUpdate(
                        change.instrument,
                        1,
                        self._seq,
                        change.plan,
                        change.recv_wall_ns,
                        change.exchange_ns,
                        now_ns - change.recv_mono_ns,
                        change.bids,
                        change.asks,
                    )
                )
        clock = self._feed.clock()
        is_known = clock.samples > 0
        batch = TickBatch(
            SCHEMA,
            str(self._venue),
            1,
            NODE,
            now_ns,
            clock.offset_ms if is_known else 0.0,
            clock.uncertainty_ms if is_known else 0.0,
            self._feed.alive(now_ns),
            tuple(updates),
            tuple(funding),
        )
        return pack(batch)
