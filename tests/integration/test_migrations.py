"""Migrations on a real PostgreSQL: up, down, twice at once, and against newer databases."""

import asyncio
import shutil

import asyncpg
import pytest

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from arb_ray.domain.errors import BadInput, StoreUnavailable
from tests.integration.conftest import execute

ALL = (
    "0001.ledger",
    "0002.snapshots",
    "0003.risk_limits",
    "0004.flatten_orders",
    "0006.pnl",
    "0007.stricter",
    "0008.gap_losses",
    "0009.dust",
    "0010.reservation_groups",
    "0012.roles",
    "0015.session_runs",
    "0016.tuning_months",
)

APPEND_ONLY = (
    "trade_events",
    "orders",
    "order_reports",
    "fills",
    "entries",
    "postings",
    "reservations",
    "reservation_outcomes",
    "risk_events",
    "risk_limits",
    "topology",
)

FILL = """
    INSERT INTO arb.trades (env, trade_id, symbol) VALUES ('t', 'BTC-1', 'BTC');
    INSERT INTO arb.trade_events (env, trade_id, seq, symbol, owner_epoch, event)
        VALUES ('t', 'BTC-1', 0, 'BTC', 1, '{}');
    INSERT INTO arb.orders VALUES (1, 't', 'o1', 'BTC-1', 'BTC', 1, 'upbit:BTC-KRW', 'buy', 1, 2,
        2, 'entry', 0, '{}');
    INSERT INTO arb.order_reports VALUES (1, 't', 'o1', 1, 'filled', '', 0, '{}');
    INSERT INTO arb.fills VALUES (1, 't', 'f1', 'o1', 1, 2, 1, 0, 'KRW', 0, '[]');
    INSERT INTO arb.entries (env, entry_id, kind, epoch, at_ns, posting_count, digest)
        VALUES ('t', 'e1', 'opening', 1, 0, 2, '');
    INSERT INTO arb.postings VALUES (1, 't', 'e1', 0, NULL, 'upbit', 'free', 'KRW', 5),
        (1, 't', 'e1', 1, NULL, 'upbit', 'opening', 'KRW', -5);
    INSERT INTO arb.reservations VALUES (1, 't', 'BTC-1', 'BTC', 's', 1, 1, 1, 1, 0, '{}');
    INSERT INTO arb.reservation_outcomes
        (env, trade_id, symbol, epoch, kind, closed_ns, realized_usdt, content)
        VALUES ('t', 'x', 'BTC', 1, 'voided', 0, 0, '{}');
    INSERT INTO arb.risk_events (env, epoch, state, reason, actor, at_ns)
        VALUES ('t', 1, 'active', '', '', 0);
    INSERT INTO arb.risk_limits (env, epoch, limits) VALUES ('t', 1, '{}');
    INSERT INTO arb.topology (env, version, desired) VALUES ('t', 1, '{}');
    INSERT INTO arb.session_snapshots VALUES (1, 't', 's', '', now(), 0, 'b', 0, '{}');
    INSERT INTO arb.tuning_results VALUES (1, 't', 'r', 0, now(),
        (extract(epoch FROM now()) * 1000000)::bigint * 1000, '{}', '{}');
"""


async def run_script(dsn, sql):
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def schema_of(dsn):
    rows = await execute(
        dsn,
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'arb' ORDER BY 1, 2",
    )
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("fill", [None, FILL])
async def test_rolling_everything_back_and_up_again_gives_the_same_schema(empty_dsn, fill):
    assert migrate.status(empty_dsn) == migrate.MigrationStatus((), ALL, ())
    assert migrate.apply(empty_dsn) == ALL
    before = await schema_of(empty_dsn)
    if fill:
        await run_script(empty_dsn, fill)
    assert migrate.rollback(empty_dsn, 1) == ALL[-1:]
    assert migrate.status(empty_dsn) == migrate.MigrationStatus(ALL[:-1], ALL[-1:], ())
    assert migrate.rollback(empty_dsn, len(ALL)) == ALL[-2::-1]
    assert await schema_of(empty_dsn) == []
    left = await execute(empty_dsn, "SELECT count(*) FROM pg_namespace WHERE nspname = 'arb'")
    assert left[0]["count"] == 0
    assert migrate.apply(empty_dsn) == ALL
    assert await schema_of(empty_dsn) == before
    assert migrate.apply(empty_dsn) == ()


