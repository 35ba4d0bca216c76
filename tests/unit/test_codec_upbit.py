from __future__ import annotations

import json

import pytest

from arb_ray.adapters.venues.upbit import codec
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.money import Side
from arb_ray.engine.market_event import (
    ControlReply,
    FullBook,
    Status,
    Ticker,
    TradePrint,
    UnknownMessage,
    VenueError,
)

MS = 1_000_000

BOOK = {
    "type": "orderbook",
    "code": "KRW-BTC",
    "timestamp": 1790134742106,
    "total_ask_size": 2.5,
    "total_bid_size": 1.6,
    "orderbook_units": [
        {"ask_price": 1.16539e8, "bid_price": 1.16538e8, "ask_size": 0.02, "bid_size": 0.08},
        {"ask_price": 1.16542e8, "bid_price": 1.16537e8, "ask_size": 0.0007, "bid_size": 0.01},
    ],
    "stream_type": "SNAPSHOT",
    "level": 0,
}
SIMPLE_BOOK = (
    b'{"ty":"orderbook","cd":"KRW-BTC","tms":1790134773006,"tas":0.4,"tbs":2.2,"obu":['
    b'{"ap":116606000,"bp":116534000,"as":0.06288509,"bs":7.9276E-4},'
    b'{"ap":116609000,"bp":116521000,"as":5.0E-4,"bs":0.01624318}],"st":"REALTIME","lv":0}'
)
TRADE = {
    "type": "trade",
    "code": "KRW-BTC",
    "timestamp": 1788335180423,
    "trade_timestamp": 1788335180377,
    "trade_price": 106691000.0,
    "trade_volume": 0.00009372,
    "ask_bid": "ASK",
    "sequential_id": 17883351803770004,
    "stream_type": "SNAPSHOT",
}


def one(message: object) -> object:
    raw = message if isinstance(message, bytes | str) else json.dumps(message).encode()
    (event,) = codec.decode(raw)
    return event


def changed(base: dict[str, object], **changes: object) -> dict[str, object]:
    return {**base, **changes}


def units(*rows: tuple[float, float, float, float]) -> list[dict[str, float]]:
    names = ("ask_price", "bid_price", "ask_size", "bid_size")
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_a_default_book_is_read_with_exponent_prices() -> None:
    raw = json.dumps(BOOK).replace("116539000.0", "1.16539E8").encode()
    assert b"1.16539E8" in raw
    book = one(raw)
    assert isinstance(book, FullBook)
    assert book.venue_symbol == "KRW-BTC"
    assert book.asks[0] == (116_539_000.0, 0.02)
    assert book.bids[0] == (116_538_000.0, 0.08)
    assert book.is_snapshot
    assert book.exchange_ns == 1790134742106 * MS


def test_a_simple_book_is_the_same_book_under_short_keys() -> None:
    book = one(SIMPLE_BOOK)
    assert isinstance(book, FullBook)
    assert book.bids == ((116_534_000.0, 7.9276e-4), (116_521_000.0, 0.01624318))
    assert book.asks == ((116_606_000.0, 0.06288509), (116_609_000.0, 5.0e-4))
    assert not book.is_snapshot


@pytest.mark.parametrize("message", [json.dumps(BOOK), SIMPLE_BOOK.decode()])
def test_list_formats_give_each_message_in_order(message: str) -> None:
    events = codec.decode(f"[{message},{json.dumps(TRADE)}]")
    assert [type(event) for event in events] == [FullBook, TradePrint]


def test_a_frame_is_read_as_text_or_as_bytes() -> None:
    assert codec.decode(SIMPLE_BOOK) == codec.decode(SIMPLE_BOOK.decode())


def test_padded_zero_levels_are_dropped() -> None:
    book = one(changed(BOOK, orderbook_units=units((10, 9, 1, 1), (11, 0, 1, 0), (0, 0, 0, 0))))
    assert isinstance(book, FullBook)
    assert book.bids == ((9.0, 1.0),)
    assert book.asks == ((10.0, 1.0), (11.0, 1.0))


def test_a_count_suffix_is_no_part_of_the_code() -> None:
    book = one(changed(BOOK, code="KRW-BTC.15"))
    assert isinstance(book, FullBook)
    assert book.venue_symbol == "KRW-BTC"


def test_microsecond_stamps_are_recognised() -> None:
    book = one(changed(BOOK, timestamp=1790134742106123))
    assert isinstance(book, FullBook)
    assert book.exchange_ns == 1790134742106123 * 1_000


def test_a_book_of_2021_without_level_and_stream_type_is_read() -> None:
    old = {key: value for key, value in BOOK.items() if key not in ("level", "stream_type")}
    assert isinstance(one(old), FullBook)


