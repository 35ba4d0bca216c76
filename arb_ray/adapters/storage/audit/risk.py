"""RiskGuard's promise, at every grant in the order of the commits."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck

# One guard grants and settles in turn, in transactions that its lease fences, and the
# database stamps each row inside its transaction: by those stamps the rows stand in the order
# of their commits. Room is taken by a grant and given back by the outcome; a loss belongs to
# the UTC day of its close, and counts from the moment it was written.
_TIMELINE = """
    timeline AS MATERIALIZED (
        SELECT r.trade_id, r.symbol, r.recorded_ns, 1 AS is_grant, r.epoch, r.worst_loss_usdt,
               r.notional_usdt, r.granted_ns / 86400000000000 AS day, r.worst_loss_usdt AS room,
               r.notional_usdt AS notional, 1 AS trades, 0::numeric AS realized
        FROM arb.reservations AS r WHERE env = $1
        UNION ALL
        SELECT o.trade_id, o.symbol, o.recorded_ns, 0, o.epoch, NULL, NULL,
               o.closed_ns / 86400000000000, -r.worst_loss_usdt, -r.notional_usdt, -1,
               CASE o.kind WHEN 'posted' THEN o.realized_usdt ELSE 0 END
        FROM arb.reservation_outcomes AS o JOIN arb.reservations AS r USING (env, trade_id)
        WHERE env = $1
    ), running AS MATERIALIZED (
        SELECT *, sum(room) OVER so_far AS rooms, sum(notional) OVER so_far AS notionals,
               sum(trades) OVER so_far AS open_trades,
               greatest(0, -sum(realized) OVER (PARTITION BY day ORDER BY recorded_ns, is_grant,
                                                trade_id)) AS day_loss,
               greatest(0, -sum(realized) OVER (PARTITION BY symbol, day ORDER BY recorded_ns,
                                                is_grant, trade_id)) AS symbol_day_loss
        FROM timeline WINDOW so_far AS (ORDER BY recorded_ns, is_grant, trade_id)
    ), grants AS (
        SELECT running.*, limits, limits IS NULL AS unchecked
        FROM running LEFT JOIN LATERAL (
            SELECT l.limits FROM arb.risk_limits AS l
            WHERE (l.env, l.epoch) = ($1, running.epoch) AND l.recorded_ns <= running.recorded_ns
            ORDER BY l.number DESC LIMIT 1) AS in_force ON true
        WHERE is_grant = 1
    )"""

_DAILY_LOSS = f"""
    WITH {_TIMELINE}
    SELECT trade_id, unchecked, CASE
        WHEN day_loss + rooms > (limits->>'daily_loss_usdt')::numeric THEN format(
            'grant of %s: %s USDT lost that day and %s reserved, its own included, pass the '
            'daily limit of %s', trade_id, trim_scale(day_loss), trim_scale(rooms),
            limits->>'daily_loss_usdt')
        WHEN symbol_day_loss + worst_loss_usdt > (limits->>'symbol_daily_loss_usdt')::numeric
            THEN format('grant of %s: %s USDT lost on %s that day and %s more pass its limit of %s',
                trade_id, trim_scale(symbol_day_loss), symbol, trim_scale(worst_loss_usdt),
                limits->>'symbol_daily_loss_usdt')
        END AS problem
    FROM grants
"""

_SIZES = f"""
    WITH {_TIMELINE}
    SELECT trade_id, unchecked, CASE
        WHEN open_trades > (limits->>'open_trades_count')::bigint THEN format(
            'grant of %s: it is the %s. open trade of at most %s', trade_id, open_trades,
            limits->>'open_trades_count')
        WHEN notional_usdt > least((limits->>'trade_notional_usdt')::numeric,
                                   (limits->>'symbol_notional_usdt')::numeric) THEN format(
            'grant of %s: its notional of %s USDT passes the limit', trade_id,
            trim_scale(notional_usdt))
        WHEN notionals > (limits->>'total_notional_usdt')::numeric THEN format(
            'grant of %s: %s USDT of notional are open, %s are the limit', trade_id,
            trim_scale(notionals), limits->>'total_notional_usdt')
        END AS problem
    FROM grants
"""

_DEADLINES = """
    SELECT trade_id, CASE
        WHEN granted_ns > (intent->>'deadline_ns')::bigint THEN format(
            'grant of %s: the yes came %s ns after its deadline', trade_id,
            granted_ns - (intent->>'deadline_ns')::bigint)
        WHEN worst_loss_usdt <= 0 THEN format(
            'grant of %s: it reserved %s USDT', trade_id, trim_scale(worst_loss_usdt))
        END AS problem
    FROM arb.reservations WHERE env = $1
"""

# An order to close one symbol's trade repeats the state in force, and is no change of it.
_CHANGES_THE_STATE = "coalesce(e.flatten, '*') = '*'"

# A grant that was decided before a halt may be written after it. Both name the instant of their
# decision by the clock of the guard that made it, so the last state before a grant is the newest
# that was written before it, less those that its own guard decided on later. What another guard
# wrote was known to the one that took over; what is milder counts once it is written.
_STATES = f"""
    SELECT r.trade_id, CASE WHEN s.state <> 'active' THEN format(
            'grant of %s: it was granted %s ms after %s made the guard %s (%s)', r.trade_id,
            (r.granted_ns - s.at_ns) / 1000000, s.actor, s.state, s.reason)
        END AS problem
    FROM arb.reservations AS r LEFT JOIN LATERAL (
        SELECT state, reason, actor, at_ns FROM arb.risk_events AS e
        WHERE e.env = r.env AND e.recorded_ns < r.recorded_ns AND {_CHANGES_THE_STATE}
            AND (state = 'active' OR e.epoch < r.epoch OR at_ns < r.granted_ns)
        ORDER BY number DESC LIMIT 1
    ) AS s ON true
    WHERE r.env = $1
