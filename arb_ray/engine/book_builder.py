"""
Books as they are put together from frames.

``DiffBook`` follows a venue's diffs by its continuity rule:

    WAITING -- snapshot, diffs line up --> SYNCED -- gap, or crossed --> WAITING

``FullBookState`` holds a venue's whole books. Both take a bookTicker as an overlay: it
changes what is shown (``top``) until the core book has caught up, never the core book.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator

from arb_ray.domain.book import Levels
from arb_ray.engine.book_side import BookSide
from arb_ray.engine.market_event import BookDiff, FullBook, TopOfBook

MAX_BUFFERED_DIFFS = 1_000
"""100 s of diffs at 100 ms. Beyond it the oldest are dropped: a snapshot that needed them
would be too old, and the next one is not."""

MAX_LEVELS_PER_SIDE = 10_000
"""Far levels beyond this are trimmed: a book that runs for days collects stray orders far
from the market by the ten thousand, and no order of ours walks that deep."""

TRIM_SLACK = 500
"""Trimming waits until this many are over, so that it costs nothing per update."""

MAX_OLDER_IN_A_ROW = 10
"""After so many whole books that are older than the one we hold, the venue's clock was set
back, and the next book is taken."""

OVERLAY_SPARE_LEVELS = 10
"""Levels kept behind the published ones, to fill up what an overlay removes."""


class Continuity(enum.Enum):
    """Which rule links one diff to the next."""

    SPOT = "spot"  # U == prev.u + 1; binance-spot-api-docs, "manage a local order book"
    USDM = "usdm"  # pu == prev.u, U is not prev.u + 1; USD-M page of the same title


class Outcome(enum.Enum):
    """What an update did to a book."""

    APPLIED = "applied"
    IGNORED = "ignored"  # older than the book, or a repeat
    BUFFERED = "buffered"  # kept until a snapshot comes
    NEED_SNAPSHOT = "need_snapshot"  # the snapshot is older than the first buffered diff
    GAP = "gap"  # a diff is missing; the book is void until the next snapshot
    CROSSED = "crossed"  # best bid >= best ask; void likewise


# An enum's member costs a search each time that it is named.
_APPLIED, _IGNORED, _SPOT = Outcome.APPLIED, Outcome.IGNORED, Continuity.SPOT


class _Overlay:
    """The newest bookTicker, shown on top of a book that has not got there yet."""

    def __init__(self) -> None:
        self._top: TopOfBook | None = None

    def reset(self) -> None:
        self._top = None

    def put(self, top: TopOfBook, book_id: int) -> Outcome:
        update_id, shown = top.update_id, self._top
        if update_id <= book_id or (shown is not None and update_id <= shown.update_id):
            return _IGNORED
        self._top = top
        return _APPLIED

    def exchange_ns(self, book_id: int, book_ns: int) -> int:
        top = self._top
        if top is None or top.update_id <= book_id or top.exchange_ns < book_ns:
            return book_ns
        return top.exchange_ns

    def show(self, bids: Levels, asks: Levels, book_id: int, n: int) -> tuple[Levels, Levels]:
        top = self._top
        if top is None or top.update_id <= book_id:
            return bids[:n], asks[:n]
        # Levels are sorted, and a ticker is seldom far from the book: skip the few it passed.
        bid, ask, first = top.bid, top.ask, 0
        for price, _ in bids:
            if price < bid:
                break
            first += 1
        below = bids[first : first + n]
        first = 0
        for price, _ in asks:
            if price > ask:
                break
            first += 1
        above = asks[first : first + n]
        if top.bid > 0:
            below = ((top.bid, top.bid_qty), *below)
        above = ((top.ask, top.ask_qty), *above) if top.ask > 0 else ()
        return below[:n], above[:n]


class DiffBook:
    """
    A book kept by diffs (PROTOCOLS: Binance spot and USD-M).

    ``snapshot_levels`` is the limit that snapshots are asked with: a side that comes back
    with as many levels goes on beyond them, unseen (see ``knows_too_little``).
    """

    def __init__(
        self,
        rule: Continuity,
        *,
        snapshot_levels: int = 1_000,
        max_levels: int = MAX_LEVELS_PER_SIDE,
        max_buffered: int = MAX_BUFFERED_DIFFS,
    ) -> None:
        self._rule = rule
        self._snapshot_levels = snapshot_levels
        self._max_levels = max_levels
        self._buffer: deque[BookDiff] = deque(maxlen=max_buffered)
        self._bids = BookSide(1)
        self._asks = BookSide(-1)
        self._overlay = _Overlay()
        self._follows_snapshot = False
        self.is_synced = False
        self.update_id = 0
        self.exchange_ns = 0
        self.buffer_dropped = 0
        self.trimmed = 0

    def reset(self) -> None:
        """Forget everything; a new connection starts with no history."""
        self._void()
        self._buffer.clear()
        self._overlay.reset()

    def apply(self, diff: BookDiff) -> Outcome:
        """
        Take the next diff from the stream.

        Returns:
            APPLIED, IGNORED (a repeat), BUFFERED (no snapshot yet), GAP or CROSSED: after
            these two the book is void, holds this diff for the next snapshot, and needs one.
        """
        if not self.is_synced:
            self._keep(diff)
            return Outcome.BUFFERED
        if self._is_old(diff):
            return Outcome.IGNORED
        if not self._continues(diff):
            self._void()
            self._buffer.clear()
            self._keep(diff)
            return Outcome.GAP
        return self._merge(diff)

    def load(self, snapshot: FullBook) -> Outcome:
        """
        Take a snapshot; call ``replay`` to its end before anything else.

        Returns:
            APPLIED, CROSSED, NEED_SNAPSHOT (this one is older than the diffs we hold; ask
            again), or IGNORED (the book is synced and past it).
        """
        if self.is_synced and snapshot.update_id <= self.update_id:
            return Outcome.IGNORED
        while self._buffer and self._precedes(self._buffer[0], snapshot.update_id):
            self._buffer.popleft()
        if self._buffer and not self._starts(self._buffer[0], snapshot.update_id):
            return Outcome.NEED_SNAPSHOT
        self._void()
        for side, levels in ((self._bids, snapshot.bids), (self._asks, snapshot.asks)):
            side.load(levels, goes_on=len(levels) >= self._snapshot_levels)
        self.update_id, self.exchange_ns = snapshot.update_id, snapshot.exchange_ns
        self.is_synced = self._follows_snapshot = True
        return self._void_if_crossed()

    def replay(self) -> Iterator[Outcome]:
        """
        Apply the buffered diffs one by one; ``update_id`` and ``top`` follow each of them.

        Ends early after GAP or CROSSED, keeping the rest for the next snapshot.
        """
        waiting = list(self._buffer)
        self._buffer.clear()
        for index, diff in enumerate(waiting):
            outcome = self.apply(diff)
            yield outcome
            if not self.is_synced:
                for later in waiting[index + 1 :]:
                    self._keep(later)
                return

    def overlay(self, top: TopOfBook) -> Outcome:
        """Show a newer best bid and ask until the diffs have caught up with it."""
        return self._overlay.put(top, self.update_id)

    def top(self, n: int) -> tuple[Levels, Levels]:
        """Return the best ``n`` bids and asks, overlay included; empty when not synced."""
        if not self.is_synced:
            return (), ()
        depth = n + OVERLAY_SPARE_LEVELS
        while True:
            shown = self._overlay.show(
                self._bids.best(depth), self._asks.best(depth), self.update_id, n
            )
            bids, asks = shown
            is_short = (len(bids) < n and depth < len(self._bids)) or (
                len(asks) < n and depth < len(self._asks)
            )
            if not is_short:
                return shown
            # The market jumped past the spare levels; look further, till the diffs follow.
            depth *= 4

    def core_top(self) -> tuple[Levels, Levels]:
        """Return the best level of each side as the diffs alone have it."""
        return self._bids.best(1)[:1], self._asks.best(1)[:1]

    @property
    def shown_exchange_ns(self) -> int:
        """The venue's stamp of what ``top`` shows."""
        return self._overlay.exchange_ns(self.update_id, self.exchange_ns)

    def knows_too_little(self, n: int) -> bool:
        """
        Tell whether fewer than ``n`` levels of a side lie within what the snapshot covered.

        Levels beyond it are unknown until they change, so a market that has walked to its
        edge needs a fresh snapshot while the diffs go on.
        """
        if not self.is_synced:
            return False
        return not (self._bids.knows(n) and self._asks.knows(n))

    def level_count(self) -> int:
        """Return how many levels both sides hold together."""
        return len(self._bids) + len(self._asks)

    def _keep(self, diff: BookDiff) -> None:
        self.buffer_dropped += len(self._buffer) == self._buffer.maxlen
        self._buffer.append(diff)

    def _precedes(self, diff: BookDiff, snapshot_id: int) -> bool:
        # Spot drops u <= lastUpdateId, USD-M u < lastUpdateId (PROTOCOLS 1.5 and 2.4).
        if self._rule is _SPOT:
            return diff.last_id <= snapshot_id
        return diff.last_id < snapshot_id

    def _starts(self, diff: BookDiff, snapshot_id: int) -> bool:
        if self._rule is _SPOT:
            return diff.first_id <= snapshot_id + 1 <= diff.last_id
        # A quiet symbol's next diff may start beyond the snapshot; that its ``pu`` is the
        # snapshot's id proves just as well that nothing lies between them.
        spans = diff.first_id <= snapshot_id <= diff.last_id
        return spans or diff.prev_last_id == snapshot_id

    def _is_old(self, diff: BookDiff) -> bool:
        if self._follows_snapshot:
            return self._precedes(diff, self.update_id)
        return diff.last_id <= self.update_id

    def _continues(self, diff: BookDiff) -> bool:
        if self._follows_snapshot:
            return self._starts(diff, self.update_id)
        if self._rule is _SPOT:
            return diff.first_id == self.update_id + 1
        return diff.prev_last_id == self.update_id

    def _merge(self, diff: BookDiff) -> Outcome:
        self._bids.merge(diff.bids)
        self._asks.merge(diff.asks)
        self._follows_snapshot = False
        self.update_id, self.exchange_ns = diff.last_id, diff.exchange_ns
        for side in (self._bids, self._asks):
            self.trimmed += side.trim(self._max_levels, TRIM_SLACK)
        outcome = self._void_if_crossed()
        if outcome is not _APPLIED:
            self._keep(diff)
        return outcome

    def _void_if_crossed(self) -> Outcome:
        # An ask's key is its negative price, so this is best bid >= best ask; an empty side's
        # best key is -inf, which crosses nothing.
        if self._bids.best_key >= -self._asks.best_key:
            self._void()
            return Outcome.CROSSED
        return _APPLIED

    def _void(self) -> None:
        self._bids.clear()
        self._asks.clear()
        self.is_synced = self._follows_snapshot = False
        self.update_id = self.exchange_ns = 0


