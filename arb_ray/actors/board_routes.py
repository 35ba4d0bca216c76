"""
From one feed to the hosts of its own node: books lie in shared memory, and sleepers are rung.

What one turn of the event loop brings is rung for once, at the end of that turn, or as soon as
the first of it has lain there for long enough that hosts had better begin beside the feed. Who was
awake then is looked at again a few ms later, in case it fell asleep over it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

from arb_ray.domain.board import BoardBook, LinePulse, Pulse, line_of
from arb_ray.domain.book import BookUpdate, ConnectionAlive, FundingUpdate
from arb_ray.domain.instrument import InstrumentId
from arb_ray.engine.clock_offset import ClockEstimate
from arb_ray.ports import BookBoard, Clock

MISSED_S = 0.004
"""After so long hosts that were not rung, because they were awake, are looked at again."""

RING_AFTER_NS = 200_000
"""How long the first unrung book of a long turn waits: about what a host spends on its own wake-up
and first look. Sooner costs wake-ups, later leaves the other cores idle in a burst."""


class BoardRoutes:
    """The hosts that are served through a board, and what lies on it."""

    def __init__(
        self,
        board: BookBoard,
        *,
        feed: str,
        epoch: int,
        clock: Clock,
        alive: Callable[[int], Iterable[ConnectionAlive]],
        clock_estimate: Callable[[], ClockEstimate],
        fail: Callable[[str, BaseException], None],
    ) -> None:
        self._fail = fail
        self._board = board
        self._feed, self._epoch = feed, epoch
        self._clock = clock
        self._alive = alive
        self._clock_estimate = clock_estimate
        self._hosts: dict[str, frozenset[InstrumentId]] = {}
        self._by_instrument: dict[InstrumentId, frozenset[str]] = {}
        self._lives: dict[int, int] = {}  # connection -> how often it was cut
        self._up: set[int] = set()
        self._due: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_due = False
        self._due_since_ns = 0
        self.sent = 0
        self.pulse()

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that are served here."""
        return frozenset(self._hosts)

    def reach(self, host: str) -> str:
        """Return why a host cannot be served here, or nothing when it can."""
        return self._board.reach(host)

    def serve(self, host: str, instruments: frozenset[InstrumentId]) -> frozenset[InstrumentId]:
        """Serve a host that was reached; return what did not lie here for anybody before."""
        new = instruments - self._by_instrument.keys()
        if self._hosts.get(host) != instruments:
            self._hosts[host] = instruments
            self._index()
        self._ring_soon(frozenset({host}))
        return new

    def leave(self, host: str) -> None:
        """Serve a host no more."""
        if self._hosts.pop(host, None) is not None:
            self._board.leave(host)
            self._due.discard(host)
            self._index()

    def offer(self, update: BookUpdate, now_mono_ns: int) -> None:
        """Put an update, whose ``age_ns`` is true now, where every host sees it."""
        hosts = self._by_instrument.get(update.instrument)
        if hosts is None:
            return
        connection = update.connection
        self._up.add(connection)
        self._board.put_book(
            update.instrument,
            BoardBook(
                update.seq,
                line_of(connection, self._lives.get(connection, 0)),
                update.recv_ns,
                update.exchange_ns,
                now_mono_ns - update.age_ns,
                update.bids,
                update.asks,
            ),
        )
        self.sent += len(hosts)
        if not self._due:
            self._due_since_ns = now_mono_ns
        self._ring_soon(hosts)
        if now_mono_ns - self._due_since_ns > RING_AFTER_NS:
            self._ring_due()

    def offer_funding(self, update: FundingUpdate) -> None:
        """Put funding where every host sees it; nobody is woken for it."""
        if update.instrument in self._by_instrument:
            self._board.put_funding(update)

    def pulse(self) -> None:
        """Tell which connections live and what the venue's clock is; nobody is woken for it."""
        now_ns = self._clock.mono_ns()
        lines = []
        for one in self._alive(now_ns):
            connection = one.connection
            if one.is_up:
                self._up.add(connection)
            elif connection in self._up:
                self._up.discard(connection)
                self._lives[connection] = self._lives.get(connection, 0) + 1
            life = self._lives.get(connection, 0)
            lines.append(LinePulse(connection, life, now_ns - one.age_ns, one.is_up))
        estimate = self._clock_estimate()
        # A venue whose streams carry no stamp has no known offset, and no doubt about it.
        skew_ms = estimate.uncertainty_ms if math.isfinite(estimate.uncertainty_ms) else 0.0
        self._board.put_pulse(
            Pulse(self._feed, self._epoch, estimate.offset_ms, skew_ms, tuple(lines))
        )

    def hurry(self) -> None:
        """Tell of a cut, and wake everybody for it."""
        self.pulse()
        self._ring_soon(frozenset(self._hosts))

    def stop(self) -> None:
        """Take the board away."""
        if self._timer is not None:
            self._timer.cancel()
        self._hosts.clear()
        self._due.clear()
        self._board.close()

    def _index(self) -> None:
        wanted: dict[InstrumentId, frozenset[str]] = {}
        for host, instruments in self._hosts.items():
            for instrument in instruments:
                wanted[instrument] = wanted.get(instrument, frozenset()) | {host}
        self._by_instrument = wanted

    def _ring_soon(self, hosts: frozenset[str]) -> None:
        self._due |= hosts
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._ring)

    def _ring(self) -> None:
        self._is_due = False
        self._ring_due()

    def _ring_due(self) -> None:
        due, self._due = self._due, set()
        try:
            if due and self._board.ring(due, self._clock.mono_ns()):
                self._look_again()
        except Exception as error:
            # A bug of ours: it ends this process like a loop's would.
            self._fail("plane", error)
            raise

    def _look_again(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MISSED_S, self._ring_missed)

    def _ring_missed(self) -> None:
        self._timer = None
        if self._hosts and self._board.ring_missed(self._clock.mono_ns()):
            self._look_again()
