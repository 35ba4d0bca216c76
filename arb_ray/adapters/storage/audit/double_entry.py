"""Double entry: each entry balances, is whole, and is what was written."""

from __future__ import annotations

import hashlib
import json
from decimal import Context, Decimal
from typing import Any

from arb_ray.adapters.storage.audit.check import (
    TOLD_MAX,
    Check,
    Connection,
    Outcome,
    Scope,
    SqlCheck,
)

_ENTRY_SUMS = """
    SELECT max(trade_id) AS trade_id,
           CASE WHEN sum(amount) <> 0 THEN format(
               'entry %s: its postings of %s sum to %s, not to 0', entry_id, asset,
               trim_scale(sum(amount))) END AS problem
    FROM arb.postings WHERE env = $1 GROUP BY entry_id, asset
"""

_ASSET_SUMS = """
    SELECT NULL::text AS trade_id,
           CASE WHEN sum(amount) <> 0 THEN format(
               'asset %s: all its postings sum to %s, not to 0', asset,
               trim_scale(sum(amount))) END AS problem
    FROM arb.postings WHERE env = $1 GROUP BY asset
"""

_ENTRY_SHAPES = """
    SELECT coalesce(e.trade_id, p.trade_id) AS trade_id, CASE
        WHEN e.entry_id IS NULL THEN format(
            'entry %s: it has %s postings and no row in entries', p.entry_id, p.count)
        WHEN e.posting_count <> coalesce(p.count, 0) THEN format(
            'entry %s: it has %s postings where %s were declared', e.entry_id,
            coalesce(p.count, 0), e.posting_count)
        WHEN p.first_line <> 0 OR p.last_line <> p.count - 1 THEN format(
            'entry %s: its lines do not count from 0 to %s', e.entry_id, p.count - 1)
        WHEN p.strangers > 0 THEN format(
            'entry %s: %s of its postings name another trade than %s', e.entry_id, p.strangers,
            coalesce(e.trade_id, 'none'))
        WHEN e.schema <> 1 OR p.other_schemas > 0 THEN format(
            'entry %s: it is of a schema that this audit does not know', e.entry_id)
        END AS problem
    FROM (SELECT * FROM arb.entries WHERE env = $1) AS e
    FULL JOIN (
        SELECT entry_id, max(posting.trade_id) AS trade_id, count(*) AS count,
               min(line) AS first_line, max(line) AS last_line,
               count(*) FILTER (WHERE posting.schema <> 1) AS other_schemas,
               count(*) FILTER (
                   WHERE posting.trade_id IS DISTINCT FROM entry.trade_id) AS strangers
        FROM arb.postings AS posting LEFT JOIN arb.entries AS entry USING (env, entry_id)
        WHERE env = $1 GROUP BY entry_id
    ) AS p USING (entry_id)
"""

_FREE_TOTALS = """
    SELECT NULL::text AS trade_id, CASE WHEN t.amount IS DISTINCT FROM p.amount THEN format(
        'free %s of %s: the running total says %s, its postings sum to %s', asset, venue,
        coalesce(trim_scale(t.amount)::text, 'nothing'),
        coalesce(trim_scale(p.amount)::text, 'nothing')) END AS problem
    FROM (SELECT venue, asset, amount FROM arb.free_totals WHERE env = $1) AS t
    FULL JOIN (
        SELECT venue, asset, sum(amount) AS amount FROM arb.postings
        WHERE env = $1 AND account = 'free' GROUP BY venue, asset) AS p USING (venue, asset)
"""

_LINES = """
    SELECT entry_id, kind, symbol, trade_id, digest, (
               SELECT coalesce(json_agg(json_build_array(venue, account, asset, amount::text)
                                        ORDER BY line), '[]')::text
               FROM arb.postings AS p WHERE p.env = e.env AND p.entry_id = e.entry_id
           ) AS lines
    FROM arb.entries AS e
    WHERE env = $1 AND ($2::text IS NULL OR trade_id IS NULL OR NOT EXISTS (
        SELECT FROM arb.reservations AS other
        WHERE other.env = e.env AND other.trade_id = e.trade_id AND other.session_id <> $2))
    ORDER BY entry_id
"""

_PREFETCH_ROWS = 2_000

# Decimal's own default: the writer normalises with 28 digits.
_WRITERS_CONTEXT = Context(prec=28)


class DigestCheck:
    """The digest that was written with an entry is the digest of what is there now."""

    name = "entries.digest"
    meaning = "kind, symbol, trade and postings of an entry are those its digest was made of"

    async def look(self, connection: Connection, scope: Scope) -> Outcome:
        """Stream all entries and hash them anew."""
        rows, violations = 0, 0
        told: list[str] = []
        async for row in connection.cursor(
            _LINES, scope.env, scope.session_id, prefetch=_PREFETCH_ROWS
        ):
            rows += 1
            if _digest(row) != row["digest"]:
                violations += 1
                if len(told) < TOLD_MAX:
                    told.append(f"entry {row['entry_id']}: its content does not meet its digest")
        return Outcome(self.name, self.meaning, rows, 0, violations, tuple(told))


def _digest(row: Any) -> bytes:
    lines = [
        [venue, account, asset, str(Decimal(amount).normalize(_WRITERS_CONTEXT))]
        for venue, account, asset, amount in json.loads(row["lines"])
    ]
    content = [row["kind"], row["symbol"], row["trade_id"], lines]
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="entries.balance",
        meaning="the postings of an entry sum to zero per asset",
        sql=_ENTRY_SUMS,
    ),
    SqlCheck(
        name="assets.balance",
        meaning="all postings of an asset sum to zero",
        sql=_ASSET_SUMS,
    ),
    SqlCheck(
        name="entries.whole",
        meaning="an entry has all its postings, no more, and they name its trade",
        sql=_ENTRY_SHAPES,
    ),
    SqlCheck(
        name="free.totals",
        meaning="what RiskGuard is told to be free is the sum of the postings that say so",
        sql=_FREE_TOTALS,
    ),
    DigestCheck(),
)
