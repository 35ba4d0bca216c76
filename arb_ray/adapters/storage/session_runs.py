"""
Runs of sessions: one at a time an environment, and each ends cleanly or has crashed.

A run holds an advisory lock on a connection of its own. The server frees it when the process
ends, however it ends, so a crashed run is in nobody's way, and a living one refuses another.
What a run on a cluster does nobody holds a lock for: RiskGuard's lease tells that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import AsyncIterator, Callable

import asyncpg
import msgspec
import psutil

from arb_ray.adapters.storage.postgres_pool import SAID_BY_SERVER, WIRE_BROKE, Postgres
from arb_ray.domain.errors import BadInput, StoreUnavailable

CONNECT_TIMEOUT_S = 5.0
WATCH_S = 1.0

LEASE_ALIVE_S = 5.0
"""A guard renews its lease every second or so. One that did lately, from a process that is gone,
belongs to a run that has crashed."""

KEEPALIVE = {
    # A node that lost its network frees the lock after some ten seconds, not after two hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "statement_timeout": "5000",
}


class CrashedRun(msgspec.Struct, frozen=True):
    """A run that had begun and had not ended when the next one came."""

    session_id: str
    holder: str
    started_ns: int


class RunLock:
    """The right to run an environment, held for as long as this process and its wire live."""

    def __init__(self, dsn: str, env: str) -> None:
        self._dsn = dsn
        self._env = env
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def take(self) -> None:
        """
        Take it, or refuse to run.

        Raises:
            BadInput: Another run has it.
            StoreUnavailable: PostgreSQL did not answer.
        """
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(
                    self._dsn,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=CONNECT_TIMEOUT_S,
                    server_settings=KEEPALIVE | {"application_name": f"arb_ray run {holder()}"},
                )
            if not await self._connection.fetchval(_TAKE_SQL, self._env):
                other = await self._connection.fetchval(_HOLDER_SQL, self._env)
                await self.release()
                raise BadInput(
                    f"environment {self._env}",
                    f"a run of it goes on: {other or 'another process'} holds it",
                    "Stop that run first, or name another --env or --data-dir",
                )
        except (*WIRE_BROKE, *SAID_BY_SERVER) as error:
            raise StoreUnavailable("postgres", str(error)) from error

    async def watch(self, on_lost: Callable[[str], None]) -> None:
        """Keep it over PostgreSQL's restarts; call ``on_lost`` and end once another run has it."""
        while True:
            await asyncio.sleep(WATCH_S)
            connection = self._connection
            try:
                if connection is None or connection.is_closed():
                    await self.take()
                else:
                    await connection.fetchval("SELECT 1")
            except BadInput as error:
                on_lost(str(error))
                return
            except (StoreUnavailable, *WIRE_BROKE, *SAID_BY_SERVER):
                # Away: nothing is entered, and nobody else can take it either.
                if connection is not None:
                    connection.terminate()

    async def release(self) -> None:
        """Give it back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*WIRE_BROKE, *SAID_BY_SERVER):
                await connection.close(timeout=CONNECT_TIMEOUT_S)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold it for a block."""
        await self.take()
        try:
            yield
        finally:
            await self.release()


def holder() -> str:
    """Name this process among all machines."""
    return f"{platform.node()}/{os.getpid()}"


class SessionRuns:
    """The runs of one environment in PostgreSQL."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def refuse_elsewhere(self) -> None:
        """
        Refuse to run beside a RiskGuard that lives: a cluster's, of which no lock tells.

        Waits for the lease of a crashed run to become old, a few seconds at most.

        Raises:
            BadInput: It goes on renewing its lease.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LEASE_ALIVE_S + 2 * WATCH_S
        while True:
            async with self._postgres.connection() as connection:
                row = await connection.fetchrow(_LEASE_SQL, self._env)
            if row is None or row["silent_s"] > LEASE_ALIVE_S or _is_gone(row["holder"]):
                return
            if loop.time() > until_s:
                raise BadInput(
                    f"environment {self._env}",
                    f"a run of it goes on: its RiskGuard {row['holder']} wrote"
                    f" {row['silent_s']:.1f} s ago",
                    "Stop that run first (submit --stop on its cluster), or name another --env",
                )
            await asyncio.sleep(WATCH_S / 4)

    async def begin(self, session_id: str, now_ns: int) -> CrashedRun | None:
        """
        Note a run's begin; return the run before it if that has crashed.

        Only the one run of the environment may call this.
        """
        async with self._postgres.transaction("begin of a run") as connection:
            row = await connection.fetchrow(
                "UPDATE arb.session_runs SET ended_ns = $2, ending = 'crashed'"
                " WHERE env = $1 AND ended_ns IS NULL RETURNING session_id, holder, started_ns",
                self._env,
                now_ns,
            )
            await connection.execute(
                "INSERT INTO arb.session_runs (env, session_id, holder, started_ns)"
                " VALUES ($1, $2, $3, $4)",
                self._env,
                session_id,
                holder(),
                now_ns,
            )
        return None if row is None else CrashedRun(*row.values())

    async def end(self, now_ns: int) -> None:
        """Note the clean stop of the environment's run."""
        async with self._postgres.transaction("end of a run") as connection:
            await connection.execute(
                "UPDATE arb.session_runs SET ended_ns = $2, ending = 'clean'"
                " WHERE env = $1 AND ended_ns IS NULL",
                self._env,
                now_ns,
            )


def _is_gone(lease_holder: str) -> bool:
    """Tell whether the guard ``name/node/pid`` ran on this machine and runs no more."""
    *_, node, pid = f"//{lease_holder}".rsplit("/", 2)
    return node == platform.node() and pid.isdigit() and not psutil.pid_exists(int(pid))


_TAKE_SQL = "SELECT pg_try_advisory_lock(hashtext('arb.run'), hashtext($1))"

_HOLDER_SQL = """
    SELECT regexp_replace(a.application_name, '^arb_ray run ', '')
    FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid::bigint = hashtext('arb.run')::bigint & 4294967295
        AND l.objid::bigint = hashtext($1)::bigint & 4294967295"""

_LEASE_SQL = """
    SELECT holder, (arb.now_ns() - renewed_ns) / 1e9 AS silent_s
    FROM arb.risk_lease WHERE env = $1"""
