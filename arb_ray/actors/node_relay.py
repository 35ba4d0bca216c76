"""
What another node's feed sends to this node, laid on a board here for all of its hosts.

One of the node's hosts does this beside its own work: the feed calls one that it found there
(``relay_routes.py``), and another one when that ends. So a node costs a feed one packed call at a
time, however many hosts live on it, and no process is there for this alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from arb_ray.domain.board import LINES_PER_LIFE, BoardBook, LinePulse, Pulse
from arb_ray.domain.book import SCHEMA, ConnectionAlive, TickBatch
from arb_ray.domain.errors import PlaneUnavailable
from arb_ray.engine.market_view import transit_ns
from arb_ray.ports import BookBoard, Clock

MISSED_S = 0.004
LOOK_S = 1.0
"""How often the relay looks which hosts there are to be rung."""

QUIET_NS = 60 * 10**9
"""A feed that has sent nothing for so long has ended; its board is taken away."""


class _FeedBoard(msgspec.Struct, eq=False):
    """One feed's board here, and what is known of its connections."""

    epoch: int
    board: BookBoard
    lines: dict[int, LinePulse] = {}
    taken_mono_ns: int = 0
    looked_mono_ns: int = 0
    hosts: tuple[str, ...] = ()


class NodeRelay:
    """
    Lays batches of feeds elsewhere on boards of this node.

    Args:
        make_board: Makes a board for a feed and its epoch. Raises PlaneUnavailable.
        neighbours: The hosts that can be rung on this node.
        transit_allowance_ns: Added to every age that comes from another node.
    """

    def __init__(
        self,
        *,
        node: str,
        clock: Clock,
        make_board: Callable[[str, int], BookBoard],
        neighbours: Callable[[], Sequence[str]],
        transit_allowance_ns: int,
    ) -> None:
        self._node = node
        self._clock = clock
        self._make_board = make_board
        self._neighbours = neighbours
        self._transit_allowance_ns = transit_allowance_ns
        self._feeds: dict[str, _FeedBoard] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.batches = 0

    @property
    def feeds(self) -> int:
        """How many feeds are relayed."""
        return len(self._feeds)

    def take(self, batch: TickBatch) -> bool:
        """Lay a batch on its feed's board; tell whether that could be done."""
        now_ns = self._clock.mono_ns()
        if batch.schema != SCHEMA:
            return False
        feed = self._feed(batch)
        if feed is None:
            return False
        if batch.feed_epoch < feed.epoch:
            return True  # of a former process: there is nothing to do with it
        self.batches += 1
        feed.taken_mono_ns = now_ns
        transit = transit_ns(batch, now_ns, self._node, self._transit_allowance_ns)
        sent_mono_ns = now_ns - transit
        self._put_pulse(feed, batch, sent_mono_ns)
        for update in batch.updates:
            feed.board.put_book(
                update.instrument,
                BoardBook(
                    update.seq,
                    update.connection,
                    update.recv_ns,
                    update.exchange_ns,
                    sent_mono_ns - update.age_ns,
                    update.bids,
                    update.asks,
                ),
            )
        for funding in batch.funding:
            feed.board.put_funding(funding)
        self._ring(feed, now_ns)
        return True

    def stop(self) -> None:
        """Take the boards away."""
        if self._timer is not None:
            self._timer.cancel()
        for feed in self._feeds.values():
            feed.board.close()
        self._feeds.clear()

    def _feed(self, batch: TickBatch) -> _FeedBoard | None:
        feed = self._feeds.get(batch.feed)
        if feed is not None and batch.feed_epoch <= feed.epoch:
            return feed
        if feed is not None:
            del self._feeds[batch.feed]
            feed.board.close()
        self._end_quiet_ones()
        try:
            board = self._make_board(batch.feed, batch.feed_epoch)
        except PlaneUnavailable:
            return None
        feed = self._feeds[batch.feed] = _FeedBoard(batch.feed_epoch, board)
        return feed

    def _end_quiet_ones(self) -> None:
        now_ns = self._clock.mono_ns()
        for name, feed in list(self._feeds.items()):
            if now_ns - feed.taken_mono_ns > QUIET_NS:
                del self._feeds[name]
                feed.board.close()

    def _put_pulse(self, feed: _FeedBoard, batch: TickBatch, sent_mono_ns: int) -> None:
        for alive in batch.alive:
            life, connection = divmod(alive.connection, LINES_PER_LIFE)
            _learn(feed.lines, alive, connection, life, sent_mono_ns)
        feed.board.put_pulse(
            Pulse(
                batch.feed,
                batch.feed_epoch,
                batch.clock_offset_ms,
                batch.clock_skew_ms,
                tuple(feed.lines.values()),
            )
        )

    def _ring(self, feed: _FeedBoard, now_ns: int) -> None:
        if not feed.hosts or now_ns - feed.looked_mono_ns > LOOK_S * 1e9:
            feed.looked_mono_ns = now_ns
            feed.hosts = tuple(one for one in self._neighbours() if not feed.board.reach(one))
        if feed.board.ring(feed.hosts, now_ns) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MISSED_S, self._ring_missed)

    def _ring_missed(self) -> None:
        self._timer = None
        now_ns = self._clock.mono_ns()
        is_left = [feed.board.ring_missed(now_ns) for feed in self._feeds.values()]
        if any(is_left):
            self._timer = asyncio.get_running_loop().call_later(MISSED_S, self._ring_missed)


def _learn(
    lines: dict[int, LinePulse],
    alive: ConnectionAlive,
    connection: int,
    life: int,
    sent_mono_ns: int,
) -> None:
    known = lines.get(connection)
    if alive.is_up:
        if known is None or life >= known.life:
            at_ns = sent_mono_ns - alive.age_ns
            lines[connection] = LinePulse(connection, life, at_ns, True)
    elif known is None or life >= known.life:
        lines[connection] = LinePulse(connection, life + 1, 0, False)
