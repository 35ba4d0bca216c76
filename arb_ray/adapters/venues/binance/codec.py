"""
Binance's frames, spot and USD-M, parsed.

Spot: binance-spot-api-docs, web-socket-streams.md. USD-M: developers.binance.com, "WebSocket
Market Streams". Payloads come in an envelope that names the stream, or bare. Spot's
bookTicker has no ``e``, and USD-M's partial depth has the diff's ``e``, so the stream's name
decides where there is one. Prices and sizes are strings; ``ps`` and ``st``, added to USD-M in
2026-06, may be there or not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import msgspec

from arb_ray.domain.book import Levels
from arb_ray.domain.errors import MalformedFrame
from arb_ray.domain.instrument import Venue, VenueSymbol
from arb_ray.domain.money import Side
from arb_ray.engine.market_event import (
    BookDiff,
    ControlReply,
    FullBook,
    MarketEvent,
    MarkPrice,
    ServerShutdown,
    TopOfBook,
    TradePrint,
    UnknownMessage,
    VenueError,
)

NS_PER_MS = 1_000_000
MICROSECONDS_FROM = 10**14
"""Spot streams carry microseconds when asked to (``timeUnit``); as ms it is the year 5138."""

# NaN and infinity fail the bounds too. No price or size of any coin comes near 1e15.
_Price = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
_Qty = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Rate = Annotated[float, msgspec.Meta(ge=-1, le=1)]
_Stamp = Annotated[int, msgspec.Meta(ge=0, lt=10**18)]
_Id = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Symbol = Annotated[VenueSymbol, msgspec.Meta(min_length=1, max_length=64)]
_Levels = tuple[tuple[_Price, _Qty], ...]
_BEYOND = 1e16  # above every price that the bounds let through

_ABSENT = msgspec.Raw()
_SPOT = Venue.BINANCE_SPOT  # an enum's member is looked up each time that it is named

_HEAD = b'{"stream":"'
_NAME_AT = len(_HEAD)
_HEAD_MAX = 64
"""Bytes in which a frame tells its stream; the longest name of a coin needs 45."""
_TOP, _DIFF, _PARTIAL = b'@bookTicker","data":{', b"@depth@", b"@depth20@"

_ENVELOPE = b'{"stream":"'
STREAM_CHARS_MAX = 100
"""A stream's name ends before this, or is not one of ours."""

T = TypeVar("T")


class _Head(msgspec.Struct):
    """Just enough to tell what a message is."""

    stream: str = ""
    data: msgspec.Raw = _ABSENT
    e: str = ""
    result: msgspec.Raw = _ABSENT  # null when a request was granted
    code: int | None = None
    msg: str = ""
    error: msgspec.Raw = _ABSENT
    id: int | str | None = None
    u: msgspec.Raw = _ABSENT
    b: msgspec.Raw = _ABSENT
    lastUpdateId: msgspec.Raw = _ABSENT  # noqa: N815  (the venue's spelling)


class _Kind(msgspec.Struct):
    e: str = ""


class _BookTicker(msgspec.Struct, gc=False):
    s: _Symbol
    u: _Id
    b: _Qty  # price 0 stands for an empty side
    B: _Qty
    a: _Qty
    A: _Qty
    E: _Stamp = 0


class _Depth(msgspec.Struct, gc=False):
    s: _Symbol
    U: _Id
    u: _Id
    b: _Levels
    a: _Levels
    E: _Stamp
    pu: _Id | None = None


class _PartialDepth(msgspec.Struct, gc=False, rename={"last_update_id": "lastUpdateId"}):
    last_update_id: _Id
    bids: _Levels
    asks: _Levels
    E: _Stamp = 0


class _Trade(msgspec.Struct):
    s: _Symbol
    p: _Qty  # USD-M sends prints with price 0 for what is no market trade (``X``)
    q: _Qty
    T: _Stamp
    E: _Stamp
    m: bool
    t: _Id | None = None
    a: _Id | None = None
    X: str = "MARKET"


class _MarkPrice(msgspec.Struct):
    s: _Symbol
    p: _Price
    r: _Rate
    T: _Stamp
    E: _Stamp


class _Shutdown(msgspec.Struct):
    E: _Stamp = 0


