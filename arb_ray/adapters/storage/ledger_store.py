"""
The strategies' journal and ledger in PostgreSQL; implements ``ports.LedgerStore``.

Each write is one transaction that locks the symbol's owner row FOR SHARE and compares the
epoch, so a claim waits for writes under way and fences all that come after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from arb_ray.adapters.storage.postgres_pool import Connection, Postgres
from arb_ray.domain.errors import Fenced, LedgerViolation
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import SCHEMA, Account, Balance, Entry
from arb_ray.domain.money import Asset
from arb_ray.domain.order import OrderReport, OrderRequest, OrderStatus
from arb_ray.ports import StoredTrade

EVENT_BYTES_MAX: Final = 1_000_000
"""An event above this size is a bug of the machine that made it."""


class PostgresLedgerStore:
    """``ports.LedgerStore`` for one environment; errors are told there."""

    def __init__(self, postgres: Postgres, env: str) -> None:
        self._postgres = postgres
        self._env = env

    async def claim_symbol(self, symbol: Symbol, owner: str) -> int:
        """Raise the owner epoch; waits for writes of the former owner that are under way."""
        async with self._postgres.transaction(f"claim of {symbol}") as connection:
            return int(
                await connection.fetchval(
                    """
                    INSERT INTO arb.symbol_owners AS old (env, symbol, epoch, owner)
                    VALUES ($1, $2, 1, $3)
                    ON CONFLICT (env, symbol) DO UPDATE
                    SET epoch = old.epoch + 1, owner = $3, claimed_ns = arb.now_ns()
                    RETURNING epoch
                    """,
                    self._env,
                    symbol,
                    owner,
                )
            )

    async def next_trade_number(self, symbol: Symbol) -> int:
        """Use a number up; a call without an answer used one up too."""
        async with self._postgres.transaction(f"trade number of {symbol}") as connection:
            return int(
                await connection.fetchval(
                    """
                    INSERT INTO arb.trade_numbers AS old (env, symbol, last_number)
                    VALUES ($1, $2, 1)
                    ON CONFLICT (env, symbol) DO UPDATE SET last_number = old.last_number + 1
                    RETURNING last_number
                    """,
                    self._env,
                    symbol,
                )
            )

    async def append_event(
        self, symbol: Symbol, owner_epoch: int, trade_id: str, seq: int, event: bytes
    ) -> None:
        """Append the ``seq``-th event; a gap is a violation."""
        assert len(event) <= EVENT_BYTES_MAX
        key = f"{trade_id}/{seq}"
        text = event.decode()
        async with self._postgres.transaction(f"event {key}") as connection:
            await self._check_owner(connection, symbol, owner_epoch)
            is_new = await connection.fetchval(
                """
                INSERT INTO arb.trade_events
                    (schema, env, trade_id, seq, symbol, owner_epoch, event)
                VALUES ($1, $2, $3, $4, $5, $6, $7)
                ON CONFLICT DO NOTHING RETURNING true
                """,
                SCHEMA,
                self._env,
                trade_id,
                seq,
                symbol,
                owner_epoch,
                text,
            )
            # The event before this one, or the one that took its place.
            other = seq - 1 if is_new else seq
            found = await connection.fetchval(
                "SELECT event::text FROM arb.trade_events "
                "WHERE env = $1 AND trade_id = $2 AND seq = $3",
                self._env,
                trade_id,
                other,
            )
            if is_new and seq > 0 and found is None:
                raise LedgerViolation(key, f"event {other} is missing")
            if not is_new and found != text:
                raise LedgerViolation(key, "another event is stored there")

    async def open_trade(self, symbol: Symbol) -> StoredTrade | None:
        """Return the open trade with all its events."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT trade_id, event::text AS event
                FROM arb.trades LEFT JOIN arb.trade_events USING (env, trade_id)
                WHERE env = $1 AND trades.symbol = $2 AND status = 'open'
                ORDER BY seq
                """,
                self._env,
                symbol,
            )
        if not rows:
            return None
        events = tuple(row["event"].encode() for row in rows if row["event"] is not None)
        return StoredTrade(rows[0]["trade_id"], symbol, events)

    async def accept_order(self, symbol: Symbol, owner_epoch: int, order: OrderRequest) -> bool:
        """Store an order of an open trade; False on a repeat."""
        async with self._postgres.transaction(f"order {order.client_order_id}") as connection:
            await self._check_owner(connection, symbol, owner_epoch)
            is_new = await self._insert_order(connection, owner_epoch, order)
            if is_new:
                await self._require_open(connection, order.client_order_id, [order.trade_id])
            return is_new

    async def report_order(
        self,
        symbol: Symbol,
        owner_epoch: int,
        order: OrderRequest,
        report: OrderReport,
        entries: Sequence[Entry],
    ) -> None:
        """Store the last word, its fills and their postings, all or nothing."""
        assert report.status is not OrderStatus.UNKNOWN, "that is not a last word"
        assert report.client_order_id == order.client_order_id
        async with self._postgres.transaction(f"report of {order.client_order_id}") as connection:
            await self._check_owner(connection, symbol, owner_epoch)
            await self._insert_order(connection, owner_epoch, order)
            is_new = await self._insert_report(connection, owner_epoch, report)
            if is_new:
                await self._require_open(connection, order.client_order_id, [order.trade_id])
                await self._insert_fills(connection, owner_epoch, report)
            posted = await post_entries(connection, self._env, owner_epoch, entries)
            if posted and not is_new:
                raise LedgerViolation(posted[0].entry_id, "a repeated report brings a new entry")

    async def find_report(self, client_order_id: str) -> OrderReport | None:
        """Return the stored last word."""
        async with self._postgres.connection() as connection:
            text = await connection.fetchval(
                "SELECT report::text FROM arb.order_reports "
                "WHERE env = $1 AND client_order_id = $2",
                self._env,
                client_order_id,
            )
        return None if text is None else msgspec.json.decode(text, type=OrderReport)

    async def is_order_known(self, client_order_id: str) -> bool:
        """Tell whether the order was stored."""
        async with self._postgres.connection() as connection:
            return bool(
                await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM arb.orders "
                    "WHERE env = $1 AND client_order_id = $2)",
                    self._env,
                    client_order_id,
                )
            )

    async def post(self, symbol: Symbol, owner_epoch: int, entries: Sequence[Entry]) -> None:
        """Post entries; those of a closed trade are refused, but for repeats."""
        async with self._postgres.transaction(f"entries of {symbol}") as connection:
            await self._check_owner(connection, symbol, owner_epoch)
            posted = await post_entries(connection, self._env, owner_epoch, entries)
            trade_ids = sorted({entry.trade_id for entry in posted if entry.trade_id})
            await self._require_open(connection, ", ".join(trade_ids), trade_ids)

    async def dust(self, asset: Asset) -> Mapping[Venue, Decimal]:
        """Sum the dust account, a few postings a trade, over all venues."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT venue, sum(amount) AS amount FROM arb.postings "
                "WHERE env = $1 AND venue = ANY($2) AND account = 'dust' AND asset = $3 "
                "GROUP BY venue HAVING sum(amount) <> 0",
                self._env,
                [venue.value for venue in Venue],
                asset,
            )
        return {Venue(row["venue"]): row["amount"] for row in rows}

    async def balances(self) -> Sequence[Balance]:
        """Return the environment's balances, sorted."""
        async with self._postgres.connection() as connection:
            return await read_balances(connection, self._env)

    async def flush(self) -> None:
        """Nothing waits: every write is in PostgreSQL when it returns."""

    async def close(self) -> None:
        """Close the pool."""
        await self._postgres.close()

    async def _check_owner(self, connection: Connection, symbol: Symbol, epoch: int) -> None:
        current = await owner_epoch_of(connection, self._env, symbol)
        if current != epoch:
            raise Fenced(f"strategy {symbol}", epoch, current)

    async def _require_open(
        self, connection: Connection, what: str, trade_ids: Sequence[str]
    ) -> None:
        """
        Lock the trades, so that their settlement counts what we write, or refuse to write.

        A settlement takes the row first and sums what is held second: it waits for us, or we
        find the trade closed.
        """
        for trade_id in trade_ids:
            status = await connection.fetchval(
                "SELECT status FROM arb.trades WHERE env = $1 AND trade_id = $2 FOR SHARE",
                self._env,
                trade_id,
            )
            if status != "open":
                raise LedgerViolation(what, f"trade {trade_id} is {status or 'not granted'}")

    async def _insert_order(
        self, connection: Connection, owner_epoch: int, order: OrderRequest
    ) -> bool:
        text = msgspec.json.encode(order).decode()
        is_new = await connection.fetchval(
            """
            INSERT INTO arb.orders (schema, env, client_order_id, trade_id, symbol, owner_epoch,
                instrument, side, qty, limit_price, decision_price, purpose, decided_ns, request)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            ON CONFLICT DO NOTHING RETURNING true
            """,
            SCHEMA,
            self._env,
            order.client_order_id,
            order.trade_id,
            order.symbol,
            owner_epoch,
            order.instrument,
            order.side.value,
            order.qty,
            order.limit_price,
            order.decision_price,
            order.purpose.value,
            order.decided_ns,
            text,
        )
        if is_new:
            return True
        found = await connection.fetchval(
            "SELECT request::text FROM arb.orders WHERE env = $1 AND client_order_id = $2",
            self._env,
            order.client_order_id,
        )
        if found != text:
            raise LedgerViolation(order.client_order_id, "another order has this id")
        return False

    async def _insert_report(
        self, connection: Connection, owner_epoch: int, report: OrderReport
    ) -> bool:
        text = msgspec.json.encode(report).decode()
        is_new = await connection.fetchval(
            """
            INSERT INTO arb.order_reports
                (schema, env, client_order_id, owner_epoch, status, reason, at_ns, report)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
            ON CONFLICT DO NOTHING RETURNING true
            """,
            SCHEMA,
            self._env,
            report.client_order_id,
            owner_epoch,
            report.status.value,
            report.reason,
            report.at_ns,
            text,
        )
        if is_new:
            return True
        found = await connection.fetchval(
            "SELECT report::text FROM arb.order_reports WHERE env = $1 AND client_order_id = $2",
            self._env,
            report.client_order_id,
        )
        if found != text:
            raise LedgerViolation(report.client_order_id, "another report is stored")
        return False

    async def _insert_fills(
        self, connection: Connection, owner_epoch: int, report: OrderReport
    ) -> None:
        await connection.executemany(
            """
            INSERT INTO arb.fills (schema, env, fill_id, client_order_id, owner_epoch, price, qty,
                fee_amount, fee_asset, at_ns, book_slice)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            """,
            [
                (
                    SCHEMA,
                    self._env,
                    fill.fill_id,
                    fill.client_order_id,
                    owner_epoch,
                    fill.price,
                    fill.qty,
                    fill.fee.amount,
                    fill.fee.asset,
                    fill.at_ns,
                    msgspec.json.encode(fill.book_slice).decode(),
                )
                for fill in report.fills
            ],
        )


