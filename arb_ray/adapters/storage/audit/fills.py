"""Fills: on the grid, inside the book that was kept with them, at the fee of the day."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck
from arb_ray.adapters.storage.audit.journal import LEGS

FEES = (
    # venue, in force from (ns UTC, 0: ever since), taker bps, what it is taken from
    ("upbit", 0, "5", "quote"),
    ("binance_spot", 0, "10", "received"),
    ("binance_usdm", 0, "5", "quote"),
)
"""The venues' public taker fees for accounts without a tier, from their fee pages."""

_SCHEDULE = ", ".join(
    f"('{venue}', {from_ns}::bigint, {bps}::numeric, '{asset}')"
    for venue, from_ns, bps, asset in FEES
)

# The plan says which fee was in force when the trade began. One that was configured (an
# account with a tier) is believed; one that was read from a table must be that of this one.
_FEES = f"""
    WITH legs AS MATERIALIZED ({LEGS}),
    due AS (
        SELECT o.trade_id, f.fill_id, f.fee_amount, f.fee_asset, f.price, f.qty, o.side, l.fees,
               (l.fees->>'taker_bps')::numeric AS bps, l.asset, l.quote, l.multiplier,
               l.fees->>'fee_asset' = 'received' AND o.side = 'buy' AS in_base,
               s.bps AS table_bps, s.taken_from, l.instrument IS NULL AS is_unknown
        FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)
        LEFT JOIN legs AS l USING (trade_id, instrument)
        LEFT JOIN LATERAL (
            SELECT bps, taken_from
            FROM (VALUES {_SCHEDULE}) AS t(venue, from_ns, bps, taken_from)
            WHERE t.venue = l.venue AND t.from_ns <= f.at_ns ORDER BY from_ns DESC LIMIT 1
        ) AS s ON true
        WHERE f.env = $1
    ), owed AS (
        SELECT *, CASE WHEN in_base
            THEN ceil(qty * multiplier * bps / 10000 * 100000000) / 100000000
            ELSE ceil(price * qty * bps / 10000 * 100000000) / 100000000 END AS amount,
            CASE WHEN in_base THEN asset ELSE quote END AS owed_asset
        FROM due
    )
    SELECT trade_id, is_unknown OR table_bps IS NULL AS unchecked, CASE
        WHEN is_unknown THEN NULL
        WHEN fees->>'source' <> 'configuration'
                AND (bps, fees->>'fee_asset') IS DISTINCT FROM (table_bps, taken_from) THEN format(
            'fill %s: its plan says a fee of %s bps from %s, the schedule %s bps from %s', fill_id,
            trim_scale(bps), fees->>'fee_asset', trim_scale(table_bps), taken_from)
        WHEN (fee_amount, fee_asset) IS DISTINCT FROM (amount, owed_asset) THEN format(
            'fill %s: a fee of %s %s was booked where %s %s are due', fill_id,
            trim_scale(fee_amount), fee_asset, trim_scale(amount), owed_asset)
        END AS problem
    FROM owed
"""

