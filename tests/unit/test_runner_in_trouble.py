"""One symbol's shell in bad times: naked legs, a journal that is away, funding, a last look."""

import pytest
from msgspec.structs import replace

from arb_ray.domain.errors import LedgerViolation, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.order import Purpose
from arb_ray.domain.risk_intent import Refused, RiskRefusal, RiskState, SettleKind
from arb_ray.engine.trade_events import ExitReason
from arb_ray.engine.trade_state import Idle, Phase
from tests.shell_world import D, Faulty, RunnerWorld
from tests.signal_market import F_BOOK, N_BOOK, READY, U_CHEAP, U_DEAR, U_FAIR, S, book, perp_pair

AWAY = StoreUnavailable("pg", "away")
EIGHT_HOURS_S = 28_800


async def wake(world, count=1, **books):
    for _ in range(count):
        world.clock.set(world.clock.next_due()[0])
        world.put(**books)
        await world.clock.wake_next()


async def naked(world):
    """Leave while Binance is dark: Upbit's leg is sold and the short one stays."""
    await world.enter()
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.clock.settle()
    assert world.phase is Phase.EXITING
    world.market.alive("binance", is_up=False)
    while world.clock.next_due() is not None and world.runner.trade.working:
        world.clock.set(world.clock.next_due()[0])
        world.market.now_ns = world.market.mono_ns = world.clock.now_ns()
        world.market.alive("upbit")
        await world.clock.wake_next()


async def test_the_guard_sees_the_loss_of_a_naked_leg():
    world = await RunnerWorld().start()
    await naked(world)
    assert world.phase is Phase.UNWINDING
    trade = world.runner.trade
    assert trade.net_base < 0
    now_ns = world.clock.now_ns()
    world.market.put(n=book(2200.0, 2200.2))  # the last that is known of a venue gone dark
    world.runner.look(now_ns, now_ns, READY)
    mark = world.runner.mark
    assert mark.at_ns == now_ns
    assert mark.pnl_usdt < -abs(trade.net_base) * 195
    world.market.view.books.pop(world.pair.b.instrument.id)
    world.runner.look(now_ns, now_ns, READY)
    assert -5 < world.runner.mark.pnl_usdt < 0  # then the price that was decided on


@pytest.mark.parametrize("fx", [(F_BOOK[0], ()), book(1400.0, 1399.0)])
async def test_a_stop_loss_is_carried_out_without_the_exchange_rate_s_book(fx):
    world = await RunnerWorld().start()
    await world.enter()
    world.put(f=fx, u=book(2_600_000.0, 2_602_000.0))
    world.look()
    await world.run()
    assert world.is_idle
    (done,) = world.listener.settlements
    assert done.exit_reason == ExitReason.STOP_LOSS


async def test_an_entry_that_waited_for_the_journal_is_not_sent():
    world = await RunnerWorld(store=Faulty).start()
    world.store.before["append_event"] = [None, None] + [AWAY] * 15  # three seconds
    await world.enter()
    assert world.is_idle
    assert world.memory._orders == {}
    assert "order_too_old" in world.log.events
    (done,) = world.listener.settlements
    assert (done.kind, done.exit_reason) == (SettleKind.POSTED, "not_filled")
    assert await world.held() == {}


async def test_an_exit_decided_while_the_journal_is_away_is_decided_again():
    world = await RunnerWorld(store=Faulty).start()
    await world.enter()
    began_ns = world.clock.now_ns()
    world.store.before["append_event"] = [AWAY] * 9
    world.put(u=book(2_600_000.0, 2_602_000.0))
    for _ in range(5):
        world.look()
        await world.run()
        world.put(u=book(2_590_000.0, 2_592_000.0))  # on it goes
    assert world.is_idle
    exits = [o for o in world.memory._orders.values() if o.purpose == "exit"]
    assert len(exits) == 2
    for order in exits:
        assert order.decided_ns > began_ns + S // 2
    assert exits[0].decision_price == D(2_590_000)
    assert not world.runner.is_store_away


async def test_an_exit_that_may_be_written_is_written_and_priced_anew():
    world = await RunnerWorld(store=Faulty).start()
    await world.enter()
    world.store.before["append_event"] = [OutcomeUnknown("append", 1)] + [AWAY] * 20
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.put(u=U_DEAR)
    world.look()
    await world.run()
    assert world.is_idle
    purposes = {o.purpose for o in world.memory._orders.values()}
    assert purposes == {"entry", "unwind"}  # the exits of four seconds ago were not sent
    assert abs(world.ours("ETH") - 20) <= D("0.0001")


async def test_a_retry_is_priced_anew_when_the_journal_is_back():
    world = await RunnerWorld(store=Faulty).start()
    await naked(world)
    world.store.before["append_event"] = [AWAY] * 8  # well within an order's time to live
    while world.log.events.count("journal_waits") < 2:
        await wake(world, n=book(2100.0, 2100.2))
    world.put(n=book(2050.0, 2050.2))
    await world.run()
    assert world.is_idle
    last = [o for o in world.memory._orders.values() if o.purpose == "unwind"]
    assert {o.decision_price for o in last} == {D("2050.2")}


