"""The two worlds of a replay: objects in this process, or the same objects in Ray actors."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.actors.lockstep import (
    NODE,
    LockstepFeed,
    LockstepGuard,
    LockstepHost,
    TimedRisk,
)
from arb_ray.actors.risk_guard import RiskGuard
from arb_ray.adapters.clock import VirtualClock
from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.app.feeds import instruments_of, make_venue_feed
from arb_ray.app.hosts import HostPlace, build_host
from arb_ray.app.local_servers import (
    as_writer,
    embedded_stores,
    migrate_database,
    ray_environment,
)
from arb_ray.app.market_rules import fees_of, rules_or_unknown
from arb_ray.app.markets import opening_entries
from arb_ray.app.progress import Progress
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings, load_settings
from arb_ray.app.stores import postgres_dsn
from arb_ray.domain.instrument import RULES_UNKNOWN, Instrument, Leg, Pair, Symbol, Venue
from arb_ray.domain.ledger import Entry
from arb_ray.engine.topology import Role, WantedActor
from arb_ray.ports import MetricsSource, Snapshot

CALL_TIMEOUT_S = 60.0
REPLAY_MIN_NOTIONAL = Decimal(5)
"""A recording holds no trading rules; a coin that no table knows gets the finest grid and this."""


class ReplaySetup(msgspec.Struct, frozen=True):
    """What a replay starts from; small enough to travel as a Ray argument."""

    seed: int
    start_ns: int
    pairs: tuple[PairInstruments, ...]
    groups: tuple[tuple[str, ...], ...]
    prices_usdt: Mapping[str, Decimal]


class World(msgspec.Struct):
    """Feeds by venue, hosts in the order of their symbols, and the guard's start."""

    feeds: dict[str, Any]
    hosts: list[Any]
    guard_recover: Callable[[int], Awaitable[object]]


class NoOutbox:
    """A replay keeps no snapshots."""

    def put(self, row: Snapshot) -> None:
        """Let it go."""

    async def run(self) -> None:
        """Nothing to send."""

    async def flush(self) -> None:
        """Nothing to send."""


@contextlib.asynccontextmanager
async def open_world(
    settings: Settings, setup: ReplaySetup, *, through: str, progress: Progress
) -> AsyncIterator[World]:
    """Open the world that ``through`` names, and close it again."""
    configure_logs("error", "json")
    if through == "process":
        yield _in_process(settings, setup)
        return
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="arb-replay-"))
        overrides = _overrides(settings) | {"session.data_dir": folder}
        settings = load_settings("dev", overrides)
        overrides |= await stack.enter_async_context(embedded_stores(settings, progress))
        settings = load_settings("dev", overrides)
        migrate_database(settings, progress)
        overrides |= stack.enter_context(as_writer(settings))
        settings = load_settings("dev", overrides)
        ray_dir = stack.enter_context(ray_environment(settings))
        yield _on_ray(stack, settings, overrides, setup, ray_dir, progress)


def _in_process(settings: Settings, setup: ReplaySetup) -> World:
    clock = VirtualClock(setup.start_ns)
    store = MemoryStore()
    guard = LockstepGuard(make_guard(settings, setup, store, clock), clock)

    async def set_time(now_ns: int) -> None:
        clock.set(now_ns)

    hosts = [
        make_host(settings, setup, f"host:{index}", group, clock, store, guard, set_time)
        for index, group in enumerate(setup.groups)
    ]
    feeds = {str(venue): make_feed(settings, setup, venue) for venue in venues_of(setup)}
    return World(feeds, list(hosts), guard.recover)


def _on_ray(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    overrides: dict[str, Any],
    setup: ReplaySetup,
    ray_dir: Path,
    progress: Progress,
) -> World:
    from arb_ray.actors import cluster

    with progress.step("Ray"):
        cluster.start_local(
            {
                "num_cpus": 4,
                "include_dashboard": False,
                "object_store_memory": settings.ray.object_store_bytes,
                "namespace": settings.ray.namespace,
                "_temp_dir": str(ray_dir),
            }
        )
    stack.callback(cluster.disconnect)
    actors = cluster.RayCluster(settings.ray.namespace, ReplayKit(overrides, setup))
    links = actors.links

    def start(role: Role, key: str, symbols: tuple[str, ...] = ()) -> _Remote:
        wanted = WantedActor(role, key, symbols, "replay")
        actors.start(wanted)
        return _Remote(links, wanted.name)

    guard = start(Role.RISK, "main")
    hosts: list[Any] = [
        start(Role.HOST, f"{index:03d}", group) for index, group in enumerate(setup.groups)
    ]
    feeds: dict[str, Any] = {str(venue): start(Role.FEED, str(venue)) for venue in venues_of(setup)}

    async def recover(now_ns: int) -> None:
        await guard.recover(now_ns)

    return World(feeds, hosts, recover)


class _Remote:
    """An actor whose methods are called by name and awaited."""

    def __init__(self, links: Any, name: str) -> None:
        self._links = links
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            return await self._links.call(self._name, method, *arguments, timeout_s=CALL_TIMEOUT_S)

        return call


