"""From a signal to an exact plan: sizes on lots, prices within reach, refusals before anything is sent."""

import pytest
from msgspec.structs import replace

from arb_ray.domain.book import book_problem
from arb_ray.domain.instrument import TickBand, Venue
from arb_ray.domain.money import BPS, Side
from arb_ray.domain.opportunity import Direction, Refusal
from arb_ray.domain.order import Purpose
from arb_ray.engine.planning import (
    Identity,
    fx_mid_krw,
    mark_usdt,
    plan_entry,
    price_order,
    price_wanted,
)
from arb_ray.engine.sizing import net_base
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade_orders import Wanted
from arb_ray.engine.trade_plan import LegKey, TradePlan
from arb_ray.engine.trade_state import Live, Phase
from tests.shell_world import TERMS, D
from tests.signal_market import (
    F_BOOK,
    N_BOOK,
    READY,
    T0,
    U_CHEAP,
    U_DEAR,
    Market,
    S,
    book,
    params,
    perp_pair,
    spot_pair,
)

LOT = D("0.0001")


def signalled(at=U_CHEAP, pair=None, terms=TERMS, dust=None, **books):
    """The plan for the opportunity of one look, at books that may have moved since."""
    market = Market(pair or spot_pair())
    market.put(u=at, n=N_BOOK, f=F_BOOK)
    strategy = SymbolStrategy(market.pair, params())
    found = strategy.evaluate(market.view, market.now_ns, market.mono_ns, READY).opportunity
    market.put(**books)
    return plan_entry(market.pair, found, market.view, terms, Identity(3, 5), T0, dust), market


@pytest.mark.parametrize("u", [U_CHEAP, U_DEAR])
def test_a_plan_is_on_the_grids_and_within_the_allowance(u):
    plan, _ = signalled(u)
    assert isinstance(plan, TradePlan)
    assert (plan.trade_id, plan.number, plan.owner_epoch) == ("test:ETH:3", 3, 5)
    assert plan.deadline_ns == T0 + S
    for planned in (plan.a, plan.b):
        assert planned.qty % planned.leg.rules.lot == 0
        assert planned.price.limit % planned.leg.rules.tick_size(planned.price.limit) == 0
        sign = planned.side.sign
        reach = sign * (planned.price.limit / planned.price.decision - 1) * BPS
        assert 0 <= reach <= TERMS.slippage_allowance_bps
    nets = [net_base(planned.leg, planned.side, planned.qty) for planned in (plan.a, plan.b)]
    assert abs(nets[0] - nets[1]) <= LOT
    assert plan.notional_usdt <= D("500.5")
    assert plan.fx_mid_krw == D("1399.5")
    assert plan.worst_loss_usdt >= plan.notional_usdt * TERMS.stop_loss_bps / BPS
    holds = {(hold.venue, hold.asset): hold.amount for hold in plan.holds}
    buy = plan.a if plan.a.side is Side.BUY else plan.b
    quote = (buy.leg.instrument.venue, buy.leg.instrument.quote)
    assert holds[quote] >= buy.price.limit * buy.qty


def test_the_touch_is_within_reach_whatever_our_ticks_say():
    coarse = spot_pair()
    rules = replace(coarse.a.rules, tick_bands=(TickBand(D(0), D(100_000)),))
    coarse = replace(coarse, a=replace(coarse.a, rules=rules))
    market = Market(coarse)
    market.put(u=book(2_750_000.0, 2_850_000.0, levels=1))
    for side, touch in ((Side.BUY, D(2_850_000)), (Side.SELL, D(2_750_000))):
        price = price_order(coarse.a, side, D(1), market.view, D(1))
        assert price.limit == price.decision == touch


def test_the_decision_price_is_the_average_over_depth():
    market = Market(spot_pair())
    market.put(u=(((100.0, 9.0),), ((101.0, 1.0), (103.0, 1.0))))
    price = price_order(market.pair.a, Side.BUY, D(2), market.view, D(0))
    assert (price.decision, price.limit) == (D(102), D(102))
    assert price_order(market.pair.b, Side.BUY, D(1), market.view, D(0)) is None


def test_what_cannot_be_filled_whole_is_not_entered():
    thin = book(2_778_000.0, 2_780_000.0, size=0.01)
    assert signalled(n=book(1999.9, 2000.1, size=0.05))[0] is Refusal.DEPTH_SHORT
    assert signalled(u=thin)[0] is Refusal.DEPTH_SHORT


