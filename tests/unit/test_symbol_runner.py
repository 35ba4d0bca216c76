"""One symbol's shell over a store in memory: whole lives, crashes everywhere, silent partners."""

import pytest

from arb_ray.domain.errors import Fenced, OutcomeUnknown, StoreUnavailable
from arb_ray.domain.money import Side
from arb_ray.domain.opportunity import Refusal
from arb_ray.domain.order import Purpose
from arb_ray.domain.risk_intent import SettleKind
from arb_ray.engine.trade_events import ExitReason
from arb_ray.engine.trade_state import Phase
from tests.shell_world import D, Faulty, RunnerWorld
from tests.signal_market import F_BOOK, N_BOOK, U_CHEAP, U_DEAR, U_FAIR, S, perp_pair

LOT = D("0.0001")
FX_MID = D("1399.5")


class Crash(Exception):
    """The process is gone."""


async def test_books_lead_to_a_trade_whose_parts_sum_to_its_postings():
    world = await RunnerWorld().start()
    krw, usdt, eth = world.ours("KRW"), world.ours("USDT"), world.ours("ETH")
    await world.enter()
    assert world.is_holding
    await world.leave()
    assert world.is_idle

    (done,) = world.listener.settlements
    assert done.kind is SettleKind.POSTED
    assert done.exit_reason == ExitReason.TAKE_PROFIT
    assert done.realized_usdt > 0
    assert abs(done.parts.total - done.realized_usdt) < D("1e-6")
    base = (world.ours("ETH") - eth) * D(2000)
    money = (world.ours("KRW") - krw) / FX_MID + world.ours("USDT") - usdt
    assert abs(money + base - done.realized_usdt) < D("1e-4")
    assert abs(world.ours("ETH") - eth) <= LOT
    assert await world.held() == {}
    phases = [after for _, after, _ in world.listener.moves]
    assert phases == [
        Phase.RESERVING, Phase.CONFIRMING, Phase.ENTERING, Phase.ENTERING, Phase.HOLDING,
        Phase.EXITING, Phase.EXITING, Phase.SETTLING, Phase.IDLE,
    ]  # fmt: skip


async def test_a_perpetual_leg_lives_the_same_life():
    world = RunnerWorld(perp_pair())
    await world.start()
    world.put(n=N_BOOK, u=U_FAIR, f=F_BOOK)
    world.market.fund(0.0001, due_in_s=4000)
    world.look()  # a fair premium is the first sample
    await world.enter()
    assert world.is_holding
    world.look()
    # A funding instant passes: shorts receive a positive rate.
    world.clock.set(world.now_ns + 4001 * S)
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.market.fund(0.0001, due_in_s=28_800)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    world.look()
    await world.run()
    assert world.is_idle
    (done,) = world.listener.settlements
    assert done.parts.funding > 0
    assert abs(done.parts.total - done.realized_usdt) < D("1e-6")


async def test_the_next_trade_has_the_next_number():
    world = await RunnerWorld().start()
    for _ in range(2):
        await world.enter()
        await world.leave()
    assert [done.trade_id for done in world.listener.settlements] == ["test:ETH:1", "test:ETH:2"]


async def test_unalike_fills_are_evened_out_before_the_trade_is_held():
    world = await RunnerWorld().start()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.clock.settle()
    assert world.phase is Phase.ENTERING
    # While both orders travel, Binance's depth goes away.
    thin = (((1999.9, 0.05),), ((2000.1, 10.0),))
    world.put(n=thin)
    await world.run()
    purposes = {order.purpose for order in world.memory._orders.values()}
    assert purposes == {Purpose.ENTRY, Purpose.HEDGE}
    trade = world.runner.trade
    assert world.is_holding
    assert abs(trade.net_base) <= LOT
    sold = [o for o in world.memory._orders.values() if o.purpose is Purpose.HEDGE]
    assert [order.side for order in sold] == [Side.SELL]


