from __future__ import annotations

import itertools
import json

import pytest

from arb_ray.adapters.venues.binance.feed import BinanceFeed
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Venue, VenueSymbol
from arb_ray.domain.money import USDT, Asset
from arb_ray.engine.feed import (
    FeedOptions,
    FeedOutput,
    FetchSnapshot,
    Resubscribe,
    Rotate,
    VenueFeed,
)

S = 1_000_000_000
WALL = 1_790_000_000 * S
BTC = VenueSymbol("BTCUSDT")
SPOT, USDM = Venue.BINANCE_SPOT, Venue.BINANCE_USDM


def instrument(coin: str, venue: Venue) -> Instrument:
    kind = Kind.SPOT if venue is SPOT else Kind.PERP
    ident = InstrumentId(f"{venue}:{coin}-USDT")
    return Instrument(ident, Asset(coin), USDT, venue, kind, VenueSymbol(f"{coin}USDT"))


def feed(venue: Venue, *coins: str, **options: object) -> BinanceFeed:
    instruments = tuple(instrument(coin, venue) for coin in coins)
    made = BinanceFeed(venue, FeedOptions(instruments=instruments, **options))  # type: ignore[arg-type]
    checked: VenueFeed = made  # the interface holds
    assert checked is made
    return made


def combined(stream: str, **data: object) -> str:
    return json.dumps({"stream": stream, "data": data})


def spot_diff(first: int, last: int, bids: list[list[str]] | None = None, coin: str = "BTC") -> str:
    rows = {"b": bids or [], "a": []}
    name = f"{coin.lower()}usdt@depth@100ms"
    return combined(name, e="depthUpdate", E=1, s=f"{coin}USDT", U=first, u=last, **rows)


def ticker(update_id: int, bid: str, ask: str) -> str:
    sizes = {"B": "7", "A": "7"}
    return combined("btcusdt@bookTicker", u=update_id, s="BTCUSDT", b=bid, a=ask, **sizes)


def snapshot(update_id: int, bid: str = "99", levels: int = 2) -> str:
    bids = [[str(float(bid) - n), "1"] for n in range(levels)]
    asks = [[str(101 + n), "1"] for n in range(levels)]
    return json.dumps({"lastUpdateId": update_id, "bids": bids, "asks": asks})


def give(binance: BinanceFeed, raw: str, now_s: float = 1, connection: int = 1) -> FeedOutput:
    return binance.on_frame(0, connection, raw, WALL, int(now_s * S))


def answer(binance: BinanceFeed, raw: str, now_s: float = 1) -> FeedOutput:
    return binance.on_snapshot(BTC, raw, WALL, int(now_s * S))


def running(**options: object) -> BinanceFeed:
    """A spot feed whose BTC book stands at update 100."""
    binance = feed(SPOT, "BTC", **options)
    binance.on_connected(0, 1, 0)
    assert give(binance, spot_diff(95, 100)).effects == (FetchSnapshot(BTC),)
    assert len(answer(binance, snapshot(100)).books) == 1
    return binance


def test_spot_streams_share_one_path_and_usdm_splits_them_by_class() -> None:
    (spot,) = feed(SPOT, "BTC", "ETH").plans()
    assert spot.url == "wss://stream.binance.com:9443/stream?streams=btcusdt@bookTicker"
    assert spot.codes == (
        "btcusdt@bookTicker",
        "btcusdt@depth@100ms",
        "ethusdt@bookTicker",
        "ethusdt@depth@100ms",
    )
    public, market = feed(USDM, "BTC", ws_base="ws://127.0.0.1:1").plans()
    assert public.url == "ws://127.0.0.1:1/public/stream?streams=btcusdt@bookTicker"
    assert market.url == "ws://127.0.0.1:1/market/stream?streams=btcusdt@markPrice@1s"
    assert market.codes == ("btcusdt@markPrice@1s",)


def test_the_address_names_the_first_stream_and_subscribe_the_others() -> None:
    binance = feed(SPOT, *(f"C{n}" for n in range(150)))
    messages = [json.loads(message) for message in binance.subscribe_messages(0)]
    assert [message["method"] for message in messages] == ["SUBSCRIBE", "SUBSCRIBE"]
    assert [message["id"] for message in messages] == [1, 2]
    params = [name for message in messages for name in message["params"]]
    (plan,) = binance.plans()
    assert (plan.url.rpartition("=")[2], *params) == plan.codes


