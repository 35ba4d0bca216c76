"""Which orders a live trade wants, where something is left that no order can take."""

from decimal import Decimal

import pytest
from msgspec.structs import replace

from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.engine.trade_orders import closing_orders, hedge_candidates, net_reducing_order, wanted
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Finished, Idle, Live, Phase
from tests import trade_world as tw

D = Decimal
PLAN = tw.make_plan(tw.BTC_PERP)  # buys on A in steps of 1e-8, sells on B in steps of 0.001
ENTRY, HEDGE = Purpose.ENTRY, Purpose.HEDGE


def live(*filled):
    """A trade whose orders have filled so much: (leg, side, quantity, purpose) each."""
    finished = []
    for number, (key, side, qty, purpose) in enumerate(filled):
        order_id = f"{PLAN.trade_id}:{number}"
        instrument = PLAN.leg(key).instrument
        price = PLAN.planned(key).price
        order = OrderRequest(
            order_id,
            PLAN.trade_id,
            PLAN.symbol,
            instrument.id,
            side,
            Qty(D(qty)),
            price.limit,
            price.decision,
            purpose,
            0,
        )
        fee = Money(D(0), instrument.quote)
        fill = Fill(f"{order_id}:0", order_id, Price(price.decision), Qty(D(qty)), fee, 5, ())
        report = OrderReport(order_id, OrderStatus.FILLED, (fill,), 5)
        finished.append(Finished(key, order, report))
    return Live(PLAN, Phase.HEDGING, PLAN.mark_usdt, finished=tuple(finished))


def test_a_leg_whose_entry_was_filled_whole_is_not_entered_again():
    """It has been undone in part since: what was reserved is used up all the same."""
    trade = live(
        (LegKey.A, Side.BUY, "0.007", ENTRY),
        (LegKey.B, Side.SELL, "0.007", ENTRY),
        (LegKey.B, Side.BUY, "0.003", HEDGE),
    )
    assert [(w.key, w.purpose) for w in hedge_candidates(trade)] == [(LegKey.A, HEDGE)]


def test_completing_a_leg_stops_at_its_plan():
    trade = live(
        (LegKey.A, Side.BUY, "0.007", ENTRY),
        (LegKey.B, Side.SELL, "0.005", ENTRY),
        (LegKey.B, Side.BUY, "0.003", HEDGE),
    )
    complete = hedge_candidates(trade)[-1]
    assert (complete.key, complete.qty) == (LegKey.B, PLAN.b.qty - D("0.005"))


def test_a_leg_that_is_closed_already_gets_no_order_of_nothing():
    trade = live((LegKey.B, Side.SELL, "0.007", ENTRY))
    assert [(w.key, w.qty) for w in closing_orders(trade)] == [(LegKey.B, D("0.007"))]


@pytest.mark.parametrize(
    ("a", "b", "key", "qty"),
    [
        ("0.007", "0.004", LegKey.A, "0.003"),  # the larger leg may shrink to the other
        ("0.007", "0.004", LegKey.B, None),  # the smaller one alone would open more
        ("0.0075", "0.007", LegKey.A, "0.0005"),
        ("0.0065", "0.007", LegKey.B, None),  # less than a lot of B
        ("0.007", "0.007", LegKey.A, None),
        ("0.007", None, LegKey.B, None),  # nothing to close there
    ],
)
def test_one_venue_alone_may_only_shrink_the_net_exposure(a, b, key, qty):
    filled = [(LegKey.A, Side.BUY, a, ENTRY)]
    if b:
        filled.append((LegKey.B, Side.SELL, b, ENTRY))
    order = net_reducing_order(live(*filled), key)
    assert (order.qty if order else None) == (D(qty) if qty else None)


def test_nothing_is_wanted_without_a_trade_or_while_orders_work():
    assert wanted(Idle()) == ()
    entered = live((LegKey.A, Side.BUY, "0.007", ENTRY), (LegKey.B, Side.SELL, "0.007", ENTRY))
    held = replace(entered, phase=Phase.HOLDING)
    assert len(wanted(held)) == 2
    assert wanted(replace(held, working=(held.finished[0].order,))) == ()
    assert wanted(replace(held, phase=Phase.EXITING)) == ()
