"""
What ``tick_path`` measures on: Ray, the load generator, and one set of actors for each plane.

A stage is two feeds and some hosts that are started once and serve many cells; a cell is one load
for some seconds on one stage, while the other stages have quiet books only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from arb_ray.app.deployment import Deployment, submitted_values
from arb_ray.app.feeds import instruments_of
from arb_ray.app.registry import load_registry
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import BadConfig
from arb_ray.domain.instrument import InstrumentId, Symbol, Venue
from arb_ray.engine.status import FeedStatus, HostStatus
from arb_ray.engine.topology import Digests, Role, Topology, WantedActor, plan, symbols_by_host
from benchmarks.risk_stage import RAY_ENVIRONMENT
from benchmarks.tick_kit import OWN, PROCESS, TickKit
from benchmarks.tick_load import Generator, LoadDone
from benchmarks.tick_tables import Spread, Tables, spread

NAMESPACE = "tick"
SYMBOLS = 50
START_TIMEOUT_S = 300.0
CALL_TIMEOUT_S = 20.0
WARM_UP_S = 1.0
"""The beginning of a cell that is not judged: buffers and caches fill."""
DRAIN_S = 1.0
"""After the last frame; what was not decided by then is not decided."""


class Cell(msgspec.Struct, frozen=True):
    """One load on one plane."""

    plane: str
    hosts: int
    per_s: int


class Cost(msgspec.Struct, frozen=True):
    """CPU time of a cell by who spent it, µs an update that was sent."""

    feed_us: float
    hosts_us: float
    ray_us: float

    @property
    def all_us(self) -> float:
        """Return what an update costs in all, without the generator."""
        return self.feed_us + self.hosts_us + self.ray_us


class Outcome(msgspec.Struct, frozen=True):
    """What became of one cell."""

    cell: Cell
    times: Spread
    sent: int  # the beginning, which is not judged, among them
    decided_share: float
    sent_per_s: float  # what the generator reached
    generator_cpu_share: float  # of one core
    generator_late_ms: float
    cost: Cost
    rss_mb: float  # of feeds and hosts together, at the end
    buffered_bytes: int

    @property
    def words(self) -> str:
        """Say what matters of it in a line."""
        return (
            f"{self.cell.plane}, {self.cell.hosts} hosts, {self.sent_per_s:,.0f}/s: "
            f"p50 {self.times.p50_ms:.3f} ms, p99 {self.times.p99_ms:.2f} ms, "
            f"{self.decided_share:.1%} decided"
        )


def planes() -> tuple[str, ...]:
    """Return the program's own planes that this version has, best first."""
    found = []
    for plane in OWN:
        with contextlib.suppress(BadConfig):
            load_settings("dev", {"topology.tick_plane": plane}, environ={})
            found.append(plane)
    return tuple(found)


