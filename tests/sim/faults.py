"""
What goes wrong: chances drawn once a seed, calls to the store, messages between processes.

Each seed has its own mixture, some of them calm in one respect and wild in another: faults
that all happen at once hide each other.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from arb_ray.domain.errors import ArbError, OutcomeUnknown, StoreUnavailable
from arb_ray.ports import GrantWrite
from tests.sim.history import Commit, History
from tests.sim.loop import Process, VirtualLoop

READS = frozenset(
    {"open_trade", "find_report", "is_order_known", "balances", "dust", "load", "renew_lease"}
)


DECISIONS = frozenset({"grant", "settle", "write"})

CROWDED = 0.35
"""Share of the lives in which RiskGuard's decisions gather."""

GROUP_FAULTS = 5
"""So much likelier is an answer to a group of decisions lost, or given up, than another one."""

STALL_MAX_S = 1.0
"""A call waits no longer than this to be carried out, and its answer no longer than this."""

LATE_MAX_S = 0.4
"""A call whose caller was told nothing is carried out no later than this."""


class FaultRates(msgspec.Struct, frozen=True):
    """Chances by call or message, and mean times between larger events, seconds."""

    store_refuses: float  # nothing happened, and the caller knows it
    store_loses_answer: float  # it happened, and the caller does not know
    store_is_late: float  # the caller gave up, and then it happened
    store_stalls: float
    disk_refuses: float  # a spool takes no record: its disk is full
    crash_before_write: float
    crash_after_write: float
    message_lost: float
    answer_lost: float
    message_doubled: float
    message_late: float
    venue_refuses: float
    book_is_eaten: float
    crash_every_s: float
    double_every_s: float  # a second process takes over while the first is alive
    outage_every_s: float  # the store refuses everyone for a while
    partition_every_s: float  # a host and the guard do not hear each other
    silence_every_s: float  # a feed goes quiet
    operator_every_s: float
    limits_every_s: float  # an operator submits other limits
    drain_every_s: float  # a host is stopped in an orderly way, and another one started
    is_crowded: bool  # decisions of RiskGuard gather: all signal at once, and then
    bunch_s: float  # its process takes its messages in bunches, so often
    commit_s: float  # and a commit of its decisions takes so long


def draw_rates(rng: random.Random, crowd: random.Random) -> FaultRates:
    """Choose a seed's mixture: each fault is off, rare or common; some lives are crowded."""

    def chance(rare: float, common: float) -> float:
        return rng.choice((0.0, rare, rare, common))

    def every(rare_s: float, common_s: float) -> float:
        return rng.choice((0.0, rare_s, rare_s, common_s))

    return FaultRates(
        store_refuses=chance(0.01, 0.08),
        store_loses_answer=chance(0.01, 0.06),
        store_is_late=chance(0.005, 0.04),
        store_stalls=chance(0.01, 0.05),
        disk_refuses=chance(0.02, 0.3),
        crash_before_write=chance(0.002, 0.01),
        crash_after_write=chance(0.002, 0.01),
        message_lost=chance(0.01, 0.08),
        answer_lost=chance(0.01, 0.08),
        message_doubled=chance(0.02, 0.2),
        message_late=chance(0.02, 0.15),
        venue_refuses=chance(0.02, 0.15),
        book_is_eaten=chance(0.05, 0.3),
        crash_every_s=every(20, 6),
        double_every_s=every(30, 10),
        outage_every_s=every(30, 10),
        partition_every_s=every(30, 10),
        silence_every_s=every(20, 8),
        operator_every_s=every(15, 4),
        limits_every_s=every(15, 5),
        drain_every_s=every(30, 10),
        is_crowded=crowd.random() < CROWDED,
        bunch_s=crowd.choice((0.0, 0.05, 0.15)),
        commit_s=crowd.choice((0.15, 0.4)),
    )