class ReplayKit(msgspec.Struct, frozen=True):
    """Builds the lock-step actors; implements ``ActorKit``."""

    overrides: dict[str, Any]
    setup: ReplaySetup

    def metrics(self, wanted: WantedActor) -> MetricsSource:
        """Return the process' metrics; the plain objects of a replay count in their own."""
        return PrometheusMetrics(wanted.role, wanted.key)

    def build(self, wanted: WantedActor, links: Any, metrics: MetricsSource) -> Any:
        """Return the actor's object."""
        settings = load_settings("dev", self.overrides)
        configure_logs("error", "json", settings.secret_values())
        clock = VirtualClock(self.setup.start_ns)
        postgres = Postgres(postgres_dsn(settings))
        if wanted.role is Role.FEED:
            return make_feed(settings, self.setup, Venue(wanted.key))
        if wanted.role is Role.RISK:
            store = PostgresRiskStore(postgres, settings.env)
            return LockstepGuard(make_guard(settings, self.setup, store, clock), clock)
        assert wanted.role is Role.HOST
        from arb_ray.actors.cluster import RayRisk

        name = WantedActor(Role.RISK, "main", (), "replay").name

        async def set_time(now_ns: int) -> None:
            await links.call(name, "set_time", now_ns, timeout_s=CALL_TIMEOUT_S)

        risk = RayRisk(links, name, CALL_TIMEOUT_S)
        ledger = PostgresLedgerStore(postgres, settings.env)
        return make_host(
            settings, self.setup, wanted.name, wanted.symbols, clock, ledger, risk, set_time
        )


def make_feed(settings: Settings, setup: ReplaySetup, venue: Venue) -> LockstepFeed:
    """Return a venue's feed in lock-step."""
    return LockstepFeed(venue, make_venue_feed(settings, venue, setup.pairs, "replay"))


def make_guard(
    settings: Settings, setup: ReplaySetup, store: Any, clock: VirtualClock
) -> RiskGuard:
    """Return the guard over a store."""
    entries = opening_entries(
        settings, [pair.a.asset for pair in setup.pairs], setup.prices_usdt, setup.start_ns
    )

    async def opening() -> Sequence[Entry]:
        return entries

    return RiskGuard(
        holder="replay",
        store=store,
        limits=settings.risk.to_limits(),
        opening=opening,
        clock=clock,
        metrics=PrometheusMetrics(Role.RISK, "main"),
        log=get_log("arb_ray.replay.risk"),
    )


def make_host(
    settings: Settings,
    setup: ReplaySetup,
    name: str,
    symbols: Sequence[str],
    clock: VirtualClock,
    ledger: Any,
    risk: Any,
    set_time: Callable[[int], Awaitable[object]],
) -> LockstepHost:
    """Return a host in lock-step, with its tasks on the virtual clock."""

    async def load_pairs(wanted: list[Symbol]) -> Sequence[Pair]:
        return replay_pairs(settings, setup, wanted)

    place = HostPlace(
        name=name,
        env=settings.env,
        session_id="replay",
        seed=setup.seed,
        symbols=tuple(Symbol(symbol) for symbol in symbols),
        node=NODE,
        clock=clock,
        ledger=ledger,
        risk=TimedRisk(risk, set_time, clock),
        outbox=NoOutbox(),
        load_pairs=load_pairs,
    )
    metrics = PrometheusMetrics(Role.HOST, "replay")
    host = build_host(settings, place, metrics, get_log("arb_ray.replay.host"), tasks=clock)
    return LockstepHost(host, clock)


def replay_pairs(settings: Settings, setup: ReplaySetup, symbols: Sequence[str]) -> list[Pair]:
    """Return pairs under the dated rules; a market that no table knows gets the finest grid."""
    by_symbol = {str(pair.symbol): pair for pair in setup.pairs}

    def leg(instrument: Instrument) -> Leg:
        rules = rules_or_unknown(instrument, setup.start_ns)
        if rules.source == RULES_UNKNOWN:
            rules = msgspec.structs.replace(
                rules, min_notional=REPLAY_MIN_NOTIONAL, source="replay"
            )
        return Leg(instrument, rules, fees_of(settings, instrument.venue, setup.start_ns))

    found = [by_symbol[symbol] for symbol in sorted(symbols)]
    return [Pair(pair.symbol, leg(pair.a), leg(pair.b), leg(pair.fx)) for pair in found]


def venues_of(setup: ReplaySetup) -> list[Venue]:
    """Return the venues of the replay, Upbit first."""
    return [venue for venue in Venue if instruments_of(venue, setup.pairs)]


def _overrides(settings: Settings) -> dict[str, Any]:
    return {
        "source": "replay",
        "recording.files": list(settings.recording.files),
        "symbols": settings.symbols,
        "sim.market_seed": settings.sim.market_seed,
        "venues.binance_spot.depth_mode": settings.venues.binance_spot.depth_mode,
        "venues.binance_usdm.depth_mode": settings.venues.binance_usdm.depth_mode,
    }
