"""Balances: every posting is what a fill, hold, release, settlement, payment or opening says."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck
from arb_ray.adapters.storage.audit.journal import LEGS, PLANS

# What each fill moves: base in, quote out, and the fee. A perpetual's base and quote wait
# in ``position`` and ``unsettled``; quantities are in the venue's units there.
_MOVED = f"""
    legs AS MATERIALIZED ({LEGS}),
    filled AS MATERIALIZED (
        SELECT o.trade_id, f.fill_id, split_part(o.instrument, ':', 1) AS venue,
               split_part(split_part(o.instrument, ':', 2), '-', 1) AS asset,
               split_part(split_part(o.instrument, ':', 2), '-', 2) AS quote,
               o.instrument LIKE '%-PERP' AS is_perp, f.at_ns, f.fee_asset, f.fee_amount,
               CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END AS signed_qty,
               CASE o.side WHEN 'buy' THEN f.qty ELSE -f.qty END
                   * coalesce(l.multiplier, 1) AS base,
               CASE o.side WHEN 'buy' THEN -f.qty ELSE f.qty END * f.price AS cash
        FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)
        LEFT JOIN legs AS l USING (trade_id, instrument)
        WHERE f.env = $1
    ), left_over AS MATERIALIZED (
        SELECT trade_id, venue, asset, quote, is_perp, sum(cash) AS cash,
               sum(base - CASE WHEN fee_asset = asset THEN fee_amount ELSE 0 END) AS base
        FROM filled GROUP BY trade_id, venue, asset, quote, is_perp
    ), closing AS MATERIALIZED (
        -- The closing entries are there a moment before the settlement, and must be after it.
        SELECT trade_id FROM arb.trades WHERE env = $1 AND outcome = 'posted'
        UNION
        SELECT trade_id FROM arb.entries WHERE env = $1 AND kind IN ('settle_perp', 'dust')
    ), payments AS MATERIALIZED (
        SELECT DISTINCT ON (e.trade_id, funding_ns) e.trade_id, funding_ns, l.venue, l.quote,
               -held.qty * mark * rate * 100000000 AS quanta
        FROM (SELECT trade_id, seq, (event->>'funding_ns')::bigint AS funding_ns,
                     (event->>'mark_price')::numeric AS mark, (event->>'rate')::numeric AS rate
              FROM arb.trade_events WHERE env = $1 AND event->>'type' = 'FundingPaid') AS e
        JOIN legs AS l ON l.trade_id = e.trade_id AND l.kind = 'perp'
        JOIN LATERAL (SELECT sum(signed_qty) AS qty FROM filled AS f
            WHERE f.trade_id = e.trade_id AND f.is_perp AND f.at_ns <= funding_ns) AS held
            ON held.qty <> 0
        -- The journal has a payment a moment before the ledger does, until the trade closes.
        WHERE e.trade_id IN (SELECT trade_id FROM closing) OR EXISTS (
            SELECT FROM arb.entries AS p
            WHERE p.env = $1 AND p.entry_id = 'funding:' || e.trade_id || ':' || funding_ns)
        ORDER BY e.trade_id, funding_ns, seq
    )"""

# (entry, from, to, amount): each moves an amount from one account of a venue to another.
_EXPECTED = f"""
    {_MOVED}, moves AS (
        SELECT 'fill:' || fill_id AS entry_id, trade_id, venue, asset, 'market' AS source,
               CASE WHEN is_perp THEN 'position' ELSE 'held' END AS target, base AS amount
        FROM filled
        UNION ALL
        SELECT 'fill:' || fill_id, trade_id, venue, quote, 'market',
               CASE WHEN is_perp THEN 'unsettled' ELSE 'held' END, cash
        FROM filled
        UNION ALL
        SELECT 'fill:' || fill_id, trade_id, venue, fee_asset, 'held', 'fees', fee_amount
        FROM filled
        UNION ALL
        SELECT 'hold:' || trade_id, trade_id, hold->>'venue', hold->>'asset', 'free', 'held',
               (hold->>'amount')::numeric
        FROM arb.reservations, jsonb_array_elements((intent::jsonb)->'holds') AS hold
        WHERE env = $1
        UNION ALL
        SELECT 'settle_perp:' || trade_id, trade_id, venue, quote, 'unsettled', 'held', cash
        FROM left_over JOIN closing USING (trade_id) WHERE is_perp
        UNION ALL
        SELECT 'dust:' || trade_id || ':' || venue, trade_id, venue, asset,
               CASE WHEN is_perp THEN 'position' ELSE 'held' END, 'dust', base
        FROM left_over JOIN closing USING (trade_id) JOIN ({PLANS}) AS planned USING (trade_id)
        -- Plans that say nothing of dust are older than the booking of what is owed.
        WHERE is_perp OR base > 0 OR plan ? 'dust_a'
        UNION ALL
        SELECT 'funding:' || trade_id || ':' || funding_ns, trade_id, venue, quote, 'funding',
               'held',
               CASE WHEN abs(quanta - trunc(quanta)) = 0.5 THEN 2 * round(quanta / 2)
                    ELSE round(quanta) END / 100000000
        FROM payments
    ), expected AS (
        SELECT entry_id, trade_id, venue, asset, account, sum(amount) AS amount
        FROM (SELECT entry_id, trade_id, venue, asset, target AS account, amount FROM moves
              UNION ALL
              SELECT entry_id, trade_id, venue, asset, source, -amount FROM moves) AS sides
        GROUP BY entry_id, trade_id, venue, asset, account
    ), released AS (
        -- Whatever the other entries leave on ``held`` of a closed trade goes to ``free``.
        SELECT 'release:' || e.trade_id AS entry_id, e.trade_id, venue, asset, sum(amount) AS amount
        FROM expected AS e JOIN arb.trades AS t ON (t.env, t.trade_id) = ($1, e.trade_id)
        WHERE account = 'held' AND status = 'closed' GROUP BY e.trade_id, venue, asset
    ), explained AS MATERIALIZED (
        SELECT entry_id, trade_id, venue, asset, account, amount FROM expected
        UNION ALL SELECT entry_id, trade_id, venue, asset, 'held', -amount FROM released
        UNION ALL SELECT entry_id, trade_id, venue, asset, 'free', amount FROM released
    )"""

_POSTINGS = f"""
    WITH {_EXPECTED}, booked AS MATERIALIZED (
        SELECT entry_id, max(trade_id) AS trade_id, venue, asset, account, sum(amount) AS amount
        FROM arb.postings
        WHERE env = $1 AND entry_id NOT IN (
            SELECT entry_id FROM arb.entries WHERE env = $1 AND kind = 'opening')
        GROUP BY entry_id, venue, asset, account
    )
    SELECT coalesce(b.trade_id, e.trade_id) AS trade_id,
           CASE WHEN coalesce(b.amount, 0) <> coalesce(e.amount, 0) THEN format(
               'entry %s: %s %s on %s of %s are booked where %s are explained', entry_id,
               trim_scale(coalesce(b.amount, 0)), asset, account, venue,
               trim_scale(coalesce(e.amount, 0))) END AS problem
    FROM booked AS b FULL JOIN explained AS e USING (entry_id, venue, asset, account)
    WHERE e.amount IS NULL OR e.amount <> 0 OR coalesce(b.amount, 0) <> 0
