import pytest
from msgspec.structs import replace

from arb_ray.domain.instrument import Kind
from arb_ray.domain.opportunity import Direction
from arb_ray.engine.exits import Closing, ExitRules, ExitTerms, OpenPosition, closing, exit_reason
from arb_ray.engine.spread import CostTerms, both_directions
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.trade_events import ExitReason
from tests.signal_market import (
    F_BOOK,
    N_BOOK,
    T0,
    U_CHEAP,
    U_DEAR,
    U_FAIR,
    Market,
    S,
    book,
    params,
    perp_pair,
    spot_pair,
)

FEE_A, FEE_B = 0.0005, 0.001
F_MID = 1399.5
AB, BA = Direction.LONG_A_SHORT_B, Direction.LONG_B_SHORT_A
RULES = ExitRules.of(params())


def open_position(direction, u, n, qty=0.25, rules=RULES):
    """What entering at the best prices of these books would have left, at F's mid 1399.5."""
    if direction is AB:
        krw, usdt = -u[1][0][0] * qty * (1 + FEE_A), n[0][0][0] * qty * (1 - FEE_B)
    else:
        krw, usdt = u[0][0][0] * qty * (1 - FEE_A), -n[1][0][0] * qty / (1 - FEE_B)
    return OpenPosition("t1", "ETH", direction, qty, 500.0, krw, usdt, 1399.5, T0, Kind.SPOT, rules)


def market_at(u, n=N_BOOK, f=F_BOOK):
    market = Market(spot_pair())
    market.put(u=u, n=n, f=f)
    return market


def review(market, position, **kwargs):
    strategy = SymbolStrategy(market.pair, params())
    return strategy.review(market.view, position, market.now_ns, market.mono_ns, **kwargs)


@pytest.mark.parametrize("direction", [AB, BA])
def test_round_trip_through_unchanged_books_costs_four_fees_and_the_exit_spread(direction):
    position = open_position(direction, U_FAIR, N_BOOK)
    value = closing(position, U_FAIR, N_BOOK, F_MID, ExitTerms.of(spot_pair(), params()))
    terms = CostTerms.of(spot_pair(), params())
    priced = both_directions(U_FAIR, N_BOOK, F_BOOK, 0.25, terms, symbol="ETH", at_ns=T0)
    costs = priced[0 if direction is AB else 1].costs
    expected = costs.exit_spread_bps + costs.entry_fees_bps * 2
    assert -value.net_usdt / 500.0 * 1e4 == pytest.approx(expected, abs=0.05)


def test_closing_prices_are_averages_over_depth_without_fees():
    position = open_position(AB, U_CHEAP, N_BOOK)
    value = closing(position, U_FAIR, N_BOOK, F_MID, ExitTerms.of(spot_pair(), params()))
    assert value.price_a == pytest.approx(U_FAIR[0][0][0])
    assert value.price_b == pytest.approx(N_BOOK[1][0][0])
    back = closing(
        open_position(BA, U_DEAR, N_BOOK),
        U_FAIR,
        N_BOOK,
        F_MID,
        ExitTerms.of(spot_pair(), params()),
    )
    assert back.price_a == pytest.approx(U_FAIR[1][0][0])
    assert back.price_b == pytest.approx(N_BOOK[0][0][0])
    assert not value.is_depth_short


def test_premium_that_closes_takes_profit():
    market = market_at(U_FAIR)
    found = review(market, open_position(AB, U_CHEAP, N_BOOK))
    assert found.reason is ExitReason.TAKE_PROFIT
    assert found.mark_usdt > 0.15


def test_premium_that_stays_is_held():
    market = market_at(U_CHEAP)
    found = review(market, open_position(AB, U_CHEAP, N_BOOK))
    assert found.reason is None
    assert found.mark_usdt < 0


def test_premium_that_widens_stops_the_loss():
    market = market_at(book(2_758_000.0, 2_760_000.0))
    assert review(market, open_position(AB, U_CHEAP, N_BOOK)).reason is ExitReason.STOP_LOSS


def test_limits_of_the_trade_count_not_those_of_today():
    market = market_at(book(2_758_000.0, 2_760_000.0))
    wide = open_position(AB, U_CHEAP, N_BOOK, rules=replace(RULES, stop_loss_bps=500.0))
    assert review(market, wide).reason is None


