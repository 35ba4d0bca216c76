"""
Captured frames served again over real sockets, at real or chosen speed.

The doors are those of the simulated exchanges; only what stands behind them differs.
Every file starts at its own first frame, all of them together: when each venue that was
recorded has a subscriber, or a grace time after the first subscription. When the files
end, connections stay open and silent, as on a market that stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from arb_ray.adapters.storage.recordings import RecordedFrame, read_recording
from arb_ray.adapters.venues.sim import recorded_binance, recorded_upbit
from arb_ray.adapters.venues.sim.binance_server import (
    SPOT_LIMITS,
    USDM_LIMITS,
    BinanceServer,
)
from arb_ray.adapters.venues.sim.exchange import Doors, SimUrls
from arb_ray.adapters.venues.sim.faults import AT_ONCE, VENUES, Fault, FaultPlan
from arb_ray.adapters.venues.sim.upbit_server import UPBIT_LIMITS, UpbitServer
from arb_ray.domain.errors import BadConfig, BadInput

FRAMES_PER_TURN = 200  # played before other tasks get a turn
SLEEP_S_MIN = 0.001


class RecordedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to serve, how fast (1 is real time), and where. A port of 0 is chosen by the system."""

    files: tuple[str, ...]
    speed: float = 1.0
    start_grace_s: float = 2.0
    host: str = "127.0.0.1"
    upbit_port: int = 0
    binance_spot_port: int = 0
    binance_usdm_port: int = 0
    control_token: str = ""


class _File(msgspec.Struct):
    path: Path
    venues: set[str]
    first_ns: int
    last_ns: int
    frames: int