async def owner_epoch_of(connection: Connection, env: str, symbol: Symbol) -> int:
    """Lock the symbol's owner row FOR SHARE and return its epoch; 0 when nobody claimed it."""
    epoch = await connection.fetchval(
        "SELECT epoch FROM arb.symbol_owners WHERE env = $1 AND symbol = $2 FOR SHARE",
        env,
        symbol,
    )
    return int(epoch or 0)


async def post_entries(
    connection: Connection, env: str, epoch: int, entries: Iterable[Entry]
) -> list[Entry]:
    """
    Post what is new and return it; the caller's transaction makes it all or nothing.

    Raises:
        LedgerViolation: An id is taken by an entry with other postings.
    """
    posted = []
    for entry in entries:
        digest = digest_of(entry)
        is_new = await connection.fetchval(
            """
            INSERT INTO arb.entries
                (schema, env, entry_id, kind, symbol, trade_id, epoch, at_ns, posting_count, digest)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT DO NOTHING RETURNING true
            """,
            SCHEMA,
            env,
            entry.entry_id,
            entry.kind.value,
            entry.symbol,
            entry.trade_id,
            epoch,
            entry.at_ns,
            len(entry.postings),
            digest,
        )
        if not is_new:
            found = await connection.fetchval(
                "SELECT digest FROM arb.entries WHERE env = $1 AND entry_id = $2",
                env,
                entry.entry_id,
            )
            if found != digest:
                raise LedgerViolation(entry.entry_id, "another entry has this id")
            continue
        posted.append(entry)
    await _insert_postings(connection, env, posted)
    return posted


