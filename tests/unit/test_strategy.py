import pytest
from msgspec.structs import replace

from arb_ray.domain.opportunity import Direction, Opportunity, Refusal
from arb_ray.engine.rolling_premium import RollingPremium
from arb_ray.engine.strategy import SymbolStrategy
from tests.signal_market import (
    F_BOOK,
    F_ID,
    MS,
    N_BOOK,
    N_ID,
    READY,
    T0,
    U_CHEAP,
    U_DEAR,
    U_FAIR,
    U_ID,
    Market,
    S,
    book,
    make_batch,
    make_update,
    params,
    perp_pair,
    spot_pair,
)


def look(strategy, market, standing=READY):
    return strategy.evaluate(market.view, market.now_ns, market.mono_ns, standing)


def set_up(u=U_CHEAP, pair=None, **changes):
    market = Market(pair or spot_pair())
    market.put(u=u, n=N_BOOK, f=F_BOOK)
    return market, SymbolStrategy(market.pair, params(**changes))


def test_cheap_upbit_is_bought_and_dear_upbit_is_sold():
    for u, direction in ((U_CHEAP, Direction.LONG_A_SHORT_B), (U_DEAR, Direction.LONG_B_SHORT_A)):
        market, strategy = set_up(u)
        found = look(strategy, market).opportunity
        assert found.direction is direction
        assert found.net_bps >= strategy.params.min_net_bps
        assert found.notional_usdt == pytest.approx(500, rel=0.001)
        assert found.at_ns == market.now_ns


def test_fair_market_has_no_edge():
    market, strategy = set_up(U_FAIR)
    assert look(strategy, market).refusal is Refusal.NO_EDGE
    assert strategy.stats.best_net_bps < strategy.stats.best_gross_bps < 0


def test_size_that_earns_most_is_taken():
    # The first level pays a lot for a quarter of the target, what lies behind it nothing.
    u = (((2_779_000.0, 50.0),), ((2_780_000.0, 0.13), (2_795_000.0, 50.0)))
    market, strategy = set_up(u)
    found = look(strategy, market).opportunity
    assert found.qty == pytest.approx(0.125)


def test_larger_size_is_taken_although_it_earns_less_a_unit():
    u = (((2_779_000.0, 50.0),), ((2_780_000.0, 0.13), (2_780_500.0, 50.0)))
    market, strategy = set_up(u)
    found = look(strategy, market).opportunity
    assert found.notional_usdt == pytest.approx(500, rel=0.001)


def test_changed_costs_end_the_quiet_of_an_unmoved_market():
    market, strategy = set_up(U_FAIR, perp_pair(), reevaluate_after_ms=60_000.0)
    market.fund(0.0001, due_in_s=400)
    look(strategy, market)
    market.tick(1)
    market.alive("upbit", "binance")
    assert not look(strategy, market).is_repeat  # the basis was sampled again
    assert look(strategy, market).is_repeat


def test_unmoved_market_is_not_evaluated_twice_but_again_after_a_while():
    market, strategy = set_up(U_FAIR)
    assert not look(strategy, market).is_repeat
    market.put(u=(U_FAIR[0], ((2_800_000.0, 3.0),)))
    assert look(strategy, market).is_repeat
    market.tick(1.0)
    assert not look(strategy, market).is_repeat
    market.put(u=book(2_798_000.0, 2_799_999.0))
    assert look(strategy, market).is_repeat  # a move that could not make it pay
    market.put(u=book(2_793_000.0, 2_795_000.0))
    assert not look(strategy, market).is_repeat
    assert strategy.stats.repeats == 2
    assert strategy.stats.refusals == {Refusal.NO_EDGE: 3}
    assert strategy.stats.all_refusals() == {Refusal.NO_EDGE: 5}


@pytest.mark.parametrize("change", ["standing", "age", "attempt", "outage"])
def test_a_quiet_market_hides_nothing_but_prices(change):
    market, strategy = set_up(U_FAIR, warm_up_s=1.0, reevaluate_after_ms=60_000.0)
    look(strategy, market)
    market.tick(1)
    market.put(u=U_FAIR, n=N_BOOK, f=F_BOOK)
    look(strategy, market)
    assert look(strategy, market).is_repeat
    if change == "standing":
        draining = replace(READY, is_draining=True)
        assert look(strategy, market, draining).refusal is Refusal.DRAINING
    elif change == "age":
        market.tick(3.1)
        market.alive("binance")
        assert look(strategy, market).refusal is Refusal.STALE_A
        market.alive("upbit")
        assert look(strategy, market).refusal is Refusal.WARMING_UP
    elif change == "attempt":
        strategy.attempt_failed(market.now_ns, Refusal.RISK_REFUSED)
        assert look(strategy, market).refusal is Refusal.COOLING_DOWN
    else:
        market.put(f=(F_BOOK[1], F_BOOK[0]))
        assert look(strategy, market).refusal is Refusal.BOOK_INVALID


