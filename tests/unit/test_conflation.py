import pytest

from arb_ray.engine.conflation import MAX_CUTS, TickMailbox
from tests.signal_market import (
    F_ID,
    MS,
    N_BOOK,
    N_ID,
    U_CHEAP,
    U_FAIR,
    U_ID,
    Market,
    S,
    make_update,
    spot_pair,
)


def mailbox(**changes):
    settings = {
        "feed": "upbit",
        "feed_epoch": 1,
        "node": "node-1",
        "instruments": [U_ID, N_ID, F_ID],
        "heartbeat_ns": 500 * MS,
    }
    return TickMailbox(**{**settings, **changes})


def idle(**changes):
    box = mailbox(**changes)
    assert box.take(0) is not None
    box.answered(is_delivered=True)
    return box


def test_one_call_is_in_flight_and_the_newest_waits():
    box = mailbox()
    box.offer(make_update(U_ID, 1, U_FAIR), 0)
    first = box.take(0)
    box.offer(make_update(U_ID, 2, U_FAIR), 0)
    box.offer(make_update(U_ID, 3, U_CHEAP), 0)
    assert box.take(9 * S) is None
    box.answered(is_delivered=True)
    second = box.take(1)
    assert [u.seq for u in first.updates] == [1]
    assert [u.seq for u in second.updates] == [3]
    assert box.counts.conflated == 1


def test_age_grows_while_an_update_waits():
    box = mailbox()
    box.offer(make_update(U_ID, 1, U_FAIR, age_ns=2 * MS), 10 * MS)
    assert box.take(15 * MS).updates[0].age_ns == 7 * MS


def test_quiet_feed_sends_heartbeats_with_ages():
    box = idle()
    box.set_alive(0, 100 * MS, is_up=True)
    assert box.take(499 * MS) is None
    beat = box.take(500 * MS)
    assert beat.updates == ()
    assert [(a.age_ns, a.is_up) for a in beat.alive] == [(400 * MS, True)]
    assert box.counts.heartbeats == 2


def test_cut_is_sent_at_once_and_until_it_arrived():
    box = idle()
    box.set_alive(3, 0, is_up=True)
    box.set_alive(3, 1, is_up=False)
    box.set_alive(3, 1, is_up=False)
    for is_delivered in (False, True):
        assert [(a.connection, a.is_up) for a in box.take(2).alive] == [(3, False)]
        box.answered(is_delivered=is_delivered)
    assert box.take(3) is None


def test_book_from_before_a_cut_is_not_taken_for_one_after_it():
    market = Market(spot_pair())
    box = mailbox()
    box.set_alive(0, 0, is_up=True)
    box.offer(make_update(U_ID, 1, U_FAIR), 0)
    box.set_alive(0, 0, is_up=False)
    box.set_alive(0, 0, is_up=True)
    box.offer(make_update(F_ID, 2, N_BOOK), 0)
    market.apply(box.take(0))
    assert not market.view.books[U_ID].connection.is_up
    assert market.view.books[F_ID].connection.is_up


def test_failed_call_gives_its_updates_back_unless_newer_came():
    box = mailbox()
    box.offer(make_update(U_ID, 1, U_FAIR), 0)
    box.offer(make_update(N_ID, 2, N_BOOK), 0)
    box.take(0)
    box.offer(make_update(U_ID, 3, U_CHEAP), 0)
    box.answered(is_delivered=False)
    assert sorted(u.seq for u in box.take(1).updates) == [2, 3]
    assert (box.counts.conflated, box.counts.failed) == (1, 1)


def test_batches_are_bounded_by_count_and_by_bytes():
    for bound in ({"max_updates": 2}, {"max_batch_bytes": 500}):
        box = mailbox(**bound)
        for seq, instrument in enumerate((U_ID, N_ID, F_ID)):
            box.offer(make_update(instrument, seq, U_FAIR), 0)
        assert [u.seq for u in box.take(0).updates] == [0, 1]
        box.answered(is_delivered=True)
        assert [u.seq for u in box.take(0).updates] == [2]
    box = mailbox(max_batch_bytes=1)
    box.offer(make_update(U_ID, 1, U_FAIR), 0)
    assert len(box.take(0).updates) == 1


def test_overtaken_update_never_goes_out():
    box = mailbox()
    box.offer(make_update(U_ID, 5, U_FAIR), 0)
    box.offer(make_update(U_ID, 4, U_CHEAP), 0)
    assert [u.seq for u in box.take(0).updates] == [5]
    assert (box.counts.offered, box.counts.conflated) == (2, 1)


def test_other_instruments_are_not_held():
    box = mailbox(instruments=[U_ID])
    box.offer(make_update(N_ID, 1, N_BOOK), 0)
    assert (box.waiting, box.counts.unwanted, box.counts.offered) == (0, 1, 0)
    box.offer(make_update(U_ID, 1, U_FAIR), 0)
    box.retarget([N_ID])
    assert box.waiting == 0
    assert box.counts.conflated == 1


def test_cuts_for_a_target_that_never_answers_are_bounded():
    box = mailbox()
    for _ in range(MAX_CUTS + 50):
        box.set_alive(0, 0, is_up=True)
        box.set_alive(0, 0, is_up=False)
    assert len(box.take(0).alive) == MAX_CUTS


def test_answer_without_a_call_is_a_bug():
    with pytest.raises(AssertionError, match="in flight"):
        mailbox().answered(is_delivered=True)
