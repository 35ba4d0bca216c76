"""Every movement of money, as the postings that record it."""

from decimal import Decimal

import pytest

from arb_ray.domain.instrument import Venue
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.money import Money, Price, Qty, Side
from arb_ray.domain.opportunity import Direction, SizedLegs
from arb_ray.domain.order import Fill, OrderRequest, Purpose
from arb_ray.engine import postings as book
from arb_ray.engine.trade_plan import LegKey
from tests import trade_world as tw

D = Decimal


def fill_of(leg, side, qty, price, fee, fee_asset):
    order = OrderRequest(
        "t:1:0",
        "t:1",
        leg.instrument.asset,
        leg.instrument.id,
        side,
        Qty(D(qty)),
        Price(D(price)),
        D(price),
        Purpose.ENTRY,
        0,
    )
    fill = Fill("t:1:0:0", "t:1:0", Price(D(price)), Qty(D(qty)), Money(D(fee), fee_asset), 5, ())
    return book.fill_entry(leg, order, fill)


def amounts(entry):
    return {
        (str(account), asset): amount
        for (_, account, asset), amount in book.balances_of([entry]).items()
    }


def test_a_spot_buy_pays_quote_and_gets_base_less_the_fee():
    entry = fill_of(tw.BTC_SPOT.b, Side.BUY, "0.5", "100", "0.0005", "BTC")
    assert amounts(entry) == {
        ("held", "USDT"): D(-50),
        ("market", "USDT"): D(50),
        ("held", "BTC"): D("0.4995"),
        ("fees", "BTC"): D("0.0005"),
        ("market", "BTC"): D("-0.5"),
    }
    assert entry.entry_id == "fill:t:1:0:0"


def test_a_spot_sale_gives_base_and_gets_quote_less_the_fee():
    entry = fill_of(tw.BTC_SPOT.a, Side.SELL, "0.5", "95000000", "23750", "KRW")
    assert amounts(entry) == {
        ("held", "BTC"): D("-0.5"),
        ("market", "BTC"): D("0.5"),
        ("held", "KRW"): D("47476250"),
        ("fees", "KRW"): D(23750),
        ("market", "KRW"): D(-47500000),
    }


def test_a_perpetual_moves_no_cash_but_its_fee_and_counts_the_multiplier():
    entry = fill_of(tw.PEPE_PERP.b, Side.SELL, "40", "0.0105", "0.00021", "USDT")
    assert amounts(entry) == {
        ("position", "PEPE"): D(-40000),
        ("market", "PEPE"): D(40000),
        ("unsettled", "USDT"): D("0.42"),
        ("market", "USDT"): D("-0.42"),
        ("held", "USDT"): D("-0.00021"),
        ("fees", "USDT"): D("0.00021"),
    }


def test_closing_a_perpetual_turns_its_notional_into_cash():
    entry = book.settle_perp_entry(tw.PEPE_PERP.b.instrument, "t:1", "PEPE", D("0.07"), 9)
    assert amounts(entry) == {("unsettled", "USDT"): D("-0.07"), ("held", "USDT"): D("0.07")}


def test_funding_that_is_paid_leaves_held():
    entry = book.funding_entry(tw.PEPE_PERP.b.instrument, "t:1", "PEPE", D("-0.2"), 48)
    assert amounts(entry) == {("held", "USDT"): D("-0.2"), ("funding", "USDT"): D("0.2")}


@pytest.mark.parametrize("residual", ["0.00000007", "-0.00000007"])
def test_dust_is_set_aside_and_what_was_not_bought_back_is_owed(residual):
    entry = book.dust_entry(tw.BTC_SPOT.a.instrument, "t:1", "BTC", D(residual), 9)
    assert amounts(entry) == {("held", "BTC"): -D(residual), ("dust", "BTC"): D(residual)}


def test_a_sale_holds_the_inventory_that_dust_owes_too():
    plan = tw.make_plan(tw.BTC_SPOT)
    sold = plan.planned(LegKey.B)
    asked = {
        "limit_a": plan.a.price.limit,
        "limit_b": plan.b.price.limit,
        "worst_loss_usdt": D(5),
        "fx_krw": tw.FX,
        "margin_rate": D(1),
    }
    legs = SizedLegs(plan.a.qty, plan.b.qty, D(0))

    def held(**owed):
        holds = book.holds_for(tw.BTC_SPOT, plan.direction, legs, **asked, **owed)
        return {(hold.venue, hold.asset): hold.amount for hold in holds}

    venue = Venue.BINANCE_SPOT
    assert held()[venue, "BTC"] == sold.qty
    assert held(owed={venue: D("0.00002")})[venue, "BTC"] == sold.qty + D("0.00002")
    assert held(owed={venue: D("-0.00002"), Venue.UPBIT: D(1)}) == held()


def test_what_is_held_for_a_trade_is_released_also_when_it_is_less_than_nothing():
    held = [
        Balance(Venue.UPBIT, Account.HELD, "KRW", D(700)),
        Balance(Venue.BINANCE_SPOT, Account.HELD, "USDT", D(-3)),
        Balance(Venue.BINANCE_SPOT, Account.HELD, "BTC", D(0)),
    ]
    entry = book.release_entry("t:1", "BTC", held, 9)
    assert amounts(entry) == {
        ("held", "KRW"): D(-700),
        ("free", "KRW"): D(700),
        ("held", "USDT"): D(3),
        ("free", "USDT"): D(-3),
    }
    assert len(entry.postings) == 4


def holds(pair, direction, qty_a, qty_b):
    found = book.holds_for(
        pair,
        direction,
        SizedLegs(D(qty_a), D(qty_b), D(0)),
        limit_a=D(100000),
        limit_b=D(70),
        worst_loss_usdt=D(2),
        fx_krw=D(1400),
        margin_rate=D("0.2"),
    )
    return {(hold.venue, hold.asset): hold.amount for hold in found}


def test_buying_on_upbit_holds_krw_with_the_fee_and_the_inventory_that_is_sold():
    assert holds(tw.BTC_SPOT, Direction.LONG_A_SHORT_B, "1.5", "1.5") == {
        ("upbit", "KRW"): D(150000) + D(75) + D(2800),
        ("binance_spot", "BTC"): D("1.5"),
        ("binance_spot", "USDT"): D(2),
    }


def test_buying_on_binance_spot_holds_usdt_without_the_fee_that_is_taken_in_base():
    assert holds(tw.BTC_SPOT, Direction.LONG_B_SHORT_A, "1.4985", "1.5") == {
        ("upbit", "BTC"): D("1.4985"),
        ("upbit", "KRW"): D(2800),
        ("binance_spot", "USDT"): D(105) + D(2),
    }


def test_a_perpetual_holds_margin_and_both_fees():
    assert holds(tw.PEPE_PERP, Direction.LONG_A_SHORT_B, "1500", "1.5") == {
        ("upbit", "KRW"): D(150000000) + D(75000) + D(2800),
        ("binance_usdm", "USDT"): D(21) + 2 * D("0.0525") + D(2),
    }


def test_a_hold_moves_free_to_held():
    plan = tw.make_plan(tw.BTC_SPOT)
    entry = book.hold_entry(plan.intent, 3)
    sums = book.balances_of([entry])
    assert entry.entry_id == f"hold:{plan.trade_id}"
    for hold in plan.holds:
        assert sums[hold.venue, Account.HELD, hold.asset] == hold.amount
        assert sums[hold.venue, Account.FREE, hold.asset] == -hold.amount
