"""
One run whose processes are hurt: PostgreSQL behind a proxy, the Gateway asked ten times a second.

The server is ours and not the run's, so that the wire to it can be cut and stalled, and so
that what it holds can be read while the run cannot reach it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncpg
import msgspec
import psutil

from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.app.settings import load_settings
from arb_ray.engine.status import SystemStatus
from benchmarks.recovered import Fault, births, missing_yet
from benchmarks.soak_run import WatchedRun
from tests.tcp_proxy import TcpProxy

POLL_S = 0.1
STATUS_TIMEOUT_S = 0.5
"""A Gateway that is frozen keeps the question; it is asked anew."""

Found = TypeVar("Found")


class Recovery(msgspec.Struct, frozen=True):
    """One fault and how long it took; ``steps`` says what was missing, and until when."""

    kind: str
    after_s: float | None  # None: not whole again within the patience
    steps: list[tuple[float, str]]
    gone_s: float | None = None  # after so long the process that was hurt had ended


class OwnPostgres:
    """PostgreSQL and a proxy before it, in a thread with a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._folder = folder
        self.server: EmbeddedPostgres
        self.proxy: TcpProxy

    def __enter__(self) -> Self:
        self._thread.start()
        self.server = self.run(self._stack.enter_async_context(EmbeddedPostgres(self._folder)))
        proxy = TcpProxy("127.0.0.1", self.server.port)
        self.proxy = self.run(self._stack.enter_async_context(proxy))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Awaitable[Found]) -> Found:
        """Wait for ``work`` on the thread's loop."""

        async def wait() -> Found:
            return await work

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result(timeout=60)

    def on_wire(self, act: Callable[[TcpProxy], object]) -> None:
        """Do something to the proxy, in its own loop."""

        async def do() -> None:
            act(self.proxy)

        self.run(do())

    def value(self, query: str) -> Any:
        """Ask the server itself, past the proxy."""

        async def ask() -> Any:
            connection = await asyncpg.connect(self.server.dsn)
            try:
                return await connection.fetchval(query)
            finally:
                await connection.close()

        return self.run(ask())


class HurtRun(WatchedRun):
    """A watched run, and what is done to it."""

    def __init__(self, options: tuple[str, ...], postgres: OwnPostgres) -> None:
        super().__init__(
            (
                *options,
                *("--set", "postgres.embedded=false"),
                *("--set", "postgres.host=127.0.0.1"),
                *("--set", f"postgres.port={postgres.proxy.port}"),
            ),
            environment={"ARB_POSTGRES__PASSWORD": postgres.server.password},
        )

    def health_timeout_s(self) -> float:
        """After so long without an answer a process counts as frozen, by the run's settings."""
        return load_settings("dev").topology.health_timeout_s

    def victim(self, title: str) -> psutil.Process:
        """Return the oldest process of a title such as ``ray::FeedActor``."""
        found = self.family.titled(title)
        if not found:
            raise RuntimeError(f"there is no {title} to hurt")
        return found[0]

    def is_replaced(self, victim: psutil.Process, title: str) -> bool:
        """Tell whether a younger process has the title; where the victim is gone, that answered."""
        return is_gone(victim) or any(one.pid != victim.pid for one in self.family.titled(title))

    def look(self) -> SystemStatus | None:
        """Ask for the status once."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STATUS_TIMEOUT_S)
        try:
            connection.request("GET", "/status")
            answer = connection.getresponse()
            body = answer.read()
            return msgspec.json.decode(body, type=SystemStatus) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def until_calm(self, patience_s: float) -> SystemStatus:
        """Wait until all is whole before the next fault; return that status."""
        fault = Fault(time.time_ns())
        for at_ns, status in self._looks(patience_s):
            if status is not None and not missing_yet(status, fault, at_ns):
                return status
        raise RuntimeError(f"not whole within {patience_s:g} s")

    def recovery(
        self,
        kind: str,
        fault: Fault,
        is_over: Callable[[], str],
        patience_s: float,
    ) -> Recovery:
        """Watch until all is whole; ``is_over`` adds what only the one who hurt can know."""
        steps: list[tuple[float, str]] = []
        for at_ns, status in self._looks(patience_s):
            if status is None:
                missing = "no status"
            else:
                missing = missing_yet(status, fault, at_ns) or is_over()
            now_s = (time.time_ns() - fault.at_ns) / 1e9
            if not missing:
                return Recovery(kind, now_s, steps)
            if not steps or steps[-1][1] != missing:
                steps.append((round(now_s, 2), missing))
        return Recovery(kind, None, steps)

    def _looks(self, patience_s: float) -> Iterator[tuple[int, SystemStatus | None]]:
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            self.check_alive()
            at_ns, begun_s = time.time_ns(), time.monotonic()
            yield at_ns, self.look()
            time.sleep(max(0.0, begun_s + POLL_S - time.monotonic()))


def gone_after_s(process: psutil.Process, fault: Fault, patience_s: float) -> float | None:
    """Wait for the end of a process; return how long after the fault it was, at least."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if is_gone(process):
            return (time.time_ns() - fault.at_ns) / 1e9
        time.sleep(POLL_S)
    return None


def is_gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def victims_of(status: SystemStatus, role: str) -> dict[str, int]:
    """Return the births of a role's actors; one of them is another process afterwards."""
    return {name: at for name, at in births(status).items() if name.startswith(f"{role}:")}
