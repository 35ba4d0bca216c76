"""
Snapshots read back and checked while there is still time to mend what damages them.

A snapshot that nobody reads before it is needed is a hope. So the newest of the session and
of the guard are read every minute, with the store's own check: checksum, shape, keys.
"""

from __future__ import annotations

import asyncio
from types import MappingProxyType
from typing import Any

from arb_ray.domain.errors import StoreUnavailable
from arb_ray.ports import Metrics, SnapshotStore

CHECK_INTERVAL_S = 60.0

REQUIRED = MappingProxyType(
    {
        "session_snapshots": ("session_id", "topology", "trades_opened", "trades_closed"),
        "risk_guard_snapshots": (),  # empty while the guard has not answered yet
    }
)


class SnapshotCheck:
    """Reads the newest snapshots of one session; counts and tells of damaged ones."""

    def __init__(self, store: SnapshotStore, session_id: str, metrics: Metrics, log: Any) -> None:
        self._store = store
        self._session_id = session_id
        self._metrics = metrics
        self._log = log
        self._told = 0

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self.check()

    async def check(self) -> None:
        """Check once; a store that is away is told of by whoever writes to it."""
        for table, required in REQUIRED.items():
            try:
                await self._store.latest(table, self._session_id, required=required)
            except StoreUnavailable:
                return
            found = self._store.corrupt_skipped - self._told
            if found:
                self._told += found
                self._metrics.inc("snapshots_corrupt", found)
                self._log.error("snapshots_corrupt", table=table, rows=found)
