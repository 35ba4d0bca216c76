import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import BadConfig
from arb_ray.domain.opportunity import Refusal
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.gates import FreeBalances, Standing, standing_refusal
from arb_ray.engine.strategy import SymbolStrategy
from tests.signal_market import (
    F_BOOK,
    MS,
    N_BOOK,
    P_ID,
    READY,
    T0,
    U_CHEAP,
    U_DEAR,
    Market,
    book,
    make_batch,
    make_update,
    params,
    perp_pair,
    spot_pair,
)


def ready_market(u=U_CHEAP, n=N_BOOK, f=F_BOOK):
    market = Market(spot_pair())
    market.put(u=u, n=n, f=f)
    return market


def refusal(market, standing=READY, **changes):
    strategy = SymbolStrategy(market.pair, params(**changes))
    evaluation = strategy.evaluate(market.view, market.now_ns, market.mono_ns, standing)
    if evaluation.refusal is not None:
        assert strategy.stats.refusals == {evaluation.refusal: 1}
    return evaluation.refusal


def test_all_gates_open_for_a_real_edge():
    assert refusal(ready_market()) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"is_busy": True}, Refusal.BUSY),
        ({"is_owner": False}, Refusal.NOT_OWNER),
        ({"is_draining": True}, Refusal.DRAINING),
        ({"is_guard_reachable": False}, Refusal.RISK_UNREACHABLE),
        ({"risk_state": RiskState.REDUCE_ONLY}, Refusal.RISK_REFUSED),
        ({"risk_state": RiskState.HALTED}, Refusal.RISK_REFUSED),
        ({"is_store_up": False}, Refusal.STORE_UNAVAILABLE),
        ({"is_asset_known": False}, Refusal.ASSET_UNKNOWN),
        ({"is_venue_healthy": False}, Refusal.VENUE_UNHEALTHY),
    ],
)
def test_standing_forbids_whatever_the_market_does(change, expected):
    standing = replace(READY, **change)
    assert standing_refusal(standing) is expected
    assert refusal(ready_market(), standing) is expected


@pytest.mark.parametrize("missing", ["u", "n", "f"])
def test_missing_book_is_refused(missing):
    market = Market(spot_pair())
    market.put(
        **{k: v for k, v in {"u": U_CHEAP, "n": N_BOOK, "f": F_BOOK}.items() if k != missing}
    )
    assert refusal(market) is Refusal.BOOK_MISSING


@pytest.mark.parametrize("sides", [book(2001.0, 2000.0), ((), N_BOOK[1])])
def test_crossed_or_one_sided_book_is_refused(sides):
    assert refusal(ready_market(n=sides)) is Refusal.BOOK_INVALID


def test_each_book_has_its_own_freshness_limit():
    limits = {
        "max_age_a_ms": 500,
        "max_age_b_ms": 500,
        "max_age_fx_ms": 500,
        "max_book_skew_ms": 9e9,
    }
    market = ready_market()
    market.tick(0.6)
    assert refusal(market, **limits) is Refusal.STALE_A
    assert refusal(market, **{**limits, "max_age_a_ms": 900}) is Refusal.STALE_B
    assert (
        refusal(market, **{**limits, "max_age_a_ms": 900, "max_age_b_ms": 900}) is Refusal.STALE_FX
    )
    market.alive("upbit", "binance")
    assert refusal(market, **limits) is None


@pytest.mark.parametrize(
    ("feed", "expected"), [("upbit", Refusal.STALE_A), ("binance", Refusal.STALE_B)]
)
def test_cut_connection_is_stale_at_once(feed, expected):
    market = ready_market()
    market.alive(feed, is_up=False)
    assert refusal(market) is expected


def test_late_events_of_a_dated_stream_are_stale():
    market = Market(perp_pair())
    market.put(u=U_CHEAP, f=F_BOOK)
    late = make_update(P_ID, 9, N_BOOK, recv_ns=T0, exchange_ns=T0 - 2_500 * MS)
    market.apply(make_batch("binance", [late], market.mono_ns))
    assert refusal(market) is Refusal.STALE_B
    assert refusal(market, max_event_delay_b_ms=0) is not Refusal.STALE_B


