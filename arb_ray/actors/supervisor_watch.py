"""
Who watches the supervisor: Persistence does, which every run has.

The supervisor replaces everyone who is silent, Persistence among them, and nobody would replace
a supervisor that is frozen: Ray starts again what has ended, and a frozen process has not. The
Gateway watches it too, with ``SECOND_WATCH_FACTOR`` times the patience: it acts where Persistence
is frozen as well, and the new supervisor then replaces Persistence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arb_ray.actors.beside import Beside
from arb_ray.domain.errors import ArbError
from arb_ray.engine.silence import Silence
from arb_ray.ports import Clock

SECOND_WATCH_FACTOR = 3
"""A supervisor that the first watch has restarted is back long before the second one acts."""

INTERVAL_S = 0.25
PATIENCE_S = 0.25
"""A turn waits so long for an answer; a later one counts at the next."""

PING_TIMEOUT_S = 2.0

MOMENT_S = 0.02
"""Given to an answer even when the time is over."""

BIRTH_TIMEOUT_S = 90.0
"""Before the first answer of a process: processes start slowly."""


class SupervisorWatch:
    """
    Pings; after the health time-out without an answer, has Ray end the process and start it again.

    ``ping`` tells whether the supervisor answered; ``restart`` ends its process.
    """

    def __init__(
        self,
        *,
        name: str,
        ping: Callable[[float], Awaitable[bool]],
        restart: Callable[[], None],
        clock: Clock,
        log: Any,
        health_timeout_s: float,
    ) -> None:
        self._name = name
        self._ping = ping
        self._restart = restart
        self._clock = clock
        self._log = log
        self._health_timeout_s = health_timeout_s
        self._silence = Silence()
        self._pinging: Beside[bool] = Beside()
        self._has_answered = False

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            await self.turn()
            await asyncio.sleep(min(INTERVAL_S, self._overdue_in_s()))

    async def turn(self) -> None:
        """Keep a ping under way, and act on a silence that has lasted too long."""
        self._silence.turn(self._clock.mono_ns())
        self._silence.asked(self._name)
        self._pinging.begin(self._ping_once)
        if await self._pinging.result(min(PATIENCE_S, self._overdue_in_s())):
            self._has_answered = True
            self._silence.heard(self._name)
            return
        silent_s = self._silence.lasts_s(self._name)
        if silent_s < self._bound_s:
            return
        self._log.error("actor_replaced", actor=self._name, silent_s=silent_s)
        self._has_answered = False
        self._silence.forget(self._name)
        await self._pinging.cancel()
        try:
            self._restart()
        except ArbError as error:
            # It does not exist (an upgrade replaces it just now), so nothing of it is frozen.
            self._log.warning("supervisor_missing", actor=self._name, cause=str(error))

    @property
    def _bound_s(self) -> float:
        return self._health_timeout_s if self._has_answered else BIRTH_TIMEOUT_S

    def _overdue_in_s(self) -> float:
        """Return when the silence will have lasted too long; at least a moment from now."""
        return max(self._bound_s - self._silence.lasts_s(self._name), MOMENT_S)

    async def _ping_once(self) -> bool:
        return await self._ping(PING_TIMEOUT_S)
