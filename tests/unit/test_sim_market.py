"""The simulated market: the same seed, origin and instant always meet the same prices."""

import itertools
import math
import statistics
import time
from decimal import Decimal

import msgspec
import pytest

from arb_ray.adapters.venues.sim import binance_wire, upbit_wire
from arb_ray.adapters.venues.sim.book_shape import Book
from arb_ray.adapters.venues.sim.coins import LISTED, coin_named, top_assets
from arb_ray.adapters.venues.sim.instruments import BinanceBook, Trade, UpbitBook
from arb_ray.adapters.venues.sim.market import Market
from arb_ray.adapters.venues.sim.noise import STEPS_PER_DAY
from arb_ray.adapters.venues.sim.presets import CALIBRATED, LIVELY, STRESS, preset_named
from arb_ray.app.registry import load_registry
from arb_ray.domain.errors import BadConfig, BadInput

ORIGIN_NS = 1_767_225_600_000_000_000


def market(seed=1, preset=CALIBRATED, symbols=("BTC", "ETH"), origin_ns=ORIGIN_NS):
    return Market(preset, seed, symbols, origin_ns)


def prices(one, steps, asset="BTC"):
    return [
        (
            one.spot_mid(asset, s),
            one.upbit_mid(asset, s),
            one.krw_per_usdt(s),
            one.perp_mid(asset, s),
        )
        for s in steps
    ]


def test_every_coin_of_the_registry_is_listed_in_the_venues_spelling():
    registry = load_registry()
    for symbol in registry.wanted("top:80", "spot", synthetic=True):
        coin = coin_named(symbol)
        for leg_b, ours in (("spot", coin.spot_symbol), ("perp", coin.perp_symbol)):
            try:
                (pair,) = registry.instruments_for([symbol], leg_b, synthetic=True)
            except BadInput:
                continue  # not every coin has a perpetual
            assert (pair.a.venue_symbol, pair.b.venue_symbol) == (coin.upbit_code, ours)
            assert pair.b.multiplier == (1 if leg_b == "spot" else coin.multiplier)


def test_the_same_seed_gives_the_same_market_and_another_seed_another():
    steps = range(5_000, 5_050)
    assert prices(market(), steps) == prices(market(), steps)
    assert prices(market(), steps) != prices(market(seed=2), steps)


def test_a_restarted_process_meets_the_prices_it_left():
    walked = market()
    whole = prices(walked, range(590, 1_900))
    assert prices(market(), range(1_700, 1_900)) == whole[-200:]


def test_looking_back_and_forth_changes_nothing():
    one = market()
    ahead = prices(one, [3 * STEPS_PER_DAY + 17])
    prices(one, [12, 99 * STEPS_PER_DAY, 700])
    assert prices(one, [3 * STEPS_PER_DAY + 17]) == ahead


def test_a_coin_does_not_depend_on_which_others_are_simulated():
    few, many = market(), market(symbols=top_assets(30))
    assert prices(few, range(100, 110)) == prices(many, range(100, 110))


def test_prices_have_no_seams_between_minutes_and_days():
    one = market()
    for seam in (600, STEPS_PER_DAY):
        lane = one._lane("BTC")
        for path in (lane.path, lane.fast, lane.slow):
            at = seam - path.offset % seam
            moves = [abs(path.at(s + 1) - path.at(s)) for s in range(at - 3, at + 3)]
            assert max(moves) < 6


def test_a_day_ahead_is_reached_in_under_a_second_with_fifty_coins():
    one = market(symbols=top_assets(50))
    for asset in one.coins:
        one.upbit_mid(asset, 10)
    began = time.process_time()
    for asset in one.coins:
        one.upbit_mid(asset, STEPS_PER_DAY + 10)
    assert time.process_time() - began < 1.0


def test_premium_and_volatility_match_the_calibration_within_sampling_error():
    one = market(seed=3, symbols=("BTC",))
    bars = range(0, 4 * STEPS_PER_DAY, 3_000)
    premium = [one.premium_bps("BTC", s) for s in bars]
    # 1152 bars with a correlation time of some four bars: std 4.4 (CALIBRATION I) +- 10 %.
    assert 3.5 < statistics.pstdev(premium) < 6.0
    logs = [math.log(one.spot_mid("BTC", s)) * 1e4 for s in bars]
    moves = [b - a for a, b in itertools.pairwise(logs)]
    assert 7.5 < statistics.pstdev(moves) < 12.0  # C: 9.3
    factor = [math.log(one.krw_per_usdt(s)) * 1e4 for s in bars]
    changes = [b - a for a, b in itertools.pairwise(factor)]
    assert 3.4 < statistics.pstdev(changes) < 5.0  # C: 4.5 less the coins' own part


