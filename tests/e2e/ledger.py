"""An independent look into a run's PostgreSQL, after its end: do the books hold?"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres

OURS = ("free", "held", "position", "unsettled", "dust")
QUANTUM = Decimal("1e-8")


class Ledger:
    """The rows of a kept data folder, read once."""

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self._rows = rows

    def __getattr__(self, name: str) -> list[Any]:
        return self._rows[name]

    def open_trades(self) -> set[str]:
        """Ids of the trades that are open."""
        return {row["trade_id"] for row in self.trades if row["status"] == "open"}

    def closed_trades(self) -> set[str]:
        """Ids of the trades that were traded and closed."""
        return {row["trade_id"] for row in self.trades if row["outcome"] == "posted"}

    def session_ids(self) -> list[str]:
        """All sessions, the oldest first."""
        return [row["session_id"] for row in self.sessions]

    def problems(self) -> list[str]:
        """Every way in which the books do not hold; an empty list when they do."""
        return [
            *(f"{row['asset']} does not sum to zero: {row['total']}" for row in self.unbalanced),
            *(f"{row['trade_id']} has no {row['what']}" for row in self.incomplete),
            *(f"{row['one']} and {row['other']} were open at once" for row in self.overlaps),
            *self._parts_that_do_not_sum(),
            *self._balances_that_differ(),
        ]

    def _parts_that_do_not_sum(self) -> list[str]:
        postings = {row["trade_id"]: row["count"] for row in self.posting_counts}
        names = ("spread_usdt", "fx_usdt", "fees_usdt", "slippage_usdt", "funding_usdt")
        found = []
        for row in self.trades:
            if row["outcome"] != "posted":
                continue
            gap = abs(sum(row[name] for name in names) - row["realized_usdt"])
            if gap > QUANTUM * postings[row["trade_id"]]:
                found.append(f"{row['trade_id']}: PnL parts are off by {gap} USDT")
        return found

    def _balances_that_differ(self) -> list[str]:
        """Opening balances and fills, added up here, must give what the view tells."""
        wanted: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
        fills: dict[tuple[str, str], int] = defaultdict(int)
        for row in self.opening:
            wanted[row["venue"], row["asset"]] -= row["amount"]  # the counter-account's side
        for row in self.fills:
            venue, _, symbol = row["instrument"].partition(":")
            asset, _, quote = symbol.partition("-")
            sign = 1 if row["side"] == "buy" else -1
            wanted[venue, asset] += sign * row["qty"]
            wanted[venue, quote] -= sign * row["qty"] * row["price"]
            wanted[venue, row["fee_asset"]] -= row["fee_amount"]
            fills[venue, asset] += 1
            fills[venue, quote] += 1
        told = {(row["venue"], row["asset"]): row["amount"] for row in self.balances}
        return [
            f"{place}: the view says {told.get(place)}, opening and fills say {amount}"
            for place, amount in wanted.items()
            if abs(told.get(place, Decimal(0)) - amount) > QUANTUM * fills[place]
        ]


_QUERIES = {
    "sessions": "SELECT session_id, closed_ns, summary FROM arb.sessions ORDER BY started_ns",
    "trades": "SELECT * FROM arb.trades",
    "unbalanced": "SELECT asset, sum(amount) AS total FROM arb.postings"
    " GROUP BY asset HAVING sum(amount) <> 0",
    "incomplete": "SELECT trade_id, what FROM arb.trades AS t"
    " CROSS JOIN (VALUES ('reservation'), ('outcome'), ('fill')) AS needed(what)"
    " WHERE outcome = 'posted' AND NOT CASE what"
    " WHEN 'reservation' THEN EXISTS (SELECT FROM arb.reservations AS r"
    "   WHERE r.env = t.env AND r.trade_id = t.trade_id)"
    " WHEN 'outcome' THEN EXISTS (SELECT FROM arb.reservation_outcomes AS o"
    "   WHERE o.env = t.env AND o.trade_id = t.trade_id AND o.kind = 'posted')"
    " ELSE EXISTS (SELECT FROM arb.orders AS d JOIN arb.fills USING (env, client_order_id)"
    "   WHERE d.env = t.env AND d.trade_id = t.trade_id) END",
    "overlaps": "SELECT a.trade_id AS one, b.trade_id AS other FROM arb.trades AS a"
    " JOIN arb.trades AS b USING (env, symbol) WHERE a.trade_id < b.trade_id"
    " AND (b.closed_ns IS NULL OR a.opened_ns < b.closed_ns)"
    " AND (a.closed_ns IS NULL OR b.opened_ns < a.closed_ns)",
    "posting_counts": "SELECT trade_id, count(*) AS count FROM arb.postings"
    " WHERE trade_id IS NOT NULL GROUP BY trade_id",
    "opening": "SELECT venue, asset, amount FROM arb.postings WHERE account = 'opening'",
    "fills": "SELECT o.instrument, o.side, f.qty, f.price, f.fee_amount, f.fee_asset"
    " FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)",
    "balances": "SELECT venue, asset, sum(amount) AS amount FROM arb.balances"
    f" WHERE account IN {OURS} GROUP BY venue, asset",
}


def read_ledger(data_dir: Path) -> Ledger:
    """Start the folder's PostgreSQL, read, and stop it again."""
    return asyncio.run(_read(data_dir))


async def _read(data_dir: Path) -> Ledger:
    async with EmbeddedPostgres(data_dir / "postgres") as postgres:
        connection = await asyncpg.connect(postgres.dsn)
        try:
            return Ledger({name: await connection.fetch(sql) for name, sql in _QUERIES.items()})
        finally:
            await connection.close()
