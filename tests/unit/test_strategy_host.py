"""A host of two symbols: books in, looks at what changed, obedience to RiskGuard, an orderly end."""

import asyncio
from decimal import Decimal

import msgspec
import pytest

from arb_ray.actors.host_metrics import HostMetrics
from arb_ray.actors.host_record import HostRecord
from arb_ray.actors.host_status import host_status, snapshots, trade_row
from arb_ray.actors.strategy_host import LIVE_AGE_MAX_NS, HostParts, HostTimes, StrategyHost
from arb_ray.actors.symbol_runner import RunnerParts
from arb_ray.actors.tick_samples import TickSamples
from arb_ray.actors.wire import pack, unpack
from arb_ray.adapters.clock import VirtualClock
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.venues.paper_execution import PaperExecution
from arb_ray.domain.errors import BadInput, OutcomeUnknown, PlaneUnavailable, StoreUnavailable
from arb_ray.domain.opportunity import Refusal
from arb_ray.domain.risk_intent import RiskState
from arb_ray.engine.decision_log import DecisionLog
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.status import HostStatus
from arb_ray.engine.trade_events import ExitReason
from tests.shell_world import (
    LATENCIES,
    MAX_AGE_NS,
    TERMS,
    Books,
    Counts,
    Ends,
    Faulty,
    Log,
    make_guard,
)
from tests.signal_market import (
    F_BOOK,
    F_ID,
    N_BOOK,
    N_ID,
    NODE,
    T0,
    U_CHEAP,
    U_DEAR,
    U_FAIR,
    U_ID,
    S,
    make_batch,
    make_update,
    params,
    spot_pair,
)


class Outbox:
    def __init__(self):
        self.rows, self.flushes = [], 0

    def put(self, row):
        self.rows.append(row)

    async def run(self):
        await asyncio.Event().wait()

    async def flush(self):
        self.flushes += 1


class Keeper:
    """Keeps writes of live trades; told how it goes."""

    def __init__(self):
        self.is_away, self.troubles, self.is_running = False, [], False

    async def run(self):
        self.is_running = True
        await asyncio.Event().wait()


class World:
    """A host on a virtual clock; nothing runs but what a test calls."""

    def __init__(self):
        self.clock = VirtualClock(T0)
        self.memory = MemoryStore()
        self.store = Faulty(self.memory)
        self.guard = make_guard(self.memory, self.clock)
        self.risk = Faulty(self.guard)
        self.view = MarketView(transit_allowance_ns=0)
        self.log, self.metrics, self.ends, self.outbox = Log(), Counts(), Ends(), Outbox()
        self.record = HostRecord(
            self.metrics,
            self.log,
            DecisionLog(),
            lambda line: self.outbox.put(trade_row("s1", line)),
        )
        self.keeper = Keeper()
        self.pair = spot_pair()
        self.pairs_errors = []
        self.seq = 0
        self.host = StrategyHost(self.parts(), tasks=self.clock, loops=self.ends.loops)

    def parts(self):
        def make_execution(pairs):
            return PaperExecution(
                legs={leg.instrument.id: leg for pair in pairs for leg in (pair.a, pair.b)},
                latencies=LATENCIES,
                seed=1,
                books=Books(self.view, self.clock),
                ledger=self.store,
                clock=self.clock,
                metrics=self.metrics,
                log=self.log,
            )

        def make_runner_parts(execution, tasks):
            return RunnerParts(
                self.view, self.store, self.risk, execution, self.clock, tasks, TERMS,
                MAX_AGE_NS, "test", self.log, self.record,
            )  # fmt: skip

        async def load_pairs(symbols):
            if self.pairs_errors:
                raise self.pairs_errors.pop(0)
            return [self.pair]

        fields = {
            "name": "host:000@v",
            "session_id": "s1",
            "symbols": (self.pair.symbol,),
            "absent": frozenset(),
            "leaving": frozenset(),
            "params": params(cool_down_s=0.0, retry_cool_down_s=0.0),
            "node": NODE,
            "view": self.view,
            "ledger": self.store,
            "risk": self.risk,
            "clock": self.clock,
            "figures": HostMetrics(self.metrics),
            "samples": TickSamples(self.metrics),
            "log": self.log,
            "record": self.record,
            "make_execution": make_execution,
            "make_runner_parts": make_runner_parts,
            "load_pairs": load_pairs,
            "outbox": self.outbox,
            "describe": host_status,
            "snapshots": snapshots,
            "rss_mb": lambda: 1.0,
            "times": HostTimes(mark_s=0.001, free_s=0.001, snapshot_s=0.001, retry_s=0.001),
            "keeper": self.keeper,
        }
        return HostParts(**fields)

    async def start(self):
        await self.guard.recover()
        await self.host.load()
        await self.host.recover()
        await self.host.refresh_risk()
        await self.host.refresh_free()
        return self

    def batch(self, **books):
        now_ns = self.clock.now_ns()
        ids = {"u": (U_ID, "upbit"), "n": (N_ID, "binance"), "f": (F_ID, "upbit")}
        updates = []
        for name, sides in books.items():
            self.seq += 1
            updates.append((ids[name][1], make_update(ids[name][0], self.seq, sides, now_ns)))
        return [
            pack(make_batch(feed, [u for f, u in updates if f == feed], now_ns))
            for feed in ("upbit", "binance")
        ]

    async def put(self, **books):
        return [await self.host.deliver(batch) for batch in self.batch(**books)]

    async def run(self):
        await self.clock.settle()
        while self.clock.next_due() is not None:
            self.clock.set(self.clock.next_due()[0])
            await self.put()
            await self.clock.wake_next()

    async def enter(self):
        await self.put(n=N_BOOK, f=F_BOOK, u=U_CHEAP)
        await self.run()

    @property
    def runner(self):
        return self.host.runners[self.pair.symbol]

    async def status(self):
        return unpack(await self.host.status(), HostStatus)


