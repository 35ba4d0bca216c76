"""Rows that say a thing twice say the same: columns, the stored JSON, counters, checksums."""

from __future__ import annotations

import zlib

from arb_ray.adapters.storage.audit.check import (
    TOLD_MAX,
    Check,
    Connection,
    Outcome,
    Scope,
    SqlCheck,
)

_RESERVATIONS = """
    SELECT trade_id, CASE WHEN (intent->>'trade_id', intent->>'symbol', intent->>'session_id',
            (intent->>'owner_epoch')::bigint, (intent->>'worst_loss_usdt')::numeric,
            (intent->>'notional_usdt')::numeric, r.schema::int, intent->>'schema')
        IS DISTINCT FROM (trade_id, r.symbol, r.session_id, owner_epoch, worst_loss_usdt,
            notional_usdt, 1, '1')
        THEN format('reservation %s: its columns and its intent differ', trade_id)
        WHEN s.session_id IS NULL THEN format(
            'reservation %s: there is no session %s', trade_id, r.session_id)
        END AS problem
    FROM arb.reservations AS r LEFT JOIN arb.sessions AS s USING (env, session_id) WHERE env = $1
"""

_ORDERS = """
    SELECT trade_id, CASE WHEN (request->>'client_order_id', request->>'trade_id',
            request->>'symbol', request->>'instrument', request->>'side',
            (request->>'qty')::numeric, (request->>'limit_price')::numeric,
            (request->>'decision_price')::numeric, request->>'purpose',
            (request->>'decided_ns')::bigint, schema::int)
        IS DISTINCT FROM (client_order_id, trade_id, symbol, instrument, side, qty, limit_price,
            decision_price, purpose, decided_ns, 1)
        THEN format('order %s: its columns and its request differ', client_order_id)
        WHEN client_order_id NOT LIKE trade_id || ':%' THEN format(
            'order %s: its id is not one of trade %s', client_order_id, trade_id)
        END AS problem
    FROM arb.orders WHERE env = $1
"""

_REPORTS = """
    WITH told AS (
        SELECT client_order_id, count(*) AS count,
               sum((fill->>'qty')::numeric) AS qty, min(fill->>'fill_id') AS first
        FROM arb.order_reports, json_array_elements(report->'fills') AS fill
        WHERE env = $1 GROUP BY client_order_id
    ), stored AS (
        SELECT client_order_id, count(*) AS count, sum(qty) AS qty, min(fill_id) AS first
        FROM arb.fills WHERE env = $1 GROUP BY client_order_id
    )
    SELECT o.trade_id, CASE
        WHEN (report->>'client_order_id', report->>'status', report->>'reason',
              (report->>'at_ns')::bigint, r.schema::int)
            IS DISTINCT FROM (client_order_id, r.status, r.reason, r.at_ns, 1)
            THEN format('report of %s: its columns and its content differ', client_order_id)
        WHEN (t.count, t.qty, t.first) IS DISTINCT FROM (s.count, s.qty, s.first) THEN format(
            'report of %s: it tells of %s fills and %s are stored', client_order_id,
            coalesce(t.count, 0), coalesce(s.count, 0))
        END AS problem
    FROM arb.order_reports AS r LEFT JOIN arb.orders AS o USING (env, client_order_id)
    LEFT JOIN told AS t USING (client_order_id) LEFT JOIN stored AS s USING (client_order_id)
    WHERE r.env = $1
"""

# The book is kept twice, with the fill and in the report.
_FILLS = """
    WITH told AS (
        SELECT client_order_id, fill FROM arb.order_reports,
            jsonb_array_elements((report::jsonb)->'fills') AS fill WHERE env = $1
    )
    SELECT o.trade_id, CASE WHEN t.fill IS NOT NULL AND (
            (t.fill->>'price')::numeric, (t.fill->>'qty')::numeric,
            (t.fill->'fee'->>'amount')::numeric, t.fill->'fee'->>'asset',
            (t.fill->>'at_ns')::bigint, t.fill->'book_slice', 1)
        IS DISTINCT FROM (f.price, f.qty, f.fee_amount, f.fee_asset, f.at_ns, f.book_slice,
                          f.schema::int)
        THEN format('fill %s: it is not what the report of its order tells', f.fill_id)
        WHEN t.fill IS NULL THEN format('fill %s: the report of its order does not tell of it',
                                        f.fill_id)
        END AS problem
    FROM arb.fills AS f LEFT JOIN arb.orders AS o USING (env, client_order_id)
    LEFT JOIN told AS t ON (t.client_order_id, t.fill->>'fill_id') = (f.client_order_id, f.fill_id)
    WHERE f.env = $1
"""

