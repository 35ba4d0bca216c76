"""The summary of a run in plain words: which market it was, what was found, what it came to."""

from __future__ import annotations

from decimal import Decimal

from arb_ray.app.run_context import RunContext
from arb_ray.app.summary import RunSummary
from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.status import SystemStatus

REFUSALS_TOLD = 5


def in_words(summary: RunSummary, status: SystemStatus, context: RunContext) -> str:
    """Tell a run to a person: which market it was, what was found, what it came to."""
    parts = summary.pnl_parts
    latency = summary.tick_to_decision_ms
    lines = [
        *_what_ran(summary, context),
        "",
        _row("Data", ", ".join(_venue_words(summary))),
        *(_row("", line) for line in _feed_troubles(status)),
        _row(
            "Decisions",
            f"{summary.decisions:,} ({summary.conflated:,} updates overwritten unread); frame to "
            f"decision p50 {latency.p50:.2f}, p99 {latency.p99:.2f}, max {latency.max:.2f} ms",
        ),
        *_what_was_found(summary, context),
        _row(
            "Trades",
            f"{summary.trades_opened:,} opened, {summary.trades_closed:,} closed, "
            f"{summary.open_positions:,} still open",
        ),
        _row("PnL", f"{signed(Decimal(summary.realized_pnl_usdt))} USDT realized ="),
        _row(
            "",
            ", ".join(
                f"{name} {signed(Decimal(getattr(parts, name)))}"
                for name in PnlParts.__struct_fields__
            ),
        ),
        _row(
            "Risk",
            f"{summary.risk.state}; lost today {Decimal(summary.risk.daily_loss_usdt):,.2f} of at "
            f"most {Decimal(summary.risk.daily_limit_usdt):,.2f} USDT",
        ),
        *_gap_loss(Decimal(summary.risk.gap_loss_usdt)),
        _row(
            "Stores",
            f"PostgreSQL {summary.postgres}, Redis {summary.redis}; "
            f"{summary.snapshots_written:,} snapshot rows written",
        ),
    ]
    if summary.errors:
        count = len(summary.errors)
        lines += ["", f"{count} error{'s' if count > 1 else ''}:"]
        lines += [f"  {error}" for error in summary.errors]
    return "\n".join(lines)


def _gap_loss(gap_loss_usdt: Decimal) -> list[str]:
    if not gap_loss_usdt:
        return []
    return [_row("", f"{gap_loss_usdt:,.2f} USDT of it past the reservations, by price gaps")]


def signed(amount: Decimal, digits: int = 2) -> str:
    """Write an amount with its sign; what rounds to zero has none."""
    text = f"{amount:+,.{digits}f}"
    return text[1:] if not Decimal(text.replace(",", "")) else text


def _row(title: str, text: str) -> str:
    return f"  {title:<13} {text}".rstrip()


def _what_ran(summary: RunSummary, context: RunContext) -> list[str]:
    lines = [
        (
            f"Session {summary.session_id}: {len(summary.symbols)} symbols for "
            f"{duration_words(summary.duration_s)}, {summary.env}, source {summary.source}."
        ),
    ]
    if summary.preset is None:
        lines.append(f"Market: {context.market_words}.")
    elif context.is_realistic:
        lines.append(
            f"Market: preset {summary.preset}, seed {summary.seed}, {context.market_label}."
        )
    else:
        lines += [
            f"Market: preset {summary.preset.upper()}, seed {summary.seed}. NOT A REAL MARKET.",
            f"  {context.market_label}.",
            "  What it earned or lost here says nothing about a real market.",
        ]
    return lines


def _venue_words(summary: RunSummary) -> list[str]:
    return [
        f"{venue} {frames:,} frames, {summary.book_updates.get(venue, 0):,} books"
        for venue, frames in summary.frames.items()
    ]


def _feed_troubles(status: SystemStatus) -> list[str]:
    told = []
    for feed in status.feeds.values():
        troubles = [
            f"{count:,} {what}"
            for count, what in (
                (feed.reconnects, "reconnects"),
                (feed.gaps, "gaps"),
                (feed.resyncs, "books rebuilt"),
                (feed.malformed, "malformed frames"),
                (sum(feed.unknown.values()), "frames of unknown kind"),
            )
            if count
        ]
        if feed.silent:
            troubles.append(f"never delivered: {', '.join(feed.silent[:10])}")
        if troubles:
            told.append(f"{feed.venue}: {', '.join(troubles)}")
    return told


def _what_was_found(summary: RunSummary, context: RunContext) -> list[str]:
    if not summary.decisions:
        return [_row("Found", "nothing: no book reached a strategy.")]
    if not summary.opportunities:
        lines = [
            _row("Found", "No edge today: no opportunity was left after every cost."),
            _row("", "That is the usual and right answer of a real market.")
            if context.is_realistic
            else _row("", "On this preset it is unusual; a longer run should find some."),
        ]
    else:
        lines = [_row("Found", f"{summary.opportunities:,} opportunities after every cost")]
        if context.is_realistic and summary.trades_closed:
            lines.append(_row("", "Few trades prove nothing; steady profit would mean a bug."))
    if summary.refusals:
        told = list(summary.refusals.items())[:REFUSALS_TOLD]
        words = ", ".join(f"{reason} {count:,}" for reason, count in told)
        more = len(summary.refusals) - len(told)
        lines.append(_row("No entry", words + (f", {more} more reasons" if more > 0 else "")))
    return lines


def duration_words(seconds: float) -> str:
    """Write a length of time: ``45 s``, ``2 min 5 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest_s = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    hours, rest_min = divmod(minutes, 60)
    return f"{hours} h {rest_min} min" if rest_min else f"{hours} h"
