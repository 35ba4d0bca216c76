"""Owner, writer, reader on a real PostgreSQL: what each may do, and what the running system cannot."""

import asyncio

import asyncpg
import msgspec
import psycopg
import pytest

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.roles import (
    MAY_CHANGE,
    READER,
    WRITER,
    RoleState,
    look_at_roles,
    make_roles,
    rights_of,
)
from arb_ray.adapters.storage.snapshot_store import BY_MONTH
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput
from tests.integration.conftest import execute, reader_of, writer_of
from tests.integration.test_migrations import APPEND_ONLY, FILL, run_script

WELL = (RoleState(WRITER, "writer", True, ()), RoleState(READER, "reader", True, ()))
REFUSED = asyncpg.InsufficientPrivilegeError


async def refuses(dsn, *statements):
    for statement in statements:
        with pytest.raises(REFUSED):
            await run_script(dsn, statement)


async def test_the_writer_adds_to_every_table_of_the_ledger(postgres_dsn):
    await run_script(writer_of(postgres_dsn), FILL)
    for table in APPEND_ONLY:
        found = await execute(reader_of(postgres_dsn), f"SELECT count(*) FROM arb.{table}")
        assert found[0]["count"] > 0, table


async def test_the_writer_cannot_remove_or_rewrite_what_the_ledger_says(postgres_dsn):
    """The right is missing, before a trigger is asked."""
    await run_script(postgres_dsn, FILL)
    for table in APPEND_ONLY:
        await refuses(
            writer_of(postgres_dsn),
            f"DELETE FROM arb.{table}",
            f"UPDATE arb.{table} SET env = env",
            f"TRUNCATE arb.{table} CASCADE",
        )
    for table in MAY_CHANGE - {"free_totals"}:
        await refuses(
            writer_of(postgres_dsn), f"DELETE FROM arb.{table}", f"TRUNCATE arb.{table} CASCADE"
        )


async def test_the_writer_cannot_alter_the_schema(postgres_dsn):
    writer = writer_of(postgres_dsn)
    await refuses(
        writer,
        "ALTER TABLE arb.postings ADD COLUMN more int",
        "ALTER TABLE arb.postings DISABLE TRIGGER ALL",
        "DROP TABLE arb.postings",
        "DROP TRIGGER append_only ON arb.postings",
        "CREATE TABLE arb.mine (n int)",
        "CREATE TABLE public.mine (n int)",
        "CREATE SCHEMA mine",
        "CREATE OR REPLACE FUNCTION arb.refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RETURN NEW; END $$",
        "SET session_replication_role = replica",
        f"ALTER ROLE {WRITER} SUPERUSER",
        f"GRANT DELETE ON arb.postings TO {WRITER}; DELETE FROM arb.postings",
        "INSERT INTO public._yoyo_migration (migration_hash) VALUES ('x')",
    )
    with pytest.raises(BadInput, match="Log in as the owner"):
        await asyncio.to_thread(migrate.rollback, writer, 1)
    assert (await asyncio.to_thread(migrate.status, writer)).pending == ()


async def test_the_reader_reads_all_and_writes_nothing(postgres_dsn):
    await run_script(postgres_dsn, FILL)
    reader = reader_of(postgres_dsn)
    relations = await execute(
        reader,
        "SELECT relname FROM pg_class WHERE relnamespace = 'arb'::regnamespace"
        " AND relkind IN ('r', 'p', 'v') AND NOT relispartition",
    )
    assert len(relations) > len(APPEND_ONLY)
    for row in relations:
        await execute(reader, f"SELECT count(*) FROM arb.{row['relname']}")
    for table in (*APPEND_ONLY, "trades", "sessions", "session_snapshots"):
        await refuses(
            reader,
            f"INSERT INTO arb.{table} OVERRIDING SYSTEM VALUE SELECT * FROM arb.{table}",
            f"UPDATE arb.{table} SET env = env",
            f"DELETE FROM arb.{table}",
        )