_OUTCOMES = """
    SELECT trade_id, CASE
        WHEN kind = 'refused' THEN CASE WHEN content->>'trade_id' IS DISTINCT FROM trade_id
                OR content->>'type' IS DISTINCT FROM 'Refused'
            THEN format('outcome of %s: its content is not its refusal', trade_id) END
        WHEN (content->>'trade_id', content->>'symbol', content->>'kind',
              (content->>'closed_ns')::bigint, (content->>'realized_usdt')::numeric)
            IS DISTINCT FROM (trade_id, o.symbol, o.kind, o.closed_ns, o.realized_usdt)
            THEN format('outcome of %s: its columns and its content differ', trade_id)
        WHEN t.trade_id IS NOT NULL AND (
              (content->>'realized_usdt')::numeric, (content->>'notional_usdt')::numeric,
              (content->'parts'->>'spread')::numeric, (content->'parts'->>'fx')::numeric,
              (content->'parts'->>'fees')::numeric, (content->'parts'->>'slippage')::numeric,
              (content->'parts'->>'funding')::numeric, content->>'exit_reason')
            IS DISTINCT FROM (t.realized_usdt, t.notional_usdt, t.spread_usdt, t.fx_usdt,
              t.fees_usdt, t.slippage_usdt, t.funding_usdt, t.exit_reason)
            THEN format('outcome of %s: what was settled and what its trade says differ', trade_id)
        END AS problem
    FROM arb.reservation_outcomes AS o LEFT JOIN arb.trades AS t USING (env, trade_id)
    WHERE env = $1
"""

_NUMBERS = """
    SELECT NULL::text AS trade_id, CASE
        WHEN n.symbol IS NULL THEN format(
            'trade numbers of %s: %s is in use and none was ever given out', used.symbol, used.top)
        WHEN n.last_number < used.top THEN format(
            'trade numbers of %s: %s is in use and only %s were given out', n.symbol, used.top,
            n.last_number)
        WHEN o.symbol IS NULL THEN format(
            'trade numbers of %s: %s were given out and nobody ever owned it', n.symbol,
            n.last_number)
        END AS problem
    FROM (SELECT * FROM arb.trade_numbers WHERE env = $1) AS n
    FULL JOIN (
        SELECT symbol, max(substring(trade_id FROM ':([0-9]{1,18})$')::bigint) AS top
        FROM (SELECT symbol, trade_id FROM arb.trades WHERE env = $1
              UNION ALL
              SELECT symbol, trade_id FROM arb.trade_events WHERE env = $1 AND seq = 0) AS ids
        GROUP BY symbol
    ) AS used USING (symbol)
    LEFT JOIN arb.symbol_owners AS o ON (o.env, o.symbol) = ($1, n.symbol)
"""

_SESSIONS = """
    SELECT NULL::text AS trade_id, CASE
        WHEN closed_ns < started_ns THEN format(
            'session %s: it was closed before it was started', session_id)
        WHEN closed_ns IS NULL AND count(*) FILTER (WHERE closed_ns IS NULL) OVER () > 1
            THEN format(
            'session %s: another one is open too', session_id)
        WHEN former_open THEN format(
            'session %s: it was started while the one before it was open', session_id)
        WHEN schema <> 1 OR json_typeof(config) <> 'object'
                OR coalesce(json_typeof(summary), 'object') <> 'object' THEN format(
            'session %s: its config or its summary is no object, or its schema is unknown',
            session_id)
        WHEN session_id <> coalesce(summary->>'session_id', session_id) THEN format(
            'session %s: its summary is that of %s', session_id, summary->>'session_id')
        END AS problem
    FROM (
        SELECT *, coalesce(lag(closed_ns) OVER began > started_ns
                           OR (lag(closed_ns) OVER began IS NULL
                               AND lag(session_id) OVER began IS NOT NULL), false) AS former_open
        FROM arb.sessions WHERE env = $1
        WINDOW began AS (ORDER BY started_ns, session_id)
    ) AS sessions
"""

