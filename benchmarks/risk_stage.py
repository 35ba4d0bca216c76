"""
What risk measures on: RiskGuard, an asker and an echo as Ray actors, and PostgreSQL.

RiskGuard is the program's own actor over the program's own store; the asker reaches it as a
strategy host does. Limits are far away, so that every intent is granted, and every symbol has
inventory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import structlog

from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.actors.wire import pack
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.domain.errors import ArbError
from arb_ray.domain.instrument import Symbol, Venue
from arb_ray.domain.ledger import NO_PNL, Account, Entry, EntryKind, Posting
from arb_ray.domain.money import Asset
from arb_ray.domain.opportunity import Direction
from arb_ray.domain.risk_intent import Granted, Hold, ReserveIntent, SettleKind, Settlement
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.engine.topology import Role, WantedActor
from arb_ray.ports import MetricsSource

ENV = "bench"
NAMESPACE = "risk"
CALL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
POOL_SIZE = 4  # as postgres.service_pool_max_count gives it to RiskGuard
FAR = Decimal(10) ** 12

LIMITS = RiskLimits(
    daily_loss_usdt=FAR,
    symbol_daily_loss_usdt=FAR,
    drawdown_usdt=FAR,
    trade_notional_usdt=FAR,
    symbol_notional_usdt=FAR,
    total_notional_usdt=FAR,
    open_trades_count=10**6,
    entries_per_minute_count=10**6,
    consecutive_losses_count=10**6,
    loss_cool_down_s=0.0,
    mark_age_max_ms=5_000,
    anomaly_window_count=10**6,
    win_rate_max_ratio=1.0,
    fees_min_bps=Decimal(0),
)

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def symbols(count: int) -> tuple[Symbol, ...]:
    """Return the made-up coins of a run."""
    return tuple(Symbol(f"C{number:03d}") for number in range(count))


def opening(coins: Sequence[Symbol]) -> list[Entry]:
    """Give the environment more than a run can hold."""
    wanted = [
        (Venue.UPBIT, Asset("KRW")),
        (Venue.BINANCE_SPOT, Asset("USDT")),
        *((Venue.BINANCE_SPOT, Asset(coin)) for coin in coins),
    ]
    return [
        Entry(
            f"opening:{venue}:{asset}",
            EntryKind.OPENING,
            None,
            None,
            1,
            (
                Posting(venue, Account.OPENING, asset, -FAR),
                Posting(venue, Account.FREE, asset, FAR),
            ),
        )
        for venue, asset in wanted
    ]


def intent(coin: Symbol, number: int, owner_epoch: int) -> ReserveIntent:
    """Ask as a strategy does that buys on Upbit and sells inventory on Binance."""
    now_ns = time.time_ns()
    return ReserveIntent(
        trade_id=f"{ENV}:{coin}:{number}",
        session_id="bench",
        symbol=coin,
        owner_epoch=owner_epoch,
        direction=Direction.LONG_A_SHORT_B,
        worst_loss_usdt=Decimal("4.32198765"),
        notional_usdt=Decimal("501.98765432"),
        holds=(
            Hold(Venue.UPBIT, Asset("KRW"), Decimal("712345.67890123")),
            Hold(Venue.BINANCE_SPOT, Asset(coin), Decimal("0.12345678")),
            Hold(Venue.BINANCE_SPOT, Asset("USDT"), Decimal("4.32198765")),
        ),
        asked_ns=now_ns,
        deadline_ns=now_ns + 10**10,
    )


def void(asked: ReserveIntent) -> Settlement:
    """End a reservation whose trade never began."""
    zero = Decimal(0)
    return Settlement(
        asked.trade_id,
        asked.symbol,
        SettleKind.VOIDED,
        NO_PNL,
        zero,
        zero,
        zero,
        time.time_ns(),
        "bench",
    )


class BenchKit(msgspec.Struct, frozen=True):
    """Builds RiskGuard in its actor; implements ``ActorKit``. The address is read from a file."""

    dsn_file: str
    symbols_count: int

    def metrics(self, wanted: WantedActor) -> MetricsSource:
        """Count as the program does."""
        return PrometheusMetrics(wanted.role, wanted.key)

    def build(self, wanted: WantedActor, links: Any, metrics: Any) -> RiskGuard:
        """Return the program's guard under limits that are far away."""

        async def start_with() -> Sequence[Entry]:
            return opening(symbols(self.symbols_count))

        dsn = Path(self.dsn_file).read_text(encoding="utf-8")
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
        return RiskGuard(
            holder="bench",
            store=PostgresRiskStore(Postgres(dsn, size=POOL_SIZE), ENV),
            limits=LIMITS,
            opening=start_with,
            clock=SystemClock(),
            metrics=metrics,
            log=structlog.get_logger(),
        )


class Echo:
    """Another process that answers a call with bytes as large as RiskGuard's answer."""

    async def reserve(self, _intent: bytes) -> bytes:
        """Answer at once."""
        return ANSWER


ANSWER = pack(Granted("bench:C000:1", 1, 1_764_000_000_000_000_000))


