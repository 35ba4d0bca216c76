"""
Sessions in PostgreSQL: one is open per environment, ``--resume`` continues it.

Session ids are time-ordered and random, so two starts at the same moment do not collide.
Balances and limits belong to the environment: a new session resets none of them.
"""

from __future__ import annotations

import datetime as dt
import secrets
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import BadInput
from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.domain.money import ZERO


class Session(msgspec.Struct, frozen=True):
    """A stored session. ``origin_ns`` is where the simulated market's time began."""

    session_id: str
    source: str
    preset: str
    seed: int
    started_ns: int
    origin_ns: int
    is_resumed: bool = False


class SessionTotals(msgspec.Struct, frozen=True):
    """What the ledger says that a session's trades came to."""

    trades_opened: int = 0
    trades_closed: int = 0
    open_positions: int = 0
    realized_usdt: Decimal = ZERO
    fees_usdt: Decimal = ZERO
    parts: PnlParts = NO_PNL


def new_session_id(now: dt.datetime) -> str:
    """Return an id that sorts by time and carries 48 random bits."""
    return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(6)}"


class SessionStore:
    """Opens, continues and closes the sessions of one environment."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def open(
        self, *, source: str, preset: str, seed: int, now_ns: int, is_new: bool
    ) -> Session:
        """
        Continue the open session, or begin one.

        Raises:
            BadInput: A session of another source or preset is open and has open trades,
                which only its own market could close.
        """
        async with self._postgres.transaction("session") as connection:
            # Two starts at once take turns, and the second continues what the first began.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('arb.session:' || $1))", self._env
            )
            found = await self._open_one(connection)
            if found is not None and not is_new and _same_market(found, source, preset):
                return found
            if found is not None:
                await self._leave(connection, found, source, preset, now_ns)
            now = dt.datetime.fromtimestamp(now_ns / 1e9, tz=dt.UTC)
            session = Session(new_session_id(now), source, preset, seed, now_ns, now_ns)
            await connection.execute(
                "INSERT INTO arb.sessions (env, session_id, source, preset, seed, config,"
                " started_ns) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                self._env,
                session.session_id,
                source,
                preset,
                seed,
                msgspec.json.encode({"origin_ns": now_ns}).decode(),
                now_ns,
            )
            return session

    async def keep_summary(self, session_id: str, summary: bytes) -> None:
        """Keep the newest summary; the session stays open, to be resumed or left by name."""
        async with self._postgres.transaction("session summary") as connection:
            await connection.execute(
                "UPDATE arb.sessions SET summary = $3 WHERE env = $1 AND session_id = $2",
                self._env,
                session_id,
                summary.decode(),
            )

    async def totals(self, session_id: str) -> SessionTotals:
        """Add up the session's trades from the ledger."""
        async with self._postgres.connection() as connection:
            row: Any = await connection.fetchrow(_TOTALS_SQL, self._env, session_id)
        parts = PnlParts(row["spread"], row["fx"], row["fees"], row["slippage"], row["funding"])
        return SessionTotals(
            row["opened"], row["closed"], row["open"], row["realized"], -row["fees"], parts
        )

    async def _open_one(self, connection: Connection) -> Session | None:
        row = await connection.fetchrow(
            "SELECT session_id, source, preset, seed, started_ns, config FROM arb.sessions"
            " WHERE env = $1 AND closed_ns IS NULL",
            self._env,
        )
        if row is None:
            return None
        config = msgspec.json.decode(row["config"])
        return Session(
            row["session_id"],
            row["source"],
            row["preset"],
            row["seed"],
            row["started_ns"],
            config.get("origin_ns", row["started_ns"]),
            is_resumed=True,
        )

    async def _leave(
        self, connection: Connection, found: Session, source: str, preset: str, now_ns: int
    ) -> None:
        open_trades = await connection.fetchval(
            "SELECT count(*) FROM arb.trades WHERE env = $1 AND status = 'open'", self._env
        )
        if open_trades:
            raise BadInput(
                f"session {found.session_id}",
                f"it has {open_trades} open trades on {found.source} {found.preset}".rstrip()
                + f", which {source} {preset}".rstrip()
                + " cannot close",
                "Resume it with its own source and preset, and let it exit first",
            )
        await connection.execute(
            "UPDATE arb.sessions SET closed_ns = $3 WHERE env = $1 AND session_id = $2",
            self._env,
            found.session_id,
            now_ns,
        )


def _same_market(found: Session, source: str, preset: str) -> bool:
    return (found.source, found.preset) == (source, preset)


_TOTALS_SQL = """
    SELECT count(*) FILTER (WHERE outcome IS DISTINCT FROM 'voided') AS opened,
           count(*) FILTER (WHERE outcome = 'posted') AS closed,
           count(*) FILTER (WHERE status = 'open') AS open,
           coalesce(sum(realized_usdt) FILTER (WHERE outcome = 'posted'), 0) AS realized,
           coalesce(sum(spread_usdt), 0) AS spread,
           coalesce(sum(fx_usdt), 0) AS fx,
           coalesce(sum(trades.fees_usdt), 0) AS fees,
           coalesce(sum(slippage_usdt), 0) AS slippage,
           coalesce(sum(funding_usdt), 0) AS funding
    FROM arb.trades JOIN arb.reservations USING (env, trade_id)
    WHERE env = $1 AND session_id = $2
"""