# A run is ended before the next one is noted, so none but the last may be open.
_RUNS = """
    SELECT NULL::text AS trade_id, CASE
        WHEN ended_ns < started_ns THEN format(
            'run %s of session %s: it ended before it began', number, session_id)
        WHEN ended_ns IS NULL AND later THEN format(
            'run %s of session %s: a later one was begun while it was open', number, session_id)
        WHEN holder = '' OR schema <> 1 THEN format(
            'run %s of session %s: nobody held it, or its schema is unknown', number, session_id)
        END AS problem
    FROM (SELECT *, lead(number) OVER (ORDER BY number) IS NOT NULL AS later
          FROM arb.session_runs WHERE env = $1) AS runs
"""

_TOPOLOGY = """
    SELECT NULL::text AS trade_id, CASE
        WHEN version <> position THEN format(
            'topology %s: it is the %s. of its environment', version, position)
        WHEN json_typeof(desired) <> 'object' OR schema <> 1 THEN format(
            'topology %s: what is wanted is no object, or its schema is unknown', version)
        WHEN recorded_ns < former_ns THEN format(
            'topology %s: it was written before the one that it follows', version)
        END AS problem
    FROM (SELECT *, row_number() OVER by_version AS position,
                 lag(recorded_ns) OVER by_version AS former_ns
          FROM arb.topology WHERE env = $1 WINDOW by_version AS (ORDER BY version)) AS versions
"""

# Retention takes months of results, and their trials later: a trial may have none.
_TUNING = """
    SELECT NULL::text AS trade_id, CASE
        WHEN json_typeof(parameters) <> 'object' OR json_typeof(scores) <> 'object'
            OR trial < 0 OR schema <> 1 THEN format(
            'tuning result %s/%s: its parameters or scores are no object', run_id, trial)
        WHEN (extract(epoch FROM at) * 1000000)::bigint <> at_ns / 1000 THEN format(
            'tuning result %s/%s: it does not lie at its instant', run_id, trial)
        WHEN nth > 1 THEN format('tuning result %s/%s: it is there twice', run_id, trial)
        WHEN claimed IS DISTINCT FROM 1 THEN format(
            'tuning result %s/%s: its trial was never claimed, or its schema is unknown', run_id,
            trial)
        END AS problem
    FROM (SELECT r.*, t.schema AS claimed,
                 row_number() OVER (PARTITION BY run_id, trial ORDER BY at_ns) AS nth
          FROM (SELECT * FROM arb.tuning_results WHERE env = $1) AS r
          LEFT JOIN arb.tuning_trials AS t USING (env, run_id, trial)) AS results
"""

SNAPSHOTS = ("session_snapshots", "position_snapshots", "metrics_snapshots", "risk_guard_snapshots")

_BATCH_ROWS = " UNION ALL ".join(
    f"SELECT batch_id FROM arb.{table} WHERE env = $1" for table in SNAPSHOTS
)

_QUARANTINED_ROWS = " UNION ALL ".join(
    f"SELECT '{table}' AS table_name, session_id, symbol, at_ns, batch_id, crc32,"
    f" payload::text AS payload FROM arb.{table} WHERE env = $1 AND (at_ns, batch_id) IN"
    f" (SELECT at_ns, batch_id FROM arb.snapshot_quarantine WHERE env = $1)"
    for table in SNAPSHOTS
)

# Retention takes whole months of rows and leaves their batches: fewer rows may be left.
_BATCHES = f"""
    SELECT NULL::text AS trade_id, CASE
        WHEN b.batch_id IS NULL THEN format(
            'snapshots %s: %s rows of a batch that was never written', r.batch_id, r.count)
        WHEN r.count > b.row_count THEN format(
            'snapshots %s: %s rows where the batch had %s', b.batch_id, r.count, b.row_count)
        WHEN r.count < b.row_count AND b.recorded_ns > (
                SELECT min(at_ns) + 86400000000000 FROM arb.metrics_snapshots WHERE env = $1)
            THEN format('snapshots %s: %s rows where the batch had %s', b.batch_id, r.count,
                        b.row_count)
        WHEN b.schema <> 1 OR octet_length(b.digest) <> 32 THEN format(
            'snapshots %s: their digest is none, or their schema is unknown', b.batch_id)
        END AS problem
    FROM (SELECT * FROM arb.snapshot_batches WHERE env = $1) AS b
    FULL JOIN (SELECT batch_id, count(*) AS count FROM ({_BATCH_ROWS}) AS rows GROUP BY batch_id)
        AS r USING (batch_id)
"""

