"""What trades leave behind: the next one takes it along, so it never grows, whatever happens."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from arb_ray.domain.ledger import Account
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import Purpose
from arb_ray.domain.risk_intent import SettleKind
from arb_ray.engine.postings import balances_of
from arb_ray.engine.trade_plan import LegKey
from tests import trade_world as tw

D = Decimal
MINIMUM_USDT = D(9)
"""No venue's minimum is larger, at prices that moved since, with a crumb of the other's lot."""


def lives(pair, told):
    """Live one trade after the other on a symbol; each begins with what the last one left."""
    dust = {key: D(0) for key in LegKey}
    for number, (direction, seed, trouble) in enumerate(told, start=1):
        plan = tw.make_plan(pair, direction, number, dust_a=dust[LegKey.A], dust_b=dust[LegKey.B])
        world = tw.World(plan, seed, trouble).live()
        left = balances_of(world.entries.values())
        for key in LegKey:
            instrument = plan.leg(key).instrument
            dust[key] += left.get((instrument.venue, Account.DUST, instrument.asset), D(0))
        yield world, dict(dust)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([tw.BTC_SPOT, tw.BTC_PERP, tw.PEPE_SPOT, tw.PEPE_PERP]),
    st.lists(
        st.tuples(st.sampled_from(list(Direction)), st.integers(0, 2**32), st.integers(0, 60)),
        min_size=2,
        max_size=6,
    ),
)
def test_a_way_out_leaves_less_than_the_minimum_however_many_trades_came_before(pair, told):
    traded = {key: D(0) for key in LegKey}
    for world, dust in lives(pair, told):
        mark = tw.PRICE[pair.symbol][1]
        for market, order, report in world.executions:
            key = LegKey.A if market == world.plan.a.leg else LegKey.B
            traded[key] += position_of(market, order, report)
        # The account is the truth: what it says is what all fills so far have left.
        assert dust == traded
        is_left = any(
            order.purpose in {Purpose.EXIT, Purpose.UNWIND} for _, order, _ in world.executions
        )
        if is_left:
            for key in LegKey:
                assert abs(dust[key]) * mark < MINIMUM_USDT
            assert abs(sum(dust.values())) * mark < MINIMUM_USDT
        for settlement in world.settlements[-1:]:
            if settlement.kind is SettleKind.POSTED:
                parts, realized = settlement.parts.total, settlement.realized_usdt
                assert abs(parts - realized) < D("1e-6")


def position_of(market, order, report):
    total = D(0)
    for fill in report.fills:
        total += order.side.sign * market.to_base_qty(fill.qty)
        if fill.fee.asset == market.instrument.asset:
            total -= fill.fee.amount
    return total


def test_dust_near_the_minimum_goes_out_with_the_next_trade():
    pair = tw.BTC_SPOT
    almost = D("0.00007")  # some 4.8 USDT
    plan = tw.make_plan(pair, Direction.LONG_A_SHORT_B, dust_a=almost, dust_b=-almost / 2)
    world = tw.World(plan, seed=3, trouble=0).live()
    sold = [o for _, o, _ in world.executions if o.purpose is Purpose.EXIT]
    by_venue = {order.instrument.split(":")[0]: order for order in sold}
    assert by_venue["upbit"].qty >= plan.a.qty + almost - D("0.00001") * 2
    left = balances_of(world.entries.values())
    after = {
        key: plan.dust(key) + left.get((plan.leg(key).instrument.venue, Account.DUST, "BTC"), D(0))
        for key in LegKey
    }
    lot = pair.b.rules.lot
    assert all(abs(amount) < 2 * lot for amount in after.values()), after
    assert abs(sum(after.values())) < D("0.0000001")  # nothing is exposed
