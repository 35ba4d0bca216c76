"""One Binance symbol inside a feed: its book, and the snapshot that the book may need."""

from __future__ import annotations

from arb_ray.domain.instrument import Instrument
from arb_ray.engine.book_builder import Continuity, DiffBook, FullBookState, Outcome
from arb_ray.engine.feed import BookChange, FeedCounters, FeedOptions
from arb_ray.engine.market_event import BookDiff, FullBook, TopOfBook

NS_PER_S = 1_000_000_000

_APPLIED = Outcome.APPLIED  # an enum's member costs a search each time that it is named

RETRY_MAX_S = 30.0
"""The wait between snapshot requests for one symbol doubles up to this."""

UNANSWERED_AFTER_S = 60.0
"""A request that the shell never answered counts as failed after this."""

REFRESH_BELOW_LEVELS = 50
"""Fewer known levels than this on a side, and a fresh snapshot is fetched while the diffs go
on. A 1000-level snapshot of BTC covers some tenths of a percent: the market walks out of it."""


class SnapshotNeed:
    """Whether a symbol wants a REST snapshot, and when it may ask. Times are monotonic ns."""

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._delay_s = retry_s
        self._not_before_ns = 0
        self._asked_ns: int | None = None
        self._is_void = False  # the answer under way belongs to an earlier connection
        self.is_wanted = False

    @property
    def is_pending(self) -> bool:
        """Whether there is something to ask for, or an answer to wait for."""
        return self.is_wanted or self._asked_ns is not None

    def want(self) -> None:
        """Ask as soon as it is allowed."""
        self.is_wanted = True

    def ask(self, now_ns: int) -> bool:
        """Tell whether to ask now; True counts as asked."""
        if self._asked_ns is not None:
            if now_ns - self._asked_ns < int(UNANSWERED_AFTER_S * NS_PER_S):
                return False
            self.failed(now_ns)
        if not self.is_wanted or now_ns < self._not_before_ns:
            return False
        self.is_wanted, self._is_void = False, False
        self._asked_ns = now_ns
        return True

    def forget(self) -> None:
        """Start over; an answer that is still under way will be thrown away."""
        self.is_wanted = False
        self._is_void = self._asked_ns is not None
        self._delay_s = self._retry_s

    def answered(self, now_ns: int) -> bool:
        """Take the answer; False when it must not be used, and is wanted anew."""
        self._asked_ns = None
        self._not_before_ns = now_ns + int(self._retry_s * NS_PER_S)
        if self._is_void:
            self._is_void, self.is_wanted, self._not_before_ns = False, True, now_ns
            return False
        return True

    def failed(self, now_ns: int) -> None:
        """There was no answer, or one of no use: wait, then want it again."""
        self._asked_ns = None
        self.is_wanted, self._is_void = True, False
        self._not_before_ns = now_ns + int(self._delay_s * NS_PER_S)
        self._delay_s = min(2 * self._delay_s, RETRY_MAX_S)

    def succeeded(self) -> None:
        """The book is whole."""
        self.is_wanted = False
        self._delay_s = self._retry_s


