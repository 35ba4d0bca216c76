"""
Sees to it that every funding instant over which a perpetual was open is in its trade's journal.

A look at the market books what has passed. That is not enough: an order that closes the
position may be the next thing that happens after an instant, and a settled trade takes
nothing more. So whatever would settle a trade waits until every instant up to now has been
served, and until the stream has told of them: a process that has just started knows no rate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from arb_ray.actors.effect_runner import STORE_RETRY_NS, RunnerParts
from arb_ray.actors.trade_log import plan_facts
from arb_ray.domain.instrument import InstrumentId, Kind, Pair, Symbol
from arb_ray.engine.funding_due import Due, FundingWatch
from arb_ray.engine.trade_events import AnyEvent, Note
from arb_ray.engine.trade_state import Live, Trade


class Master(Protocol):
    """The symbol's runner."""

    trade: Trade

    @property
    def symbol(self) -> Symbol:
        """What is traded."""
        ...

    async def serve(self, event: AnyEvent, *, is_patient: bool = True) -> bool:
        """Journal an event and move the machine; False when it was given up."""
        ...


class FundingClerk:
    """Books one symbol's funding."""

    def __init__(self, master: Master, pair: Pair, parts: RunnerParts, interval_ns: int) -> None:
        self._master = master
        self._parts = parts
        self._is_perp = pair.b.instrument.kind is Kind.PERP
        self._instrument: InstrumentId = pair.b.instrument.id
        self._watch = FundingWatch(interval_ns)
        self._asked: set[int] = set()  # instants whose event is being journaled

    def note(self, live: Live, now_ns: int) -> None:
        """Book the instants that have passed over the position, beside whatever else is done."""
        for due in self._due(live, now_ns):
            funding_ns = due.event.funding_ns
            if funding_ns not in self._asked:
                self._asked.add(funding_ns)
                self._parts.tasks.spawn(self._book(due), f"funding:{self._master.symbol}")

    async def before_the_end(self, live: Live, take: Callable[[AnyEvent], Awaitable[None]]) -> None:
        """
        Hand every instant up to now to ``take``, before the trade is settled.

        Waits for the stream's word as long as it takes: settling without it would be a wrong
        number for ever, and all that waiting costs is the trade's room.
        """
        if not self._is_perp:
            return
        parts, now_ns = self._parts, self._parts.clock.now_ns()
        due = self._due(live, now_ns)
        while not self._watch.is_known(live.plan.decided_ns, now_ns):
            parts.log.warning("funding_waits", **plan_facts(live.plan))
            due_ns = parts.clock.now_ns() + STORE_RETRY_NS
            await parts.clock.sleep_until_ns(due_ns, f"{self._master.symbol}:funding")
            due = self._due(live, now_ns)
        for one in due:
            await take(one.event)
            self._tell(one)

    def forget(self) -> None:
        """A trade has ended."""
        self._asked.clear()

    def _due(self, live: Live, now_ns: int) -> tuple[Due, ...]:
        update = self._parts.view.funding.get(self._instrument)
        if update is not None:
            self._watch.see(update)
        return self._watch.due(live, now_ns)

    async def _book(self, due: Due) -> None:
        event = due.event
        try:
            await self._master.serve(event, is_patient=False)
        finally:
            self._asked.discard(event.funding_ns)
        self._tell(due)

    def _tell(self, due: Due) -> None:
        trade, event = self._master.trade, due.event
        booked = trade.funding if isinstance(trade, Live) else ()
        if due.is_estimated and any(paid.funding_ns == event.funding_ns for paid in booked):
            data = {"funding_ns": str(event.funding_ns), "rate": str(event.rate)}
            self._parts.listener.noted(trade, Note("funding_estimated", data))