class ClosesForGood(Faulty):
    """A ledger that takes nothing new for a trade that is settled."""

    def __getattr__(self, name):
        call = super().__getattr__(name)
        if name != "post":
            return call

        async def post(symbol, epoch, entries):
            for entry in entries:
                is_closed = entry.trade_id in self.inner.settlements
                if is_closed and entry.entry_id not in self.inner.entries:
                    raise LedgerViolation(entry.entry_id, "its trade is closed")
            return await call(symbol, epoch, entries)

        return post


async def hold_perp(store=None):
    world = RunnerWorld(perp_pair(), store=store)
    await world.start()
    world.put(n=N_BOOK, u=U_FAIR, f=F_BOOK)
    world.market.fund(0.0001, due_in_s=4000)
    world.look()
    await world.enter()
    assert world.is_holding
    world.look()
    return world


def pass_time(world, seconds, next_in_s, rate=0.0001):
    world.clock.set(world.now_ns + int(seconds * S))
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.market.fund(rate, due_in_s=next_in_s)


def funding_of(world):
    return sorted(entry for entry in world.memory.entries if entry.startswith("funding:"))


async def test_a_lost_funding_post_is_made_good_by_the_settlement():
    world = await hold_perp(store=ClosesForGood)
    pass_time(world, 4001, EIGHT_HOURS_S)
    world.store.before["post"] = [AWAY]
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    assert world.is_idle
    assert len(funding_of(world)) == 1
    (done,) = world.listener.settlements
    assert done.parts.funding > 0
    assert await world.held() == {}


async def test_funding_that_passed_over_a_restart_is_booked():
    world = await hold_perp()
    world.now_ns = world.clock.now_ns()
    await world.start()
    pass_time(world, 4001, EIGHT_HOURS_S - 1)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    assert world.is_idle
    assert world.listener.settlements[-1].parts.funding > 0
    assert "funding_estimated" in [note.kind for note in world.listener.notes]


async def test_an_instant_between_the_last_look_and_the_settlement_is_booked():
    world = await hold_perp()
    pass_time(world, 3000, next_in_s=0.001)  # the way out takes longer than that
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()  # and nobody looks again
    assert world.is_idle
    assert len(funding_of(world)) == 1
    (done,) = world.listener.settlements
    assert done.parts.funding > 0
    assert await world.held() == {}


