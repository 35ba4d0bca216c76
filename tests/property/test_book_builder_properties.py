"""A book by diffs equals the market it follows, or says that it does not."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arb_ray.domain.instrument import VenueSymbol
from arb_ray.engine.book_builder import Continuity, DiffBook, FullBookState, Outcome
from arb_ray.engine.market_event import BookDiff, FullBook, TopOfBook

X = VenueSymbol("XUSDT")
EXAMPLES = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# One update: side, price on a small grid (bids below 50, asks above), size (0 deletes).
UPDATE = st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 3))
UPDATES = st.lists(UPDATE, min_size=1, max_size=60)
RULES = st.sampled_from(list(Continuity))
Market = tuple[dict[float, float], dict[float, float]]


def price_of(is_bid: bool, step: int) -> float:
    return 50.0 - step if is_bid else 50.0 + step


def market_after(updates: list[tuple[bool, int, int]]) -> Market:
    """What the venue itself would hold: the model, kept without the code under test."""
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    for is_bid, step, size in updates:
        side = bids if is_bid else asks
        side[price_of(is_bid, step)] = float(size)
        if not size:
            del side[price_of(is_bid, step)]
    return bids, asks


def sorted_sides(market: Market) -> tuple[tuple[tuple[float, float], ...], ...]:
    bids, asks = market
    return tuple(sorted(bids.items(), reverse=True)), tuple(sorted(asks.items()))


def snapshot_at(updates: list[tuple[bool, int, int]], count: int) -> FullBook:
    bids, asks = sorted_sides(market_after(updates[:count]))
    return FullBook(X, bids, asks, 0, ids(count), is_snapshot=True)


def ids(count: int) -> int:
    """The update id after ``count`` updates; ids start somewhere, never at nought."""
    return 1_000 + count


def diffs_of(
    updates: list[tuple[bool, int, int]], cuts: list[int], rule: Continuity
) -> list[BookDiff]:
    """Chunk the updates at ``cuts``; each diff holds the last size of each price it touched."""
    bounds = sorted({0, len(updates), *(cut % (len(updates) + 1) for cut in cuts)})
    diffs = []
    for start, end in itertools.pairwise(bounds):
        last: dict[tuple[bool, float], float] = {}
        for is_bid, step, size in updates[start:end]:
            last[is_bid, price_of(is_bid, step)] = float(size)
        sides = [tuple((p, q) for (b, p), q in last.items() if b is side) for side in (True, False)]
        prev = ids(start) if rule is Continuity.USDM else None
        diffs.append(BookDiff(X, ids(start) + 1, ids(end), prev, sides[0], sides[1], 0))
    return diffs


CUTS = st.lists(st.integers(0, 60), max_size=12)


@EXAMPLES
@given(RULES, UPDATES, CUTS, st.integers(0, 60), st.integers(0, 12))
def test_any_chunking_around_any_snapshot_gives_the_market(
    rule: Continuity, updates: list[tuple[bool, int, int]], cuts: list[int], at: int, early: int
) -> None:
    diffs = diffs_of(updates, cuts, rule)
    snapshot = snapshot_at(updates, at % (len(updates) + 1))
    book = DiffBook(rule)
    before = diffs[: early % (len(diffs) + 1)]
    after = diffs[len(before) :]
    for diff in before:
        assert book.apply(diff) is Outcome.BUFFERED
    assert book.load(snapshot) is Outcome.APPLIED
    outcomes = list(book.replay()) + [book.apply(diff) for diff in after]
    assert set(outcomes) <= {Outcome.APPLIED, Outcome.IGNORED}
    assert book.update_id == max(ids(len(updates)), snapshot.update_id)
    assert book.top(100) == sorted_sides(market_after(updates))


@EXAMPLES
@given(RULES, UPDATES, CUTS, st.data())
def test_repeats_change_nothing(
    rule: Continuity, updates: list[tuple[bool, int, int]], cuts: list[int], data: st.DataObject
) -> None:
    diffs = diffs_of(updates, cuts, rule)
    book = DiffBook(rule)
    book.load(snapshot_at(updates, 0))
    for index, diff in enumerate(diffs):
        assert book.apply(diff) is Outcome.APPLIED
        shown = book.top(100)
        repeat = diffs[data.draw(st.integers(0, index))]
        assert book.apply(repeat) is Outcome.IGNORED
        assert book.top(100) == shown


@EXAMPLES
@given(RULES, st.lists(UPDATE, min_size=3, max_size=60), CUTS, st.data())
def test_a_missing_diff_is_always_found(
    rule: Continuity, updates: list[tuple[bool, int, int]], cuts: list[int], data: st.DataObject
) -> None:
    diffs = diffs_of(updates, [*cuts, 1, 2], rule)  # three diffs at least
    missing = data.draw(st.integers(0, len(diffs) - 2))
    book = DiffBook(rule)
    book.load(snapshot_at(updates, 0))
    outcomes = [book.apply(diff) for diff in diffs[:missing]]
    assert all(outcome is Outcome.APPLIED for outcome in outcomes)
    assert book.apply(diffs[missing + 1]) is Outcome.GAP
    assert book.top(5) == ((), ())
    for diff in diffs[missing + 2 :]:
        assert book.apply(diff) is Outcome.BUFFERED
    assert book.load(snapshot_at(updates, len(updates))) is Outcome.APPLIED
    assert all(outcome is Outcome.APPLIED for outcome in book.replay())
    assert book.top(100) == sorted_sides(market_after(updates))


@EXAMPLES
@given(RULES, UPDATES, CUTS, st.integers(1, 60))
def test_a_snapshot_from_before_the_buffer_is_never_used(
    rule: Continuity, updates: list[tuple[bool, int, int]], cuts: list[int], skip: int
) -> None:
    diffs = diffs_of(updates, cuts, rule)
    late = diffs[1 + skip % len(diffs) :]
    if not late:
        return
    book = DiffBook(rule)
    for diff in late:
        book.apply(diff)
    assert book.load(snapshot_at(updates, 0)) is Outcome.NEED_SNAPSHOT
    assert book.top(5) == ((), ())


LEVEL = st.integers(1, 12)


@EXAMPLES
@given(UPDATES, LEVEL, LEVEL, st.integers(1, 5), st.booleans())
def test_an_overlay_shows_the_ticker_and_leaves_the_core_alone(
    updates: list[tuple[bool, int, int]], bid: int, ask: int, ahead: int, is_whole: bool
) -> None:
    snapshot = snapshot_at(updates, len(updates))
    book: DiffBook | FullBookState
    if is_whole:
        book = FullBookState()
        book.replace(snapshot)
    else:
        book = DiffBook(Continuity.SPOT)
        book.load(snapshot)
    top = TopOfBook(X, snapshot.update_id + ahead, 50.0 - bid, 9.0, 50.0 + ask, 8.0, 0)
    assert book.overlay(top) is Outcome.APPLIED
    bids, asks = book.top(100)
    assert bids[0] == (top.bid, 9.0)
    assert asks[0] == (top.ask, 8.0)
    assert bids[1:] == tuple(level for level in snapshot.bids if level[0] < top.bid)
    assert asks[1:] == tuple(level for level in snapshot.asks if level[0] > top.ask)
    caught_up = FullBook(X, snapshot.bids, snapshot.asks, 0, top.update_id)
    if isinstance(book, FullBookState):
        book.replace(caught_up)
    else:
        book.apply(BookDiff(X, snapshot.update_id + 1, top.update_id, None, (), (), 0))
    assert book.top(100) == (snapshot.bids, snapshot.asks)


@EXAMPLES
@given(UPDATES, CUTS, st.integers(1, 5))
def test_what_is_shown_is_sorted_uncrossed_and_bounded(
    updates: list[tuple[bool, int, int]], cuts: list[int], depth: int
) -> None:
    book = DiffBook(Continuity.SPOT)
    book.load(snapshot_at(updates, 0))
    for diff in diffs_of(updates, cuts, Continuity.SPOT):
        book.apply(diff)
        bids, asks = book.top(depth)
        assert len(bids) <= depth
        assert len(asks) <= depth
        assert list(bids) == sorted(bids, reverse=True)
        assert list(asks) == sorted(asks)
        assert not bids or not asks or bids[0][0] < asks[0][0]
