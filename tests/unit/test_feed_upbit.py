from __future__ import annotations

import json

import pytest

from arb_ray.adapters.venues.upbit.feed import SOCKET, UpbitFeed
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Venue, VenueSymbol
from arb_ray.domain.money import KRW, Asset
from arb_ray.engine.feed import FeedOptions, FeedOutput, Resubscribe, Rotate, VenueFeed

S = 1_000_000_000
WALL = 1_790_000_000 * S


def instrument(coin: str) -> Instrument:
    return Instrument(
        InstrumentId(f"upbit:{coin}-KRW"),
        Asset(coin),
        KRW,
        Venue.UPBIT,
        Kind.SPOT,
        VenueSymbol(f"KRW-{coin}"),
    )


def feed(*coins: str, **options: object) -> UpbitFeed:
    made = UpbitFeed(
        FeedOptions(instruments=tuple(instrument(coin) for coin in coins), **options)  # type: ignore[arg-type]
    )
    checked: VenueFeed = made  # the interface holds
    assert checked is made
    return made


def book(
    coin: str, bid: float, at_ms: int, stream_type: str = "REALTIME", levels: int = 1
) -> bytes:
    units = [
        {"ask_price": bid + 1 + n, "bid_price": bid - n, "ask_size": 1.0, "bid_size": 2.0}
        for n in range(levels)
    ]
    message = {"type": "orderbook", "code": f"KRW-{coin}", "timestamp": at_ms}
    message |= {"orderbook_units": units, "stream_type": stream_type, "level": 0}
    return json.dumps(message).encode()


def give(upbit: UpbitFeed, raw: bytes | str, now_s: float = 1, connection: int = 1) -> FeedOutput:
    return upbit.on_frame(SOCKET, connection, raw, WALL, int(now_s * S))


def test_one_request_holds_the_whole_subscription() -> None:
    upbit = feed("BTC", "USDT", wants_trades=True, wire_format="SIMPLE", session="s1")
    (plan,) = upbit.plans()
    assert plan.url == "wss://api.upbit.com/websocket/v1"
    assert plan.codes == ("KRW-BTC", "KRW-USDT")
    (message,) = upbit.subscribe_messages(SOCKET)
    assert json.loads(message) == [
        {"ticket": "s1"},
        {"type": "orderbook", "codes": ["KRW-BTC.15", "KRW-USDT.15"]},
        {"type": "trade", "codes": ["KRW-BTC", "KRW-USDT"], "is_only_realtime": True},
        {"format": "SIMPLE"},
    ]


@pytest.mark.parametrize(
    ("mode", "levels", "suffix"),
    [("partial", 15, 15), ("partial", 16, 30), ("top", 15, 1), ("diff", 4, 5)],
)
def test_the_unit_count_is_one_that_upbit_serves(mode: str, levels: int, suffix: int) -> None:
    upbit = feed("BTC", depth_mode=mode, depth_levels=levels)
    assert f"KRW-BTC.{suffix}" in upbit.subscribe_messages(SOCKET)[0]


def test_a_frame_becomes_the_newest_book() -> None:
    upbit = feed("BTC", depth_levels=2)
    upbit.on_connected(SOCKET, 1, 0)
    (change,) = give(upbit, book("BTC", 100, 5, "SNAPSHOT", levels=3)).books
    assert change.instrument == "upbit:BTC-KRW"
    assert change.bids == ((100, 2), (99, 2))
    assert change.asks == ((101, 1), (102, 1))
    assert (change.exchange_ns, change.recv_wall_ns, change.recv_mono_ns) == (5_000_000, WALL, S)


def test_a_list_frame_changes_several_books() -> None:
    upbit = feed("BTC", "ETH")
    upbit.on_connected(SOCKET, 1, 0)
    raw = b"[" + book("BTC", 100, 5) + b"," + book("ETH", 10, 5) + b"]"
    assert [change.instrument for change in give(upbit, raw).books] == [
        "upbit:BTC-KRW",
        "upbit:ETH-KRW",
    ]


def test_a_frame_that_came_late_is_ignored() -> None:
    upbit = feed("BTC")
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 5))
    assert give(upbit, book("BTC", 99, 4)).books == ()
    assert upbit.counters.ignored == 1