_GRID = f"""
    WITH legs AS MATERIALIZED ({LEGS}),
    priced AS (
        SELECT o.trade_id, o.instrument, 'fill ' || f.fill_id AS what, f.price, f.qty,
               NULL::numeric AS order_qty, NULL::numeric AS notional
        FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id) WHERE f.env = $1
        UNION ALL
        SELECT o.trade_id, o.instrument, 'order ' || client_order_id, o.limit_price, o.qty, o.qty,
               CASE WHEN o.instrument LIKE '%-PERP' AND o.purpose <> 'entry' THEN NULL
                    ELSE o.limit_price * o.qty END
        FROM arb.orders AS o JOIN arb.order_reports AS r USING (env, client_order_id)
        WHERE o.env = $1 AND r.status <> 'rejected'
    )
    SELECT p.trade_id, l.instrument IS NULL AS unchecked, CASE
        WHEN p.price % b.tick <> 0 THEN format('%s: price %s is off the tick grid of %s', what,
            trim_scale(p.price), trim_scale(b.tick))
        WHEN p.qty % (rules->>'lot')::numeric <> 0 THEN format(
            '%s: quantity %s is off the lot grid of %s', what, trim_scale(p.qty), rules->>'lot')
        WHEN p.order_qty < (rules->>'min_qty')::numeric THEN format(
            '%s: quantity %s is below the minimum of %s', what, trim_scale(p.qty),
            rules->>'min_qty')
        WHEN p.order_qty > nullif((rules->>'max_qty')::numeric, 0) THEN format(
            '%s: quantity %s is above the maximum of %s', what, trim_scale(p.qty),
            rules->>'max_qty')
        WHEN p.notional < (rules->>'min_notional')::numeric THEN format(
            '%s: notional %s is below the minimum of %s', what, trim_scale(p.notional),
            rules->>'min_notional')
        END AS problem
    FROM priced AS p LEFT JOIN legs AS l USING (trade_id, instrument)
    LEFT JOIN LATERAL (
        SELECT (band->>'tick_size')::numeric AS tick
        FROM jsonb_array_elements(rules->'tick_bands') AS band
        WHERE (band->>'price_from')::numeric <= p.price
        ORDER BY (band->>'price_from')::numeric DESC LIMIT 1
    ) AS b ON true
"""

# The slice is what the order found of the taker's side, best first, as far as it walked:
# its last level is the fill's own.
_SLICES = """
    WITH walked AS (
        SELECT o.trade_id, f.fill_id, o.side, f.price, f.qty, o.limit_price, f.book_slice,
               (f.book_slice->-1->>0)::numeric AS level_price,
               (f.book_slice->-1->>1)::numeric AS level_qty,
               (SELECT bool_or((level->>1)::numeric <= 0 OR CASE o.side
                           WHEN 'buy' THEN (level->>0)::numeric >= (next->>0)::numeric
                           ELSE (level->>0)::numeric <= (next->>0)::numeric END)
                FROM (SELECT level, lead(level) OVER (ORDER BY depth) AS next
                      FROM jsonb_array_elements(f.book_slice) WITH ORDINALITY AS l(level, depth)
                     ) AS levels) AS is_disordered,
               count(*) OVER (PARTITION BY f.client_order_id, f.price) AS fills_here
        FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id) WHERE f.env = $1
    )
    SELECT trade_id, CASE
        WHEN level_price IS NULL THEN format('fill %s: no book was kept with it', fill_id)
        WHEN is_disordered THEN format(
            'fill %s: the book kept with it is not sorted from the best price', fill_id)
        WHEN price <> level_price THEN format(
            'fill %s: it is at %s where the book showed %s', fill_id, trim_scale(price),
            trim_scale(level_price))
        WHEN qty > level_qty THEN format(
            'fill %s: it is of %s where the book showed %s at %s', fill_id, trim_scale(qty),
            trim_scale(level_qty), trim_scale(price))
        WHEN fills_here > 1 THEN format(
            'fill %s: its order took the level at %s %s times', fill_id, trim_scale(price),
            fills_here)
        WHEN CASE side WHEN 'buy' THEN price > limit_price ELSE price < limit_price END
            THEN format('fill %s: %s at %s is beyond the limit of %s', fill_id, side,
                        trim_scale(price), trim_scale(limit_price))
        END AS problem
    FROM walked
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="fills.fee",
        meaning="a fee is what the schedule of the day asks, in its asset, rounded up at 1e-8",
        sql=_FEES,
        can_skip=True,
    ),
    SqlCheck(
        name="fills.grid",
        meaning="prices and sizes are on the market's grid and within its bounds",
        sql=_GRID,
        can_skip=True,
    ),
    SqlCheck(
        name="fills.book",
        meaning="a fill is at a displayed price, never larger than displayed, within the limit",
        sql=_SLICES,
    ),
)
