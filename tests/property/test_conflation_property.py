"""Whatever a target does, it gets the newest book of each instrument in the end, in order."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from arb_ray.engine.conflation import TickMailbox
from arb_ray.engine.market_view import MarketView
from tests.signal_market import F_ID, N_BOOK, N_ID, NODE, U_ID, make_update, spot_pair

INSTRUMENTS = (U_ID, N_ID, F_ID)


class MailboxAndView(RuleBasedStateMachine):
    """A mailbox towards one view, over a call that may fail before or after it took effect."""

    def __init__(self):
        super().__init__()
        self.box = TickMailbox(
            feed="f",
            feed_epoch=1,
            node=NODE,
            instruments=INSTRUMENTS,
            heartbeat_ns=10,
            max_updates=2,
        )
        self.view = MarketView([spot_pair()], transit_allowance_ns=0)
        self.now = self.seq = 0
        self.newest = {}
        self.applied = dict.fromkeys(INSTRUMENTS, -1)
        self.batch = None

    @rule(instrument=st.sampled_from(INSTRUMENTS), back=st.integers(0, 3))
    def offer(self, instrument, back):
        self.seq += 1
        seq = max(0, self.seq - back)
        self.newest[instrument] = max(seq, self.newest.get(instrument, -1))
        self.box.offer(make_update(instrument, seq, N_BOOK), self.now)

    @rule(ns=st.integers(0, 20))
    def wait(self, ns):
        self.now += ns

    @precondition(lambda self: self.batch is None)
    @rule()
    def take(self):
        self.batch = self.box.take(self.now)
        if self.batch is not None:
            assert len(self.batch.updates) <= 2
            assert len({u.instrument for u in self.batch.updates}) == len(self.batch.updates)
            assert all(update.age_ns >= 0 for update in self.batch.updates)

    @precondition(lambda self: self.batch is not None)
    @rule(arrived=st.booleans(), answered=st.booleans())
    def answer(self, arrived, answered):
        if arrived or answered:
            for update in self.batch.updates:
                # A repeat after a lost answer may come again; never one that is older.
                assert update.seq >= self.applied[update.instrument]
                self.applied[update.instrument] = update.seq
            self.view.apply(self.batch, self.now, NODE)
        self.batch = None
        self.box.answered(is_delivered=answered)

    @invariant()
    def nothing_is_lost_from_the_count(self):
        counts = self.box.counts
        in_flight = len(self.batch.updates) if self.batch is not None else 0
        assert counts.offered == counts.delivered + counts.conflated + self.box.waiting + in_flight
        assert self.box.waiting <= len(INSTRUMENTS)
        seen = self.view.counts
        unread = sum(not book.is_read for book in self.view.books.values())
        assert seen.accepted == seen.read + seen.conflated + unread

    def teardown(self):
        for _ in range(4):
            if self.batch is None:
                self.batch = self.box.take(self.now)
            if self.batch is not None:
                self.answer(arrived=True, answered=True)
        assert self.box.waiting == 0
        assert {i: self.view.books[i].seq for i in self.newest} == self.newest
        counts = self.box.counts
        assert counts.delivered + counts.conflated == counts.offered


TestMailboxAndView = MailboxAndView.TestCase
TestMailboxAndView.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