async def test_the_writer_makes_the_month_that_a_row_needs_and_nothing_else(postgres_dsn):
    writer = writer_of(postgres_dsn)
    row = (
        "INSERT INTO arb.session_snapshots VALUES (1, 't', 's', '', '2031-05-05', 0, 'b', 0, '{}')"
    )
    with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
        await execute(writer, row)
    made = await execute(writer, "SELECT arb.ensure_partitions_of('2031-05-31T23:59:59Z') AS made")
    assert made[0]["made"] == len(BY_MONTH)
    await execute(writer, row)
    await refuses(writer, "DROP TABLE arb.session_snapshots_y2031m05")
    owner = await execute(
        postgres_dsn,
        "SELECT relowner::regrole::text AS name FROM pg_class"
        " WHERE relname = 'session_snapshots_y2031m05'",
    )
    assert owner[0]["name"] == "arb"


async def test_nobody_else_finds_a_way_through_the_functions_that_run_as_the_owner(postgres_dsn):
    """A function of the owner's that looked names up in the caller's schemas would run his code."""
    found = await execute(
        postgres_dsn,
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = 'arb'::regnamespace"
        " AND prosecdef",
    )
    assert {row["proname"] for row in found} == {"ensure_partitions", "ensure_partitions_of"}
    for row in found:
        assert row["proconfig"] == ["search_path=arb, pg_temp"]
    # Months without end are a way to write, too.
    await refuses(
        reader_of(postgres_dsn),
        "SELECT arb.ensure_partitions(100)",
        "SELECT arb.ensure_partitions_of('2031-05-31T23:59:59Z')",
    )


async def test_a_reader_that_may_act_as_the_owner_is_found_and_put_right(postgres_dsn):
    await run_script(postgres_dsn, "GRANT EXECUTE ON FUNCTION arb.ensure_partitions(int) TO PUBLIC")
    found = {state.kind: state for state in await asyncio.to_thread(look_at_roles, postgres_dsn)}
    assert found["reader"].problems == ("it may call arb.ensure_partitions(integer)",)
    assert await asyncio.to_thread(make_roles, postgres_dsn) == WELL


async def test_what_a_later_migration_makes_is_granted_with_it(postgres_dsn, tmp_path):
    for path in migrate.migrations_dir().glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "9999.more.sql").write_text("CREATE TABLE arb.more (n int);")
    (tmp_path / "9999.more.rollback.sql").write_text("DROP TABLE arb.more;")
    await asyncio.to_thread(migrate.apply, postgres_dsn, tmp_path)
    await execute(writer_of(postgres_dsn), "INSERT INTO arb.more VALUES (1)")
    await refuses(writer_of(postgres_dsn), "DELETE FROM arb.more")
    assert len(await execute(reader_of(postgres_dsn), "SELECT n FROM arb.more")) == 1
    assert await asyncio.to_thread(look_at_roles, postgres_dsn) == (WELL[1], WELL[0])


async def test_making_roles_again_and_at_once_changes_nothing(postgres_dsn):
    made = await asyncio.gather(*(asyncio.to_thread(make_roles, postgres_dsn) for _ in range(4)))
    assert made == [WELL] * 4


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (f"GRANT DELETE ON arb.fills TO {WRITER}", "it may DELETE in fills"),
        (f"GRANT UPDATE ON arb.postings TO {WRITER}", "it may UPDATE in postings"),
        ("GRANT TRUNCATE ON arb.orders TO PUBLIC", "it may TRUNCATE in orders"),
        (f"REVOKE INSERT ON arb.orders FROM {WRITER}", "it may not INSERT in orders"),
        (f"GRANT CREATE ON SCHEMA arb TO {WRITER}", "it may make tables here"),
        (
            f"REVOKE EXECUTE ON FUNCTION arb.ensure_partitions(int) FROM {WRITER}",
            "it may not call arb.ensure_partitions(integer)",
        ),
    ],
)
async def test_a_right_too_many_or_too_few_is_found_and_put_right(postgres_dsn, change, problem):
    await run_script(postgres_dsn, change)
    found = {state.kind: state for state in await asyncio.to_thread(look_at_roles, postgres_dsn)}
    assert problem in found["writer"].problems
    if "PUBLIC" not in change:  # what was given to everybody is for a person to take back
        assert await asyncio.to_thread(make_roles, postgres_dsn) == WELL


