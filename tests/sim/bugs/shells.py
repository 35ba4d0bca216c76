"""Mistakes of the shells around the machines."""

from __future__ import annotations

from typing import Any

import msgspec

from arb_ray.actors import effect_runner, strategy_host, symbol_runner
from arb_ray.adapters.storage import memory
from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.engine import trade
from tests.sim.actors import MoodyVenue
from tests.sim.bugs.register import bug, patch

replace = msgspec.structs.replace


@bug
def host_acts_before_it_journals() -> Any:
    """A confirmed edge is acted on and never journaled."""
    right = symbol_runner.SymbolRunner._journal

    async def wrong(self: Any, plan: Any, event: Any, is_patient: bool) -> bool:
        if type(event).__name__ == "EdgeConfirmed":
            return True
        return await right(self, plan, event, is_patient)

    return patch(symbol_runner.SymbolRunner, "_journal", wrong)


@bug
def host_fails_over_a_batch() -> Any:
    """A batch of ticks that comes while a trade is open is a bug's end."""
    right = strategy_host.StrategyHost.apply

    def wrong(self: Any, batch: Any) -> None:
        if self.open_positions:
            raise TypeError("a bug")
        right(self, batch)

    return patch(strategy_host.StrategyHost, "apply", wrong)


@bug
def host_gives_up_a_report() -> Any:
    """An order's report is dropped when the journal is away."""
    right = symbol_runner.SymbolRunner._journal

    async def wrong(self: Any, plan: Any, event: Any, is_patient: bool) -> bool:
        return await right(
            self, plan, event, is_patient and type(event).__name__ != "OrderReported"
        )

    return patch(symbol_runner.SymbolRunner, "_journal", wrong)


@bug
def host_settles_once_and_hopes() -> Any:
    """A settlement without an answer counts as done."""
    right = effect_runner.EffectRunner._until_stored

    async def wrong(self: Any, write: Any) -> None:
        try:
            await write()
        except (StoreUnavailable, OutcomeUnknown):
            return

    assert right
    return patch(effect_runner.EffectRunner, "_until_stored", wrong)


@bug
def host_sends_old_orders() -> Any:
    """An order is sent however old its decision is."""
    return (
        patch(effect_runner.EffectRunner, "_is_too_old", lambda self, order: False),
        patch(trade, "LATE", trade.LATE),
        patch(symbol_runner, "IMPATIENT_TRIES", 10**6),
    )


@bug
def host_is_not_fenced() -> Any:
    """A host that was doubled goes on writing."""
    return patch(memory.MemoryStore, "_check_owner", lambda self, symbol, owner_epoch: None)


@bug
def host_ignores_flatten() -> Any:
    """An order to flatten is not obeyed."""
    from arb_ray.actors.strategy_host import StrategyHost

    right = StrategyHost.obey

    def wrong(self: Any, status: Any) -> None:
        right(self, replace(status, flatten_all=False, flatten=()))

    return patch(StrategyHost, "obey", wrong)


@bug
def venue_executes_an_order_twice() -> Any:
    """After a crash the venue knows no order, and an id that it knew travels and fills again."""

    async def carry(self: Any, owner_epoch: int, order: Any) -> Any:
        await self._ledger.accept_order(order.symbol, owner_epoch, order)
        leg = self._legs[order.instrument]
        report = self._meet_book(leg, order)
        await self._store(owner_epoch, leg, order, report)
        return report

    async def query(self: Any, owner_epoch: int, order: Any) -> Any:
        return None

    return patch(MoodyVenue, "_carry", carry), patch(MoodyVenue, "query", query)