async def test_a_database_with_rows_is_brought_up_to_date_and_keeps_them(postgres_dsn):
    """As an old release left it, with a ledger and snapshots; only what later steps made is new."""
    await run_script(postgres_dsn, FILL)
    kept = 2
    migrate.rollback(postgres_dsn, len(ALL) - kept)
    tables = [*APPEND_ONLY[:9], "trades", "topology", "session_snapshots"]
    before = {table: await counted(postgres_dsn, table) for table in tables}
    assert all(before.values()), before
    assert migrate.apply(postgres_dsn) == ALL[kept:]
    assert {table: await counted(postgres_dsn, table) for table in tables} == before


async def counted(dsn, table):
    return (await execute(dsn, f"SELECT count(*) FROM arb.{table}"))[0]["count"]


DESCRIBED = """
    SELECT 'column' AS kind, format('%s.%s', table_name, column_name) AS name,
           format('%s %s %s', data_type, is_nullable, column_default) AS told
        FROM information_schema.columns WHERE table_schema = 'arb'
    UNION ALL SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid)
        FROM pg_proc WHERE pronamespace = 'arb'::regnamespace
    UNION ALL SELECT 'trigger', format('%s.%s', tgrelid::regclass, tgname), pg_get_triggerdef(oid)
        FROM pg_trigger WHERE NOT tgisinternal
            AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'arb'::regnamespace)
    UNION ALL SELECT 'constraint', format('%s.%s', conrelid::regclass, conname),
           pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'arb'::regnamespace
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'arb'
    UNION ALL SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'arb'
    ORDER BY 1, 2
"""


async def described(dsn):
    if not await execute(dsn, "SELECT 1 FROM pg_namespace WHERE nspname = 'arb'"):
        return []
    return [tuple(row) for row in await execute(dsn, DESCRIBED)]


async def test_each_step_back_undoes_its_step_forward_to_the_last_function(empty_dsn, tmp_path):
    """Columns, defaults, functions, triggers, constraints, indexes, views: step by step."""
    done = [await described(empty_dsn)]
    for name in ALL:
        for path in migrate.migrations_dir().glob(f"{name}.*sql"):
            shutil.copy(path, tmp_path)
        assert migrate.apply(empty_dsn, tmp_path) == (name,)
        done.append(await described(empty_dsn))
        assert done[-1] != done[-2], name
    for name, before in zip(reversed(ALL), reversed(done[:-1]), strict=True):
        assert migrate.rollback(empty_dsn, 1, tmp_path) == (name,)
        assert await described(empty_dsn) == before, name


async def test_runs_at_the_same_moment_apply_each_migration_once(empty_dsn):
    runs = await asyncio.gather(*(asyncio.to_thread(migrate.apply, empty_dsn) for _ in range(4)))
    assert sorted(runs, key=len) == [(), (), (), ALL]
    rows = await execute(empty_dsn, "SELECT migration_id FROM public._yoyo_migration")
    assert sorted(row["migration_id"] for row in rows) == list(ALL)


async def test_where_snapshots_lie_is_told_of_an_empty_and_of_a_plain_database(empty_dsn):
    assert migrate.snapshots_in(empty_dsn).kind == "nothing"
    migrate.apply(empty_dsn)
    found = migrate.snapshots_in(empty_dsn)
    assert (found.kind, set(found.months), found.plain) == ("months", BY_MONTH, ())


async def test_nothing_is_printed(empty_dsn, capfd):
    migrate.apply(empty_dsn)
    assert capfd.readouterr().out == ""


async def test_older_code_refuses_a_newer_database(empty_dsn, tmp_path):
    folder = tmp_path / "newer"
    shutil.copytree(migrate.migrations_dir(), folder)
    (folder / "9999.future.sql").write_text("CREATE TABLE arb.future (n int);")
    migrate.apply(empty_dsn, folder)
    assert migrate.status(empty_dsn).unknown == ("9999.future",)
    with pytest.raises(BadInput, match=r"does not know: 9999\.future"):
        migrate.apply(empty_dsn)
    with pytest.raises(BadInput, match=r"does not know: 9999\.future"):
        migrate.rollback(empty_dsn, 1)


