"""Sessions as an operator sees them: what there was, what it came to, and an end by hand."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import BadInput

LISTED_MAX = 1_000
"""Rows of one list; older sessions are shown by their id."""

ALIVE_S = 10.0
"""A guard renews its lease every second or so: one that did lately means that a run goes on."""


class SessionRecord(msgspec.Struct, frozen=True):
    """A stored session with what its trades came to by the ledger."""

    session_id: str
    source: str
    preset: str
    seed: int | None
    started_ns: int
    closed_ns: int | None  # None while it is open
    trades_closed: int
    trades_open: int
    realized_usdt: Decimal
    runs: int = 0
    last_run: str = ""  # clean, crashed, or begun: it goes on, or crashed and nobody came yet


class SessionRecords:
    """Reads and closes the sessions of one environment. Raises StoreUnavailable."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def newest(self, count: int) -> tuple[SessionRecord, ...]:
        """Return the newest sessions, newest first; at most ``LISTED_MAX``."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"{_RECORDS_SQL} ORDER BY started_ns DESC, session_id DESC LIMIT $2",
                self._env,
                min(count, LISTED_MAX),
            )
        return tuple(_record(row) for row in rows)

    async def find(self, session_id: str) -> tuple[SessionRecord, dict[str, Any] | None]:
        """Return a session and the summary of its last run, if there is one. Raises BadInput."""
        async with self._postgres.connection() as connection:
            return await self._find(connection, session_id)

    async def close(self, session_id: str, now_ns: int) -> SessionRecord:
        """
        End a session for good: no start continues it. Closing a closed one changes nothing.

        Raises:
            BadInput: It is not known, has open trades, or a run of the environment goes on.
        """
        place = f"session {session_id}"
        async with self._postgres.transaction(f"close of {place}") as connection:
            # The lock of ``SessionStore.open``: a start at the same moment waits.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('arb.session:' || $1))", self._env
            )
            found, _ = await self._find(connection, session_id)
            if found.closed_ns is not None:
                return found
            silent_s = await connection.fetchval(
                "SELECT (arb.now_ns() - renewed_ns) / 1e9 FROM arb.risk_lease WHERE env = $1",
                self._env,
            )
            if silent_s is not None and silent_s < ALIVE_S:
                problem = f"a run of {self._env} goes on: its RiskGuard wrote {silent_s:.1f} s ago"
                raise BadInput(place, problem, "Stop the run first")
            if found.trades_open:
                raise BadInput(
                    place,
                    f"it has {found.trades_open} open trades, which only a run of it can close",
                    "Resume it with --set session.on_stop=exit and stop it, then close it",
                )
            await connection.execute(
                "UPDATE arb.sessions SET closed_ns = $3 WHERE env = $1 AND session_id = $2",
                self._env,
                session_id,
                now_ns,
            )
        return msgspec.structs.replace(found, closed_ns=now_ns)

    async def closed_and_known(self, session_ids: Sequence[str]) -> tuple[set[str], set[str]]:
        """Return which of these sessions are closed for good, and which are known at all."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT session_id, closed_ns FROM arb.sessions "
                "WHERE env = $1 AND session_id = ANY($2)",
                self._env,
                list(session_ids),
            )
        closed = {row["session_id"] for row in rows if row["closed_ns"] is not None}
        return closed, {row["session_id"] for row in rows}

    async def _find(
        self, connection: Connection, session_id: str
    ) -> tuple[SessionRecord, dict[str, Any] | None]:
        row = await connection.fetchrow(
            f"{_RECORDS_SQL} AND session_id = $2", self._env, session_id
        )
        if row is None:
            mend = f"`arb-ray sessions list --env {self._env}` shows those of {self._env}"
            raise BadInput(f"session {session_id}", "there is none of this id", mend)
        summary = None if row["summary"] is None else msgspec.json.decode(row["summary"], type=dict)
        return _record(row), summary


def _record(row: Any) -> SessionRecord:
    return SessionRecord(
        **{name: row[name] for name in SessionRecord.__struct_fields__}  # columns of that name
    )


_RECORDS_SQL = """
    SELECT session_id, source, preset, seed, started_ns, closed_ns, summary::text AS summary,
           trades_closed, trades_open, realized_usdt, runs, last_run
    FROM arb.sessions CROSS JOIN LATERAL (
        SELECT count(*) AS runs,
               coalesce((array_agg(coalesce(ending, 'begun') ORDER BY number DESC))[1], '')
                   AS last_run
        FROM arb.session_runs AS r
        WHERE r.env = sessions.env AND r.session_id = sessions.session_id) AS ran
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE outcome = 'posted' AND t.notional_usdt > 0) AS trades_closed,
               count(*) FILTER (WHERE status = 'open') AS trades_open,
               coalesce(sum(realized_usdt) FILTER (WHERE outcome = 'posted'), 0) AS realized_usdt
        FROM arb.reservations AS r JOIN arb.trades AS t USING (env, trade_id)
        WHERE r.env = sessions.env AND r.session_id = sessions.session_id) AS traded
    WHERE env = $1"""