@pytest.mark.parametrize("leg", ["u", "n", "f"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("sign", [-1, 1])
def test_each_best_price_has_its_own_bounds(leg, side, sign):
    books = {"u": U_FAIR, "n": N_BOOK, "f": F_BOOK}
    for bps, is_repeat in ((0.5, True), (2.0, False)):
        market, strategy = set_up(U_FAIR, evaluation_epsilon_bps=1.0)
        look(strategy, market)
        sides = list(books[leg])
        ((price, size), *_) = sides[side]
        sides[side] = ((price * (1 + sign * bps / 1e4), size),)
        if sides[0][0][0] >= sides[1][0][0]:
            continue  # N's spread is narrower than the move
        market.put(**{leg: tuple(sides)})
        assert rests(strategy, market) is (is_repeat or leg != "f")
        assert look(strategy, market).is_repeat is is_repeat


def rests(strategy, market, standing=READY):
    view = market.view
    f = view.books[market.pair.fx.instrument.id]
    return strategy.rests(f, view.doubts, market.now_ns, market.mono_ns, standing)


def quiet():
    market, strategy = set_up(U_FAIR, reevaluate_after_ms=60_000.0, premium_sample_ms=60_000.0)
    assert not rests(strategy, market)
    look(strategy, market)
    assert rests(strategy, market)
    return market, strategy


def test_a_new_f_is_left_alone_while_it_lies_within_bounds():
    market, strategy = quiet()
    market.put(f=book(1399.0, 1400.0, size=5.0))
    assert rests(strategy, market)
    market.put(f=book(1399.01, 1400.01))
    assert rests(strategy, market)
    market.put(f=book(1401.0, 1402.0))
    assert not rests(strategy, market)
    market.put(f=F_BOOK)
    assert rests(strategy, market)
    market.put(f=(F_BOOK[1], F_BOOK[0]))
    assert not rests(strategy, market)


def test_a_new_f_is_looked_at_when_anything_else_could_have_changed():
    market, strategy = quiet()
    assert not rests(strategy, market, replace(READY, is_draining=True))
    market.tick(2.9)
    market.alive("upbit")
    assert rests(strategy, market)
    market.tick(0.2)
    assert not rests(strategy, market)  # N has grown stale, and is not asked
    market, strategy = quiet()
    market.alive("binance", is_up=False)
    assert not rests(strategy, market)
    market, strategy = quiet()
    strategy.attempt_failed(market.now_ns, Refusal.RISK_REFUSED)
    assert not rests(strategy, market)
    market, strategy = set_up(U_FAIR, reevaluate_after_ms=60_000.0)
    look(strategy, market)
    market.tick(1)
    assert not rests(strategy, market)  # the premium is to be sampled


@pytest.mark.parametrize(
    ("silent", "refusal", "age"),
    [
        (0, "STALE_A", "max_age_a_ms"),
        (1, "STALE_B", "max_age_b_ms"),
        (2, "STALE_FX", "max_age_fx_ms"),
    ],
)
def test_a_book_that_grows_stale_ends_the_quiet_at_once(silent, refusal, age):
    feeds = ("upbit", "binance", "fx")
    market, strategy = set_up(None, reevaluate_after_ms=60_000.0, premium_sample_ms=60_000.0)
    for feed, leg, sides in zip(feeds, (U_ID, N_ID, F_ID), (U_FAIR, N_BOOK, F_BOOK), strict=True):
        market.apply(make_batch(feed, [make_update(leg, 9, sides)], market.mono_ns))
    look(strategy, market)
    last_s = int(getattr(strategy.params, age) / 500) * 0.5
    for _ in range(int(last_s / 0.5)):
        market.tick(0.5)
        market.alive(*(feed for number, feed in enumerate(feeds) if number != silent))
        assert look(strategy, market).is_repeat
    market.tick(0.5)
    assert look(strategy, market).refusal is Refusal[refusal]


def test_a_book_that_the_venue_sent_late_ends_the_quiet_at_once():
    market, strategy = quiet()
    strategy = SymbolStrategy(market.pair, replace(strategy.params, max_event_delay_b_ms=200.0))
    look(strategy, market)
    for delay_ms, is_late in ((199, False), (201, True)):
        market.seq += 1
        late = make_update(N_ID, market.seq, N_BOOK, T0, exchange_ns=T0 - delay_ms * MS)
        market.apply(make_batch("binance", [late], market.mono_ns))
        assert (look(strategy, market).refusal is Refusal.STALE_B) is is_late


def test_small_moves_are_skipped_only_far_from_an_edge():
    market, strategy = set_up(U_FAIR, evaluation_epsilon_bps=1.0)
    look(strategy, market)
    market.put(u=book(2_798_100.0, 2_800_100.0))
    assert look(strategy, market).is_repeat
    market.put(u=book(2_798_600.0, 2_800_600.0))  # 2 bps, and one was allowed
    assert not look(strategy, market).is_repeat
    near = book(2_790_000.0, 2_792_000.0)  # some 20 bps of gross: within reach
    market, strategy = set_up(near, evaluation_epsilon_bps=5.0)
    look(strategy, market)
    market.put(u=book(2_789_000.0, 2_791_000.0))
    assert not look(strategy, market).is_repeat


def test_each_book_counts_as_read_once():
    market, strategy = set_up()
    look(strategy, market)
    look(strategy, market)
    assert market.view.counts.read == 3
    market.put(u=U_FAIR)
    look(strategy, market)
    assert market.view.counts.read == market.view.counts.accepted == 4


def test_warm_up_begins_again_after_an_outage():
    market, strategy = set_up(warm_up_s=5.0)
    assert look(strategy, market).refusal is Refusal.WARMING_UP
    market.tick(5)
    market.alive("upbit", "binance")
    assert look(strategy, market).refusal is None
    market.alive("binance", is_up=False)
    busy = replace(READY, is_busy=True)
    assert look(strategy, market, busy).refusal is Refusal.BUSY
    market.alive("binance")
    assert look(strategy, market).refusal is Refusal.STALE_B  # alive, but nothing came yet
    market.put(n=N_BOOK)
    assert look(strategy, market).refusal is Refusal.WARMING_UP


def test_cool_down_after_a_trade_and_a_shorter_one_after_an_attempt():
    market, strategy = set_up(cool_down_s=2.0, retry_cool_down_s=0.5)
    strategy.attempt_failed(market.now_ns, Refusal.RISK_REFUSED)
    assert look(strategy, market).refusal is Refusal.COOLING_DOWN
    market.tick(0.5)
    assert look(strategy, market).refusal is None
    strategy.trade_closed(market.now_ns)
    strategy.attempt_failed(market.now_ns, Refusal.EDGE_GONE)
    market.tick(1.9)
    assert look(strategy, market).refusal is Refusal.COOLING_DOWN
    market.tick(0.1)
    assert look(strategy, market).refusal is None
    assert strategy.stats.refusals[Refusal.RISK_REFUSED] == 1
    assert strategy.stats.refusals[Refusal.EDGE_GONE] == 1


def test_perpetual_waits_for_basis_and_funding_and_then_charges_both():
    market, strategy = set_up(U_FAIR, perp_pair(), basis_warm_up_s=30.0)
    assert look(strategy, market).refusal is Refusal.WARMING_UP
    market.fund(0.0001, due_in_s=400)
    for _ in range(31):
        market.tick(1)
        market.alive("upbit", "binance")
        look(strategy, market)
    assert look(strategy, market).refusal is Refusal.NO_EDGE
    assert strategy.terms.long_funding_bps == pytest.approx(1.0)
    assert strategy.terms.basis_bps == pytest.approx(strategy.premium.mean_bps)
    ab, ba = strategy.quote(market.view, market.now_ns)
    assert ab.costs.expected_funding_bps == -ba.costs.expected_funding_bps == pytest.approx(-1)


def test_recheck_prices_the_granted_size_again():
    market, strategy = set_up()
    granted = look(strategy, market).opportunity
    again = strategy.recheck(market.view, market.now_ns, market.mono_ns, granted)
    assert again == granted
    market.put(u=book(2_778_500.0, 2_780_500.0))
    again = strategy.recheck(market.view, market.now_ns, market.mono_ns, granted)
    assert isinstance(again, Opportunity)
    assert again.qty == granted.qty
    market.put(u=U_FAIR)
    again = strategy.recheck(market.view, market.now_ns, market.mono_ns, granted)
    assert again is Refusal.EDGE_GONE
    market.put(u=book(2_698_000.0, 2_700_000.0))
    again = strategy.recheck(market.view, market.now_ns, market.mono_ns, granted)
    assert again is Refusal.IMPLAUSIBLE_EDGE
    market.alive("upbit", is_up=False)
    again = strategy.recheck(market.view, market.now_ns, market.mono_ns, granted)
    assert again is Refusal.STALE_A


def test_quote_applies_no_gate_but_needs_books():
    market, strategy = set_up(U_FAIR, warm_up_s=99.0)
    ab, ba = strategy.quote(market.view, market.now_ns)
    assert ab.gross_bps < 0
    assert ba.gross_bps < 0
    assert SymbolStrategy(market.pair, params()).quote(Market(spot_pair()).view, 0) == (None, None)


def test_rolling_premium_is_a_mean_first_and_fades_afterwards():
    premium = RollingPremium(half_life_s=100.0)
    for second in range(51):
        premium.add(T0 + second * S, 4.0 if second % 2 else 6.0)
    assert premium.mean_bps == pytest.approx(5.0, abs=0.1)
    assert premium.std_bps == pytest.approx(1.0, abs=0.1)
    assert premium.observed_s == 50.0
    premium = RollingPremium(half_life_s=1.0, observed_s=1e9, last_ns=T0, mean_bps=8.0)
    premium.add(T0 + S, 0.0)
    assert premium.mean_bps == pytest.approx(4.0)


def test_one_sample_after_an_outage_is_one_sample():
    premium = RollingPremium(half_life_s=1_800.0)
    for second in range(1, 3_601):
        premium.add(T0 + second * S, 4.0)
    premium.add(T0 + 90_000 * S, 300.0)
    assert premium.mean_bps < 6.0
    premium.add(T0, 300.0)
    assert premium.last_ns == T0 + 90_000 * S
