"""Epochs: in the order of commits they never go back, and none is above its lease."""

from __future__ import annotations

from arb_ray.adapters.storage.audit.check import Check, SqlCheck

_GUARD_ROWS = """
    SELECT trade_id, epoch, recorded_ns, 'reservation ' || trade_id AS what
    FROM arb.reservations WHERE env = $1
    UNION ALL
    SELECT trade_id, epoch, recorded_ns, 'outcome of ' || trade_id
    FROM arb.reservation_outcomes WHERE env = $1
    UNION ALL
    SELECT NULL, epoch, recorded_ns, 'risk event ' || number FROM arb.risk_events WHERE env = $1
    UNION ALL
    SELECT NULL, epoch, recorded_ns, 'limits of epoch ' || epoch
    FROM arb.risk_limits WHERE env = $1
    UNION ALL
    SELECT trade_id, epoch, recorded_ns, 'entry ' || entry_id
    FROM arb.entries WHERE env = $1 AND kind IN ('opening', 'hold', 'release')
"""

_GUARD = f"""
    SELECT trade_id, CASE
        WHEN epoch > coalesce(lease, 0) THEN format(
            '%s: it was written under guard epoch %s, and the lease is at %s', what, epoch,
            coalesce(lease, 0))
        WHEN epoch < newest THEN format(
            '%s: it was written under guard epoch %s after %s had taken over', what, epoch, newest)
        END AS problem
    FROM (
        SELECT *, max(epoch) FILTER (WHERE epoch <= lease) OVER (
                   ORDER BY recorded_ns, epoch ROWS UNBOUNDED PRECEDING) AS newest
        FROM (SELECT (SELECT epoch FROM arb.risk_lease WHERE env = $1) AS lease) AS leased,
             ({_GUARD_ROWS}) AS rows
    ) AS ordered
"""

_OWNER_ROWS = """
    SELECT trade_id, symbol, owner_epoch AS epoch, recorded_ns,
           'event ' || seq || ' of ' || trade_id AS what
    FROM arb.trade_events WHERE env = $1
    UNION ALL
    SELECT trade_id, symbol, owner_epoch, recorded_ns, 'order ' || client_order_id
    FROM arb.orders WHERE env = $1
    UNION ALL
    SELECT o.trade_id, o.symbol, p.owner_epoch, p.recorded_ns, 'report of ' || client_order_id
    FROM arb.order_reports AS p JOIN arb.orders AS o USING (env, client_order_id) WHERE env = $1
    UNION ALL
    SELECT o.trade_id, o.symbol, f.owner_epoch, p.recorded_ns, 'fill ' || fill_id
    FROM arb.fills AS f JOIN arb.orders AS o USING (env, client_order_id)
    JOIN arb.order_reports AS p USING (env, client_order_id) WHERE env = $1
    UNION ALL
    SELECT trade_id, symbol, epoch, recorded_ns, 'entry ' || entry_id FROM arb.entries
    WHERE env = $1 AND kind IN ('fill', 'funding', 'settle_perp', 'dust')
    UNION ALL
    SELECT trade_id, symbol, owner_epoch, recorded_ns, 'reservation ' || trade_id
    FROM arb.reservations WHERE env = $1
"""

_OWNERS = f"""
    SELECT trade_id, CASE
        WHEN epoch > coalesce(owner, 0) THEN format(
            '%s: it was written under epoch %s of %s, whose owner is at %s', what, epoch, symbol,
            coalesce(owner, 0))
        WHEN epoch < newest THEN format(
            '%s: it was written under epoch %s of %s after %s had taken over', what, epoch, symbol,
            newest)
        END AS problem
    FROM (
        SELECT rows.*, max(rows.epoch) FILTER (WHERE rows.epoch <= o.epoch) OVER (
                   PARTITION BY rows.symbol ORDER BY recorded_ns, rows.epoch
                   ROWS UNBOUNDED PRECEDING) AS newest,
               o.epoch AS owner
        FROM ({_OWNER_ROWS}) AS rows
        LEFT JOIN arb.symbol_owners AS o ON (o.env, o.symbol) = ($1, rows.symbol)
    ) AS ordered
"""

# An epoch that stands without anybody's name was not taken by a start of ours.
_LEASES = """
    SELECT NULL::text AS trade_id, CASE
        WHEN holder = '' OR renewed_ns < taken_ns OR schema <> 1 THEN format(
            'guard''s lease: epoch %s of %L was renewed at %s and taken at %s', epoch, holder,
            renewed_ns, taken_ns)
        WHEN epoch > 1 AND taken_ns < (SELECT max(recorded_ns) FROM arb.risk_limits AS l
                WHERE l.env = $1 AND l.epoch < risk_lease.epoch) THEN format(
            'guard''s lease: epoch %s was taken before an earlier one wrote its limits', epoch)
        END AS problem
    FROM arb.risk_lease WHERE env = $1
    UNION ALL
    SELECT NULL, CASE WHEN owner = '' OR schema <> 1 THEN format(
        'owner of %s: epoch %s has no name or an unknown schema', symbol, epoch) END
    FROM arb.symbol_owners WHERE env = $1
"""

CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="epochs.guard",
        meaning="a guard writes nothing after the next has taken over",
        sql=_GUARD,
    ),
    SqlCheck(
        name="epochs.owner",
        meaning="a strategy writes nothing after the next owner of its symbol has taken over",
        sql=_OWNERS,
    ),
    SqlCheck(
        name="epochs.leases",
        meaning="the lease and every ownership have a holder",
        sql=_LEASES,
    ),
)
