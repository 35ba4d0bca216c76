"""
What a venue said, in words that are the same for every venue.

Codecs turn frames into these structs; nothing behind them knows a wire format. Prices and
sizes are float64 in venue units (a signal is a hint; what is booked is priced again in
Decimal). All stamps are ns UTC by the venue's clock, 0 where the stream carries none.

What comes thousands of times a second can hold nothing that leads back to it, and is left out of
the garbage collector's rounds (``gc=False``).
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.book import Levels
from arb_ray.domain.instrument import TradingRules, VenueSymbol
from arb_ray.domain.money import Side


class FullBook(msgspec.Struct, frozen=True, tag=True, gc=False):
    """
    A whole book, best first; it replaces what was known of the symbol.

    ``update_id`` is 0 where the venue counts none. ``is_snapshot`` marks an answer to a
    request (REST, or a subscription's first frame): its stamp may be minutes old and right.
    """

    venue_symbol: VenueSymbol
    bids: Levels
    asks: Levels
    exchange_ns: int
    update_id: int = 0
    is_snapshot: bool = False


class BookDiff(msgspec.Struct, frozen=True, tag=True, gc=False):
    """
    Changed levels with absolute sizes; size 0 deletes.

    It covers the update ids ``first_id`` to ``last_id``. ``prev_last_id`` is the previous
    diff's ``last_id`` where the venue sends it (USD-M's ``pu``), else None.
    """

    venue_symbol: VenueSymbol
    first_id: int
    last_id: int
    prev_last_id: int | None
    bids: Levels
    asks: Levels
    exchange_ns: int


class TopOfBook(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Best bid and ask after update ``update_id``; price 0 says that the side is empty."""

    venue_symbol: VenueSymbol
    update_id: int
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    exchange_ns: int


class TradePrint(msgspec.Struct, frozen=True, tag=True, gc=False):
    """A public trade; ``taker_side`` is the side that crossed the spread."""

    venue_symbol: VenueSymbol
    trade_id: int
    price: float
    qty: float
    taker_side: Side
    trade_ns: int
    exchange_ns: int
    is_aggregate: bool = False  # several fills of one taker order, as one print
    is_snapshot: bool = False


class Ticker(msgspec.Struct, frozen=True, tag=True):
    """Last price and 24 h turnover in quote units; ``market_state`` in the venue's word."""

    venue_symbol: VenueSymbol
    last_price: float
    turnover_24h: float
    market_state: str
    exchange_ns: int
    is_snapshot: bool = False


class MarkPrice(msgspec.Struct, frozen=True, tag=True):
    """A perpetual's mark price and funding rate (a ratio per interval, signed)."""

    venue_symbol: VenueSymbol
    mark_price: float
    funding_rate: float
    next_funding_ns: int
    exchange_ns: int


class ControlReply(msgspec.Struct, frozen=True, tag=True):
    """The answer to a control message that we sent."""

    id: str
    ok: bool
    text: str


class VenueError(msgspec.Struct, frozen=True, tag=True):
    """The venue complains, about no message in particular."""

    name: str
    message: str


class ServerShutdown(msgspec.Struct, frozen=True, tag=True):
    """The venue is about to close this socket; no lead time is promised."""

    exchange_ns: int


class Status(msgspec.Struct, frozen=True, tag=True):
    """A heartbeat in band (Upbit's ``UP``)."""

    text: str


class UnknownMessage(msgspec.Struct, frozen=True, tag=True):
    """Well-formed, but of a type that we have no rule for. Counted, never fatal."""

    kind: str


MarketEvent = (
    FullBook
    | BookDiff
    | TopOfBook
    | TradePrint
    | Ticker
    | MarkPrice
    | ControlReply
    | VenueError
    | ServerShutdown
    | Status
    | UnknownMessage
)


class MarketListing(msgspec.Struct, frozen=True):
    """
    One market of a venue's list, as read by REST.

    ``base`` and ``quote`` are the venue's tickers, not our assets. ``warnings`` are the
    venue's own flags, empty for most. ``rules`` is None where the list carries none.
    """

    venue_symbol: VenueSymbol
    base: str
    quote: str
    status: str  # the venue's word, e.g. TRADING, HALT, BREAK, CANCEL_ONLY, ACTIVE
    is_trading: bool
    is_perpetual: bool = False
    rules: TradingRules | None = None
    warnings: tuple[str, ...] = ()