def test_connections_hold_at_most_1024_streams_and_keep_a_symbols_together() -> None:
    plans = feed(SPOT, *(f"C{n}" for n in range(1_100))).plans()
    assert [len(plan.codes) for plan in plans] == [1_024, 1_024, 152]
    assert [plan.plan for plan in plans] == [0, 1, 2]
    for plan in plans:
        symbols = [code.partition("@")[0] for code in plan.codes]
        assert symbols[0::2] == symbols[1::2]


def test_depth_modes_choose_their_streams() -> None:
    def codes(venue: Venue, **options: object) -> tuple[str, ...]:
        return feed(venue, "BTC", **options).plans()[0].codes

    assert codes(SPOT, depth_mode="top") == ("btcusdt@bookTicker",)
    assert codes(SPOT, depth_mode="partial")[1] == "btcusdt@depth20@100ms"
    assert codes(SPOT, depth_mode="partial", depth_levels=5)[1] == "btcusdt@depth5@100ms"
    assert codes(SPOT, depth_interval_ms=1_000)[1] == "btcusdt@depth"
    assert codes(USDM, depth_interval_ms=250)[1] == "btcusdt@depth"


@pytest.mark.parametrize("venue", [SPOT, USDM])
def test_trades_are_asked_for_and_need_not_come(venue: Venue) -> None:
    binance = feed(venue, "BTC", "ETH", wants_trades=True)
    (message,) = binance.subscribe_messages(0)
    assert json.loads(message)["params"][-2:] == ["btcusdt@trade", "ethusdt@trade"]
    assert not any("trade" in code for plan in binance.plans() for code in plan.codes)


def test_trades_count_towards_the_streams_of_a_connection() -> None:
    binance = feed(SPOT, "BTC", "ETH", wants_trades=True, streams_per_connection=5)
    assert [len(plan.codes) for plan in binance.plans()] == [2, 2]
    assert "ethusdt@trade" not in binance.subscribe_messages(0)[0]
    assert "ethusdt@trade" in binance.subscribe_messages(1)[0]


def test_a_book_of_another_symbol_is_counted_and_nothing_else() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    assert binance.on_snapshot(VenueSymbol("ETHUSDT"), snapshot(100), 0, 0) == FeedOutput()
    binance.on_snapshot_failed(VenueSymbol("ETHUSDT"), 0)
    assert binance.counters.unlisted == 1


def test_the_first_diff_asks_for_a_snapshot_once_and_the_answer_shows_the_book() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    assert give(binance, spot_diff(95, 100)).effects == (FetchSnapshot(BTC),)
    later = give(binance, spot_diff(101, 102, bids=[["99", "5"]]))
    assert later == FeedOutput()
    (change,) = answer(binance, snapshot(100)).books
    assert change.bids == ((99, 5), (98, 1))
    assert binance.counters.snapshots == 1
    assert binance.counters.resyncs == 0


def test_a_quiet_symbol_gets_its_snapshot_without_a_diff() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    assert binance.on_tick(2 * S).effects == ()
    assert binance.on_tick(4 * S).effects == (FetchSnapshot(BTC),)
    assert len(answer(binance, snapshot(100), now_s=5).books) == 1
    assert binance.alive(5 * S)[0].age_ns == 5 * S  # no frame has come, and the book is right


def test_a_quiet_symbols_snapshot_waits_only_until_its_streams_are_granted() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    give(binance, '{"result":null,"id":1}', now_s=0.1)
    assert binance.on_tick(int(0.3 * S)).effects == ()  # an active symbol's diff may be coming
    assert binance.on_tick(int(0.4 * S)).effects == (FetchSnapshot(BTC),)
    # A connection that follows has its own grant.
    binance.on_disconnected(0, 1, 1 * S)
    binance.on_connected(0, 2, 1 * S)
    assert binance.on_tick(3 * S).effects == ()


def test_a_grant_of_some_streams_or_a_refusal_hastens_no_snapshot() -> None:
    coins = [f"C{n}" for n in range(150)]
    binance = feed(SPOT, *coins)
    binance.on_connected(0, 1, 0)
    assert len(binance.subscribe_messages(0)) == 2
    give(binance, '{"result":null,"id":1}', now_s=0.1)
    give(binance, '{"code":2,"msg":"bad stream","id":2}', now_s=0.1)
    assert binance.on_tick(2 * S).effects == ()
    give(binance, '{"result":null,"id":2}', now_s=2.0)
    assert len(binance.on_tick(int(2.3 * S)).effects) == len(coins)


def test_a_gap_takes_the_book_away_and_fetches_a_snapshot() -> None:
    binance = running()
    output = give(binance, spot_diff(105, 106), now_s=10)
    assert [(change.bids, change.asks) for change in output.books] == [((), ())]
    assert output.effects == (FetchSnapshot(BTC),)
    assert len(answer(binance, snapshot(106), now_s=11).books) == 1
    assert (binance.counters.gaps, binance.counters.resyncs) == (1, 1)


