"""
Paper execution: what an immediate-or-cancel taker order gets from a book at arrival.

It walks the visible levels of the taker's side, never at a better price than displayed,
never beyond its limit, never more than was there. It knows no clock: the shell says when
the order arrived, and ``latency_ns`` how long it travelled.
"""

from __future__ import annotations

import math
from decimal import Decimal
from hashlib import blake2b
from statistics import NormalDist

from arb_ray.domain.book import ExactLevels
from arb_ray.domain.instrument import InstrumentId, Leg
from arb_ray.domain.money import ZERO, Money, Price, Qty, Side, floor_to
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus
from arb_ray.engine.sizing import fee_amount, order_problem

LATENCY_MAX_P99S = 10
"""No order travels longer than this many p99s: the lognormal's far tail is cut there."""

_Z99 = 2.3263478740408408
_NS_PER_MS = 1_000_000
_NS_PER_US = 1_000
_UNIT_NORMAL = NormalDist()


def fill_order(
    leg: Leg, order: OrderRequest, bids: ExactLevels, asks: ExactLevels, at_ns: int
) -> OrderReport:
    """
    Fill ``order`` against the book it met at ``at_ns``; one fill a level.

    The answer is REJECTED when a rule of the market is broken, CANCELLED when nothing was
    within the limit or the book cannot be used, PARTIAL when depth within the limit is short.
    """
    assert order.instrument == leg.instrument.id

    def closed(status: OrderStatus, reason: str, fills: tuple[Fill, ...] = ()) -> OrderReport:
        return OrderReport(order.client_order_id, status, fills, at_ns, reason)

    problem = order_problem(leg, order.purpose, order.limit_price, order.qty)
    if problem:
        return closed(OrderStatus.REJECTED, problem)
    if bids and asks and bids[0][0] >= asks[0][0]:
        # A crossed book is a book in disorder; trading on it would be free money.
        return closed(OrderStatus.CANCELLED, "the book is crossed")
    fills = _walk(leg, order, asks if order.side is Side.BUY else bids, at_ns)
    filled = sum((fill.qty for fill in fills), ZERO)
    if filled == order.qty:
        return closed(OrderStatus.FILLED, "", fills)
    if filled > 0:
        return closed(OrderStatus.PARTIAL, "depth within the limit is short", fills)
    return closed(OrderStatus.CANCELLED, "nothing within the limit")


class Taken:
    """
    What paper orders have taken from displayed sizes, so that none is taken twice.

    No real book shows our fills. What was taken from a level is therefore missing from it
    until the venue displays another size at that price, or the price leaves the book; to be
    shown the same figure again proves nothing. Holds no more levels than the last book met
    on each side of each instrument.
    """

    def __init__(self) -> None:
        self._taken: dict[tuple[InstrumentId, Side], dict[Decimal, tuple[Decimal, Decimal]]] = {}

    def left(self, instrument: InstrumentId, side: Side, levels: ExactLevels) -> ExactLevels:
        """Return what a ``side`` order still finds of ``levels``; emptied ones are left out."""
        before = self._taken.get((instrument, side))
        if not before:
            return levels
        kept = {
            price: before[price]
            for price, size in levels
            if price in before and before[price][0] == size
        }
        self._taken[instrument, side] = kept
        rest = ((p, size - kept[p][1] if p in kept else size) for p, size in levels)
        return tuple((price, size) for price, size in rest if size > 0)

    def take(self, order: OrderRequest, levels: ExactLevels, fills: tuple[Fill, ...]) -> None:
        """Note the fills of an order against ``levels`` as displayed."""
        if not fills:
            return
        displayed = dict(levels)
        taken = self._taken.setdefault((order.instrument, order.side), {})
        for fill in fills:
            _, so_far = taken.get(fill.price, (ZERO, ZERO))
            taken[fill.price] = (displayed[fill.price], so_far + fill.qty)


def _walk(leg: Leg, order: OrderRequest, levels: ExactLevels, at_ns: int) -> tuple[Fill, ...]:
    fills: list[Fill] = []
    left: Decimal = order.qty
    for depth, (price, size) in enumerate(levels, start=1):
        beyond = price > order.limit_price if order.side is Side.BUY else price < order.limit_price
        if beyond or left <= 0:
            break
        # A displayed size that was cut to float's digits may be off the lot grid.
        take = floor_to(min(left, size), leg.rules.lot)
        if take <= 0:
            continue
        left -= take
        fills.append(
            Fill(
                fill_id=f"{order.client_order_id}:{len(fills)}",
                client_order_id=order.client_order_id,
                price=Price(price),
                qty=Qty(take),
                fee=_fee(leg, order.side, price, take),
                at_ns=at_ns,
                book_slice=levels[:depth],
            ),
        )
    return tuple(fills)


def _fee(leg: Leg, side: Side, price: Decimal, qty: Decimal) -> Money:
    if leg.fees.is_taken_in_base(side):
        base = leg.to_base_qty(qty)
        return Money(fee_amount(base, leg.fees.taker_rate), leg.instrument.asset)
    return Money(fee_amount(price * qty, leg.fees.taker_rate), leg.instrument.quote)


def latency_ns(seed: int, client_order_id: str, median_ms: Decimal, p99_ms: Decimal) -> int:
    """
    Draw an order's latency: lognormal, a pure function of ``seed`` and the order's id.

    No generator and no state, so a replay draws the same whatever else it does. Whole
    microseconds, and at least one: the last digits of ``exp`` differ between C libraries.
    """
    assert 0 < median_ms <= p99_ms
    digest = blake2b(f"{seed}/{client_order_id}".encode(), digest_size=8).digest()
    uniform = ((int.from_bytes(digest, "big") >> 11) + 0.5) / 2**53
    sigma = math.log(p99_ms / median_ms) / _Z99
    ms = float(median_ms) * math.exp(sigma * _UNIT_NORMAL.inv_cdf(uniform))
    ms = min(ms, LATENCY_MAX_P99S * float(p99_ms))
    return max(1, round(ms * _NS_PER_MS / _NS_PER_US)) * _NS_PER_US
