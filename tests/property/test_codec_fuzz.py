"""No bytes whatever bring a codec to raise anything but MalformedFrame."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arb_ray.adapters.venues.binance import codec as binance
from arb_ray.adapters.venues.binance import rules as binance_rules
from arb_ray.adapters.venues.binance.feed import BinanceFeed
from arb_ray.adapters.venues.upbit import codec as upbit
from arb_ray.adapters.venues.upbit import rules as upbit_rules
from arb_ray.adapters.venues.upbit.feed import UpbitFeed
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Instrument, InstrumentId, Kind, Venue, VenueSymbol
from arb_ray.domain.money import Asset
from arb_ray.engine.feed import FeedOptions, VenueFeed
from arb_ray.engine.market_event import BookDiff, FullBook, TopOfBook, TradePrint

X = VenueSymbol("XUSDT")
EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FRAMES = [
    (
        '{"stream":"xusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"XUSDT","U":1,'
        '"u":3,"pu":0,"b":[["61737.63","0.0"],["61730.17","1.5"]],"a":[["61837.64","1.54698000"]]}}'
    ),
    '{"stream":"xusdt@depth20@100ms","data":{"lastUpdateId":7,"bids":[["9","1"]],"asks":[]}}',
    '{"stream":"xusdt@bookTicker","data":{"u":4,"s":"XUSDT","b":"1","B":"2","a":"3","A":"4"}}',
    '{"e":"trade","E":3,"s":"XUSDT","t":5,"p":"1.5","q":"2","T":2,"m":true,"X":"MARKET"}',
    '{"e":"markPriceUpdate","E":3,"s":"XUSDT","p":"1.5","r":"-0.0001","T":9}',
    '{"code":2,"msg":"bad","id":1}',
    '{"result":null,"id":1}',
    '{"lastUpdateId":7,"E":1,"T":1,"bids":[["9","1"]],"asks":[["10","1"]]}',
    (
        '{"symbols":[{"symbol":"X","status":"TRADING","baseAsset":"X","quoteAsset":"Y","filters":'
        '[{"filterType":"LOT_SIZE","stepSize":"1","minQty":"1","maxQty":"5"},'
        '{"filterType":"PRICE_FILTER","tickSize":"1"}]}]}'
    ),
    (
        '{"type":"orderbook","code":"KRW-X","timestamp":1790134742106,"orderbook_units":[{"ask_price":'
        '1.16539E8,"bid_price":1.16538E8,"ask_size":0.02,"bid_size":0.08}],"stream_type":"SNAPSHOT"}'
    ),
    '{"ty":"trade","cd":"KRW-X","tms":1,"ttms":1,"tp":127.0,"tv":46.4,"ab":"BID","sid":1,"st":""}',
    '[{"ty":"ticker","cd":"KRW-X","tms":1,"tp":1.0},{"error":{"name":"A","message":"b"}}]',
    '[{"market":"KRW-X","tick_size":"1","market_event":{"warning":false,"caution":{"A":true}}}]',
    '{"status":"UP"}',
]

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        2**63,
        10**400,
        1e308,
        -0.0,
        "",
        "nan",
        "inf",
        "-1",
        "1e400",
        "\x00",
        [],
        {},
    ]
)


def instrument(venue: Venue, symbol: str) -> Instrument:
    ident = InstrumentId(f"{venue}:X")
    return Instrument(ident, Asset("X"), Asset("Q"), venue, Kind.SPOT, VenueSymbol(symbol))


READERS: list[Callable[[Any], object]] = [
    upbit.decode,
    upbit_rules.parse_markets,
    upbit_rules.parse_ticks,
    *(
        lambda raw, v=venue: binance.decode(raw, v)
        for venue in (Venue.BINANCE_SPOT, Venue.BINANCE_USDM)
    ),
    lambda raw: binance.decode_snapshot(raw, X, Venue.BINANCE_SPOT),
    lambda raw: binance_rules.parse_exchange_info(raw, Venue.BINANCE_SPOT),
]


def read_by_all(raw: bytes | str) -> None:
    for reader in READERS:
        with contextlib.suppress(MalformedFrame):
            reader(raw)


@st.composite
def cut_and_flipped(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(st.sampled_from(FRAMES)).encode())
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(raw) - 1))
        match draw(st.sampled_from(["flip", "cut", "repeat", "insert"])):
            case "flip":
                raw[place] = draw(st.integers(0, 255))
            case "cut":
                del raw[place : place + draw(st.integers(1, 20))]
            case "repeat":
                raw[place:place] = raw[place : place + draw(st.integers(1, 40))]
            case _:
                raw[place:place] = draw(st.binary(max_size=8))
        raw = raw or bytearray(b"{")
    return bytes(raw)


def outcome(reader: Callable[[Any], object], raw: bytes | str) -> object:
    try:
        return reader(raw)
    except MalformedFrame as fault:
        return fault.venue, fault.problem


@EXAMPLES
@given(st.data())
def test_the_short_way_of_bytes_says_what_the_long_way_of_text_says(data):
    changed = data.draw(st.one_of(cut_and_flipped(), changed_value(compact=True)))
    raw = changed.encode() if isinstance(changed, str) else changed
    text = raw.decode("utf-8", "replace")
    if text.encode() != raw:
        return  # text cannot say it
    for reader in READERS:
        assert outcome(reader, raw) == outcome(reader, text)


@pytest.mark.parametrize("stream", ["xusdt@bookTxusdt@bookTicker", "@x@bookTicker", "x@x@depth@"])
def test_the_channel_is_what_follows_the_first_at_sign(stream):
    raw = f'{{"stream":"{stream}","data":{{"u":4,"s":"XUSDT","b":"1","B":"2","a":"3","A":"4"}}}}'
    for venue in (Venue.BINANCE_SPOT, Venue.BINANCE_USDM):
        short = outcome(lambda one, v=venue: binance.decode(one, v), raw.encode())
        assert short == outcome(lambda one, v=venue: binance.decode(one, v), raw)


def test_every_frame_that_comes_often_takes_the_short_way(monkeypatch):
    def long_way(*_: object) -> object:
        raise AssertionError("the long way")

    monkeypatch.setattr(binance, "_decode", long_way)
    monkeypatch.setattr(upbit, "_decode_one", long_way)
    short = [frame.encode() for frame in FRAMES if "@" in frame]
    assert [type(binance.decode(raw, Venue.BINANCE_SPOT)[0]) for raw in short] == [
        BookDiff,
        FullBook,
        TopOfBook,
    ]
    (book,) = [frame for frame in FRAMES if "orderbook" in frame]
    assert isinstance(upbit.decode(book.encode())[0], FullBook)


@st.composite
def changed_value(draw: st.DrawFn, *, compact: bool = False) -> str:
    message = json.loads(draw(st.sampled_from(FRAMES)))
    parent, key = message, None
    for _ in range(draw(st.integers(1, 6))):
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if not isinstance(parent[key], dict | list):
            break
        if draw(st.booleans()):
            parent = parent[key]
            key = None
    if key is not None:
        if isinstance(parent, dict) and draw(st.booleans()):
            del parent[key]
        else:
            parent[key] = draw(ODD)
    return json.dumps(message, separators=(",", ":") if compact else None)


@EXAMPLES
@given(st.binary(max_size=200) | st.text(max_size=200))
@example(b"[" * 100_000)
@example(b'{"data":' * 50_000)
@example('"\ud800"')
@example(b'{"e":"\xff"}')
@example(b"9" * 10_000)
def test_arbitrary_bytes_are_read_or_malformed(raw: bytes | str) -> None:
    read_by_all(raw)


@EXAMPLES
@given(cut_and_flipped())
def test_damaged_frames_are_read_or_malformed(raw: bytes) -> None:
    read_by_all(raw)


def assert_levels_can_be(levels: Any) -> None:
    for price, size in levels:
        assert 0 < price <= 1e15
        assert 0 <= size <= 1e15


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changed_value())
def test_what_is_read_from_a_changed_frame_can_be(raw: str) -> None:
    read_by_all(raw)
    events: list[Any] = []
    for decode in (upbit.decode, lambda r: binance.decode(r, Venue.BINANCE_USDM)):
        with contextlib.suppress(MalformedFrame):
            events.extend(decode(raw))
    for event in events:
        match event:
            case BookDiff() | FullBook():
                assert_levels_can_be(event.bids)
                assert_levels_can_be(event.asks)
                assert event.exchange_ns >= 0
            case TopOfBook():
                assert 0 <= event.bid <= 1e15
                assert 0 <= event.ask <= 1e15
            case TradePrint():
                assert event.price > 0
                assert event.qty > 0
                assert math.isfinite(event.price * event.qty)
            case _:
                pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(cut_and_flipped() | changed_value() | st.sampled_from(FRAMES), max_size=30))
def test_a_feed_lives_through_any_frames(frames: list[bytes | str]) -> None:
    spot, krw = Venue.BINANCE_SPOT, Venue.UPBIT
    feeds: list[VenueFeed] = [
        BinanceFeed(spot, FeedOptions(instruments=(instrument(spot, "XUSDT"),))),
        UpbitFeed(FeedOptions(instruments=(instrument(krw, "KRW-X"),))),
    ]
    for feed in feeds:
        feed.on_connected(0, 1, 0)
        for n, raw in enumerate(frames):
            output = feed.on_frame(0, 1, raw, n, n)
            feed.on_tick(n * 1_000_000_000)
            for book in output.books:
                assert len(book.bids) <= 15
                assert len(book.asks) <= 15
        assert feed.counters.frames == len(frames)
