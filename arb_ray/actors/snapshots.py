"""What the supervisor leaves with Persistence: the session's rows and its state by category."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from arb_ray.engine.session_snapshot import SCHEMA
from arb_ray.engine.state_document import encode_document
from arb_ray.engine.status import SystemStatus
from arb_ray.ports import Snapshot


def system_snapshot(
    status: SystemStatus, now_ns: int, version: int
) -> tuple[list[Snapshot], dict[str, bytes]]:
    """
    Return the rows for PostgreSQL, and the four state documents for Redis.

    Categories: session, positions, metrics, risk_guard. Money is text in both. ``version``
    is the number of this writing, the same in all four.
    """
    hosts, carried = status.hosts.values(), status.carried
    frames = Counter(carried.frames)
    for feed in status.feeds.values():
        frames[feed.venue] += feed.frames
    session: dict[str, Any] = {
        "schema": SCHEMA,
        "session_id": status.session_id,
        "market": status.market,
        "symbols": sum(len(host.symbols) for host in hosts),
        "topology": status.topology,
        "draining": status.draining,
        "decisions": carried.decisions + sum(host.decisions for host in hosts),
        "opportunities": carried.opportunities + sum(host.opportunities for host in hosts),
        "trades_opened": carried.trades_opened + sum(host.trades_opened for host in hosts),
        "trades_closed": carried.trades_closed + sum(host.trades_closed for host in hosts),
        "open_positions": sum(host.open_positions for host in hosts),
        "frames": dict(frames),
        "errors": status.errors,
    }
    rows = [row for host in hosts for row in host.rows]
    positions = {row.symbol: msgspec.to_builtins(row) for row in rows if row.phase != "idle"}
    metrics = {
        row.symbol: {
            "premium_bps": row.premium_bps,
            "gross_bps": row.gross_bps,
            "net_bps": row.net_bps,
            "realized_usdt": str(row.realized_usdt),
        }
        for row in rows
    }
    risk = msgspec.to_builtins(status.risk)
    snapshots = [
        Snapshot("session_snapshots", now_ns, status.session_id, "", session),
        Snapshot("risk_guard_snapshots", now_ns, status.session_id, "", risk),
    ]
    documents = {
        "session": session,
        "positions": positions,
        "metrics": metrics,
        "risk_guard": risk,
    }
    states = {
        category: encode_document(document, now_ns, version)
        for category, document in documents.items()
    }
    return snapshots, states