class Asker:
    """A strategy host's side of the calls, and one bare connection to the same PostgreSQL."""

    def __init__(self, dsn_file: str, guard_name: str, echo: Any) -> None:
        from arb_ray.actors.cluster import RayLinks, RayRisk

        self._dsn = Path(dsn_file).read_text(encoding="utf-8")
        self._risk = RayRisk(RayLinks(NAMESPACE), guard_name, CALL_TIMEOUT_S)
        self._echo = echo
        self._epochs: dict[Symbol, int] = {}
        self._numbers: dict[Symbol, int] = {}
        self._connection: Any = None

    async def prepare(self, count: int) -> None:
        """Own the symbols; wait until the guard is ready."""
        pool = Postgres(self._dsn)
        ledger = PostgresLedgerStore(pool, ENV)
        for coin in symbols(count):
            self._epochs[coin] = await ledger.claim_symbol(coin, "bench")
        await pool.close()
        self._connection = await asyncpg.connect(self._dsn)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._is_guard_ready():
            if time.monotonic() > deadline:
                raise RuntimeError("RiskGuard did not become ready")
            await asyncio.sleep(0.1)

    async def _is_guard_ready(self) -> bool:
        try:
            return bool(await self._risk.free())
        except ArbError:
            return False

    def _next(self, coin: Symbol) -> ReserveIntent:
        self._numbers[coin] = self._numbers.get(coin, 0) + 1
        return intent(coin, self._numbers[coin], self._epochs[coin])

    async def serial(self, count: int) -> dict[str, list[float]]:
        """Measure call, commit, reserve and its void in turn, ``count`` times each; ms."""
        took: dict[str, list[float]] = {"call": [], "commit": [], "reserve": [], "void": []}
        coins = list(self._epochs)
        for turn in range(count):
            asked = self._next(coins[turn % len(coins)])
            data = pack(asked)
            began = time.perf_counter()
            await self._echo.reserve.remote(data)
            called = time.perf_counter()
            await self._connection.execute(
                "INSERT INTO bench.commits (env, text) VALUES ($1, $2)", ENV, asked.trade_id
            )
            committed = time.perf_counter()
            verdict = await self._risk.reserve(asked)
            reserved = time.perf_counter()
            _expect_yes(verdict)
            await self._risk.settle(void(asked))
            voided = time.perf_counter()
            ends = (began, called, committed, reserved, voided)
            for name, (start, end) in zip(took, pairwise(ends), strict=True):
                took[name].append((end - start) * 1e3)
        return took

    async def sustained(self, duration_s: float) -> dict[str, Any]:
        """Let every symbol reserve and void as fast as it can; count what was granted."""
        until = time.perf_counter() + duration_s
        took: list[float] = []

        async def trade(coin: Symbol) -> None:
            while time.perf_counter() < until:
                asked = self._next(coin)
                began = time.perf_counter()
                _expect_yes(await self._risk.reserve(asked))
                took.append((time.perf_counter() - began) * 1e3)
                await self._risk.settle(void(asked))

        began = time.perf_counter()
        await asyncio.gather(*(trade(coin) for coin in self._epochs))
        return {"took_s": time.perf_counter() - began, "reserve": took}


def _expect_yes(verdict: Any) -> None:
    if not isinstance(verdict, Granted):
        raise RuntimeError(f"RiskGuard refused: {verdict}")  # noqa: TRY004 (it is an answer)


class Stage:
    """The actors of one run."""

    def __init__(self, asker: Any, dsn: str) -> None:
        self.asker = asker
        self._dsn = dsn

    async def analyze(self) -> None:
        """Let the database learn the sizes of its tables, as autovacuum does every minute."""
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute("ANALYZE")
        finally:
            await connection.close()

    async def rows(self) -> dict[str, int]:
        """Count what is in the database, and what must not be there."""
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetchrow(
                """
                SELECT (SELECT count(*) FROM arb.reservations WHERE env = $1) AS reservations,
                    (SELECT count(*) FROM arb.entries WHERE env = $1 AND kind = 'hold') AS holds,
                    (SELECT count(*) FROM arb.trades WHERE env = $1 AND status = 'open') AS open,
                    (SELECT count(*) FROM arb.balances WHERE env = $1 AND account = 'held'
                        AND amount <> 0) AS held
                """,
                ENV,
            )
        finally:
            await connection.close()
        assert found is not None
        return {name: int(value) for name, value in found.items()}


@contextlib.asynccontextmanager
async def stage(symbols_count: int) -> AsyncIterator[Stage]:
    """Start everything, and end it."""
    os.environ.update(RAY_ENVIRONMENT)
    folder = Path(tempfile.mkdtemp(prefix="arb-ray-", dir="/tmp"))  # sockets: short
    # Late, because Ray reads its environment when it is imported.
    import ray

    from arb_ray.actors import cluster

    try:
        async with EmbeddedPostgres(folder / "postgres") as postgres:
            migrate.apply(postgres.dsn)
            await _make_table(postgres.dsn)
            dsn_file = folder / "dsn"
            dsn_file.touch(mode=0o600)
            dsn_file.write_text(postgres.dsn, encoding="utf-8")
            await asyncio.to_thread(
                cluster.start_local,
                {
                    "num_cpus": 4,
                    "include_dashboard": False,
                    "object_store_memory": 80_000_000,
                    "namespace": NAMESPACE,
                    "_temp_dir": str(folder / "ray"),
                },
            )
            try:
                guard = WantedActor(Role.RISK, "main", (), "1")
                actors = cluster.RayCluster(NAMESPACE, BenchKit(str(dsn_file), symbols_count))
                actors.start(guard)
                options = {"num_cpus": 0, "max_concurrency": 1000, "enable_task_events": False}
                echo = ray.remote(Echo).options(**options).remote()
                born: Any = ray.remote(Asker).options(**options)
                asked = born.remote(str(dsn_file), guard.name, echo)
                await asked.prepare.remote(symbols_count)
                yield Stage(asked, postgres.dsn)
                await actors.stop(guard.name)
            finally:
                cluster.disconnect()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _make_table(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "CREATE SCHEMA bench; CREATE TABLE bench.commits "
            "(n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, env text, text text)"
        )
    finally:
        await connection.close()
