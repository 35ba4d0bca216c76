"""
The live terminal: one status, one picture.

``render`` is pure and fills the given size without ever exceeding it; ``live_terminal``
draws it. ``plain_line`` tells the same where there is no terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from arb_ray.app.live_tables import (
    FEED_COLUMNS,
    OPPORTUNITY_COLUMNS,
    SYMBOL_COLUMNS,
    TRADE_COLUMNS,
    Column,
    feed_lines,
    table_of,
    usdt_text,
)
from arb_ray.app.run_context import RunContext
from arb_ray.app.summary import (
    conflated,
    host_totals,
    latency_ms,
    merged_refusals,
    risk_status,
)
from arb_ray.app.summary_words import signed
from arb_ray.domain.ledger import PnlParts
from arb_ray.domain.risk_intent import RiskState, RiskStatus
from arb_ray.engine.health import judge, live_symbols
from arb_ray.engine.status import OpportunityLine, SymbolRow, SystemStatus, TradeLine

T = TypeVar("T", OpportunityLine, TradeLine)

SIDE_BY_SIDE = 200  # columns from which opportunities and trades stand beside each other
BAR_CELLS = 20
_RISK_STYLES = {
    RiskState.ACTIVE: "bold green",
    RiskState.REDUCE_ONLY: "bold yellow",
    RiskState.HALTED: "bold white on red",
}


class Moment(msgspec.Struct, frozen=True):
    """What a status does not say: the run's age (None until all symbols are live), and rates."""

    elapsed_s: float | None
    frames_per_s: Mapping[str, float]


