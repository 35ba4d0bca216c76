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
from itertools import islice

from sortedcontainers import SortedDict

from arb_ray.domain.book import Levels
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


class _Overlay:
    """The newest bookTicker, shown on top of a book that has not got there yet."""

    def __init__(self) -> None:
        self._top: TopOfBook | None = None

    def reset(self) -> None:
        self._top = None

    def put(self, top: TopOfBook, book_id: int) -> Outcome:
        newest = max(book_id, self._top.update_id if self._top else 0)
        if top.update_id <= newest:
            return Outcome.IGNORED
        self._top = top
        return Outcome.APPLIED

    def exchange_ns(self, book_id: int, book_ns: int) -> int:
        shown = self._top is not None and self._top.update_id > book_id
        return max(book_ns, self._top.exchange_ns) if shown and self._top else book_ns

    def show(self, bids: Levels, asks: Levels, book_id: int, n: int) -> tuple[Levels, Levels]:
        top = self._top
        if top is None or top.update_id <= book_id:
            return bids[:n], asks[:n]
        # Levels are sorted, and a ticker is seldom far from the book: skip the few it passed.
        first = next((i for i, level in enumerate(bids) if level[0] < top.bid), len(bids))
        below = bids[first : first + n]
        first = next((i for i, level in enumerate(asks) if level[0] > top.ask), len(asks))
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
        self._bids = SortedDict()
        self._asks = SortedDict()
        self._bid_horizon = 0.0
        self._ask_horizon = float("inf")
        self._overlay = _Overlay()
        self._shown: tuple[int, Levels, Levels] = (0, (), ())
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
        self._bids.update(snapshot.bids)
        self._asks.update(snapshot.asks)
        if len(snapshot.bids) >= self._snapshot_levels:
            self._bid_horizon = snapshot.bids[-1][0]
        if len(snapshot.asks) >= self._snapshot_levels:
            self._ask_horizon = snapshot.asks[-1][0]
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
        depth, bids, asks = self._shown
        if depth < n:
            depth, bids, asks = self._shown = self._best(n + OVERLAY_SPARE_LEVELS)
        shown = self._overlay.show(bids, asks, self.update_id, n)
        while any(
            len(levels) < n and depth < len(side)
            for levels, side in zip(shown, (self._bids, self._asks), strict=True)
        ):
            # The market jumped past the spare levels; look further, till the diffs follow.
            depth, bids, asks = self._shown = self._best(4 * depth)
            shown = self._overlay.show(bids, asks, self.update_id, n)
        return shown

    def _best(self, depth: int) -> tuple[int, Levels, Levels]:
        best = islice(reversed(self._bids), depth)
        bids = tuple((price, self._bids[price]) for price in best)
        return depth, bids, tuple(islice(self._asks.items(), depth))

    def core_top(self) -> tuple[Levels, Levels]:
        """Return the best level of each side as the diffs alone have it."""
        bids = (self._bids.peekitem(-1),) if self._bids else ()
        asks = (self._asks.peekitem(0),) if self._asks else ()
        return bids, asks

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
        bids_known = len(self._bids) - self._bids.bisect_left(self._bid_horizon)
        asks_known = self._asks.bisect_right(self._ask_horizon)
        has_unseen_bids = self._bid_horizon > 0
        has_unseen_asks = self._ask_horizon < float("inf")
        return (has_unseen_bids and bids_known < n) or (has_unseen_asks and asks_known < n)

    def level_count(self) -> int:
        """Return how many levels both sides hold together."""
        return len(self._bids) + len(self._asks)

    def _keep(self, diff: BookDiff) -> None:
        self.buffer_dropped += len(self._buffer) == self._buffer.maxlen
        self._buffer.append(diff)

    def _precedes(self, diff: BookDiff, snapshot_id: int) -> bool:
        # Spot drops u <= lastUpdateId, USD-M u < lastUpdateId (PROTOCOLS 1.5 and 2.4).
        if self._rule is Continuity.SPOT:
            return diff.last_id <= snapshot_id
        return diff.last_id < snapshot_id

    def _starts(self, diff: BookDiff, snapshot_id: int) -> bool:
        if self._rule is Continuity.SPOT:
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
        if self._rule is Continuity.SPOT:
            return diff.first_id == self.update_id + 1
        return diff.prev_last_id == self.update_id

    def _merge(self, diff: BookDiff) -> Outcome:
        for side, changes in ((self._bids, diff.bids), (self._asks, diff.asks)):
            for price, size in changes:
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)  # deleting what we never saw is normal
        self._follows_snapshot = False
        self.update_id, self.exchange_ns = diff.last_id, diff.exchange_ns
        self._shown = (0, (), ())
        self._trim()
        outcome = self._void_if_crossed()
        if outcome is Outcome.CROSSED:
            self._keep(diff)
        return outcome

    def _trim(self) -> None:
        limit = self._max_levels
        if len(self._bids) > limit + TRIM_SLACK:
            while len(self._bids) > limit:
                self._bids.popitem(0)
                self.trimmed += 1
            self._bid_horizon = max(self._bid_horizon, self._bids.peekitem(0)[0])
        if len(self._asks) > limit + TRIM_SLACK:
            while len(self._asks) > limit:
                self._asks.popitem(-1)
                self.trimmed += 1
            self._ask_horizon = min(self._ask_horizon, self._asks.peekitem(-1)[0])

    def _void_if_crossed(self) -> Outcome:
        if self._bids and self._asks and self._bids.peekitem(-1)[0] >= self._asks.peekitem(0)[0]:
            self._void()
            return Outcome.CROSSED
        return Outcome.APPLIED

    def _void(self) -> None:
        self._bids.clear()
        self._asks.clear()
        self._bid_horizon, self._ask_horizon = 0.0, float("inf")
        self._shown = (0, (), ())
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
        is_older = (
            book.update_id < self.update_id
            if book.update_id
            else book.exchange_ns < self.exchange_ns
        )
        if is_older and self._older_in_a_row < MAX_OLDER_IN_A_ROW:
            self._older_in_a_row += 1
            return Outcome.IGNORED
        self._older_in_a_row = 0
        self._bids, self._asks = book.bids, book.asks
        self.update_id, self.exchange_ns = book.update_id, book.exchange_ns
        return Outcome.APPLIED

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