async def test_a_trade_is_not_settled_over_an_instant_of_which_no_rate_is_known():
    world = await hold_perp()
    decided_ns = world.runner.trade.plan.decided_ns
    instant_ns = (decided_ns // (EIGHT_HOURS_S * S) + 1) * EIGHT_HOURS_S * S
    # The process dies, and the next one, after the instant, leaves before the stream says a word.
    world.now_ns = instant_ns + S
    world.market.view.funding.clear()
    await world.start()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.clock.settle()
    for _ in range(20):
        world.clock.set(world.clock.next_due()[0])
        world.put()
        await world.clock.wake_next()
    assert len(world.memory._reports) == 4  # nothing is open any more
    assert world.listener.settlements == []
    assert "funding_waits" in world.log.events
    world.put()
    world.market.fund(0.0002, due_in_s=EIGHT_HOURS_S - (world.clock.now_ns() - instant_ns) / S)
    await world.run()
    assert world.is_idle
    assert len(funding_of(world)) == 1
    (done,) = world.listener.settlements
    assert done.parts.funding > 0


async def test_a_clock_that_is_behind_sends_no_order_before_funding_that_is_booked():
    world = await hold_perp()
    pass_time(world, 4001, EIGHT_HOURS_S)
    world.look()
    await world.clock.settle()
    assert len(funding_of(world)) == 1
    world.now_ns = world.clock.now_ns() - 2 * S  # the next process thinks that it is earlier
    await world.start()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    assert world.is_idle
    (instant_ns,) = (
        entry.at_ns for entry in world.memory.entries.values() if entry.kind == "funding"
    )
    exits = [o for o in world.memory._orders.values() if o.purpose is not Purpose.ENTRY]
    fills = [f for o in exits for f in world.memory._reports[o.client_order_id].fills]
    assert fills
    assert min(fill.at_ns for fill in fills) > instant_ns


async def test_every_instant_of_a_gap_is_booked():
    world = await hold_perp()
    pass_time(world, 4000 + 2 * EIGHT_HOURS_S + 1, EIGHT_HOURS_S - 1)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    assert world.is_idle
    assert len(funding_of(world)) == 3
    estimated = [note for note in world.listener.notes if note.kind == "funding_estimated"]
    assert len(estimated) == 2


async def test_funding_of_a_naked_perpetual_is_booked():
    world = await hold_perp()
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.clock.settle()
    world.market.alive("binance", is_up=False)
    while world.runner.trade.working:
        world.clock.set(world.clock.next_due()[0])
        world.market.now_ns = world.market.mono_ns = world.clock.now_ns()
        world.market.alive("upbit")
        await world.clock.wake_next()
    assert world.phase is Phase.UNWINDING
    world.clock.set(world.now_ns + 4001 * S)
    now_ns = world.clock.now_ns()
    world.runner.look(now_ns, now_ns, READY)  # the stream is dark: the last rate is known
    await world.clock.settle()
    assert len(world.runner.trade.funding) == 1
    world.put(n=N_BOOK)
    await world.run()
    assert world.is_idle
    assert len(funding_of(world)) == 1


async def test_a_perpetual_that_was_opened_after_the_instant_pays_nothing():
    world = await hold_perp()
    (bought,) = {f.at_ns for f in world.runner.trade.finished[1].report.fills}
    world.market.view.funding.clear()
    world.market.fund(0.0001, due_in_s=0)
    update = world.market.view.funding[world.pair.b.instrument.id]
    between = (world.runner.trade.plan.decided_ns + bought) // 2
    world.market.view.funding[world.pair.b.instrument.id] = replace(update, next_funding_ns=between)
    world.runner._funding._watch._last.clear()
    world.look()
    await world.run()
    assert world.runner.trade.funding == ()


@pytest.mark.parametrize(
    "change",
    [
        {"is_draining": True},
        {"risk_state": RiskState.HALTED},
        {"risk_state": RiskState.REDUCE_ONLY},
        {"is_guard_reachable": False},
    ],
)
async def test_what_changed_while_the_guard_was_asked_stops_the_entry(change):
    class Changes(Faulty):
        def __getattr__(self, name):
            call = super().__getattr__(name)

            async def reserve(intent):
                verdict = await call(intent)
                world.runner.standing = replace(READY, is_busy=True, **change)
                return verdict

            return reserve if name == "reserve" else call

    world = RunnerWorld(make_risk=Changes)
    await world.start()
    await world.enter()
    assert world.is_idle
    assert world.memory._orders == {}
    assert await world.held() == {}


class Deaf(Faulty):
    """RiskGuard as one who lost its yes meets it: the room is held, the answer is no."""

    async def reserve(self, intent):
        verdict = await self.inner.reserve(intent)
        return Refused(verdict.trade_id, RiskRefusal.FENCED_OWNER)


async def test_room_of_a_trade_that_by_its_journal_never_began_is_given_back():
    world = RunnerWorld(make_risk=Deaf)
    await world.start()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.clock.settle()
    assert world.is_idle
    assert world.memory._open == {"ETH": "test:ETH:1"}
    await world.start()
    assert isinstance(world.runner.trade, Idle)
    world.risk.before["settle"] = [OutcomeUnknown("settle", 1)] * 2
    await world.run()
    assert world.memory._open == {}
    assert await world.held() == {}
    (done,) = world.memory.settlements.values()
    assert done.kind is SettleKind.VOIDED
    assert not world.runner.is_busy


@pytest.mark.parametrize("slow", ["the answer", "the journal"])
async def test_an_order_whose_acceptance_was_not_heard_of_has_a_last_word_however_old(slow):
    world = await RunnerWorld(store=Faulty).start()
    accept, late = world.memory.accept_order, []
    append = world.memory.append_event

    async def accepted_too_late(*arguments):
        world.memory.accept_order = accept
        late.append(arguments)
        raise OutcomeUnknown("accept_order", 1)

    async def answered_before(order_id):
        # The question was answered before the acceptance came, and its answer travels.
        world.memory.is_order_known = known
        await accept(*late.pop())
        if slow == "the answer":
            world.clock.set(world.clock.now_ns() + 3 * S)
        return False

    async def appended(*arguments):
        await append(*arguments)
        if slow == "the journal" and b"QueryAnswered" in arguments[-1]:
            world.clock.set(world.clock.now_ns() + 3 * S)

    known, world.memory.is_order_known = world.memory.is_order_known, answered_before
    world.memory.accept_order = accepted_too_late
    world.memory.append_event = appended
    await world.enter()
    assert world.is_idle
    assert "order_too_old" in world.log.events
    assert set(world.memory._orders) == set(world.memory._reports)


class ForgetfulGuard:
    """Refuses once, dies, and says yes to a copy of the same intent that arrives late."""

    def __init__(self, guard):
        self.guard = guard
        self.has_refused = False

    def __getattr__(self, name):
        return getattr(self.guard, name)

    async def reserve(self, intent):
        if self.has_refused:
            return await self.guard.reserve(intent)
        self.has_refused = True
        await self.guard.reserve(intent)
        return Refused(intent.trade_id, RiskRefusal.OPEN_TRADES)


async def test_room_that_is_held_for_a_trade_that_was_refused_is_given_back():
    world = await RunnerWorld(store=Faulty, make_risk=ForgetfulGuard).start()
    world.store.before["open_trade"] = [AWAY]
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.clock.settle()
    assert world.is_idle
    assert await world.held() != {}
    await world.run()
    assert await world.held() == {}
    assert [done.kind for done in world.listener.settlements] == [SettleKind.VOIDED]
    await world.enter()
    assert world.is_holding
