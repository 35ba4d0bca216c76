"""
The kit: builds every actor's plain object from a deployment, in the actor's own process.

It travels as a Ray argument, so it holds no secret and no open thing: secrets are read on
the node, from its own files.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray.actors.cluster import Links, RayCluster, RayRisk
from arb_ray.actors.hosting import Loops
from arb_ray.actors.wire import unpack
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.telemetry.error_count import count_errors
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.app.deployment import Deployment, decode
from arb_ray.app.process_facts import node_name, rss_mb
from arb_ray.app.registry import PairInstruments, absent_instruments
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings
from arb_ray.app.stores import postgres_dsn, redis_url
from arb_ray.domain.instrument import Pair, Symbol, Venue
from arb_ray.domain.ledger import Entry
from arb_ray.engine.risk_commands import RESTRICT
from arb_ray.engine.status import SystemStatus
from arb_ray.engine.topology import Role, WantedActor

if TYPE_CHECKING:
    from arb_ray.actors.feed import Feed
    from arb_ray.actors.gateway import Gateway
    from arb_ray.actors.outbox import Outbox
    from arb_ray.actors.persistence import Persistence
    from arb_ray.actors.risk_guard import LimitsInForce, RiskGuard
    from arb_ray.actors.source import Source
    from arb_ray.actors.strategy_host import StrategyHost
    from arb_ray.actors.supervisor import Supervisor
    from arb_ray.actors.supervisor_watch import SupervisorWatch
    from arb_ray.actors.wanted import WantedState
    from arb_ray.adapters.storage.postgres_pool import Postgres
    from arb_ray.adapters.storage.redis_state import RedisStateStore
    from arb_ray.adapters.storage.spooled_ledger import SpooledLedger
    from arb_ray.adapters.storage.topology_store import TopologyStore
    from arb_ray.domain.risk_intent import RiskStatus

SUPERVISOR = "supervisor"


class Kit(msgspec.Struct, frozen=True):
    """Builds actors; implements ``ActorKit``."""

    deployment: Deployment

    @property
    def session(self) -> SessionFacts:
        """Return what is fixed for the session."""
        return self.deployment.session

    def metrics(self, wanted: WantedActor) -> PrometheusMetrics:
        """Return what the actor's process counts in."""
        metrics = PrometheusMetrics(wanted.role, wanted.key)
        metrics.follow("process_memory_bytes", lambda: rss_mb() * 1e6)
        count_errors(metrics)
        return metrics

    def build(self, wanted: WantedActor, links: Links, metrics: Any) -> Any:
        """Return the actor's object, connected to nothing yet."""
        settings = self.deployment.settings()
        pairs = self.deployment.pairs(settings)
        configure_logs(
            settings.telemetry.log_level,
            "json",
            settings.secret_values(),
            context={"session_id": self.session.session_id, "actor": wanted.name},
        )
        log = get_log(f"arb_ray.actors.{wanted.role}")
        if wanted.role is Role.FEED:
            return self._feed(settings, pairs, wanted, links, metrics, log)
        if wanted.role is Role.HOST:
            return self._host(settings, pairs, wanted, links, metrics, log)
        if wanted.role is Role.RISK:
            return self._risk(settings, wanted, links, metrics, log)
        if wanted.role is Role.PERSISTENCE:
            return self._persistence(settings, links, metrics, log)
        if wanted.role is Role.SOURCE:
            return self._source(settings, wanted, log)
        if wanted.role is Role.GATEWAY:
            return self._gateway(settings, wanted, links, metrics, log)
        assert wanted.role is Role.SUPERVISOR
        return self._supervisor(settings, metrics, log)

    def name_of(self, role: Role) -> str:
        """Return the name of a singleton."""
        (wanted,) = self.deployment.topology.of(role)
        return wanted.name

    async def pairs_from(self, links: Links, symbols: list[Symbol]) -> Sequence[Pair]:
        """Ask the supervisor for pairs with rules and fees."""
        answer = await links.call(SUPERVISOR, "pairs", symbols, timeout_s=60.0)
        return unpack(answer, list[Pair])

    def outbox(self, links: Links, metrics: Any) -> Outbox:
        """Return a producer's way to Persistence."""
        from arb_ray.actors.outbox import Outbox

        name = self.name_of(Role.PERSISTENCE)

        def send(method: str, payload: bytes) -> Awaitable[object]:
            return links.call(name, method, payload, timeout_s=5.0)

        return Outbox(send, metrics)

    # -- one method an actor ------------------------------------------------------------
    #
    # What only some actors need is imported where they are built: all of it takes a process
    # half a second, and a process that starts again after a crash has three.

    def _source(self, settings: Settings, wanted: WantedActor, log: Any) -> Source:
        from arb_ray.actors.source import Source
        from arb_ray.app.sources import serve_source

        return Source(lambda: serve_source(settings, self.session, wanted.symbols), log)

    def _feed(
        self,
        settings: Settings,
        pairs: Sequence[PairInstruments],
        wanted: WantedActor,
        links: Links,
        metrics: Any,
        log: Any,
    ) -> Feed:
        from arb_ray.actors.fan_out import FanOut
        from arb_ray.actors.feed import Feed
        from arb_ray.app.feeds import (
            Recording,
            instruments_of,
            make_socket,
            make_venue_feed,
            snapshot_fetcher,
        )
        from arb_ray.app.planes import board_maker

        venue = Venue(wanted.key)
        clock = SystemClock()
        venue_feed = make_venue_feed(settings, venue, pairs, self.session.session_id)
        recording = Recording.maybe(settings, venue)
        fetch, close_rest = snapshot_fetcher(settings, venue, recording)
        loops = Loops()
        is_shared = settings.topology.tick_plane != "ray"

        async def ask_neighbours(host: str) -> Sequence[str]:
            names: Sequence[str] = await links.call(host, "neighbours", timeout_s=2.0)
            return names

        fan_out = FanOut(
            feed=wanted.name,
            node=node_name(),
            clock=clock,
            sink_for=links.sink,
            min_interval_ms=int(settings.topology.batch_interval_ms),
            heartbeat_ms=int(settings.topology.heartbeat_interval_ms),
            alive=venue_feed.alive,
            clock_estimate=venue_feed.clock,
            make_board=board_maker(
                settings,
                venue,
                len(instruments_of(venue, pairs)),
                self.session.session_id,
                wanted.name,
            ),
            relay_for=links.relay if is_shared else None,
            ask_neighbours=ask_neighbours if is_shared else None,
            loops=loops,
        )
        return Feed(
            venue=venue,
            venue_feed=venue_feed,
            make_socket=lambda plan, handler: make_socket(settings, venue, plan, handler),
            fetch_snapshot=fetch,
            fan_out=fan_out,
            recorder=recording,
            close_rest=close_rest,
            clock=clock,
            metrics=metrics,
            log=log,
            rss_mb=rss_mb,
            must_share_memory=settings.topology.tick_plane == "shm",
            loops=loops,
        )

    def _host(
        self,
        settings: Settings,
        pairs: Sequence[PairInstruments],
        wanted: WantedActor,
        links: Links,
        metrics: Any,
        log: Any,
    ) -> StrategyHost:
        from arb_ray.app.hosts import TRANSIT_ALLOWANCE_NS, HostPlace, build_host
        from arb_ray.app.planes import host_boards, node_relay

        async def load_pairs(symbols: list[Symbol]) -> Sequence[Pair]:
            return await self.pairs_from(links, symbols)

        ledger = self._spooled_ledger(settings, wanted, metrics, log)
        boards = host_boards(settings, self.session.session_id, wanted.name, log)
        place = HostPlace(
            name=wanted.name,
            env=settings.env,
            session_id=self.session.session_id,
            seed=self.session.seed,
            symbols=tuple(Symbol(symbol) for symbol in wanted.symbols),
            node=node_name(),
            clock=SystemClock(),
            ledger=ledger,
            keeper=ledger,
            risk=self.risk_client(links, settings),
            outbox=self.outbox(links, metrics),
            load_pairs=load_pairs,
            absent=absent_instruments(pairs),
            leaving=frozenset(Symbol(symbol) for symbol in self.deployment.leaving),
            boards=boards,
            relay=node_relay(
                settings,
                pairs,
                self.session.session_id,
                wanted.name,
                boards,
                TRANSIT_ALLOWANCE_NS,
            ),
        )
        return build_host(settings, place, metrics, log)

    def _spooled_ledger(
        self, settings: Settings, wanted: WantedActor, metrics: Any, log: Any
    ) -> SpooledLedger:
        from arb_ray.adapters.storage.ledger_store import PostgresLedgerStore
        from arb_ray.adapters.storage.node_spools import NodeSpools
        from arb_ray.adapters.storage.spooled_ledger import PROBE_TIMEOUT_S, SpooledLedger

        postgres = self.postgres(settings, metrics, is_host=True)
        ledger = SpooledLedger(
            PostgresLedgerStore(postgres, settings.env),
            NodeSpools(
                Path(settings.session.data_dir) / "spool",
                settings.env,
                f"{wanted.role}-{wanted.key}",
                size_max=settings.persistence.spool_max_bytes,
            ),
            probe=lambda: postgres.ping(PROBE_TIMEOUT_S),
            cut=postgres.cut,
            metrics=metrics,
            log=log,
        )
        metrics.follow("spool_bytes", lambda: ledger.spool_bytes)
        metrics.follow("reconciliation_files", lambda: ledger.kept_files)
        return ledger

    def _risk(
        self, settings: Settings, wanted: WantedActor, links: Links, metrics: Any, log: Any
    ) -> RiskGuard:
        from arb_ray.actors.risk_guard import GuardTimes, RiskGuard
        from arb_ray.adapters.storage.risk_store import PostgresRiskStore
        from arb_ray.adapters.storage.topology_store import TopologyStore

        async def opening() -> Sequence[Entry]:
            answer = await links.call(SUPERVISOR, "opening", timeout_s=60.0)
            return unpack(answer, list[Entry])

        postgres = self.postgres(settings, metrics, is_host=False)
        return RiskGuard(
            holder=f"{wanted.name}/{platform.node()}/{os.getpid()}",
            store=PostgresRiskStore(postgres, settings.env),
            limits=settings.risk.to_limits(),
            newest_limits=NewestLimits(TopologyStore(postgres, settings.env)),
            opening=opening,
            clock=SystemClock(),
            metrics=metrics,
            log=log,
            times=GuardTimes(lease_renew_s=settings.risk.lease_renew_interval_s),
        )

    def _persistence(self, settings: Settings, links: Links, metrics: Any, log: Any) -> Persistence:
        from arb_ray.actors.disk_watch import DiskWatch
        from arb_ray.actors.persistence import Persistence, PersistenceLimits
        from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
        from arb_ray.adapters.storage.spool import Spool

        section = settings.persistence
        folder = Path(settings.session.data_dir) / "spool"
        spool = Spool(folder, size_max=section.spool_max_bytes)
        guard = self.name_of(Role.RISK)

        async def restrict(reason: str) -> object:
            said = (RESTRICT, reason, "persistence")
            return await links.call(guard, "command", *said, timeout_s=5.0)

        metrics.follow("spool_bytes", lambda: spool.size_bytes)
        return Persistence(
            session_id=self.session.session_id,
            store=PostgresSnapshotStore(
                self.postgres(settings, metrics, is_host=False), settings.env
            ),
            state=_redis_state(settings),
            spool=spool,
            clock=SystemClock(),
            metrics=metrics,
            log=log,
            disk=DiskWatch(
                free_bytes=lambda: shutil.disk_usage(folder).free,
                free_min_bytes=section.disk_free_min_bytes,
                restrict=restrict,
                metrics=metrics,
                log=log,
            ),
            watch=supervisor_watch(links, log, settings.topology.health_timeout_s),
            limits=PersistenceLimits(
                batch_rows=section.batch_max_rows,
                batch_bytes=section.batch_max_bytes,
                batch_age_s=section.batch_age_s,
                buffer_rows=section.buffer_max_rows,
                buffer_bytes=section.buffer_max_bytes,
                state_interval_s=section.state_interval_s,
                ping_interval_s=settings.redis.ping_interval_s,
            ),
        )

    def _gateway(
        self, settings: Settings, wanted: WantedActor, links: Links, metrics: Any, log: Any
    ) -> Gateway:
        from arb_ray.actors.gateway import Gateway
        from arb_ray.actors.gateway_actions import Actions
        from arb_ray.actors.gateway_metrics import ANSWER_TIMEOUT_S, MetricsPage
        from arb_ray.actors.supervisor_watch import SECOND_WATCH_FACTOR

        async def ask(method: str) -> Any:
            return await links.call(
                SUPERVISOR, method, timeout_s=settings.gateway.request_timeout_s
            )

        # By its own name, so that a halt needs no supervisor.
        guard = self.name_of(Role.RISK)

        async def ask_guard(method: str, *said: str) -> Any:
            return await links.call(
                guard, method, *said, timeout_s=settings.gateway.request_timeout_s
            )

        async def command(verb: str, reason: str, actor: str, symbol: str) -> RiskStatus:
            answer: RiskStatus = await ask_guard("command", verb, reason, actor, symbol)
            return answer

        async def names() -> Sequence[str]:
            status: SystemStatus = await links.call(
                SUPERVISOR, "status", timeout_s=ANSWER_TIMEOUT_S
            )
            return status.wanted

        page = MetricsPage(
            own=metrics,
            own_name=wanted.name,
            names=names,
            ask=lambda name: links.metrics(name, ANSWER_TIMEOUT_S),
            supervisor=SUPERVISOR,
        )
        return Gateway(
            host=settings.gateway.host,
            port=settings.gateway.http_port,
            ask_supervisor=ask,
            ask_guard=ask_guard,
            actions=Actions(command, settings.gateway.token, log),
            metrics_page=page.page,
            log=log,
            watch=supervisor_watch(
                links, log, SECOND_WATCH_FACTOR * settings.topology.health_timeout_s
            ),
        )

    def _supervisor(self, settings: Settings, metrics: Any, log: Any) -> Supervisor:
        from arb_ray.actors.supervisor import Supervisor, SupervisorTimes
        from arb_ray.adapters.storage.topology_store import TopologyStore

        return Supervisor(
            name=SUPERVISOR,
            wanted=StoredStates(
                TopologyStore(self.postgres(settings, metrics, is_host=False), settings.env), log
            ),
            clock=SystemClock(),
            metrics=metrics,
            log=log,
            times=SupervisorTimes(
                reconcile_s=settings.topology.reconcile_interval_ms / 1e3,
                snapshot_s=settings.persistence.session_interval_s,
                drain_timeout_s=settings.session.stop_timeout_s,
                health_timeout_s=settings.topology.health_timeout_s,
            ),
        )

    def risk_client(self, links: Any, settings: Settings) -> RayRisk:
        """Return RiskGuard as a host calls it."""
        timeout_s = settings.execution.reserve_timeout_ms / 1e3
        return RayRisk(links, self.name_of(Role.RISK), timeout_s)

    def postgres(self, settings: Settings, metrics: Any, *, is_host: bool) -> Postgres:
        """Return a bounded pool; hosts are many, so theirs is small."""
        from arb_ray.adapters.storage.postgres_pool import Postgres

        section = settings.postgres
        size = section.host_pool_max_count if is_host else section.service_pool_max_count
        pool = Postgres(
            postgres_dsn(settings),
            size=size,
            statement_timeout_ms=int(section.statement_timeout_ms),
            acquire_timeout_s=section.acquire_timeout_s,
        )
        metrics.follow("pool_used_ratio", lambda: pool.used_ratio)
        return pool


