"""
The supervisor: what runs becomes what is wanted, again and again.

It holds no state that it could lose: what is wanted lies in PostgreSQL, where ``submit`` writes
it, and a restarted supervisor adopts the actors that it finds by name. While PostgreSQL is
away, what was wanted last is kept up. Whoever does not answer for the health time-out is
ended and started again: a frozen process answers nobody and never ends by itself. Nothing that
waits for one of them, or for PostgreSQL, holds up the look at the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from itertools import groupby
from typing import Any

import msgspec

from arb_ray import __version__
from arb_ray.actors.asking import Asking
from arb_ray.actors.beside import Beside
from arb_ray.actors.draining import Drain, DrainTerms
from arb_ray.actors.hosting import Loops
from arb_ray.actors.row_buffer import encode_rows
from arb_ray.actors.snapshots import system_snapshot
from arb_ray.actors.statuses import Statuses
from arb_ray.actors.system_metrics import SystemMetrics
from arb_ray.actors.wanted import NOTHING, Cluster, Reference, WantedState, WantedStates
from arb_ray.actors.wire import pack
from arb_ray.domain.errors import ArbError, Remedy, StoreUnavailable
from arb_ray.engine.pace import Pace
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.state_document import StateVersions
from arb_ray.engine.status import SystemStatus
from arb_ray.engine.topology import Role, Topology, WantedActor, difference
from arb_ray.ports import Clock, Metrics

ERRORS_MAX = 50
"""Sentences kept for the summary; the logs have all."""


class SupervisorTimes(msgspec.Struct, frozen=True):
    """The pace of the loop and its time-outs."""

    reconcile_s: float = 0.5
    hurried_s: float = 0.1  # the pace while somebody does not do all its work yet ...
    hurry_for_s: float = 15.0  # ... and has not stayed so for longer than this
    snapshot_s: float = 5.0  # of the session and the guard
    status_timeout_s: float = 2.0
    drain_timeout_s: float = 30.0
    host_drain_s: float = 5.0  # a host that is replaced may finish entries and exits so long
    feed_overlap_s: float = 30.0  # a feed that is replaced goes on until its successor is ready
    health_timeout_s: float = 10.0  # silent for so long, an actor is ended and started again
    birth_timeout_s: float = 90.0  # the same before its first answer: processes start slowly
    patience_s: float = 0.25  # a pass waits so long for answers; the others are taken later
    pause_s: float = 0.05  # between two passes at least, whatever news there is


class Supervisor:
    """Reconcile, watch, drain."""

    def __init__(
        self,
        *,
        name: str,
        wanted: WantedStates,
        clock: Clock,
        metrics: Metrics,
        log: Any,
        times: SupervisorTimes | None = None,
        loops: Loops | None = None,
    ) -> None:
        self._name = name
        self._wanted = wanted
        self._state: WantedState | None = None
        self._due_s = 0.0  # of the next snapshot
        self._opened = 0  # the version whose markets have their opening balances
        self._clock = clock
        self._figures = SystemMetrics(metrics)
        self._log = log
        self._times = times or SupervisorTimes()
        self._loops = loops or Loops()
        self._told = Statuses()
        self._versions = StateVersions()
        self._errors: deque[str] = deque(maxlen=ERRORS_MAX)
        self._is_draining = False
        self._stopped = 0  # the stopped state that was carried out last
        self._stop_errors: list[str] = []  # of the present stop only
        self._reading: Beside[WantedState | None] = Beside()
        self._opening: Beside[None] = Beside()
        self._snapshotting: Beside[None] = Beside()
        self._overlap_until_s: dict[str, float] = {}  # feeds whose successors are not ready
        self._asking = Asking(
            clock=clock,
            timeout_s=self._times.status_timeout_s,
            patience_s=self._times.patience_s,
            take=self._take,
        )
        self._pace = Pace(self._times.reconcile_s, self._times.hurried_s, self._times.hurry_for_s)
        # One pass at a time: a drain must not meet a pass that starts what it stops.
        self._pass = asyncio.Lock()

    @property
    def _topology(self) -> Topology:
        return NOTHING if self._state is None else self._state.topology

    @property
    def _cluster(self) -> Cluster:
        assert self._state is not None, "nobody is reached before it is known who is wanted"
        return self._state.cluster

    @property
    def _reference(self) -> Reference:
        if self._state is None:
            raise StoreUnavailable("supervisor", "the wanted state was not read yet")
        return self._state.reference

    def start(self) -> None:
        """Start reconciling."""
        self._loops.start("reconcile", self._run())

    async def pairs(self, symbols: list[str]) -> bytes:
        """Return the encoded trading pairs of ``symbols``: rules and fees read from the venues."""
        return pack(list(await self._reference.pairs(symbols)))

    async def opening(self) -> bytes:
        """Return the encoded opening balances, one entry a market."""
        return pack(list(await self._reference.opening()))

    async def status(self) -> SystemStatus:
        """Return the newest status of every actor."""
        told = self._told
        wanted = [actor.name for actor in self._topology.actors]
        missing = [n for n in wanted if n not in told or self._asking.is_missed(n)]
        return SystemStatus(
            session_id=self._topology.session_id,
            topology=self._topology.version,
            deployment=self._state.version if self._state else 0,
            code=__version__,
            draining=self._is_draining,
            wanted=wanted,
            hosts=dict(told.hosts),
            feeds=dict(told.feeds),
            risk=told.singleton(Role.RISK),
            persistence=told.singleton(Role.PERSISTENCE),
            source=told.singleton(Role.SOURCE),
            gateway=told.singleton(Role.GATEWAY),
            errors=list(self._errors),
            missing=missing,
            # Of those that are missing nothing is known, which is told already.
            age_s=self._asking.age_s(name for name in wanted if name not in missing),
            market=self._state.market if self._state else "",
            carried=self._state.carried if self._state else Counts(),
            stopped=self._stopped,
            stop_errors=list(self._stop_errors),
        )

    async def command(self, verb: str, reason: str, actor: str) -> Any:
        """Pass an operator's command to RiskGuard."""
        (guard,) = self._topology.of(Role.RISK)
        return await self._cluster.links.call(
            guard.name, "command", verb, reason, actor, timeout_s=5.0
        )

    async def drain(self, flatten: bool) -> SystemStatus:
        """
        Stop entries, close positions if asked to, flush, and stop every actor in order.

        Returns:
            The last status of each actor, taken when it had nothing left to do.
        """
        self._is_draining = True
        async with self._pass:
            if self._state is None:
                return await self.status()
            return await self._drain(flatten=flatten)

    async def _drain(self, *, flatten: bool) -> SystemStatus:
        self._stop_errors.clear()
        await self._opening.cancel()
        await self._snapshotting.cancel()
        drain = Drain(
            self._cluster.links,
            DrainTerms(flatten, self._times.drain_timeout_s, self._times.reconcile_s),
            born_ns=self._told.born_ns,
            complain=self._complain,
            log=self._log,
        )
        await drain.run(self._hosts_that_run(), self._keep_up)
        await self._ask_all()
        await self._snapshot()
        for persistence in self._topology.of(Role.PERSISTENCE):
            await self._flush(persistence.name)
        await self._ask_all()
        last = await self.status()
        for role in reversed(Role):
            for wanted in self._topology.of(role):
                await self._cluster.stop(wanted.name)
        # What an earlier state wanted and was not retired yet; in no order, and drained above.
        for name in self._cluster.present():
            if name != self._name:
                await self._cluster.stop(name)
        return last

    def _hosts_that_run(self) -> list[str]:
        """Return the hosts that are wanted, and those that an earlier state has left behind."""
        wanted = [host.name for host in self._topology.of(Role.HOST)]
        there = [n for n in self._cluster.present() if n.startswith(f"{Role.HOST}:")]
        return [*wanted, *(name for name in there if name not in wanted)]

    async def _keep_up(self) -> None:
        # A feed that Ray starts again knows no hosts, and without books no exit fills.
        await self._refresh()
        await self._route()

    def _complain(self, sentence: str) -> None:
        self._errors.append(sentence)
        if self._is_draining:
            self._stop_errors.append(sentence)

    async def stop(self) -> None:
        """Stop reconciling."""
        await self._loops.stop()
        self._asking.cancel()
        for beside in (self._reading, self._opening, self._snapshotting):
            await beside.cancel()
        await self._wanted.close()

    async def _flush(self, name: str) -> None:
        try:
            await self._cluster.links.call(name, "flush", timeout_s=10.0)
        except ArbError as error:
            self._log.error("flush_failed", actor=name, cause=str(error))
            self._complain(f"{name} could not be flushed: {error}")

    async def _run(self) -> None:
        self._due_s = 0.0
        while True:
            async with self._pass:
                await self._adopt()
                if self._must_stop():
                    await self._stop_all()
                elif self._state is not None and not self._is_draining:
                    await self._turn()
                    await self._see_to_snapshots()
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next pass; what was silent and speaks again brings it forward."""
        await asyncio.sleep(min(self._times.pause_s, self._times.reconcile_s))
        wait_s = self._pace.wait_s(self._lacking(), asyncio.get_running_loop().time())
        with contextlib.suppress(TimeoutError):
            # Not wait_for: before Python 3.12 it can swallow the cancellation of a stop.
            async with asyncio.timeout(min(wait_s, self._overdue_in_s())):
                await self._asking.news.wait()
        self._asking.news.clear()

    def _lacking(self) -> frozenset[tuple[str, str]]:
        """Return who does not do all its work, and why."""
        found = set()
        for name in (actor.name for actor in self._topology.actors):
            why = "silent" if self._asking.is_missed(name) else self._told.lacks(name)
            if why:
                found.add((name, why))
        return frozenset(found)

    def _must_stop(self) -> bool:
        state = self._state
        return state is not None and state.is_stopped and self._stopped != state.version

    async def _stop_all(self) -> None:
        """Carry a stopped state out; whoever wrote it waits for its version in the status."""
        assert self._state is not None
        await self._drain(flatten=self._state.flatten)
        self._stopped = self._state.version
        self._log.info("wanted_stopped", version=self._stopped, errors=list(self._stop_errors))

    async def _turn(self) -> None:
        await self._reconcile()
        await self._refresh()
        await self._route()
        await self._see_to_markets()

    async def _see_to_markets(self) -> None:
        """Open new markets beside the passes: a venue that does not answer holds up nothing."""
        await self._opening.result()
        state = self._state
        assert state is not None
        if self._opened != state.version:
            self._opening.begin(lambda: self._open_markets(state))

    async def _see_to_snapshots(self) -> None:
        """Leave snapshots beside the passes: Persistence may be what does not answer."""
        await self._snapshotting.result()
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._due_s:
            self._due_s = now_s + self._times.snapshot_s
            self._snapshotting.begin(self._snapshot)

    async def _adopt(self) -> None:
        """Take over a newer state; while PostgreSQL is away the present one holds."""
        version = self._state.version if self._state else 0
        # Beside the pass: while PostgreSQL hangs, actors are watched all the same.
        self._reading.begin(lambda: self._wanted.newer(version))
        try:
            found = await self._reading.result(self._times.patience_s)
        except ArbError as error:
            if error.remedy is Remedy.HALT:
                raise
            self._log.warning("wanted_waits", version=version, cause=str(error))
            return
        if found is None:
            return
        self._log.info("wanted_adopted", version=found.version, is_stopped=found.is_stopped)
        # Of what was stopped nothing is left, so what it said last tells of nobody.
        has_ended = self._state is not None and self._stopped == self._state.version
        self._state = found
        self._is_draining = found.is_stopped
        wanted = set() if has_ended else {actor.name for actor in found.topology.actors}
        self._told.keep_only(wanted)

    async def _open_markets(self, state: WantedState) -> None:
        """Give new markets their opening balances; RiskGuard's own start did the first ones."""
        (guard,) = state.topology.of(Role.RISK)
        if not self._told.singleton(Role.RISK).get("ready"):
            return
        try:
            entries = pack(list(await state.reference.opening()))
            await state.cluster.links.call(guard.name, "open_markets", entries, timeout_s=10.0)
        except ArbError as error:
            self._log.warning("no_inventory", cause=str(error))
            return
        self._opened = state.version

    async def _snapshot(self) -> None:
        """Leave the session's and the guard's state with Persistence, for both stores."""
        now_ns = self._clock.now_ns()
        version = self._versions.next(now_ns)
        rows, states = system_snapshot(await self.status(), now_ns, version)
        links = self._cluster.links
        for persistence in self._topology.of(Role.PERSISTENCE):
            try:
                await links.call(persistence.name, "put", encode_rows(rows), timeout_s=2.0)
                await links.call(persistence.name, "put_states", pack(states), timeout_s=2.0)
            except ArbError as error:
                self._log.warning("snapshot_waits", cause=str(error))

    async def _reconcile(self) -> None:
        present = {name: True for name in self._cluster.present() if name != self._name}
        silence = self._asking.silence
        silence.turn(self._clock.mono_ns())
        for name in silence.names:
            silent_s = silence.lasts_s(name)
            if silent_s >= self._bound_s(name) and name in present:
                self._log.error("actor_replaced", actor=name, silent_s=silent_s)
                self._complain(f"{name} did not answer and was started again")
                self._figures.restarted(name)
                # At once: it would not hear of a stop in order, and its journal has everything.
                self._cluster.end(name)
                self._forget(name)
                present.pop(name)
        for name, told in list(self._told.hosts.items()):
            if told.draining and name in present:
                # A stop that was broken off has drained it, and no method takes that back.
                self._log.warning("actor_replaced", actor=name, silent_s=0.0)
                await self._cluster.stop(name)
                self._forget(name)
                present.pop(name)
        change = difference(self._topology, present)
        stale = [name for name in change.stop if not self._must_overlap(name)]
        # Role by role, in the order of the difference; those of one role all at once.
        for _, names in groupby(stale, key=lambda name: name.partition(":")[0]):
            await asyncio.gather(*(self._retire(name) for name in names))
        for wanted in change.start:
            self._log.info("actor_started", actor=wanted.name)
            self._cluster.start(wanted)

    def _must_overlap(self, name: str) -> bool:
        """Tell whether a feed must go on because the one that follows it has no books yet."""
        role, _, rest = name.partition(":")
        venue = rest.split("@", 1)[0]
        heir = next((one for one in self._topology.of(Role.FEED) if one.key == venue), None)
        if role != Role.FEED or heir is None:
            return False
        told = self._told.feeds.get(heir.name)
        now_s = asyncio.get_running_loop().time()
        until_s = self._overlap_until_s.setdefault(name, now_s + self._times.feed_overlap_s)
        is_over = (told is not None and told.ready) or now_s >= until_s
        if is_over:
            del self._overlap_until_s[name]
        return not is_over

    async def _retire(self, name: str) -> None:
        """End an actor that is not wanted; a host first finishes what is being entered or left."""
        self._log.info("actor_stopped", actor=name)
        if name.startswith(f"{Role.HOST}:"):
            drain_s = self._times.host_drain_s
            try:
                await self._cluster.links.call(name, "drain", False, drain_s, timeout_s=drain_s + 2)
            except ArbError as error:
                # What it was doing is in the journal, and its successor goes on from there.
                self._log.warning("drain_failed", actor=name, cause=str(error))
        await self._cluster.stop(name)
        self._told.retire(name)

    def _overdue_in_s(self) -> float:
        """Return when somebody who says nothing will have been silent for too long."""
        silence = self._asking.silence
        left = (self._bound_s(name) - silence.lasts_s(name) for name in silence.names)
        return max(min(left, default=self._times.reconcile_s), self._times.pause_s)

    def _bound_s(self, name: str) -> float:
        times = self._times
        return times.health_timeout_s if name in self._told else times.birth_timeout_s

    def _forget(self, name: str) -> None:
        """Set aside what a former process said: the new one is not born yet."""
        self._told.set_aside(name)
        self._asking.forget(name)

    async def _refresh(self) -> None:
        if self._topology.actors:
            await self._asking.turn(self._cluster.links, self._topology.actors)
        self._tell()

    async def _ask_all(self) -> None:
        if self._topology.actors:
            await self._asking.all(self._cluster.links, self._topology.actors)
        self._tell()

    def _tell(self) -> None:
        self._figures.actors(self._topology, self._asking.missed_count)
        self._figures.session(self._topology.session_id, self._told.hosts)

    def _take(self, actor: WantedActor, told: Any) -> None:
        if self._told.take(actor, told):
            self._log.error("actor_restarted", actor=actor.name)
            self._complain(f"{actor.name} ended unexpectedly and was started again")
            self._figures.restarted(actor.name)

    async def _route(self) -> None:
        """Tell each feed which hosts want which instruments, until it says that it knows."""
        for feed in self._topology.of(Role.FEED):
            told = self._told.feeds.get(feed.name)
            if told is None or told.routes == self._topology.version:
                continue
            routes = {
                host.name: self._reference.instruments(feed.key, host.symbols)
                for host in self._topology.of(Role.HOST)
            }
            try:
                await self._cluster.links.call(
                    feed.name,
                    "set_routes",
                    self._topology.version,
                    routes,
                    timeout_s=self._times.status_timeout_s,
                )
                self._asking.news.set()  # it is ready as soon as it has books
            except ArbError as error:
                self._log.info("route_waits", actor=feed.name, cause=str(error))
