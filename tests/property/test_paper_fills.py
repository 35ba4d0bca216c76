"""Paper fills against any book: never better, never beyond, never more than was there."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arb_ray.domain.money import Price, Qty, Side, floor_to
from arb_ray.domain.order import OrderRequest, OrderStatus, Purpose
from arb_ray.engine.paper import LATENCY_MAX_P99S, fill_order, latency_ns
from tests import trade_world as tw

D = Decimal
LEGS = [tw.BTC_SPOT.a, tw.BTC_SPOT.b, tw.BTC_PERP.b, tw.PEPE_PERP.b]
sizes = st.decimals("0", "3", places=8)


def order(leg, side, qty, limit, purpose=Purpose.EXIT):
    return OrderRequest(
        "t:1:0",
        "t:1",
        "BTC",
        leg.instrument.id,
        side,
        Qty(qty),
        Price(limit),
        limit,
        purpose,
        0,
    )


@st.composite
def situations(draw):
    leg = draw(st.sampled_from(LEGS))
    rules = leg.rules
    base = D(100_000)
    tick = rules.tick_size(base)
    scale = rules.lot * 100_000
    ask_steps = sorted(draw(st.sets(st.integers(1, 30), max_size=6)))
    bid_steps = sorted(draw(st.sets(st.integers(0, 30), max_size=6)))
    asks = tuple((base + step * tick, draw(sizes) * scale) for step in ask_steps)
    bids = tuple((base - step * tick, draw(sizes) * scale) for step in bid_steps)
    side = draw(st.sampled_from(list(Side)))
    qty = floor_to(draw(st.decimals("0.1", "8", places=5)) * scale, rules.lot)
    limit = base + side.sign * draw(st.integers(-2, 32)) * tick
    return leg, order(leg, side, qty, limit), bids, asks


@given(situations())
def test_a_fill_is_what_the_book_gave(situation):
    leg, request, bids, asks = situation
    report = fill_order(leg, request, bids, asks, 77)
    levels = asks if request.side is Side.BUY else bids
    if report.status is OrderStatus.REJECTED:
        assert report.fills == ()
        assert leg.rules.problem_with(request.limit_price, request.qty)
        return

    displayed = dict(levels)
    within = [
        (price, size)
        for price, size in levels
        if price * request.side.sign <= request.limit_price * request.side.sign
    ]
    takeable = sum((floor_to(size, leg.rules.lot) for _, size in within), D(0))
    for fill in report.fills:
        assert fill.qty <= displayed[fill.price], "never more than was there"
        assert floor_to(fill.qty, leg.rules.lot) == fill.qty > 0
        assert fill.price in dict(within), "never beyond the limit"
        assert fill.book_slice == levels[: len(fill.book_slice)]
        assert fill.book_slice[-1][0] == fill.price, "as far as it walked"
        assert fill.at_ns == 77
    prices = [fill.price * request.side.sign for fill in report.fills]
    assert prices == sorted(prices)
    assert len(set(prices)) == len(prices), "one fill a level"
    assert report.filled_qty <= request.qty
    # Every better level was used up before a worse one: as much as possible, best first.
    for fill in report.fills[:-1]:
        assert fill.qty == floor_to(displayed[fill.price], leg.rules.lot)
    # The walk cuts what is left and what is there to the lot, so nothing takeable is missed.
    assert report.filled_qty == min(request.qty, takeable)

    expected = {
        True: OrderStatus.FILLED,
        False: OrderStatus.PARTIAL if report.fills else OrderStatus.CANCELLED,
    }[report.filled_qty == request.qty]
    assert report.status is expected


@given(situations())
def test_fees_are_taken_from_the_right_asset_and_never_too_low(situation):
    leg, request, bids, asks = situation
    for fill in fill_order(leg, request, bids, asks, 0).fills:
        if leg is tw.BTC_SPOT.b and request.side is Side.BUY:
            exact, asset = fill.qty * leg.fees.taker_rate, "BTC"
        else:
            exact, asset = fill.price * fill.qty * leg.fees.taker_rate, leg.instrument.quote
        assert fill.fee.asset == asset
        assert exact <= fill.fee.amount < exact + D("1e-8")


@given(st.integers(0, 2**63), st.text(max_size=30), st.integers(1, 500), st.integers(0, 2000))
@example(2890, "\u00d2\u00b6\x1a\u00ee", 1, 1556)  # less than half a microsecond before rounding
def test_latency_is_a_pure_bounded_draw(seed, order_id, median, extra):
    median_ms, p99_ms = D(median), D(median + extra)
    drawn = latency_ns(seed, order_id, median_ms, p99_ms)
    assert drawn == latency_ns(seed, order_id, median_ms, p99_ms)
    assert 0 < drawn <= LATENCY_MAX_P99S * p99_ms * 10**6
    assert drawn % 1000 == 0


def test_latency_has_the_median_and_the_tail_that_were_asked_for():
    drawn = sorted(latency_ns(7, f"t:{i}", D(40), D(200)) / 1e6 for i in range(4000))
    assert drawn[2000] == pytest.approx(40, rel=0.06)
    assert drawn[3960] == pytest.approx(200, rel=0.25)
    assert latency_ns(7, "t:1", D(40), D(200)) != latency_ns(8, "t:1", D(40), D(200))
    assert latency_ns(7, "t:1", D(40), D(40)) == 40_000_000
