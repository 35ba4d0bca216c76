from __future__ import annotations

import json

import pytest

from arb_ray.adapters.venues.binance import codec
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.domain.money import Side
from arb_ray.engine.market_event import (
    BookDiff,
    ControlReply,
    FullBook,
    MarkPrice,
    ServerShutdown,
    TopOfBook,
    TradePrint,
    UnknownMessage,
    VenueError,
)

MS = 1_000_000
SPOT, USDM = Venue.BINANCE_SPOT, Venue.BINANCE_USDM

SPOT_TICKER = {"u": 400, "s": "BTCUSDT", "b": "61837.63", "B": "3.7", "a": "61837.64", "A": "1.5"}
USDM_TICKER = {"e": "bookTicker", **SPOT_TICKER, "T": 1785121247583, "E": 1785121247584}
SPOT_DIFF = {
    "e": "depthUpdate",
    "E": 1723161255208,
    "s": "BTCUSDT",
    "U": 189,
    "u": 202,
    "b": [["61737.63000000", "0.00000000"]],
    "a": [["61837.64000000", "1.54698000"]],
}
USDM_DIFF = {**SPOT_DIFF, "T": 1723161255205, "pu": 150}
PARTIAL = {"lastUpdateId": 7, "bids": [["9", "1"], ["8", "2"]], "asks": [["10", "1"], ["11", "2"]]}
SPOT_TRADE = {"e": "trade", "E": 3, "s": "BTCUSDT", "t": 5, "p": "1.5", "q": "2", "T": 2, "m": True}
AGG_TRADE = {
    "e": "aggTrade",
    "E": 3,
    "a": 6,
    "s": "BTCUSDT",
    "p": "1.5",
    "q": "2",
    "T": 2,
    "m": False,
}
MARK = {
    "e": "markPriceUpdate",
    "E": 3,
    "s": "BTCUSDT",
    "p": "1.5",
    "r": "-0.0001",
    "T": 9,
    "i": "1",
}


def one(payload: object, venue: Venue = SPOT, stream: str = "") -> object:
    message = {"stream": stream, "data": payload} if stream else payload
    raw = message if isinstance(message, bytes | str) else json.dumps(message).encode()
    (event,) = codec.decode(raw, venue)
    return event


@pytest.mark.parametrize("stream", ["", "btcusdt@bookTicker"])
def test_spot_book_ticker_is_known_without_an_event_name(stream: str) -> None:
    event = one(SPOT_TICKER, SPOT, stream)
    assert event == TopOfBook(VenueSymbol("BTCUSDT"), 400, 61837.63, 3.7, 61837.64, 1.5, 0)


@pytest.mark.parametrize("added", [{}, {"ps": "BTCUSDT", "st": 1}])
def test_usdm_book_ticker_is_read_with_and_without_the_fields_of_2026(
    added: dict[str, object],
) -> None:
    event = one({**USDM_TICKER, **added}, USDM, "btcusdt@bookTicker")
    assert isinstance(event, TopOfBook)
    assert event.exchange_ns == 1785121247584 * MS


@pytest.mark.parametrize("channel", ["depth", "depth@0ms", "depth@100ms", "depth@500ms"])
def test_a_diff_is_told_by_the_name_of_its_stream(channel: str) -> None:
    event = one(USDM_DIFF, USDM, f"btcusdt@{channel}")
    assert isinstance(event, BookDiff)
    assert (event.first_id, event.last_id, event.prev_last_id) == (189, 202, 150)
    assert event.bids == ((61737.63, 0.0),)


@pytest.mark.parametrize("channel", ["depth5", "depth10@100ms", "depth20@100ms"])
def test_usdm_partial_depth_is_a_whole_book_although_it_looks_like_a_diff(channel: str) -> None:
    payload = {**USDM_DIFF, "b": [["9", "1"]], "a": [["10", "1"]]}
    event = one(payload, USDM, f"btcusdt@{channel}")
    assert isinstance(event, FullBook)
    assert (event.update_id, event.is_snapshot) == (202, False)
    assert event.exchange_ns == 1723161255208 * MS


def test_spot_partial_depth_takes_its_symbol_from_the_stream() -> None:
    event = one(PARTIAL, SPOT, "btcusdt@depth20@100ms")
    assert isinstance(event, FullBook)
    assert (event.venue_symbol, event.update_id, event.exchange_ns) == ("BTCUSDT", 7, 0)


def test_spot_partial_depth_without_a_stream_is_of_no_use_and_counted() -> None:
    assert isinstance(one(PARTIAL), UnknownMessage)


def test_a_bare_diff_is_read_by_its_event_name() -> None:
    event = one(SPOT_DIFF)
    assert isinstance(event, BookDiff)
    assert event.prev_last_id is None


@pytest.mark.parametrize("stream", ["", "btcusdt@trade"])
def test_m_true_means_that_the_seller_was_the_taker(stream: str) -> None:
    event = one(SPOT_TRADE, SPOT, stream)
    assert isinstance(event, TradePrint)
    assert event.taker_side is Side.SELL
    assert not event.is_aggregate


def test_aggregate_trades_are_marked_as_such() -> None:
    event = one(AGG_TRADE, USDM, "btcusdt@aggTrade")
    assert isinstance(event, TradePrint)
    assert (event.trade_id, event.is_aggregate, event.taker_side) == (6, True, Side.BUY)


def test_usdm_prints_that_are_no_market_trades_are_not_trades() -> None:
    payload = {**SPOT_TRADE, "X": "INSURANCE_FUND", "p": "0"}
    assert one(payload, USDM, "btcusdt@trade") == UnknownMessage("trade:INSURANCE_FUND")


