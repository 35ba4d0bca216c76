"""
Who may do what in the database: owner, writer, reader.

The owner makes and changes the schema, and is whoever runs the migrations. The running system logs
in as the writer: it adds rows, changes those few that may change, and can neither alter the schema
nor remove or rewrite what the ledger says. The reader looks. Rights are derived from the schema as
it is, so they are put right again after every migration. All functions block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, LiteralString, cast

import msgspec
import psycopg
from psycopg import sql

from arb_ray.domain.errors import BadInput, StoreUnavailable

WRITER: Final = "arb_writer"
READER: Final = "arb_reader"
CONNECT_TIMEOUT_S: Final = 10
PASSWORD_CHARS_MIN: Final = 12

MAY_CHANGE: Final = frozenset(
    {
        "session_runs",
        "sessions",
        "trades",
        "risk_lease",
        "symbol_owners",
        "trade_numbers",
        "free_totals",
    }
)
"""Tables whose rows the running system changes or locks; triggers say how far. None may go."""

READS: Final = frozenset({"SELECT"})
ADDS: Final = frozenset({"SELECT", "INSERT"})
CHANGES: Final = frozenset({"SELECT", "INSERT", "UPDATE"})


class RoleState(msgspec.Struct, frozen=True):
    """A role and what is wrong with it, in sentences; nothing when it is as it should be."""

    name: str
    kind: str  # writer or reader
    can_login: bool
    problems: tuple[str, ...]


def make_roles(
    dsn: str,
    writer: str = WRITER,
    reader: str = READER,
    *,
    writer_password: str | None = None,
    reader_password: str | None = None,
) -> tuple[RoleState, ...]:
    """
    Make both roles where they are missing, and give them their rights; safe to repeat.

    A role without a password cannot log in, unless it could before. Passwords go to the server as
    SCRAM verifiers, so that its log cannot tell them.

    Raises:
        BadInput: A name or password cannot be used, or this login may not do it.
        StoreUnavailable: PostgreSQL is away.
    """
    for place, password in (("writer", writer_password), ("reader", reader_password)):
        if password is not None and len(password) < PASSWORD_CHARS_MIN:
            raise BadInput(
                f"--{place}-password-file",
                f"the password has fewer than {PASSWORD_CHARS_MIN} characters",
                "Make a longer one",
            )
    if writer == reader:
        raise BadInput("--reader", "is the writer's name", "Name two roles")
    with _connection(dsn) as connection:
        _refuse_ourselves(connection, (writer, reader))
        _make(connection, writer, writer_password)
        _make(connection, reader, reader_password)
        _grant(connection, writer, is_writer=True)
        _grant(connection, reader, is_writer=False)
        return _states(connection, {writer: "writer", reader: "reader"})


def look_at_roles(dsn: str) -> tuple[RoleState, ...]:
    """Return the roles that have rights here, and what is wrong with them."""
    with _connection(dsn) as connection:
        return _states(connection, _known(connection))


def regrant(connection: psycopg.Connection) -> None:
    """Give the roles of this database their rights on what a migration has made."""
    _take_turns(connection)
    for name, kind in _known(connection).items():
        _grant(connection, name, is_writer=kind == "writer")


def rights_of(table: str, *, is_writer: bool, is_view: bool = False) -> frozenset[str]:
    """Return what a role may do with a table. A table that nobody named gets rows, no changes."""
    if not is_writer or is_view:
        return READS
    return CHANGES if table in MAY_CHANGE else ADDS


def _make(connection: psycopg.Connection, name: str, password: str | None) -> None:
    found = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone()
    role = sql.Identifier(name)
    if not found:
        create = sql.SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(role)
        # Roles are the server's: whoever sees to another database may make it at this moment.
        there_already = (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)
        with contextlib.suppress(*there_already), connection.transaction():
            connection.execute(create)
    if password is not None:
        verifier = connection.pgconn.encrypt_password(
            password.encode(), name.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(verifier))
        )


def _grant(connection: psycopg.Connection, name: str, *, is_writer: bool) -> None:
    role = sql.Identifier(name)
    database = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    # Some servers were made when everybody could make tables in ``public``.
    connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}, PUBLIC").format(role))
    connection.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA arb FROM {}").format(role))
    connection.execute(sql.SQL("REVOKE ALL ON SCHEMA arb FROM {}").format(role))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA arb TO {}").format(role))
    # Which migrations there are: a run refuses a schema that is not its own.
    connection.execute(sql.SQL("GRANT SELECT ON public._yoyo_migration TO {}").format(role))
    for table, is_view in _tables(connection):
        rights = rights_of(table, is_writer=is_writer, is_view=is_view)
        connection.execute(
            sql.SQL("GRANT {} ON arb.{} TO {}").format(
                sql.SQL(", ".join(sorted(rights))), sql.Identifier(table), role
            )
        )
    # What acts in the owner's name is the writer's alone; PostgreSQL lets everybody call it.
    for signature in _owners_functions(connection):
        function = sql.SQL(signature)
        connection.execute(
            sql.SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC, {}").format(function, role)
        )
        if is_writer:
            connection.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(function, role))


def _owners_functions(connection: psycopg.Connection) -> list[LiteralString]:
    """Return the functions that run with their owner's rights, as PostgreSQL spells them."""
    rows = connection.execute(
        "SELECT format('arb.%I(%s)', proname, oidvectortypes(proargtypes)) FROM pg_proc"
        " WHERE pronamespace = 'arb'::regnamespace AND prosecdef ORDER BY 1"
    ).fetchall()
    # Quoted by the server, from its own catalogue.
    return [cast("LiteralString", row[0]) for row in rows]


