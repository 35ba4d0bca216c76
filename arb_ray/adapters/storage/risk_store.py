"""
RiskGuard's durable half in PostgreSQL; implements ``ports.RiskStore``.

Every transaction locks the lease row FOR SHARE and compares the epoch (DESIGN section 3).
A takeover updates that row, so it waits for writes under way and fences all that follow;
what it reads afterwards is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from arb_ray.adapters.storage.ledger_store import owner_epoch_of, post_entries, read_balances
from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import Account, Balance, Entry
from arb_ray.domain.money import Asset
from arb_ray.domain.risk_books import RiskBooks, StoredReservation
from arb_ray.domain.risk_intent import (
    SCHEMA,
    Granted,
    Refused,
    ReserveIntent,
    RiskRefusal,
    RiskState,
    SettleKind,
    Settlement,
    Verdict,
)
from arb_ray.engine.postings import release_entry
from arb_ray.engine.risk import GUARD, StateChange, substance
from arb_ray.engine.risk_limits import RiskLimits

ROLE = "RiskGuard"

EVERYTHING = "*"
"""In the column ``flatten``: every trade; no symbol is spelled so."""


class PostgresRiskStore:
    """``ports.RiskStore`` for one environment; errors are told there."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env
        # One decision at a time: a grant reads the balances and tombstones that another call
        # of ours may be about to write. Other guards are kept out by the lease.
        self._decision = asyncio.Lock()

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
        async with self._fenced(epoch, "renewal of the guard's lease") as connection:
            await connection.execute(
                "UPDATE arb.risk_lease SET renewed_ns = arb.now_ns() WHERE env = $1", self._env
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
        trade_id = intent.trade_id
        async with (
            self._decision,
            self._fenced(epoch, f"reservation {trade_id}") as connection,
        ):
            await self._lock(connection, trade_id)
            known = await self._known_verdict(connection, intent)
            if known:
                return known
            owner = await owner_epoch_of(connection, self._env, intent.symbol)
            if owner != intent.owner_epoch:
                return Refused(trade_id, RiskRefusal.FENCED_OWNER, f"the owner is {owner}")
            refused = await self._refusal(connection, intent, hold)
            if refused:
                await self._remember(connection, epoch, intent, refused, at_ns)
                return refused
            await self._insert_grant(connection, epoch, intent, at_ns)
            await post_entries(connection, self._env, epoch, [hold])
            return Granted(trade_id, epoch, at_ns)

    async def refuse(self, epoch: int, intent: ReserveIntent, verdict: Verdict) -> None:
        """Remember a refusal; one that is known already stays as it is."""
        assert isinstance(verdict, Refused)
        async with (
            self._decision,
            self._fenced(epoch, f"refusal of {intent.trade_id}") as connection,
        ):
            known = await self._known_verdict(connection, intent)
            if isinstance(known, Granted):
                raise LedgerViolation(intent.trade_id, "it was granted and cannot be refused")
            if known is None:
                await self._remember(connection, epoch, intent, verdict, intent.asked_ns)

    async def settle(self, epoch: int, settlement: Settlement) -> tuple[bool, Sequence[Balance]]:
        """Post or void; a void of an unknown id leaves a tombstone."""
        trade_id = settlement.trade_id
        async with (
            self._decision,
            self._fenced(epoch, f"settlement of {trade_id}") as connection,
        ):
            await self._lock(connection, trade_id)
            is_new = await connection.fetchval(
                """
                INSERT INTO arb.reservation_outcomes
                    (schema, env, trade_id, symbol, epoch, kind, closed_ns, realized_usdt, content)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                ON CONFLICT DO NOTHING RETURNING true
                """,
                SCHEMA,
                self._env,
                trade_id,
                settlement.symbol,
                epoch,
                settlement.kind.value,
                settlement.closed_ns,
                settlement.realized_usdt,
                msgspec.json.encode(settlement).decode(),
            )
            if not is_new:
                await self._check_repeat(connection, settlement)
                return False, ()
            if not await self._close_trade(connection, settlement):
                if settlement.kind is SettleKind.POSTED:
                    raise LedgerViolation(trade_id, "it was never granted, so nothing is posted")
                return True, ()  # the tombstone
            return True, await self._release(connection, epoch, settlement)

    async def note_limits(self, epoch: int, limits: RiskLimits) -> None:
        """Write what this guard decides by from here on."""
        async with self._fenced(epoch, f"limits of epoch {epoch}") as connection:
            await connection.execute(
                "INSERT INTO arb.risk_limits (schema, env, epoch, limits) VALUES ($1, $2, $3, $4)",
                SCHEMA,
                self._env,
                epoch,
                msgspec.json.encode(limits).decode(),
            )

    async def set_state(self, epoch: int, change: StateChange) -> None:
        """Append a risk event."""
        flatten = EVERYTHING if change.is_flattening_all else change.flatten_symbol
        async with self._fenced(epoch, f"risk state {change.state}") as connection:
            await connection.execute(
                "INSERT INTO arb.risk_events "
                "(schema, env, epoch, state, reason, actor, at_ns, flatten) "
                "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                SCHEMA,
                self._env,
                epoch,
                change.state.value,
                change.reason,
                change.actor,
                change.at_ns,
                flatten,
            )

    async def close(self) -> None:
        """Close the pool."""
        await self._postgres.close()

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

    async def _lock(self, connection: Connection, trade_id: str) -> None:
        """
        Wait for an earlier call under this id whose commit is still on its way.

        We gave it up without an answer, but the server may not have: a tombstone that is
        written beside it would not stop it from being committed afterwards.
        """
        await connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('arb.reservation:' || $1, 0))",
            f"{self._env}:{trade_id}",
        )

    async def _known_verdict(self, connection: Connection, intent: ReserveIntent) -> Verdict | None:
        """Return the first answer to this id, if there is one."""
        row = await connection.fetchrow(
            """
            SELECT r.epoch, r.granted_ns, r.intent::text AS intent, o.kind,
                   o.content::text AS content
            FROM (SELECT $1::text AS env, $2::text AS trade_id) AS asked
            LEFT JOIN arb.reservations AS r USING (env, trade_id)
            LEFT JOIN arb.reservation_outcomes AS o USING (env, trade_id)
            """,
            self._env,
            intent.trade_id,
        )
        assert row is not None
        if row["kind"] == "refused":
            return msgspec.json.decode(row["content"], type=Refused)
        if row["kind"] is not None:
            return Refused(intent.trade_id, RiskRefusal.TOMBSTONE, f"it was {row['kind']} before")
        if row["intent"] is None:
            return None
        first = msgspec.json.decode(row["intent"], type=ReserveIntent)
        if substance(first) != substance(intent):
            raise LedgerViolation(intent.trade_id, "another reservation has this id")
        return Granted(intent.trade_id, row["epoch"], row["granted_ns"])

    async def _refusal(
        self, connection: Connection, intent: ReserveIntent, hold: Entry
    ) -> Refused | None:
        busy = await connection.fetchval(
            "SELECT trade_id FROM arb.trades WHERE env = $1 AND symbol = $2 AND status = 'open'",
            self._env,
            intent.symbol,
        )
        if busy:
            return Refused(intent.trade_id, RiskRefusal.SYMBOL_BUSY, f"{busy} is open")
        for posting in hold.postings:
            if posting.account is not Account.FREE:
                continue
            free = await connection.fetchval(
                "SELECT coalesce(sum(amount), 0) FROM arb.postings "
                "WHERE env = $1 AND venue = $2 AND account = 'free' AND asset = $3",
                self._env,
                posting.venue.value,
                posting.asset,
            )
            if free + posting.amount < 0:
                detail = f"{posting.venue} has {free} {posting.asset}, {-posting.amount} asked"
                return Refused(intent.trade_id, RiskRefusal.BALANCE, detail)
        return None

    async def _remember(
        self,
        connection: Connection,
        epoch: int,
        intent: ReserveIntent,
        verdict: Refused,
        at_ns: int,
    ) -> None:
        await connection.execute(
            """
            INSERT INTO arb.reservation_outcomes
                (schema, env, trade_id, symbol, epoch, kind, closed_ns, realized_usdt, content)
            VALUES ($1, $2, $3, $4, $5, 'refused', $6, 0, $7)
            """,
            SCHEMA,
            self._env,
            intent.trade_id,
            intent.symbol,
            epoch,
            at_ns,
            msgspec.json.encode(verdict).decode(),
        )

    async def _insert_grant(
        self, connection: Connection, epoch: int, intent: ReserveIntent, at_ns: int
    ) -> None:
        await connection.execute(
            "INSERT INTO arb.trades (schema, env, trade_id, symbol, opened_ns) "
            "VALUES ($1, $2, $3, $4, $5)",
            SCHEMA,
            self._env,
            intent.trade_id,
            intent.symbol,
            at_ns,
        )
        await connection.execute(
            """
            INSERT INTO arb.reservations (schema, env, trade_id, symbol, session_id, epoch,
                owner_epoch, worst_loss_usdt, notional_usdt, granted_ns, intent)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            """,
            SCHEMA,
            self._env,
            intent.trade_id,
            intent.symbol,
            intent.session_id,
            epoch,
            intent.owner_epoch,
            intent.worst_loss_usdt,
            intent.notional_usdt,
            at_ns,
            msgspec.json.encode(intent).decode(),
        )

    async def _check_repeat(self, connection: Connection, settlement: Settlement) -> None:
        """Accept a repeat that says the same; a void repeats whatever ended without a trade."""
        row = await connection.fetchrow(
            "SELECT kind, content::text AS content FROM arb.reservation_outcomes "
            "WHERE env = $1 AND trade_id = $2",
            self._env,
            settlement.trade_id,
        )
        assert row is not None
        if settlement.kind is SettleKind.VOIDED and row["kind"] in {"voided", "refused"}:
            return
        if row["kind"] == settlement.kind.value:
            first = msgspec.json.decode(row["content"], type=Settlement)
            if (first.parts, first.realized_usdt) == (settlement.parts, settlement.realized_usdt):
                return
        raise LedgerViolation(settlement.trade_id, f"it was {row['kind']} with other content")

    async def _close_trade(self, connection: Connection, settlement: Settlement) -> bool:
        """Close the trade before its held money is summed: fills under way come first."""
        parts = settlement.parts
        return bool(
            await connection.fetchval(
                """
                UPDATE arb.trades SET status = 'closed', outcome = $3, closed_ns = $4,
                    exit_reason = $5, notional_usdt = $6, realized_usdt = $7, spread_usdt = $8,
                    fx_usdt = $9, fees_usdt = $10, slippage_usdt = $11, funding_usdt = $12
                WHERE env = $1 AND trade_id = $2 RETURNING true
                """,
                self._env,
                settlement.trade_id,
                settlement.kind.value,
                settlement.closed_ns,
                settlement.exit_reason,
                settlement.notional_usdt,
                settlement.realized_usdt,
                parts.spread,
                parts.fx,
                parts.fees,
                parts.slippage,
                parts.funding,
            )
        )

    async def _release(
        self, connection: Connection, epoch: int, settlement: Settlement
    ) -> tuple[Balance, ...]:
        """Move what is still held for the trade back to free."""
        rows = await connection.fetch(
            """
            SELECT venue, asset, sum(amount) AS amount FROM arb.postings
            WHERE env = $1 AND trade_id = $2 AND account = 'held'
            GROUP BY venue, asset HAVING sum(amount) <> 0 ORDER BY venue, asset
            """,
            self._env,
            settlement.trade_id,
        )
        held = [
            Balance(Venue(row["venue"]), Account.HELD, Asset(row["asset"]), row["amount"])
            for row in rows
        ]
        if held:
            trade_id, symbol = settlement.trade_id, settlement.symbol
            entry = release_entry(trade_id, symbol, held, settlement.closed_ns)
            await post_entries(connection, self._env, epoch, [entry])
        return tuple(msgspec.structs.replace(balance, account=Account.FREE) for balance in held)
