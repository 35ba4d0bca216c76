"""The journal: whole, begun by a plan, and of one mind with the ledger."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck

PLANS = """
    SELECT trade_id, (event::jsonb)->'plan' AS plan FROM arb.trade_events
    WHERE env = $1 AND seq = 0 AND event->>'type' = 'Signal' OFFSET 0
"""
"""Each trade's plan: the first event of its journal. OFFSET 0 keeps PostgreSQL from parsing the
event again at each mention of it."""

LEGS = f"""
    SELECT trade_id, leg->'instrument'->>'id' AS instrument,
           leg->'instrument'->>'asset' AS asset, leg->'instrument'->>'quote' AS quote,
           leg->'instrument'->>'venue' AS venue, leg->'instrument'->>'kind' AS kind,
           leg->'instrument'->>'venue_symbol' AS venue_symbol,
           (leg->'instrument'->>'multiplier')::numeric AS multiplier,
           leg->'rules' AS rules, leg->'fees' AS fees
    FROM ({PLANS}) AS planned,
         LATERAL (VALUES (plan->'a'->'leg'), (plan->'b'->'leg')) AS legs(leg) OFFSET 0
"""
"""Both markets of each trade, with the rules and fees that its plan states."""

_EVENTS = """
    SELECT trade_id, CASE
        WHEN first <> 0 OR last <> count - 1 THEN format(
            'trade %s: its journal has %s events numbered %s to %s', trade_id, count, first, last)
        WHEN symbols > 1 THEN format('trade %s: its journal names %s symbols', trade_id, symbols)
        WHEN head <> 'Signal' THEN format(
            'trade %s: its journal begins with %s, not with a plan', trade_id, head)
        WHEN signals <> 1 THEN format('trade %s: its journal has %s plans', trade_id, signals)
        WHEN strange IS NOT NULL THEN format(
            'trade %s: its journal has an event of unknown type %L', trade_id, strange)
        WHEN schemas > 0 THEN format(
            'trade %s: its journal is of a schema that this audit does not know', trade_id)
        WHEN last_move > first_end THEN format(
            'trade %s: its journal goes on after it was settled', trade_id)
        END AS problem
    FROM (
        SELECT trade_id, count(*) AS count, min(seq) AS first, max(seq) AS last,
               count(DISTINCT symbol) AS symbols,
               coalesce(max(type) FILTER (WHERE seq = 0), 'nothing') AS head,
               count(*) FILTER (WHERE type = 'Signal') AS signals,
               min(seq) FILTER (WHERE type = 'Settled') AS first_end,
               max(seq) FILTER (WHERE type IN (
                   'EdgeConfirmed', 'EdgeGone', 'ExitDecided')) AS last_move,
               min(coalesce(type, 'none')) FILTER (WHERE type IS NULL OR type NOT IN (
                   'Signal', 'ReserveAnswered', 'ReserveUnanswered', 'EdgeConfirmed', 'EdgeGone',
                   'OrderReported', 'QueryAnswered', 'FundingPaid', 'ExitDecided', 'Retry',
                   'Settled')) AS strange,
               count(*) FILTER (WHERE schema <> 1 OR event_schema <> '1') AS schemas
        FROM (SELECT *, event->>'type' AS type, event->>'schema' AS event_schema
              FROM arb.trade_events WHERE env = $1 OFFSET 0) AS typed
        GROUP BY trade_id
    ) AS journal
"""

_PLANS_FIT = f"""
    SELECT planned.trade_id, CASE
        WHEN plan->>'trade_id' IS DISTINCT FROM planned.trade_id
            OR plan->>'symbol' IS DISTINCT FROM e.symbol
            THEN format('trade %s: its plan is that of %s on %s', planned.trade_id,
                        plan->>'trade_id', plan->>'symbol')
        WHEN (plan->>'owner_epoch')::bigint IS DISTINCT FROM e.owner_epoch THEN format(
            'trade %s: its plan is of owner epoch %s and was written under %s',
            planned.trade_id, plan->>'owner_epoch', e.owner_epoch)
        WHEN planned.trade_id NOT LIKE '%:' || e.symbol || ':' || (plan->>'number') THEN format(
            'trade %s: its plan has the number %s', planned.trade_id, plan->>'number')
        WHEN coalesce(n.last_number, 0) < (plan->>'number')::bigint THEN format(
            'trade %s: only %s numbers of %s were ever given out', planned.trade_id,
            coalesce(n.last_number, 0), e.symbol)
        WHEN r.trade_id IS NOT NULL AND (
                (plan->>'worst_loss_usdt')::numeric <> r.worst_loss_usdt
                OR (plan->>'notional_usdt')::numeric <> r.notional_usdt
                OR plan->'holds' <> (r.intent::jsonb)->'holds'
                OR plan->>'direction' <> r.intent->>'direction')
            THEN format('trade %s: its reservation is not the one that its plan asked for',
                        planned.trade_id)
        END AS problem
    FROM ({PLANS}) AS planned
    JOIN arb.trade_events AS e ON (e.env, e.trade_id, e.seq) = ($1, planned.trade_id, 0)
    LEFT JOIN arb.trade_numbers AS n ON (n.env, n.symbol) = ($1, e.symbol)
    LEFT JOIN arb.reservations AS r ON (r.env, r.trade_id) = ($1, planned.trade_id)
