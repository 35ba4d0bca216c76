"""
RiskGuard's durable half in PostgreSQL; implements ``ports.RiskStore``.

Every transaction locks the lease row FOR SHARE and compares the epoch (DESIGN section 3).
A takeover updates that row, so it waits for writes under way and fences all that follow;
what it reads afterwards is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from arb_ray.adapters.storage.ledger_store import post_entries, read_balances
from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.adapters.storage.risk_decisions import WRITE, encoded, meaning
from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.instrument import Symbol
from arb_ray.domain.ledger import Balance, Entry
from arb_ray.domain.risk_books import RiskBooks, StoredReservation
from arb_ray.domain.risk_intent import (
    SCHEMA,
    Granted,
    Refused,
    ReserveIntent,
    RiskState,
    Settlement,
    Verdict,
)
from arb_ray.engine.risk import GUARD, StateChange
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.ports import Decision, GrantWrite, Outcome, Settled

ROLE = "RiskGuard"

EVERYTHING = "*"
"""In the column ``flatten``: every trade; no symbol is spelled so."""


_LEASE = """
    WITH lease AS (SELECT FROM arb.risk_lease WHERE env = $1 AND epoch = $2 FOR SHARE)
"""


class PostgresRiskStore:
    """``ports.RiskStore`` for one environment; errors are told there."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def take_lease(self, holder: str) -> int:
        """Raise the epoch; waits for the former guard's writes that are under way."""
        async with self._postgres.transaction("takeover of the guard's lease") as connection:
            return int(
                await connection.fetchval(
                    """
                    INSERT INTO arb.risk_lease AS old (env, epoch, holder) VALUES ($1, 1, $2)
                    ON CONFLICT (env) DO UPDATE SET epoch = old.epoch + 1, holder = $2,
                        taken_ns = arb.now_ns(), renewed_ns = arb.now_ns()
                    RETURNING epoch
                    """,
                    self._env,
                    holder,
                )
            )

    async def renew_lease(self, epoch: int) -> None:
        """Note that the guard of ``epoch`` lives."""
        await self._write_fenced(
            epoch,
            "renewal of the guard's lease",
            "UPDATE arb.risk_lease SET renewed_ns = arb.now_ns() WHERE env = $1 AND epoch = $2",
        )

    async def load(
        self, epoch: int, day_start_ns: int, entries_since_ns: int, recent_count: int
    ) -> RiskBooks:
        """Read one consistent picture of reservations, settlements and balances."""
        what = "rebuild of the guard"
        async with self._fenced(epoch, what, isolation="repeatable_read") as connection:
            state = await connection.fetchrow(
                "SELECT state, reason, actor, at_ns FROM arb.risk_events WHERE env = $1 "
                "AND (flatten IS NULL OR flatten = $2) ORDER BY number DESC LIMIT 1",
                self._env,
                EVERYTHING,
            )
            resumed = await connection.fetchrow(
                "SELECT number, at_ns FROM arb.risk_events WHERE env = $1 AND state = 'active' "
                "AND actor <> $2 AND flatten IS NULL ORDER BY number DESC LIMIT 1",
                self._env,
                GUARD,
            )
            flatten = await self._flatten_orders(connection, resumed["number"] if resumed else 0)
            reservations = await connection.fetch(
                """
                SELECT intent::text AS intent, granted_ns FROM arb.reservations AS r
                WHERE env = $1 AND NOT EXISTS (
                    SELECT FROM arb.reservation_outcomes AS o
                    WHERE o.env = r.env AND o.trade_id = r.trade_id)
                ORDER BY granted_ns, trade_id
                """,
                self._env,
            )
            settled = await connection.fetch(
                "SELECT trade_id, content::text AS content, worst_loss_usdt "
                "FROM arb.reservation_outcomes AS o JOIN arb.reservations USING (env, trade_id) "
                "WHERE env = $1 AND kind = 'posted' AND closed_ns >= $2 ORDER BY number",
                self._env,
                day_start_ns,
            )
            before = await connection.fetch(
                "SELECT number, content::text AS content FROM arb.reservation_outcomes "
                "WHERE env = $1 AND kind = 'posted' AND closed_ns < $2 "
                "AND (content->>'notional_usdt')::numeric > 0 "
                "ORDER BY closed_ns DESC, number DESC LIMIT $3",
                self._env,
                day_start_ns,
                recent_count,
            )
            entries = await connection.fetch(
                "SELECT granted_ns FROM arb.reservations WHERE env = $1 AND granted_ns >= $2 "
                "ORDER BY granted_ns",
                self._env,
                entries_since_ns,
            )
            balances = await read_balances(connection, self._env)
        return RiskBooks(
            state=RiskState(state["state"]) if state else RiskState.ACTIVE,
            state_reason=state["reason"] if state else "start",
            open_reservations=tuple(
                StoredReservation(
                    msgspec.json.decode(row["intent"], type=ReserveIntent), row["granted_ns"]
                )
                for row in reservations
            ),
            settled_today=tuple(
                msgspec.json.decode(row["content"], type=Settlement) for row in settled
            ),
            balances=balances,
            entries_ns=tuple(row["granted_ns"] for row in entries),
            settled_before=tuple(
                msgspec.json.decode(row["content"], type=Settlement)
                for row in sorted(before, key=lambda row: int(row["number"]))
            ),
            resumed_ns=resumed["at_ns"] if resumed else 0,
            state_actor=state["actor"] if state else "",
            state_since_ns=state["at_ns"] if state else 0,
            is_flattening_all=EVERYTHING in flatten,
            flatten=tuple(Symbol(one) for one in flatten if one != EVERYTHING),
            reserved_usdt={row["trade_id"]: row["worst_loss_usdt"] for row in settled},
        )

    async def _flatten_orders(self, connection: Connection, after_number: int) -> list[str]:
        """Return what operators have ordered to flatten since then and is still open."""
        rows = await connection.fetch(
            """
            SELECT DISTINCT flatten FROM arb.risk_events AS e
            WHERE env = $1 AND number > $2 AND flatten IS NOT NULL AND (flatten = $3 OR EXISTS (
                SELECT FROM arb.reservations AS r
                WHERE r.env = e.env AND r.symbol = e.flatten AND r.granted_ns <= e.at_ns
                    AND NOT EXISTS (
                        SELECT FROM arb.reservation_outcomes AS o
                        WHERE o.env = r.env AND o.trade_id = r.trade_id)))
            ORDER BY flatten
            """,
            self._env,
            after_number,
            EVERYTHING,
        )
        return [str(row["flatten"]) for row in rows]

    async def open_balances(self, epoch: int, opening: Entry) -> None:
        """Post the opening balances; a repeat with other amounts is a violation."""
        async with self._fenced(epoch, "opening balances") as connection:
            await post_entries(connection, self._env, epoch, [opening])

    async def grant(self, epoch: int, intent: ReserveIntent, hold: Entry, at_ns: int) -> Verdict:
        """
        Grant unless the database knows better; a refusal is remembered like a grant.

        Only FENCED_OWNER is not: the id belongs to the new owner, and an epoch never returns.
        A repeat after the settlement is refused: nothing is held any more.

        A known id is answered before the owner's epoch is looked at. A grant whose commit was
        not heard of is resumed by the symbol's next owner from the journal, with the epoch of
        the first: refused there, its money would be held for ever. A yes is safe to repeat to
        a former owner too, because the ledger takes none of its orders. The rest of the
        content must agree, or the repeat is a violation; a void ends the reservation then.
        """
        outcome = _done(await self.write(epoch, [GrantWrite(intent, hold, at_ns)]))
        assert isinstance(outcome, Granted | Refused)
        return outcome

    async def settle(self, epoch: int, settlement: Settlement) -> tuple[bool, Sequence[Balance]]:
        """Post or void; a void of an unknown id leaves a tombstone."""
        outcome = _done(await self.write(epoch, [settlement]))
        assert isinstance(outcome, Settled)
        return outcome.is_new, outcome.released

    async def write(self, epoch: int, group: Sequence[Decision]) -> Sequence[Outcome]:
        """
        Write decisions in one commit; what money a settlement frees is posted in it too.

        One statement is one round trip with its commit. So a guard that is frozen meanwhile
        leaves no transaction open that its successor would have to wait for.
        """
        rows = await self._postgres.commit(_named(group), WRITE, self._env, epoch, encoded(group))
        if rows[0]["answer"] == "fenced":
            raise Fenced(ROLE, epoch, rows[0]["said_epoch"])
        return [meaning(one, row) for one, row in zip(group, rows, strict=True)]

    async def note_limits(self, epoch: int, limits: RiskLimits) -> None:
        """Write what this guard decides by from here on."""
        await self._write_fenced(
            epoch,
            f"limits of epoch {epoch}",
            f"{_LEASE} INSERT INTO arb.risk_limits (schema, env, epoch, limits) "
            "SELECT $3, $1, $2, $4 FROM lease",
            SCHEMA,
            msgspec.json.encode(limits).decode(),
        )

    async def set_state(self, epoch: int, change: StateChange) -> None:
        """Append a risk event."""
        flatten = EVERYTHING if change.is_flattening_all else change.flatten_symbol
        await self._write_fenced(
            epoch,
            f"risk state {change.state}",
            f"{_LEASE} INSERT INTO arb.risk_events "
            "(schema, env, epoch, state, reason, actor, at_ns, flatten) "
            "SELECT $3, $1, $2, $4, $5, $6, $7, $8 FROM lease",
            SCHEMA,
            change.state.value,
            change.reason,
            change.actor,
            change.at_ns,
            flatten,
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._postgres.close()

    async def _write_fenced(self, epoch: int, what: str, sql: str, *arguments: object) -> None:
        """Write one row, in one statement, if ``epoch`` ($2) holds the lease of the env ($1)."""
        sql = f"{sql} RETURNING true"
        if not await self._postgres.commit(what, sql, self._env, epoch, *arguments):
            async with self._postgres.connection() as connection:
                current = await connection.fetchval(
                    "SELECT epoch FROM arb.risk_lease WHERE env = $1", self._env
                )
            raise Fenced(ROLE, epoch, int(current or 0))

    @contextlib.asynccontextmanager
    async def _fenced(
        self, epoch: int, what: str, isolation: str = "read_committed"
    ) -> AsyncIterator[Connection]:
        """Open a transaction that commits only while ``epoch`` holds the lease."""
        async with self._postgres.transaction(what, isolation) as connection:
            current = await connection.fetchval(
                "SELECT epoch FROM arb.risk_lease WHERE env = $1 FOR SHARE", self._env
            )
            if current != epoch:
                raise Fenced(ROLE, epoch, int(current or 0))
            yield connection


def _named(group: Sequence[Decision]) -> str:
    """Name a group for whoever reads that its outcome is unknown."""
    first = group[0]
    name = (
        f"reservation {first.intent.trade_id}"
        if isinstance(first, GrantWrite)
        else f"settlement of {first.trade_id}"
    )
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more"


def _done(outcomes: Sequence[Outcome]) -> Verdict | Settled:
    """Return the outcome of a group of one."""
    (outcome,) = outcomes
    if isinstance(outcome, LedgerViolation):
        raise outcome
    return outcome
