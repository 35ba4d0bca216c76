"""
The strategy host: the newest books of its symbols, and one runner for each of them.

A batch of ticks is applied at once and every symbol it touches is looked at; what a look
leads to runs beside. Between batches the host sends marks to RiskGuard, learns its state,
and looks again, so that time-outs hold in a silent market too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Protocol

import msgspec

from arb_ray.actors.board_watch import BoardWatch
from arb_ray.actors.host_record import HostRecord
from arb_ray.actors.hosting import Loops
from arb_ray.actors.node_relay import NodeRelay
from arb_ray.actors.symbol_runner import RunnerParts, SymbolRunner
from arb_ray.actors.tasks import LoopTasks, Tasks
from arb_ray.actors.tick_samples import TickSamples
from arb_ray.actors.wire import pack, unpack
from arb_ray.domain.book import TickBatch
from arb_ray.domain.errors import (
    ArbError,
    OutcomeUnknown,
    PlaneUnavailable,
    Remedy,
    StoreUnavailable,
)
from arb_ray.domain.instrument import (
    RULES_NOT_TRADING,
    RULES_UNKNOWN,
    Instrument,
    InstrumentId,
    Pair,
    Symbol,
)
from arb_ray.domain.ledger import Balance
from arb_ray.domain.risk_intent import RiskState, RiskStatus
from arb_ray.engine.evaluation import REPEATED
from arb_ray.engine.gates import FreeBalances, Standing
from arb_ray.engine.latency import LatencyHistogram
from arb_ray.engine.market_view import MarketView
from arb_ray.engine.overload import Overload
from arb_ray.engine.status import HostStatus
from arb_ray.engine.strategy import SymbolStrategy
from arb_ray.engine.strategy_params import StrategyParams
from arb_ray.engine.trade_events import ExitReason
from arb_ray.engine.trade_state import Live
from arb_ray.ports import Clock, Execution, LedgerStore, RiskClient, Snapshot, TickSource

NS_PER_MS = 1_000_000
DRAIN_POLL_S = 0.1
LIVE_AGE_MAX_NS = 10 * 10**9
"""A book whose connection has not proved alive for so long is not live, whatever the gates allow;
they stop entries much earlier."""

NO_BALANCES = FreeBalances(0.0, 0.0, 0.0, 0.0)


class HostTimes(msgspec.Struct, frozen=True):
    """The pace of what a host does between batches."""

    mark_s: float = 0.25  # marks to RiskGuard, its state back, and a look at every symbol
    free_s: float = 1.0  # free balances
    snapshot_s: float = 5.0
    retry_s: float = 0.5  # while something that a start needs is away
    guard_silence_s: float = 5.0  # no entry is tried when RiskGuard was not heard for so long


class Keeper(Protocol):
    """Who keeps a live trade's writes while the ledger is away (``SpooledLedger``)."""

    @property
    def is_away(self) -> bool:
        """Whether writes are kept now; nothing is entered then."""
        ...

    @property
    def troubles(self) -> Sequence[str]:
        """What a person must see to, in sentences."""
        ...

    async def run(self) -> None:
        """Bring what is kept into the ledger, for ever."""
        ...


class NoKeeper:
    """Of a ledger in memory, that is never away."""

    is_away = False
    troubles: Sequence[str] = ()

    async def run(self) -> None:
        """Nothing to do, for ever."""
        await asyncio.get_running_loop().create_future()


class HostParts(msgspec.Struct, frozen=True):
    """What the wiring gives a host."""

    name: str
    session_id: str
    symbols: tuple[Symbol, ...]
    absent: frozenset[InstrumentId]  # books that a recording does not hold: watched, not traded
    leaving: frozenset[Symbol]  # not wanted any more: what is open is closed, nothing is entered
    params: StrategyParams
    node: str
    view: MarketView
    ledger: LedgerStore
    risk: RiskClient
    clock: Clock
    figures: Figures
    samples: TickSamples
    log: Any
    record: HostRecord
    make_execution: Callable[[Sequence[Pair]], Execution]
    make_runner_parts: Callable[[Execution, Tasks], RunnerParts]
    load_pairs: Callable[[list[Symbol]], Awaitable[Sequence[Pair]]]
    outbox: Outbox
    describe: Callable[[StrategyHost], HostStatus]
    snapshots: Callable[[StrategyHost], Iterable[Snapshot]]
    rss_mb: Callable[[], float]
    times: HostTimes
    keeper: Keeper = NoKeeper()
    boards: TickSource | None = None  # of this node; None: Ray's plane alone brings ticks
    relay: NodeRelay | None = None  # of what comes from feeds elsewhere
    must_share_memory: bool = False  # nothing is traded on Ray's plane


