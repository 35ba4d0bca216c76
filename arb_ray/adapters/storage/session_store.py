"""
Sessions in PostgreSQL: one is open per environment, ``--resume`` continues it.

Session ids are time-ordered and random, so two starts at the same moment do not collide.
Balances and limits belong to the environment: a new session resets none of them.
"""

from __future__ import annotations

import datetime as dt
import secrets
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import BadInput, LedgerViolation
from arb_ray.domain.instrument import InstrumentId, Symbol
from arb_ray.domain.ledger import NO_PNL, PnlParts
from arb_ray.domain.money import ZERO
from arb_ray.engine.trade_events import Signal, decode_event
from arb_ray.engine.trade_plan import LegKey

OpenSymbol: TypeAlias = tuple[Symbol, tuple[InstrumentId, InstrumentId]]
"""A symbol with an open trade, and the markets of its legs A and B."""


class Session(msgspec.Struct, frozen=True):
    """
    A stored session.

    ``origin_ns`` is where the simulated market's time began, ``identity`` which market it is:
    the preset, or a digest of the recording's files.
    """

    session_id: str
    source: str
    preset: str
    seed: int
    started_ns: int
    origin_ns: int
    is_resumed: bool = False
    identity: str = ""


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
        self,
        *,
        source: str,
        preset: str,
        seed: int,
        now_ns: int,
        is_new: bool,
        identity: str = "",
    ) -> Session:
        """
        Continue the open session if it is on this very market, or begin one.

        ``identity`` tells markets of one source and preset apart; when it is not given, the
        preset is all there is.

        Raises:
            BadInput: A session of another source, preset or identity is open and has open
                trades, which only its own market could close.
        """
        wanted = (source, preset, identity or preset)
        async with self._postgres.transaction("session") as connection:
            # Two starts at once take turns, and the second continues what the first began.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext('arb.session:' || $1))", self._env
            )
            found = await self._open_one(connection)
            if found is not None and not is_new and _market_of(found) == wanted:
                return found
            if found is not None:
                await self._leave(connection, found, source, preset, now_ns)
            now = dt.datetime.fromtimestamp(now_ns / 1e9, tz=dt.UTC)
            session = Session(
                new_session_id(now), source, preset, seed, now_ns, now_ns, identity=wanted[2]
            )
            await connection.execute(
                "INSERT INTO arb.sessions (env, session_id, source, preset, seed, config,"
                " started_ns) VALUES ($1, $2, $3, $4, $5, $6, $7)",
                self._env,
                session.session_id,
                source,
                preset,
                seed,
                msgspec.json.encode({"origin_ns": now_ns, "identity": session.identity}).decode(),
                now_ns,
            )
            return session

    async def current(self) -> Session | None:
        """Return the open session, if there is one; changes nothing."""
        async with self._postgres.connection() as connection:
            return await self._open_one(connection)

    async def keep_summary(self, session_id: str, summary: bytes) -> None:
        """Keep the newest summary; the session stays open, to be resumed or left by name."""
        async with self._postgres.transaction("session summary") as connection:
            await connection.execute(
                "UPDATE arb.sessions SET summary = $3 WHERE env = $1 AND session_id = $2",
                self._env,
                session_id,
                summary.decode(),
            )

    async def open_symbols(self) -> tuple[OpenSymbol, ...]:
        """
        Return the symbols that have an open trade, with the markets that it is on.

        Raises:
            LedgerViolation: A trade was granted and has no plan in its journal.
        """
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT trades.trade_id, trades.symbol, event::text AS event
                FROM arb.trades LEFT JOIN arb.trade_events AS e
                    ON (e.env, e.trade_id, e.seq) = (trades.env, trades.trade_id, 0)
                WHERE trades.env = $1 AND status = 'open' ORDER BY trades.symbol
                """,
                self._env,
            )
        return tuple(
            (Symbol(row["symbol"]), _markets_of(row["trade_id"], row["event"])) for row in rows
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
            identity=config.get("identity", row["preset"]),
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
                "Resume it with its own source, preset and files, and let it exit first",
            )
        await connection.execute(
            "UPDATE arb.sessions SET closed_ns = $3 WHERE env = $1 AND session_id = $2",
            self._env,
            found.session_id,
            now_ns,
        )


def _market_of(session: Session) -> tuple[str, str, str]:
    return session.source, session.preset, session.identity


def _markets_of(trade_id: str, first_event: str | None) -> tuple[InstrumentId, InstrumentId]:
    event = None if first_event is None else decode_event(first_event.encode())
    if not isinstance(event, Signal):
        raise LedgerViolation(trade_id, "it is open and its journal does not begin with a plan")
    legs = (event.plan.leg(LegKey.A), event.plan.leg(LegKey.B))
    return legs[0].instrument.id, legs[1].instrument.id


# A trade counts once it was in the market. One that filled nothing never was, and a
# reservation that has sent no order is not there yet.
_TOTALS_SQL = """
    WITH traded AS (
        SELECT *, outcome IS NOT DISTINCT FROM 'posted' AND notional_usdt > 0 AS is_closed,
               status = 'open' AND EXISTS (
                   SELECT FROM arb.orders
                   WHERE orders.env = trades.env AND orders.trade_id = trades.trade_id) AS is_open
        FROM arb.trades WHERE env = $1)
    SELECT count(*) FILTER (WHERE is_closed OR is_open) AS opened,
           count(*) FILTER (WHERE is_closed) AS closed,
           count(*) FILTER (WHERE is_open) AS open,
           coalesce(sum(realized_usdt) FILTER (WHERE outcome = 'posted'), 0) AS realized,
           coalesce(sum(spread_usdt), 0) AS spread,
           coalesce(sum(fx_usdt), 0) AS fx,
           coalesce(sum(traded.fees_usdt), 0) AS fees,
           coalesce(sum(slippage_usdt), 0) AS slippage,
           coalesce(sum(funding_usdt), 0) AS funding
    FROM traded JOIN arb.reservations USING (env, trade_id)
    WHERE session_id = $2
"""
