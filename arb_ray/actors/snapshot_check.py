"""
Snapshots read back and checked while there is still time to mend what damages them.

A snapshot that nobody reads before it is needed is a hope. So the newest of the session and
of the guard are read every minute, the session's by the judge of the next start, the guard's by the
store's own check of checksum and shape. What anybody found damaged lies in quarantine, a start's
finds too, and is told of from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from arb_ray.domain.errors import OutcomeUnknown, StoreUnavailable
from arb_ray.engine.session_snapshot import Expected, damage
from arb_ray.ports import Clock, Metrics, SnapshotStore

CHECK_INTERVAL_S = 60.0

LOOK_BACK_NS = 15 * 60 * 10**9
"""So far back what a start has found is told of: it has no metrics of its own."""


class SnapshotCheck:
    """Reads the newest snapshots of one session; counts and tells of damaged ones."""

    def __init__(
        self, store: SnapshotStore, session_id: str, clock: Clock, metrics: Metrics, log: Any
    ) -> None:
        self._store = store
        self._session_id = session_id
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._told_ns = clock.now_ns() - LOOK_BACK_NS

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_INTERVAL_S)

    async def check(self) -> None:
        """Check once; a store that is away is told of by whoever writes to it."""
        try:
            await self._store.newest("session_snapshots", self._session_id, "", self._damage)
            await self._store.newest("risk_guard_snapshots", self._session_id, "", _none)
            found = await self._store.quarantined(self._told_ns)
        except (StoreUnavailable, OutcomeUnknown):
            return
        for one in found:
            self._told_ns = one.found_ns
            self._metrics.inc("snapshots_corrupt")
            self._log.error("snapshots_corrupt", table=one.table, at_ns=one.at_ns, cause=one.reason)

    def _damage(self, payload: Mapping[str, Any], at_ns: int) -> str:
        # Whether its market and age would be of use is for a start to ask, and no damage.
        expected = Expected(self._session_id, "", self._clock.now_ns(), 0)
        return damage(payload, at_ns, expected)


def _none(_payload: Mapping[str, Any], _at_ns: int) -> str:
    """A guard that has not answered yet leaves an empty one."""
    return ""
