"""
What waits for one host while a call to it is in flight: the newest book per instrument.

Ticks are never queued. A newer update overwrites the waiting one in its place, so no
instrument overtakes another and none starves; what was overwritten is counted. The mailbox
holds at most one update an instrument, and instruments its target did not ask for not at all.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from arb_ray.domain.board import line_of
from arb_ray.domain.book import (
    SCHEMA,
    BookUpdate,
    ConnectionAlive,
    FundingUpdate,
    TickBatch,
)
from arb_ray.domain.instrument import InstrumentId

UPDATE_BYTES = 120
"""Packed size of an update without levels, rounded up."""

LEVEL_BYTES = 20
"""Packed size of a level: two float64 and their headers, rounded up."""

MAX_CUTS = 256
"""Cuts not yet delivered to a target that does not answer; past it the oldest is forgotten."""


class MailboxCounts(msgspec.Struct):
    """
    What became of the updates that were offered.

    ``offered == delivered + conflated + (waiting) + (in flight)`` holds at every moment.
    """

    offered: int = 0
    delivered: int = 0
    conflated: int = 0  # overwritten, or overtaken by a newer one
    unwanted: int = 0  # not of this target; not part of ``offered``
    batches: int = 0
    heartbeats: int = 0  # batches without an update
    failed: int = 0  # batches whose call did not succeed


class _Waiting(msgspec.Struct, frozen=True):
    """An update, its connection's number on the wire, and when its ``age_ns`` was true."""

    update: BookUpdate
    line: int
    offered_mono_ns: int


