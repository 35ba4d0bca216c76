"""Of what one turn reads, the newest frame of each book is worked off, and every diff."""

import pytest

from arb_ray.adapters.venues.binance import codec as binance
from arb_ray.adapters.venues.upbit import codec as upbit
from arb_ray.engine.frame_intake import FrameIntake


def book_of(raw):
    return raw[:1] if raw[:1].isalpha() else None


def taken(intake):
    return [(one.connection, one.raw, one.overwrote) for one in intake.take()]


def test_the_newest_frame_of_a_book_stands_behind_what_came_before_it():
    intake = FrameIntake(book_of)
    for raw in (b"a1", b"1diff", b"b1", b"a2", b"2diff", b"a3"):
        intake.put(0, 1, raw, 0, 0)
    assert intake.waiting == 4
    assert taken(intake) == [(1, b"1diff", 0), (1, b"b1", 0), (1, b"2diff", 0), (1, b"a3", 2)]
    assert intake.conflated == 2
    assert taken(intake) == []


def test_connections_do_not_overwrite_each_other():
    intake = FrameIntake(book_of)
    intake.put(0, 1, b"a1", 0, 0)
    intake.put(0, 2, b"a1", 0, 0)
    assert taken(intake) == [(1, b"a1", 0), (2, b"a1", 0)]


@pytest.mark.parametrize(
    ("raw", "book"),
    [
        (b'{"stream":"btcusdt@bookTicker","data":{}}', b"btcusdt@bookTicker"),
        (b'{"stream":"btcusdt@depth20@100ms","data":{}}', b"btcusdt@depth20@100ms"),
        (b'{"stream":"btcusdt@depth5","data":{}}', b"btcusdt@depth5"),
        (b'{"stream":"btcusdt@depth@100ms","data":{}}', None),
        (b'{"stream":"btcusdt@depth","data":{}}', None),
        (b'{"stream":"btcusdt@trade","data":{}}', None),
        (b'{"stream":"btcusdt@markPrice@1s","data":{}}', None),
        (b'{"stream":"!serverShutdown","data":{}}', None),
        (b'{"u":1,"s":"BTCUSDT"}', None),
        (b'{"stream":"', None),
        (b"", None),
    ],
)
def test_only_streams_of_whole_books_name_one_at_binance(raw, book):
    assert binance.whole_book_of(raw) == book


@pytest.mark.parametrize(
    ("raw", "book"),
    [
        (b'{"ty":"orderbook","cd":"KRW-BTC","tms":1}', b"KRW-BTC"),
        (b'{"type":"orderbook","code":"KRW-BTC","timestamp":1}', b"KRW-BTC"),
        (b'{"ty":"trade","cd":"KRW-BTC"}', None),
        (b'[{"ty":"orderbook","cd":"KRW-BTC"}]', None),
        (b'{"status":"UP"}', None),
    ],
)
def test_only_order_books_name_one_at_upbit(raw, book):
    assert upbit.whole_book_of(raw) == book
