"""The last entries of a trade and its settlement, with the fees and prices of a real way in."""

from decimal import Decimal

from arb_ray.domain.ledger import Account
from arb_ray.domain.money import USDT_QUANTUM, ZERO
from arb_ray.engine.postings import balances_of
from arb_ray.engine.trade_plan import LegKey
from arb_ray.engine.trade_settle import closing_entries, order_entries, posted
from arb_ray.engine.trade_state import Live, Phase
from tests.trade_world import BTC_PERP, BTC_SPOT, FX, make_plan
from tests.unit.test_position import filled, holding

D = Decimal


def test_fees_are_told_as_what_was_paid():
    live = holding(BTC_SPOT)
    _, settlement = posted(live, 9)
    krw, usdt = (done.report.fills[0].fee.amount for done in live.finished)
    with_fx = (krw / FX + usdt).quantize(USDT_QUANTUM)
    assert settlement.fees_usdt == with_fx > 0
    assert settlement.parts.fees < 0, "the part is what they did to the profit"


def test_a_perpetual_that_closes_turns_its_notional_into_cash():
    plan = make_plan(BTC_PERP)
    live = Live(plan, Phase.EXITING, plan.mark_usdt, finished=(filled(plan, LegKey.B, 70_000),))
    entries = closing_entries(live, 9)
    sums = balances_of([*order_entries(live), *entries])
    venue = plan.b.leg.instrument.venue
    assert (venue, Account.UNSETTLED, "USDT") not in sums
    fee = live.finished[0].report.fills[0].fee.amount
    assert sums[venue, Account.HELD, "USDT"] == 70_000 * plan.b.qty - fee


def test_a_spot_leg_leaves_nothing_unsettled():
    live = holding(BTC_SPOT)
    kinds = {account for _, account, _ in balances_of(closing_entries(live, 9))}
    assert kinds == {Account.HELD, Account.DUST}


def test_a_trade_that_filled_nothing_says_so():
    plan = make_plan(BTC_SPOT)
    entries, settlement = posted(Live(plan, Phase.ENTERING, plan.mark_usdt), 9)
    assert (entries, settlement.exit_reason) == ((), "not_filled")
    assert (settlement.realized_usdt, settlement.fees_usdt) == (ZERO, ZERO)
    _, settlement = posted(holding(BTC_SPOT), 9)
    assert settlement.exit_reason == "evened_out"