class TickMailbox:
    """
    Newest wins, towards one target, one call in flight.

    Args:
        heartbeat_ns: An empty batch goes out when nothing else did for this long: it keeps
            quiet books fresh, so it must be well below the freshness limits.
        max_updates: Most updates in one batch; the rest goes with the next call.
        max_batch_bytes: Bound on a batch's estimated size; one update always fits.
    """

    def __init__(
        self,
        *,
        feed: str,
        feed_epoch: int,
        node: str,
        instruments: Iterable[InstrumentId],
        heartbeat_ns: int,
        max_updates: int = 256,
        max_batch_bytes: int = 1_000_000,
    ) -> None:
        assert heartbeat_ns > 0
        assert max_updates > 0
        self.counts = MailboxCounts()
        self._feed, self._feed_epoch, self._node = feed, feed_epoch, node
        self._instruments = frozenset(instruments)
        self._heartbeat_ns = heartbeat_ns
        self._max_updates = max_updates
        self._max_batch_bytes = max_batch_bytes
        self._waiting: dict[InstrumentId, _Waiting] = {}
        self._funding: dict[InstrumentId, FundingUpdate] = {}
        self._newest_seq: dict[InstrumentId, int] = {}
        self._lines: dict[int, int] = {}  # wire number -> when it last proved alive
        self._cut: dict[int, int] = {}  # wire number -> when it last had proved alive
        self._lives: dict[int, int] = {}  # connection -> how often it was cut
        self._clock = (0.0, 0.0)
        self._in_flight: tuple[_Waiting, ...] | None = None
        self._in_flight_batch: TickBatch | None = None
        self._sent_mono_ns: int | None = None

    @property
    def is_in_flight(self) -> bool:
        """Tell whether a batch was taken and not yet answered for."""
        return self._in_flight is not None

    @property
    def waiting(self) -> int:
        """Return how many updates wait; never more than the instruments."""
        return len(self._waiting)

    def retarget(self, instruments: Iterable[InstrumentId]) -> None:
        """Serve other instruments from now on; what waits for one that left is conflated."""
        self._instruments = frozenset(instruments)
        for instrument in [i for i in self._waiting if i not in self._instruments]:
            del self._waiting[instrument]
            self.counts.conflated += 1
        for known in (self._funding, self._newest_seq):
            for instrument in [i for i in known if i not in self._instruments]:
                del known[instrument]

    def offer(self, update: BookUpdate, now_mono_ns: int) -> None:
        """Leave an update whose ``age_ns`` is true now; it overwrites an older one."""
        if update.instrument not in self._instruments:
            self.counts.unwanted += 1
            return
        assert update.feed_epoch == self._feed_epoch, "a mailbox belongs to one feed's process"
        self.counts.offered += 1
        if update.seq <= self._newest_seq.get(update.instrument, -1):
            self.counts.conflated += 1  # overtaken on the way here
            return
        self._newest_seq[update.instrument] = update.seq
        if update.instrument in self._waiting:
            self.counts.conflated += 1
        self._waiting[update.instrument] = _Waiting(
            update, self._line(update.connection), now_mono_ns
        )

    def offer_funding(self, funding: FundingUpdate) -> None:
        """Leave a funding update; it overwrites the waiting one and waits for a heartbeat."""
        if funding.instrument in self._instruments:
            self._funding[funding.instrument] = funding

    def set_alive(self, connection: int, alive_mono_ns: int, *, is_up: bool) -> None:
        """Report when a connection last proved alive; a cut is sent at once, and once."""
        line = self._line(connection)
        if is_up:
            self._lines[line] = alive_mono_ns
        elif self._lines.pop(line, None) is not None:
            self._lives[connection] = self._lives.get(connection, 0) + 1
            self._cut[line] = alive_mono_ns
            if len(self._cut) > MAX_CUTS:
                del self._cut[next(iter(self._cut))]

    def _line(self, connection: int) -> int:
        return line_of(connection, self._lives.get(connection, 0))

    def set_clock(self, offset_ms: float, skew_ms: float) -> None:
        """Report the venue clock's estimated offset from ours, and its uncertainty."""
        self._clock = (offset_ms, skew_ms)

    def take(self, now_mono_ns: int) -> TickBatch | None:
        """
        Return what to send now; None while a call is in flight or when nothing is due.

        The caller must answer with ``answered`` before the next batch is given out.
        """
        if self._in_flight is not None or not self._is_due(now_mono_ns):
            return None
        taken = self._pop_batch()
        alive = tuple(
            ConnectionAlive(line, max(0, now_mono_ns - alive_mono_ns), is_up)
            for lines, is_up in ((self._cut, False), (self._lines, True))
            for line, alive_mono_ns in lines.items()
        )
        batch = TickBatch(
            SCHEMA,
            self._feed,
            self._feed_epoch,
            self._node,
            now_mono_ns,
            *self._clock,
            alive,
            tuple(_aged(waiting, now_mono_ns) for waiting in taken),
            tuple(self._funding.values()),
        )
        self._in_flight, self._in_flight_batch = taken, batch
        self._sent_mono_ns = now_mono_ns
        self._funding.clear()
        self.counts.batches += 1
        self.counts.heartbeats += not taken
        return batch

    def answered(self, *, is_delivered: bool) -> None:
        """
        End the call in flight.

        When it failed, its updates wait again, unless a newer one came meanwhile; the target
        may have taken them in all the same, and drops what it has.
        """
        taken, batch = self._in_flight, self._in_flight_batch
        assert taken is not None, "nothing is in flight"
        assert batch is not None
        self._in_flight = self._in_flight_batch = None
        if is_delivered:
            self.counts.delivered += len(taken)
            for alive in batch.alive:
                if not alive.is_up:
                    self._cut.pop(alive.connection, None)
            return
        self.counts.failed += 1
        for waiting in taken:
            instrument = waiting.update.instrument
            if instrument in self._waiting or instrument not in self._instruments:
                self.counts.conflated += 1
            else:
                self._waiting[instrument] = waiting
        for funding in batch.funding:
            if funding.instrument in self._instruments:
                self._funding.setdefault(funding.instrument, funding)

    def _is_due(self, now_mono_ns: int) -> bool:
        if self._waiting or self._cut or self._sent_mono_ns is None:
            return True
        return now_mono_ns - self._sent_mono_ns >= self._heartbeat_ns

    def _pop_batch(self) -> tuple[_Waiting, ...]:
        taken: list[_Waiting] = []
        size_bytes = 0
        for waiting in self._waiting.values():
            size_bytes += _packed_bytes(waiting.update)
            if taken and (len(taken) == self._max_updates or size_bytes > self._max_batch_bytes):
                break
            taken.append(waiting)
        for waiting in taken:
            del self._waiting[waiting.update.instrument]
        return tuple(taken)


def _packed_bytes(update: BookUpdate) -> int:
    return UPDATE_BYTES + LEVEL_BYTES * (len(update.bids) + len(update.asks))


def _aged(waiting: _Waiting, now_mono_ns: int) -> BookUpdate:
    update = waiting.update
    return BookUpdate(
        update.instrument,
        update.feed_epoch,
        update.seq,
        waiting.line,
        update.recv_ns,
        update.exchange_ns,
        update.age_ns + now_mono_ns - waiting.offered_mono_ns,
        update.bids,
        update.asks,
    )
