"""
The actors of ``tick_path``: the program's feeds and hosts as ``app`` wires them, and comparators.

What differs from a run: RiskGuard always says that all is well, the ledger is in memory, rows for
Persistence are dropped, and each look at a symbol leaves a stamp. The planes that are compared:

- ``shm`` and ``ray`` are the program's own, by the setting ``topology.tick_plane``;
- ``calls`` is a Ray call a tick, as one would write it first;
- ``process`` has feed and hosts in one process, without anything between them: the limit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from arb_ray.actors.cluster import Links
from arb_ray.actors.fan_out import FanOut
from arb_ray.actors.feed import Feed
from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.actors.symbol_runner import SymbolRunner
from arb_ray.actors.wire import pack
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from arb_ray.app.feeds import instruments_of
from arb_ray.app.kit import Kit
from arb_ray.app.market_rules import FINEST_STEP
from arb_ray.app.process_facts import node_name
from arb_ray.app.registry import PairInstruments
from arb_ray.app.settings import Settings
from arb_ray.domain.book import SCHEMA, BookUpdate, TickBatch
from arb_ray.domain.instrument import (
    FeeAsset,
    FeeSchedule,
    Instrument,
    Leg,
    Pair,
    Symbol,
    TickBand,
    TradingRules,
    Venue,
)
from arb_ray.domain.ledger import Account, Balance
from arb_ray.domain.money import KRW, USDT, ZERO
from arb_ray.domain.risk_intent import Mark, RiskState, RiskStatus
from arb_ray.engine.topology import Role, WantedActor
from arb_ray.ports import Snapshot
from benchmarks.tick_load import row_of
from benchmarks.tick_tables import Tables

OWN = ("shm", "ray")
CALLS = "calls"
PROCESS = "process"

CALLS_IN_FLIGHT_MAX = 2_000
"""Of plane ``calls``; beyond it a tick is dropped, or memory would grow without end."""

RICH = Decimal(10) ** 9


class TickKit(Kit, frozen=True):
    """Builds the actors of one stage; implements ``ActorKit``."""

    folder: str = ""
    plane: str = "ray"

    def build(self, wanted: WantedActor, links: Links, metrics: Any) -> Any:
        """Return the actor's object, connected to nothing yet; its pid is left in the folder."""
        pids = Path(self.folder) / "pids"
        pids.mkdir(exist_ok=True)
        (pids / f"{self.session.session_id}-{wanted.role}-{wanted.key}").write_text(
            str(os.getpid())
        )
        if wanted.role is Role.SOURCE:
            return self.one_process()
        return super().build(wanted, links, metrics)

    def _feed(
        self,
        settings: Settings,
        pairs: Sequence[PairInstruments],
        wanted: WantedActor,
        links: Links,
        metrics: Any,
        log: Any,
    ) -> Feed:
        feed = super()._feed(settings, pairs, wanted, links, metrics, log)
        if self.plane == CALLS:
            call_per_tick(feed, wanted.name, links)
        if self.plane == PROCESS:
            feed._fan_out._min_interval_s = 0.0  # noqa: SLF001 (nothing is saved by gathering)
        return feed

    def _host(
        self,
        settings: Settings,
        pairs: Sequence[PairInstruments],
        wanted: WantedActor,
        links: Links,
        metrics: Any,
        log: Any,
    ) -> StrategyHost:
        host = super()._host(settings, pairs, wanted, links, metrics, log)
        stamp_looks(host, Tables(Path(self.folder)))
        return host

    def one_process(self) -> OneProcess:
        """Return feeds and hosts that share a process."""
        settings = self.deployment.settings()
        pairs = self.deployment.pairs(settings)
        configure_logs(settings.telemetry.log_level, "json", settings.secret_values())
        log = get_log("benchmarks.tick_path")
        hosts: dict[str, StrategyHost] = {}
        links: Any = LocalLinks(hosts)
        for one in self.deployment.topology.of(Role.HOST):
            hosts[one.name] = self._host(settings, pairs, one, links, self.metrics(one), log)
        feeds = {
            one.name: self._feed(settings, pairs, one, links, self.metrics(one), log)
            for one in self.deployment.topology.of(Role.FEED)
        }
        return OneProcess(feeds, hosts)

    async def pairs_from(self, links: Links, symbols: list[Symbol]) -> Sequence[Pair]:
        """Return the pairs under plain rules: there is no venue to ask."""
        settings = self.deployment.settings()
        by_symbol = {one.symbol: one for one in self.deployment.pairs(settings)}
        return [
            Pair(symbol, *(_leg(one) for one in (pair.a, pair.b, pair.fx)))
            for symbol, pair in ((symbol, by_symbol[symbol]) for symbol in symbols)
        ]

    def outbox(self, links: Links, metrics: Any) -> Any:
        """Return a hole."""
        return NoOutbox()

    def risk_client(self, links: Any, settings: Settings) -> Any:
        """Return a guard that is content."""
        instruments = [
            instrument
            for venue in (Venue.UPBIT, Venue.BINANCE_SPOT)
            for instrument in instruments_of(venue, self.deployment.pairs(settings))
        ]
        return CalmRisk(instruments)

    def _spooled_ledger(
        self, settings: Settings, wanted: WantedActor, metrics: Any, log: Any
    ) -> Any:
        return MemoryLedger()


