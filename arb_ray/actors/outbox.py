"""
A producer's side of Persistence: a bounded buffer with one call in flight.

Persistence answers whether it is pressed. While it is, rows wait longer here, and of the
statistics only the newest of each table and symbol is sent: less detail instead of a longer
queue. Events stay, each of them. The journal and the ledger never pass through here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from arb_ray.actors.wire import pack
from arb_ray.domain.errors import ArbError
from arb_ray.ports import Metrics, Snapshot

ROWS_MAX = 5_000
"""At about 500 bytes a row this is 2.5 MB; what is dropped beyond it is counted."""

FLUSH_INTERVAL_S = 1.0

PRESSED_INTERVAL_S = 15.0
"""While Persistence is pressed. Longer than producers take between two statistics."""


class Outbox:
    """Implements ``SnapshotSink`` over calls to the persistence actor."""

    def __init__(self, send: Callable[[str, bytes], Awaitable[object]], metrics: Metrics) -> None:
        self._send = send
        self._metrics = metrics
        self._rows: deque[Snapshot] = deque()
        self._states: dict[str, bytes] = {}
        self._sending = asyncio.Lock()
        self.is_pressed = False

    def put(self, row: Snapshot) -> None:
        """Leave a row; at the bound statistics are conflated, then the oldest row goes."""
        if len(self._rows) >= ROWS_MAX:
            self._conflate()
        if len(self._rows) >= ROWS_MAX:
            self._drop_oldest()
        self._rows.append(row.encoded())

    def put_state(self, category: str, payload: bytes) -> None:
        """Leave the newest state of a category."""
        self._states[category] = payload

    async def run(self) -> None:
        """Send what is here, again and again. Rows whose call failed are kept."""
        while True:
            await asyncio.sleep(PRESSED_INTERVAL_S if self.is_pressed else FLUSH_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Send what is here now; what could not be sent waits for the next time."""
        async with self._sending:
            if self.is_pressed:
                self._conflate()
            rows = list(self._rows)
            self._rows.clear()
            states, self._states = self._states, {}
            try:
                if rows:
                    # A Persistence of before answers nothing, and is never pressed.
                    self.is_pressed = bool(await self._send("put", pack(rows)))
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

    def _conflate(self) -> None:
        """Keep the newest statistic of each table and symbol, and every event."""
        newest = {_about(row): row for row in self._rows if not row.is_event}
        kept = [row for row in self._rows if row.is_event or newest[_about(row)] is row]
        if lost := len(self._rows) - len(kept):
            self._metrics.inc("snapshots_conflated", lost)
            self._rows = deque(kept)

    def _drop_oldest(self) -> None:
        oldest = next((row for row in self._rows if not row.is_event), self._rows[0])
        self._rows.remove(oldest)
        self._metrics.inc("snapshots_dropped")

    def _keep(self, rows: list[Snapshot], states: dict[str, bytes]) -> None:
        self._states = {**states, **self._states}
        self._rows.extendleft(reversed(rows))
        if len(self._rows) > ROWS_MAX:
            self._conflate()
        while len(self._rows) > ROWS_MAX:
            self._drop_oldest()


def _about(row: Snapshot) -> tuple[str, str, str]:
    return row.table, row.session_id, row.symbol