@pytest.fixture
async def world():
    return await World().start()


async def test_ticks_lead_to_a_trade_and_its_end(world):
    await world.enter()
    assert world.host.open_positions == 1
    assert world.host.live_symbols == ["ETH"]
    await world.put(u=U_DEAR)
    await world.run()
    status = await world.status()
    assert (status.trades_opened, status.trades_closed, status.open_positions) == (1, 1, 0)
    assert status.realized_usdt > 0
    assert status.received == 4
    assert [line.what for line in status.recent_trades] == ["opened", "closed"]
    assert status.recent_opportunities[0].outcome == "signalled"
    assert sum(status.latency_counts.values()) == status.decisions == 4


async def test_a_trade_leaves_a_row_when_it_opens_and_when_it_ends(world):
    await world.enter()
    await world.put(u=U_DEAR)
    await world.run()
    opened, closed = [row for row in world.outbox.rows if row.is_event]
    assert {row.table for row in (opened, closed)} == {"position_snapshots"}
    assert (opened.session_id, opened.symbol, opened.payload["what"]) == ("s1", "ETH", "opened")
    assert closed.payload["what"] == "closed"
    assert closed.payload["trade_id"] == opened.payload["trade_id"]
    assert Decimal(closed.payload["realized_usdt"]) > 0
    assert isinstance(closed.payload["realized_usdt"], str), "money is text"
    phases = (opened.payload["phase"], closed.payload["phase"])
    assert phases == ("holding", "idle"), "so that the newest row of a symbol tells its state"


async def test_nothing_is_entered_and_what_is_open_is_left_while_writes_are_kept_on_the_disk(world):
    await world.enter()
    world.keeper.is_away = True
    await world.host.refresh_free()
    await world.put(u=U_DEAR)
    await world.run()
    assert world.host.open_positions == 0
    await world.enter()
    assert world.host.open_positions == 0
    assert world.runner.last.refusal is Refusal.STORE_UNAVAILABLE
    world.keeper.is_away = False
    await world.host.refresh_free()
    await world.enter()
    assert world.host.open_positions == 1


