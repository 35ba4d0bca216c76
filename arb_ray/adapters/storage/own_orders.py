"""
Orders that this process was the first to send: of them it knows all there is to know.

The trade machine asks for every order that a former process may have sent before it sends
one. So whatever is sent through us without an answer to that is of our own beginning, and an
absent PostgreSQL cannot know more of it than we do.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.instrument import Symbol
from arb_ray.domain.order import OrderReport, OrderRequest


class OwnOrder(msgspec.Struct):
    """What became of one so far."""

    is_accepted: bool = False
    report: OrderReport | None = None


class _Newest(msgspec.Struct):
    trade_id: str
    orders: dict[str, OwnOrder] = msgspec.field(default_factory=dict)


class OwnOrders:
    """The orders of the newest trade of each symbol; a later trade's first order drops them."""

    def __init__(self) -> None:
        self._by_symbol: dict[Symbol, _Newest] = {}

    def begin(self, order: OrderRequest) -> OwnOrder:
        """Return what is known of an order that is being sent, or sent again."""
        newest = self._by_symbol.get(order.symbol)
        if newest is None or newest.trade_id != order.trade_id:
            newest = self._by_symbol[order.symbol] = _Newest(order.trade_id)
        return newest.orders.setdefault(order.client_order_id, OwnOrder())

    def find(self, client_order_id: str) -> OwnOrder | None:
        """Return what is known; None of an order that another process may have sent."""
        for newest in self._by_symbol.values():
            if client_order_id in newest.orders:
                return newest.orders[client_order_id]
        return None
