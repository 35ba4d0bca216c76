from __future__ import annotations

import pytest

from arb_ray.domain.instrument import VenueSymbol
from arb_ray.engine.book_builder import (
    MAX_OLDER_IN_A_ROW,
    TRIM_SLACK,
    Continuity,
    DiffBook,
    FullBookState,
    Outcome,
)
from arb_ray.engine.market_event import BookDiff, FullBook, TopOfBook

X = VenueSymbol("XUSDT")
Rows = list[tuple[float, float]]


def snapshot(update_id: int, bids: Rows | None = None, asks: Rows | None = None) -> FullBook:
    return FullBook(
        X,
        tuple(bids or [(99, 1), (98, 2)]),
        tuple(asks or [(101, 1), (102, 2)]),
        5,
        update_id,
        True,
    )


def spot(first: int, last: int, bids: Rows | None = None, asks: Rows | None = None) -> BookDiff:
    return BookDiff(X, first, last, None, tuple(bids or ()), tuple(asks or ()), 10)


def usdm(prev: int, first: int, last: int, bids: Rows | None = None) -> BookDiff:
    return BookDiff(X, first, last, prev, tuple(bids or ()), (), 10)


def top(update_id: int, bid: float, ask: float, qty: float = 7) -> TopOfBook:
    return TopOfBook(X, update_id, bid, qty if bid else 0, ask, qty if ask else 0, 20)


def synced(rule: Continuity = Continuity.SPOT, update_id: int = 100, **kwargs: int) -> DiffBook:
    book = DiffBook(rule, **kwargs)
    assert book.load(snapshot(update_id)) is Outcome.APPLIED
    assert list(book.replay()) == []
    return book


def test_nothing_is_shown_before_a_snapshot() -> None:
    book = DiffBook(Continuity.SPOT)
    assert book.apply(spot(1, 2, bids=[(99, 1)])) is Outcome.BUFFERED
    assert book.overlay(top(3, 99, 101)) is Outcome.APPLIED
    assert book.top(5) == ((), ())


def test_buffered_diffs_line_up_behind_the_snapshot() -> None:
    book = DiffBook(Continuity.SPOT)
    for diff in (spot(90, 95), spot(96, 100), spot(101, 103, bids=[(99, 0)]), spot(104, 104)):
        book.apply(diff)
    assert book.load(snapshot(100)) is Outcome.APPLIED
    assert list(book.replay()) == [Outcome.APPLIED, Outcome.APPLIED]
    assert (book.update_id, book.top(1)[0]) == (104, ((98, 2),))


def test_spot_drops_a_diff_that_ends_at_the_snapshot_and_usdm_applies_it() -> None:
    spot_book = DiffBook(Continuity.SPOT)
    spot_book.apply(spot(96, 100, bids=[(99, 50)]))
    spot_book.load(snapshot(100))
    assert list(spot_book.replay()) == []
    usdm_book = DiffBook(Continuity.USDM)
    usdm_book.apply(usdm(90, 96, 100, bids=[(99, 50)]))
    usdm_book.load(snapshot(100))
    assert list(usdm_book.replay()) == [Outcome.APPLIED]
    assert usdm_book.top(1)[0] == ((99, 50),)


def test_the_first_spot_diff_may_straddle_the_snapshot() -> None:
    book = synced(update_id=100)
    assert book.apply(spot(95, 100)) is Outcome.IGNORED
    assert book.apply(spot(99, 102)) is Outcome.APPLIED
    assert book.apply(spot(103, 103)) is Outcome.APPLIED


def test_later_spot_diffs_must_follow_exactly() -> None:
    book = synced(update_id=100)
    book.apply(spot(101, 102))
    assert book.apply(spot(104, 105)) is Outcome.GAP
    straddling = synced(update_id=100)
    straddling.apply(spot(101, 102))
    assert straddling.apply(spot(102, 103)) is Outcome.GAP


def test_usdm_follows_pu_and_not_the_first_id() -> None:
    book = synced(Continuity.USDM, update_id=100)
    assert book.apply(usdm(80, 90, 110)) is Outcome.APPLIED
    assert book.apply(usdm(110, 150, 160)) is Outcome.APPLIED
    assert book.apply(usdm(159, 161, 170)) is Outcome.GAP