def test_premium_that_crosses_over_is_a_reversal_even_without_profit():
    market = market_at(U_DEAR)
    greedy = replace(RULES, take_profit_bps=1e4)
    assert (
        review(market, open_position(AB, U_CHEAP, N_BOOK, rules=greedy)).reason
        is ExitReason.REVERSAL
    )


def test_longest_holding_ends_a_trade_with_no_book_at_all():
    market = Market(spot_pair())
    position = open_position(AB, U_CHEAP, N_BOOK)
    market.now_ns = T0 + 3_600 * S - 1
    assert review(market, position).reason is None
    market.now_ns += 1
    found = review(market, position)
    assert found.reason is ExitReason.MAX_HOLD
    assert found.mark_usdt is None


@pytest.mark.parametrize("asked", [ExitReason.RISK_FLATTEN, ExitReason.SHUTDOWN])
def test_what_is_asked_for_needs_no_book_and_comes_first(asked):
    position = open_position(AB, U_CHEAP, N_BOOK)
    assert review(Market(spot_pair()), position, asked=asked).reason is asked
    assert review(market_at(U_FAIR), position, asked=asked).reason is asked


def test_stale_leg_gives_no_mark_and_no_price_exit():
    market = market_at(U_FAIR)
    market.alive("binance", is_up=False)
    found = review(market, open_position(AB, U_CHEAP, N_BOOK))
    assert found.reason is None
    assert found.mark_usdt is None


def test_stale_fx_allows_the_stop_loss_only():
    profit, loss = market_at(U_FAIR), market_at(book(2_758_000.0, 2_760_000.0))
    for market in (profit, loss):
        market.tick(4)
        market.view.books["upbit:ETH-KRW"].connection.alive_mono_ns = market.mono_ns
        market.alive("upbit", "binance")
        fx = market.view.books["upbit:USDT-KRW"]
        fx.connection = replace(fx.connection, alive_mono_ns=0)
    position = open_position(AB, U_CHEAP, N_BOOK)
    assert review(profit, position).reason is None
    assert review(profit, position).mark_usdt > 0
    assert review(loss, position).reason is ExitReason.STOP_LOSS


def test_short_depth_is_valued_worse_than_the_book_and_takes_no_profit():
    thin = book(2_798_000.0, 2_800_000.0, size=0.083)  # three levels: a crumb is missing
    position = open_position(AB, U_CHEAP, N_BOOK)
    full = review(market_at(U_FAIR), position)
    found = review(market_at(thin), position)
    assert found.value.is_depth_short
    assert 0.15 < found.mark_usdt < full.mark_usdt  # the profit would be there
    assert found.reason is None


def test_krw_of_entry_and_exit_is_valued_at_the_mid_of_now():
    position = open_position(AB, U_CHEAP, N_BOOK)
    terms = ExitTerms.of(spot_pair(), params())
    value = closing(position, U_FAIR, N_BOOK, F_MID, terms)
    exit_krw = U_FAIR[0][0][0] * 0.25 * (1 - FEE_A)
    exit_usdt = -N_BOOK[1][0][0] * 0.25 / (1 - FEE_B)
    expected = (position.entry_krw + exit_krw) / 1399.5 + position.entry_usdt + exit_usdt
    assert value.net_usdt == pytest.approx(expected)
    funded = closing(replace(position, funding_usdt=0.5), U_FAIR, N_BOOK, F_MID, terms)
    assert funded.net_usdt == pytest.approx(expected + 0.5)


def without(market):
    del market.view.books["upbit:USDT-KRW"]


def one_sided(market):
    market.put(f=(F_BOOK[0], ()))


def crossed(market):
    market.put(f=book(1400.0, 1399.0))


def implausible(market):
    market.put(f=book(1.0, 1.1))


@pytest.mark.parametrize("spoil", [without, one_sided, crossed, implausible])
def test_a_stop_loss_needs_nothing_of_the_exchange_rate_s_book(spoil):
    profit, loss = market_at(U_FAIR), market_at(book(2_758_000.0, 2_760_000.0))
    spoil(profit)
    spoil(loss)
    position = open_position(AB, U_CHEAP, N_BOOK)
    assert review(loss, position).reason is ExitReason.STOP_LOSS
    assert review(profit, position).reason is None  # a profit must be sure
    assert review(profit, position).mark_usdt > 0.15