async def test_a_failing_migration_leaves_nothing_of_itself(empty_dsn, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(migrate.migrations_dir(), folder)
    (folder / "9999.broken.sql").write_text("CREATE TABLE arb.half (n int);\nSELECT 1 / 0;")
    with pytest.raises(BadInput, match="division by zero"):
        migrate.apply(empty_dsn, folder)
    assert migrate.status(empty_dsn, folder).applied == ALL
    found = await execute(empty_dsn, "SELECT to_regclass('arb.half') AS half")
    assert found[0]["half"] is None


async def test_no_server_is_said_plainly():
    with pytest.raises(StoreUnavailable, match="postgres is unavailable"):
        migrate.status("postgresql://arb:x@127.0.0.1:1/arb")


async def test_append_only_tables_refuse_every_change(postgres_dsn):
    await run_script(postgres_dsn, FILL)
    for table in APPEND_ONLY:
        for change in (f"DELETE FROM arb.{table}", f"TRUNCATE arb.{table} CASCADE",
                       f"UPDATE arb.{table} SET env = env"):  # fmt: skip
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await execute(postgres_dsn, change)
        kept = await execute(postgres_dsn, f"SELECT count(*) FROM arb.{table}")
        assert kept[0]["count"] > 0, table


# What may change, and how far; everything else is append-only. Disposable: snapshots, tuning.
MUTABLE = {
    "sessions": "may end",
    "session_runs": "may end",
    "trades": "may close",
    "risk_lease": "its epoch may grow",
    "symbol_owners": "its epoch may grow",
    "trade_numbers": "may grow",
    "free_totals": "moved by postings",
    "tuning_results": "disposable",
    "tuning_trials": "disposable",
    "snapshot_batches": "disposable",
    "snapshot_quarantine": "disposable",
    **dict.fromkeys(
        ("session_snapshots", "position_snapshots", "metrics_snapshots", "risk_guard_snapshots"),
        "disposable",
    ),
}


async def test_every_table_is_append_only_or_named_here(postgres_dsn):
    tables = await execute(
        postgres_dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = 'arb'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition",
    )
    assert {row["relname"] for row in tables} == {*APPEND_ONLY, *MUTABLE}


COUNTERS = """
    INSERT INTO arb.risk_lease (env, epoch, holder) VALUES ('t', 3, 'g');
    INSERT INTO arb.symbol_owners (env, symbol, epoch, owner) VALUES ('t', 'BTC', 3, 'h');
    INSERT INTO arb.trade_numbers VALUES ('t', 'BTC', 3);
"""


@pytest.mark.parametrize(
    ("table", "column", "symbol"),
    [
        ("risk_lease", "epoch", ""),
        ("symbol_owners", "epoch", ", symbol = 'ETH'"),
        ("trade_numbers", "last_number", ", symbol = 'ETH'"),
    ],
)
async def test_epochs_and_numbers_only_grow_and_keep_their_key(postgres_dsn, table, column, symbol):
    await run_script(postgres_dsn, COUNTERS)
    changes = [f"UPDATE arb.{table} SET {column} = 2", f"UPDATE arb.{table} SET env = 'other'",
               f"DELETE FROM arb.{table}", f"TRUNCATE arb.{table}"]  # fmt: skip
    if symbol:
        changes.append(f"UPDATE arb.{table} SET {column} = 4{symbol}")
    for change in changes:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await execute(postgres_dsn, change)
    await execute(postgres_dsn, f"UPDATE arb.{table} SET {column} = 4")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
async def test_no_figure_of_the_ledger_is_less_than_a_number(postgres_dsn, number):
    """NaN is above every number in PostgreSQL, so a bound from below does not keep it out."""
    await run_script(postgres_dsn, FILL)
    columns = await execute(
        postgres_dsn,
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
        " USING (table_schema, table_name) WHERE table_schema = 'arb' AND data_type = 'numeric'"
        " AND table_type = 'BASE TABLE' ORDER BY 1, 2",
    )
    assert {"postings", "fills", "trades"} < {row["table_name"] for row in columns}
    for table, column in columns:
        # Only the checks are asked: the trigger that refuses the change stands aside.
        with pytest.raises(asyncpg.CheckViolationError):
            await run_script(
                postgres_dsn,
                "SET session_replication_role = replica;"
                f" UPDATE arb.{table} SET {column} = '{number}'",
            )


async def test_a_posting_belongs_to_an_entry(postgres_dsn):
    line = LINE.format(line=0, account="free", asset="KRW", amount=0)
    with pytest.raises(asyncpg.ForeignKeyViolationError, match="there is no such entry"):
        await run_script(postgres_dsn, line)


async def test_what_is_free_is_counted_by_postings_and_by_nobody_else(postgres_dsn):
    await run_script(postgres_dsn, FILL)
    total = "SELECT venue, asset, amount FROM arb.free_totals WHERE env = 't'"
    assert [tuple(row) for row in await execute(postgres_dsn, total)] == [("upbit", "KRW", 5)]
    for change in (
        "UPDATE arb.free_totals SET amount = 6",
        "DELETE FROM arb.free_totals",
        "INSERT INTO arb.free_totals VALUES ('t', 'upbit', 'BTC', 1)",
        "TRUNCATE arb.free_totals",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="refused"):
            await execute(postgres_dsn, change)


async def test_what_is_free_of_older_postings_is_counted_by_the_migration(postgres_dsn):
    await run_script(postgres_dsn, FILL)
    migrate.rollback(postgres_dsn, len(ALL) - ALL.index("0010.reservation_groups"))
    migrate.apply(postgres_dsn)
    rows = await execute(postgres_dsn, "SELECT amount FROM arb.free_totals")
    assert [row["amount"] for row in rows] == [5]


TUNED = """
    INSERT INTO arb.tuning_results (env, run_id, trial, parameters, scores, recorded_ns)
    VALUES ('t', 'r', 0, '{"z": 1, "a": 2}', '{}', 1735689599999999999),
           ('t', 'r', 1, '{}', '{"s": 0.5}', 1735689600000000001), ('t', 'r', 2, '{}', '{}', 0)
"""


async def test_tuning_results_come_into_their_months_and_back_as_they_were(empty_dsn):
    migrate.apply(empty_dsn)
    back = len(ALL) - ALL.index("0016.tuning_months")
    migrate.rollback(empty_dsn, back)
    await run_script(empty_dsn, TUNED)
    rows = "SELECT json_agg(t ORDER BY trial)::text FROM arb.tuning_results AS t"
    before = await execute(empty_dsn, rows)
    migrate.apply(empty_dsn)
    found = await execute(
        empty_dsn,
        "SELECT relname, at_ns FROM arb.tuning_results AS t JOIN pg_class AS c ON c.oid = t.tableoid ORDER BY at",
    )
    assert [tuple(row) for row in found] == [
        ("tuning_results_y1970m01", 0),
        ("tuning_results_y2024m12", 1735689599999999999),
        ("tuning_results_y2025m01", 1735689600000000001),
    ]
    assert len(await execute(empty_dsn, "SELECT 1 FROM arb.tuning_trials")) == 3
    # A month that retention has detached when the rollback comes is not lost either.
    await run_script(
        empty_dsn,
        "ALTER TABLE arb.tuning_results DETACH PARTITION arb.tuning_results_y2024m12;"
        " ALTER TABLE arb.tuning_results_y2024m12 RENAME TO tuning_results_y2024m12_aside",
    )
    migrate.rollback(empty_dsn, back)
    assert await execute(empty_dsn, rows) == before


async def test_a_trial_has_one_result_whatever_its_month(postgres_dsn):
    result = "INSERT INTO arb.tuning_results VALUES (1, 't', 'r', {}, {}, 0, '{{}}', '{{}}')"
    await execute(postgres_dsn, result.format(1, "now()"))
    for moment in ("now()", "now() + interval '1 month'"):
        with pytest.raises(asyncpg.UniqueViolationError, match="tuning_trials"):
            await execute(postgres_dsn, result.format(1, moment))
    await execute(postgres_dsn, result.format(2, "now() + interval '1 month'"))


async def test_a_trade_moves_from_open_to_closed_and_nowhere_else(postgres_dsn):
    await run_script(postgres_dsn, FILL)
    close = "UPDATE arb.trades SET status = 'closed', outcome = 'voided', closed_ns = 1"
    refused = pytest.raises(asyncpg.IntegrityConstraintViolationError, match="only move from open")
    with refused:
        await execute(postgres_dsn, f"{close}, symbol = 'ETH'")
    with refused:
        await execute(postgres_dsn, "DELETE FROM arb.trades")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await execute(postgres_dsn, "TRUNCATE arb.trades CASCADE")
    with refused:
        await execute(postgres_dsn, "UPDATE arb.trades SET exit_reason = 'x'")
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(
            postgres_dsn, "INSERT INTO arb.trades (env, trade_id, symbol) VALUES ('t', '2', 'BTC')"
        )
    await execute(postgres_dsn, close)
    with refused:
        await execute(postgres_dsn, close)
    await execute(
        postgres_dsn, "INSERT INTO arb.trades (env, trade_id, symbol) VALUES ('t', '2', 'BTC')"
    )


ENTRY = "INSERT INTO arb.entries (env, entry_id, kind, epoch, at_ns, posting_count, digest) VALUES ('t', 'e', 'hold', 1, 0, 2, '');"
LINE = "INSERT INTO arb.postings VALUES (1, 't', 'e', {line}, NULL, 'upbit', '{account}', '{asset}', {amount});"


@pytest.mark.parametrize(
    "lines",
    [
        [("free", "KRW", -5), ("held", "KRW", 4)],
        [("free", "KRW", -5), ("held", "USDT", 5)],
        [("free", "KRW", 0)],
        [],
    ],
)
async def test_the_database_refuses_an_entry_that_does_not_balance(postgres_dsn, lines):
    sql = "".join(
        LINE.format(line=n, account=account, asset=asset, amount=amount)
        for n, (account, asset, amount) in enumerate(lines)
    )
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="does not balance"):
        await run_script(postgres_dsn, f"BEGIN; {ENTRY} {sql} COMMIT;")
    assert await execute(postgres_dsn, "SELECT 1 FROM arb.entries") == []