def test_a_second_can_move_by_many_sigma_and_minutes_keep_their_variance():
    lane = market(seed=4)._lane("BTC")
    moves, wildest = [], []
    for minute in range(400):
        start = minute * 600 - lane.path.offset % 600 + 600
        values = [lane.path.at(start + 10 * s) for s in range(61)]
        ones = [b - a for a, b in itertools.pairwise(values)]
        busy = lane.path._busy(minute + 1 + lane.path.offset // 600)
        wildest.append(max(map(abs, ones)) / busy / CALIBRATED.binance_vol)
        moves.append((values[-1] - values[0]) / busy / CALIBRATED.binance_vol)
    # I: about nine sigma in eleven minutes; with normal seconds it would be about three.
    elevens = [max(wildest[i : i + 11]) for i in range(0, 396, 11)]
    assert 5 < statistics.median(elevens) < 13
    assert 5.5 < statistics.pstdev(moves) < 11  # the square root of sixty


def test_upbit_hears_of_binance_late():
    one = market()
    lag = one._lane("BTC").lag
    assert 2 <= lag <= 15
    step = 50_000
    implied = one.upbit_mid("BTC", step) / one.krw_per_usdt(step)
    heard = one.spot_mid("BTC", step - lag) * (1 + one.premium_bps("BTC", step) * 1e-4)
    assert implied == pytest.approx(heard, rel=1e-12)


def test_a_forced_premium_holds_exactly_and_ends():
    one = market()
    one.force_premium("BTC", 1_000, 1_100, 80.0)
    fair = one.upbit_mid("BTC", 1_050) / one.krw_per_usdt(1_050) / one.spot_mid("BTC", 1_050)
    assert (fair - 1) * 1e4 == pytest.approx(80.0)
    assert one.premium_bps("BTC", 1_100) == market().premium_bps("BTC", 1_100)
    assert one.premium_bps("ETH", 1_050) == market().premium_bps("ETH", 1_050)


def test_stress_falls_by_a_third_within_the_hour_and_comes_back():
    one = market()
    one.start_panic(1_000, speed=60)  # an hour in a minute
    depths = [one.panic_bps(1_000 + s) for s in range(0, 1_800, 5)]
    assert min(depths) == pytest.approx(-3_300, abs=100)
    assert depths.index(min(depths)) * 5 < 600
    assert one.panic_bps(1_000 + 1_801) == 0
    assert any(market(preset=STRESS).panic_bps(s) < -3_000 for s in range(0, 7_200, 50))


def test_lively_bursts_are_large_often_and_short():
    one = market(preset=LIVELY)
    premium = [one.premium_bps("BTC", s) for s in range(0, 36_000, 5)]
    assert max(map(abs, premium)) < 300  # below the plausibility cap
    crossings = sum(abs(a) <= 60 < abs(b) for a, b in itertools.pairwise(premium))
    assert crossings >= 30  # about one a window of 75 s
    assert not LIVELY.is_realistic
    assert "NOT REALISTIC" in LIVELY.label


def test_any_number_of_symbols_works_and_unknown_ones_are_refused():
    names = top_assets(400)
    assert len(set(names)) == 400
    assert names[: len(LISTED)] == LISTED
    assert all(coin_named(name).price_usdt > 0 for name in names)
    assert coin_named("PEPE").perp_symbol == "1000PEPEUSDT"
    with pytest.raises(BadConfig, match="do not list 'NOPE'"):
        coin_named("NOPE")
    with pytest.raises(BadConfig, match="no preset is called 'wild'"):
        preset_named("wild")


def replay(book, steps):
    """Rebuild a book from its diffs, as a client would."""
    bids, asks, previous = {}, {}, None
    for step in steps:
        change = book.advance(step)
        if change is None:
            continue
        yield change, previous, bids, asks
        for side, rows in ((bids, change.bids), (asks, change.asks)):
            for price, size in rows:
                if size:
                    side[price] = size
                else:
                    del side[price]
        previous = change
        assert (max(bids), bids[max(bids)]) == change.tickers[-1][1]
        assert (min(asks), asks[min(asks)]) == change.tickers[-1][2]
        assert (tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items()))) == (
            change.book.bids,
            change.book.asks,
        )