def test_bad_frames_are_counted_with_a_bounded_excerpt_and_harm_nothing() -> None:
    upbit = feed("BTC")
    upbit.on_connected(SOCKET, 1, 0)
    for n in range(50):
        give(upbit, b"x" * 10_000 + bytes([n]))
    give(upbit, '{"type":"candle.1s"}')
    give(upbit, '{"error":{"name":"NO_CODES","message":"none"}}')
    give(upbit, '{"status":"UP"}')
    give(upbit, book("DOGE", 1, 1))
    counters = upbit.counters
    assert (counters.frames, counters.malformed, counters.unlisted) == (54, 50, 1)
    assert counters.unknown == {"candle.1s": 1}
    assert counters.venue_errors == 1
    complaints = counters.take_complaints()
    assert len(complaints) == 20
    assert all(len(each.excerpt) <= 200 for each in complaints)
    assert complaints[-1].problem == "NO_CODES"
    assert counters.take_complaints() == ()
    assert len(give(upbit, book("BTC", 100, 5)).books) == 1


def test_names_of_unknown_types_are_bounded() -> None:
    upbit = feed("BTC")
    upbit.on_connected(SOCKET, 1, 0)
    for n in range(1_000):
        give(upbit, json.dumps({"type": f"kind{n}"}))
    assert len(upbit.counters.unknown) <= 65
    assert upbit.counters.unknown.total() == 1_000


def test_a_silent_code_is_asked_for_once_more_with_the_full_list() -> None:
    upbit = feed("BTC", "NOPE", silent_after_s=10)
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 5))
    assert upbit.on_tick(9 * S).effects == ()
    (effect,) = upbit.on_tick(11 * S).effects
    assert isinstance(effect, Resubscribe)
    assert effect.messages == upbit.subscribe_messages(SOCKET)
    assert "KRW-NOPE" in effect.reason
    assert upbit.on_tick(12 * S).effects == ()
    assert upbit.silent(12 * S) == ("KRW-NOPE",)


def test_a_socket_that_pongs_but_brings_nothing_is_replaced_once() -> None:
    upbit = feed("BTC", dry_after_s=60)
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 5), now_s=1)
    give(upbit, '{"status":"UP"}', now_s=61)
    effects = upbit.on_tick(62 * S).effects
    assert effects == (Rotate(SOCKET, 1, "no data for 60 s"),)
    assert upbit.on_tick(63 * S).effects == ()


def test_a_pong_keeps_the_connection_fresh() -> None:
    upbit = feed("BTC", "ETH")
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 5), now_s=1)
    upbit.on_alive(SOCKET, 1, 100 * S)
    (alive,) = upbit.alive(101 * S)
    assert (alive.is_up, alive.age_ns) == (True, S)


def test_a_lost_connection_takes_its_books_away_and_starts_afresh() -> None:
    upbit = feed("BTC")
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 50))
    (voided,) = upbit.on_disconnected(SOCKET, 1, 2 * S).books
    assert (voided.bids, voided.asks) == ((), ())
    assert not upbit.alive(2 * S)[0].is_up
    assert give(upbit, book("BTC", 100, 60), connection=1).books == ()  # from the dead socket
    upbit.on_connected(SOCKET, 2, 3 * S)
    # The snapshot's stamp is the book's last change, before the cut: it must be taken.
    assert len(give(upbit, book("BTC", 100, 40, "SNAPSHOT"), connection=2).books) == 1


def test_a_rotation_by_overlap_keeps_the_books_that_the_successor_delivered() -> None:
    upbit = feed("BTC", "ETH")
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, 50))
    give(upbit, book("ETH", 10, 50))
    upbit.on_connected(SOCKET, 2, 5 * S)
    give(upbit, book("BTC", 101, 60, "SNAPSHOT"), connection=2)
    assert give(upbit, book("BTC", 100, 55), connection=1).books == ()  # the old one lags
    voided = upbit.on_disconnected(SOCKET, 1, 6 * S).books
    assert [change.instrument for change in voided] == ["upbit:ETH-KRW"]


def test_the_clock_is_read_from_realtime_frames_only() -> None:
    upbit = feed("BTC")
    upbit.on_connected(SOCKET, 1, 0)
    give(upbit, book("BTC", 100, WALL // 1_000_000 + 9_000, "SNAPSHOT"))
    assert upbit.clock().samples == 0
    give(upbit, book("BTC", 100, WALL // 1_000_000 + 9_250))
    assert upbit.clock().offset_ms == 9_250
