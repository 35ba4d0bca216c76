"""Paper fills, by hand."""

from decimal import Decimal

import pytest

from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.order import OrderRequest, OrderStatus, Purpose
from arb_ray.engine.paper import Taken, fill_order, latency_ns
from tests import trade_world as tw

D = Decimal
SPOT = tw.BTC_SPOT.b
BIDS = ((D("99.98"), D("1")), (D("99.97"), D("2")))
ASKS = ((D("100.00"), D("0.5")), (D("100.01"), D("0.700009")), (D("100.05"), D("9")))


def request(side, qty, limit):
    return OrderRequest(
        "t:1:0",
        "t:1",
        "BTC",
        SPOT.instrument.id,
        side,
        Qty(D(qty)),
        Price(D(limit)),
        D(limit),
        Purpose.ENTRY,
        0,
    )


def fills(report):
    return [(fill.price, fill.qty) for fill in report.fills]


def test_a_buy_walks_the_asks_one_fill_a_level():
    report = fill_order(SPOT, request(Side.BUY, "1", "100.02"), BIDS, ASKS, 9)
    assert report.status is OrderStatus.FILLED
    assert fills(report) == [(D("100.00"), D("0.5")), (D("100.01"), D("0.5"))]
    assert [fill.fill_id for fill in report.fills] == ["t:1:0:0", "t:1:0:1"]
    assert report.fills[0].fee == Money(D("0.0005"), "BTC")
    assert report.fills[0].book_slice == ASKS[:1]
    assert report.fills[1].book_slice == ASKS[:2]


def test_the_limit_stops_the_walk_and_the_lot_cuts_a_level():
    report = fill_order(SPOT, request(Side.BUY, "3", "100.02"), BIDS, ASKS, 9)
    assert report.status is OrderStatus.PARTIAL
    assert fills(report)[-1] == (D("100.01"), D("0.70000"))
    assert report.reason


def test_a_sale_walks_the_bids_and_pays_in_quote():
    report = fill_order(SPOT, request(Side.SELL, "2", "99.97"), BIDS, ASKS, 9)
    assert fills(report) == [(D("99.98"), D("1")), (D("99.97"), D("1"))]
    assert report.fills[0].fee == Money(D("0.09998"), "USDT")


def test_a_fee_is_rounded_up():
    asks = ((D("100.03"), D("0.06")),)
    report = fill_order(SPOT, request(Side.BUY, "0.05001", "100.03"), (), asks, 9)
    assert report.fills[0].fee.amount == D("0.00005001")
    report = fill_order(SPOT, request(Side.SELL, "0.05001", "100.03"), asks, (), 9)
    assert report.fills[0].fee.amount == D("0.00500251")  # 0.0050025003


def test_nothing_within_the_limit_is_cancelled():
    report = fill_order(SPOT, request(Side.BUY, "1", "99.99"), BIDS, ASKS, 9)
    assert (report.status, report.fills) == (OrderStatus.CANCELLED, ())
    assert fill_order(SPOT, request(Side.BUY, "1", "101"), BIDS, (), 9).fills == ()


def test_a_crossed_book_fills_nobody():
    report = fill_order(SPOT, request(Side.BUY, "1", "101"), ASKS, BIDS, 9)
    assert (report.status, report.reason) == (OrderStatus.CANCELLED, "the book is crossed")


def test_a_broken_rule_is_rejected_with_its_name():
    for qty, limit, word in (
        ("0.000011", "101", "lot grid"),
        ("1", "100.005", "tick grid"),
        ("0.01", "100", "minimum"),
    ):
        report = fill_order(SPOT, request(Side.BUY, qty, limit), BIDS, ASKS, 9)
        assert report.status is OrderStatus.REJECTED
        assert word in report.reason


def test_a_displayed_size_is_taken_once_until_the_venue_shows_another():
    taken = Taken()

    def sell(bids, qty="5"):
        left = taken.left(SPOT.instrument.id, Side.SELL, bids)
        order = request(Side.SELL, qty, "99.90")
        report = fill_order(SPOT, order, left, ASKS, 9)
        taken.take(order, bids, report.fills)
        return report.filled_qty

    assert sell(BIDS, "0.4") == D("0.4")
    assert sell(BIDS) == D("2.6")
    assert sell(BIDS) == 0
    assert sell(((D("99.98"), D("0.9")), BIDS[1])) == D("0.9")  # only this level is another
    assert sell(BIDS[1:]) == 0
    assert sell(((D("99.98"), D("0.9")), BIDS[1])) == D("0.9")  # it had left the book


def test_each_side_of_each_market_has_its_own_sizes():
    taken = Taken()
    order = request(Side.BUY, "0.5", "100.02")
    taken.take(order, ASKS, fill_order(SPOT, order, BIDS, ASKS, 9).fills)
    assert taken.left(SPOT.instrument.id, Side.SELL, ASKS) == ASKS
    assert taken.left("other", Side.BUY, ASKS) == ASKS
    assert taken.left(SPOT.instrument.id, Side.BUY, ASKS) == ASKS[1:]
    assert taken.left(SPOT.instrument.id, Side.BUY, ()) == ()
    assert taken._taken[SPOT.instrument.id, Side.BUY] == {}


@pytest.mark.parametrize(
    ("seed", "order_id", "median_ms", "p99_ms", "drawn_ns"),
    [
        (7, "t:1", "40", "200", 41_603_000),
        (7, "t:2", "40", "200", 47_435_000),
        (11, "sim:BTC:1:0", "0.5", "12.25", 3_268_000),
        (7, "t:1195", "1", "1000", 10_000_000_000),  # cut at ten times the p99
    ],
)
def test_a_replay_of_an_old_run_draws_the_latencies_of_then(
    seed, order_id, median_ms, p99_ms, drawn_ns
):
    assert latency_ns(seed, order_id, D(median_ms), D(p99_ms)) == drawn_ns


@pytest.mark.parametrize("top", ["100.00", "100.01"])
def test_a_book_whose_best_prices_meet_fills_nobody(top):
    """Its deeper levels may look well: the best of each side is what counts."""
    bids = ((D(top), D("1")), (D("99.90"), D("2")))
    asks = ((D("100.00"), D("1")), (D("100.10"), D("2")))
    report = fill_order(SPOT, request(Side.BUY, "0.5", "100.02"), bids, asks, 9)
    assert (report.status, report.fills) == (OrderStatus.CANCELLED, ())
    assert report.reason == "the book is crossed"