async def test_every_event_is_in_the_journal_before_its_effects_run():
    order = []

    class Watched(Faulty):
        def __getattr__(self, name):
            call = super().__getattr__(name)

            async def noted(*arguments):
                order.append(name)
                return await call(*arguments)

            return noted

    world = await RunnerWorld(store=Watched).start()
    order.clear()
    await world.enter()
    assert order[:5] == ["next_trade_number", "dust", "append_event", "grant", "append_event"]
    first = order.index("accept_order")
    assert order[:first].count("append_event") == 3  # signal, yes, confirmed
    await world.leave()
    settled = len(order) - 1 - order[::-1].index("settle")
    before = [name for name in order[:settled] if name != "post"]
    # The report that closed it; RiskGuard ends nothing of which a part is still spooled.
    assert before[-2:] == ["append_event", "flush"]
    assert order[settled + 1 :] == ["append_event"]  # Settled


class Crashing(Faulty):
    """Dies at the n-th append: before the row is written, or right after it."""

    at, is_written = None, False

    def __getattr__(self, name):
        call = super().__getattr__(name)
        if name != "append_event":
            return call

        async def append(*arguments):
            number = self.calls[name]
            if number == self.at and not self.is_written:
                self.calls[name] += 1
                raise Crash
            result = await call(*arguments)
            if number == self.at:
                raise Crash
            return result

        return append


async def live(world):
    """Enter and leave once; a flatten order ends what a crash left half done."""
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.run()
    world.put(u=U_DEAR)
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    for _ in range(5):
        if world.is_idle:
            return
        world.look()
        await world.run()


async def test_a_crash_at_any_append_ends_flat_and_fills_no_order_twice():
    calm = await RunnerWorld(store=Crashing).start()
    await live(calm)
    appends = calm.store.calls["append_event"]
    assert appends == 9
    for is_written in (False, True):
        for at in range(appends):
            await crash_once(at, is_written)


async def crash_once(at, is_written):
    world = RunnerWorld(store=Crashing)
    await world.start()
    eth = world.ours("ETH")
    world.store.at, world.store.is_written = at, is_written
    with pytest.raises(Crash):
        await live(world)
    world.now_ns = world.clock.now_ns()
    world.store.at = None
    await world.start()
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    await world.run()
    for _ in range(5):
        if world.is_idle:
            break
        world.look()
        await world.run()
    where = (at, is_written)
    assert world.is_idle, where
    assert await world.held() == {}, where
    assert not world.memory._open, where
    assert abs(world.ours("ETH") - eth) <= LOT, where
    for order_id, report in world.memory._reports.items():
        assert report.filled_qty <= world.memory._orders[order_id].qty, where
    fills = [entry for entry in world.memory.entries if entry.startswith("fill:")]
    told = [f"fill:{f.fill_id}" for r in world.memory._reports.values() for f in r.fills]
    assert sorted(fills) == sorted(told), where
    assert (await world.guard.mark("host", [])).open_trades == 0, where
    # And it trades again, once the market has been met anew.
    world.put(u=U_FAIR)
    world.look()
    world.clock.set(world.now_ns + S)
    await world.enter()
    assert world.is_holding, where


async def test_orders_on_their_way_in_a_crash_are_cancelled_not_sent_again():
    world = await RunnerWorld().start()
    world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    world.look()
    await world.clock.settle()
    assert world.phase is Phase.ENTERING
    assert len(world.memory._orders) == 2
    await world.start()
    await world.run()
    assert world.is_idle
    assert {str(r.status) for r in world.memory._reports.values()} == {"cancelled"}
    (done,) = world.listener.settlements
    assert done.realized_usdt == 0


async def test_a_yes_after_the_deadline_is_voided():
    world = RunnerWorld(make_risk=lambda guard: SlowYes(guard, world))
    await world.start()
    await world.enter()
    assert world.is_idle
    (done,) = world.listener.settlements
    assert done.kind is SettleKind.VOIDED
    assert world.memory._orders == {}
    assert await world.held() == {}