def test_a_trade_keeps_an_id_beyond_two_to_the_53() -> None:
    trade = one(TRADE)
    assert isinstance(trade, TradePrint)
    assert trade.trade_id == 17883351803770004
    assert one(changed(TRADE, sequential_id=17883351803770005)).trade_id == 17883351803770005  # type: ignore[attr-defined]


def test_bid_means_that_the_buyer_was_the_taker() -> None:
    assert one(changed(TRADE, ask_bid="BID")).taker_side is Side.BUY  # type: ignore[attr-defined]
    assert one(TRADE).taker_side is Side.SELL  # type: ignore[attr-defined]


def test_a_simple_trade_of_2021_is_read() -> None:
    raw = (
        b'{"ty":"trade","cd":"KRW-LAMB","tms":1618678262712,"td":"2021-04-17","ttm":"16:51:02",'
        b'"ttms":1618678262000,"tp":127.0,"tv":46.48838371,"ab":"BID","pcp":123.00000000,'
        b'"c":"RISE","cp":4.00000000,"sid":1618678262000003,"st":"REALTIME"}'
    )
    trade = one(raw)
    assert isinstance(trade, TradePrint)
    assert (trade.price, trade.qty) == (127.0, 46.48838371)
    assert trade.trade_ns == 1618678262000 * MS


def test_both_ticker_formats_are_read() -> None:
    long = {"type": "ticker", "code": "KRW-BTC", "timestamp": 1, "trade_price": 5.0}
    long |= {"acc_trade_price_24h": 1e11, "market_state": "ACTIVE"}
    short = {"ty": "ticker", "cd": "KRW-BTC", "tms": 1, "tp": 5.0, "atp24h": 1e11, "ms": "ACTIVE"}
    expected = Ticker("KRW-BTC", 5.0, 1e11, "ACTIVE", MS)  # type: ignore[arg-type]
    assert one(long) == one(short) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"status":"UP"}', Status("UP")),
        (
            '{"error":{"message":"nope","name":"INVALID_PARAM"}}',
            VenueError("INVALID_PARAM", "nope"),
        ),
        (
            '{"method":"LIST_SUBSCRIPTIONS","result":[],"ticket":"t"}',
            ControlReply("t", ok=True, text="LIST_SUBSCRIPTIONS"),
        ),
        (
            '{"mthd":"LIST_SUBSCRIPTIONS","rslt":[],"tckt":"t"}',
            ControlReply("t", ok=True, text="LIST_SUBSCRIPTIONS"),
        ),
        ('{"type":"candle.1s","code":"KRW-BTC"}', UnknownMessage("candle.1s")),
        ("{}", UnknownMessage("(no type)")),
    ],
)
def test_other_messages_are_told_apart(raw: str, expected: object) -> None:
    assert one(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"PONG",
        b"null",
        b"\xff\xfe{}",
        b"[" * 100_000,
        '"\ud800"',
        b"[[]]",
        b'{"type":"orderbook"}',
        json.dumps(changed(BOOK, timestamp=-1)).encode(),
        json.dumps(changed(BOOK, timestamp="soon")).encode(),
        json.dumps(changed(BOOK, orderbook_units=units((10, 9, -1, 1)))).encode(),
        json.dumps(changed(BOOK, orderbook_units=units((1e16, 9, 1, 1)))).encode(),
        json.dumps(changed(BOOK, orderbook_units=units((10, 9, 1, 1), (10, 8, 1, 1)))).encode(),
        json.dumps(changed(BOOK, orderbook_units=units((10, 8, 1, 1), (11, 9, 1, 1)))).encode(),
        json.dumps(changed(BOOK, orderbook_units=units((0, 9, 1, 1)))).encode(),
        json.dumps(changed(TRADE, trade_price=float("nan"))).encode(),
        json.dumps(changed(TRADE, trade_price=0)).encode(),
        json.dumps(changed(TRADE, ask_bid="BOTH")).encode(),
        json.dumps([{"status": "UP"}] * 1_001).encode(),
    ],
)
def test_what_the_protocol_does_not_allow_is_malformed(raw: bytes | str) -> None:
    with pytest.raises(MalformedFrame) as caught:
        codec.decode(raw)
    assert len(caught.value.excerpt) <= 200
    assert len(caught.value.problem) <= 200


def test_every_event_has_a_name() -> None:
    names = [codec.kind_of(one(message)) for message in (BOOK, TRADE, {"status": "UP"}, {})]  # type: ignore[arg-type]
    assert names == ["orderbook", "trade", "status", "unknown"]