class MarketBook:
    """The book of one symbol in the feed's depth mode."""

    def __init__(
        self,
        instrument: Instrument,
        plan: int,
        rule: Continuity,
        options: FeedOptions,
        counters: FeedCounters,
        *,
        top_code: str,
        depth_code: str,
    ) -> None:
        self.instrument = instrument
        self.plan = plan
        self.top_code = top_code  # the names of the streams that it comes by
        self.depth_code = depth_code
        self.need = SnapshotNeed(options.snapshot_retry_s)
        self._rule = rule
        self._options = options
        self._shows_top_only = options.depth_mode == "top"
        self._levels = options.depth_levels
        self._counters = counters
        self._diffs = self._new_diff_book() if options.depth_mode == "diff" else None
        self._whole = FullBookState()
        self._successor: DiffBook | None = None
        self._was_lost = False

    @property
    def is_usable(self) -> bool:
        """Whether there is a book to show."""
        if self._diffs is not None:
            return self._diffs.is_synced
        bids, asks = self._whole.top(1)
        return bool(bids or asks)

    def reset(self) -> None:
        """Forget the book: its connection is gone, or new."""
        self._was_lost = self._was_lost or self.is_usable
        self._successor = None
        self._whole.reset()
        if self._diffs is not None:
            self._diffs.reset()
        self.need.forget()

    def take_diff(self, diff: BookDiff) -> bool:
        """Apply a diff; True when what is shown has changed."""
        if self._diffs is None:
            return False
        if self._successor is not None:
            self._successor.apply(diff)
        outcome = self._diffs.apply(diff)
        if outcome is _APPLIED:
            if self._successor is None and self._diffs.knows_too_little(REFRESH_BELOW_LEVELS):
                self._counters.refreshes += 1
                self._successor = self._new_diff_book()
                self.need.want()
            return True
        if outcome is Outcome.BUFFERED:
            self.need.want()
            return False
        if outcome is Outcome.IGNORED:
            self._counters.ignored += 1
            return False
        self._lose(outcome)
        return True

    def take_top(self, top: TopOfBook) -> bool:
        """Take a bookTicker; True when what is shown has changed."""
        if self._shows_top_only:
            return self._count_ignored(self._whole.replace_top(top))
        if self._diffs is None:
            return self._count_ignored(self._whole.overlay(top)) and self._whole.update_id > 0
        if self._successor is not None:
            self._successor.overlay(top)
        return self._count_ignored(self._diffs.overlay(top)) and self._diffs.is_synced

    def take_whole(self, book: FullBook) -> bool:
        """Take a partial-depth book; True when what is shown has changed."""
        if self._options.depth_mode != "partial":
            return False
        return self._count_ignored(self._whole.replace(book))

    def take_snapshot(self, snapshot: FullBook, now_ns: int) -> bool:
        """Take a REST snapshot; True when what is shown has changed."""
        assert self._diffs is not None, "snapshots are asked for in depth mode diff only"
        self._counters.snapshots += 1
        if not self.need.answered(now_ns):
            return False
        target = self._successor or self._diffs
        outcomes = [target.load(snapshot)]
        if outcomes[0] is Outcome.NEED_SNAPSHOT:
            self.need.failed(now_ns)
            return False
        outcomes.extend(target.replay())
        if not target.is_synced:
            # A gap among the buffered diffs; what lies behind it waits for the next snapshot.
            self._lose(outcomes[-1])
            self.need.failed(now_ns)
            return True
        self._diffs, self._successor = target, None
        self.need.succeeded()
        self._counters.resyncs += self._was_lost
        self._was_lost = False
        return True

    def change(self, recv_wall_ns: int, recv_mono_ns: int) -> BookChange:
        """Return what is to be shown now; empty sides while there is nothing to trust."""
        book = self._diffs or self._whole
        bids, asks = book.top(self._levels)
        return BookChange(
            self.instrument.id,
            self.plan,
            book.shown_exchange_ns,
            recv_wall_ns,
            recv_mono_ns,
            bids,
            asks,
        )

    def void(self, now_ns: int) -> BookChange:
        """Return the change that takes the book away."""
        return BookChange(self.instrument.id, self.plan, 0, 0, now_ns, (), ())

    def _lose(self, outcome: Outcome) -> None:
        if outcome is Outcome.CROSSED:
            self._counters.crossed += 1
        else:
            self._counters.gaps += 1
        self._successor = None
        self._was_lost = True
        self.need.want()

    def _count_ignored(self, outcome: Outcome) -> bool:
        if outcome is _APPLIED:
            return True
        self._counters.ignored += outcome is Outcome.IGNORED
        return False

    def _new_diff_book(self) -> DiffBook:
        return DiffBook(self._rule, snapshot_levels=self._options.snapshot_levels)