class Chance:
    """The seed's dice, and whether anything may still go wrong."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rates = draw_rates(self.rng, random.Random(~seed))
        self.is_calm = False

    def happens(self, probability: float) -> bool:
        """Throw the dice; in the calm at the end nothing happens."""
        return not self.is_calm and self.rng.random() < probability

    def heal(self) -> None:
        """From here on nothing goes wrong."""
        self.is_calm = True

    def between(self, low: float, high: float) -> float:
        """Draw a duration, s."""
        return self.rng.uniform(low, high)


class FaultyStore:
    """
    The one store as one process reaches it; implements ``LedgerStore`` and ``RiskStore``.

    A call is carried out at one instant, or not at all. Before and after that instant the
    process may die, and its answer may be lost or come too late.
    """

    def __init__(
        self,
        inner: Any,
        process: Process,
        loop: VirtualLoop,
        chance: Chance,
        history: History,
        is_away: Callable[[], bool],
    ) -> None:
        self._inner = inner
        self._process = process
        self._loop = loop
        self._chance = chance
        self._history = history
        self._is_away = is_away

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            return await self._call(name, arguments)

        return call

    async def close(self) -> None:
        """Nothing to give back."""

    async def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        process, chance, rates = self._process, self._chance, self._chance.rates
        if not process.is_alive:
            await process.hang()
        stalls = chance.happens(rates.store_stalls)
        pause_s = chance.between(0.05, STALL_MAX_S) if stalls else chance.between(0.0003, 0.004)
        if rates.is_crowded and name in DECISIONS:
            pause_s += chance.between(rates.commit_s / 2, rates.commit_s)
        await asyncio.sleep(pause_s)
        if not process.is_alive:
            await process.hang()
        if self._is_away() or chance.happens(rates.store_refuses):
            self._say(name, arguments, "refused")
            raise StoreUnavailable("sim", "it is away")
        is_write = name not in READS
        # Groups are rare, and what becomes of their failures is what must be seen.
        often = GROUP_FAULTS if name == "write" else 1
        if is_write and chance.happens(rates.crash_before_write):
            self._say(name, arguments, "crash before")
            process.kill()
            await process.hang()
        if is_write and chance.happens(often * rates.store_is_late):
            self._say(name, arguments, "late")
            delay_s = chance.between(0.001, LATE_MAX_S)
            newest = self._history.count(name)
            self._loop.call_later(delay_s, self._apply_late, name, arguments, newest)
            raise OutcomeUnknown(f"sim.{name}", 0)
        commit = self._apply(name, arguments)
        if is_write and chance.happens(rates.crash_after_write):
            self._history.say(process.name, "crash after")
            process.kill()
            await process.hang()
        if chance.happens(rates.store_stalls):
            await asyncio.sleep(chance.between(0.05, STALL_MAX_S))
            if not process.is_alive:
                await process.hang()
        if chance.happens(often * rates.store_loses_answer):
            self._history.say(process.name, "answer lost")
            raise OutcomeUnknown(f"sim.{name}", 0)
        self._history.answered(commit)
        for one in _in_group(commit):
            self._history.answered(one)
        return commit.result

    def _apply(self, name: str, arguments: tuple[Any, ...]) -> Commit:
        try:
            answer = _at_once(getattr(self._inner, name)(*arguments))
        except ArbError as error:
            self._say(name, arguments, str(error))
            raise
        if name not in READS:
            self._say(name, arguments, repr(answer))
        commit = Commit(self._loop.now_ns(), self._process.name, name, arguments, answer)
        self._history.committed(commit)
        for one in _in_group(commit):
            self._history.committed(one)
        return commit

    def _apply_late(self, name: str, arguments: tuple[Any, ...], newest: int) -> None:
        if name == "set_state" and self._history.count(name) != newest:
            # PostgreSQL numbers a state when it is inserted, not when its commit arrives: it
            # stands before what was written meanwhile, and changes nothing any more.
            return
        try:
            self._apply(name, arguments)
        except (ArbError, AssertionError):
            return  # a fence, or the journal's next place, was taken meanwhile: it is rolled back

    def _say(self, name: str, arguments: tuple[Any, ...], outcome: str) -> None:
        if self._history.lines is not None:
            told = ", ".join(str(argument)[:300] for argument in arguments)
            self._history.say(self._process.name, f"{name}({told}) -> {outcome[:200]}")


def _in_group(commit: Commit) -> Iterator[Commit]:
    """Return the decisions of a group as if each had been written by itself."""
    if commit.method != "write":
        return
    epoch, group = commit.arguments
    for one, outcome in zip(group, commit.result, strict=True):
        if isinstance(outcome, ArbError):
            continue  # violated: nothing of it is written
        if isinstance(one, GrantWrite):
            arguments, result = (epoch, one.intent, one.hold, one.at_ns), outcome
            method = "grant"
        else:
            arguments, result = (epoch, one), (outcome.is_new, outcome.released)
            method = "settle"
        yield Commit(commit.now_ns, commit.process, method, arguments, result)


def _at_once(coroutine: Any) -> Any:
    """Run a coroutine that never waits: the store's step is one instant."""
    if not inspect.isawaitable(coroutine):
        return coroutine
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the store in memory waited")