def test_a_role_that_is_more_than_it_should_be_is_found(postgres_dsn):
    with psycopg.connect(postgres_dsn, autocommit=True) as owner:
        owner.execute("CREATE ROLE strong_writer SUPERUSER")
        owner.execute("CREATE ROLE near_writer IN ROLE arb")
        try:
            (strong, _) = make_roles(postgres_dsn, "strong_writer", READER)
            (near, _) = make_roles(postgres_dsn, "near_writer", READER)
        finally:
            owner.execute("DROP OWNED BY strong_writer, near_writer")
            owner.execute("DROP ROLE strong_writer, near_writer")
    assert any("superuser" in problem for problem in strong.problems)
    assert any("member of who does" in problem for problem in near.problems)


def test_the_owner_is_not_made_the_writer_and_a_short_password_is_refused(postgres_dsn):
    with pytest.raises(BadInput, match="arb owns the schema"):
        make_roles(postgres_dsn, writer="arb")
    with pytest.raises(BadInput, match="fewer than 12"):
        make_roles(postgres_dsn, writer_password="short")
    with pytest.raises(BadInput, match="two roles"):
        make_roles(postgres_dsn, "one", "one")


async def test_a_database_without_the_schema_gets_no_roles(empty_dsn):
    with pytest.raises(BadInput, match="arb-ray db migrate first"):
        await asyncio.to_thread(make_roles, empty_dsn)
    assert await asyncio.to_thread(look_at_roles, empty_dsn) == ()


def test_a_password_goes_to_the_server_as_a_verifier(postgres_dsn, tmp_path):
    """What the server sees of statements, its log may tell."""
    with psycopg.connect(postgres_dsn, autocommit=True) as owner:
        owner.execute("CREATE ROLE seen_writer")
        make_roles(postgres_dsn, "seen_writer", READER, writer_password="not-to-be-seen-by-anyone")
        (kept,) = owner.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'seen_writer'"
        ).fetchone()
        with psycopg.connect(
            postgres_dsn.replace(
                postgres_dsn.rpartition("@")[0].rpartition("/")[2],
                "seen_writer:not-to-be-seen-by-anyone",
            )
        ) as there:
            assert there.execute("SELECT current_user").fetchone() == ("seen_writer",)
        owner.execute("DROP OWNED BY seen_writer")
        owner.execute("DROP ROLE seen_writer")
    assert kept.startswith("SCRAM-SHA-256$")


def test_rights_name_the_few_tables_that_may_change():
    assert rights_of("postings", is_writer=True) == {"SELECT", "INSERT"}
    assert rights_of("trades", is_writer=True) == {"SELECT", "INSERT", "UPDATE"}
    assert rights_of("a_view", is_writer=True, is_view=True) == {"SELECT"}
    assert rights_of("trades", is_writer=False) == {"SELECT"}


def test_the_command_makes_roles_and_tells_what_is_wrong(postgres_dsn, tmp_path, capsys):
    password = tmp_path / "writer"
    password.write_text("of-the-roles-in-tests\n")
    words = ["db", "roles", "--dsn", postgres_dsn]
    assert main([*words, "--writer-password-file", str(password)]) == 0
    assert f"{WRITER}: writer, logs in" in capsys.readouterr().out
    with psycopg.connect(postgres_dsn, autocommit=True) as owner:
        owner.execute(f"GRANT DELETE ON arb.fills TO {WRITER}")
    assert main([*words, "--check", "--json"]) == 1
    told = msgspec.json.decode(capsys.readouterr().out, type=list[RoleState])
    assert [state.problems for state in told if state.name == WRITER] == [
        ("it may DELETE in fills",)
    ]
    assert main([*words, "--json"]) == 0
    assert main(["db", "roles", "--dsn", writer_of(postgres_dsn)]) == 3
    assert "Log in as the owner" in capsys.readouterr().err
    missing = str(tmp_path / "none")
    assert main([*words, "--writer-password-file", missing]) == 3
    assert missing in capsys.readouterr().err