def test_a_book_in_disorder_is_not_entered():
    crossed = book(2_790_000.0, 2_780_000.0)
    assert book_problem(*crossed)
    assert signalled(u=crossed)[0] is Refusal.DEPTH_SHORT
    assert signalled(f=book(1400.0, 1399.0))[0] is Refusal.DEPTH_SHORT


def test_what_is_too_small_to_be_ordered_or_closed_again_is_not_entered():
    for notional in ("0.1", "3.6", "5.02"):
        terms = replace(TERMS, trade_notional_usdt=D(notional))
        assert signalled(terms=terms)[0] is Refusal.BELOW_MINIMUM, notional
    assert isinstance(signalled(terms=replace(TERMS, trade_notional_usdt=D(6)))[0], TradePlan)


def test_a_multiplier_is_taken_out_of_marks_and_sizes():
    market = Market(perp_pair(multiplier=1000))
    market.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    assert mark_usdt(market.pair, market.view) == D(2)
    assert fx_mid_krw(market.pair, market.view) == D("1399.5")


def test_missing_books_have_no_marks():
    market = Market(spot_pair())
    assert mark_usdt(market.pair, market.view) is None
    assert fx_mid_krw(market.pair, market.view) is None


def test_each_try_of_an_exit_reaches_twice_as_far_up_to_its_bound():
    plan, market = signalled()
    wanted = Wanted(LegKey.A, Side.SELL, plan.a.qty, Purpose.EXIT)
    limits = []
    for attempts in (0, 1, 2, 9):
        live = Live(plan, Phase.UNWINDING, D(2000), attempts=attempts)
        limits.append(
            price_wanted(live, wanted, market.view, TERMS, max_age_ns=S, mono_ns=market.mono_ns)
        )
    reach = [round((1 - price.limit / price.decision) * BPS) for price in limits]
    assert reach == [10, 20, 40, 200]


def test_an_exit_is_not_priced_on_a_book_that_cannot_be_trusted():
    plan, market = signalled()
    live = Live(plan, Phase.UNWINDING, D(2000))
    wanted = Wanted(LegKey.A, Side.SELL, plan.a.qty, Purpose.EXIT)

    def price(mono_ns):
        return price_wanted(live, wanted, market.view, TERMS, max_age_ns=S, mono_ns=mono_ns)

    assert price(market.mono_ns + S) is not None
    assert price(market.mono_ns + S + 1) is None
    market.alive("upbit", is_up=False)
    assert price(market.mono_ns) is None


def test_an_exit_takes_what_depth_there_is():
    plan, market = signalled()
    market.put(u=book(2_778_000.0, 2_780_000.0, size=0.001))
    price = price_order(plan.a.leg, Side.SELL, plan.a.qty, market.view, D(10))
    assert price.decision < D(2_778_000)
    assert plan.direction is Direction.LONG_A_SHORT_B


def test_a_plan_takes_the_dust_of_both_venues_along_and_reserves_for_it():
    bare, _ = signalled()
    plan, _ = signalled(dust={Venue.UPBIT: D("0.002"), Venue.BINANCE_SPOT: D("-0.001")})
    assert (bare.dust(LegKey.A), bare.dust(LegKey.B)) == (0, 0)
    assert (plan.dust(LegKey.A), plan.dust(LegKey.B)) == (D("0.002"), D("-0.001"))
    assert (plan.a.qty, plan.b.qty) == (bare.a.qty, bare.b.qty), "it goes out, it does not come in"
    # 6 USDT of dust at the 130 bps that a trade reserves for.
    assert D("0.07") < plan.worst_loss_usdt - bare.worst_loss_usdt < D("0.09")
    sold = {hold.asset: hold.amount for hold in plan.holds if hold.venue == Venue.BINANCE_SPOT}
    assert sold["ETH"] == plan.b.qty + D("0.001"), "what is owed is not there to be sold"


def test_a_plan_takes_no_more_dust_along_than_its_own_size():
    plan, _ = signalled(dust={Venue.UPBIT: D(5), Venue.BINANCE_SPOT: D(-5)})
    assert plan.dust(LegKey.A) == plan.a.qty
    assert plan.dust(LegKey.B) == -plan.b.qty
