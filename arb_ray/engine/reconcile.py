"""
What to believe after a crash about orders that were in flight.

The journal says which orders a trade had decided on; the store says which of them were
accepted, and which were answered. Fills, postings and the answer are one transaction, so an
order without a stored answer has moved no money, on paper.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus


class Finding(enum.StrEnum):
    """What the store knows of an order."""

    ANSWERED = "answered"  # the venue's last word is stored
    ACCEPTED = "accepted"  # stored before it was sent; no answer
    UNKNOWN = "unknown"  # never accepted


class Resolution(msgspec.Struct, frozen=True):
    """
    How an order in flight ends.

    ``report`` is what the trade machine is told in QueryAnswered (None: never accepted);
    ``must_store`` that it is new, and has to be stored before anyone is told.
    """

    client_order_id: str
    finding: Finding
    report: OrderReport | None
    must_store: bool


def resolve_order(
    order: OrderRequest, stored: OrderReport | None, *, is_known: bool, now_ns: int
) -> Resolution:
    """
    Decide about one order; the same store gives the same answer.

    An immediate-or-cancel order whose answer died with its process is closed unfilled on
    paper: the book of its arrival is gone, and to fill it now would choose a later one.
    """
    order_id = order.client_order_id
    if stored is not None:
        assert stored.client_order_id == order_id
        assert stored.status is not OrderStatus.UNKNOWN, "UNKNOWN is never a last word"
        assert is_known, "an answer is stored after the acceptance"
        return Resolution(order_id, Finding.ANSWERED, stored, must_store=False)
    if not is_known:
        return Resolution(order_id, Finding.UNKNOWN, None, must_store=False)
    reason = "cancelled: the process ended before the order arrived"
    lost = OrderReport(order_id, OrderStatus.CANCELLED, (), now_ns, reason)
    return Resolution(order_id, Finding.ACCEPTED, lost, must_store=True)


class Orphans(msgspec.Struct, frozen=True):
    """Reservations and open trades that do not belong together."""

    to_void: tuple[str, ...]  # room is held, but no trade is open: give it back
    without_room: tuple[str, ...]  # a trade is open that holds no room: close it, call a person


def find_orphans(
    reserved: Iterable[str], open_trades: Iterable[str], without_grant: Iterable[str]
) -> Orphans:
    """
    Compare the guard's open reservations with the journal's open trades.

    ``without_grant`` are open trades that have not been told of a yes yet (RESERVING): they
    may or may not hold room, and ask again by themselves.
    """
    held, trades, asking = set(reserved), set(open_trades), set(without_grant)
    assert asking <= trades
    return Orphans(
        to_void=tuple(sorted(held - trades)),
        without_room=tuple(sorted(trades - asking - held)),
    )
