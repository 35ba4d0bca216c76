"""
One seed's life: a start, half a minute of trouble, then the healing, and what is left.

In the trouble processes die and are doubled, the store goes away, links are cut, feeds fall
silent, and an operator halts, resumes and flattens. Then everything works again, the
operator orders all trades closed, and within a bound nothing may be left open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any

import msgspec

from arb_ray.actors.risk_guard import LimitsInForce, RiskGuard
from arb_ray.actors.strategy_host import StrategyHost
from arb_ray.adapters.storage.memory import MemoryStore
from arb_ray.adapters.storage.spooled_ledger import LEFT_S, SpooledLedger
from arb_ray.domain.errors import ArbError, Fenced
from arb_ray.engine.risk_limits import RiskLimits
from tests.sim.actors import CALL_TIMEOUT_S, DEAF, FarGuard, build_guard, build_host
from tests.sim.checkers import Checkers
from tests.sim.faults import Chance, FaultyStore, Link
from tests.sim.history import Commit, History, Violation
from tests.sim.loop import MIDNIGHT_NS, NS_PER_S, Deadlock, Process, ProcessClock, VirtualLoop
from tests.sim.market import PAIRS, SimMarket
from tests.sim.spools import Node, NodePlace

D = Decimal
STEP_S = 0.5
TROUBLE_S = 30.0
HEAL_MAX_S = 60.0
LATE_S = 2.5
"""Longer than any message travels: a doubled one that arrives after the end is seen."""

GUARD = "guard"
HOSTS = {"host:0": ("ETH", "SOL"), "host:1": ("PEPE",)}
ELSEWHERE = 0.35
"""Chance that a host is started on the other host's node."""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a seed."""

    seed: int
    violations: tuple[Violation, ...]
    trades: int
    grants: int
    crashes: int
    commits: int
    digest: int
    trace: tuple[str, ...] = ()


def draw_limits(rng: Any) -> RiskLimits:
    """Choose limits that bind: some lives may have one trade open, some all three."""
    return RiskLimits(
        daily_loss_usdt=D(rng.choice((8, 14, 21, 40, 70, 100))),
        symbol_daily_loss_usdt=D(rng.choice((8, 20, 60))),
        drawdown_usdt=D(rng.choice((4, 15, 80))),
        trade_notional_usdt=D(rng.choice((400, 1000, 1000, 1000))),
        symbol_notional_usdt=D(1000),
        total_notional_usdt=D(rng.choice((900, 3000))),
        open_trades_count=rng.choice((1, 2, 3)),
        entries_per_minute_count=rng.choice((6, 20, 60)),
        consecutive_losses_count=rng.choice((2, 4)),
        loss_cool_down_s=rng.choice((2.0, 8.0)),
        mark_age_max_ms=2000,
        anomaly_window_count=rng.choice((4, 12)),
        win_rate_max_ratio=0.9,
        fees_min_bps=D(1),
        flatten_on_halt=rng.choice((True, False)),
    )


