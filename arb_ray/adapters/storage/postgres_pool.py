"""
PostgreSQL for the stores: a bounded pool, transactions, and errors sorted by remedy.

The border between "nothing happened" and "nobody knows" is the COMMIT: what breaks before
it left no trace (StoreUnavailable, send it again), what breaks during it may have taken
effect (OutcomeUnknown, repeat the call: every write is idempotent).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from arb_ray.domain.errors import BadInput, LedgerViolation, OutcomeUnknown, StoreUnavailable
from arb_ray.engine.lately import LatelyMax

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

CONNECT_TIMEOUT_S = 10.0
"""Of a connection outside of a pool, which a person or a script waits for."""

POOL_SIZE = 2
"""Connections of one store of one process (DESIGN section 4); callers beyond it wait."""

STATEMENT_TIMEOUT_MS = 5_000
"""The server gives up on a statement after this; nothing of its transaction is kept."""

CLIENT_GRACE_S = 2.0
"""How much longer than the server we wait for its word, before the wire counts as dead."""

ACQUIRE_TIMEOUT_S = 5.0
"""Waiting for a free connection and connecting; then the store counts as away."""

IDLE_S = 300.0

USED_WINDOW_S = 15.0
"""The peak use of so long is told: the usual time between two scrapes."""

SAID_BY_SERVER = (
    asyncpg.OperatorInterventionError,  # shutting down, statement timeout, starting up
    asyncpg.InsufficientResourcesError,  # disk full, too many connections
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.InvalidTransactionStateError,  # idle in a transaction for too long
    asyncpg.ReadOnlySQLTransactionError,  # a stand-by that was not promoted yet
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
"""
The server answered that it did not do it.

Sure for a statement; for a COMMIT all are but the shutdowns (``_commit``).
"""

WIRE_BROKE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""No answer: during a COMMIT the outcome is unknown."""


class Postgres:
    """
    A bounded pool to one database. Nothing connects before the first use.

    Safe for many tasks of one event loop. Raises StoreUnavailable and OutcomeUnknown, and
    BadInput when the address is none.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int = POOL_SIZE,
        statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
        acquire_timeout_s: float = ACQUIRE_TIMEOUT_S,
    ) -> None:
        assert size > 0
        self._dsn = dsn
        self._size = size
        self._statement_timeout_ms = statement_timeout_ms
        self._acquire_timeout_s = acquire_timeout_s
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._used = LatelyMax(USED_WINDOW_S)
        self._busy: set[Connection] = set()

    @property
    def used_ratio(self) -> float:
        """The most used part of the pool lately: a write lasts milliseconds, a look is rare."""
        return self._used.value(time.monotonic()) / self._size

    @property
    def in_use(self) -> int:
        """Connections that are busy now."""
        return self._pool.get_size() - self._pool.get_idle_size() if self._pool else 0

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            # With no connection to make at first, this does not wait and cannot race.
            self._pool = asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._size,
                max_inactive_connection_lifetime=IDLE_S,
                reset=_leave_as_it_is,
                timeout=self._acquire_timeout_s,
                command_timeout=self._statement_timeout_ms / 1000 + CLIENT_GRACE_S,
                server_settings={
                    "application_name": "arb_ray",
                    "search_path": "arb, pg_temp",
                    "statement_timeout": str(self._statement_timeout_ms),
                    "idle_in_transaction_session_timeout": str(4 * self._statement_timeout_ms),
                },
            )
        await self._pool  # a no-op once it is open
        return self._pool

    @contextlib.asynccontextmanager
    async def connection(self, wait_s: float | None = None) -> AsyncIterator[Connection]:
        """Lend a connection for reads; a broken one is thrown away."""
        pool = await self._opened()
        try:
            connection = await pool.acquire(timeout=wait_s or self._acquire_timeout_s)
        except asyncpg.ClientConfigurationError as error:
            raise _no_address(error) from None
        except (*WIRE_BROKE, *SAID_BY_SERVER) as error:
            raise StoreUnavailable("postgres", _words(error)) from error
        self._used.add(self.in_use, time.monotonic())
        self._busy.add(connection)
        try:
            yield connection
        except (*WIRE_BROKE, *SAID_BY_SERVER) as error:
            # A wire that broke once is not asked again: the pool makes a new connection.
            _cut(connection)
            raise StoreUnavailable("postgres", _words(error)) from error
        except OutcomeUnknown:
            _cut(connection)
            raise
        finally:
            self._busy.discard(connection)
            await _give_back(pool, connection)

    async def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        try:
            return await self._open()
        except (*WIRE_BROKE, *SAID_BY_SERVER) as error:
            raise StoreUnavailable("postgres", _words(error)) from error

    @contextlib.asynccontextmanager
    async def transaction(
        self, what: str, isolation: str = "read_committed"
    ) -> AsyncIterator[Connection]:
        """
        Run a block in one transaction; ``what`` names it in OutcomeUnknown.

        Raises:
            StoreUnavailable: It was not committed.
            OutcomeUnknown: The connection broke during the commit.
            LedgerViolation: The database refused it: an entry that does not balance, a row
                that may not change.
        """
        async with self.connection() as connection:
            transaction = connection.transaction(isolation=isolation)  # type: ignore[arg-type]
            try:
                await _to_its_end(transaction.start())
            except asyncio.CancelledError:
                await _roll_back(transaction, connection)
                raise
            try:
                yield connection
            except asyncpg.IntegrityConstraintViolationError as error:
                await _roll_back(transaction, connection)
                raise LedgerViolation(what, _words(error)) from error
            except BaseException:
                await _roll_back(transaction, connection)
                raise
            await _commit(transaction, what)

    async def ping(self, timeout_s: float) -> None:
        """Ask for a sign of life, on a connection of the pool. Raises StoreUnavailable."""
        async with self.connection(timeout_s) as connection:
            await connection.fetchval("SELECT 1", timeout=timeout_s)

    def cut(self) -> None:
        """
        Throw away the connections that somebody waits on: their wire is not believed any more.

        He learns at once that it broke; the next use connects anew.
        """
        for connection in list(self._busy):
            _cut(connection)

    async def commit(self, what: str, sql: str, *arguments: object) -> list[asyncpg.Record]:
        """
        Run one statement that is its own transaction: one round trip with its commit.

        A wire that breaks meanwhile may have broken in the commit, so it is never
        StoreUnavailable. Raises as ``transaction`` does otherwise.
        """
        async with self.connection() as connection:
            began = time.monotonic()
            try:
                return await connection.fetch(sql, *arguments)
            except asyncpg.IntegrityConstraintViolationError as error:
                raise LedgerViolation(what, _words(error)) from error
            except asyncpg.QueryCanceledError:
                raise  # the server gave up before the commit record
            except (asyncpg.OperatorInterventionError, *WIRE_BROKE) as error:
                raise _unknown(what, began) from error

    async def close(self) -> None:
        """Close the pool; busy connections get a moment, then they are cut."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), CLIENT_GRACE_S)
        except (TimeoutError, *WIRE_BROKE):
            pool.terminate()


