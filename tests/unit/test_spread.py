import pytest

from arb_ray.domain.opportunity import Direction
from arb_ray.engine.spread import (
    CostTerms,
    FixedCosts,
    both_directions,
    funding_settlements,
    top_edge,
)
from tests.signal_market import (
    F_BOOK,
    N_BOOK,
    T0,
    U_CHEAP,
    U_DEAR,
    S,
    book,
    params,
    perp_pair,
    spot_pair,
)

AB, BA = Direction.LONG_A_SHORT_B, Direction.LONG_B_SHORT_A
TERMS = CostTerms(5.0, 10.0, 2.0, 2.0)


def quote(u, n, f, qty=0.25, terms=TERMS):
    return both_directions(u, n, f, qty, terms, symbol="ETH", at_ns=T0)


def test_each_direction_pays_the_side_it_would_take():
    u = (((100.0, 9.0),), ((101.0, 9.0),))
    n = (((10.0, 9.0),), ((10.1, 9.0),))
    f = (((9.9, 999.0),), ((10.0, 999.0),))
    ab, ba = quote(u, n, f, qty=2.0)
    assert ab.gross_bps == pytest.approx((10.0 * 9.9 / 101.0 - 1) * 1e4)
    assert ba.gross_bps == pytest.approx((100.0 / (10.1 * 10.0) - 1) * 1e4)
    assert (ab.price_a, ab.price_b, ab.fx_krw) == pytest.approx((101.0, 10.0, 9.9))
    assert (ba.price_a, ba.price_b, ba.fx_krw) == pytest.approx((100.0, 10.1, 10.0))
    assert ab.notional_usdt == pytest.approx(20.0)
    assert ba.notional_usdt == pytest.approx(20.2)
    assert ab.fx_mid_krw == ba.fx_mid_krw == pytest.approx(9.95)
    assert ab.costs.exit_spread_bps == pytest.approx((1 / 101 + 0.1 / 10) * 1e4)
    assert ba.costs.exit_spread_bps == pytest.approx((1 / 100 + 0.1 / 10.1) * 1e4)


def test_net_pays_for_the_way_out_too():
    ab, _ = quote(U_CHEAP, N_BOOK, F_BOOK)
    assert ab.after_entry_fees_bps == pytest.approx(ab.gross_bps - 15)
    spread = ab.costs.exit_spread_bps
    assert ab.net_bps == pytest.approx(ab.gross_bps - 30 - spread - 2 - 2)


def test_fx_is_walked_over_depth():
    shallow = (((1399.0, 100.0), (1390.0, 1e6)), ((1400.0, 100.0), (1410.0, 1e6)))
    ab, ba = quote(U_CHEAP, N_BOOK, shallow, qty=1.0)
    assert 1390.0 < ab.fx_krw < 1399.0
    assert 1400.0 < ba.fx_krw < 1410.0


def test_short_depth_anywhere_is_no_opportunity():
    for u, n in (
        (book(100.0, 101.0, size=0.05), N_BOOK),
        (U_CHEAP, book(1999.9, 2000.1, size=0.05)),
        ((U_CHEAP[0], ((2_780_000.0, 0.1),)), N_BOOK),
    ):
        assert quote(u, n, F_BOOK) == (None, None)
    no_fx_bids = (((1399.0, 10.0),), F_BOOK[1])
    ab, ba = quote(U_CHEAP, N_BOOK, no_fx_bids)
    assert ab is None
    assert ba is not None


def test_thousandfold_contract_prices_the_same():
    bids, asks = N_BOOK
    big = (
        tuple((price * 1000, size / 1000) for price, size in bids),
        tuple((price * 1000, size / 1000) for price, size in asks),
    )
    terms = CostTerms(5.0, 10.0, multiplier_b=1000.0)
    plain = quote(U_CHEAP, N_BOOK, F_BOOK, terms=CostTerms(5.0, 10.0))
    for one, other in zip(plain, quote(U_CHEAP, big, F_BOOK, terms=terms), strict=True):
        assert one.net_bps == pytest.approx(other.net_bps)
        assert one.qty == other.qty
        assert one.price_b * 1000 == pytest.approx(other.price_b)
    exact = top_edge(U_CHEAP, N_BOOK, F_BOOK, CostTerms(5.0, 10.0), FixedCosts(0, 0))
    scaled = top_edge(U_CHEAP, big, F_BOOK, terms, FixedCosts(0, 0))
    assert exact == pytest.approx(scaled)


def test_basis_costs_one_direction_and_is_credited_to_the_other_within_bounds():
    terms = CostTerms(5.0, 5.0, basis_bps=4.0, exit_premium_credit_max_bps=3.0)
    ab, ba = quote(U_CHEAP, N_BOOK, F_BOOK, terms=terms)
    assert ab.costs.expected_exit_premium_bps == -3.0
    assert ba.costs.expected_exit_premium_bps == 4.0


def test_funding_is_paid_by_the_long_of_leg_b():
    ab, ba = quote(U_DEAR, N_BOOK, F_BOOK, terms=CostTerms(5.0, 5.0, long_funding_bps=1.0))
    assert ab.costs.expected_funding_bps == -1.0
    assert ba.costs.expected_funding_bps == 1.0


def test_spot_carries_neither_basis_nor_funding():
    terms = CostTerms.of(perp_pair(), params(), basis_bps=4.0, long_funding_bps=1.0)
    assert (terms.basis_bps, terms.long_funding_bps) == (4.0, 1.0)
    terms = CostTerms.of(spot_pair(), params(), basis_bps=4.0, long_funding_bps=1.0)
    assert (terms.basis_bps, terms.long_funding_bps) == (0.0, 0.0)


def test_funding_instants_within_the_holding_time_are_counted():
    hour = 3_600 * S
    assert funding_settlements(T0, hour, T0 + 2 * hour, 8 * hour) == 0
    assert funding_settlements(T0, hour, T0 + hour, 8 * hour) == 1
    assert funding_settlements(T0, 10 * hour, T0 + hour, 8 * hour) == 2
    assert funding_settlements(T0, hour, T0 - hour, 8 * hour) == 0  # moved on to +7 h
    assert funding_settlements(T0, 7 * hour, T0 - hour, 8 * hour) == 1
