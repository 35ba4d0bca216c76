"""
Upbit's frames, parsed (docs.upbit.com v1.6.4; SDK 1.1.0).

Frames are binary and hold plain UTF-8 JSON, in long keys (DEFAULT), short keys (SIMPLE), or
arrays of either (JSON_LIST, SIMPLE_LIST); the four are told apart by looking. Numbers are
JSON numbers in any spelling (``1.16539E8``, ``93332000``, ``7.9276E-4``).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from arb_ray.adapters.venues.upbit.endpoints import VENUE
from arb_ray.domain.book import Levels
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import VenueSymbol
from arb_ray.domain.money import Side
from arb_ray.engine.market_event import (
    ControlReply,
    FullBook,
    MarketEvent,
    Status,
    Ticker,
    TradePrint,
    UnknownMessage,
    VenueError,
)

MAX_EVENTS_PER_FRAME = 1_000
"""A list frame holds what one moment brought; the whole exchange is about 855 codes."""

MICROSECONDS_FROM = 10**14
"""A stamp above this is in microseconds: as milliseconds it would be the year 5138."""

# NaN and infinity fail the bounds too. No price or size of any coin comes near 1e15.
_Price = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
_Padded = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Sum = Annotated[float, msgspec.Meta(ge=0, le=1e20)]
_Stamp = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]  # sequential_id exceeds 2^53
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_StreamType = Literal["SNAPSHOT", "REALTIME", ""]

_BEYOND = 1e16  # above every price that the bounds let through

_ABSENT = msgspec.Raw()

_BOOK_HEADS = (b'{"ty":"orderbook","cd":"', b'{"type":"orderbook","code":"')
CODE_CHARS_MAX = 64

T = TypeVar("T")


class _Head(msgspec.Struct):
    """Just enough to tell what a message is; either spelling of each key."""

    type: str = ""
    ty: str = ""
    status: str | None = None
    error: msgspec.Raw = _ABSENT
    method: str = ""
    mthd: str = ""


class _Unit(msgspec.Struct, gc=False):
    ask_price: _Padded
    bid_price: _Padded
    ask_size: _Padded
    bid_size: _Padded


class _Orderbook(msgspec.Struct, gc=False):
    code: _Name
    timestamp: _Stamp
    orderbook_units: tuple[_Unit, ...]
    stream_type: _StreamType = ""


class _Frame(_Orderbook, gc=False):
    """A frame that begins as a book's: the type is looked at once more, a complaint goes first."""

    type: Literal["orderbook"] = "orderbook"
    error: msgspec.Raw = _ABSENT


class _Trade(msgspec.Struct):
    code: _Name
    timestamp: _Stamp
    trade_timestamp: _Stamp
    trade_price: _Price
    trade_volume: _Price
    ask_bid: Literal["ASK", "BID"]
    sequential_id: _Id
    stream_type: _StreamType = ""


class _Ticker(msgspec.Struct):
    code: _Name
    timestamp: _Stamp
    trade_price: _Price
    acc_trade_price_24h: _Sum = 0.0
    market_state: str = ""
    stream_type: _StreamType = ""


class _Error(msgspec.Struct):
    name: str = ""
    message: str = ""


class _Reply(msgspec.Struct):
    ticket: str = ""
    tckt: str = ""


# The same three under SIMPLE's keys. Inherited fields would keep their long ones.


class _SimpleUnit(msgspec.Struct, gc=False):
    ask_price: _Padded = msgspec.field(name="ap")
    bid_price: _Padded = msgspec.field(name="bp")
    ask_size: _Padded = msgspec.field(name="as")
    bid_size: _Padded = msgspec.field(name="bs")


class _SimpleOrderbook(msgspec.Struct):
    code: _Name = msgspec.field(name="cd")
    timestamp: _Stamp = msgspec.field(name="tms")
    orderbook_units: tuple[_SimpleUnit, ...] = msgspec.field(name="obu")
    stream_type: _StreamType = msgspec.field(name="st", default="")


