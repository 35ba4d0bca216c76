"""
The session's current state on its way to Redis: written, pinged, and told of when it falls back.

Whether memory stands in for Redis the store decides (``StateStore.fallback_cause``); this keeps
the pace and tells the log and the gauge.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from arb_ray.domain.errors import ArbError
from arb_ray.ports import Metrics, StateStore


class StateWriter:
    """Writes the newest state of each category every ``state_interval_s``."""

    def __init__(
        self,
        store: StateStore,
        session_id: str,
        metrics: Metrics,
        log: Any,
        *,
        state_interval_s: float,
        ping_interval_s: float,
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._metrics = metrics
        self._log = log
        self._state_interval_s = state_interval_s
        self._ping_interval_s = ping_interval_s
        self._states: dict[str, bytes] = {}
        self._changed_s = 0.0
        self.is_up = True
        self.round_trip_ms = 0.0

    def put(self, states: Mapping[str, bytes]) -> None:
        """Take documents by category; only the newest of each matters."""
        self._states.update(states)

    async def run(self) -> None:
        """Write until cancelled."""
        ping_due_s = 0.0
        while True:
            await asyncio.sleep(self._state_interval_s)
            now_s = asyncio.get_running_loop().time()
            if now_s >= ping_due_s:
                ping_due_s = now_s + self._ping_interval_s
                # What a failure means the store judges, by those before it.
                with contextlib.suppress(ArbError):
                    await self._ping()
            if self._states:
                with contextlib.suppress(ArbError):
                    await self._store.put_state(self._session_id, dict(self._states))
            self._tell(self._store.fallback_cause)

    async def close(self) -> None:
        """Give the connections back."""
        await self._store.close()

    async def _ping(self) -> None:
        self.round_trip_ms = await self._store.ping_ms()
        self._metrics.set("redis_round_trip_ms", self.round_trip_ms)

    def _tell(self, cause: str) -> None:
        is_up = not cause
        now_s = asyncio.get_running_loop().time()
        if is_up != self.is_up:
            away_s = round(now_s - self._changed_s, 3) if is_up else 0.0
            self._log.warning("redis_state", is_up=is_up, cause=cause, away_s=away_s)
            self._changed_s = now_s
        self.is_up = is_up
        self._metrics.set("redis_fallback", 0.0 if is_up else 1.0)