class RowBudget(msgspec.Struct, frozen=True):
    """How many rows of each list there is room for."""

    symbols: int
    opportunities: int
    trades: int

    @classmethod
    def of(cls, rows: int, symbols: int, *, is_side_by_side: bool) -> RowBudget:
        """
        Share ``rows`` lines, of which each list spends two on its titles.

        Symbols come first, but never push the other two out.
        """
        symbols = max(symbols, 1)
        if is_side_by_side:
            free = max(rows - 4, 2)
            below = max(free - symbols, min(free // 3, 8), 1)
            return cls(max(free - below, 1), below, below)
        free = max(rows - 6, 3)
        below = max(free - symbols, free // 4, 2)
        opportunities = below // 2
        return cls(free - below, opportunities, below - opportunities)


def render(
    status: SystemStatus, context: RunContext, moment: Moment, *, width: int, height: int
) -> RenderableType:
    """Return the picture of a status, at most ``height`` lines of ``width`` columns."""
    rows = sorted(
        (row for host in status.hosts.values() for row in host.rows), key=lambda row: row.symbol
    )
    top = _header(status, context, moment, width)
    bottom = [_feeds(status, rows, moment, width), *_risk(status, width), *_totals(status, width)]
    # The feeds are one of the parts below, of two titles and a line each.
    fixed = len(top) + len(bottom) - 1 + 2 + max(len(status.feeds), 1)
    is_side_by_side = width >= SIDE_BY_SIDE
    budget = RowBudget.of(height - fixed, len(rows), is_side_by_side=is_side_by_side)
    half = width // 2 - 1 if is_side_by_side else width
    opportunities = _opportunities(status, budget.opportunities, half)
    trades = _trades(status, budget.trades, half)
    lists: list[RenderableType] = [opportunities, trades]
    if is_side_by_side:
        beside = Table.grid(padding=(0, 2, 0, 0))
        beside.add_column(width=half)
        beside.add_column(width=half)
        beside.add_row(opportunities, trades)
        lists = [beside]
    return Group(*top, _symbols(rows, budget.symbols, width), *lists, *bottom)


def _line(*parts: tuple[str, str] | Text | str) -> Text:
    line = Text.assemble(*parts)
    line.no_wrap = True
    line.overflow = "ellipsis"
    return line


def _header(
    status: SystemStatus, context: RunContext, moment: Moment, width: int
) -> list[RenderableType]:
    live, wanted = live_symbols(status)
    first = _line(
        ("arb_ray ", "bold"),
        f"{context.env} · {context.source} · ",
        (context.market_words, "" if context.is_realistic else "bold black on yellow"),
        f" · seed {context.seed} · " if context.preset else " · ",
        (_clock(moment.elapsed_s, context.duration_s), "bold"),
    )
    health = judge(status)
    state = ("draining", "bold yellow") if status.draining else ("healthy", "green")
    if not health.healthy and not status.draining:
        state = (health.problems[0], "yellow")
    second = _line(
        (f"session {status.session_id}", "dim"),
        f" · {len(live)} of {len(wanted)} symbols live · ",
        _risk_state(risk_status(status), status),
        " · ",
        state,
        *((f" · {context.gateway_url}", "dim") for _ in range(bool(context.gateway_url))),
    )
    del width
    return [first, second]


def _clock(elapsed_s: float | None, duration_s: float) -> str:
    if elapsed_s is None:
        return "starting"
    passed = _clock_text(elapsed_s)
    return f"{passed} of {_clock_text(duration_s)}" if duration_s else f"{passed}, until Ctrl-C"


def _clock_text(seconds: float) -> str:
    minutes, rest_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes:02d}:{rest_s:02d}"


def _risk_state(risk: RiskStatus | None, status: SystemStatus) -> tuple[str, str]:
    if risk is None:
        return f"risk {status.risk.get('state', 'unknown')}", "yellow"
    return f"risk {risk.state}", _RISK_STYLES[risk.state]


def _section(title: str, hint: str = "") -> Rule:
    text = Text.assemble((title, "bold"), (f"  {hint}" if hint else "", "dim"))
    return Rule(text, align="left", style="dim", characters="─")


def _symbols(rows: Sequence[SymbolRow], count_max: int, width: int) -> RenderableType:
    shown, left_out = list(rows), 0
    if len(rows) > count_max:
        # The busy ones and the best edges stay; the table keeps its order by name.
        best = sorted(rows, key=lambda row: (row.phase == "idle", -row.net_bps))
        kept = {row.symbol for row in best[:count_max]}
        shown = [row for row in rows if row.symbol in kept]
        left_out = len(rows) - len(shown)
    hint = "U→B buys on Upbit and sells on Binance; bps at the size that would be traded"
    if left_out:
        hint = f"and {left_out} more with less to tell"
    return Group(_section("Symbols", hint), table_of(SYMBOL_COLUMNS, shown, width))


def _newest(lines: Sequence[T], count_max: int, columns: Sequence[Column[T]], width: int) -> Table:
    newest = sorted(lines, key=lambda line: line.at_ns, reverse=True)
    return table_of(columns, newest[:count_max], width)


def _opportunities(status: SystemStatus, count_max: int, width: int) -> RenderableType:
    lines = [line for host in status.hosts.values() for line in host.recent_opportunities]
    section = _section("Opportunities", "bps: gross, less every cost, is net")
    if not lines:
        has_looked = any(host.decisions for host in status.hosts.values())
        words = "none yet: no edge was left after every cost" if has_looked else "none yet"
        return Group(section, _line((words, "dim")))
    return Group(section, _newest(lines, count_max, OPPORTUNITY_COLUMNS, width))


def _trades(status: SystemStatus, count_max: int, width: int) -> RenderableType:
    lines = [line for host in status.hosts.values() for line in host.recent_trades]
    section = _section("Paper trades", "USDT")
    if not lines:
        return Group(section, _line(("none yet", "dim")))
    return Group(section, _newest(lines, count_max, TRADE_COLUMNS, width))


def _feeds(
    status: SystemStatus, rows: Sequence[SymbolRow], moment: Moment, width: int
) -> RenderableType:
    if not status.feeds:
        return Group(_section("Feeds"), _line(("none has answered yet", "dim")))
    lines = feed_lines(status.feeds, rows, moment.frames_per_s)
    return Group(_section("Feeds"), table_of(FEED_COLUMNS, lines, width))


def _risk(status: SystemStatus, width: int) -> list[RenderableType]:
    risk = risk_status(status)
    if risk is None:
        return [_section("Risk and totals"), _line(("RiskGuard is recovering", "yellow"))]
    limit = risk.daily_limit_usdt
    used = float(risk.daily_loss_usdt / limit) if limit else 1.0
    at_risk = float((risk.daily_loss_usdt + risk.reserved_usdt) / limit) if limit else 1.0
    filled = min(round(used * BAR_CELLS), BAR_CELLS)
    held = min(round(at_risk * BAR_CELLS), BAR_CELLS) - filled
    style = "red" if at_risk > 0.9 else "yellow" if at_risk > 0.5 else "green"
    parts: list[tuple[str, str] | str] = [
        _risk_state(risk, status),
        "  loss today ",
        ("█" * filled, style),
        ("▒" * held, style),
        ("·" * (BAR_CELLS - filled - held), "dim"),
        f" {risk.daily_loss_usdt:,.2f} of {limit:,.2f}",
        f" + reserved {risk.reserved_usdt:,.2f}" if width >= 96 else "",
        f" · {risk.open_trades} open",
        (f" · {risk.reason}" if risk.reason else "", "dim"),
    ]
    return [_section("Risk and totals"), _line(*parts)]


def _totals(status: SystemStatus, width: int) -> list[RenderableType]:
    hosts = list(status.hosts.values())
    totals = host_totals(hosts)
    split = "  ".join(
        f"{name} {signed(getattr(totals.parts, name))}" for name in PnlParts.__struct_fields__
    )
    latency = latency_ms(hosts)
    refusals = "  ".join(f"{why} {count:,}" for why, count in merged_refusals(hosts).items())
    told = status.persistence
    money = _line(
        "realized ",
        usdt_text(totals.realized_usdt),
        (f" = {split}", "dim" if width < 96 else ""),
    )
    work = _line(
        f"trades {totals.trades_opened:,} opened  {totals.trades_closed:,} closed  ",
        f"{totals.open_positions:,} open · ",
        f"opportunities {sum(host.opportunities for host in hosts):,} · ",
        f"decisions {sum(host.decisions for host in hosts):,} · ",
        f"p50 {latency.p50:.2f} p99 {latency.p99:.2f} ms · ",
        f"overwritten {conflated(status):,}",
    )
    stores = (
        f"PostgreSQL {told.get('postgres', '?')} · Redis {told.get('redis', '?')} · "
        f"{told.get('snapshots_written', 0)} rows · no entry: {refusals or 'none refused'}"
    )
    return [money, work, _line((stores, "dim"))]


def plain_line(status: SystemStatus, moment: Moment) -> str:
    """Return one line of progress for where there is no terminal."""
    live, wanted = live_symbols(status)
    hosts = list(status.hosts.values())
    totals = host_totals(hosts)
    risk = risk_status(status)
    rates = ", ".join(
        f"{feed.venue} {moment.frames_per_s.get(name, 0.0):,.0f} frames/s"
        for name, feed in sorted(status.feeds.items())
    )
    return (
        f"{_clock(moment.elapsed_s, 0).split(',')[0]}  {len(live)}/{len(wanted)} symbols live, "
        f"{rates or 'no feed yet'}, {sum(host.decisions for host in hosts):,} decisions, "
        f"{sum(host.opportunities for host in hosts):,} opportunities, "
        f"{totals.trades_opened} opened, {totals.trades_closed} closed, "
        f"realized {signed(totals.realized_usdt)} USDT, "
        f"risk {'recovering' if risk is None else risk.state}"
    )