def test_fx_outside_its_sanity_range_is_refused():
    assert refusal(ready_market(f=book(899.0, 900.5, 1e6))) is Refusal.FX_OUT_OF_RANGE
    assert refusal(ready_market(f=book(2499.0, 2501.0, 1e6))) is Refusal.FX_OUT_OF_RANGE


def test_clock_in_doubt_is_refused():
    for doubt in ({"offset_ms": 6_000.0}, {"offset_ms": -6_000.0}, {"skew_ms": 1_500.0}):
        for leg in ("u", "n"):
            market = ready_market()
            sides = {"u": U_CHEAP, "n": N_BOOK}[leg]
            market.put(**{leg: sides}, **doubt)
            assert refusal(market) is Refusal.CLOCK_OFFSET


def test_books_of_different_instants_are_refused():
    market = ready_market()
    market.tick(2)
    market.alive("upbit")
    assert refusal(market, max_book_skew_ms=1_500) is Refusal.BOOK_SKEW


def test_phantom_edge_is_refused():
    cheap = book(2_698_000.0, 2_700_000.0)
    assert refusal(ready_market(u=cheap)) is Refusal.IMPLAUSIBLE_EDGE
    assert refusal(ready_market(u=cheap), plausible_cap_bps=500) is None


def test_balance_is_needed_on_both_sides_of_both_directions():
    for u, short in (
        (U_CHEAP, FreeBalances(1e3, 1e3, 1e6, 1e3)),
        (U_CHEAP, FreeBalances(1e9, 1e3, 1e6, 0.01)),
        (U_DEAR, FreeBalances(1e9, 0.01, 1e6, 1e3)),
        (U_DEAR, FreeBalances(1e9, 1e3, 10.0, 1e3)),
    ):
        market = ready_market(u=u)
        assert refusal(market) is None
        assert refusal(market, Standing(balances=short)) is Refusal.INSUFFICIENT_BALANCE


def test_short_on_a_perpetual_needs_margin_and_no_inventory():
    for balances, expected in (
        (FreeBalances(1e9, 1e3, 1e6, 0.0), None),
        (FreeBalances(1e9, 1e3, 10.0, 1e3), Refusal.INSUFFICIENT_BALANCE),
    ):
        market = Market(perp_pair())
        market.put(u=book(2_797_000.0, 2_799_000.0), n=N_BOOK, f=F_BOOK)
        market.fund(0.0, 7_200)
        strategy = SymbolStrategy(market.pair, params())
        standing = Standing(balances=balances)
        for _ in range(60):  # the basis must be known before an edge can be judged
            market.tick(1)
            market.alive("upbit", "binance")
            strategy.evaluate(market.view, market.now_ns, market.mono_ns, standing)
        market.put(u=U_CHEAP)
        evaluation = strategy.evaluate(market.view, market.now_ns, market.mono_ns, standing)
        assert evaluation.refusal is expected


def test_size_under_a_minimum_is_refused():
    assert refusal(ready_market(), trade_notional_usdt=5.0) is Refusal.BELOW_MINIMUM


def test_short_depth_is_refused_and_a_smaller_size_is_tried_first():
    thin = book(2_778_000.0, 2_780_000.0, size=0.1, levels=2)
    market = ready_market(u=thin)
    assert refusal(market, trade_notional_usdt=2_000) is Refusal.DEPTH_SHORT
    strategy = SymbolStrategy(market.pair, params(trade_notional_usdt=600))
    found = strategy.evaluate(market.view, market.now_ns, market.mono_ns, READY).opportunity
    assert found is not None
    assert found.qty == pytest.approx(0.075)  # a quarter: more than half the depth is not taken


def test_impossible_parameters_name_their_key():
    for bad, key in (
        ({"trade_notional_usdt": 0}, "strategy.trade_notional_usdt"),
        ({"size_fractions": (1.5,)}, "strategy.size_fractions"),
        ({"size_fractions": ()}, "strategy.size_fractions"),
        ({"max_age_a_ms": -1}, "strategy.max_age_a_ms"),
        ({"safety_buffer_bps": float("nan")}, "strategy.safety_buffer_bps"),
        ({"fx_min_krw": 3_000}, "strategy.fx_min_krw"),
        ({"min_net_bps": 300}, "strategy.min_net_bps"),
        ({"depth_share_max": 1.5}, "strategy.depth_share_max"),
    ):
        with pytest.raises(BadConfig) as error:
            params(**bad)
        assert error.value.key == key
