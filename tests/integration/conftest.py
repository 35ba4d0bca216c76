"""Real servers for integration tests: one PostgreSQL and one Valkey a session, fresh data a test."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal

import asyncpg
import msgspec
import pytest
import redis.asyncio

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.roles import READER, WRITER, make_roles
from arb_ray.domain.instrument import InstrumentId, Symbol, Venue
from arb_ray.domain.ledger import NO_PNL, Account, Entry, EntryKind, Posting
from arb_ray.domain.money import Asset, Money, Price, Qty, Side
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.order import Fill, OrderReport, OrderRequest, OrderStatus, Purpose
from arb_ray.domain.risk_intent import Hold, ReserveIntent, SettleKind, Settlement

TEMPLATE = "migrated"
ROLES_PASSWORD = "of-the-roles-in-tests"
_numbers = itertools.count(1)


class _ServerThread:
    """
    An event loop in a thread of its own, which lives as long as the session.

    Tests have a loop each; a server belongs to the loop, and dies with the thread, that
    started it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def enter(self, server):
        return self.run(self._stack.enter_async_context(server))

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def server_thread() -> Iterator[_ServerThread]:
    thread = _ServerThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def embedded_postgres(server_thread, tmp_path_factory) -> EmbeddedPostgres:
    """One running server for the session; do not stop it."""
    postgres = server_thread.enter(EmbeddedPostgres(tmp_path_factory.mktemp("postgres")))
    server_thread.run(execute(postgres.dsn, f"CREATE DATABASE {TEMPLATE}"))
    migrate.apply(postgres.dsn_of(TEMPLATE))
    make_roles(
        postgres.dsn_of(TEMPLATE), writer_password=ROLES_PASSWORD, reader_password=ROLES_PASSWORD
    )
    return postgres


@pytest.fixture(scope="session")
def embedded_valkey(server_thread, tmp_path_factory) -> EmbeddedValkey:
    """One running server for the session; do not stop it."""
    return server_thread.enter(EmbeddedValkey(tmp_path_factory.mktemp("valkey")))


@pytest.fixture
async def empty_dsn(embedded_postgres) -> str:
    """A fresh database without any table. It goes with its server: dropping costs a checkpoint."""
    return await _database(embedded_postgres, "template0")


@pytest.fixture
async def postgres_dsn(embedded_postgres) -> str:
    """A fresh database with all migrations."""
    return await _database(embedded_postgres, TEMPLATE)


@pytest.fixture(scope="session")
def shared_dsn(embedded_postgres, server_thread) -> str:
    """One migrated database for all tests that keep to an environment of their own."""
    return server_thread.run(_database(embedded_postgres, TEMPLATE))


@pytest.fixture
def env() -> str:
    """An environment of this test alone: nothing in the database belongs to it."""
    return f"test{next(_numbers)}"


@pytest.fixture
async def postgres(shared_dsn) -> AsyncIterator[Postgres]:
    """A pool on the shared database, with the rights that the running system has."""
    pool = Postgres(writer_of(shared_dsn))
    yield pool
    await pool.close()


@pytest.fixture
async def redis_url(embedded_valkey) -> str:
    """A Valkey without any key."""
    client = redis.asyncio.Redis.from_url(embedded_valkey.url)
    await client.flushall()
    await client.aclose()
    return embedded_valkey.url


def writer_of(dsn: str) -> str:
    """The same database, as the running system logs in."""
    return _as_role(dsn, WRITER)


def reader_of(dsn: str) -> str:
    """The same database, for who only looks."""
    return _as_role(dsn, READER)


def _as_role(dsn: str, role: str) -> str:
    return f"postgresql://{role}:{ROLES_PASSWORD}@{dsn.rpartition('@')[2]}"


async def _database(server: EmbeddedPostgres, template: str) -> str:
    name = f"test_{next(_numbers)}"
    await execute(server.dsn, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
    return server.dsn_of(name)


async def execute(dsn: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
    """Run one statement outside of any store."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetch(sql, *arguments)
    finally:
        await connection.close()


KRW, USDT = Asset("KRW"), Asset("USDT")
BTC = Symbol("BTC")


def opening(amount="1000000", entry_id="opening"):
    """Give the environment KRW at Upbit."""
    return Entry(entry_id, EntryKind.OPENING, None, None, 1, move("opening", "free", amount))


def move(source, target, amount, asset=KRW, venue=Venue.UPBIT):
    """Postings that carry ``amount`` from one account to another."""
    return (
        Posting(venue, Account(source), asset, -Decimal(amount)),
        Posting(venue, Account(target), asset, Decimal(amount)),
    )


def an_intent(trade_id="BTC-1", owner_epoch=1, hold="1000", symbol=BTC, **changes):
    """A request for room."""
    fields = {
        "trade_id": trade_id,
        "session_id": "s1",
        "symbol": symbol,
        "owner_epoch": owner_epoch,
        "direction": Direction.LONG_A_SHORT_B,
        "worst_loss_usdt": Decimal("1.5"),
        "notional_usdt": Decimal(100),
        "holds": (Hold(Venue.UPBIT, KRW, Decimal(hold)),),
        "asked_ns": 5,
        "deadline_ns": 10,
    }
    return ReserveIntent(**{**fields, **changes})


def an_order(client_order_id="BTC-1-0", trade_id="BTC-1", **changes):
    """A buy of 2 BTC."""
    fields = {
        "client_order_id": client_order_id,
        "trade_id": trade_id,
        "symbol": BTC,
        "instrument": InstrumentId("upbit:BTC-KRW"),
        "side": Side.BUY,
        "qty": Qty(Decimal("2.00")),
        "limit_price": Price(Decimal(101)),
        "decision_price": Decimal("100.1"),
        "purpose": Purpose.ENTRY,
        "decided_ns": 7,
    }
    return OrderRequest(**{**fields, **changes})


def a_report(client_order_id="BTC-1-0", price="100.5"):
    """The last word on it: filled at once, 0.5 KRW of fee."""
    fill = Fill(
        fill_id=f"{client_order_id}-f0",
        client_order_id=client_order_id,
        price=Price(Decimal(price)),
        qty=Qty(Decimal("2.00")),
        fee=Money(Decimal("0.5"), KRW),
        at_ns=8,
        book_slice=((Decimal(price), Decimal("2.5")),),
    )
    return OrderReport(client_order_id, OrderStatus.FILLED, (fill,), 8)


def fill_entry(client_order_id="BTC-1-0", paid="201.5", trade_id="BTC-1"):
    """What the fill cost, out of what is held for the trade."""
    entry_id = f"fill:{client_order_id}-f0"
    return Entry(entry_id, EntryKind.FILL, BTC, trade_id, 8, move("held", "market", paid))


def a_settlement(trade_id="BTC-1", kind=SettleKind.POSTED, pnl="0.3", closed_ns=20, symbol=BTC):
    """The end of a reservation."""
    parts = msgspec.structs.replace(NO_PNL, spread=Decimal(pnl))
    money = (Decimal(pnl), Decimal("0.1"), Decimal(100))
    return Settlement(trade_id, symbol, kind, parts, *money, closed_ns, "take_profit")