"""

_MARKETS = f"""
    SELECT trade_id, CASE
        WHEN instrument IS DISTINCT FROM venue || ':' || asset || '-' || quote
                || CASE kind WHEN 'perp' THEN '-PERP' ELSE '' END
            THEN format('trade %s: market %s says that it is %s %s-%s on %s', trade_id,
                        instrument, kind, asset, quote, venue)
        WHEN asset IS DISTINCT FROM split_part(split_part(instrument, ':', 2), '-', 1)
            THEN format('trade %s: market %s is of asset %s', trade_id, instrument, asset)
        WHEN multiplier IS DISTINCT FROM
                coalesce(substring(venue_symbol FROM '^(10{{3,6}})[A-Z]')::numeric, 1)
            THEN format('trade %s: market %s has multiplier %s and is called %s', trade_id,
                        instrument, multiplier, venue_symbol)
        END AS problem
    FROM ({LEGS}) AS legs
"""

# An order that was never sent, or is not known, is told in the journal only; what was
# filled is told in both, or money moved that the strategy does not know of.
_FILLS_AGREE = """
    WITH stored AS MATERIALIZED (
        SELECT o.trade_id, f.fill_id, f.client_order_id, f.price, f.qty, f.fee_amount,
               f.fee_asset, f.at_ns, t.status
        FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)
        LEFT JOIN arb.trades AS t ON (t.env, t.trade_id) = (o.env, o.trade_id)
        WHERE f.env = $1
    ), journaled AS MATERIALIZED (
        SELECT DISTINCT trade_id, fill->>'fill_id' AS fill_id,
               fill->>'client_order_id' AS client_order_id, (fill->>'price')::numeric AS price,
               (fill->>'qty')::numeric AS qty, (fill->'fee'->>'amount')::numeric AS fee_amount,
               fill->'fee'->>'asset' AS fee_asset, (fill->>'at_ns')::bigint AS at_ns
        FROM (SELECT trade_id, event::jsonb AS event FROM arb.trade_events
              WHERE env = $1 AND event->>'type' IN ('OrderReported', 'QueryAnswered')) AS told,
             jsonb_array_elements(coalesce(nullif(event->'report', 'null')->'fills', '[]')) AS fill
    )
    SELECT coalesce(s.trade_id, j.trade_id) AS trade_id, CASE
        WHEN s.fill_id IS NULL THEN format(
            'fill %s: the journal of trade %s has it and the ledger does not', j.fill_id,
            j.trade_id)
        WHEN j.fill_id IS NULL AND s.status = 'closed' THEN format(
            'fill %s: the ledger has it and the journal of trade %s does not', s.fill_id,
            s.trade_id)
        WHEN j.fill_id IS NOT NULL AND (s.client_order_id, s.price, s.qty, s.fee_amount,
              s.fee_asset, s.at_ns) IS DISTINCT FROM
             (j.client_order_id, j.price, j.qty, j.fee_amount, j.fee_asset, j.at_ns) THEN format(
            'fill %s: %s at %s in the ledger, %s at %s in the journal, or fee or instant differ',
            s.fill_id, trim_scale(s.qty), trim_scale(s.price), trim_scale(j.qty),
            trim_scale(j.price))
        END AS problem
    FROM stored AS s FULL JOIN journaled AS j USING (trade_id, fill_id)
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="journal.whole",
        meaning="a trade's events are numbered from 0 without a gap and begin with its plan",
        sql=_EVENTS,
    ),
    SqlCheck(
        name="journal.plan",
        meaning="a plan is of its own trade, under a number that was given out, and what was"
        " reserved is what it asked for",
        sql=_PLANS_FIT,
    ),
    SqlCheck(
        name="journal.markets",
        meaning="the markets of a plan are what their names say, multiplier included",
        sql=_MARKETS,
    ),
    SqlCheck(
        name="journal.fills",
        meaning="the journal and the ledger tell of the same fills",
        sql=_FILLS_AGREE,
    ),
)