class Role:
    """A place in the cluster, and the processes that think they fill it, newest last."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.born = 0
        self.alive: list[tuple[Process, Any]] = []


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.seed = seed
        self.chance = Chance(seed)
        rng = self.rng = self.chance.rng
        self.loop = VirtualLoop(MIDNIGHT_NS - round(rng.choice((-3600, 5, 15, 25)) * NS_PER_S))
        self.history = History(self.loop.time)
        if is_traced:
            self.history.lines = []
        self.limits = LimitsInForce(1, draw_limits(rng))
        self.opening_share = rng.choice((D(1), D(1), D("0.6"), D("0.35")))
        self.max_hold_ns = rng.choice((6, 6, 1000)) * NS_PER_S
        self.clock_error_ns = rng.choice((0, 20, 20, 700)) * 1_000_000
        self.offsets_ns: dict[str, int] = {}  # by process: how wrong its wall clock is
        self.store = MemoryStore()
        self.checkers = Checkers(self.history, self.offsets_ns)
        self.market = SimMarket(rng, self.loop.now_ns, are_together=self.chance.rates.is_crowded)
        self.link = Link(self.loop, self.chance, self.history)
        self.link.on_marks = self.checkers.risk.marked
        self.roles = {name: Role(name) for name in (GUARD, *HOSTS)}
        self.nodes = {name: Node(name, self.loop, self.chance, self.history) for name in HOSTS}
        self.node_of: dict[str, Node] = {}  # by host process
        self.history.watch(self._see_claim, lambda _commit: None)
        self.crashes = 0
        self.is_store_away = False
        self.cut: set[str] = set()
        self.operator = Process("operator", self.loop, lambda _process: None)
        self._is_over = False

    # -- processes ------------------------------------------------------------------------

    def start(self, role: Role) -> None:
        """Start a process for a role, beside those that are alive."""
        role.born += 1
        name = role.name if role.born == 1 else f"{role.name}#{role.born}"
        process = Process(name, self.loop, lambda dead: self._died(role, dead))
        error_ns = self.clock_error_ns
        self.offsets_ns[name] = self.rng.randint(-error_ns, error_ns)
        clock = ProcessClock(self.loop, self.offsets_ns[name])
        store = FaultyStore(
            self.store, process, self.loop, self.chance, self.history, lambda: self.is_store_away
        )

        def on_end(loop_name: str, error: BaseException | None) -> None:
            self._ended(process, loop_name, error)

        served: RiskGuard | StrategyHost
        if role.name == GUARD:
            served = build_guard(
                process, store, clock, lambda: self.limits, self.opening_share, on_end
            )
        else:
            risk = FarGuard(self._caller(process, role.name))
            symbols = HOSTS[role.name]
            ledger = self._spooled(role.name, process, store)
            served = build_host(
                process, symbols, ledger, risk, clock, self.chance, self.max_hold_ns, on_end
            )
        role.alive.append((process, served))
        self.history.say(name, "starts")
        process.run(served.start)

    def _spooled(self, home: str, process: Process, store: FaultyStore) -> SpooledLedger:
        others = [name for name in HOSTS if name != home]
        place = self.rng.choice(others) if self.chance.happens(ELSEWHERE) else home
        node = self.node_of[process.name] = self.nodes[place]
        return SpooledLedger(
            store,
            NodePlace(node, process),
            probe=lambda: store.find_report(""),
            cut=lambda: None,
            metrics=DEAF,
            log=DEAF,
        )

    def _see_claim(self, commit: Commit) -> None:
        if commit.method == "claim_symbol":
            self.node_of[commit.process].claimed(commit.process, commit.arguments[0])

    def _ended(self, process: Process, loop_name: str, error: BaseException | None) -> None:
        if not process.is_alive:
            return
        self.history.say(process.name, f"leaves: {loop_name} {error!r}")
        if not isinstance(error, Fenced):
            self.history.violated("bug", f"{process.name}/{loop_name} ended with {error!r}")
        process.kill()

    def _died(self, role: Role, dead: Process) -> None:
        self.crashes += 1
        self.history.say(dead.name, "dies")
        for node in self.nodes.values():
            for spool in node.spools:
                if spool.holder is dead:
                    spool.died_s = self.loop.time()
        was_newest = role.alive[-1][0] is dead
        role.alive = [(process, served) for process, served in role.alive if process is not dead]
        if was_newest and not self._is_over:
            # Ray starts it again, whether an older one is still alive behind a partition or not.
            self.loop.call_later(self.chance.between(0.05, 1.5), self._restart, role, role.born)

    def _restart(self, role: Role, born: int) -> None:
        if role.born == born and not self._is_over:
            self.start(role)

    def _guard(self) -> tuple[Process, Any] | None:
        """Return the guard that a message reaches: at times the one that should be gone."""
        alive = self.roles[GUARD].alive
        if not alive:
            return None
        return alive[0] if self.chance.happens(0.3) else alive[-1]

    def _caller(self, source: Process, place: str) -> Callable[..., Any]:
        async def call(method: str, *arguments: Any) -> Any:
            return await self.link.call(
                source,
                self._guard,
                method,
                arguments,
                CALL_TIMEOUT_S,
                is_cut=lambda: place in self.cut,
            )

        return call

    # -- trouble --------------------------------------------------------------------------

    async def _repeat(self, every_s: float, act: Callable[[], Any]) -> None:
        """Do something at random instants until the calm."""
        while every_s:
            await asyncio.sleep(self.rng.expovariate(1 / every_s))
            if self.chance.is_calm:
                return
            await act()

    async def _crash(self) -> None:
        role = self.roles[self.rng.choice(list(self.roles))]
        if role.alive:
            self.rng.choice(role.alive)[0].kill()

    async def _double(self) -> None:
        role = self.roles[self.rng.choice(list(self.roles))]
        if len(role.alive) < 2:
            self.start(role)

    async def _outage(self) -> None:
        self.history.say("store", "goes away")
        self.is_store_away = True
        await asyncio.sleep(self.chance.between(0.3, 8))
        self.is_store_away = False

    async def _partition(self) -> None:
        place = self.rng.choice(list(HOSTS))
        self.history.say(place, "is cut off")
        self.cut.add(place)
        await asyncio.sleep(self.chance.between(0.3, 4))
        self.cut.discard(place)

    async def _silence(self) -> None:
        feed = self.rng.choice(("upbit", "binance"))
        self.history.say(feed, "falls silent")
        self.market.is_silent[feed] = True
        await asyncio.sleep(self.chance.between(0.5, 6))
        self.market.is_silent[feed] = False

    async def _change_limits(self) -> None:
        self.limits = LimitsInForce(self.limits.version + 1, draw_limits(self.rng))
        self.history.say("operator", f"submits limits {self.limits}")

    async def _drain(self) -> None:
        """Stop a host as the supervisor does: no entries, then the end."""
        role = self.roles[self.rng.choice(list(HOSTS))]
        if role.alive:
            process, host = role.alive[-1]
            process.spawn(self._drained(process, host, flatten=self.rng.random() < 0.5))

    async def _drained(self, process: Process, host: StrategyHost, *, flatten: bool) -> None:
        try:
            await host.drain(flatten, 2.0)
        except ArbError:
            self.history.say(process.name, "could not tell what is open")
        self.history.say(process.name, "is drained")
        process.kill()

    async def _operate(self) -> None:
        verb = self.rng.choice(("halt", "reduce", "flatten", "flatten_one", "resume", "resume"))
        symbol = ""
        if verb == "flatten_one":
            verb, symbol = "flatten", str(self.rng.choice(PAIRS).symbol)
        await self.command(verb, symbol)

    async def _attend(self) -> None:
        """Somebody looks every few seconds, and resumes what has stopped."""
        while not self.chance.is_calm:
            await asyncio.sleep(self.chance.between(2, 6))
            if not self.chance.is_calm and self.checkers.risk.state != "active":
                await self.command("resume")

    async def command(self, verb: str, symbol: str = "") -> bool:
        """Send an operator's command; True when it was carried out."""
        self.history.say("operator", f"{verb} {symbol}")
        arguments = (verb, "because", "ann", symbol)
        try:
            status = await self.link.call(
                self.operator, self._guard, "command", arguments, 30.0, is_prompt=True
            )
        except ArbError:
            return False
        self.history.say("operator", f"{verb} {symbol} done: {status.state}")
        return True

    async def _pump(self) -> None:
        """Move the market, and bring it to every host that is alive."""
        while True:
            await asyncio.sleep(STEP_S)
            for batch in self.market.step(round(self.loop.now_s * NS_PER_S)):
                for name in HOSTS:
                    for process, host in list(self.roles[name].alive):
                        if process.is_alive:
                            process.run(host.apply, batch)

    # -- a life ---------------------------------------------------------------------------

    async def _live(self) -> None:
        for role in self.roles.values():
            self.start(role)
        rates = self.chance.rates
        self._spawn(self._pump())
        for every_s, act in (
            (rates.crash_every_s, self._crash),
            (rates.double_every_s, self._double),
            (rates.outage_every_s, self._outage),
            (rates.partition_every_s, self._partition),
            (rates.silence_every_s, self._silence),
            (rates.operator_every_s, self._operate),
            (rates.limits_every_s, self._change_limits),
            (rates.drain_every_s, self._drain),
        ):
            self._spawn(self._repeat(every_s, act))
        self._spawn(self._attend())
        await asyncio.sleep(TROUBLE_S)
        self._heal()
        await self._until_closed()
        await asyncio.sleep(LATE_S)
        self.checkers.at_the_end(await self.store.balances())
        if any(spool.records for node in self.nodes.values() for spool in node.spools):
            # A host that lives looks for what others left only so often.
            await asyncio.sleep(LEFT_S + LATE_S)
        for node in self.nodes.values():
            living = [
                process
                for name in HOSTS
                for process, _ in self.roles[name].alive
                if self.node_of[process.name] is node
            ]
            node.at_the_end(living)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what moves the world; where it fails, a host's own code did, and nothing goes on."""
        self.operator.spawn(work).add_done_callback(self._has_moved)

    def _has_moved(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.history.violated("bug", f"{task.get_coro().__name__}: {error!r}")

    def _heal(self) -> None:
        self.history.say("world", "heals")
        self.chance.heal()
        self.is_store_away = False
        self.cut.clear()
        self.market.is_silent = dict.fromkeys(self.market.is_silent, False)
        self.market.is_calm = True
        for role in self.roles.values():
            for process, _ in role.alive[:-1]:
                process.kill()  # the supervisor stops what is not wanted any more

    async def _until_closed(self) -> None:
        deadline_s = self.loop.now_s + HEAL_MAX_S
        while not await self.command("flatten"):
            if self.loop.now_s > deadline_s:
                self.history.violated("liveness", "no guard obeys after everything was healed")
                return
            await asyncio.sleep(0.3)
        while True:
            await asyncio.sleep(0.5)
            open_trades = [name for name in HOSTS if not self._is_idle(name)]
            if not open_trades and not self.checkers.risk.open:
                return
            if self.loop.now_s > deadline_s:
                left = [*open_trades, *self.checkers.risk.open]
                self.history.violated("liveness", f"still open long after the healing: {left}")
                return

    def _is_idle(self, name: str) -> bool:
        alive = self.roles[name].alive
        if not alive:
            return False
        host: StrategyHost = alive[-1][1]
        runners = host.runners.values()
        return bool(runners) and all(one.is_recovered and not one.is_busy for one in runners)

    def run(self) -> Outcome:
        """Live, and tell what was seen."""
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._live())
        except Deadlock:
            self.history.violated("liveness", "everything waits for ever")
        finally:
            self._is_over = self.history.is_closed = True
            self._tear_down()
        return Outcome(
            self.seed,
            tuple(self.history.violations),
            trades=self.checkers.trades.closed,
            grants=self.checkers.risk.grants,
            crashes=self.crashes,
            commits=self.checkers.commits,
            digest=self.checkers.digest,
            trace=tuple(self.history.lines or ()),
        )

    def _tear_down(self) -> None:
        loop = self.loop
        for _ in range(10):
            tasks = asyncio.all_tasks(loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            try:
                loop.run_until_complete(asyncio.wait(tasks, timeout=1))
            except Deadlock:
                break
        asyncio.set_event_loop(None)
        loop.close()