def supervisor_watch(links: Links, log: Any, patience_s: float) -> SupervisorWatch:
    """Return a watch that has a supervisor started again which was silent for so long."""
    from arb_ray.actors.supervisor_watch import SupervisorWatch

    return SupervisorWatch(
        name=SUPERVISOR,
        ping=lambda timeout_s: links.ping(SUPERVISOR, timeout_s),
        restart=lambda: links.restart(SUPERVISOR),
        clock=SystemClock(),
        log=log,
        health_timeout_s=patience_s,
    )


class NewestLimits:
    """RiskGuard's limits as the wanted state has them; implements ``LimitsSource``."""

    def __init__(self, store: TopologyStore) -> None:
        self._store = store
        self._version = 0

    async def __call__(self) -> LimitsInForce | None:
        """Return them when the wanted state has changed. Raises StoreUnavailable, BadInput."""
        from arb_ray.actors.risk_guard import LimitsInForce

        stored = await self._store.newest(self._version)
        if stored is None:
            return None
        deployment = decode(stored)
        limits = deployment.settings().risk.to_limits()
        self._version = stored.version
        return LimitsInForce(stored.version, limits, is_stopped=deployment.is_stopped)


class StoredStates:
    """What the Supervisor must bring about, from the wanted state; implements ``WantedStates``."""

    def __init__(self, store: TopologyStore, log: Any) -> None:
        self._store = store
        self._log = log

    async def newer(self, version: int) -> WantedState | None:
        """Return the state in force, or None when it is ``version``."""
        from arb_ray.actors.wanted import WantedState
        from arb_ray.app.markets import Markets

        stored = await self._store.newest(version)
        if stored is None:
            return None
        deployment = decode(stored)
        settings = deployment.settings()
        return WantedState(
            version=stored.version,
            topology=deployment.topology,
            is_stopped=deployment.is_stopped,
            flatten=deployment.flatten,
            cluster=RayCluster(settings.ray.namespace, Kit(deployment)),
            reference=Markets(
                settings, deployment.pairs(settings), self._log, SystemClock().now_ns()
            ),
            market=deployment.session.market,
            carried=deployment.session.carried,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._store.close()


def _redis_state(settings: Settings) -> RedisStateStore:
    from arb_ray.adapters.storage.redis_keys import KeyLives
    from arb_ray.adapters.storage.redis_state import RedisStateStore

    section = settings.redis
    return RedisStateStore(
        redis_url(settings),
        settings.env,
        timeout_s=section.operation_timeout_ms / 1e3,
        connect_timeout_s=section.connect_timeout_s,
        connections_max=section.pool_max_count,
        failures_to_fallback=section.failures_to_fallback_count,
        lives=KeyLives(
            state_s=section.state_ttl_s,
            metrics_s=section.metrics_ttl_s,
            cache_s=section.cache_ttl_s,
        ),
    )