class SlowYes:
    """A guard whose answers take two seconds."""

    def __init__(self, guard, world):
        self.settle, self._guard, self._world = guard.settle, guard, world

    async def reserve(self, intent):
        verdict = await self._guard.reserve(intent)
        clock = self._world.clock
        await clock.sleep_until_ns(clock.now_ns() + 2 * S, "slow")
        return verdict


async def test_no_answer_from_the_guard_means_no_entry_and_the_room_is_voided():
    world = RunnerWorld(make_risk=Faulty)
    await world.start()
    world.risk.after["reserve"] = [OutcomeUnknown("reserve", 500)]
    world.risk.before["settle"] = [OutcomeUnknown("settle", 500)] * 3
    await world.enter()
    assert world.listener.refusals == [Refusal.RISK_UNREACHABLE]
    assert world.is_idle
    assert world.memory._orders == {}
    assert world.risk.calls["settle"] == 4
    assert await world.held() == {}


async def test_exits_need_no_answer_from_the_guard():
    world = RunnerWorld(make_risk=Faulty)
    await world.start()
    await world.enter()
    world.risk.before["settle"] = [StoreUnavailable("guard", "away")] * 3
    await world.leave()
    assert len(world.memory._reports) == 4  # both legs were left while it was silent
    assert world.is_idle  # and it heard of it later
    assert world.risk.calls["settle"] == 4


async def test_an_edge_that_is_gone_when_the_yes_arrives_is_not_taken():
    class EdgeGoes(Faulty):
        def __getattr__(self, name):
            call = super().__getattr__(name)

            async def reserve(intent):
                verdict = await call(intent)
                world.put(u=U_FAIR)
                return verdict

            return reserve if name == "reserve" else call

    world = RunnerWorld(make_risk=EdgeGoes)
    await world.start()
    await world.enter()
    assert world.listener.refusals == [Refusal.EDGE_GONE]
    assert world.is_idle
    assert world.memory._orders == {}


async def test_journal_and_postings_wait_for_a_store_that_is_away():
    world = await RunnerWorld(store=Faulty).start()
    world.store.before["append_event"] = [None, StoreUnavailable("pg", "away"), None, None]
    world.store.after["append_event"] = [OutcomeUnknown("append", 1)]
    world.store.before["accept_order"] = [StoreUnavailable("pg", "away")]
    await world.enter()
    assert world.is_holding
    assert len(world.listener.without_answer) == 1, "the order that was not accepted"
    await world.leave()
    assert world.is_idle
    assert "journal_waits" in world.log.events
    assert len(world.listener.reserve_ns) == 1


async def test_without_a_trade_number_nothing_begins():
    world = await RunnerWorld(store=Faulty).start()
    world.store.before["next_trade_number"] = [StoreUnavailable("pg", "away")]
    await world.enter()
    assert world.listener.refusals == [Refusal.STORE_UNAVAILABLE]
    assert world.is_idle
    assert not world.runner.is_busy


async def test_flatten_closes_a_held_trade_whatever_it_would_earn():
    world = await RunnerWorld().start()
    await world.enter()
    world.runner.exit_asked = ExitReason.RISK_FLATTEN
    await world.leave(u=U_CHEAP)
    assert world.is_idle
    assert world.listener.settlements[0].exit_reason == ExitReason.RISK_FLATTEN
    assert world.listener.settlements[0].realized_usdt < 0
    assert world.runner.exit_asked is None


async def test_a_dark_venue_delays_the_exit_and_nothing_is_left_on_one_leg():
    world = await RunnerWorld().start()
    await world.enter()
    world.market.alive("binance", is_up=False)
    world.runner.exit_asked = ExitReason.SHUTDOWN
    world.market.put(u=U_DEAR)
    world.runner.look(world.now_ns, world.now_ns, None)
    await world.run()
    assert world.is_holding
    assert len(world.memory._reports) == 2
    world.put(n=N_BOOK)
    await world.leave()
    assert world.is_idle


async def test_a_runner_whose_symbol_has_another_owner_stops():
    world = await RunnerWorld().start()
    await world.memory.claim_symbol(world.pair.symbol, "someone else")
    with pytest.raises(Fenced):
        await world.enter()
    assert world.memory._orders == {}
