"""Trades are complete: each has its reservation, outcome, orders and fills, and one at a time."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck
from arb_ray.adapters.storage.audit.journal import PLANS

_TRADES = """
    SELECT t.trade_id, CASE
        WHEN r.trade_id IS NULL THEN format('trade %s: it has no reservation', t.trade_id)
        WHEN r.symbol <> t.symbol THEN format(
            'trade %s: it is on %s and its reservation on %s', t.trade_id, t.symbol, r.symbol)
        WHEN r.granted_ns <> t.opened_ns THEN format(
            'trade %s: it was opened at %s and granted at %s', t.trade_id, t.opened_ns,
            r.granted_ns)
        WHEN t.status = 'open' AND o.trade_id IS NOT NULL THEN format(
            'trade %s: it is open and its reservation was %s', t.trade_id, o.kind)
        WHEN t.status = 'closed' AND o.trade_id IS NULL THEN format(
            'trade %s: it is closed and its reservation has no outcome', t.trade_id)
        WHEN t.status = 'closed' AND (o.kind, o.closed_ns, o.symbol) IS DISTINCT FROM
                (t.outcome, t.closed_ns, t.symbol) THEN format(
            'trade %s: it was %s at %s, and its reservation was %s at %s', t.trade_id, t.outcome,
            t.closed_ns, o.kind, o.closed_ns)
        WHEN h.entry_id IS NULL AND jsonb_array_length((r.intent::jsonb)->'holds') > 0 THEN format(
            'trade %s: nothing was ever held for it', t.trade_id)
        WHEN j.trade_id IS NULL THEN format('trade %s: it has no journal', t.trade_id)
        WHEN t.schema <> 1 THEN format(
            'trade %s: it is of a schema that this audit does not know', t.trade_id)
        END AS problem
    FROM arb.trades AS t
    LEFT JOIN arb.reservations AS r USING (env, trade_id)
    LEFT JOIN arb.reservation_outcomes AS o USING (env, trade_id)
    LEFT JOIN arb.entries AS h ON (h.env, h.entry_id) = (t.env, 'hold:' || t.trade_id)
    LEFT JOIN arb.trade_events AS j ON (j.env, j.trade_id, j.seq) = (t.env, t.trade_id, 0)
    WHERE t.env = $1
"""

_RESERVATIONS = """
    SELECT trade_id, CASE WHEN t.trade_id IS NULL THEN format(
        'reservation %s: it was granted and there is no such trade', trade_id) END AS problem
    FROM arb.reservations AS r LEFT JOIN arb.trades AS t USING (env, trade_id) WHERE env = $1
"""

_OUTCOMES = """
    SELECT trade_id, CASE
        WHEN r.trade_id IS NULL AND o.kind = 'posted' THEN format(
            'outcome of %s: it was posted and never granted', trade_id)
        WHEN r.trade_id IS NOT NULL AND o.kind = 'refused' THEN format(
            'outcome of %s: it was granted and refused', trade_id)
        WHEN o.kind <> 'posted' AND o.realized_usdt <> 0 THEN format(
            'outcome of %s: it was %s and realized %s USDT', trade_id, o.kind,
            trim_scale(o.realized_usdt))
        WHEN r.recorded_ns > o.recorded_ns THEN format(
            'outcome of %s: it was written before its reservation', trade_id)
        WHEN o.schema <> 1 THEN format(
            'outcome of %s: it is of a schema that this audit does not know', trade_id)
        END AS problem
    FROM arb.reservation_outcomes AS o LEFT JOIN arb.reservations AS r USING (env, trade_id)
    WHERE env = $1
