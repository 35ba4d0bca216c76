"""Orders, fills and what a venue can answer."""

from __future__ import annotations

import enum
from decimal import Decimal

import msgspec

from arb_ray.domain.book import ExactLevels
from arb_ray.domain.instrument import InstrumentId, Symbol
from arb_ray.domain.money import Money, Price, Qty, Side


class Purpose(enum.StrEnum):
    """Why an order was sent. Entry-side purposes are valued at the entry's FX instant."""

    ENTRY = "entry"
    HEDGE = "hedge"  # undoes what the entry legs filled unalike
    EXIT = "exit"
    UNWIND = "unwind"  # finishes an exit leg that filled short


class OrderRequest(msgspec.Struct, frozen=True):
    """
    An immediate-or-cancel taker order.

    ``client_order_id`` is a pure function of the trade's state, so a replay after a crash
    arrives at the same one and asks before it sends. ``qty`` is in venue units.
    ``limit_price`` is the worst price accepted; ``decision_price`` the average price the
    decision was made at, against which slippage is measured.
    """

    client_order_id: str
    trade_id: str
    symbol: Symbol
    instrument: InstrumentId
    side: Side
    qty: Qty
    limit_price: Price
    decision_price: Decimal
    purpose: Purpose
    decided_ns: int


class Fill(msgspec.Struct, frozen=True):
    """
    One execution. ``qty`` is in venue units, ``fee`` positive and in the asset it is taken from.

    ``book_slice`` is what the order saw at arrival, best first, as far as it walked.
    """

    fill_id: str
    client_order_id: str
    price: Price
    qty: Qty
    fee: Money
    at_ns: int
    book_slice: ExactLevels


class OrderStatus(enum.StrEnum):
    """What is known of an order. All but UNKNOWN are final."""

    FILLED = "filled"
    PARTIAL = "partial"  # the rest was cancelled
    CANCELLED = "cancelled"  # nothing was filled
    REJECTED = "rejected"  # a rule refused it; it was never accepted
    UNKNOWN = "unknown"  # no answer; ask by client_order_id, never resend


class OrderReport(msgspec.Struct, frozen=True):
    """The venue's last word on an order."""

    client_order_id: str
    status: OrderStatus
    fills: tuple[Fill, ...]
    at_ns: int
    reason: str = ""

    @property
    def filled_qty(self) -> Decimal:
        """Venue units filled, over all fills."""
        return sum((fill.qty for fill in self.fills), Decimal(0))

    @property
    def notional(self) -> Decimal:
        """Quote units exchanged, before fees."""
        return sum((fill.price * fill.qty for fill in self.fills), Decimal(0))