class Stage:
    """One plane's feeds and hosts, in actors of this run's Ray."""

    def __init__(self, bench: Bench, plane: str, hosts: int, values: dict[str, Any]) -> None:
        self.plane = plane
        self.hosts = hosts
        # Also the session's id, which names its boards: not those of another run on this machine.
        self.key = f"{plane}-{hosts}-{os.getpid()}"
        self.tables = bench.tables
        self._bench = bench
        self._values = values
        self._topology: Topology | None = None
        self._cluster: Any = None

    async def start(self) -> None:
        """Start the actors, connect them, and wait until every symbol is looked at."""
        from arb_ray.actors.cluster import RayCluster

        port = await self._bench.generator.open.remote(self.key)
        deployment = self.deployment(port)
        self._topology = deployment.topology
        kit = TickKit(deployment, folder=str(self._bench.folder), plane=self.plane)
        self._cluster = RayCluster(NAMESPACE, kit)
        for wanted in self._actors():
            self._cluster.start(wanted)
        for feed in deployment.topology.of(Role.FEED):
            routes = self.routes(deployment, feed)
            await self._until_told(feed.name, deployment.topology.version, routes)
        await self._until_live()

    def routes(self, deployment: Deployment, feed: WantedActor) -> dict[str, list[InstrumentId]]:
        """Return which instruments of a feed each host wants, as the Supervisor tells it."""
        pairs = deployment.pairs(deployment.settings())
        known = {one.id for one in instruments_of(Venue(feed.key), pairs)}
        wanted = {pair.symbol: {pair.a.id, pair.b.id, pair.fx.id} & known for pair in pairs}
        return {
            host.name: sorted(set().union(*(wanted[Symbol(one)] for one in host.symbols)))
            for host in deployment.topology.of(Role.HOST)
        }

    async def stop(self) -> None:
        """End the actors."""
        for wanted in reversed(self._actors()):
            await self._cluster.stop(wanted.name)
        await self._bench.generator.close.remote(self.key)

    async def measure(self, per_s: int, seconds: float) -> Outcome:
        """Run one cell."""
        count = int(per_s * (seconds + WARM_UP_S))
        generator = self._bench.generator
        await generator.prepare.remote(count)
        await asyncio.sleep(0.3)
        before = self._cpu_s()
        done: LoadDone = await generator.run.remote(self.key, per_s)
        await asyncio.sleep(DRAIN_S)
        after = self._cpu_s()
        first = int(per_s * WARM_UP_S)
        took, sent = self._bench.tables.latencies_ns(first, count - first)
        spent = {who: (after[who] - before[who]) / done.sent * 1e6 for who in after}
        return Outcome(
            cell=Cell(self.plane, self.hosts, per_s),
            times=spread(took),
            sent=done.sent,
            decided_share=round(len(took) / sent, 4),
            sent_per_s=round(done.sent / done.took_s),
            generator_cpu_share=round(done.cpu_s / done.took_s, 3),
            generator_late_ms=round(done.late_ms_max, 2),
            cost=Cost(*(round(spent[who], 1) for who in ("feed", "host", "ray"))),
            rss_mb=round(sum(one.memory_info().rss for _, one in self._processes()) / 1e6),
            buffered_bytes=done.buffered_bytes_max,
        )

    async def feed_status(self) -> FeedStatus:
        """Return what Binance's feed tells of itself."""
        (name,) = [one.name for one in self._of(Role.FEED) if one.key != Venue.UPBIT]
        return msgspec.msgpack.decode(await self._ask(name, "status"), type=FeedStatus)

    async def host_statuses(self) -> list[HostStatus]:
        """Return what the hosts tell of themselves."""
        answers = [await self._ask(one.name, "status") for one in self._of(Role.HOST)]
        return [msgspec.msgpack.decode(answer, type=HostStatus) for answer in answers]

    async def metrics(self) -> list[bytes]:
        """Return the hosts' metrics, a page each in Prometheus' text format."""
        links = self._cluster.links
        return [await links.metrics(one.name, CALL_TIMEOUT_S) for one in self._of(Role.HOST)]

    def _actors(self) -> list[WantedActor]:
        """Return what is an actor here: in plane ``process`` one holds all."""
        if self.plane == PROCESS:
            return [WantedActor(Role.SOURCE, self.key, (), "1")]
        return [*self._of(Role.HOST), *self._of(Role.FEED)]

    def _of(self, role: Role) -> Sequence[WantedActor]:
        assert self._topology is not None, "the stage is not started"
        return self._topology.of(role)

    async def _ask(self, name: str, method: str, *said: Any) -> Any:
        links = self._cluster.links
        if self.plane == PROCESS:
            (all_in_one,) = self._actors()
            said = (name, method, *said)
            name, method = all_in_one.name, "of"
        return await links.call(name, method, *said, timeout_s=CALL_TIMEOUT_S)

    async def _until_told(self, name: str, version: str, routes: Any) -> None:
        from arb_ray.domain.errors import ArbError

        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                await self._ask(name, "set_routes", version, routes)
            except ArbError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def _until_live(self) -> None:
        """Send first books until every host has all of its symbols live."""
        deadline = time.monotonic() + START_TIMEOUT_S
        generator = self._bench.generator
        while time.monotonic() < deadline:
            if await generator.is_connected.remote(self.key):
                await generator.first_books.remote(self.key)
                await asyncio.sleep(0.5)
                live = sum(len(one.live) for one in await self.host_statuses())
                if live == SYMBOLS:
                    return
            await asyncio.sleep(0.5)
        raise RuntimeError(f"stage {self.key} did not become live")

    def deployment(self, port: int) -> Deployment:
        """Return what runs on this stage against the exchanges on a port."""
        values = {
            "source": "paper",
            "symbols": ",".join(self._bench.symbols),
            "venues.upbit.ws_url": f"ws://127.0.0.1:{port}",
            "venues.binance_spot.ws_url": f"ws://127.0.0.1:{port}",
            "venues.upbit.depth_mode": "top",
            "venues.binance_spot.depth_mode": "top",
            "strategy.warm_up_s": 1,
            "topology.tick_plane": self.plane if self.plane in OWN else "ray",
            "telemetry.log_level": "warning",
            **self._values,
        }
        settings = load_settings("dev", values, environ={})
        groups = symbols_by_host(self._bench.symbols, str(-(-SYMBOLS // self.hosts)), 1)
        topology = plan(
            self.key, Digests(), groups=groups, venues=("upbit", "binance_spot"), has_gateway=False
        )
        return Deployment(
            version=1,
            env="dev",
            session=SessionFacts(self.key, 1, time.time_ns()),
            values=submitted_values(settings),
            symbols=tuple(self._bench.symbols),
            topology=topology,
        )

    def _processes(self) -> list[tuple[str, psutil.Process]]:
        found = []
        for path in (self._bench.folder / "pids").glob(f"{self.key}-*"):
            role = path.name[len(self.key) + 1 :].partition("-")[0]
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(
                    ("feed" if role == "feed" else "host", psutil.Process(int(path.read_text())))
                )
        return found

    def busiest(self) -> dict[str, int]:
        """Return the number of the feed and of the host that have used most CPU so far."""
        by_cpu = sorted((_cpu_s(process), role, process.pid) for role, process in self._processes())
        return {role: pid for _, role, pid in by_cpu}

    def _cpu_s(self) -> dict[str, float]:
        """Return the CPU time so far of this stage's processes, and of Ray's own."""
        spent = {"feed": 0.0, "host": 0.0, "ray": 0.0}
        for who, process in self._processes():
            spent[who] += _cpu_s(process)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.name() in ("raylet", "gcs_server") or "dashboard" in process.name():
                    spent["ray"] += _cpu_s(process)
        return spent


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


class Bench:
    """A run: its Ray, its folder, its generator."""

    def __init__(self, folder: Path, generator: Any, symbols: Sequence[str]) -> None:
        self.folder = folder
        self.generator = generator
        self.symbols = tuple(symbols)
        self.tables = Tables(folder)

    @contextlib.asynccontextmanager
    async def stage(self, plane: str, hosts: int, **values: Any) -> AsyncIterator[Stage]:
        """Start a stage, and end it."""
        one = Stage(self, plane, hosts, {k.replace("__", "."): v for k, v in values.items()})
        await one.start()
        try:
            yield one
        finally:
            await one.stop()


@contextlib.asynccontextmanager
async def bench(seed: int) -> AsyncIterator[Bench]:
    """Start Ray and the generator, and end them."""
    os.environ.update(RAY_ENVIRONMENT)
    folder = Path(tempfile.mkdtemp(prefix="arb-ray-", dir="/tmp"))  # sockets: short
    # Late, because Ray reads its environment when it is imported.
    import ray

    from arb_ray.actors import cluster

    symbols = [
        str(one) for one in load_registry().wanted(f"top:{SYMBOLS}", "spot", synthetic=False)
    ]
    try:
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
            options = {"num_cpus": 0, "max_concurrency": 100, "enable_task_events": False}
            born: Any = ray.remote(Generator).options(**options)
            yield Bench(folder, born.remote(str(folder), symbols, seed), symbols)
        finally:
            cluster.disconnect()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