async def connect_alone(dsn: str, database: str | None = None) -> asyncpg.Connection:
    """
    Return a connection outside of any pool, for work that may last: its statements are unbounded.

    Raises:
        BadInput: The address is none.
        StoreUnavailable: PostgreSQL is away, or refuses.
    """
    try:
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S, database=database)
    except asyncpg.ClientConfigurationError as error:
        raise _no_address(error) from None
    except (*WIRE_BROKE, asyncpg.PostgresError) as error:
        raise StoreUnavailable("postgres", _words(error)) from error


@contextlib.contextmanager
def our_tables() -> Iterator[None]:
    """Tell of a database without our tables as that. Raises BadInput."""
    try:
        yield
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as error:
        raise BadInput(
            "the database", "it lacks tables of this code", "Run arb-ray db migrate"
        ) from error


async def _leave_as_it_is(_connection: object) -> None:
    """
    Save the round trip of asyncpg's RESET ALL, which whoever gives a connection back waits for.

    No statement of ours changes its session, and a transaction never outlives its block.
    """


async def _to_its_end(step: Coroutine[Any, Any, None]) -> None:
    """
    Let a step that opens or ends a transaction finish, and only then be cancelled.

    Cut in two, it would leave a transaction that one side believes open and the other does
    not. It lasts a round trip; a dead wire ends it at the pool's command time-out, or `cut`.
    """
    task = asyncio.get_running_loop().create_task(step)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at: whoever cancels does not ask how it ended
    raise cancelled


async def _commit(transaction: Any, what: str) -> None:
    began = time.monotonic()
    try:
        await _to_its_end(transaction.commit())
    except asyncpg.IntegrityConstraintViolationError as error:
        raise LedgerViolation(what, _words(error)) from error
    except asyncpg.QueryCanceledError:
        raise  # a deferred check ran out of time, and that is before the commit record
    except asyncpg.OperatorInterventionError as error:
        # A server that goes down may say so after the commit record is on its disk.
        raise _unknown(what, began) from error
    except WIRE_BROKE as error:
        raise _unknown(what, began) from error


def _unknown(what: str, began: float) -> OutcomeUnknown:
    return OutcomeUnknown(f"commit of {what}", round((time.monotonic() - began) * 1000))


async def _roll_back(transaction: Any, connection: Connection) -> None:
    try:
        await _to_its_end(transaction.rollback())
    except (*WIRE_BROKE, *SAID_BY_SERVER):
        _cut(connection)  # the server rolls back what its client left behind


async def _give_back(pool: asyncpg.Pool[asyncpg.Record], connection: Connection) -> None:
    try:
        await pool.release(connection, timeout=CLIENT_GRACE_S)
    except (*WIRE_BROKE, *SAID_BY_SERVER):
        _cut(connection)


def _cut(connection: Connection) -> None:
    # asyncpg takes a connection whose wire broke out of our hands by itself.
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


def _no_address(error: Exception) -> BadInput:
    return BadInput(
        "PostgreSQL's address", _words(error), "Write postgresql://user@host:port/database."
    )


def _words(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
