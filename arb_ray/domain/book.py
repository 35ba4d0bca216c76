"""
Order books as the signal path sees them, and how far a size walks into one.

Levels are ``(price, size)`` pairs of float64 in venue units, best first. Whatever is
booked is priced again in Decimal (``exact_levels``), by the same ``walk`` functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeVar

import msgspec

from arb_ray.domain.instrument import InstrumentId
from arb_ray.domain.money import exact_price, exact_qty

SCHEMA = 1
"""Version of every message in this module; receivers refuse one they do not know."""

Levels = tuple[tuple[float, float], ...]
ExactLevels = tuple[tuple[Decimal, Decimal], ...]

Number = TypeVar("Number", float, Decimal)


class BookUpdate(msgspec.Struct, frozen=True, array_like=True):
    """
    The newest book of one instrument; it replaces every older one.

    ``(feed_epoch, seq)`` orders an instrument's updates: an epoch begins with a feed's process,
    and ``seq`` grows by one for each update of the instrument that the feed took from its socket,
    also those that were overwritten before anybody saw them. Receivers drop what is not newer.
    """

    instrument: InstrumentId
    feed_epoch: int
    seq: int
    connection: int  # which connection carried it; its liveness is the book's freshness
    recv_ns: int  # when the frame left the socket, wall clock, ns UTC
    exchange_ns: int  # the venue's own stamp, ns UTC; 0 where the stream carries none
    age_ns: int  # time since the frame left the socket, at the moment of sending
    bids: Levels
    asks: Levels


class ConnectionAlive(msgspec.Struct, frozen=True, array_like=True):
    """How long ago a connection last proved alive, at the moment of sending."""

    connection: int
    age_ns: int
    is_up: bool


class FundingUpdate(msgspec.Struct, frozen=True, array_like=True):
    """A perpetual's mark price, funding rate (a ratio per interval) and next funding time."""

    instrument: InstrumentId
    mark_price: float
    funding_rate: float
    next_funding_ns: int
    exchange_ns: int


class TickBatch(msgspec.Struct, frozen=True, array_like=True):
    """
    What one feed sends to one host in one call.

    Monotonic stamps mean nothing on another machine, so ages are given at the moment of
    sending; ``sent_mono_ns`` is read only by a receiver on the same ``node``. An empty
    ``updates`` is a heartbeat: it keeps quiet books fresh.
    """

    schema: int
    feed: str
    feed_epoch: int
    node: str
    sent_mono_ns: int
    clock_offset_ms: float  # venue clock minus ours, estimated; 0 when unknown
    clock_skew_ms: float  # uncertainty of that estimate
    alive: tuple[ConnectionAlive, ...]
    updates: tuple[BookUpdate, ...]
    funding: tuple[FundingUpdate, ...] = ()


def walk(levels: Sequence[tuple[Number, Number]], qty: Number) -> tuple[Number, Number]:
    """
    Take ``qty`` of base from ``levels``, best first.

    Returns:
        What could be taken (at most ``qty``) and what it costs in quote units. The
        average price is the second over the first.
    """
    zero = qty - qty
    left, notional = qty, zero
    for price, size in levels:
        take = size if size < left else left
        notional += take * price
        left -= take
        if left <= zero:
            return qty, notional
    return qty - left, notional


def depth_qty(levels: Sequence[tuple[Number, Number]]) -> Number:
    """Return the whole base size displayed in ``levels``, which must not be empty."""
    total = levels[0][1]
    for _, size in levels[1:]:
        total = total + size
    return total


def mid(bids: Sequence[tuple[Number, Number]], asks: Sequence[tuple[Number, Number]]) -> Number:
    """Return the middle between best bid and best ask; both sides must be present."""
    return (bids[0][0] + asks[0][0]) / 2


def exact_levels(levels: Levels) -> ExactLevels:
    """Return the decimals behind the floats: prices exact, sizes never overstated."""
    return tuple((exact_price(price), exact_qty(size)) for price, size in levels)


def book_problem(bids: Levels, asks: Levels) -> str:
    """Name what makes a book unusable for trading; empty when nothing does."""
    if not bids or not asks:
        return "one side is empty"
    if bids[0][0] >= asks[0][0]:
        return "crossed"
    return ""