"""

_BALANCES = f"""
    WITH {_EXPECTED}, opened AS (
        SELECT venue, asset, account, sum(amount) AS amount
        FROM arb.postings JOIN arb.entries USING (env, entry_id)
        WHERE env = $1 AND kind = 'opening' AND account IN ('free', 'opening')
        GROUP BY venue, asset, account
    ), wanted AS (
        SELECT venue, asset, account, sum(amount) AS amount
        FROM (SELECT venue, asset, account, amount FROM explained
              UNION ALL SELECT venue, asset, account, amount FROM opened) AS parts
        GROUP BY venue, asset, account
    )
    SELECT NULL::text AS trade_id,
           CASE WHEN coalesce(b.amount, 0) <> coalesce(w.amount, 0) THEN format(
               'balance of %s on %s at %s: the ledger says %s, opening, fills, fees and funding '
               'say %s', asset, account, venue, trim_scale(coalesce(b.amount, 0)),
               trim_scale(coalesce(w.amount, 0))) END AS problem
    FROM (SELECT venue, account, asset, amount FROM arb.balances WHERE env = $1) AS b
    FULL JOIN wanted AS w USING (venue, asset, account)
"""

_KINDS = """
    SELECT e.trade_id, CASE
        WHEN kind NOT IN ('opening', 'hold', 'release', 'fill', 'funding', 'settle_perp', 'dust')
            THEN format('entry %s: nobody knows its kind %L', entry_id, kind)
        WHEN split_part(entry_id, ':', 1) <> kind THEN format(
            'entry %s: it is of kind %s', entry_id, kind)
        WHEN (kind = 'opening') <> (e.trade_id IS NULL) THEN format(
            'entry %s: it names the trade %s', entry_id, coalesce(e.trade_id, 'none'))
        WHEN e.trade_id IS NOT NULL AND t.trade_id IS NULL THEN format(
            'entry %s: there is no trade %s', entry_id, e.trade_id)
        WHEN e.trade_id IS NOT NULL AND e.symbol IS DISTINCT FROM t.symbol THEN format(
            'entry %s: it is on %s and its trade on %s', entry_id, e.symbol, t.symbol)
        END AS problem
    FROM arb.entries AS e LEFT JOIN arb.trades AS t USING (env, trade_id) WHERE env = $1