class RecordedExchanges:
    """The recorded venues as servers; the interface of ``SimExchanges``."""

    def __init__(self, config: RecordedConfig) -> None:
        if not config.files:
            raise BadConfig("recording", "no file is named", "Name at least one recording.")
        if config.speed <= 0:
            raise BadConfig("recording.speed", "must be above 0", "1 is real time.")
        self.config = config
        self.plan = FaultPlan()
        self._upbit = recorded_upbit.RecordedSource(
            lambda: self._now_ms("upbit"), lambda: self._note("upbit")
        )
        self._spot = recorded_binance.RecordedSource(
            "binance_spot",
            lambda: self._now_ms("binance_spot"),
            lambda: self._note("binance_spot"),
        )
        self._usdm = recorded_binance.RecordedSource(
            "binance_usdm",
            lambda: self._now_ms("binance_usdm"),
            lambda: self._note("binance_usdm"),
        )
        self.upbit = UpbitServer(self._upbit, self.plan, UPBIT_LIMITS)
        self.spot = BinanceServer(self._spot, self.plan, SPOT_LIMITS)
        self.usdm = BinanceServer(self._usdm, self.plan, USDM_LIMITS)
        ports = (config.upbit_port, config.binance_spot_port, config.binance_usdm_port)
        self._doors = Doors(config.host, ports, config.control_token)
        self._files: list[_File] = []
        self._subscribed: set[str] = set()
        self._first_subscribed = asyncio.Event()
        self._all_subscribed = asyncio.Event()
        self._started_s: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.finished = asyncio.Event()
        self.played = 0
        self.behind_s_max = 0.0
        self.urls: SimUrls | None = None

    @property
    def symbols(self) -> dict[str, tuple[str, ...]]:
        """The venues' symbols with recorded frames; known after ``start``."""
        return {
            "upbit": self._upbit.symbols,
            "binance_spot": self._spot.symbols,
            "binance_usdm": self._usdm.symbols,
        }

    @property
    def seconds(self) -> float:
        """How long the longest file plays, s of recorded time."""
        return max((one.last_ns - one.first_ns) / 1e9 for one in self._files)

    async def start(self) -> SimUrls:
        """
        Read the files once through, then listen.

        Raises:
            BadInput: A file is missing, empty or damaged, or names an unknown venue.
            BadConfig: A port is occupied.
        """
        for name in self.config.files:
            self._files.append(await asyncio.to_thread(self._scan, Path(name)))
        routes = (self.upbit.routes(), self.spot.routes(), self.usdm.routes())
        self.urls = await self._doors.open(routes, self.inject, self.status)
        self._tasks = [
            asyncio.create_task(self._play(), name="recorded exchanges"),
            asyncio.create_task(self._keep_alive(), name="recorded exchanges' pings"),
        ]
        return self.urls

    async def stop(self) -> None:
        """Close every connection and every port."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for server in (self.upbit, self.spot, self.usdm):
            for client in list(server.clients):
                client.abort()
        await self._doors.close()

    async def failed(self) -> None:
        """Wait until serving fails, which a damaged file or a bug makes it do, and raise that."""
        assert self._tasks, "start first"
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    def inject(self, fault: Fault) -> None:
        """
        Cut connections; a recording can do nothing else on request.

        Raises:
            BadInput: Another kind was asked for.
        """
        if fault.kind not in AT_ONCE or fault.symbol:
            raise BadInput("fault.kind", "a recording only knows disconnect", "Use source sim.")
        for name, server in self._servers():
            if fault.venue in ("", name):
                for client in list(server.clients):
                    client.abort()

    def status(self) -> dict[str, Any]:
        """Return what is played and how far."""
        return {
            "files": [one.path.name for one in self._files],
            "symbols": self.symbols,
            "speed": self.config.speed,
            "played": self.played,
            "frames": sum(one.frames for one in self._files),
            "is_started": self._started_s is not None,
            "is_finished": self.finished.is_set(),
            "behind_s_max": round(self.behind_s_max, 3),
            "venues": {
                name: {"clients": len(server.clients), **msgspec.to_builtins(server.counters)}
                for name, server in self._servers()
            },
        }

    def _servers(self) -> list[tuple[str, UpbitServer | BinanceServer]]:
        return [
            ("upbit", self.upbit),
            ("binance_spot", self.spot),
            ("binance_usdm", self.usdm),
        ]

    def _scan(self, path: Path) -> _File:
        found = _File(path, set(), 0, 0, 0)
        with contextlib.closing(read_recording(path)) as frames:
            for frame in frames:
                if frame.venue not in VENUES:
                    raise BadInput(
                        f"{path}:{found.frames + 1}",
                        f"{frame.venue!r} is no venue",
                        f"Venues are {', '.join(VENUES)}.",
                    )
                found.venues.add(frame.venue)
                found.first_ns = found.first_ns or frame.recv_ns
                found.last_ns = frame.recv_ns
                found.frames += 1
                self._source(frame.venue).scan(frame)
        if not found.frames:
            raise BadInput(str(path), "the recording is empty", "Name another file.")
        return found

    def _source(
        self, venue: str
    ) -> recorded_upbit.RecordedSource | recorded_binance.RecordedSource:
        if venue == "upbit":
            return self._upbit
        return self._spot if venue == "binance_spot" else self._usdm

    def _note(self, venue: str) -> None:
        self._subscribed.add(venue)
        self._first_subscribed.set()
        if self._subscribed >= set().union(*(one.venues for one in self._files)):
            self._all_subscribed.set()

    def _now_ms(self, venue: str) -> int:
        """Return the recorder's clock at this moment of the venue's first file."""
        first = next((one.first_ns for one in self._files if venue in one.venues), 0)
        return (first + round(self._elapsed_s() * 1e9)) // 1_000_000

    def _elapsed_s(self) -> float:
        """Return how much recorded time has passed."""
        if self._started_s is None:
            return 0.0
        return (asyncio.get_running_loop().time() - self._started_s) * self.config.speed

    async def _play(self) -> None:
        await self._first_subscribed.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_subscribed.wait(), self.config.start_grace_s)
        self._started_s = asyncio.get_running_loop().time()
        merged = heapq.merge(*(_timed(one) for one in self._files), key=lambda pair: pair[0])
        for at_ns, frame in merged:
            ahead_s = (at_ns / 1e9 - self._elapsed_s()) / self.config.speed
            if ahead_s > SLEEP_S_MIN:
                await asyncio.sleep(ahead_s)
            elif self.played % FRAMES_PER_TURN == 0:
                self.behind_s_max = max(self.behind_s_max, -ahead_s)
                await asyncio.sleep(0)
            self.played += 1
            if frame.venue == "upbit":
                await self._upbit.play(self.upbit, frame)
            elif frame.venue == "binance_spot":
                await self._spot.play(self.spot, frame)
            else:
                await self._usdm.play(self.usdm, frame)
        self.finished.set()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now_s = asyncio.get_running_loop().time()
            for _, server in self._servers():
                await server.keep_alive(now_s)


def _timed(one: _File) -> Iterator[tuple[int, RecordedFrame]]:
    """Yield a file's frames with their time since its first one, ns."""
    with contextlib.closing(read_recording(one.path)) as frames:
        for frame in frames:
            yield frame.recv_ns - one.first_ns, frame