async def test_a_host_tells_what_its_spool_has_to_tell_a_person_and_replays_all_its_life(world):
    assert (await world.status()).troubles == []
    world.keeper.troubles = ["the disk is full"]
    assert (await world.status()).troubles == ["the disk is full"]
    world.host.start()
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.keeper.is_running
    await world.host.stop()


async def test_books_that_come_before_the_pairs_are_asked_for_again():
    world = World()
    await world.guard.recover()
    assert await world.put(u=U_FAIR, n=N_BOOK, f=F_BOOK) == [0, 0]
    await world.host.load()
    first, second = await world.put()
    assert first == second != 0


async def test_no_entry_before_recovery_nor_before_the_guard_was_heard():
    world = World()
    await world.guard.recover()
    await world.host.load()
    await world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    assert world.runner.last is None
    await world.host.recover()
    world.host.sweep()
    assert world.runner.last.refusal is Refusal.NOT_OWNER
    await world.host.refresh_free()
    world.host.sweep()
    assert world.runner.last.refusal is Refusal.RISK_UNREACHABLE
    await world.host.refresh_risk()
    world.host.sweep()
    assert world.runner.last.opportunity is not None
    await world.run()


async def test_a_guard_that_is_silent_for_long_stops_entries_at_the_gate(world):
    world.risk.before["mark"] = [OutcomeUnknown("mark", 1)] * 2
    await world.host._try(world.host.refresh_risk)
    world.clock.set(T0 + 6 * S)
    await world.host._try(world.host.refresh_risk)
    await world.put(u=U_CHEAP, n=N_BOOK, f=F_BOOK)
    assert world.runner.last.refusal is Refusal.RISK_UNREACHABLE
    await world.host._try(world.host.refresh_risk)
    world.host.sweep()
    assert world.runner.last.refusal is not Refusal.RISK_UNREACHABLE
    await world.run()


async def test_a_guard_that_is_not_active_lets_nothing_begin(world):
    await world.guard.command("reduce", "doubt", "me")
    await world.host.refresh_risk()
    assert world.host.risk_status.state is RiskState.REDUCE_ONLY
    await world.enter()
    assert world.runner.last.refusal is Refusal.RISK_REFUSED


async def test_an_order_to_flatten_closes_and_does_not_outlive_itself(world):
    await world.enter()
    await world.guard.command("flatten", "out", "me")
    await world.host.refresh_risk()
    world.host.sweep()
    await world.run()
    assert world.host.open_positions == 0
    assert world.record.closed_by_symbol["ETH"] == 1
    await world.host.refresh_risk()
    assert world.runner.exit_asked is ExitReason.RISK_FLATTEN
    await world.guard.command("resume", "in", "me")
    await world.host.refresh_risk()
    assert world.runner.exit_asked is None
    await world.put(u=U_CHEAP)
    world.clock.set(world.clock.now_ns() + S)
    await world.put(u=U_CHEAP)
    await world.run()
    world.host.sweep()
    await world.run()
    assert world.host.open_positions == 1


async def test_the_guard_is_sent_marks_of_what_is_open(world):
    await world.enter()
    world.host.sweep()
    await world.host.refresh_risk()
    (held,) = world.guard._keeper.book._open.values()
    assert held.mark == world.runner.mark
    assert held.mark.pnl_usdt < 0


async def test_draining_closes_trades_when_asked_and_begins_none(world):
    await world.enter()
    drain = asyncio.create_task(world.host.drain(True, 30.0))
    while not drain.done():
        await world.run()
        await asyncio.sleep(0.01)
    assert await drain == 0
    assert world.outbox.flushes == 1
    await world.put(u=U_CHEAP)
    assert world.runner.last.refusal is Refusal.DRAINING


async def test_draining_without_flatten_leaves_a_held_trade_in_the_journal(world):
    await world.enter()
    assert await world.host.drain(False, 30.0) == 1
    await world.host.stop()
    assert await world.memory.open_trade("ETH") is not None