"""

# The digest of an entry leaves its instant out, and an accountant's day depends on it.
_DATES = """
    SELECT e.trade_id, CASE WHEN e.at_ns <> due.at_ns THEN format(
        'entry %s: it is dated %s, and what it books %s', entry_id, e.at_ns, due.at_ns)
        END AS problem
    FROM arb.entries AS e
    LEFT JOIN arb.fills AS f ON (f.env, 'fill:' || f.fill_id) = (e.env, e.entry_id)
    LEFT JOIN arb.trades AS t ON (t.env, t.trade_id) = (e.env, e.trade_id)
    CROSS JOIN LATERAL (SELECT CASE e.kind
        WHEN 'fill' THEN f.at_ns
        WHEN 'hold' THEN t.opened_ns
        WHEN 'funding' THEN substring(entry_id FROM ':([0-9]{1,19})$')::bigint
        WHEN 'opening' THEN NULL
        ELSE t.closed_ns END AS at_ns) AS due
    WHERE e.env = $1
"""

_OPENINGS = """
    SELECT NULL::text AS trade_id, CASE
        WHEN entries > 1 THEN format(
            'opening of %s at %s: it was booked %s times', asset, venue, entries)
        WHEN strange > 0 THEN format(
            'opening of %s at %s: it touches other accounts than free and opening', asset, venue)
        WHEN amount < 0 THEN format(
            'opening of %s at %s: it is negative, %s', asset, venue, trim_scale(amount))
        END AS problem
    FROM (
        SELECT venue, asset, count(DISTINCT entry_id) AS entries,
               count(*) FILTER (WHERE account NOT IN ('free', 'opening')) AS strange,
               sum(amount) FILTER (WHERE account = 'free') AS amount
        FROM arb.postings JOIN arb.entries USING (env, entry_id)
        WHERE env = $1 AND kind = 'opening' GROUP BY venue, asset
    ) AS openings
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="entries.kind",
        meaning="an entry's id, kind, trade and symbol fit together",
        sql=_KINDS,
    ),
    SqlCheck(
        name="entries.dated",
        meaning="an entry is dated as the fill, grant, payment or close that it books",
        sql=_DATES,
    ),
    SqlCheck(
        name="postings.explained",
        meaning="every posting is what a fill, fee, hold, release, settlement or funding moved",
        sql=_POSTINGS,
    ),
    SqlCheck(
        name="balances.replayed",
        meaning="balances equal the opening and everything that was filled, paid and held since",
        sql=_BALANCES,
    ),
    SqlCheck(
        name="openings.once",
        meaning="each market was given an opening balance once, out of nothing but the opening",
        sql=_OPENINGS,
    ),
)