_TABLES = ", ".join(f"('{table}')" for table in SNAPSHOTS)

# What was set aside may be gone from its table: retention drops months. What is still there is
# the row as it was found.
_QUARANTINE = f"""
    SELECT NULL::text AS trade_id, CASE
        WHEN NOT EXISTS (SELECT FROM (VALUES {_TABLES}) AS t (name) WHERE name = q.table_name)
            THEN format('quarantine %s at %s: there is no table of snapshots %s',
                        q.batch_id, q.at_ns, q.table_name)
        WHEN q.reason = '' OR q.schema <> 1 THEN format(
            'quarantine %s at %s: it has no reason, or its schema is unknown', q.batch_id, q.at_ns)
        WHEN (q.payload, q.crc32) IS DISTINCT FROM (s.payload, s.crc32) AND s.payload IS NOT NULL
            THEN format('quarantine %s at %s: its row in %s is another one', q.batch_id, q.at_ns,
                        q.table_name)
        END AS problem
    FROM arb.snapshot_quarantine AS q LEFT JOIN ({_QUARANTINED_ROWS}) AS s
        USING (table_name, session_id, symbol, at_ns, batch_id)
    WHERE q.env = $1
"""

_PREFETCH_ROWS = 2_000


class ChecksumCheck:
    """The checksum that a snapshot carries is that of its text."""

    name = "snapshots.checksum"
    meaning = "a snapshot's payload meets its checksum, and its partition its instant"

    async def look(self, connection: Connection, scope: Scope) -> Outcome:
        """Stream all snapshots; they belong to sessions, so a session's are looked at alone."""
        rows, violations = 0, 0
        told: list[str] = []
        for table in SNAPSHOTS:
            async for row in connection.cursor(
                f"SELECT payload::text AS payload, crc32, batch_id, at_ns, schema,"
                f" (extract(epoch FROM at) * 1000000)::bigint = at_ns / 1000 AS is_placed"
                f" FROM arb.{table}"
                " WHERE env = $1 AND ($2::text IS NULL OR session_id = $2)",
                scope.env,
                scope.session_id,
                prefetch=_PREFETCH_ROWS,
            ):
                rows += 1
                is_sound = zlib.crc32(row["payload"].encode()) == row["crc32"]
                if is_sound and row["is_placed"] and row["schema"] == 1:
                    continue
                violations += 1
                if len(told) < TOLD_MAX:
                    what = f"{table} {row['batch_id']} at {row['at_ns']}"
                    told.append(f"{what}: it does not meet its checksum, instant or schema")
        return Outcome(self.name, self.meaning, rows, 0, violations, tuple(told))


CHECKS: tuple[Check, ...] = (
    SqlCheck(
        name="records.reservations",
        meaning="a reservation is its intent, and of a session that is there",
        sql=_RESERVATIONS,
    ),
    SqlCheck(name="records.orders", meaning="an order is its request", sql=_ORDERS),
    SqlCheck(
        name="records.reports",
        meaning="a last word is its report, and has its fills",
        sql=_REPORTS,
    ),
    SqlCheck(
        name="records.fills",
        meaning="a fill is what its report tells, book included",
        sql=_FILLS,
    ),
    SqlCheck(
        name="records.outcomes",
        meaning="an outcome is its settlement, and its trade says the same",
        sql=_OUTCOMES,
    ),
    SqlCheck(
        name="records.numbers",
        meaning="no trade has a number that was not given out",
        sql=_NUMBERS,
    ),
    SqlCheck(
        name="records.sessions",
        meaning="sessions follow one another, one open at most",
        sql=_SESSIONS,
    ),
    SqlCheck(
        name="records.runs",
        meaning="a session's runs end after they began, and none but the last is open",
        sql=_RUNS,
    ),
    SqlCheck(
        name="records.topology",
        meaning="the wanted topologies are numbered from 1 without a gap",
        sql=_TOPOLOGY,
    ),
    SqlCheck(
        name="records.tuning",
        meaning="tuning results are objects, one a trial, at their instant",
        sql=_TUNING,
    ),
    SqlCheck(
        name="snapshots.batches",
        meaning="a batch of snapshots has the rows it was written with",
        sql=_BATCHES,
    ),
    ChecksumCheck(),
    SqlCheck(
        name="snapshots.quarantine",
        meaning="what was set aside has a reason, and is the row that was found",
        sql=_QUARANTINE,
    ),
)