def test_the_mark_price_carries_a_signed_funding_rate_and_the_next_time() -> None:
    event = one(MARK, USDM, "btcusdt@markPrice@1s")
    assert event == MarkPrice(VenueSymbol("BTCUSDT"), 1.5, -0.0001, 9 * MS, 3 * MS)


@pytest.mark.parametrize(
    "raw",
    [
        '{"e":"serverShutdown","E":5}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":5}}',
    ],
)
def test_a_shutdown_is_known_in_both_forms(raw: str) -> None:
    assert one(raw) == ServerShutdown(5 * MS)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"result":null,"id":1}', ControlReply("1", ok=True, text="null")),
        ('{"result":["a@trade"],"id":"x"}', ControlReply("x", ok=True, text='["a@trade"]')),
        ('{"code":2,"msg":"bad","id":7}', ControlReply("7", ok=False, text="2: bad")),
        ('{"error":{"code":2,"msg":"bad"},"id":7}', ControlReply("7", ok=False, text="2: bad")),
        ('{"code":0,"msg":"bad"}', VenueError("0", "bad")),
        ('{"stream":"a@kline_1m","data":{"e":"kline"}}', UnknownMessage("kline")),
        ('{"stream":"!markPrice@arr","data":[{}]}', UnknownMessage("!markPrice@arr")),
        ('{"e":"newThing"}', UnknownMessage("newThing")),
        ("{}", UnknownMessage("(no type)")),
    ],
)
def test_other_messages_are_told_apart(raw: str, expected: object) -> None:
    assert one(raw) == expected


def test_a_snapshot_reply_is_a_whole_book_of_the_symbol_that_was_asked_for() -> None:
    book = codec.decode_snapshot(json.dumps({**PARTIAL, "E": 4}), VenueSymbol("ETHUSDT"), USDM)
    assert book.is_snapshot
    assert (book.venue_symbol, book.update_id, book.exchange_ns) == ("ETHUSDT", 7, 4 * MS)


@pytest.mark.parametrize(
    ("payload", "stream"),
    [
        (b"", ""),
        (b"pong", ""),
        (b"[1]", ""),
        (b"\xff", ""),
        (b'{"a":' * 100_000, ""),
        ('"\ud800"', ""),
        ({**SPOT_TICKER, "b": "nan"}, "btcusdt@bookTicker"),
        ({**SPOT_TICKER, "b": "inf"}, "btcusdt@bookTicker"),
        ({**SPOT_TICKER, "B": "-1"}, "btcusdt@bookTicker"),
        ({**SPOT_TICKER, "u": -1}, "btcusdt@bookTicker"),
        ({**SPOT_TICKER, "u": 2**70}, "btcusdt@bookTicker"),
        ({**SPOT_DIFF, "U": 203}, "btcusdt@depth@100ms"),
        ({**USDM_DIFF, "pu": 203}, "btcusdt@depth@100ms"),
        ({**SPOT_DIFF, "b": [["1"]]}, "btcusdt@depth@100ms"),
        ({**SPOT_DIFF, "b": [["0", "1"]]}, "btcusdt@depth@100ms"),
        ({**SPOT_DIFF, "b": [["1e400", "1"]]}, "btcusdt@depth@100ms"),
        ({**SPOT_DIFF, "E": 10**30}, "btcusdt@depth@100ms"),
        ({**PARTIAL, "bids": [["8", "1"], ["9", "1"]]}, "btcusdt@depth5"),
        ({**PARTIAL, "asks": [["11", "1"], ["10", "1"]]}, "btcusdt@depth5"),
        ({**SPOT_TRADE, "q": "0"}, "btcusdt@trade"),
        ({**MARK, "r": "7"}, "btcusdt@markPrice"),
        (None, "btcusdt@bookTicker"),
    ],
)
def test_what_the_protocol_does_not_allow_is_malformed(payload: object, stream: str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        one(payload, SPOT, stream)
    assert len(caught.value.excerpt) <= 200
    assert caught.value.venue == SPOT


def test_an_error_in_the_place_of_a_snapshot_is_malformed() -> None:
    with pytest.raises(MalformedFrame):
        codec.decode_snapshot('{"code":-1121,"msg":"Invalid symbol."}', VenueSymbol("X"), SPOT)


def test_every_event_has_the_venues_own_name() -> None:
    events = [
        one(SPOT_TICKER),
        one(SPOT_DIFF),
        one(PARTIAL, SPOT, "a@depth5"),
        one(SPOT_TRADE),
        one(AGG_TRADE),
        one(MARK, USDM),
        one('{"result":null,"id":1}'),
    ]
    names = [codec.kind_of(event) for event in events]  # type: ignore[arg-type]
    assert names == [
        "bookTicker",
        "depthUpdate",
        "partialDepth",
        "trade",
        "aggTrade",
        "markPriceUpdate",
        "reply",
    ]


@pytest.mark.parametrize("side", ["bids", "asks"])
def test_an_empty_level_of_a_whole_book_is_left_out_on_either_side(side):
    levels = {"bids": [["10", "1"], ["9", "2"]], "asks": [["11", "1"], ["12", "2"]]}
    price = {"bids": "9.5", "asks": "11.5"}[side]
    wanted = codec.decode_snapshot(json.dumps({"lastUpdateId": 1, **levels}), "BTCUSDT", SPOT)
    levels[side] = [levels[side][0], [price, "0"], levels[side][1]]
    read = codec.decode_snapshot(json.dumps({"lastUpdateId": 1, **levels}), "BTCUSDT", SPOT)
    assert read == wanted
    levels[side].reverse()
    with pytest.raises(MalformedFrame, match="not sorted"):
        codec.decode_snapshot(json.dumps({"lastUpdateId": 1, **levels}), "BTCUSDT", SPOT)
