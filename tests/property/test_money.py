"""Money: exact, rounded in one known direction, never a cent made of a float."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.domain.errors import AssetMismatch
from arb_ray.domain.money import (
    KRW,
    USDT,
    USDT_QUANTUM,
    Money,
    ceil_to,
    exact_price,
    exact_qty,
    floor_to,
    to_usdt,
)

amounts = st.decimals(-(10**15), 10**15, places=8)
steps = st.sampled_from([Decimal(s) for s in ("1e-8", "0.0001", "0.1", "1", "5", "1000")])


@given(amounts, amounts)
def test_sums_of_money_are_exact_and_undo_each_other(a, b):
    total = Money(a, KRW) + Money(b, KRW)

    assert total.amount == a + b
    assert total - Money(b, KRW) == Money(a, KRW)
    assert (-total) + total == Money(a - a, KRW)


@given(amounts, amounts)
def test_two_assets_never_meet_in_one_sum(a, b):
    with pytest.raises(AssetMismatch, match="cannot combine KRW with USDT"):
        Money(a, KRW) + Money(b, USDT)
    with pytest.raises(AssetMismatch):
        Money(a, USDT) - Money(b, KRW)


@given(st.floats(allow_nan=True))
def test_a_float_never_becomes_money(amount):
    with pytest.raises(AssertionError):
        Money(amount, USDT)


@given(st.decimals(0, 10**12, places=8), steps)
def test_grids_hold_and_rounding_goes_one_way(value, step):
    low, high = floor_to(value, step), ceil_to(value, step)

    assert low <= value <= high
    assert high - low in (0, step)
    assert low % step == 0
    assert high % step == 0
    assert floor_to(low, step) == low


@given(amounts, st.decimals("500", "3000", places=2))
def test_krw_is_valued_within_half_a_quantum(amount, rate):
    valued = to_usdt(amount, rate)

    assert valued == valued.quantize(USDT_QUANTUM)
    assert abs(valued * rate - amount) <= rate * USDT_QUANTUM / 2


@given(st.integers(1, 10**15 - 1), st.integers(0, 8))
def test_a_price_of_fifteen_digits_survives_the_trip_through_float(digits, places):
    text = Decimal(digits).scaleb(-places)

    assert exact_price(float(text)) == text


@given(st.integers(1, 10**15 - 1))
def test_a_size_below_ten_million_is_exact_to_its_eight_decimals(satoshis):
    displayed = Decimal(satoshis).scaleb(-8)

    assert exact_qty(float(displayed)) == displayed


@given(st.integers(10**15, 10**19), st.integers(0, 8))
def test_a_larger_size_is_never_overstated_and_loses_next_to_nothing(digits, places):
    displayed = Decimal(digits).scaleb(-places)
    taken = exact_qty(float(displayed))

    assert taken <= displayed
    assert displayed - taken <= displayed * Decimal("2.1e-14")


@given(st.integers(2**26, 10**8 - 1), st.integers(1, 10**8 - 1))
def test_a_size_of_sixteen_digits_is_never_overstated(whole, eighths):
    """Floats lie further apart there than the last of eight decimals."""
    displayed = Decimal(whole) + Decimal(eighths).scaleb(-8)

    assert exact_qty(float(displayed)) <= displayed


@given(st.integers(1, 2**50))
def test_a_size_that_a_float_rounds_up_as_far_as_it_can_is_never_overstated(step):
    displayed = 2**73 + 2**21 * step - 2**20 + 1  # all but halfway down to the float before

    assert exact_qty(float(displayed)) <= displayed