"""

_ORDERS = """
    SELECT o.trade_id, CASE
        WHEN t.trade_id IS NULL THEN format(
            'order %s: there is no trade %s', o.client_order_id, o.trade_id)
        WHEN t.symbol <> o.symbol THEN format(
            'order %s: it is on %s and its trade on %s', o.client_order_id, o.symbol, t.symbol)
        WHEN t.outcome = 'voided' THEN format(
            'order %s: its trade was voided, so none could be sent', o.client_order_id)
        WHEN t.status = 'closed' AND p.client_order_id IS NULL THEN format(
            'order %s: its trade is closed and it has no last word', o.client_order_id)
        WHEN p.status IN ('filled', 'partial', 'cancelled', 'rejected') AND p.status <> CASE
                WHEN coalesce(f.qty, 0) = o.qty THEN 'filled'
                WHEN coalesce(f.qty, 0) > 0 THEN 'partial'
                WHEN p.status = 'rejected' THEN 'rejected' ELSE 'cancelled' END THEN format(
            'order %s: %s of %s were filled and its last word is %s', o.client_order_id,
            trim_scale(coalesce(f.qty, 0)), trim_scale(o.qty), p.status)
        WHEN p.client_order_id IS NULL AND f.qty > 0 THEN format(
            'order %s: it has fills and no last word', o.client_order_id)
        WHEN l.instrument IS NULL AND j.trade_id IS NOT NULL THEN format(
            'order %s: market %s is not of its trade', o.client_order_id, o.instrument)
        END AS problem
    FROM arb.orders AS o
    LEFT JOIN arb.trades AS t USING (env, trade_id)
    LEFT JOIN arb.order_reports AS p USING (env, client_order_id)
    LEFT JOIN (SELECT client_order_id, sum(qty) AS qty FROM arb.fills WHERE env = $1
               GROUP BY client_order_id) AS f USING (client_order_id)
    LEFT JOIN LATERAL (SELECT trade_id, event FROM arb.trade_events AS e
               WHERE (e.env, e.trade_id, e.seq) = (o.env, o.trade_id, 0)) AS j ON true
    LEFT JOIN LATERAL (SELECT o.instrument WHERE o.instrument IN (
               j.event #>> '{plan,a,leg,instrument,id}',
               j.event #>> '{plan,b,leg,instrument,id}')) AS l ON true
    WHERE o.env = $1
"""

_REPORTS = """
    SELECT o.trade_id, CASE WHEN o.client_order_id IS NULL THEN format(
        'report of %s: there is no such order', p.client_order_id) END AS problem
    FROM arb.order_reports AS p LEFT JOIN arb.orders AS o USING (env, client_order_id)
    WHERE env = $1
"""

_FILLS = """
    SELECT o.trade_id, CASE
        WHEN o.client_order_id IS NULL THEN format(
            'fill %s: there is no order %s', f.fill_id, f.client_order_id)
        WHEN p.client_order_id IS NULL THEN format(
            'fill %s: order %s has no last word', f.fill_id, f.client_order_id)
        WHEN f.at_ns <> p.at_ns THEN format(
            'fill %s: it is of %s and its report of %s', f.fill_id, f.at_ns, p.at_ns)
        END AS problem
    FROM arb.fills AS f
    LEFT JOIN arb.orders AS o USING (env, client_order_id)
    LEFT JOIN arb.order_reports AS p USING (env, client_order_id)
    WHERE env = $1
"""

_HELD = """
    SELECT t.trade_id, CASE WHEN p.amount <> 0 THEN format(
        'trade %s: it is closed and %s %s are still on %s of %s', t.trade_id,
        trim_scale(p.amount), p.asset, p.account, p.venue) END AS problem
    FROM arb.trades AS t LEFT JOIN (
        SELECT trade_id, venue, account, asset, sum(amount) AS amount FROM arb.postings
        WHERE env = $1 AND account IN ('held', 'position', 'unsettled')
        GROUP BY trade_id, venue, account, asset
    ) AS p USING (trade_id)
    WHERE env = $1 AND status = 'closed'
"""

# The instants are the database's own, written inside the transactions that a unique index
# and the guard's lease put in order: from the grant to the settlement.
_OVERLAPS = """
    SELECT trade_id, CASE WHEN former_end > granted THEN format(
        'symbol %s: %s was granted while %s was open', symbol, trade_id, former)
        END AS problem
    FROM (
        SELECT trade_id, symbol, granted,
               lag(trade_id) OVER of_symbol AS former, lag(ended) OVER of_symbol AS former_end
        FROM (
            SELECT t.trade_id, t.symbol, coalesce(r.recorded_ns, t.opened_ns) AS granted,
                   CASE WHEN t.status = 'open' THEN 9223372036854775807
                        ELSE coalesce(o.recorded_ns, t.closed_ns) END AS ended
            FROM arb.trades AS t
            LEFT JOIN arb.reservations AS r USING (env, trade_id)
            LEFT JOIN arb.reservation_outcomes AS o USING (env, trade_id)
            WHERE env = $1
        ) AS lives
        WINDOW of_symbol AS (PARTITION BY symbol ORDER BY granted, trade_id)
    ) AS pairs
"""

# A trade takes along what the dust account held when it was granted, but no more than its own
# size; between two trades of a symbol nothing moves it. Of two rows of one instant the entry of
# the trade before came first.
_DUST = f"""
    WITH moves AS (
        SELECT p.venue, p.asset, e.recorded_ns, 0 AS is_grant, p.amount, NULL::text AS trade_id,
               NULL::numeric AS taken, NULL::numeric AS most
        FROM arb.postings AS p JOIN arb.entries AS e USING (env, entry_id)
        WHERE env = $1 AND account = 'dust'
        UNION ALL
        SELECT leg #>> '{{leg,instrument,venue}}', leg #>> '{{leg,instrument,asset}}',
               r.recorded_ns, 1, 0, r.trade_id, coalesce(dust, 0),
               (leg->>'qty')::numeric * (leg #>> '{{leg,instrument,multiplier}}')::numeric
        FROM arb.reservations AS r JOIN ({PLANS}) AS planned USING (trade_id),
             LATERAL (VALUES (plan->'a', (plan->>'dust_a')::numeric),
                             (plan->'b', (plan->>'dust_b')::numeric)) AS legs(leg, dust)
        WHERE r.env = $1 AND plan ? 'dust_a'
    ), running AS (
        SELECT *, sum(amount) OVER (PARTITION BY venue, asset
                                    ORDER BY recorded_ns, is_grant) AS found
        FROM moves
    )
    SELECT trade_id, CASE WHEN taken <> greatest(-most, least(found, most)) THEN format(
        'trade %s: it takes %s %s of dust along at %s, where %s are left', trade_id,
        trim_scale(taken), asset, venue, trim_scale(found)) END AS problem
    FROM running WHERE is_grant = 1
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="trades.complete",
        meaning="a trade has its reservation, its hold, its journal and, once closed, its outcome",
        sql=_TRADES,
    ),
    SqlCheck(
        name="reservations.trade",
        meaning="a granted reservation has its trade",
        sql=_RESERVATIONS,
    ),
    SqlCheck(
        name="outcomes.reservation",
        meaning="a posted outcome has its reservation, and only a posted one realizes anything",
        sql=_OUTCOMES,
    ),
    SqlCheck(
        name="orders.trade",
        meaning="an order has its trade, is on its markets, and ends as its fills say",
        sql=_ORDERS,
    ),
    SqlCheck(name="reports.order", meaning="a last word has its order", sql=_REPORTS),
    SqlCheck(
        name="fills.order",
        meaning="a fill has its order, and the last word that told of it",
        sql=_FILLS,
    ),
    SqlCheck(
        name="trades.released",
        meaning="nothing is held, in position or unsettled for a closed trade",
        sql=_HELD,
    ),
    SqlCheck(
        name="trades.dust",
        meaning="a trade takes along what earlier ones left, all of it up to its own size",
        sql=_DUST,
    ),
    SqlCheck(
        name="trades.one_open",
        meaning="no two trades of a symbol were open at any instant",
        sql=_OVERLAPS,
    ),
)
