"""What ``/status`` answers, on one screen and in plain words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from arb_ray.app.summary import host_totals, risk_status, usdt_text
from arb_ray.domain.risk_intent import RiskStatus
from arb_ray.engine.health import StatusAnswer, live_symbols

ERRORS_SHOWN = 5
OPEN_SHOWN = 20
PLANE_WORDS = {
    "shm": "through shared memory",
    "relay": "to other nodes by one Ray call a node",
    "ray": "by Ray calls to single hosts",
}


def status_in_words(status: StatusAnswer, url: str) -> str:
    """Return the screen of ``arb-ray status``."""
    health = status.health
    verdict = "healthy" if health.healthy else "UNHEALTHY"
    ready = "ready" if health.ready else "not ready"
    live, wanted = live_symbols(status)
    answering = len(status.wanted) - len(status.missing)
    totals = host_totals(status.hosts.values())
    lines = [
        f"arb_ray is {verdict}, {ready} · {url}",
        _row("session", status.session_id),
        *_risk_rows(risk_status(status)),
        _row(
            "trades",
            f"{totals.trades_opened} opened, {totals.trades_closed} closed, "
            f"{totals.open_positions} open since the start",
        ),
        *(_row("", line) for line in _open_trades(status)),
        _row("symbols", f"{len(live)} of {len(wanted)} live"),
        *_feed_rows(status),
        _row("stores", _stores(status.persistence)),
        _row("actors", f"{answering} of {len(status.wanted)} answer"),
        *_sentences("problems", health.problems),
        *_sentences("warnings", health.warnings),
        *_sentences("errors", status.errors[-ERRORS_SHOWN:]),
    ]
    return "\n".join(lines)


def without_supervisor_in_words(body: dict[str, Any], url: str) -> str:
    """Return the screen for a Gateway whose supervisor does not answer."""
    risk = body.get("risk", {})
    state = f"{risk['state']}: {risk.get('reason', '')}" if risk.get("ready") else "not known"
    lines = [f"arb_ray is UNHEALTHY, not ready · {url}", _row("risk", state)]
    lines += _sentences("problems", body.get("health", {}).get("problems", [body.get("error", "")]))
    return "\n".join(lines)


def risk_in_words(risk: RiskStatus) -> str:
    """Return the state of the risk: what, since when, by whom, why."""
    words = str(risk.state).replace("_", " ")
    if risk.since_ns:
        words += f" since {clock_text(risk.since_ns)}"
    if risk.actor:
        words += f", by {risk.actor}"
    return f"{words}: {risk.reason}" if risk.reason else words


def clock_text(at_ns: int) -> str:
    """Return an instant, to the second."""
    return f"{dt.datetime.fromtimestamp(at_ns / 1e9, tz=dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _row(name: str, words: str) -> str:
    return f"  {name:<9} {words}".rstrip()


def _risk_rows(risk: RiskStatus | None) -> Iterator[str]:
    if risk is None:
        yield _row("risk", "not known: RiskGuard recovers or does not answer")
        return
    yield _row("risk", risk_in_words(risk))
    if risk.flatten_all:
        yield _row("", "every open trade is being closed")
    elif risk.flatten:
        yield _row("", f"being closed: {', '.join(risk.flatten)}")
    yield _row(
        "loss",
        f"{usdt_text(risk.daily_loss_usdt)} of {usdt_text(risk.daily_limit_usdt)} USDT on "
        f"{risk.day}, {usdt_text(risk.reserved_usdt)} reserved by {risk.open_trades} trades",
    )
    if risk.gap_loss_usdt:
        gap_usdt = usdt_text(risk.gap_loss_usdt)
        yield _row("", f"{gap_usdt} USDT lost past reservations, by price gaps")


def _open_trades(status: StatusAnswer) -> list[str]:
    rows = [row for host in status.hosts.values() for row in host.rows if row.mark_usdt is not None]
    lines = [
        f"{row.symbol} {row.phase}, {usdt_text(row.mark_usdt)} USDT if closed now"
        for row in sorted(rows, key=lambda row: row.symbol)[:OPEN_SHOWN]
        if row.mark_usdt is not None
    ]
    more = len(rows) - OPEN_SHOWN
    return [*lines, f"and {more} more"] if more > 0 else lines


def _feed_rows(status: StatusAnswer) -> Iterator[str]:
    for name, feed in status.feeds.items():
        words = "connected" if feed.connected else "NOT CONNECTED"
        trouble = f", {feed.reconnects} reconnects, {feed.gaps} gaps" if feed.reconnects else ""
        yield _row("feed", f"{feed.venue or name} {words}, {feed.frames:,} frames{trouble}")
    planes = sorted({plane for f in status.feeds.values() for plane in f.plane.split("+") if plane})
    if planes:
        yield _row("ticks", " and ".join(PLANE_WORDS.get(plane, plane) for plane in planes))


def _stores(told: dict[str, object]) -> str:
    if not told:
        return "not known: Persistence has not answered"
    return (
        f"PostgreSQL {told.get('postgres', 'not known')}, Redis {told.get('redis', 'not known')}, "
        f"{told.get('snapshots_written', 0)} snapshot rows written, "
        f"{told.get('spooled', 0)} spooled, {told.get('snapshots_dropped', 0)} lost"
    )


def _sentences(name: str, sentences: list[str] | tuple[str, ...]) -> Iterator[str]:
    for at, sentence in enumerate(sentences):
        yield _row("" if at else name, sentence)