@pytest.mark.parametrize("is_perp", [False, True])
def test_diffs_rebuild_the_book_and_meet_the_sequence_rules(is_perp):
    one = market(symbols=("BTC", "PEPE"))
    for asset in ("BTC", "PEPE"):
        book = BinanceBook(one, asset, is_perp=is_perp, rate=0.5)
        ids, count = [], 0
        # A hole of a minute without steps, as when nobody listens.
        for change, previous, _, _ in replay(book, [*range(7_000, 7_100), *range(7_700, 7_800)]):
            count += 1
            ids += [update_id for update_id, _, _ in change.tickers]
            assert change.first_id <= change.last_id == change.tickers[-1][0]
            if previous is None:
                continue
            assert change.previous_id == previous.last_id
            if is_perp:
                assert change.first_id > previous.last_id
            else:
                assert change.first_id == previous.last_id + 1
        assert count > 20
        assert ids == sorted(set(ids))


def test_a_usdm_snapshot_lies_within_the_next_diff():
    book = BinanceBook(market(), "BTC", is_perp=True, rate=0.5)
    book.advance(100)
    snapshot = book.snapshot_id()
    following = next(c for s in range(101, 200) if (c := book.advance(s)))
    assert following.first_id <= snapshot <= following.last_id
    assert following.previous_id < snapshot


def test_upbit_books_stand_between_events_and_are_the_same_after_a_restart():
    walked, fresh = UpbitBook(market(), "ETH"), UpbitBook(market(), "ETH")
    seen = [walked.book_at(step) for step in range(2_000, 2_300)]
    changes = {at for at, _ in seen}
    assert 60 < len(changes) < 290  # G: 4.8 a second
    assert fresh.book_at(2_299) == seen[-1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("116539000", "1.16539E8"),
        ("0.00079276", "7.9276E-4"),
        ("0.0005", "5.0E-4"),
        ("127", "127.0"),
        ("9999999", "9999999.0"),
        ("10000000", "1.0E7"),
        ("0.08120946", "0.08120946"),
        ("0", "0.0"),
    ],
)
def test_numbers_are_spelt_as_on_upbits_wire(value, text):
    e8 = int(Decimal(value) * 10**8)
    assert upbit_wire.number(e8) == text
    assert Decimal(upbit_wire.number(e8)) == Decimal(value) == Decimal(upbit_wire.plain(e8))


def test_a_thin_side_is_padded_with_zeros():
    book = Book(((500, 3),), ((600, 4), (700, 5)))
    frame = msgspec.json.decode(
        upbit_wire.orderbook("KRW-X", 1, book, 30, stream_type="REALTIME", is_simple=False)
    )
    assert frame["orderbook_units"][1]["bid_price"] == 0
    assert frame["orderbook_units"][1]["bid_size"] == 0


def test_binance_sizes_use_the_lot_and_trades_the_touch():
    one = market()
    book = BinanceBook(one, "ETH", is_perp=False, rate=1.0)
    trades = []
    for step in range(1_000, 1_100):
        book.advance(step)
        for trade in book.trades_at(step):
            touch = book.book.bids[0] if trade.is_taker_sell else book.book.asks[0]
            assert trade.price == touch[0]
            assert 0 < trade.size <= touch[1]
            assert trade.size % book.coin.spot_lot_e8 == 0
            trades.append(trade)
    assert len(trades) > 50
    assert len({t.id for t in trades}) == len(trades)


def test_frames_are_json_with_the_keys_of_the_sheet():
    spell = binance_wire.Spelling("BTCUSDT", 1, 3)
    trade = Trade(7, 1_000, 100, 200, is_taker_sell=True)
    mark = msgspec.json.decode(binance_wire.mark_price(spell, (1, 2), 1e-4, 9, 8))
    assert (mark["r"], mark["T"], mark["i"]) == ("0.00010000", 9, "0.00000002")
    for frame, keys in (
        (binance_wire.usdm_trade(spell, trade, 1), "e E T s t p q X m"),
        (binance_wire.spot_trade(spell, trade, 1), "e E s t p q T m M"),
        (binance_wire.agg_trade(spell, trade, 1, is_perp=True), "e E a s p q nq f l T m st"),
        (binance_wire.agg_trade(spell, trade, 1, is_perp=False), "e E s a p q f l T m M"),
        (binance_wire.usdm_book_ticker(spell, 1, (1, 2), (3, 4), 5), "e u s ps b B a A T E st"),
    ):
        assert list(msgspec.json.decode(frame)) == keys.split()
