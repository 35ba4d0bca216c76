"""
What lies on a node's board of newest books.

All processes of a node share one monotonic clock, so stamps lie here and no ages: a reader works
out how old a thing is when it looks.
"""

from __future__ import annotations

import msgspec

from arb_ray.domain.book import Levels

LINES_PER_LIFE = 65_536
"""
A feed numbers its connections by plan and uses the number again after a cut. Whoever is told has
a *line* instead: each life of a connection has its own (this many apart), so a book from before a
cut is not taken for one that came after it.
"""


def line_of(connection: int, life: int) -> int:
    """Return the line of a connection in a life."""
    assert 0 <= connection < LINES_PER_LIFE
    return life * LINES_PER_LIFE + connection


class BoardBook(msgspec.Struct, frozen=True, array_like=True):
    """The newest book of one instrument."""

    seq: int
    line: int
    recv_ns: int
    exchange_ns: int
    recv_mono_ns: int  # when the frame left the socket, on this node's monotonic clock
    bids: Levels
    asks: Levels


class LinePulse(msgspec.Struct, frozen=True, array_like=True):
    """One connection's present life; every line of a former one is cut."""

    connection: int
    life: int
    alive_mono_ns: int  # when it last proved alive; of no meaning while it is down
    is_up: bool


class Pulse(msgspec.Struct, frozen=True, array_like=True):
    """What is told of a feed as a whole; the newest replaces every older one."""

    feed: str
    feed_epoch: int
    clock_offset_ms: float
    clock_skew_ms: float
    lines: tuple[LinePulse, ...]
