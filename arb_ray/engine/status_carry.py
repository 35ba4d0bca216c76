"""
Counters that survive a restart of their actor.

An actor that was started again counts from zero. What its former process had told last is
added to what the new one tells, so that a summary loses at most what came after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from arb_ray.domain.ledger import PnlParts
from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.status import RECENT_MAX, FeedStatus, HostStatus, SymbolRow

HOST_COUNTS = (
    "decisions",
    "received",
    "outdated",
    "conflated",
    "opportunities",
    "trades_opened",
    "trades_closed",
    "trades_won",
    "order_failures",
    "realized_usdt",
    "fees_usdt",
)
FEED_COUNTS = (
    "frames",
    "book_updates",
    "sent",
    "conflated",
    "reconnects",
    "gaps",
    "resyncs",
    "malformed",
)


def host_after(former: HostStatus, now: HostStatus) -> HostStatus:
    """Return ``now`` with the counts of the process before it."""
    latency = LatencyHistogram()
    latency.merge(former.latency_counts, former.latency_max_ns)
    latency.merge(now.latency_counts, now.latency_max_ns)
    sums = {name: getattr(former, name) + getattr(now, name) for name in HOST_COUNTS}
    parts = PnlParts(
        *(getattr(former.parts, n) + getattr(now.parts, n) for n in PnlParts.__struct_fields__)
    )
    opportunities = [*former.recent_opportunities, *now.recent_opportunities]
    return msgspec.structs.replace(
        now,
        **sums,
        parts=parts,
        rows=_rows_after(former.rows, now.rows),
        refusals=dict(Counter(former.refusals) + Counter(now.refusals)),
        latency_counts=latency.sparse(),
        latency_max_ns=latency.max_ns,
        recent_opportunities=opportunities[-RECENT_MAX:],
        recent_trades=[*former.recent_trades, *now.recent_trades][-RECENT_MAX:],
    )


def _rows_after(former: Sequence[SymbolRow], now: Sequence[SymbolRow]) -> list[SymbolRow]:
    before = {row.symbol: row for row in former}
    return [_row_after(before.get(row.symbol), row) for row in now]


def _row_after(former: SymbolRow | None, now: SymbolRow) -> SymbolRow:
    if former is None:
        return now
    return msgspec.structs.replace(
        now,
        trades_closed=former.trades_closed + now.trades_closed,
        realized_usdt=former.realized_usdt + now.realized_usdt,
    )


def feed_after(former: FeedStatus, now: FeedStatus) -> FeedStatus:
    """Return ``now`` with the counts of the process before it."""
    sums = {name: getattr(former, name) + getattr(now, name) for name in FEED_COUNTS}
    return msgspec.structs.replace(
        now,
        **sums,
        unknown=dict(Counter(former.unknown) + Counter(now.unknown)),
        reconnect_ms_max=max(former.reconnect_ms_max, now.reconnect_ms_max),
    )