class FullBookState:
    """
    A book that arrives whole: Upbit's orderbook, Binance's partial depth, bookTicker alone.

    There is no sequence to check, only order: by update id where there is one, else by the
    venue's stamp.
    """

    def __init__(self) -> None:
        self._bids: Levels = ()
        self._asks: Levels = ()
        self._overlay = _Overlay()
        self._older_in_a_row = 0
        self.update_id = 0
        self.exchange_ns = 0

    def reset(self) -> None:
        """Forget everything; a new connection starts with no history."""
        self._bids = self._asks = ()
        self._overlay.reset()
        self._older_in_a_row = 0
        self.update_id = self.exchange_ns = 0

    def replace(self, book: FullBook) -> Outcome:
        """Take a whole book; IGNORED when it is older than what we hold."""
        return self._take(book.bids, book.asks, book.update_id, book.exchange_ns)

    def replace_top(self, top: TopOfBook) -> Outcome:
        """Take a bookTicker as the whole book, where nothing else is wanted."""
        bids = ((top.bid, top.bid_qty),) if top.bid > 0 else ()
        asks = ((top.ask, top.ask_qty),) if top.ask > 0 else ()
        return self._take(bids, asks, top.update_id, top.exchange_ns)

    def _take(self, bids: Levels, asks: Levels, update_id: int, exchange_ns: int) -> Outcome:
        is_older = update_id < self.update_id if update_id else exchange_ns < self.exchange_ns
        if is_older and self._older_in_a_row < MAX_OLDER_IN_A_ROW:
            self._older_in_a_row += 1
            return _IGNORED
        self._older_in_a_row = 0
        self._bids, self._asks = bids, asks
        self.update_id, self.exchange_ns = update_id, exchange_ns
        return _APPLIED

    def overlay(self, top: TopOfBook) -> Outcome:
        """Show a newer best bid and ask until the next whole book has caught up."""
        return self._overlay.put(top, self.update_id)

    def top(self, n: int) -> tuple[Levels, Levels]:
        """Return the best ``n`` bids and asks, overlay included."""
        return self._overlay.show(self._bids, self._asks, self.update_id, n)

    @property
    def shown_exchange_ns(self) -> int:
        """The venue's stamp of what ``top`` shows."""
        return self._overlay.exchange_ns(self.update_id, self.exchange_ns)
