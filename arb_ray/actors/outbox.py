"""A producer's side of Persistence: a bounded buffer, one call in flight, oldest rows dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from arb_ray.actors.wire import pack
from arb_ray.domain.errors import ArbError
from arb_ray.ports import Metrics, Snapshot

ROWS_MAX = 5_000
"""At about 300 bytes a row this is 1.5 MB; what is dropped beyond it is counted."""

FLUSH_INTERVAL_S = 1.0


class Outbox:
    """Implements ``SnapshotSink`` over calls to the persistence actor."""

    def __init__(self, send: Callable[[str, bytes], Awaitable[object]], metrics: Metrics) -> None:
        self._send = send
        self._metrics = metrics
        self._rows: deque[Snapshot] = deque(maxlen=ROWS_MAX)
        self._states: dict[str, bytes] = {}
        self._sending = asyncio.Lock()

    def put(self, row: Snapshot) -> None:
        """Leave a row; at the bound the oldest goes and is counted."""
        if len(self._rows) == ROWS_MAX:
            self._metrics.inc("snapshots_dropped")
        self._rows.append(row)

    def put_state(self, category: str, payload: bytes) -> None:
        """Leave the newest state of a category."""
        self._states[category] = payload

    async def run(self) -> None:
        """Send what is here, again and again. Rows whose call failed are kept."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Send what is here now; what could not be sent waits for the next time."""
        async with self._sending:
            rows = list(self._rows)
            self._rows.clear()
            states, self._states = self._states, {}
            try:
                if rows:
                    await self._send("put", pack(rows))
                    rows = []
                if states:
                    await self._send("put_states", pack(states))
                    states = {}
            except ArbError:
                pass  # Persistence is starting again; what was not taken is kept below
            finally:
                # Also when cancelled. A call may have arrived all the same: a statistic sent
                # twice does no harm, a lost one might.
                self._keep(rows, states)

    def _keep(self, rows: list[Snapshot], states: dict[str, bytes]) -> None:
        self._states = {**states, **self._states}
        room = ROWS_MAX - len(self._rows)
        lost = max(0, len(rows) - room)
        if lost:
            self._metrics.inc("snapshots_dropped", lost)
        self._rows.extendleft(reversed(rows[lost:]))
