"""A live trade as the exit rules see it: cash flows signed, fees in quote included, base after fees."""

from arb_ray.domain.money import Side
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import OrderRequest, OrderStatus, Purpose
from arb_ray.engine.paper import fill_order
from arb_ray.engine.position import open_position
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Finished, Funding, Live, Phase
from tests.trade_world import BTC_PERP, BTC_SPOT, D, make_plan


def filled(plan, key, price, number=0):
    planned = plan.planned(key)
    order = OrderRequest(
        f"o{number}", plan.trade_id, plan.symbol, planned.leg.instrument.id, planned.side,
        planned.qty, planned.price.limit, planned.price.decision, Purpose.ENTRY, 0,
    )  # fmt: skip
    level = ((D(price), D(100)),)
    far = ((D(price) * (2 if planned.side is Side.SELL else D("0.5")), D(100)),)
    bids, asks = (level, far) if planned.side is Side.SELL else (far, level)
    report = fill_order(planned.leg, order, bids, asks, 1)
    assert report.status is OrderStatus.FILLED
    return Finished(key, order, report)


def holding(pair, direction=Direction.LONG_A_SHORT_B, **changes):
    plan = make_plan(pair, direction)
    price_a, price_b = plan.a.price.decision, plan.b.price.decision
    done = (filled(plan, LegKey.A, price_a), filled(plan, LegKey.B, price_b, 1))
    return Live(plan, Phase.HOLDING, plan.mark_usdt, finished=done, **changes)


def test_money_spent_is_negative_and_fees_in_quote_make_it_worse():
    live = holding(BTC_SPOT)
    seen = open_position(live, BTC_SPOT)
    plan = live.plan
    spent = plan.a.qty * plan.a.price.decision
    assert seen.entry_krw < -float(spent)
    assert abs(seen.entry_krw + float(spent * (1 + plan.a.leg.fees.taker_rate))) < 0.01
    got = plan.b.qty * plan.b.price.decision * (1 - plan.b.leg.fees.taker_rate)
    assert abs(seen.entry_usdt - float(got)) < 1e-6


def test_a_fee_taken_in_base_leaves_the_cash_alone_and_lessens_the_base():
    live = holding(BTC_SPOT, Direction.LONG_B_SHORT_A)
    seen = open_position(live, BTC_SPOT)
    plan = live.plan
    assert abs(seen.entry_usdt + float(plan.b.qty * plan.b.price.decision)) < 1e-9
    assert abs(live.position(LegKey.B)) < plan.b.qty
    assert abs(seen.base_qty - float(plan.a.qty)) < 1e-5


def test_the_bounds_and_the_age_are_those_of_the_plan():
    live = holding(BTC_SPOT)
    seen = open_position(live, BTC_SPOT)
    assert (seen.trade_id, seen.opened_ns) == (live.plan.trade_id, live.plan.decided_ns)
    assert seen.rules.stop_loss_bps == 60.0
    assert seen.rules.max_hold_ns == live.plan.limits.max_hold_ns


def test_funding_is_summed_with_its_sign():
    funding = (Funding(1, D("0.5")), Funding(2, D("-2")))
    assert open_position(holding(BTC_PERP, funding=funding), BTC_PERP).funding_usdt == -1.5