async def started_again(world):
    """A second process over the same ledger, which has loaded nothing yet."""
    second = World()
    second.memory, second.guard = world.memory, make_guard(world.memory, second.clock)
    second.store, second.risk = Faulty(second.memory), Faulty(second.guard)
    second.clock.set(world.clock.now_ns())
    second.host = StrategyHost(second.parts(), tasks=second.clock, loops=second.ends.loops)
    await second.guard.recover()
    return second


async def test_a_restarted_host_recovers_before_it_has_drained(world):
    await world.enter()
    second = await started_again(world)
    drain = asyncio.create_task(second.host.drain(True, 30.0))
    await asyncio.sleep(0.15)
    assert not drain.done()
    await second.host.load()
    await second.host.recover()
    await second.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    while not drain.done():
        await second.run()
        await asyncio.sleep(0.01)
    assert await drain == 0
    assert second.record.closed_by_symbol["ETH"] == 1
    assert (second.record.trades_opened, second.record.trades_closed) == (1, 1)


async def test_what_a_host_could_not_recover_in_time_is_counted_from_the_journal(world):
    await world.enter()
    second = await started_again(world)
    assert await second.host.drain(True, 0.0) == 1
    await second.host.load()
    assert await second.host.drain(True, 0.0) == 1


async def test_a_shutdown_outlives_an_order_to_flatten_that_is_over(world):
    await world.enter()
    await world.guard.command("flatten", "out", "me")
    await world.host.refresh_risk()
    world.view.books[N_ID].connection.is_up = False  # it cannot be left now
    drain = asyncio.create_task(world.host.drain(True, 30.0))
    await asyncio.sleep(0.15)
    await world.guard.command("resume", "in", "me")
    await world.host.refresh_risk()
    assert world.runner.exit_asked is None
    await asyncio.sleep(0.15)
    assert world.runner.exit_asked is ExitReason.SHUTDOWN
    world.view.books[N_ID].connection.is_up = True
    while not drain.done():
        await world.run()
        await asyncio.sleep(0.01)
    assert await drain == 0


async def test_a_halt_between_grant_and_order_stops_the_entry(world):
    reserve = world.risk.inner.reserve

    async def halt_after(intent):
        verdict = await reserve(intent)
        await world.guard.command("halt", "x", "me")
        await world.host.refresh_risk()
        return verdict

    world.risk.inner.reserve = halt_after
    await world.enter()
    assert world.memory._orders == {}
    assert world.runner.trade.phase == "idle"


async def test_a_trade_that_was_evened_out_counts_as_opened_and_closed(world):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_CHEAP)
    await world.clock.settle()
    await world.put(n=(((1900.0, 10.0),), ((2000.1, 10.0),)))  # Binance fills nothing
    await world.run()
    status = await world.status()
    assert [line.reason for line in status.recent_trades] == ["evened_out"]
    assert (status.trades_opened, status.trades_closed) == (1, 1)
    assert world.metrics.counters["trades_opened"] == 1


async def test_an_unreadable_batch_is_the_senders_fault(world):
    with pytest.raises(BadInput):
        await world.host.deliver(b"\x01nonsense")
    assert world.ends.ended == []


async def test_a_bug_met_by_a_tick_ends_the_process(world):
    world.runner.look = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await world.put(u=U_CHEAP)
    assert [name for name, _ in world.ends.ended] == ["deliver"]


async def test_a_start_waits_for_whatever_is_away_and_says_so():
    world = World()
    world.pairs_errors = [OutcomeUnknown("pairs", 1)] * 3
    world.store.before["claim_symbol"] = [StoreUnavailable("postgres", "away")] * 3
    world.risk.before["mark"] = [OutcomeUnknown("mark", 1)] * 3
    said = set()
    world.host.start()
    for turn in range(2_000):
        said.add(world.host.why)
        if turn == 20:
            await world.guard.recover()
        if not world.host.why:
            break
        await asyncio.sleep(0.001)
    text = " ".join(said)
    for word in ("trading rules", "the ledger", "RiskGuard"):
        assert f"waiting for {word}" in text
    assert (await world.status()).ready
    for _ in range(100):
        if world.outbox.rows:
            break
        await asyncio.sleep(0.002)
    assert {row.table for row in world.outbox.rows} == {"metrics_snapshots"}
    await world.host.stop()
    assert world.ends.ended == []


