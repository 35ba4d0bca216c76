"""Mistakes of the books and of the paper venue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.storage import memory
from arb_ray.adapters.venues import paper_execution
from arb_ray.engine import paper, planning, postings
from arb_ray.engine import trade_settle as settle
from tests.sim.bugs.register import bug, patch

replace = msgspec.structs.replace


@bug
def fill_is_booked_without_its_fee() -> Any:
    """The fee's postings are left out."""
    right = postings.fill_entry

    def wrong(leg: Any, order: Any, fill: Any) -> Any:
        free = replace(fill, fee=replace(fill.fee, amount=Decimal(0)))
        return right(leg, order, free)

    return patch(postings, "fill_entry", wrong)


@bug
def fill_is_booked_twice() -> Any:
    """A fill has two entries, under two ids."""
    right = paper_execution.report_entries

    def wrong(leg: Any, order: Any, report: Any) -> Any:
        entries = right(leg, order, report)
        return entries + tuple(replace(one, entry_id=one.entry_id + "'") for one in entries[:1])

    return patch(paper_execution, "report_entries", wrong)


@bug
def release_forgets_an_asset() -> Any:
    """One of the assets that were held stays held."""
    right = postings.release_entry

    def wrong(trade_id: str, symbol: Any, held: Any, at_ns: int) -> Any:
        return right(trade_id, symbol, list(held)[1:], at_ns)

    return patch(memory, "release_entry", wrong)


@bug
def venue_fills_beyond_the_limit() -> Any:
    """The walk through the book ignores the limit."""
    right = paper._walk

    def wrong(leg: Any, order: Any, levels: Any, at_ns: int) -> Any:
        price = levels[-1][0] if levels else order.limit_price
        return right(leg, replace(order, limit_price=price), levels, at_ns)

    return patch(paper, "_walk", wrong)


@bug
def venue_forgets_what_it_filled() -> Any:
    """A query about an order that was filled says that it was cancelled."""

    async def wrong(self: Any, client_order_id: str) -> Any:
        return None

    return patch(memory.MemoryStore, "find_report", wrong)


@bug
def dust_is_never_taken_along() -> Any:
    """What trades leave stays where it is for ever."""

    async def wrong(self: Any, asset: Any) -> Any:
        return {}

    return patch(memory.MemoryStore, "dust", wrong)


@bug
def dust_is_taken_twice() -> Any:
    """A plan counts the dust of a leg double."""
    right = planning._dust_taken
    return patch(planning, "_dust_taken", lambda leg, qty, dust: 2 * right(leg, qty, dust))


@bug
def dust_that_is_owed_is_not_booked() -> Any:
    """Inventory that was not bought back is simply missing."""
    right = settle.dust_entry

    def wrong(instrument: Any, trade_id: str, symbol: Any, residual: Any, at_ns: int) -> Any:
        return right(instrument, trade_id, symbol, max(residual, Decimal(0)), at_ns)

    return patch(settle, "dust_entry", wrong)