async def _insert_postings(connection: Connection, env: str, entries: Iterable[Entry]) -> None:
    await connection.executemany(
        """
        INSERT INTO arb.postings
            (schema, env, entry_id, line, trade_id, venue, account, asset, amount)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        """,
        [
            (
                SCHEMA,
                env,
                entry.entry_id,
                line,
                entry.trade_id,
                posting.venue.value,
                posting.account.value,
                posting.asset,
                posting.amount,
            )
            for entry in entries
            for line, posting in enumerate(entry.postings)
        ],
    )


def digest_of(entry: Entry) -> bytes:
    """
    What two entries of one id must agree on: everything but the instant.

    A repeat after a restart may be dated anew; the money may not differ. 1.0 and 1.00 agree.
    """
    lines = [
        (posting.venue, posting.account, posting.asset, posting.amount.normalize())
        for posting in entry.postings
    ]
    content = (entry.kind, entry.symbol, entry.trade_id, lines)
    return hashlib.sha256(msgspec.json.encode(content)).digest()


async def read_balances(connection: Connection, env: str) -> tuple[Balance, ...]:
    """Sum the postings of an environment."""
    rows = await connection.fetch(
        "SELECT venue, account, asset, amount FROM arb.balances WHERE env = $1 "
        "ORDER BY venue, account, asset",
        env,
    )
    return tuple(
        Balance(Venue(row["venue"]), Account(row["account"]), Asset(row["asset"]), row["amount"])
        for row in rows
    )