async def test_an_open_trade_is_in_the_snapshots(world):
    await world.enter()
    await world.host.stop()
    (row,) = [
        row for row in world.outbox.rows if row.table == "position_snapshots" and not row.is_event
    ]
    assert row.payload["trade_id"] == "test:ETH:1"
    assert row.payload["phase"] == "holding"


async def test_a_symbol_that_leaves_enters_nothing_and_closes_what_it_has():
    world = await World().start()
    await world.enter()
    assert world.host.open_positions == 1
    leaving = frozenset({world.pair.symbol})
    world.host.parts = msgspec.structs.replace(world.host.parts, leaving=leaving)
    await world.host.refresh_risk()
    world.host.sweep()
    await world.run()
    status = await world.status()
    assert (status.trades_closed, status.open_positions) == (1, 0)
    assert status.recent_trades[-1].reason == "shutdown"
    await world.enter()
    assert (await world.status()).trades_opened == 1


async def test_a_symbol_whose_books_nobody_refreshes_is_not_live(world):
    await world.put(n=N_BOOK, f=F_BOOK, u=U_FAIR)
    assert world.host.live_symbols == ["ETH"]
    world.clock.set(world.clock.now_ns() + LIVE_AGE_MAX_NS + 1)
    assert world.host.live_symbols == []


async def test_a_drained_host_says_so(world):
    assert not (await world.status()).draining
    await world.host.drain(False, 0.0)
    assert (await world.status()).draining


class NoBoards:
    """A node without shared memory."""

    missed = unknown = torn = boards = 0

    def open(self, born_ns):
        raise PlaneUnavailable("/dev/shm has no room for 2.0 MB")

    def watch(self, instruments):
        self.watched = instruments


@pytest.mark.parametrize(("is_demanded", "is_ready"), [(False, True), (True, False)])
async def test_without_shared_memory_it_is_ready_only_where_ray_s_plane_will_do(
    is_demanded, is_ready
):
    world = World()
    parts = msgspec.structs.replace(world.parts(), boards=NoBoards(), must_share_memory=is_demanded)
    world.host = StrategyHost(parts, tasks=world.clock, loops=world.ends.loops)
    await world.start()
    watching = asyncio.get_running_loop().create_task(world.host.watch.run(1))
    await asyncio.sleep(0)
    world.host._why = ""
    status = host_status(world.host)
    assert status.ready is is_ready
    assert (status.plane, status.plane_why) == ("ray", "/dev/shm has no room for 2.0 MB")
    assert parts.boards.watched == {U_ID, N_ID, F_ID}
    assert ("no room" in status.why) is not is_ready
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


class Relay:
    """Takes batches, until it is told not to."""

    def __init__(self):
        self.batches, self.answer = [], True

    def take(self, batch):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.batches.append(batch)
        return self.answer


async def test_a_host_relays_for_its_node_and_says_so_when_it_cannot():
    world = World()
    (batch, _) = world.batch(u=U_FAIR)
    with pytest.raises(PlaneUnavailable):
        await world.host.relay(batch)
    assert await world.host.neighbours() == []
    relay, boards = Relay(), NoBoards()
    boards.neighbours = lambda: ("host:000@v", "host:001@v")
    parts = msgspec.structs.replace(world.parts(), boards=boards, relay=relay)
    host = StrategyHost(parts, tasks=world.clock, loops=world.ends.loops)
    assert await host.neighbours() == ["host:000@v", "host:001@v"]
    assert await host.relay(batch) == host.born_ns
    assert [pack(one) for one in relay.batches] == [batch]
    relay.answer = False
    with pytest.raises(PlaneUnavailable):
        await host.relay(batch)
    assert world.ends.ended == []
    relay.answer = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await host.relay(batch)
    assert [name for name, _ in world.ends.ended] == ["relay"]
