"""Books of the simulated exchanges, at any seed, price and instant: on the grid, never crossed."""

from decimal import Decimal

from hypothesis import example, given, settings
from hypothesis import strategies as st

from arb_ray.adapters.venues.sim import binance_wire, upbit_wire
from arb_ray.adapters.venues.sim.book_shape import BookShape, binance_shape, upbit_shape
from arb_ray.adapters.venues.sim.coins import E8, coin_named, top_assets, upbit_tick_e8
from arb_ray.adapters.venues.sim.instruments import Events
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import (
    STEPS_PER_MINUTE,
    Reverting,
    VolatilityClock,
    Wander,
    normals,
    stream,
)
from arb_ray.adapters.venues.sim.presets import CALIBRATED

assets = st.sampled_from(top_assets(90))
keys = st.integers(0, 2**64 - 1)
steps = st.integers(-(10**6), 10**10)


def check(book, tick_at, lot):
    bids, asks = [p for p, _ in book.bids], [p for p, _ in book.asks]
    assert len(bids) > 3
    assert len(asks) > 3
    assert bids[0] < asks[0]
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert min(bids) > 0
    for price, size in (*book.bids, *book.asks):
        assert price % tick_at(price) == 0
        assert size > 0
        assert size % lot == 0


@settings(max_examples=120, deadline=None)
@given(assets, keys, steps, st.floats(-6.0, 6.0), st.booleans())
def test_upbit_books_hold_the_tick_bands(asset, key, step, log_move, is_panic):
    coin = coin_named(asset)
    rest = coin.price_usdt * 1_465
    mid = max(rest * 2.0**log_move, 2e-5)  # across several price bands
    book = BookShape(upbit_shape(key, coin, rest)).at(mid, step, is_panic=is_panic)
    check(book, upbit_tick_e8, 1)
    assert book.bids[0][0] <= mid * E8 * (1 + 1e-12) or is_panic
    assert len(book.bids) <= 30


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([10**6, 5 * 10**5, 10**5, 10**4, 5_000, 100, 10, 1]), keys, st.floats(-3, 3))
def test_upbit_books_across_a_band_hold_both_ticks(edge, key, ticks_off):
    coin = coin_named("ETH")
    tick = upbit_tick_e8(edge * E8) / E8
    check(BookShape(upbit_shape(key, coin, edge)).at(edge + ticks_off * tick, 5), upbit_tick_e8, 1)


@settings(max_examples=120, deadline=None)
@example(
    asset="BTT", key=0, step=4, move=1.0, is_perp=False
)  # some ticks are all that its price is
@given(assets, keys, steps, st.floats(0.6, 1.7), st.booleans())
def test_binance_books_hold_tick_and_lot(asset, key, step, move, is_perp):
    coin = coin_named(asset)
    rest = coin.price_usdt * (coin.multiplier if is_perp else 1)
    tick = coin.perp_tick_e8 if is_perp else coin.spot_tick_e8
    lot = coin.perp_lot_e8 if is_perp else coin.spot_lot_e8
    book = BookShape(binance_shape(key, coin, rest, is_perp=is_perp)).at(rest * move, step)
    check(book, lambda _: tick, lot)


@settings(max_examples=40, deadline=None)
@given(keys, st.integers(0, 10**8), st.lists(st.integers(0, 3_000), min_size=1, max_size=12))
def test_a_book_does_not_depend_on_what_was_asked_before(key, start, visits):
    coin = coin_named("SOL")
    asked = BookShape(binance_shape(key, coin, 95.0, is_perp=False))
    for visit in visits:
        asked.at(95.0 + visit / 1_000, start + visit)
    fresh = BookShape(binance_shape(key, coin, 95.0, is_perp=False))
    assert asked.at(95.02, start + 77) == fresh.at(95.02, start + 77)


@settings(max_examples=15, deadline=None)
@given(keys, st.integers(-(10**9), 10**9), st.integers(1, 600))
def test_paths_can_be_entered_anywhere(key, start, ahead):
    clock = VolatilityClock(key, 0.5, 0.4)
    for make in (lambda: Wander(key, 0.55, clock, 30.0), lambda: Reverting(key, 3.5, 180.0)):
        walked, fresh = make(), make()
        values = [walked.at(start + s) for s in range(0, 2 * STEPS_PER_MINUTE, 50)]
        assert fresh.at(start + ahead // 50 * 50) == values[ahead // 50]


@given(st.integers(0, 10**22))
def test_every_spelling_reads_back_as_the_same_number(value):
    exact = Decimal(value) / E8
    for text in (
        upbit_wire.number(value),
        upbit_wire.plain(value),
        upbit_wire.fixed(value),
        binance_wire.fixed(value),
    ):
        assert Decimal(text) == exact


@settings(max_examples=80, deadline=None)
@given(keys, st.floats(0.05, 9.0), st.lists(st.tuples(st.integers(0, 900), st.integers(0, 700))))
def test_what_was_asked_before_changes_no_last_event(key, per_s, asked):
    market = Market(CALIBRATED, 1, ("BTC",), 0)
    remembers = Events(market, key, per_s)
    for step, back in asked:
        floor = step - back
        at = step
        while at > floor and not Events(market, key, per_s).is_event(at):
            at -= 1
        assert remembers.last(step, floor) == at


@given(keys, st.integers(-(10**6), 10**6), st.integers(0, 9))
def test_normals_are_those_of_the_standard_library(key, block, count):
    gauss = stream(key, block).gauss
    assert normals(key, block, count) == [gauss(0.0, 1.0) for _ in range(count)]