def test_krw_is_valued_at_the_last_good_mid_and_not_the_plan_s():
    market = market_at(U_FAIR, f=book(1449.0, 1450.0))
    strategy = SymbolStrategy(market.pair, params())
    position = open_position(AB, U_CHEAP, N_BOOK)
    for spoil in (lambda _: None, crossed, without):
        spoil(market)
        found = strategy.review(market.view, position, market.now_ns, market.mono_ns)
        assert found.value.fx_mid_krw == 1449.5


def test_the_bounds_of_a_trade_are_today_s_when_it_begins():
    today = params(take_profit_bps=4.0, stop_loss_bps=70.0, reversal_bps=2.0, max_hold_s=90.0)
    assert ExitRules.of(today) == ExitRules(4.0, 70.0, 2.0, 90 * S)


@pytest.mark.parametrize("direction", [AB, BA])
def test_a_multiplier_changes_the_units_and_not_the_worth(direction):
    """A thousand to the contract: a price is of a thousand, and a thousandth as many are held."""
    one, thousand = perp_pair(), perp_pair(multiplier=1000)
    scaled = tuple(tuple((p * 1000, q / 1000) for p, q in side) for side in N_BOOK)
    position = open_position(direction, U_CHEAP, N_BOOK)
    plain = closing(position, U_FAIR, N_BOOK, F_MID, ExitTerms.of(one, params()))
    kilo = closing(position, U_FAIR, scaled, F_MID, ExitTerms.of(thousand, params()))
    assert kilo.net_usdt == pytest.approx(plain.net_usdt)
    assert kilo.price_b == pytest.approx(plain.price_b * 1000)
    assert not kilo.is_depth_short
    terms = replace(ExitTerms.of(one, params()), multiplier_a=1000.0)
    scaled = tuple(tuple((p * 1000, q / 1000) for p, q in side) for side in U_FAIR)
    kilo = closing(position, scaled, N_BOOK, F_MID, terms)
    assert kilo.net_usdt == pytest.approx(plain.net_usdt)
    assert kilo.price_a == pytest.approx(plain.price_a * 1000)


SIDES = (
    ((100.0, 0.5), (90.0, 0.25), (80.0, 0.25)),
    ((100.0, 0.5), (110.0, 0.25), (120.0, 0.25)),
)


@pytest.mark.parametrize(
    ("direction", "price_a", "price_b"), [(AB, 70.25, 275.5), (BA, 137.75, 140.5)]
)
def test_what_is_beyond_the_last_level_is_worth_it_less_the_penalty(direction, price_a, price_b):
    """Half of two units is in the book; the rest is two fifths worse than the book's end."""
    twice = tuple(tuple((2 * price, size) for price, size in side) for side in SIDES)
    terms = ExitTerms(0.0, 0.0, False, False, 1.0, 1.0, depth_short_penalty=0.4)
    position = replace(open_position(direction, U_CHEAP, N_BOOK), base_qty=2.0)
    value = closing(position, SIDES, twice, F_MID, terms)
    assert (value.price_a, value.price_b) == (pytest.approx(price_a), pytest.approx(price_b))
    assert value.is_depth_short


@pytest.mark.parametrize(
    ("net_usdt", "reason"),
    [
        (-3.01, ExitReason.STOP_LOSS),
        (-3.0, ExitReason.STOP_LOSS),
        (-2.99, None),
        (0.19, None),
        (0.2, ExitReason.TAKE_PROFIT),
    ],
)
def test_a_bound_that_is_reached_ends_the_trade(net_usdt, reason):
    rules = replace(RULES, stop_loss_bps=60.0, take_profit_bps=4.0, reversal_bps=2.0)
    position = open_position(AB, U_CHEAP, N_BOOK, rules=rules)
    value = Closing(net_usdt, 1.0, 1.0, F_MID, is_depth_short=False)
    rest = {"asked": None, "is_fx_fresh": True}
    assert exit_reason(position, T0, value=value, reverse_edge_bps=1.99, **rest) is reason
    found = exit_reason(position, T0, value=value, reverse_edge_bps=2.0, **rest)
    assert found is (reason or ExitReason.REVERSAL)