"""

# The guard itself only ever grows stricter; what is milder is an operator's word.
_EVENTS = f"""
    SELECT NULL::text AS trade_id, CASE
        WHEN actor = 'guard' AND severity < coalesce(former, 0) THEN format(
            'risk event %s: the guard made itself %s after %s', number, state,
            coalesce(former_state, 'active'))
        WHEN actor = '' OR reason = '' THEN format(
            'risk event %s: nobody says who made it %s, or why', number, state)
        WHEN schema <> 1 THEN format(
            'risk event %s: it is of a schema that this audit does not know', number)
        END AS problem
    FROM (
        SELECT *, lag(severity) OVER (ORDER BY number) AS former,
               lag(state) OVER (ORDER BY number) AS former_state
        FROM (SELECT *, array_position(ARRAY['active', 'reduce_only', 'halted'], state) - 1
                  AS severity
              FROM arb.risk_events AS e WHERE env = $1 AND {_CHANGES_THE_STATE}) AS events
    ) AS sequence
    UNION ALL
    SELECT NULL, CASE
        WHEN e.actor = '' OR e.actor = 'guard' OR e.schema <> 1 THEN format(
            'risk event %s: no operator says to flatten %s, or its schema is unknown', number,
            flatten)
        WHEN e.state <> coalesce(former.state, 'active') THEN format(
            'risk event %s: to flatten %s made the guard %s', number, flatten, e.state)
        WHEN o.symbol IS NULL THEN format(
            'risk event %s: nobody ever owned %s, which it flattens', number, flatten)
        END
    FROM arb.risk_events AS e
    LEFT JOIN arb.symbol_owners AS o ON (o.env, o.symbol) = (e.env, e.flatten)
    LEFT JOIN LATERAL (
        SELECT state FROM arb.risk_events AS f
        WHERE f.env = e.env AND f.number < e.number AND coalesce(f.flatten, '*') = '*'
        ORDER BY number DESC LIMIT 1
    ) AS former ON true
    WHERE e.env = $1 AND e.flatten <> '*'
"""

# What a trade lost beyond its reservation is a gap: a halt that names it is written before it is
# posted, unless the guard was halted then and stayed so.
_GAPS = f"""
    SELECT o.trade_id, CASE WHEN coalesce(s.state, 'active') <> 'halted' AND NOT EXISTS (
            SELECT FROM arb.risk_events AS e
            WHERE e.env = $1 AND e.state = 'halted' AND e.actor = 'guard'
                AND e.recorded_ns BETWEEN r.recorded_ns AND o.recorded_ns
                AND position(' ' || o.trade_id || ' ' IN e.reason) > 0)
        THEN format('outcome of %s: it lost %s USDT of %s reserved and nothing was halted for it',
                    o.trade_id, trim_scale(-o.realized_usdt), trim_scale(r.worst_loss_usdt))
        END AS problem
    FROM arb.reservation_outcomes AS o JOIN arb.reservations AS r USING (env, trade_id)
    LEFT JOIN LATERAL (
        SELECT state FROM arb.risk_events AS e
        WHERE e.env = $1 AND e.recorded_ns <= o.recorded_ns AND {_CHANGES_THE_STATE}
        ORDER BY number DESC LIMIT 1
    ) AS s ON true
    WHERE o.env = $1 AND o.kind = 'posted' AND -o.realized_usdt > r.worst_loss_usdt
"""

_LIMITS = """
    SELECT NULL::text AS trade_id, CASE
        WHEN l.epoch > coalesce(lease.epoch, 0) THEN format(
            'limits of epoch %s: no guard ever had it', l.epoch)
        WHEN (limits->>'daily_loss_usdt')::numeric IS NULL
            OR (limits->>'daily_loss_usdt')::numeric <= 0 THEN format(
            'limits of epoch %s: they name no daily loss', l.epoch)
        WHEN l.schema <> 1 THEN format(
            'limits of epoch %s: they are of a schema that this audit does not know', l.epoch)
        END AS problem
    FROM arb.risk_limits AS l LEFT JOIN arb.risk_lease AS lease USING (env) WHERE env = $1
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="risk.daily_loss",
        meaning="at every grant, the day's loss and all that is reserved are within the limit",
        sql=_DAILY_LOSS,
        can_skip=True,
    ),
    SqlCheck(
        name="risk.sizes",
        meaning="at every grant, open trades and notional are within their limits",
        sql=_SIZES,
        can_skip=True,
    ),
    SqlCheck(
        name="risk.grants",
        meaning="a yes comes before its deadline and reserves something",
        sql=_DEADLINES,
    ),
    SqlCheck(
        name="risk.state",
        meaning="nothing is granted after the guard was halted or reduced",
        sql=_STATES,
    ),
    SqlCheck(
        name="risk.events",
        meaning="the guard alone grows stricter; who makes it milder says so",
        sql=_EVENTS,
    ),
    SqlCheck(
        name="risk.gaps",
        meaning="a loss beyond its reservation was halted upon before it was posted",
        sql=_GAPS,
    ),
    SqlCheck(
        name="risk.limits",
        meaning="limits belong to a guard that was, and name a daily loss",
        sql=_LIMITS,
    ),
)