class Link:
    """
    Calls to methods of another process: lost, late, doubled, reordered, unanswered.

    The caller waits ``timeout_s`` and then knows nothing, as with a Ray call.
    """

    def __init__(self, loop: VirtualLoop, chance: Chance, history: History) -> None:
        self._loop = loop
        self._chance = chance
        self._history = history
        self.on_marks: Callable[..., None] = lambda *_marks: None

    async def call(
        self,
        source: Process,
        target: Callable[[], tuple[Process, Any] | None],
        method: str,
        arguments: tuple[Any, ...],
        timeout_s: float,
        *,
        is_cut: Callable[[], bool] = lambda: False,
        is_prompt: bool = False,
    ) -> Any:
        """
        Call once; raises OutcomeUnknown when no answer comes.

        What ``is_prompt`` arrives at once and once, or not at all: a person's words do not
        overtake each other.
        """
        if not source.is_alive:
            await source.hang()
        answer: asyncio.Future[Any] = self._loop.create_future()
        chance, rates = self._chance, self._chance.rates
        copies = 2 if not is_prompt and chance.happens(rates.message_doubled) else 1
        for copy in range(copies):
            if is_cut() or chance.happens(rates.message_lost):
                self._history.say(source.name, f"{method} lost")
                continue
            late = not is_prompt and (copy or chance.happens(rates.message_late))
            delay_s = chance.between(0.0001, 0.002) + (chance.between(0, 1.5) if late else 0)
            if rates.is_crowded and rates.bunch_s and not is_prompt:
                arrives_s = self._loop.time() + delay_s
                delay_s += rates.bunch_s - arrives_s % rates.bunch_s
            self._loop.call_later(delay_s, self._arrive, target, method, arguments, answer, is_cut)
        try:
            async with asyncio.timeout(timeout_s):
                result = await answer
        except TimeoutError:
            if not source.is_alive:
                await source.hang()
            raise OutcomeUnknown(method, int(timeout_s * 1e3)) from None
        if not source.is_alive:
            await source.hang()
        return result

    def _arrive(
        self,
        target: Callable[[], tuple[Process, Any] | None],
        method: str,
        arguments: tuple[Any, ...],
        answer: asyncio.Future[Any],
        is_cut: Callable[[], bool],
    ) -> None:
        found = target()
        if found is None or is_cut():
            return
        process, served = found
        process.spawn(self._serve(process, served, method, arguments, answer, is_cut))

    async def _serve(
        self,
        process: Process,
        served: Any,
        method: str,
        arguments: tuple[Any, ...],
        answer: asyncio.Future[Any],
        is_cut: Callable[[], bool],
    ) -> None:
        result, failure = None, None
        try:
            result = await getattr(served, method)(*arguments)
            if method == "mark":
                self.on_marks(process.name, arguments[1], self._loop.now_ns())
        except ArbError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a bug and told of)
            self._history.violated("bug", f"{process.name}.{method} raised {error!r}")
            return
        if not process.is_alive or is_cut() or self._chance.happens(self._chance.rates.answer_lost):
            return
        await asyncio.sleep(self._chance.between(0.0001, 0.002))
        if process.is_alive and not answer.done():
            if failure is None:
                answer.set_result(result)
            else:
                answer.set_exception(failure)