class _Error(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _TopFrame(msgspec.Struct, gc=False):
    data: _BookTicker


class _DepthFrame(msgspec.Struct, gc=False):
    data: _Depth


class _PartialFrame(msgspec.Struct, gc=False):
    stream: str
    data: _PartialDepth


def _decoder(wire: type[T]) -> Callable[[Any], T]:
    return msgspec.json.Decoder(wire, strict=False).decode  # numbers come as strings


_head = _decoder(_Head)
_kind = _decoder(_Kind)
_book_ticker = _decoder(_BookTicker)
_depth = _decoder(_Depth)
_partial_depth = _decoder(_PartialDepth)
_trade = _decoder(_Trade)
_mark_price = _decoder(_MarkPrice)
_shutdown = _decoder(_Shutdown)
_error = _decoder(_Error)
_top_frame = _decoder(_TopFrame)
_depth_frame = _decoder(_DepthFrame)
_partial_frame = _decoder(_PartialFrame)


def decode(raw: bytes | str, venue: Venue) -> tuple[MarketEvent, ...]:
    """
    Parse one frame of a WebSocket stream.

    Raises:
        MalformedFrame: Not JSON, a field missing or of the wrong kind, a number that cannot
            be (negative, NaN, beyond bounds), ids out of order, a whole book out of order.
    """
    if type(raw) is bytes and raw.startswith(_HEAD):
        # Nearly all frames are these three, and are read once; what fails here is told below.
        try:
            at = raw.find(b"@", _NAME_AT, _HEAD_MAX)  # the first one: the channel follows it
            if raw.startswith(_TOP, at):
                top = _top_frame(raw).data
                at_ns = top.E and _ns(top.E)
                return (TopOfBook(top.s, top.u, top.b, top.B, top.a, top.A, at_ns),)
            if raw.startswith(_DIFF, at):
                return (_diff_of(_depth_frame(raw).data),)
            if raw.startswith(_PARTIAL, at) and venue is _SPOT:
                frame = _partial_frame(raw)
                symbol = VenueSymbol(frame.stream.partition("@")[0].upper())
                return (_whole_book(symbol, frame.data, is_snapshot=False),)
        except ValueError:
            pass
    try:
        return (_decode(raw, venue),)
    except (ValueError, RecursionError) as fault:
        # msgspec's errors and Unicode's are ValueErrors; depth is bounded by recursion.
        raise _malformed(venue, str(fault), raw) from fault


def whole_book_of(raw: bytes) -> bytes | None:
    """
    Return the stream's name where a frame holds all that the stream tells, without parsing it.

    An older frame of the same stream then has nothing to add: bookTicker and partial depth. None
    for diffs, for what came without an envelope, and for everything else.
    """
    if not raw.startswith(_ENVELOPE):
        return None
    stream = raw[len(_ENVELOPE) : raw.find(b'"', len(_ENVELOPE), STREAM_CHARS_MAX)]
    at = stream.find(b"@")
    channel = stream[at + 1 : at + 7]
    is_whole = channel == b"bookTi" or (channel[:5] == b"depth" and channel[5:].isdigit())
    return stream if is_whole else None


def decode_snapshot(raw: bytes | str, venue_symbol: VenueSymbol, venue: Venue) -> FullBook:
    """
    Parse the REST reply of a depth request; the reply does not name its symbol.

    Raises:
        MalformedFrame: As ``decode``; also for an error object in the book's place.
    """
    try:
        book = _partial_depth(raw)
        return _whole_book(venue_symbol, book, is_snapshot=True)
    except (ValueError, RecursionError) as fault:
        raise _malformed(venue, str(fault), raw) from fault


def kind_of(event: MarketEvent) -> str:
    """Name an event as the venue does, for counters."""
    match event:
        case TopOfBook():
            return "bookTicker"
        case BookDiff():
            return "depthUpdate"
        case FullBook():
            return "partialDepth"
        case TradePrint(is_aggregate=is_aggregate):
            return "aggTrade" if is_aggregate else "trade"
        case MarkPrice():
            return "markPriceUpdate"
        case ServerShutdown():
            return "serverShutdown"
        case ControlReply():
            return "reply"
        case VenueError():
            return "error"
        case UnknownMessage():
            return "unknown"
        case _:
            raise AssertionError(f"Binance sends no {type(event).__name__}")


def _decode(raw: bytes | str, venue: Venue) -> MarketEvent:
    head = _head(raw)
    # Documented order: envelope first, then control replies, then the bare event type.
    if head.stream and head.data:
        return _payload(head.stream, head.data, venue)
    if head.code is not None or head.error:
        return _complaint(head)
    if head.result:
        return ControlReply(_id_text(head.id), ok=True, text=bytes(head.result).decode()[:200])
    if head.e:
        return _by_event(head.e, raw, "")
    if head.u and head.b:
        return _top(raw)  # spot's bookTicker, the one payload without ``e``
    if head.lastUpdateId:
        return UnknownMessage("partialDepth without a symbol")  # use combined streams
    return UnknownMessage("(no type)")


def _payload(stream: str, data: msgspec.Raw, venue: Venue) -> MarketEvent:
    name, _, channel = stream.partition("@")
    if channel == "bookTicker":
        return _top(data)
    if channel.startswith("depth"):
        is_diff = not channel[5:6].isdigit()  # "depth", "depth@100ms" against "depth20@100ms"
        if is_diff:
            return _diff(data)
        if venue is _SPOT:
            symbol = VenueSymbol(name.upper())
            return _whole_book(symbol, _partial_depth(data), is_snapshot=False)
        return _usdm_partial(data)
    if stream == "!serverShutdown":
        return ServerShutdown(_ns(_shutdown(data).E))
    if bytes(data)[:1] != b"{":
        return UnknownMessage(stream[:64])  # an all-market array, which nobody asked for
    return _by_event(_kind(data).e, data, channel)


def _by_event(kind: str, payload: bytes | str | msgspec.Raw, channel: str) -> MarketEvent:
    match kind:
        case "bookTicker":
            return _top(payload)
        case "depthUpdate":
            return _diff(payload)
        case "trade" | "aggTrade":
            return _print(payload, is_aggregate=kind == "aggTrade")
        case "markPriceUpdate":
            return _mark(payload)
        case "serverShutdown":
            return ServerShutdown(_ns(_shutdown(payload).E))
        case _:
            return UnknownMessage((kind or channel or "(no type)")[:64])


def _top(payload: bytes | str | msgspec.Raw) -> TopOfBook:
    top = _book_ticker(payload)
    return TopOfBook(top.s, top.u, top.b, top.B, top.a, top.A, _ns(top.E))


def _diff(payload: bytes | str | msgspec.Raw) -> BookDiff:
    return _diff_of(_depth(payload))


def _diff_of(diff: _Depth) -> BookDiff:
    if diff.u < diff.U or (diff.pu is not None and diff.pu > diff.u):
        raise ValueError("update ids run backwards")
    return BookDiff(diff.s, diff.U, diff.u, diff.pu, diff.b, diff.a, _ns(diff.E))


def _usdm_partial(payload: msgspec.Raw) -> FullBook:
    depth = _depth(payload)
    book = _PartialDepth(depth.u, depth.b, depth.a, depth.E)
    return _whole_book(depth.s, book, is_snapshot=False)


def _whole_book(symbol: VenueSymbol, book: _PartialDepth, *, is_snapshot: bool) -> FullBook:
    bids, asks, last = book.bids, book.asks, _BEYOND
    for price, size in bids:
        if not (size and price < last):
            bids = _displayed(bids, -1)
            break
        last = price
    last = 0.0
    for price, size in asks:
        if not (size and price > last):
            asks = _displayed(asks, 1)
            break
        last = price
    return FullBook(symbol, bids, asks, _ns(book.E), book.last_update_id, is_snapshot)


def _displayed(levels: Levels, direction: int) -> Levels:
    """Return the levels that hold something, which must be in order."""
    left = tuple(level for level in levels if level[1])
    if not all((worse[0] - better[0]) * direction > 0 for better, worse in pairwise(left)):
        raise ValueError("levels are not sorted, best first")
    return left


def _print(payload: bytes | str | msgspec.Raw, *, is_aggregate: bool) -> MarketEvent:
    trade = _trade(payload)
    if trade.X != "MARKET":
        return UnknownMessage(f"trade:{trade.X}"[:64])  # insurance fund and the like
    if trade.p <= 0 or trade.q <= 0:
        raise ValueError("a trade without price or quantity")
    trade_id = trade.a if is_aggregate else trade.t
    if trade_id is None:
        raise ValueError("a trade without an id")
    return TradePrint(
        trade.s,
        trade_id,
        trade.p,
        trade.q,
        Side.SELL if trade.m else Side.BUY,  # m: the buyer was the maker
        _ns(trade.T),
        _ns(trade.E),
        is_aggregate=is_aggregate,
    )


def _mark(payload: bytes | str | msgspec.Raw) -> MarkPrice:
    mark = _mark_price(payload)
    return MarkPrice(mark.s, mark.p, mark.r, _ns(mark.T), _ns(mark.E))


def _complaint(head: _Head) -> MarketEvent:
    inner = _error(head.error) if head.error else _Error(head.code or 0, head.msg)
    if head.id is not None:
        return ControlReply(_id_text(head.id), ok=False, text=f"{inner.code}: {inner.msg}")
    return VenueError(str(inner.code), inner.msg)


def _id_text(message_id: int | str | None) -> str:
    return "" if message_id is None else str(message_id)[:64]


def _ns(stamp: int) -> int:
    return stamp * 1_000 if stamp > MICROSECONDS_FROM else stamp * NS_PER_MS


def _malformed(venue: Venue, problem: str, raw: bytes | str) -> MalformedFrame:
    excerpt = raw[:200]
    text = excerpt if isinstance(excerpt, str) else excerpt.decode("utf-8", "replace")
    return MalformedFrame(venue, problem[:200], text)
