"""A live trade as the exit rules see it: cash flows signed, fees in quote included, base after fees."""

from arb_ray.domain.money import Side
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import OrderRequest, OrderStatus, Purpose
from arb_ray.engine.paper import fill_order
from arb_ray.engine.pnl import closing_pnl_usdt
from arb_ray.engine.position import live_mark_usdt, open_position
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_state import Finished, Funding, Live, Phase
from tests.signal_market import Market
from tests.trade_world import BTC_PERP, BTC_SPOT, PEPE_PERP, PEPE_SPOT, D, make_plan


def filled(plan, key, price, number=0):
    planned = plan.planned(key)
    order = OrderRequest(
        f"o{number}", plan.trade_id, plan.symbol, planned.leg.instrument.id, planned.side,
        planned.qty, planned.price.limit, planned.price.decision, Purpose.ENTRY, 0,
    )  # fmt: skip
    level = ((D(price), D(10**9)),)
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


BIDS_A = ((95e6, 0.004), (94e6, 0.001), (93e6, 0.001))
ASKS_B = ((69_000.0, 0.002), (69_100.0, 0.001), (69_200.0, 0.001))


def mark(live, pair, penalty="0.1", **books):
    market = Market(pair)
    market.put(**books)
    return live_mark_usdt(live, market.view, D(1380), D(penalty))


def closed_at(live, pair, price_a, price_b):
    prices = {pair.a.instrument.id: D(price_a), pair.b.instrument.id: D(price_b)}
    return closing_pnl_usdt(live.executed, (), prices, D(1380))


def test_a_mark_walks_each_leg_into_its_book_and_beyond_it_with_a_penalty():
    live = holding(BTC_SPOT)
    qty = live.plan.a.qty
    got = D(95_000_000) * D("0.004") + (94_000_000 + 93_000_000) * D("0.001")
    got += (qty - D("0.006")) * 93_000_000 * D("0.9")
    paid = 69_000 * D("0.002") + (69_100 + 69_200) * D("0.001")
    paid += (qty - D("0.004")) * 69_200 * D("1.1")
    seen = mark(live, BTC_SPOT, u=(BIDS_A, ((96e6, 1.0),)), n=(((68e3, 1.0),), ASKS_B))
    assert abs(seen - closed_at(live, BTC_SPOT, got / qty, paid / qty)) <= D("1e-8")


def test_a_mark_takes_the_other_sides_where_the_legs_are_the_other_way_round():
    live = holding(PEPE_SPOT, Direction.LONG_B_SHORT_A)
    deep = 1e9
    u, n = (((0.0143, deep),), ((0.0147, deep),)), (((0.0000104, deep),), ((0.0000107, deep),))
    assert mark(live, PEPE_SPOT, u=u, n=n) == closed_at(live, PEPE_SPOT, "0.0147", "0.0000104")


def test_a_mark_counts_contracts_where_the_book_does():
    live = holding(PEPE_PERP)  # a thousand to the contract
    u, n = (((0.0143, 1e9),), ((0.0147, 1e9),)), (((0.0104, 1e5),), ((0.0107, 1e5),))
    assert mark(live, PEPE_PERP, u=u, n=n) == closed_at(live, PEPE_PERP, "0.0143", "0.0107")


def test_a_mark_without_a_usable_side_takes_the_newest_price_that_was_decided_on():
    live = holding(BTC_SPOT)
    decided_a, decided_b = live.plan.a.price.decision, live.plan.b.price.decision
    assert mark(live, BTC_SPOT) == closed_at(live, BTC_SPOT, decided_a, decided_b)
    one_sided = mark(live, BTC_SPOT, n=(((68e3, 1.0),), ()))
    assert one_sided == closed_at(live, BTC_SPOT, decided_a, decided_b)
    paid = Funding(5, D("-0.25"))
    assert mark(holding(BTC_SPOT, funding=(paid,)), BTC_SPOT) == one_sided - D("0.25")
