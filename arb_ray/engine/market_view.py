"""
The newest book of every instrument that one host watches, and how far each can be trusted.

Two ages must not be confused. *Freshness* is how long ago the connection that carries a
book last proved alive: a quiet Upbit book may be minutes old and still right. *Time since
change* is how long its levels have stood still, and says nothing about trust. No monotonic
stamp of another machine is ever read: ages travel, and the receiver adds the transit (exact
on its own node, an allowance otherwise) and its own elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import nan

import msgspec

from arb_ray.domain.book import (
    SCHEMA,
    BookUpdate,
    FundingUpdate,
    Levels,
    TickBatch,
    book_problem,
)
from arb_ray.domain.instrument import InstrumentId, Pair, Symbol

MAX_CONNECTIONS_PER_FEED = 256
"""
Connections remembered for one feed, living and cut. Past it the living one that is silent
longest is given up (its books are stale), and the oldest cut one forgotten.
"""

NS_PER_MS = 1_000_000

FEED_GONE_NS = 5 * 10**9
"""A feed proves its connections alive twice a second; one that is silent so long has ended."""


class ViewCounts(msgspec.Struct):
    """
    What became of the updates that arrived.

    ``accepted == read + conflated + (books not read yet)`` holds at every moment.
    """

    batches: int = 0
    accepted: int = 0
    read: int = 0  # a strategy looked at it before it was overwritten
    conflated: int = 0  # overwritten before any strategy looked
    old: int = 0  # not newer than what was there
    unwatched: int = 0  # of an instrument that no symbol of this host needs
    unknown_schema: int = 0  # whole batches of a layout we do not know
    old_epoch: int = 0  # whole batches of a feed's former process


class FeedState(msgspec.Struct):
    """What is known of one feed: its process, its clock and its connections."""

    name: str
    epoch: int
    clock_offset_ms: float = 0.0  # venue clock minus ours; 0 when unknown
    clock_skew_ms: float = 0.0  # uncertainty of that estimate
    connections: dict[int, Connection] = {}  # living ones
    cut: dict[int, None] = {}  # numbers reported cut, oldest first; a late book proves nothing


class Connection(msgspec.Struct, eq=False):
    """
    One connection's life. It never comes back: after a cut its number, if it is used again,
    gets a new object, so that books from before the cut stay stale until they are redelivered.
    """

    feed: FeedState
    is_up: bool
    alive_mono_ns: int  # when it last proved alive, on this process's monotonic clock


class LiveBook(msgspec.Struct, eq=False, gc=False):
    """
    The newest book of one instrument, as one host holds it.

    Nothing in it leads back to it, so it is left out of the garbage collector's rounds.
    """

    bids: Levels
    asks: Levels
    bid: float  # the best prices; not a number while there is a problem
    ask: float
    problem: str  # what makes it unusable for trading; empty when nothing does
    connection: Connection
    feed_epoch: int
    seq: int
    recv_ns: int
    exchange_ns: int
    recv_mono_ns: int  # when the frame left the socket, on this process's monotonic clock
    changed_mono_ns: int  # when its levels last became different
    event_delay_ns: int  # from the venue's own stamp to our socket; 0 where nothing is dated
    is_read: bool = False

    def age_ns(self, now_mono_ns: int) -> int:
        """Return the time since the book's connection last proved alive (freshness)."""
        return now_mono_ns - self.connection.alive_mono_ns

    def unchanged_ns(self, now_mono_ns: int) -> int:
        """Return how long the levels have stood still; no measure of trust."""
        return now_mono_ns - self.changed_mono_ns


