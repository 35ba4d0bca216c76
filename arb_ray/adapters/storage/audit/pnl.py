"""What a trade earned: its postings, its parts, and the rates that both were valued at."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck
from arb_ray.adapters.storage.audit.journal import LEGS, PLANS

# The exit that was taken is the one whose orders carry its instant, or that closed the
# books at its instant when there was nothing to send, or whose orders waited so long that
# they were given up unsent: then the report follows it. A trade without one keeps the
# entry's rate. What is left over is valued at the newest mark; a mark that came too late to
# count is in the journal too, so each stated one is tried.
_NEVER_SENT = """
    SELECT FROM arb.trade_events AS given_up
    WHERE (given_up.env, given_up.trade_id) = ($1, e.trade_id) AND given_up.seq > e.seq
        AND given_up.event->>'type' = 'OrderReported'
        AND given_up.event#>>'{report,status}' = 'cancelled'
        AND NOT EXISTS (
            SELECT FROM arb.orders AS o WHERE (o.env, o.client_order_id)
                = ($1, given_up.event#>>'{report,client_order_id}'))
        AND NOT EXISTS (
            SELECT FROM arb.trade_events AS other
            WHERE (other.env, other.trade_id) = ($1, e.trade_id)
                AND other.seq BETWEEN e.seq + 1 AND given_up.seq
                AND other.event->>'type' IN ('ExitDecided', 'Retry'))"""

_RATES = f"""
    rates AS MATERIALIZED (
        SELECT t.trade_id, t.realized_usdt, t.spread_usdt, t.fx_usdt, t.fees_usdt,
               t.slippage_usdt, t.funding_usdt, t.notional_usdt,
               (plan->>'fx_mid_krw')::numeric AS fx_entry,
               coalesce(x.fx, (plan->>'fx_mid_krw')::numeric) AS fx_exit, m.marks
        FROM arb.trades AS t JOIN ({PLANS}) AS planned USING (trade_id)
        LEFT JOIN LATERAL (
            SELECT (event->>'fx_mid_krw')::numeric AS fx FROM arb.trade_events AS e
            WHERE (e.env, e.trade_id) = ($1, t.trade_id) AND event->>'type' = 'ExitDecided'
                AND ((event->>'at_ns')::bigint = t.closed_ns OR EXISTS (
                    SELECT FROM arb.orders AS o
                    WHERE (o.env, o.trade_id) = ($1, t.trade_id) AND o.purpose = 'exit'
                        AND o.decided_ns = (event->>'at_ns')::bigint)
                    OR EXISTS ({_NEVER_SENT}))
            ORDER BY (event->>'at_ns')::bigint = t.closed_ns, seq LIMIT 1
        ) AS x ON true
        CROSS JOIN LATERAL (
            SELECT array_agg(DISTINCT mark) AS marks FROM (
                SELECT (plan->>'mark_usdt')::numeric AS mark
                UNION ALL
                SELECT (event->>'mark_usdt')::numeric FROM arb.trade_events AS e
                WHERE (e.env, e.trade_id) = ($1, t.trade_id)
                    AND event->>'type' IN ('ExitDecided', 'Retry')) AS stated
        ) AS m
        WHERE t.env = $1 AND t.outcome = 'posted'
    )"""

_REALIZED = f"""
    WITH {_RATES}, booked AS (
        SELECT r.trade_id, count(*) AS postings,
               sum(CASE p.asset WHEN 'USDT' THEN amount
                   WHEN 'KRW' THEN round(round(amount, 30) / fx_exit, 8) ELSE 0 END) AS cash,
               sum(CASE WHEN p.asset IN ('USDT', 'KRW') THEN 0 ELSE amount END) AS base
        FROM rates AS r
        JOIN arb.entries AS e ON (e.env, e.trade_id) = ($1, r.trade_id)
            AND e.kind IN ('fill', 'funding', 'settle_perp', 'dust')
        JOIN arb.postings AS p ON (p.env, p.entry_id) = (e.env, e.entry_id)
            AND p.account IN ('free', 'held', 'position', 'unsettled', 'dust')
        GROUP BY r.trade_id
    )
    SELECT r.trade_id, CASE WHEN v.gap > 0.00000001 * (1 + coalesce(postings, 0)) THEN format(
        'trade %s: %s USDT are realized and its postings are worth %s off', r.trade_id,
        trim_scale(realized_usdt), trim_scale(v.gap)) END AS problem
    FROM rates AS r LEFT JOIN booked AS b USING (trade_id)
    CROSS JOIN LATERAL (
        SELECT min(abs(realized_usdt - coalesce(cash + base * mark, 0))) AS gap
        FROM unnest(marks) AS mark
    ) AS v
"""

_SUMS = """
    SELECT trade_id, CASE
        WHEN outcome = 'posted' AND abs(spread_usdt + fx_usdt + fees_usdt + slippage_usdt
                 + funding_usdt - realized_usdt) > 0.00000001 * (1 + postings) THEN format(
            'trade %s: its parts sum to %s USDT and %s are realized', trade_id,
            trim_scale(spread_usdt + fx_usdt + fees_usdt + slippage_usdt + funding_usdt),
            trim_scale(realized_usdt))
        WHEN outcome = 'voided' AND (realized_usdt <> 0 OR notional_usdt <> 0) THEN format(
            'trade %s: it was voided and realized %s USDT of %s', trade_id,
            trim_scale(realized_usdt), trim_scale(notional_usdt))
        END AS problem
    FROM arb.trades AS t
    LEFT JOIN LATERAL (SELECT count(*) AS postings FROM arb.entries AS e
        JOIN arb.postings AS p USING (env, entry_id)
        WHERE (e.env, e.trade_id) = (t.env, t.trade_id)
            AND e.kind IN ('fill', 'funding', 'settle_perp', 'dust')) AS p ON true
    WHERE env = $1 AND status = 'closed'
"""

# q: what moved, net of a fee taken from it; d: the price decided at; p: the fill's price.
_PARTS = f"""
    WITH {_RATES}, legs AS MATERIALIZED ({LEGS}),
    filled AS (
        SELECT r.trade_id, f.price AS p, o.decision_price AS d, l.quote, l.multiplier,
               CASE o.side WHEN 'buy' THEN 1 ELSE -1 END AS sign,
               o.purpose IN ('entry', 'hedge') AS is_entry,
               CASE WHEN f.fee_asset = l.asset
                   THEN f.qty - round(f.fee_amount, 30) / l.multiplier ELSE f.qty END AS q,
               CASE WHEN f.fee_asset = l.asset
                   THEN round(f.fee_amount, 30) / l.multiplier * f.price
                   ELSE f.fee_amount END AS fee,
               f.price * f.qty AS turnover,
               CASE WHEN l.quote = 'USDT' THEN 1 ELSE round(1, 40) / CASE
                   WHEN o.purpose IN ('entry', 'hedge') THEN fx_entry ELSE fx_exit END END AS rate
        FROM rates AS r JOIN arb.orders AS o ON (o.env, o.trade_id) = ($1, r.trade_id)
        JOIN arb.fills AS f USING (env, client_order_id)
        JOIN legs AS l ON (l.trade_id, l.instrument) = (r.trade_id, o.instrument)
    ), sums AS (
        SELECT trade_id, sum(-sign * d * q * rate) AS spread,
               sum(-sign * (p - d) * q * rate) AS slippage, sum(-fee * rate) AS fees,
               sum(sign * q * multiplier) AS residual,
               sum(-(sign * p * q + fee)) FILTER (WHERE quote = 'KRW' AND is_entry) AS entry_krw,
               sum(turnover * rate) AS turnover
        FROM filled GROUP BY trade_id
    ), funded AS (
        SELECT e.trade_id, sum(amount) AS funding
        FROM arb.entries AS e JOIN arb.postings AS p USING (env, entry_id)
        WHERE e.env = $1 AND e.kind = 'funding' AND account = 'held' GROUP BY e.trade_id
    ), anew AS (
        SELECT r.*, coalesce(spread, 0) AS spread, coalesce(slippage, 0) AS slippage,
               coalesce(fees, 0) AS fees, coalesce(residual, 0) AS residual,
               coalesce(turnover, 0) AS turnover, coalesce(funding, 0) AS funding,
               coalesce(entry_krw, 0) * (round(1, 40) / fx_exit - round(1, 40) / fx_entry) AS fx
        FROM rates AS r LEFT JOIN sums USING (trade_id) LEFT JOIN funded USING (trade_id)
    )
    SELECT trade_id, CASE
        WHEN (SELECT min(abs(spread + residual * mark - spread_usdt)) FROM unnest(marks) AS mark)
                > 1e-12 THEN format('trade %s: its spread is %s USDT, its orders say %s', trade_id,
            trim_scale(spread_usdt), trim_scale(round(spread + residual * marks[1], 16)))
        WHEN abs(fx - fx_usdt) > 1e-12 THEN format(
            'trade %s: its FX part is %s USDT, its fills say %s', trade_id, trim_scale(fx_usdt),
            trim_scale(round(fx, 16)))
        WHEN abs(fees - fees_usdt) > 1e-12 THEN format(
            'trade %s: its fees are %s USDT, its fills say %s', trade_id, trim_scale(fees_usdt),
            trim_scale(round(fees, 16)))
        WHEN abs(slippage - slippage_usdt) > 1e-12 THEN format(
            'trade %s: its slippage is %s USDT, its fills say %s', trade_id,
            trim_scale(slippage_usdt), trim_scale(round(slippage, 16)))
        WHEN funding <> funding_usdt THEN format(
            'trade %s: its funding is %s USDT, its payments say %s', trade_id,
            trim_scale(funding_usdt), trim_scale(funding))
        WHEN abs(turnover - notional_usdt) > 0.00000001 THEN format(
            'trade %s: its turnover is %s USDT, its fills say %s', trade_id,
            trim_scale(notional_usdt), trim_scale(round(turnover, 8)))
        END AS problem
    FROM anew
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="pnl.postings",
        meaning="realized PnL is what the trade's postings are worth, KRW at F's mid of its exit",
        sql=_REALIZED,
    ),
    SqlCheck(
        name="pnl.sum",
        meaning="spread, FX, fees, slippage and funding sum to the realized PnL",
        sql=_SUMS,
    ),
    SqlCheck(
        name="pnl.parts",
        meaning="each part of the PnL is what orders, fills and payments say by themselves",
        sql=_PARTS,
    ),
)