async def test_nothing_is_added_to_a_committed_entry(postgres_dsn):
    balanced = LINE.format(line=0, account="free", asset="KRW", amount=-5) + LINE.format(
        line=1, account="held", asset="KRW", amount=5
    )
    await run_script(postgres_dsn, f"BEGIN; {ENTRY} {balanced} COMMIT;")
    more = balanced.replace("'e', 0", "'e', 2").replace("'e', 1", "'e', 3")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="line 2 where 2 postings"):
        await run_script(postgres_dsn, f"BEGIN; {more} COMMIT;")
    before = balanced.replace("'e', 0", "'e', -1").replace("'e', 1", "'e', -2")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="where 2 postings"):
        await run_script(postgres_dsn, before)
    with pytest.raises(asyncpg.UniqueViolationError):
        await run_script(postgres_dsn, f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {balanced} COMMIT;")


async def test_partitions_are_made_ahead_and_by_two_at_once(postgres_dsn):
    made = await asyncio.gather(
        *(execute(postgres_dsn, "SELECT arb.ensure_partitions(14) AS made") for _ in range(3))
    )
    assert sorted(rows[0]["made"] for rows in made) == [0, 0, 12 * len(BY_MONTH)]
    again = await execute(postgres_dsn, "SELECT arb.ensure_partitions(14) AS made")
    assert again[0]["made"] == 0


async def test_a_role_that_is_no_superuser_migrates_and_cannot_switch_the_triggers_off(
    embedded_postgres, empty_dsn
):
    """`session_replication_role` needs a superuser, and arb_ray needs none."""
    name = empty_dsn.rsplit("/", 1)[1]
    await run_script(
        empty_dsn,
        f"CREATE ROLE plain_{name} LOGIN PASSWORD 'of-a-test';"
        f" ALTER DATABASE {name} OWNER TO plain_{name}; GRANT ALL ON SCHEMA public TO plain_{name}",
    )
    plain = f"postgresql://plain_{name}:of-a-test@127.0.0.1:{embedded_postgres.port}/{name}"
    assert await asyncio.to_thread(migrate.apply, plain) == ALL
    await run_script(plain, FILL)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await run_script(plain, "SET session_replication_role = replica")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await run_script(plain, "DELETE FROM arb.postings")


@pytest.mark.parametrize("table", APPEND_ONLY)
async def test_a_row_that_is_written_again_is_refused_by_its_key(postgres_dsn, table):
    await run_script(postgres_dsn, FILL)
    with pytest.raises(asyncpg.UniqueViolationError):
        await execute(
            postgres_dsn,
            f"INSERT INTO arb.{table} OVERRIDING SYSTEM VALUE SELECT * FROM arb.{table}",
        )


async def test_an_account_of_another_kind_is_refused(postgres_dsn):
    line = LINE.format(line=0, account="pocket", asset="KRW", amount=0)
    with pytest.raises(asyncpg.CheckViolationError):
        await run_script(postgres_dsn, f"BEGIN; {ENTRY} {line} COMMIT;")
