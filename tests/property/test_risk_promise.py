"""The promise of DESIGN section 3, over any history of reserving, marking, settling and midnights."""

from collections import defaultdict
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from arb_ray.domain.risk_intent import Granted, Refused, RiskState
from arb_ray.engine.risk import StateChange
from tests import risk_world as rw

D = Decimal
SYMBOLS = "ABCDEF"
cents = st.integers(1, 7000).map(lambda n: D(n) / 100)
steps = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from(SYMBOLS), cents),
    st.tuples(st.just("repeat"), st.integers(0, 99), st.just(D(0))),
    st.tuples(st.just("mark"), st.integers(0, 9), st.integers(-90, 90).map(D)),
    st.tuples(st.just("win"), st.integers(0, 9), cents),
    st.tuples(st.just("lose"), st.integers(0, 9), st.decimals("0", "1", places=2)),
    st.tuples(st.just("gap"), st.integers(0, 9), cents),
    st.tuples(st.just("void"), st.integers(0, 9), st.just(D(0))),
    st.tuples(st.just("lost_write"), st.sampled_from(SYMBOLS), cents),
    st.tuples(st.just("time"), st.sampled_from([1, 600, 50_000]), st.just(D(0))),
    st.tuples(st.just("restart"), st.just(0), st.just(D(0))),
    st.tuples(st.just("resume"), st.just(0), st.just(D(0))),
)


class Checker:
    """Keeps its own, slower books and holds every answer against them."""

    def __init__(self):
        self.now = rw.NOON
        self.book = rw.book()
        self.open = {}
        self.marks = {}
        self.settled = []
        self.grant_ns = []
        self.answers = {}
        self.asked = []
        self.number = 0
        self.free = D(1_000_000)
        self.gap = False
        self.forgotten = set()  # ended on a day before that of the last start

    def realized(self, symbol=None):
        day = self.now // rw.DAY
        return sum(
            (
                s.realized_usdt
                for s in self.settled
                if s.closed_ns // rw.DAY == day and symbol in {None, s.symbol}
            ),
            D(0),
        )

    def used(self):
        exposure = sum(
            (
                max(i.worst_loss_usdt, -self.marks.get(trade_id, D(0)))
                for trade_id, i in self.open.items()
            ),
            D(0),
        )
        return max(D(0), -self.realized()) + exposure

    def play(self, kind, which, amount):
        getattr(self, kind)(which, amount)
        status = self.book.status(self.now)
        assert self.book.used_usdt() == self.used()
        assert status.daily_loss_usdt == max(D(0), -self.realized())
        assert status.open_trades == len(self.open)
        assert self.book.free("upbit", "KRW") == self.free
        if not self.gap:
            assert self.used() <= rw.LIMITS.daily_loss_usdt, "the promise"

    def reserve(self, symbol, amount):
        self.number += 1
        asked = rw.intent(self.number, symbol, worst=str(amount), notional="100")
        before = self.used()
        verdict = self.book.decide(asked, self.now)
        self.asked.append(asked)
        self.answers[asked.trade_id] = verdict
        if isinstance(verdict, Refused):
            return None
        assert before + amount <= rw.LIMITS.daily_loss_usdt
        assert -self.realized(symbol) + amount <= rw.LIMITS.symbol_daily_loss_usdt
        assert symbol not in {i.symbol for i in self.open.values()}
        self.book.apply_grant(asked, self.now)
        self.open[asked.trade_id] = asked
        self.grant_ns.append(self.now)
        self.free -= 1000
        return asked

    def lost_write(self, symbol, amount):
        asked = self.reserve(symbol, amount)
        if asked:
            self.book.undo_grant(asked.trade_id)
            del self.open[asked.trade_id]
            self.grant_ns.remove(self.now)
            self.free += 1000
            del self.answers[asked.trade_id]
            self.asked.remove(asked)

    def repeat(self, which, _):
        if not self.asked:
            return
        asked = self.asked[which % len(self.asked)]
        verdict = self.book.decide(asked, self.now)
        if asked.trade_id in {s.trade_id for s in self.settled}:
            if asked.trade_id in self.forgotten:
                return  # settled before the day of the last start: the store's tombstone answers
            assert isinstance(verdict, Refused), "nothing is held under it any more"
        elif asked.trade_id in self.answers:
            assert verdict == self.answers[asked.trade_id]

    def pick(self, which):
        return list(self.open.values())[which % len(self.open)] if self.open else None

    def mark(self, which, pnl):
        asked = self.pick(which)
        if asked:
            self.marks[asked.trade_id] = pnl
            self.gap = self.gap or -pnl > asked.worst_loss_usdt
            self.book.apply_mark(rw.mark(asked, pnl, at=self.now), self.now)

    def settle(self, asked, realized, *, void=False):
        if asked is None:
            return
        end = rw.settlement(asked, str(realized), closed=self.now, void=void)
        for _ in range(2):
            self.book.apply_settlement(end, rw.released(), self.now)
        self.settled.append(end)
        self.marks.pop(asked.trade_id, None)
        del self.open[asked.trade_id]
        self.free += 1000

    def win(self, which, amount):
        self.settle(self.pick(which), amount)

    def lose(self, which, share):
        asked = self.pick(which)
        if asked:
            self.settle(asked, -asked.worst_loss_usdt * share)

    def gap_loss(self, asked, beyond):
        self.gap = True
        self.settle(asked, -asked.worst_loss_usdt - beyond)
        assert self.book.status(self.now).state is RiskState.HALTED
        assert self.book.gap_loss_usdt >= beyond

    def _gap(self, which, beyond):
        asked = self.pick(which)
        if asked:
            self.gap_loss(asked, beyond)

    def void(self, which, _):
        self.settle(self.pick(which), D(0), void=True)

    def time(self, seconds, _):
        self.now += seconds * rw.SECOND

    def restart(self, *_):
        status = self.book.status(self.now)
        self.book = rw.book(
            now=self.now,
            state=status.state,
            state_reason=status.reason,
            open_reservations=tuple(rw.stored(i) for i in self.open.values()),
            settled_today=tuple(
                s for s in self.settled if s.closed_ns // rw.DAY == self.now // rw.DAY
            ),
            balances=rw.released(str(self.free)),
            entries_ns=tuple(self.grant_ns),
        )
        self.forgotten = {
            s.trade_id for s in self.settled if s.closed_ns // rw.DAY != self.now // rw.DAY
        }
        self.marks.clear()
        self.answers.clear()  # the store remembers refusals; the new book does not

    def resume(self, *_):
        self.book.set_state(StateChange(RiskState.ACTIVE, "seen", "ann", self.now))


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60))
def test_no_history_breaks_the_promise(history):
    checker = Checker()
    for kind, which, amount in history:
        checker.play("_gap" if kind == "gap" else kind, which, amount)


@given(st.lists(cents, min_size=1, max_size=40))
def test_what_is_granted_at_once_can_all_be_lost_within_the_limit(worsts):
    book = rw.book()
    granted = defaultdict(Decimal)
    for number, worst in enumerate(worsts):
        asked = rw.intent(number, f"S{number}", worst=str(worst), notional="1")
        if isinstance(book.decide(asked, rw.NOON), Granted):
            book.apply_grant(asked, rw.NOON)
            granted[asked] = worst
    for asked, worst in granted.items():
        book.apply_settlement(rw.settlement(asked, f"-{worst}"), (), rw.NOON)
    assert -book.status(rw.NOON).realized_usdt <= rw.LIMITS.daily_loss_usdt
    assert book.gap_loss_usdt == 0