def _leg(instrument: Instrument) -> Leg:
    rules = TradingRules(
        (TickBand(ZERO, FINEST_STEP),), FINEST_STEP, FINEST_STEP, ZERO, ZERO, source="benchmark"
    )
    return Leg(instrument, rules, FeeSchedule(Decimal(10), FeeAsset.QUOTE))


class MemoryLedger(MemoryStore):
    """A ledger that is never away; implements ``Keeper`` too."""

    is_away = False
    troubles: Sequence[str] = ()

    async def run(self) -> None:
        """Nothing to do, for ever."""
        from arb_ray.actors.strategy_host import NoKeeper

        await NoKeeper().run()


class NoOutbox:
    """Takes rows and forgets them."""

    is_pressed = False

    def put(self, row: Snapshot) -> None:
        """Forget."""

    def put_state(self, category: str, payload: bytes) -> None:
        """Forget."""

    async def run(self) -> None:
        """Nothing to do, for ever."""
        await MemoryLedger().run()

    async def flush(self) -> None:
        """Nothing is here."""


class CalmRisk:
    """RiskGuard on a good day: every gate that asks for its state is open, and money is plenty."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        assets = {(one.venue, asset) for one in instruments for asset in (one.asset, one.quote)}
        assets |= {(Venue.UPBIT, KRW), (Venue.BINANCE_SPOT, USDT)}
        self._free = [Balance(venue, Account.FREE, asset, RICH) for venue, asset in assets]

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """Say that all is well."""
        day = "2026-01-01"
        return RiskStatus(RiskState.ACTIVE, "", 1, (), False, day, ZERO, ZERO, ZERO, ZERO, 0, 0)

    async def free(self) -> Sequence[Balance]:
        """Return plenty."""
        return self._free


def stamp_looks(host: StrategyHost, tables: Tables) -> None:
    """Let every look at a symbol note the first moment at which its newest update was decided."""
    load, decided, books = host.load, tables.decided.rows, host.parts.view.books

    def stamped(runner: SymbolRunner) -> Callable[..., Any]:
        look, instrument = runner.look, runner.pair.b.instrument.id

        def look_and_stamp(*said: Any) -> Any:
            seen = look(*said)
            book = books.get(instrument)
            if book is not None and book.bids and (row := row_of(book.bids[0][1])) >= 0:
                decided[row] = decided[row] or time.monotonic_ns()
            return seen

        return look_and_stamp

    async def load_and_wrap() -> None:
        await load()
        for runner in host.runners.values():
            runner.look = stamped(runner)  # type: ignore[method-assign]

    host.load = load_and_wrap  # type: ignore[method-assign]


class OneProcess:
    """Feeds and hosts together; the feed's fan-out calls the hosts' ``apply`` itself."""

    def __init__(self, feeds: dict[str, Feed], hosts: dict[str, StrategyHost]) -> None:
        self._feeds = feeds
        self._hosts = hosts

    def start(self) -> None:
        """Start all."""
        for host in self._hosts.values():
            host.start()
        for feed in self._feeds.values():
            feed.start()

    async def of(self, name: str, method: str, *said: Any) -> Any:
        """Call a method of the feed or host ``name``."""
        return await getattr(self._feeds.get(name) or self._hosts[name], method)(*said)

    async def stop(self) -> None:
        """End all."""
        for feed in self._feeds.values():
            await feed.stop()
        for host in self._hosts.values():
            await host.stop()


class LocalLinks:
    """Reaches hosts of the own process."""

    def __init__(self, hosts: dict[str, StrategyHost]) -> None:
        self._hosts = hosts

    def sink(self, name: str) -> LocalSink:
        """Return a sink that hands batches over as they are."""
        return LocalSink(self._hosts[name])


class LocalSink:
    """Implements ``TickSink`` without a wire."""

    def __init__(self, host: StrategyHost) -> None:
        self._host = host

    async def deliver(self, batch: TickBatch) -> int:
        """Let the host look at once."""
        self._host.apply(batch)
        return self._host.born_ns if self._host.runners else 0


def call_per_tick(feed: Feed, name: str, links: Any) -> None:
    """Let the feed call each host for each update, and wait for no answer."""
    fan_out: FanOut = feed._fan_out  # noqa: SLF001 (the comparator stands in the plane's place)
    clock, node, epoch = SystemClock(), node_name(), feed._epoch  # noqa: SLF001
    in_flight: set[Any] = set()

    def offer(update: BookUpdate, now_mono_ns: int) -> None:  # noqa: ARG001
        for route in fan_out._by_instrument.get(update.instrument, ()):  # noqa: SLF001
            if len(in_flight) >= CALLS_IN_FLIGHT_MAX:
                continue
            batch = TickBatch(SCHEMA, name, epoch, node, clock.mono_ns(), 0.0, 0.0, (), (update,))
            answer = links.handle(route.name).deliver.remote(pack(batch)).future()
            in_flight.add(answer)
            answer.add_done_callback(in_flight.discard)

    fan_out.offer = offer  # type: ignore[method-assign]
