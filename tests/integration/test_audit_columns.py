"""A wrong value in any column of any table is found by the audit, or named here as unseen."""

import asyncpg
import pytest

from arb_ray.adapters.storage.audit import runner
from arb_ray.adapters.storage.audit.check import Scope
from arb_ray.adapters.storage.audit.records import SNAPSHOTS
from arb_ray.adapters.storage.audit.runner import CHECKS
from tests.audited_ledger import ENV, build, plant_row

OTHER_VALUE = {
    "text": "{0} || 'x'",
    "smallint": "{0} + 1",
    "integer": "{0} + 1",
    "bigint": "{0} + 1",
    "numeric": "{0} + 1",
    "json": "'{{}}'",
    "jsonb": "'{{}}'",
    "bytea": "sha256('other')",
    "timestamp with time zone": "{0} + interval '1 hour'",
}

# Wrong values that leave no trace, and why. A column that is in none of these must be found.
UNSEEN = {
    "instants of writing put rows in order; one is wrong only where it changes the order": {
        *((table, "recorded_ns") for table in (
            "entries", "trade_events", "orders", "order_reports", "reservations",
            "reservation_outcomes", "risk_events", "risk_limits", "topology", "snapshot_batches",
            "tuning_trials")),
        ("risk_events", "at_ns"),
        ("risk_lease", "taken_ns"), ("risk_lease", "renewed_ns"), ("symbol_owners", "claimed_ns"),
    },
    "people's words, and what a session was": {
        ("risk_events", "actor"), ("risk_events", "reason"), ("risk_lease", "holder"),
        ("symbol_owners", "owner"), ("topology", "actor"), ("topology", "desired"),
        *(("sessions", name) for name in (
            "source", "preset", "seed", "config", "summary", "started_ns", "closed_ns")),
        *(("session_runs", name) for name in (
            "session_id", "holder", "started_ns", "ended_ns")),
    },
    "an epoch or a number may be taken and never used": {
        ("symbol_owners", "epoch"), ("trade_numbers", "last_number"),
    },
    "a row that went to another environment is that one's: its limits are missing, unchecked": {
        ("risk_events", "env"), ("risk_limits", "env"), ("metrics_snapshots", "env"),
        ("tuning_results", "env"),
    },
    "disposable: the checksum is that of the payload": {
        *((table, name) for table in SNAPSHOTS for name in ("session_id", "symbol", "at_ns")),
        ("snapshot_batches", "digest"),
        *(("snapshot_quarantine", name) for name in (
            "env", "session_id", "symbol", "at_ns", "batch_id", "crc32", "payload",
            "reason", "found_ns")),
        ("session_runs", "env"),
        *(("tuning_results", name) for name in ("at_ns", "parameters", "scores")),
    },
}  # fmt: skip

# So that every column has a value that can be wrong.
FILLED = (
    "INSERT INTO tuning_trials (env, run_id, trial) VALUES ('dev', 'r', 0);"
    "INSERT INTO tuning_results (env, run_id, trial, at, at_ns, parameters, scores)"
    " SELECT 'dev', 'r', 0, at, (extract(epoch FROM at) * 1000000)::bigint * 1000, '{}', '{}'"
    " FROM (SELECT date_trunc('month', now()) + interval '10 days' AS at) AS t;"
    "INSERT INTO session_runs (env, session_id, holder, started_ns, ended_ns, ending)"
    " SELECT env, session_id, 'h', 1, 2, 'clean' FROM sessions LIMIT 1;"
    "INSERT INTO snapshot_quarantine (env, table_name, session_id, symbol, at_ns, batch_id, crc32,"
    " payload, reason) VALUES ('dev', 'session_snapshots', 's', '', 1, 'b', 1,"
    " '{}', 'r');"
    "INSERT INTO risk_events (env, epoch, state, reason, actor, at_ns, flatten)"
    " VALUES ('dev', 2, 'active', 'seen', 'ann', 1, 'BTC');"
    "UPDATE sessions SET summary = '{}', closed_ns = 2;"
    "UPDATE risk_lease SET renewed_ns = taken_ns + 1000"
)


async def columns_of(connection):
    rows = await connection.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " JOIN information_schema.tables USING (table_schema, table_name)"
        " WHERE table_schema = 'arb' AND table_type = 'BASE TABLE'"
        " AND NOT (SELECT relispartition FROM pg_class WHERE oid = to_regclass('arb.' || table_name))"
        " ORDER BY 1, 2"
    )
    return [tuple(row) for row in rows]


@pytest.mark.timeout(400)  # some 200 columns, each with an audit
async def test_a_wrong_value_is_found_in_every_column_of_every_table(postgres_dsn):
    await build(postgres_dsn)
    connection = await asyncpg.connect(postgres_dsn)
    unseen, checks = set(), list(CHECKS)
    try:
        for table, column, kind in await columns_of(connection):
            value = OTHER_VALUE[kind].format(column)
            if not await is_seen(connection, checks, table, column, value):
                unseen.add((table, column))
    finally:
        await connection.close()
    assert unseen == set().union(*UNSEEN.values())


async def is_seen(connection, checks, table, column, value):
    transaction = connection.transaction()
    await transaction.start()
    try:
        await plant_row(connection, FILLED)
        try:
            done = await connection.execute(
                f"UPDATE {table} SET {column} = {value} WHERE ctid = (SELECT ctid FROM {table} AS t"
                f" WHERE {column} IS NOT NULL"
                " ORDER BY to_jsonb(t)->>'kind' = 'opening', ctid LIMIT 1)"
            )
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.GeneratedAlwaysError):
            return True  # the database itself refuses it
        assert done == "UPDATE 1", (table, column)
        await connection.execute("SET LOCAL search_path = ''")
        for check in list(checks):
            if (await runner._looked(check, connection, Scope(ENV))).violations:
                checks.remove(check)
                checks.insert(0, check)  # it will find the next column's, too
                return True
        return False
    finally:
        await transaction.rollback()