class Figures(Protocol):
    """What tells of a host in metrics."""

    async def run(self, host: StrategyHost) -> None:
        """Tell for ever."""
        ...


class Outbox(Protocol):
    """Where snapshots and states are left."""

    def put(self, row: Snapshot) -> None:
        """Leave a row."""
        ...

    async def run(self) -> None:
        """Send for ever."""
        ...

    async def flush(self) -> None:
        """Send now."""
        ...


class StrategyHost:
    """Serves some symbols."""

    def __init__(
        self, parts: HostParts, *, tasks: Tasks | None = None, loops: Loops | None = None
    ) -> None:
        self.parts = parts
        self.runners: dict[Symbol, SymbolRunner] = {}
        self.latency = LatencyHistogram()
        self.risk_status: RiskStatus | None = None
        self.is_draining = False
        self.overload = Overload()
        self._loops = loops or Loops()
        self._tasks = tasks or LoopTasks(self._loops.fail)
        self.born_ns = parts.clock.now_ns()
        self._free: dict[tuple[str, str], float] = {}
        self._standings: dict[Symbol, Standing] = {}
        self._why = "waiting for trading rules"
        self._risk_mono_ns = 0
        self._loop_lag_ms = 0.0
        self._is_loaded = False
        self.watch: BoardWatch | None = None
        if parts.boards is not None:
            self.watch = BoardWatch(
                parts.boards,
                parts.clock,
                take=self.apply,
                missed=parts.view.note_missed,
                fail=self._loops.fail,
                log=parts.log,
            )

    # -- life ---------------------------------------------------------------------------

    def start(self) -> None:
        """Recover, then serve."""
        if self.watch is not None:
            self._loops.start("plane", self.watch.run(self.born_ns))
        self._loops.start("serve", self._serve())
        self._loops.start("spool", self.parts.keeper.run())
        self._loops.start("outbox", self.parts.outbox.run())
        self._loops.start("metrics", self.parts.figures.run(self))

    async def _serve(self) -> None:
        await self._until_done(self.load, "trading rules")
        await self._until_done(self.recover, "the ledger")
        await self._until_done(self.refresh_risk, "RiskGuard")
        self._why = ""
        due_free = due_snapshot = 0.0
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(self.parts.times.mark_s)
            self._loop_lag_ms = (loop.time() - began - self.parts.times.mark_s) * 1e3
            self._look_at_load()
            await self._try(self.refresh_risk)
            if loop.time() >= due_free:
                due_free = loop.time() + self.parts.times.free_s
                await self._try(self.refresh_free)
            self.sweep()
            if loop.time() >= due_snapshot:
                due_snapshot = loop.time() + self.parts.times.snapshot_s
                self._snapshot()

    async def load(self) -> None:
        """Get the pairs with their rules and fees, and make a runner for each."""
        parts = self.parts
        pairs = await parts.load_pairs(list(parts.symbols))
        execution = parts.make_execution(pairs)
        shared = parts.make_runner_parts(execution, self._tasks)
        for pair in pairs:
            parts.view.watch(pair)
            brain = SymbolStrategy(pair, parts.params)
            self.runners[pair.symbol] = SymbolRunner(pair, brain, shared)
            self._standings[pair.symbol] = Standing(balances=NO_BALANCES, is_owner=False)
        self._is_loaded = True
        if parts.boards is not None:
            parts.boards.watch(parts.view.watched)

    async def recover(self) -> None:
        """Claim every symbol and pick up its open trade."""
        for runner in self.runners.values():
            if not runner.is_recovered:
                await runner.recover()

    async def _until_done(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        self._why = f"waiting for {what}"
        while True:
            try:
                await work()
            except ArbError as error:
                if error.remedy is Remedy.HALT:
                    raise
                self._why = f"waiting for {what}: {error}"
                await asyncio.sleep(self.parts.times.retry_s)
            else:
                return

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (StoreUnavailable, OutcomeUnknown) as error:
            self.parts.log.warning("risk_unreachable", host=self.parts.name, cause=str(error))
            self._renew_standings()

    # -- ticks --------------------------------------------------------------------------

    async def deliver(self, data: bytes) -> int:
        """
        Take an encoded batch; return this host's birth stamp.

        Before the pairs are known every book is unwatched and lost, so the stamp is 0 until
        then: the other one that follows makes feeds send every book anew.
        """
        batch = unpack(data, TickBatch)
        try:
            self.apply(batch)
        except Exception as error:
            # A bug of ours, not the feed's: it ends this process like a loop's would.
            self._loops.fail("deliver", error)
            raise
        return self.born_ns if self.runners else 0

    async def relay(self, data: bytes) -> int:
        """
        Lay an encoded batch where every host of this node sees it; return the birth stamp.

        Raises PlaneUnavailable when there is no board to lay it on.
        """
        relay = self.parts.relay
        try:
            is_taken = relay is not None and relay.take(unpack(data, TickBatch))
        except Exception as error:
            self._loops.fail("relay", error)
            raise
        if not is_taken:
            raise PlaneUnavailable(f"{self.parts.name} has no board to lay ticks on")
        return self.born_ns

    async def neighbours(self) -> list[str]:
        """Return the hosts that share this node's boards, this one among them."""
        boards = self.parts.boards
        return [] if boards is None or self.parts.relay is None else list(boards.neighbours())

    def apply(self, batch: TickBatch) -> None:
        """Take a batch and look at every symbol that it touches."""
        parts = self.parts
        mono_ns = parts.clock.mono_ns()
        changed = parts.view.apply(batch, mono_ns, parts.node)
        if not changed or not self.runners:
            return
        symbols: Collection[Symbol] = parts.view.symbols_by_instrument[changed[0]]
        if len(changed) > 1 or len(symbols) > 1:
            symbols = self._concerned(changed, mono_ns)
        self._look_at(symbols, mono_ns)
        done_ns = parts.clock.mono_ns()
        books, latency = parts.view.books, self.latency
        for instrument in changed:
            book = books[instrument]
            if book.is_read:
                latency.add(done_ns - book.recv_mono_ns)
        samples = parts.samples
        if done_ns >= samples.due_ns:
            samples.take(books[changed[-1]], mono_ns, done_ns)

    def _concerned(self, changed: Sequence[InstrumentId], mono_ns: int) -> Collection[Symbol]:
        """Return the symbols to look at: not those that rest, whatever F does within bounds."""
        view = self.parts.view
        concerned: dict[Symbol, None] = {}
        shared: list[InstrumentId] = []
        for instrument in changed:
            symbols = view.symbols_by_instrument[instrument]
            if len(symbols) == 1:
                concerned[symbols[0]] = None
            else:
                shared.append(instrument)
        for instrument in shared:
            # Its new books are looked at anyway, where U or N changed in the same batch.
            others = [one for one in view.symbols_by_instrument[instrument] if one not in concerned]
            for symbol in self._restless(instrument, others, mono_ns):
                concerned[symbol] = None
        return concerned

    def _restless(
        self, shared: InstrumentId, symbols: Iterable[Symbol], mono_ns: int
    ) -> list[Symbol]:
        view, runners, standings = self.parts.view, self.runners, self._standings
        book, doubts, now_ns = view.books[shared], view.doubts, self.parts.clock.now_ns()
        found = []
        for symbol in symbols:
            rests = runners[symbol].brain.rests
            if not rests(book, doubts, now_ns, mono_ns, standings[symbol]):
                found.append(symbol)
        if not book.is_read:
            book.is_read = True
            view.counts.read += 1
        return found

    def sweep(self) -> None:
        """Look at every symbol: time-outs, stale books and flatten orders need no tick."""
        self._look_at(self.runners, self.parts.clock.mono_ns())

    def _look_at_load(self) -> None:
        view, now_ns = self.parts.view, self.parts.clock.mono_ns()
        lost = sum(view.overwritten.values())
        if not self.overload.look(now_ns, view.counts.read, lost, self._loop_lag_ms):
            return
        if self.overload.is_overloaded:
            self.parts.log.warning("overloaded", host=self.parts.name, cause=self.overload.why)
        else:
            self.parts.log.info("overload_over", host=self.parts.name)

    def _look_at(self, symbols: Iterable[Symbol], mono_ns: int) -> None:
        parts, runners, standings = self.parts, self.runners, self._standings
        record = parts.record
        now_ns = parts.clock.now_ns()
        for symbol in symbols:
            runner = runners[symbol]
            if not runner.is_recovered:
                continue
            standing = standings[symbol]
            if standing.is_busy != runner.is_busy:
                standing = self._standing(runner)
            evaluation = runner.look(now_ns, mono_ns, standing)
            if evaluation is REPEATED:
                record.repeats += 1
            elif evaluation is not None:
                record.evaluated(symbol, evaluation, now_ns)

    def _standing(self, runner: SymbolRunner) -> Standing:
        standing = msgspec.structs.replace(self._standings[runner.symbol], is_busy=runner.is_busy)
        self._standings[runner.symbol] = standing
        return standing

    # -- RiskGuard ----------------------------------------------------------------------

    async def refresh_risk(self) -> None:
        """Send marks, learn the state, and obey an order to flatten."""
        marks = [runner.mark for runner in self.runners.values() if runner.mark is not None]
        status = await self.parts.risk.mark(self.parts.name, marks)
        self._risk_mono_ns = self.parts.clock.mono_ns()
        self.obey(status)

    def obey(self, status: RiskStatus) -> None:
        """Take RiskGuard's state to heart."""
        self.risk_status = status
        for runner in self.runners.values():
            if status.flatten_all or runner.symbol in status.flatten:
                runner.exit_asked = runner.exit_asked or ExitReason.RISK_FLATTEN
            elif runner.exit_asked is ExitReason.RISK_FLATTEN:
                runner.exit_asked = None  # the order is over; a later trade knows nothing of it
            if runner.symbol in self.parts.leaving:
                runner.exit_asked = runner.exit_asked or ExitReason.SHUTDOWN
        self._renew_standings()

    async def refresh_free(self) -> None:
        """Learn what is free; a signal only, RiskGuard decides."""
        balances: Sequence[Balance] = await self.parts.risk.free()
        self._free = {(b.venue, b.asset): float(b.amount) for b in balances}
        self._renew_standings()

    def _renew_standings(self) -> None:
        status = self.risk_status
        silence_ns = self.parts.clock.mono_ns() - self._risk_mono_ns
        is_heard = silence_ns <= self.parts.times.guard_silence_s * 1e9
        # One symbol's write that waits tells of the store that all share.
        is_waiting = any(runner.is_store_away for runner in self.runners.values())
        is_store_up = not (is_waiting or self.parts.keeper.is_away)
        for runner in self.runners.values():
            standing = Standing(
                balances=self._balances(runner.pair),
                is_busy=runner.is_busy,
                is_owner=runner.is_recovered,
                is_draining=self.is_draining or runner.symbol in self.parts.leaving,
                is_guard_reachable=is_heard,
                is_store_up=is_store_up,
                is_asset_known=_source(runner.pair) != RULES_UNKNOWN,
                is_venue_healthy=_source(runner.pair) != RULES_NOT_TRADING,
                risk_state=status.state if status else RiskState.HALTED,
            )
            if standing == self._standings[runner.symbol]:
                # The same object again tells the strategy, at the cheapest, that nothing changed.
                standing = self._standings[runner.symbol]
            self._standings[runner.symbol] = standing
            runner.standing = standing  # an entry that is under way asks for it once more

    def _balances(self, pair: Pair) -> FreeBalances:
        a, b = pair.a.instrument, pair.b.instrument
        return FreeBalances(
            self._free_of(a, a.quote),
            self._free_of(a, a.asset),
            self._free_of(b, b.quote),
            self._free_of(b, b.asset),
        )

    def _free_of(self, instrument: Instrument, asset: str) -> float:
        return self._free.get((instrument.venue, asset), 0.0)

    # -- stopping -----------------------------------------------------------------------

    async def drain(self, flatten: bool, timeout_s: float) -> int:
        """
        Stop entries; close what is open if asked to; return how many trades are still open.

        A trade that is being entered or left is always finished first, within the time. A
        host that has just been started first learns what is open; what it could not learn in
        time is counted from the journal. Raises StoreUnavailable when that is away too.
        """
        self.is_draining = True
        self._renew_standings()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while self._unfinished(flatten=flatten):
            if loop.time() > deadline:
                break
            await asyncio.sleep(DRAIN_POLL_S)
            self._ask_to_leave(flatten=flatten)
            self.sweep()
        await self.parts.outbox.flush()
        return self.open_positions + await self._stored_trades()

    def _ask_to_leave(self, *, flatten: bool) -> None:
        # At every turn: an order of RiskGuard's that is over takes its own reason back.
        for runner in self.runners.values() if flatten else ():
            runner.exit_asked = runner.exit_asked or ExitReason.SHUTDOWN

    async def _stored_trades(self) -> int:
        """Count the open trades of symbols that were not recovered yet."""
        count = 0
        for symbol in self.parts.symbols:
            runner = self.runners.get(symbol)
            is_known = runner.is_recovered if runner else self._is_loaded
            if not is_known and await self.parts.ledger.open_trade(symbol) is not None:
                count += 1
        return count

    @property
    def _is_recovered(self) -> bool:
        return self._is_loaded and all(one.is_recovered for one in self.runners.values())

    def _unfinished(self, *, flatten: bool) -> bool:
        return not self._is_recovered or any(
            runner.is_busy and (flatten or not runner.is_at_rest)
            for runner in self.runners.values()
        )

    async def stop(self) -> None:
        """End everything; open trades stay in the journal."""
        self._snapshot()
        await self._loops.stop()
        if self.parts.relay is not None:
            self.parts.relay.stop()
        if isinstance(self._tasks, LoopTasks):
            await self._tasks.cancel_all()
        try:
            await self.parts.outbox.flush()
        except ArbError as error:
            self.parts.log.warning("outbox_lost", cause=str(error))
        await self.parts.ledger.close()

    # -- figures ------------------------------------------------------------------------

    @property
    def open_positions(self) -> int:
        """Trades with a position, or orders on their way."""
        return sum(isinstance(runner.trade, Live) for runner in self.runners.values())

    @property
    def live_symbols(self) -> list[str]:
        """Symbols of which every book that can come has arrived."""
        return [runner.symbol for runner in self.runners.values() if self._is_live(runner.pair)]

    def _is_live(self, pair: Pair) -> bool:
        wanted = [leg.instrument.id for leg in (pair.a, pair.b, pair.fx)]
        return all(one in self.parts.absent or self._has_fresh_book(one) for one in wanted)

    def _has_fresh_book(self, instrument: InstrumentId) -> bool:
        book = self.parts.view.books.get(instrument)
        if book is None or not book.bids:
            return False
        return book.age_ns(self.parts.clock.mono_ns()) <= LIVE_AGE_MAX_NS

    @property
    def why(self) -> str:
        """What a start still waits for; empty when it is ready."""
        if not self._why and self.parts.must_share_memory and self.plane_why:
            return f"topology.tick_plane is shm: {self.plane_why}"
        return self._why

    @property
    def plane(self) -> str:
        """What brings this host's ticks: ``shm`` or ``ray``."""
        return "shm" if self.watch is not None and self.watch.is_open else "ray"

    @property
    def plane_why(self) -> str:
        """Why it is not shared memory although that is wanted; else nothing."""
        return "" if self.watch is None else self.watch.why

    @property
    def loop_lag_ms(self) -> float:
        """How late the last timer of the event loop was."""
        return self._loop_lag_ms

    async def status(self) -> bytes:
        """Return an encoded ``HostStatus``."""
        return pack(self.parts.describe(self))

    def _snapshot(self) -> None:
        for row in self.parts.snapshots(self):
            self.parts.outbox.put(row)


def _source(pair: Pair) -> str:
    """Return where a pair's rules come from; the worse of both markets."""
    for rules in (pair.a.rules, pair.b.rules):
        if not rules.is_tradable:
            return rules.source
    return pair.a.rules.source