def test_a_quiet_usdm_symbols_next_diff_may_start_beyond_the_snapshot() -> None:
    assert synced(Continuity.USDM).apply(usdm(100, 140, 150)) is Outcome.APPLIED
    assert synced(Continuity.USDM).apply(usdm(99, 140, 150)) is Outcome.GAP


@pytest.mark.parametrize("rule", list(Continuity))
def test_a_snapshot_older_than_the_buffer_is_refused_and_the_buffer_kept(rule: Continuity) -> None:
    book = DiffBook(rule)
    diff = BookDiff(X, 120, 130, 119, ((99.5, 3),), (), 10)
    book.apply(diff)
    assert book.load(snapshot(100)) is Outcome.NEED_SNAPSHOT
    assert not book.is_synced
    assert book.load(snapshot(125)) is Outcome.APPLIED
    assert list(book.replay()) == [Outcome.APPLIED]
    assert book.top(1)[0] == ((99.5, 3),)


def test_a_repeat_is_ignored() -> None:
    book = synced()
    diff = spot(101, 105, bids=[(99, 3)])
    assert book.apply(diff) is Outcome.APPLIED
    assert book.apply(diff) is Outcome.IGNORED
    assert book.apply(spot(90, 99)) is Outcome.IGNORED


def test_a_gap_voids_the_book_and_keeps_the_diff_for_the_next_snapshot() -> None:
    book = synced()
    book.apply(spot(101, 102))
    assert book.apply(spot(105, 106, bids=[(99.5, 4)])) is Outcome.GAP
    assert book.top(5) == ((), ())
    book.load(snapshot(104))
    assert list(book.replay()) == [Outcome.APPLIED]
    assert book.top(1)[0] == ((99.5, 4),)


def test_a_gap_inside_the_buffer_keeps_what_lies_behind_it() -> None:
    book = DiffBook(Continuity.SPOT)
    for diff in (spot(101, 102), spot(105, 106), spot(107, 108, bids=[(99.5, 4)])):
        book.apply(diff)
    assert book.load(snapshot(100)) is Outcome.APPLIED
    assert list(book.replay()) == [Outcome.APPLIED, Outcome.GAP]
    assert book.load(snapshot(105)) is Outcome.APPLIED
    assert list(book.replay()) == [Outcome.APPLIED, Outcome.APPLIED]
    assert book.top(1)[0] == ((99.5, 4),)


def test_a_crossed_book_is_void() -> None:
    book = synced()
    assert book.apply(spot(101, 102, bids=[(101, 1)])) is Outcome.CROSSED
    assert (book.is_synced, book.top(1)) == (False, ((), ()))
    assert book.load(snapshot(103, bids=[(105, 1)])) is Outcome.CROSSED


def test_deleting_an_unknown_level_is_normal() -> None:
    book = synced()
    assert book.apply(spot(101, 101, bids=[(5, 0)])) is Outcome.APPLIED
    assert book.level_count() == 4


def test_the_buffer_drops_its_oldest() -> None:
    book = DiffBook(Continuity.SPOT, max_buffered=3)
    for update_id in range(101, 106):
        book.apply(spot(update_id, update_id))
    assert book.buffer_dropped == 2
    assert book.load(snapshot(101)) is Outcome.NEED_SNAPSHOT
    assert book.load(snapshot(102)) is Outcome.APPLIED


def test_a_newer_ticker_is_shown_without_touching_the_core() -> None:
    book = synced()
    core = book.core_top()
    assert book.overlay(top(150, 98.5, 101.5)) is Outcome.APPLIED
    bids, asks = book.top(5)
    assert bids == ((98.5, 7), (98, 2))
    assert asks == ((101.5, 7), (102, 2))
    assert book.core_top() == core
    assert book.shown_exchange_ns == 20


def test_an_overlay_replaces_the_size_of_a_level_that_exists() -> None:
    book = synced()
    book.overlay(top(150, 98, 102))
    assert book.top(5) == (((98, 7),), ((102, 7),))


def test_an_overlay_may_empty_a_side() -> None:
    book = synced()
    book.overlay(top(150, 0, 102))
    assert book.top(5) == ((), ((102, 7),))
    book.overlay(top(151, 98, 0))
    assert book.top(5) == (((98, 7),), ())