def _tables(connection: psycopg.Connection) -> list[tuple[str, bool]]:
    """Return tables and views; a partition is reached through its parent, and needs no right."""
    rows = connection.execute(
        "SELECT relname, relkind = 'v' FROM pg_class WHERE relnamespace = 'arb'::regnamespace"
        " AND relkind IN ('r', 'p', 'v') AND NOT relispartition ORDER BY relname"
    ).fetchall()
    return [(str(name), bool(is_view)) for name, is_view in rows]


def _known(connection: psycopg.Connection) -> dict[str, str]:
    """Return who was given rights on the ledger: who may add to it writes, who may not reads."""
    rows = connection.execute(
        """
        SELECT r.rolname, bool_or(a.privilege_type = 'INSERT')
        FROM pg_class AS c, aclexplode(c.relacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
        WHERE c.oid = to_regclass('arb.entries') AND a.grantee <> c.relowner
        GROUP BY 1 ORDER BY 1
        """
    ).fetchall()
    return {str(name): "writer" if writes else "reader" for name, writes in rows}


def _states(connection: psycopg.Connection, kinds: dict[str, str]) -> tuple[RoleState, ...]:
    states = []
    for name, kind in kinds.items():
        row = connection.execute(
            """
            SELECT rolcanlogin, rolsuper, rolcreaterole OR rolcreatedb OR rolreplication,
                   has_schema_privilege(rolname, 'arb', 'CREATE')
                       OR has_schema_privilege(rolname, 'public', 'CREATE')
                       OR has_database_privilege(rolname, current_database(), 'CREATE'),
                   (SELECT array_agg(relname::text) FROM pg_class
                    WHERE relnamespace = 'arb'::regnamespace
                        AND pg_has_role(r.rolname, relowner, 'MEMBER'))
            FROM pg_roles AS r WHERE rolname = %s
            """,
            (name,),
        ).fetchone()
        assert row is not None, "it was found a moment ago"
        can_login, is_super, has_attributes, may_create, owned = row
        problems = []
        if is_super:
            problems.append("it is a superuser: every right is its own")
        if has_attributes:
            problems.append("it may make roles or databases, or replicate")
        if may_create and not is_super:
            problems.append("it may make tables here")
        if owned and not is_super:
            problems.append(f"it owns {len(owned)} relations, or is a member of who does")
        problems += [] if is_super or owned else _wrong_rights(connection, name, kind)
        states.append(RoleState(name, kind, bool(can_login), tuple(problems)))
    return tuple(states)


def _wrong_rights(connection: psycopg.Connection, name: str, kind: str) -> list[str]:
    problems = []
    every = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    for table, is_view in _tables(connection):
        wanted = rights_of(table, is_writer=kind == "writer", is_view=is_view)
        rows = connection.execute(
            "SELECT p FROM unnest(%s::text[]) AS p"
            " WHERE has_table_privilege(%s, format('arb.%%I', %s::text), p)",
            (list(every), name, table),
        ).fetchall()
        found = {str(row[0]) for row in rows}
        if lacking := wanted - found:
            problems.append(f"it may not {_words(lacking)} in {table}")
        if beyond := found - wanted:
            problems.append(f"it may {_words(beyond)} in {table}")
    for signature in _owners_functions(connection):
        row = connection.execute(
            "SELECT has_function_privilege(%s, %s::regprocedure, 'EXECUTE')", (name, signature)
        ).fetchone()
        assert row is not None, "it was found a moment ago"
        if row[0] != (kind == "writer"):
            problems.append(f"it may{' not' if kind == 'writer' else ''} call {signature}")
    return problems


def _words(rights: set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(rights))


def _refuse_ourselves(connection: psycopg.Connection, names: tuple[str, ...]) -> None:
    owner = connection.execute(
        "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'arb'"
    ).fetchone()
    if owner is None:
        raise BadInput("database", "it has no schema arb", "Run arb-ray db migrate first")
    if owner[0] in names:
        raise BadInput(
            "--writer or --reader", f"{owner[0]} owns the schema", "Name a role beside the owner"
        )


def _take_turns(connection: psycopg.Connection) -> None:
    """Let one at a time grant: two at once fail with "tuple concurrently updated"."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext('arb.roles'))")


@contextlib.contextmanager
def _connection(dsn: str) -> Iterator[psycopg.Connection]:
    """Lend a connection in one transaction: rights change all at once, or not at all."""
    try:
        with psycopg.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            _take_turns(connection)
            yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise BadInput(
            "database",
            str(error).strip().splitlines()[0],
            "Log in as the owner of the schema, who may make roles (CREATEROLE)",
        ) from error
    except psycopg.OperationalError as error:
        raise StoreUnavailable("postgres", str(error).strip()) from error
