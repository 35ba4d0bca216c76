"""The source actor: embedded exchanges, simulated or recorded, served on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from arb_ray.actors.hosting import Loops


class EmbeddedExchange(Protocol):
    """Servers that speak the venues' protocols over real sockets."""

    async def stop(self) -> None:
        """Close the servers."""
        ...

    def status(self) -> dict[str, Any]:
        """Return counts for people."""
        ...


class Source:
    """Keeps the embedded exchanges up for as long as the actor lives."""

    def __init__(
        self,
        serve: Callable[[], Awaitable[EmbeddedExchange]],
        log: Any,
        loops: Loops | None = None,
    ) -> None:
        self._serve = serve
        self._log = log
        self._loops = loops or Loops()
        self._exchange: EmbeddedExchange | None = None

    def start(self) -> None:
        """Start the servers; a failure ends the process, and Ray tries again."""
        self._loops.start("serve", self._run())

    async def _run(self) -> None:
        self._exchange = await self._serve()
        self._log.info("source_serving", **self._exchange.status())
        await asyncio.Event().wait()

    async def status(self) -> dict[str, Any]:
        """Return whether the servers are up, and their counts."""
        if self._exchange is None:
            return {"ready": False}
        return {"ready": True, **self._exchange.status()}

    async def stop(self) -> None:
        """Close the servers."""
        await self._loops.stop()
        if self._exchange is not None:
            await self._exchange.stop()