def test_repeated_gaps_do_not_ask_without_pause() -> None:
    binance = running(snapshot_retry_s=1.0)
    asked = 0
    for n in range(100):
        now_s = 10 + n * 0.1
        update_id = 1_000 + 10 * n
        asked += len(give(binance, spot_diff(update_id, update_id + 1), now_s=now_s).effects)
        answer_due = binance.on_tick(int(now_s * S)).effects
        asked += len(answer_due)
        if asked:
            answer(binance, snapshot(update_id + 1), now_s=now_s)
    assert asked <= 11


def test_a_snapshot_that_is_too_old_is_fetched_again_later() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(200, 201))
    assert answer(binance, snapshot(100), now_s=1) == FeedOutput()
    assert binance.on_tick(int(1.5 * S)).effects == ()
    assert binance.on_tick(3 * S).effects == (FetchSnapshot(BTC),)
    assert len(answer(binance, snapshot(201), now_s=3).books) == 1


def test_failed_snapshots_are_asked_for_again_with_growing_pauses() -> None:
    binance = feed(SPOT, "BTC", snapshot_retry_s=1.0)
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(200, 201), now_s=0)
    asked_s = [0]
    binance.on_snapshot_failed(BTC, 0)
    for now_s in range(1, 200):
        if FetchSnapshot(BTC) in binance.on_tick(now_s * S).effects:
            asked_s.append(now_s)
            binance.on_snapshot_failed(BTC, now_s * S)
    pauses = [b - a for a, b in itertools.pairwise(asked_s)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert set(pauses[5:]) == {30}
    assert binance.counters.snapshot_failures == len(asked_s)


def test_a_malformed_snapshot_is_counted_and_asked_for_again() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(200, 201))
    assert answer(binance, '{"code":-1003,"msg":"slow down"}') == FeedOutput()
    assert binance.counters.malformed == 1
    assert binance.on_tick(3 * S).effects == (FetchSnapshot(BTC),)


def test_a_snapshot_from_before_the_cut_is_thrown_away() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(95, 100))
    binance.on_disconnected(0, 1, 2 * S)
    binance.on_connected(0, 2, 3 * S)
    assert answer(binance, snapshot(100), now_s=4) == FeedOutput(effects=(FetchSnapshot(BTC),))
    assert len(answer(binance, snapshot(150), now_s=5).books) == 1


def test_a_snapshot_that_arrives_between_two_connections_harms_nothing() -> None:
    binance = feed(SPOT, "BTC")
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(95, 100))
    binance.on_disconnected(0, 1, 2 * S)
    assert answer(binance, snapshot(100), now_s=2.5) == FeedOutput()
    binance.on_connected(0, 2, 3 * S)
    output = give(binance, spot_diff(150, 151), now_s=4, connection=2)
    assert output.effects == (FetchSnapshot(BTC),)


def test_a_ticker_is_shown_ahead_of_the_diffs() -> None:
    binance = running()
    (change,) = give(binance, ticker(105, "98.5", "101.5")).books
    assert change.bids == ((98.5, 7), (98, 1))
    assert give(binance, ticker(104, "90", "110")).books == ()
    assert binance.counters.ignored >= 1
    (change,) = give(binance, spot_diff(101, 106)).books
    assert change.bids[0] == (99, 1)


def test_a_ticker_alone_shows_no_book_that_has_lost_its_sequence() -> None:
    binance = running()
    give(binance, spot_diff(105, 106))
    assert give(binance, ticker(107, "98.5", "101.5")).books == ()


def test_top_mode_shows_the_ticker_and_partial_mode_the_whole_book() -> None:
    only_top = feed(SPOT, "BTC", depth_mode="top")
    only_top.on_connected(0, 1, 0)
    (change,) = give(only_top, ticker(5, "98", "99")).books
    assert (change.bids, change.asks) == (((98, 7),), ((99, 7),))

    partial = feed(SPOT, "BTC", depth_mode="partial", depth_levels=5)
    partial.on_connected(0, 1, 0)
    assert give(partial, ticker(5, "98", "99")).books == ()
    data = {"lastUpdateId": 6, "bids": [["98", "1"], ["97", "1"]], "asks": [["99", "1"]]}
    (change,) = give(partial, combined("btcusdt@depth5@100ms", **data)).books
    assert change.bids == ((98, 1), (97, 1))
    (change,) = give(partial, ticker(7, "97.5", "99")).books
    assert change.bids == ((97.5, 7), (97, 1))


