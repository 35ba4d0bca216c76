"""The overview: does it trade, what does it earn, how near is the limit."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.panels import add_row, board, lines, tile
from deploy.grafana.queries import about, count, gauge, quantile, rate, total_of_gauge


def overview() -> dashboard.Dashboard:
    """Return the dashboard of risk, PnL, trades, opportunities and the market."""
    made = board(
        "arb-overview",
        "arb_ray overview",
        "Risk, profit and loss, trades, opportunities, refusals, FX and premium. Paper only.",
    )
    _now(made)
    _risk(made)
    _pnl(made)
    _trades(made)
    _opportunities(made)
    _market(made)
    return made


def _now(made: dashboard.Dashboard) -> None:
    bad_above_zero = ((None, "green"), (1.0, "red"))
    tiles = [
        tile(
            "Risk state",
            gauge("risk_state"),
            about=about("risk_state"),
            steps=((None, "green"), (1.0, "orange"), (2.0, "red")),
            words={"0": "active", "1": "reduce only", "2": "HALTED"},
        ),
        tile(
            "Daily loss of its limit",
            f"{gauge('daily_loss_usdt')} / {gauge('daily_loss_limit_usdt')}",
            about=about("daily_loss_usdt", "daily_loss_limit_usdt"),
            unit="percentunit",
            steps=((None, "green"), (0.5, "orange"), (0.8, "red")),
        ),
        tile(
            "Realized, USDT",
            gauge("pnl_realized_usdt"),
            about=about("pnl_realized_usdt"),
            steps=((None, "red"), (0.0, "green")),
        ),
        tile(
            "Unrealized, USDT",
            gauge("pnl_unrealized_usdt"),
            about=about("pnl_unrealized_usdt"),
            steps=((None, "orange"), (0.0, "green")),
        ),
        tile("Open positions", gauge("open_positions"), about=about("open_positions")),
        tile(
            "Win rate",
            gauge("win_rate_ratio"),
            about=about("win_rate_ratio"),
            unit="percentunit",
        ),
        tile(
            "Symbols not live",
            f"{gauge('symbols_wanted')} - {gauge('symbols_live')}",
            about=about("symbols_wanted", "symbols_live"),
            steps=bad_above_zero,
        ),
        tile(
            "Actors missing",
            f"{gauge('actors_wanted')} - {gauge('actors_alive')}",
            about=about("actors_wanted", "actors_alive"),
            steps=bad_above_zero,
        ),
    ]
    add_row(made, "Now", tiles)


def _risk(made: dashboard.Dashboard) -> None:
    money = (
        "daily_loss_usdt",
        "daily_loss_limit_usdt",
        "reserved_usdt",
        "drawdown_usdt",
        "gap_loss_usdt",
    )
    legends = ("loss of the day", "limit", "reserved", "drawdown", "gap loss")
    panels = [
        lines(
            "Loss and what could be lost, USDT",
            {legend: gauge(name) for legend, name in zip(legends, money, strict=True)},
            about=about(*money),
        ),
        lines(
            "Reservations",
            {
                "granted /s": rate("risk_grants"),
                "refused: {{reason}} /s": rate("risk_refusals", "reason"),
                "open and pending": gauge("open_trades"),
                "decisions /s": rate("risk_decisions"),
                "commits /s": rate("risk_commits"),
            },
            about=about(
                "risk_grants", "risk_refusals", "open_trades", "risk_decisions", "risk_commits"
            ),
        ),
        lines(
            "Answer to a reservation, and the guard's epoch",
            {
                "p50 ms": quantile(0.5, "reserve_ms"),
                "p99 ms": quantile(0.99, "reserve_ms"),
                "epoch": gauge("guard_epoch"),
            },
            about=about("reserve_ms", "guard_epoch"),
        ),
    ]
    add_row(made, "Risk", panels)


def _pnl(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "PnL of the session, USDT",
            {
                "realized": gauge("pnl_realized_usdt"),
                "unrealized": gauge("pnl_unrealized_usdt"),
                "fees": gauge("fees_usdt"),
            },
            about=about("pnl_realized_usdt", "pnl_unrealized_usdt", "fees_usdt"),
        ),
        lines(
            "Realized by cause, USDT",
            {"{{part}}": gauge("pnl_part_usdt", "part")},
            about=about("pnl_part_usdt"),
        ),
        lines(
            "Realized by symbol, USDT",
            {"{{symbol}}": gauge("symbol_pnl_usdt", "symbol")},
            about=about("symbol_pnl_usdt"),
        ),
    ]
    add_row(made, "Profit and loss", panels)


def _trades(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Trades per second",
            {
                "opened": rate("trades_opened"),
                "closed: {{exit_reason}}": rate("trades_closed", "exit_reason"),
            },
            about=about("trades_opened", "trades_closed"),
        ),
        lines(
            "Orders per second",
            {
                "{{venue}} {{status}}": rate("orders", "venue", "status"),
                "{{venue}} failed": rate("order_failures", "venue"),
            },
            about=about("orders", "order_failures"),
        ),
        lines(
            "Filled part of orders",
            {"{{venue}}": gauge("fill_ratio", "venue")},
            about=about("fill_ratio"),
            unit="percentunit",
        ),
        tile("Opened in this range", count("trades_opened"), about=about("trades_opened"), span=6),
        tile("Closed in this range", count("trades_closed"), about=about("trades_closed"), span=6),
        tile("Orders that failed", count("order_failures"), about=about("order_failures"), span=6),
        tile("Open positions", gauge("open_positions"), about=about("open_positions"), span=6),
    ]
    add_row(made, "Trades", panels)


def _opportunities(made: dashboard.Dashboard) -> None:
    panels = [
        lines(
            "Opportunities per second",
            {"{{symbol}}": rate("opportunities", "symbol")},
            about=about("opportunities"),
        ),
        lines(
            "Net edge of opportunities, bps",
            {
                "p50": quantile(0.5, "opportunity_net_bps"),
                "p90": quantile(0.9, "opportunity_net_bps"),
            },
            about=about("opportunity_net_bps"),
        ),
        lines(
            "Entries not made, by reason, per second",
            {"{{reason}}": rate("refusals", "reason")},
            about=about("refusals"),
        ),
    ]
    add_row(made, "Opportunities and refusals", panels)


def _market(made: dashboard.Dashboard) -> None:
    panels = [
        lines("KRW of one USDT", {"mid": gauge("fx_krw")}, about=about("fx_krw"), span=6),
        lines(
            "Premium of Upbit, bps",
            {"{{symbol}}": gauge("premium_bps", "symbol")},
            about=about("premium_bps"),
            span=6,
        ),
        lines(
            "Net edge of the better direction, bps",
            {"{{symbol}}": gauge("net_edge_bps", "symbol")},
            about=about("net_edge_bps"),
            span=6,
        ),
        lines(
            "Age of the older book",
            {"{{symbol}}": gauge("book_age_ms", "symbol")},
            about=about("book_age_ms"),
            unit="ms",
            span=6,
        ),
        lines(
            "Stale and silent symbols",
            {
                "stale on {{venue}}": total_of_gauge("symbols_stale", "venue"),
                "silent on {{venue}}": total_of_gauge("symbols_silent", "venue"),
            },
            about=about("symbols_stale", "symbols_silent"),
            span=24,
        ),
    ]
    add_row(made, "Market", panels)
