"""What must be true after a cell, read from its database: SQL and arithmetic, nothing of ours."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import asyncpg

from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.runner import audit

DUST_BASE = Decimal("0.0026")
"""Less than the least order of either market at the cell's price: 5 USDT of some 2,000."""

LOOKED_AT = ("entries.digest", "balances.replayed", "postings.explained", "fills.fee",
             "fills.grid", "fills.book", "pnl.parts", "pnl.postings", "risk.daily_loss",
             "journal.fills", "risk.limits")  # fmt: skip
"""Audit checks that must have had something to look at."""

TABLES = ("trades", "reservations", "reservation_outcomes", "postings", "orders", "order_reports",
          "fills", "trade_events", "symbol_owners", "risk_lease")  # fmt: skip
"""Looked at through views of the cell's own rows; the questions name no environment."""

QUESTIONS: dict[str, str] = {
    "a trade is still open": """
        SELECT trade_id, status FROM trades WHERE status <> 'closed'""",
    "a reservation leaked": """
        SELECT trade_id FROM reservations AS r WHERE NOT EXISTS (
            SELECT FROM reservation_outcomes AS o
            WHERE (o.env, o.trade_id) = (r.env, r.trade_id))""",
    "money stays held": """
        SELECT venue, account, asset, sum(amount) FROM postings
        WHERE account IN ('held', 'position', 'unsettled')
        GROUP BY 1, 2, 3 HAVING sum(amount) <> 0""",
    "a trade left exposure": f"""
        SELECT o.trade_id, sum(CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END)
            - sum(CASE f.fee_asset WHEN 'ETH' THEN f.fee_amount ELSE 0 END) AS base
        FROM fills AS f JOIN orders AS o USING (env, client_order_id)
        GROUP BY 1 HAVING abs(sum(CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END)
            - sum(CASE f.fee_asset WHEN 'ETH' THEN f.fee_amount ELSE 0 END)) > {DUST_BASE}""",
    "a leg was left open": f"""
        SELECT o.trade_id, o.instrument, sum(CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END)
            - sum(CASE f.fee_asset WHEN 'ETH' THEN f.fee_amount ELSE 0 END) AS base
        FROM fills AS f JOIN orders AS o USING (env, client_order_id)
        GROUP BY 1, 2 HAVING abs(sum(CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END)
            - sum(CASE f.fee_asset WHEN 'ETH' THEN f.fee_amount ELSE 0 END)) > {DUST_BASE}""",
    "an order has no last word": """
        SELECT client_order_id FROM orders AS o WHERE NOT EXISTS (
            SELECT FROM order_reports AS r
            WHERE (r.env, r.client_order_id) = (o.env, o.client_order_id))""",
    "an order filled more than its size": """
        SELECT client_order_id, o.qty, sum(f.qty) FROM orders AS o
        JOIN fills AS f USING (env, client_order_id) GROUP BY 1, 2 HAVING sum(f.qty) > o.qty""",
    "a leg was entered twice": """
        SELECT trade_id, instrument, count(*) FROM orders WHERE purpose = 'entry'
        GROUP BY 1, 2 HAVING count(*) > 1""",
    "an event is in the journal twice": """
        SELECT trade_id, event->>'type' AS event, count(*) FROM trade_events
        GROUP BY 1, event::text, 2 HAVING count(*) > 1""",
    "an order is not in its trade's journal": """
        SELECT client_order_id FROM orders AS o WHERE NOT EXISTS (
            SELECT FROM trade_events AS e WHERE (e.env, e.trade_id) = (o.env, o.trade_id)
                AND e.recorded_ns <= o.recorded_ns
                AND e.event->>'type' IN ('EdgeConfirmed', 'ExitDecided', 'Retry', 'OrderReported'))
            OR client_order_id !~ ('^' || trade_id || ':[0-9]+$')""",
    "a fenced owner sent an order": """
        SELECT o.client_order_id, o.owner_epoch, s.epoch FROM orders AS o
        JOIN symbol_owners AS s USING (env, symbol)
        WHERE o.owner_epoch < s.epoch AND o.recorded_ns > s.claimed_ns""",
    "two reservations at once pass the limit": """
        SELECT r.trade_id, other.trade_id AS other
        FROM reservations AS r JOIN reservations AS other USING (env)
        LEFT JOIN reservation_outcomes AS o ON (o.env, o.trade_id) = (r.env, r.trade_id)
        WHERE r.trade_id <> other.trade_id AND r.recorded_ns <= other.recorded_ns
            AND (o.recorded_ns IS NULL OR o.recorded_ns > other.recorded_ns)""",
    "a fenced guard granted": """
        SELECT r.trade_id, r.epoch, l.epoch AS newest FROM reservations AS r
        JOIN risk_lease AS l USING (env)
        WHERE r.epoch < l.epoch AND r.recorded_ns > l.taken_ns""",
}

ROUNDS = """
    SELECT count(*) FROM trades AS t JOIN reservations AS r USING (env, trade_id)
    WHERE t.outcome = 'posted' AND r.recorded_ns > $1
        AND EXISTS (SELECT FROM orders AS o JOIN fills USING (env, client_order_id)
            WHERE (o.env, o.trade_id) = (t.env, t.trade_id) AND o.purpose = 'exit')"""


async def violations(dsn: str, env: str, struck_ns: int) -> list[str]:
    """Return every broken promise in words; none when all is well."""
    connection = await asyncpg.connect(dsn)
    try:
        for table in TABLES:
            await connection.execute(
                f"CREATE TEMP VIEW {table} AS SELECT * FROM arb.{table} WHERE env = '{env}'"
            )
        found = []
        for complaint, sql in QUESTIONS.items():
            found += [f"{complaint}: {_words(row)}" for row in await connection.fetch(sql)]
        if not await connection.fetchval(ROUNDS, struck_ns):
            found.append("no trade opened and closed afterwards")
    finally:
        await connection.close()
    report = await audit(dsn, Scope(env))
    for outcome in report.outcomes:
        found += [f"audit {outcome.name}: {told}" for told in outcome.told]
        if outcome.name in LOOKED_AT and not outcome.rows:
            found.append(f"audit {outcome.name}: it looked at nothing")
    return found


def _words(row: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())