def test_a_market_that_leaves_the_snapshot_is_refreshed_while_the_book_goes_on() -> None:
    binance = feed(SPOT, "BTC", snapshot_levels=60)
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(95, 100))
    answer(binance, snapshot(100, bid="99", levels=60))
    gone = [[str(99.0 - n), "0"] for n in range(20)]
    output = give(binance, spot_diff(101, 101, bids=gone), now_s=10)
    assert output.effects == (FetchSnapshot(BTC),)
    assert output.books[0].bids[0] == (79, 1)
    assert give(binance, spot_diff(102, 102, bids=[["78.5", "3"]]), now_s=10.1).books
    (change,) = answer(binance, snapshot(101, bid="79", levels=60), now_s=10.2).books
    assert change.bids[:3] == ((79, 1), (78.5, 3), (78, 1))
    assert (binance.counters.refreshes, binance.counters.gaps) == (1, 0)
    assert give(binance, spot_diff(103, 103), now_s=11).effects == ()


def test_the_mark_price_travels_as_funding() -> None:
    binance = feed(USDM, "BTC")
    binance.on_connected(1, 1, 0)
    data = {"e": "markPriceUpdate", "E": 3, "s": "BTCUSDT", "p": "1.5", "r": "-0.0001", "T": 9}
    raw = combined("btcusdt@markPrice@1s", **data)
    (funding,) = binance.on_frame(1, 1, raw, WALL, S).funding
    assert (funding.mark_price, funding.funding_rate) == (1.5, -0.0001)
    assert funding.next_funding_ns == 9_000_000
    assert binance.silent(60 * S) == ()


def test_a_shutdown_notice_rotates_the_connection_once() -> None:
    binance = running()
    assert give(binance, '{"e":"serverShutdown","E":1}').effects == (
        Rotate(0, 1, "serverShutdown"),
    )
    assert give(binance, '{"e":"serverShutdown","E":1}').effects == ()
    assert binance.counters.shutdowns == 2


def test_a_rotation_by_overlap_keeps_the_sequence() -> None:
    binance = running()
    binance.on_connected(0, 2, 5 * S)
    assert len(give(binance, spot_diff(101, 102), connection=1).books) == 1
    assert give(binance, spot_diff(101, 102), connection=2) == FeedOutput()
    assert len(give(binance, spot_diff(103, 104), connection=2).books) == 1
    assert binance.on_disconnected(0, 1, 6 * S) == FeedOutput()
    assert len(give(binance, spot_diff(105, 106), connection=2).books) == 1
    assert binance.counters.gaps == 0


def test_a_lost_connection_voids_the_books_it_carried() -> None:
    binance = running()
    (change,) = binance.on_disconnected(0, 1, 6 * S).books
    assert (change.bids, change.asks) == ((), ())
    assert not binance.alive(6 * S)[0].is_up


def test_refused_requests_and_errors_are_counted_and_kept_for_the_log() -> None:
    binance = running()
    give(binance, '{"result":null,"id":1}')
    give(binance, '{"code":2,"msg":"bad stream","id":1}')
    give(binance, '{"code":0,"msg":"who are you"}')
    give(binance, "not json")
    counters = binance.counters
    assert (counters.refused, counters.venue_errors, counters.malformed) == (1, 1, 1)
    assert [each.kind for each in counters.take_complaints()] == [
        "refused",
        "venue_error",
        "malformed",
    ]
    assert counters.by_kind["reply"] == 2


def test_silent_streams_are_asked_for_once_more() -> None:
    binance = feed(SPOT, "BTC", "ETH", silent_after_s=10, dry_after_s=1_000)
    binance.on_connected(0, 1, 0)
    give(binance, spot_diff(95, 100))
    give(binance, ticker(100, "98", "99"))
    answer(binance, snapshot(100))
    (effect,) = (e for e in binance.on_tick(11 * S).effects if isinstance(e, Resubscribe))
    assert json.loads(effect.messages[0])["params"] == ["ethusdt@bookTicker", "ethusdt@depth@100ms"]
    assert not [e for e in binance.on_tick(12 * S).effects if isinstance(e, Resubscribe)]
    assert binance.silent(12 * S) == ("ethusdt@bookTicker", "ethusdt@depth@100ms")


def test_data_for_symbols_that_are_not_ours_is_counted() -> None:
    binance = running()
    assert give(binance, spot_diff(1, 2, coin="DOGE")) == FeedOutput()
    assert binance.counters.unlisted == 1
