"""The tables of the live terminal: rows of a status, as wide as there is room for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Generic, TypeVar

import msgspec
from rich.table import Table
from rich.text import Text

from arb_ray.app.summary_words import signed
from arb_ray.domain.opportunity import Direction
from arb_ray.engine.status import FeedStatus, OpportunityLine, SymbolRow, TradeLine

T = TypeVar("T")

PRICE_DIGITS = 7
"""Digits of a shown price: enough to see a basis point move."""

NOTHING = Text("-", style="dim")


class Column(msgspec.Struct, Generic[T], frozen=True):
    """A column of a table: it appears where the terminal has ``width_min`` columns or more."""

    title: str
    cell: Callable[[T], Text | str]
    width_min: int = 0
    width_max: int = 1_000
    is_number: bool = True
    size: int = 0  # least width, so that columns do not jump when their contents change


def table_of(columns: Sequence[Column[T]], rows: Iterable[T], width: int) -> Table:
    """Return a borderless table of the columns that fit ``width``; each row is one line."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    shown = [column for column in columns if column.width_min <= width <= column.width_max]
    for column in shown:
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=column.size,
        )
    for row in rows:
        table.add_row(*(column.cell(row) for column in shown))
    return table


def time_text(at_ns: int) -> str:
    """Write an instant as UTC ``HH:MM:SS``."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%H:%M:%S")


def price_text(price: float) -> Text | str:
    """Write a price with seven digits, whatever its size; nothing for one that is not there."""
    if price <= 0:
        return NOTHING
    digits_before = math.floor(math.log10(price)) + 1
    return f"{price:,.{min(max(PRICE_DIGITS - digits_before, 0), 10)}f}"


def bps_text(bps: float, *, is_there: bool = True) -> Text:
    """Write basis points, coloured by their sign."""
    if not is_there:
        return NOTHING
    return Text(f"{bps:+.1f}", style="green" if bps > 0 else "")


def usdt_text(amount: Decimal | None) -> Text:
    """Write USDT, green when earned and red when lost."""
    if amount is None:
        return NOTHING
    text = signed(amount)
    style = "green" if text.startswith("+") else "red" if text.startswith("-") else "dim"
    return Text(text, style=style)


def way_text(direction: str) -> str:
    """Write where is bought and where is sold: ``U→B`` buys on Upbit and sells on Binance."""
    if direction == Direction.LONG_A_SHORT_B:
        return "U→B"
    return "B→U" if direction == Direction.LONG_B_SHORT_A else ""


def held_text(held_ms: int) -> str:
    """Write how long a trade was open."""
    seconds = held_ms / 1e3
    if not held_ms:
        return ""
    return f"{seconds:.1f}s" if seconds < 100 else f"{int(seconds) // 60}m{int(seconds) % 60:02d}s"


_PHASE_STYLES = {"idle": "dim", "holding": "bold green", "open": "bold green"}


def _is_live(row: SymbolRow) -> bool:
    return row.bid_a_krw > 0 and row.bid_b_usdt > 0


def _edge(row: SymbolRow, bps: float) -> Text:
    return bps_text(bps, is_there=_is_live(row) and bool(row.direction))


_FULL = 152  # columns from which both sides of both books are shown

SYMBOL_COLUMNS: tuple[Column[SymbolRow], ...] = (
    Column("symbol", lambda row: Text(row.symbol, style="bold"), is_number=False, size=6),
    Column("Upbit KRW", lambda row: price_text(_mid(row.bid_a_krw, row.ask_a_krw)), 0, _FULL - 1),
    Column("Upbit bid", lambda row: price_text(row.bid_a_krw), _FULL),
    Column("ask KRW", lambda row: price_text(row.ask_a_krw), _FULL),
    Column("Binance", lambda row: price_text(_mid(row.bid_b_usdt, row.ask_b_usdt)), 0, _FULL - 1),
    Column("Binance bid", lambda row: price_text(row.bid_b_usdt), _FULL),
    Column("ask USDT", lambda row: price_text(row.ask_b_usdt), _FULL),
    Column("premium", lambda row: bps_text(row.premium_bps, is_there=_is_live(row)), size=7),
    Column("way", lambda row: way_text(row.direction), 0, is_number=False),
    Column("gross", lambda row: _edge(row, row.gross_bps), 96, size=6),
    Column("net bps", lambda row: _edge(row, row.net_bps), size=7),
    Column(
        "phase",
        lambda row: Text(row.phase, style=_PHASE_STYLES.get(row.phase, "yellow")),
        is_number=False,
        size=10,  # "confirming"
    ),
    Column("mark", lambda row: usdt_text(row.mark_usdt), size=7),
    Column("realized", lambda row: usdt_text(row.realized_usdt), size=8),
    Column("trades", lambda row: f"{row.trades_closed}" if row.trades_closed else NOTHING, 104),
    Column("no entry because", lambda row: Text(row.refusal, style="dim"), 124, is_number=False),
    Column("ages ms", lambda row: f"{row.age_a_ms:,.0f}/{row.age_b_ms:,.0f}", 140),
)


def _mid(bid: float, ask: float) -> float:
    return (bid + ask) / 2 if bid > 0 and ask > 0 else 0.0


def _cost(bps: float) -> str:
    return f"{-bps:+.1f}" if bps else "0"


_ALL_TERMS = 98  # columns from which each cost term has its own

OPPORTUNITY_COLUMNS: tuple[Column[OpportunityLine], ...] = (
    Column("UTC", lambda line: time_text(line.at_ns), is_number=False),
    Column("symbol", lambda line: Text(line.symbol, style="bold"), is_number=False, size=6),
    Column("way", lambda line: way_text(line.direction), is_number=False),
    Column("USDT", lambda line: f"{line.notional_usdt:,.0f}", 112),
    Column("gross", lambda line: f"{line.gross_bps:+.1f}"),
    Column("fees in", lambda line: _cost(line.entry_fees_bps)),
    Column("fees out", lambda line: _cost(line.exit_fees_bps)),
    Column("spread", lambda line: _cost(line.exit_spread_bps), _ALL_TERMS),
    Column("slip", lambda line: _cost(line.slippage_bps), _ALL_TERMS),
    Column("premium", lambda line: _cost(line.exit_premium_bps), _ALL_TERMS),
    Column("funding", lambda line: _cost(line.funding_bps), _ALL_TERMS),
    Column("buffer", lambda line: _cost(line.buffer_bps), _ALL_TERMS),
    Column("others", lambda line: _cost(_other_costs_bps(line)), 0, _ALL_TERMS - 1),
    Column("= net", lambda line: bps_text(line.net_bps)),
    Column("then", lambda line: Text(line.outcome, style="dim"), is_number=False),
)


def _other_costs_bps(line: OpportunityLine) -> float:
    return (
        line.exit_spread_bps
        + line.slippage_bps
        + line.exit_premium_bps
        + line.funding_bps
        + line.buffer_bps
    )


_WHAT_STYLES = {"opened": "cyan", "closed": "bold", "hedged": "yellow"}


def _part(name: str) -> Callable[[TradeLine], Text | str]:
    return lambda line: "" if line.parts is None else signed(getattr(line.parts, name))


TRADE_COLUMNS: tuple[Column[TradeLine], ...] = (
    Column("UTC", lambda line: time_text(line.at_ns), is_number=False),
    Column("symbol", lambda line: Text(line.symbol, style="bold"), is_number=False, size=6),
    Column(
        "what",
        lambda line: Text(line.what, style=_WHAT_STYLES.get(line.what, "dim")),
        is_number=False,
        size=7,
    ),
    Column("way", lambda line: way_text(line.direction), is_number=False),
    Column("quantity", lambda line: f"{line.qty:f}", 132),
    Column("USDT", lambda line: f"{line.notional_usdt:,.0f}"),
    Column("held", lambda line: held_text(line.held_ms), size=5),
    Column("realized", lambda line: usdt_text(line.realized_usdt)),
    Column("= spread", _part("spread"), _ALL_TERMS),
    Column("fx", _part("fx"), _ALL_TERMS),
    Column("fees", _part("fees"), _ALL_TERMS),
    Column("slip", _part("slippage"), _ALL_TERMS),
    Column("funding", _part("funding"), _ALL_TERMS),
    Column("because", lambda line: Text(line.reason, style="dim"), is_number=False),
)


class FeedLine(msgspec.Struct, frozen=True):
    """A feed with what only its history or the strategies know of it."""

    feed: FeedStatus
    frames_per_s: float
    age_ms: float  # the worst freshness that a strategy sees


FEED_COLUMNS: tuple[Column[FeedLine], ...] = (
    Column("feed", lambda line: line.feed.venue, is_number=False),
    Column("state", lambda line: _feed_state(line.feed), is_number=False),
    Column("frames/s", lambda line: f"{line.frames_per_s:,.0f}"),
    Column("books", lambda line: f"{line.feed.book_updates:,}"),
    Column("age ms", lambda line: f"{line.age_ms:,.0f}"),
    Column("conflated", lambda line: f"{line.feed.conflated:,}"),
    Column("reconnects", lambda line: _trouble(line.feed.reconnects)),
    Column("gaps", lambda line: _trouble(line.feed.gaps)),
    Column("malformed", lambda line: _trouble(line.feed.malformed), 96),
    Column("stale", lambda line: _trouble(len(line.feed.stale)), 112),
    Column("silent", lambda line: _trouble(len(line.feed.silent)), 112),
    Column("queue", lambda line: f"{line.feed.queue:,}", 112),
    Column("clock ms", lambda line: f"{line.feed.clock_offset_ms:+.1f}", 112),
)


def _feed_state(feed: FeedStatus) -> Text:
    if not feed.connected:
        return Text("cut", style="bold red")
    return Text("live", style="green") if feed.ready else Text("starting", style="yellow")


def _trouble(count: int) -> Text:
    return Text(f"{count:,}", style="yellow" if count else "dim")


def feed_lines(
    feeds: Mapping[str, FeedStatus], rows: Sequence[SymbolRow], frames_per_s: Mapping[str, float]
) -> list[FeedLine]:
    """Join feeds with their rates (by actor name) and with the worst age that strategies see."""
    live = [row for row in rows if _is_live(row)]
    age_a_ms = max((row.age_a_ms for row in live), default=0.0)
    age_b_ms = max((row.age_b_ms for row in live), default=0.0)
    return [
        FeedLine(feed, frames_per_s.get(name, 0.0), age_a_ms if feed.venue == "upbit" else age_b_ms)
        for name, feed in sorted(feeds.items(), key=lambda item: item[1].venue, reverse=True)
    ]