class MarketView:
    """
    Newest wins, per instrument; nothing is queued, so memory is bounded by the instruments.

    Args:
        transit_allowance_ns: Added to every age that comes from another node.
    """

    def __init__(self, pairs: Iterable[Pair] = (), *, transit_allowance_ns: int) -> None:
        assert transit_allowance_ns >= 0
        self.counts = ViewCounts()
        self.books: dict[InstrumentId, LiveBook] = {}
        self.funding: dict[InstrumentId, FundingUpdate] = {}
        self.feeds: dict[str, FeedState] = {}
        # Grows whenever a connection ends, or a book is carried by another one or forgotten.
        self.doubts = 0
        # By instrument: what its feed read or published and no strategy here looked at, wherever
        # a newer one took its place. A feed numbers an instrument's updates without gaps.
        self.overwritten: dict[InstrumentId, int] = {}
        self._transit_allowance_ns = transit_allowance_ns
        self._pairs: dict[Symbol, Pair] = {}
        self.symbols_by_instrument: dict[InstrumentId, tuple[Symbol, ...]] = {}
        for pair in pairs:
            self.watch(pair)

    def watch(self, pair: Pair) -> None:
        """Accept the instruments of ``pair`` from now on."""
        self._pairs[pair.symbol] = pair
        self._index()

    def unwatch(self, symbol: Symbol) -> None:
        """Forget a symbol, and the books that no other symbol needs."""
        self.doubts += 1
        self._pairs.pop(symbol, None)
        self._index()
        for instrument in [i for i in self.books if i not in self.symbols_by_instrument]:
            if not self.books.pop(instrument).is_read:
                self.counts.conflated += 1
        for known in (self.funding, self.overwritten):
            for instrument in [i for i in known if i not in self.symbols_by_instrument]:
                del known[instrument]

    def _index(self) -> None:
        symbols: dict[InstrumentId, tuple[Symbol, ...]] = {}
        for pair in self._pairs.values():
            for leg in (pair.a, pair.b, pair.fx):
                known = symbols.get(leg.instrument.id, ())
                symbols[leg.instrument.id] = (*known, pair.symbol)
        self.symbols_by_instrument = symbols

    @property
    def watched(self) -> frozenset[InstrumentId]:
        """The instruments that some symbol of this host needs."""
        return frozenset(self.symbols_by_instrument)

    def note_missed(self, count: int) -> None:
        """Count books that came to this node and were overwritten before this host looked."""
        self.counts.accepted += count
        self.counts.conflated += count

    def levels(self, instrument: InstrumentId) -> tuple[Levels, Levels] | None:
        """Return ``(bids, asks)``, or None when no book has come yet."""
        book = self.books.get(instrument)
        return None if book is None else (book.bids, book.asks)

    def symbols_of(self, instruments: Iterable[InstrumentId]) -> list[Symbol]:
        """Return the symbols whose U, N or F is among ``instruments``, each once."""
        symbols: dict[Symbol, None] = {}
        for instrument in instruments:
            for symbol in self.symbols_by_instrument.get(instrument, ()):
                symbols[symbol] = None
        return list(symbols)

    def apply(self, batch: TickBatch, now_mono_ns: int, node: str) -> Sequence[InstrumentId]:
        """
        Take in one batch, received at ``now_mono_ns`` on ``node``.

        Returns:
            The instruments whose book was replaced. What is old, unwatched or of an unknown
            schema is counted and left out; a batch of a feed's former process is left out
            as a whole.
        """
        counts = self.counts
        counts.batches += 1
        if batch.schema != SCHEMA:
            counts.unknown_schema += 1
            return ()
        feed = self.feeds.get(batch.feed)
        if feed is None or batch.feed_epoch != feed.epoch:
            feed = self._other_process(batch, feed)
            if feed is None:
                counts.old_epoch += 1
                return ()
        feed.clock_offset_ms = batch.clock_offset_ms
        feed.clock_skew_ms = batch.clock_skew_ms
        sent_mono_ns = now_mono_ns - transit_ns(
            batch, now_mono_ns, node, self._transit_allowance_ns
        )
        self._apply_alive(feed, batch, sent_mono_ns)
        changed: list[InstrumentId] = []
        symbols = self.symbols_by_instrument
        for update in batch.updates:
            instrument = update.instrument
            if instrument not in symbols:
                counts.unwatched += 1
            elif self._replace(instrument, update, feed, sent_mono_ns):
                changed.append(instrument)
        for funding in batch.funding:
            self._apply_funding(funding)
        return changed

    def _other_process(self, batch: TickBatch, before: FeedState | None) -> FeedState | None:
        """Meet a feed's new process; return None for what a former one sent."""
        if before is not None:
            if batch.feed_epoch < before.epoch:
                return None
            self.doubts += 1
            for connection in before.connections.values():
                connection.is_up = False
        feed = self.feeds[batch.feed] = FeedState(batch.feed, batch.feed_epoch)
        return feed

    def _replace(
        self, instrument: InstrumentId, update: BookUpdate, feed: FeedState, sent_mono_ns: int
    ) -> bool:
        counts = self.counts
        before = self.books.get(instrument)
        epoch, seq = update.feed_epoch, update.seq
        recv_mono_ns = changed_mono_ns = sent_mono_ns - update.age_ns
        bids, asks = update.bids, update.asks
        if before is not None:
            if epoch == before.feed_epoch and seq > before.seq:
                lost = seq - before.seq - before.is_read
                if lost:
                    known = self.overwritten.get(instrument, 0)
                    self.overwritten[instrument] = known + lost
            elif not _takes_over(update, before, feed, sent_mono_ns):
                counts.old += 1
                return False
            if before.bids == bids and before.asks == asks:
                changed_mono_ns = before.changed_mono_ns
            if not before.is_read:
                counts.conflated += 1
        recv_ns, exchange_ns = update.recv_ns, update.exchange_ns
        delay_ns = 0
        if exchange_ns:
            delay_ns = recv_ns - exchange_ns + int(feed.clock_offset_ms * NS_PER_MS)
        counts.accepted += 1
        carrier = feed.connections.get(update.connection)
        if carrier is None:
            carrier = self._carrier(feed, update.connection, recv_mono_ns)
        elif recv_mono_ns > carrier.alive_mono_ns:
            carrier.alive_mono_ns = recv_mono_ns
        if before is not None and before.connection is not carrier:
            self.doubts += 1
        if bids and asks and (bid := bids[0][0]) < (ask := asks[0][0]):
            problem = ""
        else:
            problem, bid, ask = book_problem(bids, asks), nan, nan
        self.books[instrument] = LiveBook(
            bids,
            asks,
            bid,
            ask,
            problem,
            carrier,
            epoch,
            seq,
            recv_ns,
            exchange_ns,
            recv_mono_ns,
            changed_mono_ns,
            delay_ns,
        )
        return True

    def _apply_funding(self, funding: FundingUpdate) -> None:
        if funding.instrument not in self.symbols_by_instrument:
            self.counts.unwatched += 1
            return
        before = self.funding.get(funding.instrument)
        if before is None or funding.exchange_ns >= before.exchange_ns:
            self.funding[funding.instrument] = funding

    def _apply_alive(self, feed: FeedState, batch: TickBatch, sent_mono_ns: int) -> None:
        cut = feed.cut
        for alive in batch.alive:
            if alive.is_up:
                alive_mono_ns = sent_mono_ns - alive.age_ns
                known = feed.connections.get(alive.connection)
                if known is None:
                    cut.pop(alive.connection, None)
                    self._meet(feed, alive.connection, alive_mono_ns)
                elif alive_mono_ns > known.alive_mono_ns:
                    known.alive_mono_ns = alive_mono_ns
                continue
            connection = feed.connections.pop(alive.connection, None)
            if connection is not None:
                connection.is_up = False
                self.doubts += 1
            cut[alive.connection] = None
            if len(cut) > MAX_CONNECTIONS_PER_FEED:
                del cut[next(iter(cut))]

    def _carrier(self, feed: FeedState, number: int, recv_mono_ns: int) -> Connection:
        """Return the connection of a book when it is none of the living ones that are known."""
        if number in feed.cut:
            return Connection(feed, False, recv_mono_ns)
        return self._meet(feed, number, recv_mono_ns)

    def _meet(self, feed: FeedState, number: int, alive_mono_ns: int) -> Connection:
        if len(feed.connections) >= MAX_CONNECTIONS_PER_FEED:
            silent = min(feed.connections, key=lambda n: feed.connections[n].alive_mono_ns)
            feed.connections.pop(silent).is_up = False
            self.doubts += 1
        connection = feed.connections[number] = Connection(feed, True, alive_mono_ns)
        return connection


def transit_ns(batch: TickBatch, now_mono_ns: int, node: str, allowance_ns: int) -> int:
    """Return how long a batch was on its way: exact on its own node, an allowance otherwise."""
    if node and batch.node == node:
        return max(0, now_mono_ns - batch.sent_mono_ns)
    return allowance_ns


def _takes_over(update: BookUpdate, before: LiveBook, feed: FeedState, now_ns: int) -> bool:
    """Tell whether an update that is not the next of its epoch is newer all the same."""
    if update.feed_epoch > before.feed_epoch:
        return True
    # Epochs of two feeds are no one clock: an instrument that was moved to another feed is
    # taken over once the feed that had it does not carry it any more. One that was ended tells
    # nobody so, and is silent.
    is_gone = not before.connection.is_up or before.age_ns(now_ns) > FEED_GONE_NS
    return before.connection.feed.name != feed.name and is_gone
