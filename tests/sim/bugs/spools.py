"""Mistakes of the spools that a host writes to while PostgreSQL is away."""

from __future__ import annotations

from typing import Any

from arb_ray.adapters.storage import memory, spooled_ledger
from tests.sim.bugs.register import bug, patch
from tests.sim.spools import SimSpool


@bug
def spool_is_replayed_out_of_order() -> Any:
    """The newest record goes first."""

    async def wrong(self: Any, deliver: Any) -> int:
        count = len(self.records)
        while self.records:
            await deliver(self.records[-1])
            del self.records[-1]
        return count

    return patch(SimSpool, "replay", wrong)


@bug
def spool_is_replayed_twice_without_idempotence() -> Any:
    """Every record is delivered twice, and the books know no repeat of an entry."""

    async def replay(self: Any, deliver: Any) -> int:
        count = len(self.records)
        while self.records:
            await deliver(self.records[0])
            await deliver(self.records[0])
            del self.records[0]
        return count

    async def report(
        self: Any, symbol: Any, owner_epoch: int, order: Any, report: Any, entries: Any
    ) -> None:
        self._reports.pop(order.client_order_id, None)
        for entry in entries:
            self.entries.pop(entry.entry_id, None)
        await right(self, symbol, owner_epoch, order, report, entries)

    right = memory.MemoryStore.report_order
    return patch(SimSpool, "replay", replay), patch(memory.MemoryStore, "report_order", report)


@bug
def spool_is_replayed_after_the_claim() -> Any:
    """A host claims its symbols without looking for what was left on its node."""

    async def wrong(self: Any, symbol: Any, owner: str) -> int:
        if self._spool is None:
            self._spool = await self._place.open_own()
        return await self._inner.claim_symbol(symbol, owner)

    return patch(spooled_ledger.SpooledLedger, "claim_symbol", wrong)


@bug
def spool_is_left_where_it_is() -> Any:
    """Nobody takes up what a process left that was killed."""

    async def wrong(self: Any) -> None:
        """Look for nothing."""

    return patch(spooled_ledger.SpooledLedger, "_replay_left", wrong)


@bug
def spool_is_overtaken() -> Any:
    """As soon as PostgreSQL answers, writes go past what is still spooled."""

    async def wrong(self: Any, spool: Any) -> None:
        await self._probe()
        self._is_away = False
        await self._replayer.replay(spool, self._is_refused)

    return patch(spooled_ledger.SpooledLedger, "_catch_up", wrong)


@bug
def spool_takes_entries() -> Any:
    """While PostgreSQL is away entries go to the spool like exits."""

    async def wrong(self: Any, write: Any, call: Any, *, can_spool: bool = True) -> Any:
        return await right(self, write, call)

    right = spooled_ledger.SpooledLedger._written
    return patch(spooled_ledger.SpooledLedger, "_written", wrong)


@bug
def spool_is_not_waited_for_at_the_end() -> Any:
    """A trade is settled while its last fills are still spooled."""

    async def wrong(self: Any) -> None:
        """Wait for nothing."""

    return patch(spooled_ledger.SpooledLedger, "flush", wrong)


@bug
def spool_forgets_its_own_orders() -> Any:
    """An order that was sent without PostgreSQL is sent and filled again when it is repeated."""
    from arb_ray.adapters.storage.own_orders import OwnOrder, OwnOrders

    return (
        patch(OwnOrders, "begin", lambda self, order: OwnOrder()),
        patch(OwnOrders, "find", lambda self, order_id: OwnOrder(report=None)),
    )