class _SimpleTrade(msgspec.Struct):
    code: _Name = msgspec.field(name="cd")
    timestamp: _Stamp = msgspec.field(name="tms")
    trade_timestamp: _Stamp = msgspec.field(name="ttms")
    trade_price: _Price = msgspec.field(name="tp")
    trade_volume: _Price = msgspec.field(name="tv")
    ask_bid: Literal["ASK", "BID"] = msgspec.field(name="ab")
    sequential_id: _Id = msgspec.field(name="sid")
    stream_type: _StreamType = msgspec.field(name="st", default="")


class _SimpleTicker(msgspec.Struct):
    code: _Name = msgspec.field(name="cd")
    timestamp: _Stamp = msgspec.field(name="tms")
    trade_price: _Price = msgspec.field(name="tp")
    acc_trade_price_24h: _Sum = msgspec.field(name="atp24h", default=0.0)
    market_state: str = msgspec.field(name="ms", default="")
    stream_type: _StreamType = msgspec.field(name="st", default="")


_HEAD = msgspec.json.Decoder(_Head)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_ERROR = msgspec.json.Decoder(_Error)
_REPLY = msgspec.json.Decoder(_Reply)
_FRAME = msgspec.json.Decoder(_Frame)
_FRAME_HEAD = b'{"type":"orderbook",'


def whole_book_of(raw: bytes) -> bytes | None:
    """
    Return the code where a frame is one market's book, without parsing it; else None.

    Upbit sends whole books only, so an older one of the same code has nothing to add. The list
    formats and another order of keys give None.
    """
    for head in _BOOK_HEADS:
        if raw.startswith(head):
            return raw[len(head) : raw.find(b'"', len(head), len(head) + CODE_CHARS_MAX)]
    return None


def decode(raw: bytes | str) -> tuple[MarketEvent, ...]:
    """
    Parse one frame; a list frame gives several events, in its order.

    Raises:
        MalformedFrame: Not JSON, a field missing or of the wrong kind, a number that cannot
            be (negative, NaN, beyond bounds), a book out of order.
    """
    if type(raw) is bytes and raw.startswith(_FRAME_HEAD):
        # Nearly all frames are this one, and are read once; what fails here is told below.
        try:
            frame = _FRAME.decode(raw)
            if not frame.error:
                return (_orderbook(frame, raw),)
        except ValueError:
            pass
    if _first_char(raw) != "[":
        return (_decode_one(raw, raw),)
    messages = _parse(_LIST.decode, raw, raw)
    if len(messages) > MAX_EVENTS_PER_FRAME:
        raise _malformed(f"a list of {len(messages)} messages", raw)
    return tuple(_decode_one(message, raw) for message in messages)


def kind_of(event: MarketEvent) -> str:
    """Name an event as the venue does, for counters."""
    match event:
        case FullBook():
            return "orderbook"
        case TradePrint():
            return "trade"
        case Ticker():
            return "ticker"
        case Status():
            return "status"
        case VenueError():
            return "error"
        case ControlReply():
            return "reply"
        case UnknownMessage():
            return "unknown"
        case _:
            raise AssertionError(f"Upbit sends no {type(event).__name__}")


def _decode_one(message: bytes | str | msgspec.Raw, frame: bytes | str) -> MarketEvent:
    head = _parse(_HEAD.decode, message, frame)
    if head.error:
        error = _parse(_ERROR.decode, head.error, frame)
        return VenueError(error.name, error.message)
    kind = head.type or head.ty
    if kind in _READERS:
        reader, simple_reader = _READERS[kind]
        return (reader if head.type else simple_reader)(message, frame)
    if kind:
        return UnknownMessage(kind)
    if head.method or head.mthd:
        reply = _parse(_REPLY.decode, message, frame)
        return ControlReply(reply.ticket or reply.tckt, ok=True, text=head.method or head.mthd)
    if head.status is not None:
        return Status(head.status)
    return UnknownMessage("(no type)")


def _orderbook(book: _Orderbook | _SimpleOrderbook, frame: bytes | str) -> FullBook:
    bids, asks = _sides(book.orderbook_units, frame)
    return FullBook(
        _symbol(book.code),
        bids,
        asks,
        _ns(book.timestamp),
        is_snapshot=book.stream_type == "SNAPSHOT",
    )


