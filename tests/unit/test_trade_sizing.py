"""Exact sizes: equal net base on two grids, limits within the allowance, a way out."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.domain.money import Side, floor_to
from arb_ray.domain.opportunity import Direction, SizedLegs
from arb_ray.domain.order import Purpose
from arb_ray.engine import sizing
from tests import trade_world as tw

D = Decimal
PAIRS = [tw.BTC_SPOT, tw.BTC_PERP, tw.PEPE_SPOT, tw.PEPE_PERP, tw.BTC_CAPPED]


@given(
    st.sampled_from(PAIRS),
    st.sampled_from(list(Direction)),
    st.decimals("0.0001", "5", places=9),
)
def test_net_base_of_both_legs_is_equal(pair, direction, size):
    base = size * tw.BASE[pair.symbol]
    legs = sizing.size_entry(pair, direction, base)
    side_a = direction.entry_side_a
    net_a = sizing.net_base(pair.a, side_a, legs.qty_a)
    net_b = sizing.net_base(pair.b, side_a.opposite, legs.qty_b)
    assert net_a == net_b
    assert legs.residual_base == 0
    assert net_a <= base
    for leg, qty in ((pair.a, legs.qty_a), (pair.b, legs.qty_b)):
        assert floor_to(qty, leg.rules.lot) == qty
        assert not leg.rules.max_qty or qty <= leg.rules.max_qty


def test_a_binance_spot_buy_is_grossed_up_and_upbit_sells_what_arrives():
    legs = sizing.size_entry(tw.BTC_SPOT, Direction.LONG_B_SHORT_A, D("0.00721"))
    assert legs.qty_b == D("0.00721")  # 0.0072172... cut to the lot
    assert legs.qty_a == D("0.00720279")  # less 0.1 % taken in BTC


def test_the_largest_order_of_either_venue_bounds_both_legs():
    spot_leg = tw.spot("BTC", "0.01", "0.00001")
    pair = tw.Pair("BTC", tw.upbit("BTC", "1000", "0.003"), spot_leg, tw.FX_LEG)
    legs = sizing.size_entry(pair, Direction.LONG_A_SHORT_B, D("0.00721"))
    assert legs == SizedLegs(D("0.003"), D("0.003"), D(0))


def test_a_multiplier_counts_in_units_of_the_asset():
    legs = sizing.size_entry(tw.PEPE_PERP, Direction.LONG_A_SHORT_B, D("47654321"))
    assert (legs.qty_b, legs.qty_a) == (D(47654), D(47654000))


@given(
    st.sampled_from(PAIRS),
    st.sampled_from(list(Direction)),
    st.decimals("0.1", "5", places=4),
)
def test_an_exit_closes_all_that_lots_allow_and_leaves_no_net_base(pair, direction, size):
    entry = sizing.size_entry(pair, direction, size * tw.BASE[pair.symbol])
    side_a = direction.entry_side_a
    position_a = side_a.sign * sizing.net_base(pair.a, side_a, entry.qty_a)
    legs = sizing.size_exit(pair.a, pair.b, position_a, -position_a)
    if pair is not tw.BTC_CAPPED:  # there a second order follows
        lot = max(leg.to_base_qty(leg.rules.lot) for leg in (pair.a, pair.b))
        assert abs(legs.residual_base) <= D("2e-8")
        closed = sizing.net_base(pair.a, side_a.opposite, legs.qty_a)
        assert abs(position_a) - lot - D("2e-8") <= closed <= abs(position_a)


def test_a_crumb_never_turns_a_leg_around():
    legs = sizing.size_exit(tw.BTC_SPOT.a, tw.BTC_SPOT.b, D("0.000004"), D("-0.000009"))
    assert legs == SizedLegs(D(0), D(0), D("-0.000005"))


@pytest.mark.parametrize(
    ("side", "decision", "limit"),
    [
        (Side.BUY, "160", "160"),  # 160.08 would be beyond the touch's tick: rounded down
        (Side.SELL, "160", "160"),
        (Side.BUY, "161.5", "161"),
        (Side.SELL, "161.5", "162"),
    ],
)
def test_a_limit_never_leaves_the_allowance(side, decision, limit):
    rules = tw.upbit("DOGE", "1").rules
    assert sizing.limit_price(rules, side, D(decision), D(5)) == D(limit)


@given(st.sampled_from(list(Side)), st.decimals("1", "100", places=2), st.integers(0, 500))
def test_a_limit_is_on_the_grid_and_within_the_allowance(side, touch, allowance_bps):
    rules = tw.spot("X", "0.01", "1").rules
    limit = sizing.limit_price(rules, side, touch, D(allowance_bps))
    assert floor_to(limit, D("0.01")) == limit
    assert limit * side.sign >= touch * side.sign, "the touch itself can be taken"
    assert abs(limit - touch) <= touch * allowance_bps / 10000


def test_what_could_not_be_closed_is_not_opened():
    pair, direction = tw.BTC_SPOT, Direction.LONG_A_SHORT_B
    limits = {"limit_a": D("95000000"), "limit_b": D("68840.00")}
    fine = sizing.size_entry(pair, direction, D("0.0001"))
    assert sizing.entry_problem(pair, direction, fine, **limits, exit_haircut_bps=D(1000)) == ""
    # Worth 5.50 USDT now, and less than the minimum of 5 after a fall of 10 %.
    small = sizing.size_entry(pair, direction, D("0.00008"))
    text = sizing.entry_problem(pair, direction, small, **limits, exit_haircut_bps=D(1000))
    assert "leg b, way out: notional" in text
    tiny = sizing.size_entry(pair, direction, D("0.00005"))
    text = sizing.entry_problem(pair, direction, tiny, **limits, exit_haircut_bps=D(1000))
    assert text.startswith("leg a: notional")


def test_reduce_only_frees_a_perpetual_from_the_minimum_notional_only():
    leg = tw.BTC_PERP.b
    assert "below the minimum" in sizing.order_problem(leg, Purpose.ENTRY, D(69000), D("0.001"))
    for purpose in (Purpose.EXIT, Purpose.HEDGE, Purpose.UNWIND):
        assert sizing.order_problem(leg, purpose, D(69000), D("0.001")) == ""
        assert "lot grid" in sizing.order_problem(leg, purpose, D(69000), D("0.0015"))
    spot_leg = tw.BTC_SPOT.b
    assert "below the minimum" in sizing.order_problem(
        spot_leg, Purpose.EXIT, D(69000), D("0.00001")
    )


def test_the_worst_case_counts_stop_fees_and_four_slippages():
    worst = sizing.worst_loss_usdt(D(500), D(60), D(30), D(2))
    assert worst == D(500) * (60 + 30 + 8) / 10000


def test_one_order_is_never_larger_than_the_market_takes():
    leg = tw.BTC_CAPPED.b  # at most 0.002 BTC
    assert sizing.venue_qty_for(leg, Side.SELL, D("0.00721")) == D("0.002")
    assert sizing.venue_qty_for(leg, Side.SELL, D("0.0015")) == D("0.0015")
    assert sizing.venue_qty_for(tw.BTC_SPOT.b, Side.SELL, D("7.5")) == D("7.5"), "0 is no bound"


def test_a_notional_buys_units_of_the_asset_and_no_more_than_was_evaluated():
    found = tw.make_plan(tw.PEPE_PERP).opportunity  # priced per 1000 PEPE
    base = sizing.base_for_notional(tw.PEPE_PERP, found, D("105.1"))
    assert base == D(10_000_000)
    assert sizing.base_for_notional(tw.PEPE_PERP, found, D(1_000_000)) == D("47654321")


@pytest.mark.parametrize(("coarse", "fine"), [("0.00721", "-0.00721"), ("0.004", "-0.0070005")])
def test_the_coarser_leg_goes_first_whichever_leg_it_is(coarse, fine):
    a, b = tw.BTC_PERP.a, tw.BTC_PERP.b  # Upbit's steps are finer
    legs = sizing.size_exit(a, b, D(fine), D(coarse))
    swapped = sizing.size_exit(b, a, D(coarse), D(fine))
    assert swapped == SizedLegs(legs.qty_b, legs.qty_a, legs.residual_base)
    assert swapped.qty_a == floor_to(D(coarse), D("0.001")) > 0


@pytest.mark.parametrize("base", ["0.00721", "0.01234567", "0.33333333"])
def test_of_two_grids_alike_the_one_whose_fee_is_taken_in_base_goes_first(base):
    pair = tw.Pair("BTC", tw.upbit("BTC", "1000"), tw.spot("BTC", "0.01", "0.00000001"), tw.FX_LEG)
    legs = sizing.size_entry(pair, Direction.LONG_B_SHORT_A, D(base))
    assert legs.residual_base == 0
