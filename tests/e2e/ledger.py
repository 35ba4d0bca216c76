"""An independent look into a run's PostgreSQL, after its end: do the books hold?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import AuditReport, audit
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres

NEVER_EMPTY = ("entries.digest", "balances.replayed", "schema.triggers", "risk.limits")
"""Checks that have something to look at after any run; an audit of nothing proves nothing."""

OF_TRADES = ("postings.explained", "fills.fee", "fills.grid", "fills.book", "pnl.parts",
             "pnl.postings", "risk.daily_loss", "journal.fills")  # fmt: skip


class Ledger:
    """The rows of a kept data folder, and what the audit says of them, read once."""

    def __init__(self, rows: dict[str, list[Any]], report: AuditReport) -> None:
        self._rows = rows
        self.report = report

    def __getattr__(self, name: str) -> list[Any]:
        return self._rows[name]

    def open_trades(self) -> set[str]:
        """Ids of the trades that are open."""
        return {row["trade_id"] for row in self.trades if row["status"] == "open"}

    def open_positions(self) -> set[str]:
        """Ids of the open trades that have sent an order; one that is only granted has not."""
        return {row["trade_id"] for row in self.trades if row["status"] == "open" and row["orders"]}

    def closed_trades(self) -> set[str]:
        """Ids of the trades that were traded and closed."""
        return {row["trade_id"] for row in self.trades if row["outcome"] == "posted"}

    def session_ids(self) -> list[str]:
        """All sessions, the oldest first."""
        return [row["session_id"] for row in self.sessions]

    def problems(self) -> list[str]:
        """Every way in which the books do not hold; an empty list when they do."""
        needed = NEVER_EMPTY + (OF_TRADES if self.fills else ())
        return [
            *(sentence for outcome in self.report.outcomes for sentence in outcome.told),
            *(
                f"{outcome.name}: {outcome.unchecked} rows could not be judged"
                for outcome in self.report.outcomes
                if outcome.unchecked
            ),
            *(
                f"{outcome.name}: it looked at nothing"
                for outcome in self.report.outcomes
                if outcome.name in needed and not outcome.rows
            ),
            *(
                f"{row['trade_id']}: it was posted without a fill"
                for row in self.trades
                if row["outcome"] == "posted" and not row["fills"]
            ),
        ]


_QUERIES = {
    "sessions": "SELECT session_id, closed_ns, summary FROM arb.sessions ORDER BY started_ns",
    "trades": "SELECT t.*, (SELECT count(*) FROM arb.orders AS o JOIN arb.fills AS f"
    " USING (env, client_order_id) WHERE (o.env, o.trade_id) = (t.env, t.trade_id)) AS fills,"
    " (SELECT count(*) FROM arb.orders AS o"
    " WHERE (o.env, o.trade_id) = (t.env, t.trade_id)) AS orders"
    " FROM arb.trades AS t",
    "reservations": "SELECT trade_id, granted_ns, recorded_ns, worst_loss_usdt"
    " FROM arb.reservations",
    "risk_events": "SELECT state, reason, actor, at_ns, flatten FROM arb.risk_events"
    " ORDER BY number",
    "posting_counts": "SELECT trade_id, count(*) AS count FROM arb.postings"
    " WHERE trade_id IS NOT NULL GROUP BY trade_id",
    "fills": "SELECT o.instrument, o.side, f.qty, f.price, f.fee_amount, f.fee_asset"
    " FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)",
}


def read_ledger(data_dir: Path) -> Ledger:
    """Start the folder's PostgreSQL, read and audit, and stop it again."""
    return asyncio.run(_read(data_dir))


async def _read(data_dir: Path) -> Ledger:
    async with EmbeddedPostgres(data_dir / "postgres") as postgres:
        connection = await asyncpg.connect(postgres.dsn)
        try:
            rows = {name: await connection.fetch(sql) for name, sql in _QUERIES.items()}
        finally:
            await connection.close()
        return Ledger(rows, await audit(postgres.dsn, Scope("dev")))