def _sides(
    units: tuple[_Unit, ...] | tuple[_SimpleUnit, ...], frame: bytes | str
) -> tuple[Levels, Levels]:
    """Return bids and asks; one walk does it where no level is padding and all are in order."""
    bids, asks = [], []
    last_bid, last_ask = _BEYOND, 0.0
    for unit in units:
        bid, ask = unit.bid_price, unit.ask_price
        bid_size, ask_size = unit.bid_size, unit.ask_size
        if not (last_bid > bid > 0.0 and last_ask < ask and bid_size and ask_size):
            return (
                _side([(one.bid_price, one.bid_size) for one in units], -1, frame),
                _side([(one.ask_price, one.ask_size) for one in units], 1, frame),
            )
        last_bid, last_ask = bid, ask
        bids.append((bid, bid_size))
        asks.append((ask, ask_size))
    return tuple(bids), tuple(asks)


def _side(padded: list[tuple[float, float]], direction: int, frame: bytes | str) -> Levels:
    # A thin side is padded with zero levels to the other side's length.
    levels = tuple(level for level in padded if level[0] > 0 and level[1] > 0)
    if len(levels) < len(padded) and any(size > 0 for price, size in padded if price <= 0):
        raise _malformed("a size without a price", frame)
    if not all((b[0] - a[0]) * direction > 0 for a, b in pairwise(levels)):
        raise _malformed("levels are not sorted, best first", frame)
    return levels


def _trade(trade: _Trade | _SimpleTrade, _: bytes | str) -> TradePrint:
    return TradePrint(
        _symbol(trade.code),
        trade.sequential_id,
        trade.trade_price,
        trade.trade_volume,
        Side.BUY if trade.ask_bid == "BID" else Side.SELL,  # BID: the buyer was the taker
        _ns(trade.trade_timestamp),
        _ns(trade.timestamp),
        is_snapshot=trade.stream_type == "SNAPSHOT",
    )


def _ticker(ticker: _Ticker | _SimpleTicker, _: bytes | str) -> Ticker:
    return Ticker(
        _symbol(ticker.code),
        ticker.trade_price,
        ticker.acc_trade_price_24h,
        ticker.market_state,
        _ns(ticker.timestamp),
        is_snapshot=ticker.stream_type == "SNAPSHOT",
    )


_Reader = Callable[[bytes | str | msgspec.Raw, bytes | str], MarketEvent]


def _reader(wire: type[T], build: Callable[[T, bytes | str], MarketEvent]) -> _Reader:
    decoder = msgspec.json.Decoder(wire)

    def read(message: bytes | str | msgspec.Raw, frame: bytes | str) -> MarketEvent:
        return build(_parse(decoder.decode, message, frame), frame)

    return read


_READERS: dict[str, tuple[_Reader, _Reader]] = {
    "orderbook": (_reader(_Orderbook, _orderbook), _reader(_SimpleOrderbook, _orderbook)),
    "trade": (_reader(_Trade, _trade), _reader(_SimpleTrade, _trade)),
    "ticker": (_reader(_Ticker, _ticker), _reader(_SimpleTicker, _ticker)),
}


def _symbol(code: str) -> VenueSymbol:
    # A request may carry a count ("KRW-ETH.5"); answers leave it out, copies of them may not.
    return VenueSymbol(code.partition(".")[0] if "." in code else code)


def _ns(stamp: int) -> int:
    return stamp * 1_000 if stamp > MICROSECONDS_FROM else stamp * 1_000_000


def _first_char(raw: bytes | str) -> str:
    start = raw[:64].lstrip()[:1]
    return start if isinstance(start, str) else start.decode("latin-1")


def _parse(parse: Callable[[Any], T], message: Any, frame: bytes | str) -> T:
    try:
        return parse(message)
    except (ValueError, RecursionError) as fault:
        # msgspec's errors and Unicode's are ValueErrors; depth is bounded by recursion.
        raise _malformed(str(fault), frame) from fault


def _malformed(problem: str, frame: bytes | str) -> MalformedFrame:
    excerpt = frame[:200]
    text = excerpt if isinstance(excerpt, str) else excerpt.decode("utf-8", "replace")
    return MalformedFrame(VENUE, problem[:200], text)
