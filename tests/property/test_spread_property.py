"""What must be true of both directions' prices on any un-crossed books."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import astuple

from arb_ray.domain.book import depth_qty, walk
from arb_ray.engine.exits import ExitRules, ExitTerms, OpenPosition, closing
from arb_ray.engine.spread import CostTerms, FixedCosts, both_directions, top_edge
from arb_ray.engine.strategy import SymbolStrategy
from tests.signal_market import F_BOOK, READY, Market, params, spot_pair

sizes = st.integers(1, 10**9).map(lambda n: n / 1e6)
steps = st.lists(st.integers(0, 300), min_size=1, max_size=8)


@st.composite
def books(draw, low, high, tick):
    """An un-crossed book on a tick grid, best first, as decimals that float64 keeps."""
    best_bid = draw(st.integers(low, high))
    best_ask = best_bid + draw(st.integers(1, 400))
    sides = []
    for best, sign in ((best_bid, -1), (best_ask, 1)):
        price, levels = best, []
        for step in draw(steps):
            if price <= 0:
                break
            levels.append((float(price * Decimal(tick)), draw(sizes)))
            price += sign * (step + 1)
        sides.append(tuple(levels))
    return tuple(sides)


krw_books = books(200_000, 300_000, "10")
usdt_books = books(150_000, 250_000, "0.01")
fx_books = st.tuples(st.integers(1_200, 1_600), st.integers(1, 3), steps).map(
    lambda t: (
        tuple((float(t[0] - i), 1e7) for i in range(len(t[2]))),
        tuple((float(t[0] + t[1] + i), 1e7) for i in range(len(t[2]))),
    )
)
shares = st.integers(1, 1000).map(lambda n: n / 1000)
terms_of = st.builds(
    CostTerms,
    fee_a_bps=st.sampled_from([0.0, 5.0, 25.0]),
    fee_b_bps=st.sampled_from([4.5, 5.0, 7.5, 10.0]),
    slippage_allowance_bps=st.floats(0, 10),
    safety_buffer_bps=st.floats(0, 10),
    basis_bps=st.floats(-50, 50),
    long_funding_bps=st.floats(-5, 5),
    exit_premium_credit_max_bps=st.floats(0, 20),
)


def qty_of(u, n, share):
    return share * min(depth_qty(side) for side in (*u, *n))


def price(u, n, f, qty, terms):
    priced = both_directions(u, n, f, qty, terms, symbol="ETH", at_ns=0)
    assume(None not in priced)
    return priced


@given(krw_books, usdt_books, fx_books, shares, terms_of)
def test_costs_add_up_and_net_is_gross_less_their_sum(u, n, f, share, terms):
    for found in price(u, n, f, qty_of(u, n, share), terms):
        total = sum(astuple(found.costs))
        assert found.costs.total_bps == pytest.approx(total)
        assert found.net_bps == pytest.approx(found.gross_bps - total)
        assert found.costs.exit_spread_bps > 0


@given(krw_books, usdt_books, fx_books, shares, terms_of)
def test_no_free_lunch_going_both_ways_at_once(u, n, f, share, terms):
    # Going round through both directions multiplies to less than one; the two edges can add
    # up to more than nothing only by the product of their sizes.
    ab, ba = (found.gross_bps / 1e4 for found in price(u, n, f, qty_of(u, n, share), terms))
    assert (1 + ab) * (1 + ba) < 1
    assert ab + ba < -ab * ba


@given(krw_books, usdt_books, fx_books, shares, shares, terms_of)
def test_more_size_never_pays_better(u, n, f, one, other, terms):
    small, large = sorted((one, other))
    for less, more in zip(
        price(u, n, f, qty_of(u, n, small), terms),
        price(u, n, f, qty_of(u, n, large), terms),
        strict=True,
    ):
        assert more.gross_bps <= less.gross_bps + 1e-6
        assert more.costs.exit_spread_bps >= less.costs.exit_spread_bps - 1e-6
        assert more.net_bps <= less.net_bps + 1e-6


@given(krw_books, usdt_books, fx_books, shares, terms_of)
def test_best_prices_bound_every_size(u, n, f, share, terms):
    ab, ba = price(u, n, f, qty_of(u, n, share), terms)
    top = top_edge(u, n, f, terms, FixedCosts.of(terms))
    assert ab.gross_bps <= top.gross_ab_bps + 1e-6
    assert ba.gross_bps <= top.gross_ba_bps + 1e-6
    assert ab.net_bps <= top.net_ab_bps + 1e-6
    assert ba.net_bps <= top.net_ba_bps + 1e-6


@given(krw_books, usdt_books, fx_books, shares, terms_of)
def test_the_unit_of_krw_does_not_matter(u, n, f, share, terms):
    def scaled(book):
        return tuple(tuple((p * 64.0, q) for p, q in side) for side in book)

    qty = qty_of(u, n, share)
    for one, other in zip(
        price(u, n, f, qty, terms), price(scaled(u), n, scaled(f), qty, terms), strict=True
    ):
        assert one.net_bps == pytest.approx(other.net_bps, abs=1e-6)


@given(krw_books, usdt_books, fx_books, shares, terms_of)
def test_float64_agrees_with_exact_decimals(u, n, f, share, terms):
    def exact(book):
        return [[(Decimal(repr(p)), Decimal(repr(q))) for p, q in side] for side in book]

    qty = qty_of(u, n, share)
    ab, ba = price(u, n, f, qty, terms)
    (ub, ua), (nb, na), (fb, fa) = exact(u), exact(n), exact(f)
    q = Decimal(repr(qty))
    buy_u, sell_u = walk(ua, q)[1], walk(ub, q)[1]
    buy_n, sell_n = walk(na, q)[1], walk(nb, q)[1]
    gross_ab = walk(fb, sell_n)[1] / buy_u - 1
    gross_ba = sell_u / walk(fa, buy_n)[1] - 1
    assert abs(ab.gross_bps - float(gross_ab * 10_000)) < 1e-6
    assert abs(ba.gross_bps - float(gross_ba * 10_000)) < 1e-6
    exit_ab = 1 - sell_u / buy_u + buy_n / sell_n - 1
    exit_ba = buy_u / sell_u - 1 + 1 - sell_n / buy_n
    assert abs(ab.costs.exit_spread_bps - float(exit_ab * 10_000)) < 1e-6
    assert abs(ba.costs.exit_spread_bps - float(exit_ba * 10_000)) < 1e-6


@given(krw_books, usdt_books, fx_books, shares)
def test_a_round_trip_through_unchanged_books_never_earns(u, n, f, share):
    qty = qty_of(u, n, share)
    terms = CostTerms(5.0, 10.0)
    rules = ExitRules(1.0, 1.0, 0.0, 1)
    exit_terms = ExitTerms.of(spot_pair(), params())
    fx_mid = (f[0][0][0] + f[1][0][0]) / 2
    for found in price(u, n, f, qty, terms):
        krw, usdt = found.price_a * qty, found.notional_usdt
        sign = -1 if found.direction == "long_a_short_b" else 1
        position = OpenPosition(
            "t", "ETH", found.direction, qty, usdt, sign * krw - krw * 0.0005,
            -sign * usdt - usdt * 0.001, fx_mid, 0, "spot", rules,
        )  # fmt: skip
        value = closing(position, u, n, (f[0][0][0] + f[1][0][0]) / 2, exit_terms)
        assert value.net_usdt < 0


prices = st.floats(-12.0, 12.0)


@given(st.lists(st.tuples(prices, prices), min_size=2, max_size=12), st.floats(0.0, 3.0))
def test_a_skipped_look_never_hides_an_edge(moves, epsilon_bps):
    skipping = SymbolStrategy(spot_pair(), params(evaluation_epsilon_bps=epsilon_bps))
    market = Market(spot_pair())
    for u_bps, n_bps in moves:
        u_mid, n_mid = 2_788_500.0 * (1 + u_bps / 1e4), 2_000.0 * (1 + n_bps / 1e4)
        u = (((u_mid - 500.0, 9.0),), ((u_mid + 500.0, 9.0),))
        n = (((n_mid - 0.05, 9.0),), ((n_mid + 0.05, 9.0),))
        market.put(u=u, n=n, f=F_BOOK)
        always = SymbolStrategy(spot_pair(), params())
        expected = always.evaluate(market.view, market.now_ns, market.mono_ns, READY)
        found = skipping.evaluate(market.view, market.now_ns, market.mono_ns, READY)
        assert found.refusal == expected.refusal
        assert found.opportunity == expected.opportunity
