"""
What a session's snapshot must be for a start to believe it, and what is taken from it.

The ledger is the truth about trades and money. A snapshot knows what the ledger does not:
how much was looked at and received. So a start takes counts from the newest sound snapshot,
and the ledger's own figures over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

SCHEMA: Final = 2
"""Of a session's snapshot. One of an earlier schema is of no use, and no damage."""

REQUIRED: Final = (
    "session_id",
    "market",
    "symbols",
    "decisions",
    "opportunities",
    "trades_opened",
    "trades_closed",
    "open_positions",
    "frames",
)
COUNTS: Final = ("decisions", "opportunities", "trades_opened", "trades_closed", "open_positions")

SYMBOLS_MAX: Final = 5_000
COUNT_MAX: Final = 10**15
"""A thousand symbols looked at a thousand times a second for thirty years: no count of ours."""

VENUES_MAX: Final = 50

AHEAD_MAX_NS: Final = 60 * 10**9
"""Another machine's clock may be ahead of this one's; what it wrote is no damage for that."""


class Expected(msgspec.Struct, frozen=True):
    """What a start knows of the snapshot that it looks for."""

    session_id: str
    market: str  # source, identity and leg B: another market's counts are not this one's
    now_ns: int
    age_max_ns: int


class Counts(msgspec.Struct, frozen=True):
    """What the runs of a session before this one had counted; it travels with a deployment."""

    decisions: int = 0
    opportunities: int = 0
    trades_opened: int = 0
    trades_closed: int = 0
    frames: dict[str, int] = msgspec.field(default_factory=dict)


def damage(payload: Mapping[str, Any], at_ns: int, expected: Expected) -> str:
    """Tell in words why a snapshot cannot be what we wrote; empty when it can."""
    if payload.get("schema", 1) != SCHEMA:
        return ""  # another version wrote it, and knows what it holds
    missing = [key for key in REQUIRED if key not in payload]
    if missing:
        return f"it lacks {', '.join(missing)}"
    if payload["session_id"] != expected.session_id:
        return f"it says that it is of session {payload['session_id']!r}"
    if at_ns > expected.now_ns + AHEAD_MAX_NS:
        return "it is from the future"
    symbols = payload["symbols"]
    if not _is_count(symbols, SYMBOLS_MAX):
        return f"it has {symbols!r} symbols"
    for key in COUNTS:
        if not _is_count(payload[key], COUNT_MAX):
            return f"its {key} are {payload[key]!r}"
    # At most one trade is open on a symbol.
    if payload["open_positions"] > symbols:
        return f"it has {payload['open_positions']} open positions on {symbols} symbols"
    if payload["trades_closed"] > payload["trades_opened"] + symbols:
        return "more trades were closed than opened"
    frames = payload["frames"]
    if not isinstance(frames, Mapping) or len(frames) > VENUES_MAX:
        return "its frames are no counts by venue"
    if not all(_is_count(count, COUNT_MAX) for count in frames.values()):
        return "its frames are no counts by venue"
    return ""


def objection(payload: Mapping[str, Any], at_ns: int, expected: Expected) -> str:
    """Tell why a sound snapshot is of no use to this start; empty when it is."""
    if payload.get("schema", 1) != SCHEMA:
        return f"its schema is {payload.get('schema', 1)!r}, and this version reads {SCHEMA}"
    if payload["market"] != expected.market:
        return f"it is of the market {payload['market']!r}, and this is {expected.market!r}"
    age_s = (expected.now_ns - at_ns) / 1e9
    if age_s > expected.age_max_ns / 1e9:
        return f"it is {age_s:.0f} s old"
    return ""


def counts_of(payload: Mapping[str, Any]) -> Counts:
    """Return what a sound snapshot had counted."""
    return msgspec.convert(payload, Counts)


def with_ledger(counts: Counts, *, opened: int, closed: int) -> Counts:
    """Put the ledger's figures over a snapshot's: it may be older than the last trades."""
    return msgspec.structs.replace(counts, trades_opened=opened, trades_closed=closed)


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