def test_an_overlay_ends_when_the_diffs_have_caught_up() -> None:
    book = synced()
    book.overlay(top(102, 98.5, 101.5))
    book.apply(spot(101, 102))
    assert book.top(1) == (((99, 1),), ((101, 1),))
    assert book.overlay(top(102, 90, 110)) is Outcome.IGNORED
    assert book.overlay(top(101, 90, 110)) is Outcome.IGNORED
    assert book.shown_exchange_ns == 10


def test_top_gives_at_most_n_levels_best_first_and_is_never_stale() -> None:
    book = synced()
    assert book.top(1) == (((99, 1),), ((101, 1),))
    assert book.top(2) == (((99, 1), (98, 2)), ((101, 1), (102, 2)))
    book.apply(spot(101, 101, bids=[(100, 5)]))
    assert book.top(2)[0] == ((100, 5), (99, 1))


def test_an_overlay_far_from_the_book_still_shows_n_levels() -> None:
    book = DiffBook(Continuity.SPOT)
    bids: Rows = [(100 - n * 0.01, 1) for n in range(900)]
    book.load(snapshot(100, bids))
    book.overlay(top(101, 92.5, 101))
    shown = book.top(15)[0]
    assert len(shown) == 15
    assert shown[0] == (92.5, 7)
    assert all(price < 92.5 for price, _ in shown[1:])


def test_far_levels_are_trimmed_and_the_best_stay() -> None:
    book = synced(max_levels=100)
    rows: Rows = [(90 - n * 0.01, 1) for n in range(100 + TRIM_SLACK)]
    book.apply(spot(101, 101, bids=rows))
    assert book.trimmed > 0
    assert book.level_count() == 100 + 2
    assert book.top(2)[0] == ((99, 1), (98, 2))


def test_a_book_whose_market_left_the_snapshot_knows_too_little() -> None:
    bids: Rows = [(100 - n, 1) for n in range(10)]
    asks: Rows = [(101 + n, 1) for n in range(10)]
    book = DiffBook(Continuity.SPOT, snapshot_levels=10)
    book.load(snapshot(100, bids, asks))
    assert not book.knows_too_little(5)
    falling: Rows = [(100 - n, 0) for n in range(6)]
    book.apply(spot(101, 101, bids=[*falling, (50, 1), (51, 1), (52, 1)]))
    assert book.knows_too_little(5)  # 94..91 are known, 50..52 lie beyond what was covered


def test_a_snapshot_shorter_than_its_limit_is_the_whole_book() -> None:
    book = synced(snapshot_levels=10)
    assert not book.knows_too_little(5)


def test_reset_forgets_everything() -> None:
    book = synced()
    book.overlay(top(500, 98, 102))
    book.reset()
    assert book.top(1) == ((), ())
    book.load(snapshot(50))
    assert book.top(1) == (((99, 1),), ((101, 1),))


def whole(exchange_ns: int, bid: float, update_id: int = 0) -> FullBook:
    return FullBook(X, ((bid, 1),), ((bid + 1, 1),), exchange_ns, update_id)


def test_a_whole_book_replaces_the_last_one_unless_it_is_older() -> None:
    state = FullBookState()
    assert state.replace(whole(10, 5)) is Outcome.APPLIED
    assert state.replace(whole(9, 6)) is Outcome.IGNORED
    assert state.replace(whole(10, 7)) is Outcome.APPLIED
    assert state.top(3)[0] == ((7, 1),)


def test_whole_books_with_ids_are_ordered_by_id() -> None:
    state = FullBookState()
    state.replace(whole(10, 5, update_id=8))
    assert state.replace(whole(99, 6, update_id=7)) is Outcome.IGNORED
    assert state.replace(whole(0, 6, update_id=9)) is Outcome.APPLIED


def test_a_clock_that_was_set_back_does_not_freeze_the_book() -> None:
    state = FullBookState()
    state.replace(whole(1_000, 5))
    outcomes = [state.replace(whole(n, 6)) for n in range(MAX_OLDER_IN_A_ROW + 1)]
    assert outcomes == [Outcome.IGNORED] * MAX_OLDER_IN_A_ROW + [Outcome.APPLIED]


def test_a_whole_book_takes_an_overlay_too() -> None:
    state = FullBookState()
    state.replace(whole(10, 5, update_id=8))
    state.overlay(top(9, 4.5, 6.5))
    assert state.top(3) == (((4.5, 7),), ((6.5, 7),))
    state.replace(whole(11, 5, update_id=9))
    assert state.top(3) == (((5, 1),), ((6, 1),))
