"""
One run, from the command line to the summary.

Everything that is opened is closed in the reverse order, whatever happens: exchanges and
actors, Ray, the stores. Starting is recovering, so there is no other way to come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import msgspec

from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.process import prepare_folder
from arb_ray.adapters.storage.session_runs import RunLock, SessionRuns
from arb_ray.adapters.storage.session_store import Session, SessionStore
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.adapters.storage.topology_store import TopologyStore
from arb_ray.adapters.telemetry.logs import add_context, configure_logs, get_log
from arb_ray.app.deploying import next_deployment
from arb_ray.app.deployment import Deployment, decode, encode
from arb_ray.app.exit_codes import ExitCode
from arb_ray.app.gateway_access import local_gateway
from arb_ray.app.live_terminal import LiveView
from arb_ray.app.local_servers import (
    as_writer,
    embedded_stores,
    gateway_port,
    migrate_database,
    ray_environment,
    venue_ports,
)
from arb_ray.app.person import this_person
from arb_ray.app.planes import check_plane
from arb_ray.app.progress import Progress
from arb_ray.app.recorded_pairs import recorded_depth
from arb_ray.app.registry import PairInstruments
from arb_ray.app.restoring import restore
from arb_ray.app.resuming import market_identity, market_words, with_open_trades
from arb_ray.app.run_context import RunContext
from arb_ray.app.run_plan import (
    check_folders,
    run_plan,
    show_plan,
    used_venues,
    wanted_pairs,
)
from arb_ray.app.run_request import RunRequest
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings, load_settings
from arb_ray.app.settings_rules import no_run_replays
from arb_ray.app.stores import postgres_dsn
from arb_ray.app.summary import TradeTotals, summarize, to_json_line
from arb_ray.app.summary_words import in_words
from arb_ray.domain.errors import ArbError, VenueUnreachable
from arb_ray.engine.health import live_symbols
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.status import FeedStatus, HostStatus, SystemStatus
from arb_ray.engine.topology import Role, WantedActor

POLL_S = 0.5
STATUS_TIMEOUT_S = 5.0
LOST_POLLS_MAX = 20
"""So many statuses in a row without an answer end the run: nobody steers it any more."""


def run(request: RunRequest) -> int:
    """Run as asked; return the exit code. Raises ArbError for what a person can mend."""
    settings = load_settings(request.env, request.overrides())
    if settings.source == "replay":
        raise no_run_replays()
    progress = Progress(sys.stderr)
    pairs = wanted_pairs(settings, symbols_option=request.symbols is not None)
    check_folders(settings)
    check_plane(settings)
    if request.dry_run:
        gateway_port(settings)  # raises where the port is taken
        show_plan(run_plan(settings, pairs), progress, sys.stdout if request.as_json else None)
        return ExitCode.CLEAN
    data_dir = Path(settings.session.data_dir)
    prepare_folder(data_dir)
    with (data_dir / "submit.log").open("a", encoding="utf-8") as log_file:
        configure_logs(
            settings.telemetry.log_level,
            settings.telemetry.log_format,
            settings.secret_values(),
            stream=log_file,
        )
        # Ray prints what it likes on both streams; ours are taken before it can.
        out = sys.stdout
        with contextlib.redirect_stdout(log_file), contextlib.redirect_stderr(log_file):
            return _logged_run(_Run(request, settings, pairs, progress, out), settings)


def _logged_run(run_: _Run, settings: Settings) -> int:
    log = get_log("arb_ray.app.lifecycle")
    log.info("config_loaded", env=settings.env, config_hash=settings.config_hash())
    try:
        code = asyncio.run(run_.main())
    except asyncio.CancelledError:
        log.exception("run_failed", cause="interrupted before the clean stop was done")
        raise KeyboardInterrupt from None
    except BaseException as error:
        log.exception("run_failed", cause=str(error) or type(error).__name__)
        raise
    log.info("run_stopped", exit_code=int(code))
    return code


class _Run:
    """The state of one run."""

    def __init__(
        self,
        request: RunRequest,
        settings: Settings,
        pairs: tuple[PairInstruments, ...],
        progress: Progress,
        out: TextIO,
    ) -> None:
        self._out = out
        self._request = request
        self._settings = settings
        self._overrides: dict[str, Any] = request.overrides()
        self._pairs = pairs
        self._asked = pairs
        self._progress = progress
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._interrupts = 0
        self._is_stopped_cleanly = False
        self._errors: list[str] = []
        self._log = get_log("arb_ray.app.lifecycle")

    async def main(self) -> int:
        """Start, run, stop, sum up."""
        self._listen_to_signals()
        async with contextlib.AsyncExitStack() as stack:
            self._override(
                await stack.enter_async_context(embedded_stores(self._settings, self._progress))
            )
            self._override(venue_ports(self._settings))
            self._override(dict(recorded_depth(self._settings)))
            self._override(gateway_port(self._settings))
            stack.enter_context(local_gateway(self._settings))
            await asyncio.to_thread(migrate_database, self._settings, self._progress)
            self._override(stack.enter_context(as_writer(self._settings)))
            postgres = Postgres(postgres_dsn(self._settings))
            stack.push_async_callback(postgres.close)
            sessions = SessionStore(postgres, self._settings.env)
            runs = SessionRuns(postgres, self._settings.env)
            await self._be_the_only_run(stack, runs)
            session = await self._open_session(sessions)
            carried = await self._restore(postgres, sessions, runs, session)
            deployment = await self._write_wanted(
                TopologyStore(postgres, self._settings.env), session, carried
            )
            stack.push_async_callback(self._end_run, runs)
            ray_dir = stack.enter_context(ray_environment(self._settings))
            return await self._on_ray(stack, sessions, session, deployment, ray_dir)

    async def _be_the_only_run(self, stack: contextlib.AsyncExitStack, runs: SessionRuns) -> None:
        """Refuse to run beside another run of the environment, now and later."""
        lock = RunLock(postgres_dsn(self._settings), self._settings.env)
        await stack.enter_async_context(lock.held())
        await runs.refuse_elsewhere()
        watch = asyncio.create_task(lock.watch(self._replaced))
        stack.push_async_callback(_cancelled, watch)

    def _replaced(self, words: str) -> None:
        self._errors.append(words)
        self._stop.set()

    async def _restore(
        self, postgres: Postgres, sessions: SessionStore, runs: SessionRuns, session: Session
    ) -> Counts:
        settings = self._settings
        now_ns = self._clock.now_ns()
        crashed = await runs.begin(session.session_id, now_ns)
        restored = await restore(
            PostgresSnapshotStore(postgres, settings.env),
            sessions,
            session,
            market=market_words(settings),
            age_max_s=settings.persistence.restore_max_age_s,
            now_ns=now_ns,
        )
        for words in restored.words(crashed):
            self._progress.say(words)
        self._log.info(
            "session_restored",
            has_crashed=crashed is not None,
            open_positions=restored.totals.open_positions,
            quarantined=restored.quarantined,
            cause=restored.unused,
        )
        return restored.counts

    async def _end_run(self, runs: SessionRuns) -> None:
        """Note the clean stop, after the last actor has ended."""
        if self._is_stopped_cleanly:
            await runs.end(self._clock.now_ns())

    def _override(self, found: dict[str, Any]) -> None:
        self._overrides |= found
        self._settings = load_settings(self._request.env, self._overrides)

    async def _open_session(self, sessions: SessionStore) -> Session:
        settings = self._settings
        session = await sessions.open(
            source=settings.source,
            preset=settings.sim.preset if settings.source == "sim" else "",
            seed=settings.sim.market_seed,
            now_ns=self._clock.now_ns(),
            is_new=not settings.session.resume,
            identity=market_identity(settings),
        )
        asked = self._asked = self._pairs
        self._pairs = with_open_trades(settings, asked, await sessions.open_symbols())
        words = "resumed" if session.is_resumed else "new"
        self._progress.say(f"session {session.session_id} ({words})")
        added = [str(pair.symbol) for pair in self._pairs if pair not in asked]
        if added:
            self._progress.say(f"{', '.join(added)} too, until their open trades are closed")
        add_context(session_id=session.session_id)
        self._log.info(
            "run_starting",
            env=settings.env,
            source=settings.source,
            preset=settings.sim.preset if settings.source == "sim" else None,
            symbols=[str(pair.symbol) for pair in self._pairs],
            is_resumed=session.is_resumed,
        )
        return session

    async def _write_wanted(
        self, wanted: TopologyStore, session: Session, carried: Counts
    ) -> Deployment:
        """Write down what this run wants, as a submit to a cluster does; nothing of it runs yet."""
        stored = await wanted.newest()
        before = None if stored is None else decode(stored)
        deployment = next_deployment(
            self._settings,
            SessionFacts(
                session.session_id,
                session.seed,
                session.origin_ns,
                market_words(self._settings),
                carried,
            ),
            asked=self._asked,
            running=self._pairs,
            cpus=os.cpu_count() or 1,
            # What ran before on this machine has ended with its Ray.
            before=before and msgspec.structs.replace(before, is_stopped=True),
        )
        await wanted.append(encode(deployment, this_person()))
        return deployment

    async def _on_ray(
        self,
        stack: contextlib.AsyncExitStack,
        sessions: SessionStore,
        session: Session,
        deployment: Deployment,
        ray_dir: Path,
    ) -> int:
        # Late, because Ray reads its environment when it is imported.
        from arb_ray.actors import cluster
        from arb_ray.app.kit import SUPERVISOR, Kit

        settings = self._settings
        with self._progress.step("Ray"):
            await asyncio.to_thread(cluster.start_local, _ray_options(settings, ray_dir))
        stack.callback(keep_actor_logs, ray_dir, Path(settings.session.data_dir) / "logs")
        stack.callback(cluster.disconnect)
        actors = cluster.RayCluster(settings.ray.namespace, Kit(deployment))
        wanted = WantedActor(Role.SUPERVISOR, "main", (), deployment.topology.version)
        actors.start_supervisor(SUPERVISOR, wanted)
        return await self._steer(actors.links, sessions, session)

    async def _steer(self, links: Any, sessions: SessionStore, session: Session) -> int:
        context = self._context(session)
        await self._until_live(links)
        live_at_ns = self._clock.mono_ns()
        if not self._stop.is_set():
            self._log.info("run_live", errors=list(self._errors))
            await self._watch(links, context, live_at_ns)
        duration_s = (self._clock.mono_ns() - live_at_ns) / 1e9
        return await self._finish(links, sessions, context, duration_s)

    def _context(self, session: Session) -> RunContext:
        settings = self._settings
        return RunContext(
            session_id=session.session_id,
            env=settings.env,
            source=settings.source,
            preset=settings.sim.preset if settings.source == "sim" else None,
            seed=session.seed,
            symbols=tuple(str(pair.symbol) for pair in self._pairs),
            venues=used_venues(settings, self._pairs),
            duration_s=settings.session.duration_s,
            gateway_url=f"http://{settings.gateway.host}:{settings.gateway.http_port}"
            if settings.gateway.enabled
            else "",
        )

    async def _until_live(self, links: Any) -> None:
        timeout_s = self._settings.session.ready_timeout_s
        deadline_ns = self._clock.mono_ns() + int(timeout_s * 1e9)
        total = len(self._pairs)
        live: set[str] = set()
        waits: list[str] = []
        while not self._stop.is_set() and self._clock.mono_ns() < deadline_ns:
            with contextlib.suppress(ArbError):
                status = await self._status(links)
                live, _ = live_symbols(status)
                actors: dict[str, HostStatus | FeedStatus] = {**status.hosts, **status.feeds}
                waits = [f"{name}: {actor.why}" for name, actor in actors.items() if actor.why]
                self._progress.count(len(live), total, "symbols live")
                if len(live) >= total:
                    return
            await self._pause(0.25)
        if self._stop.is_set():
            return
        dead = sorted({str(pair.symbol) for pair in self._pairs} - live)
        problem = f"{len(dead)} of {total} symbols were not live after {timeout_s:g} s"
        self._errors.append(f"{problem}: {', '.join(dead[:10])}")
        if not live:
            await self._abandon(links)
            why = "; ".join(waits) or "no actor has answered"
            raise VenueUnreachable("start", f"{problem} ({why})")
        self._progress.say(f"{problem}; going on with the others")

    async def _abandon(self, links: Any) -> None:
        from arb_ray.app.kit import SUPERVISOR

        with contextlib.suppress(ArbError):
            await links.call(SUPERVISOR, "drain", False, timeout_s=30.0)

    async def _watch(self, links: Any, context: RunContext, live_at_ns: int) -> None:
        duration_s = self._settings.session.duration_s
        lost = 0
        with LiveView(
            context, as_json=self._request.as_json, stdout=self._out, stderr=self._progress.stream
        ) as view:
            while not self._stop.is_set():
                elapsed_s = (self._clock.mono_ns() - live_at_ns) / 1e9
                if duration_s and elapsed_s >= duration_s:
                    return
                try:
                    view.show(await self._status(links), elapsed_s)
                    lost = 0
                except ArbError as error:
                    lost += 1
                    self._log.warning("status_missing", cause=str(error))
                    if lost >= LOST_POLLS_MAX:
                        self._errors.append(f"the supervisor does not answer: {error}")
                        return
                left_s = duration_s - elapsed_s if duration_s else POLL_S
                await self._pause(min(POLL_S, max(left_s, 0.01)))

    async def _finish(
        self, links: Any, sessions: SessionStore, context: RunContext, duration_s: float
    ) -> int:
        from arb_ray.app.kit import SUPERVISOR

        settings = self._settings
        flatten = settings.session.on_stop == "exit"
        self._log.info("run_stopping", is_flattening=flatten)
        with self._progress.step("clean stop", "done"):
            status: SystemStatus = await links.call(
                SUPERVISOR, "drain", flatten, timeout_s=settings.session.stop_timeout_s + 60.0
            )
        self._is_stopped_cleanly = True
        totals = await sessions.totals(context.session_id)
        ledger = TradeTotals(
            trades_opened=totals.trades_opened,
            trades_closed=totals.trades_closed,
            open_positions=totals.open_positions,
            realized_usdt=totals.realized_usdt,
            fees_usdt=totals.fees_usdt,
            parts=totals.parts,
        )
        errors = [*self._errors, *status.errors]
        summary = summarize(status, context, duration_s=duration_s, errors=errors, ledger=ledger)
        await sessions.keep_summary(context.session_id, msgspec.json.encode(summary))
        if self._request.as_json:
            self._out.write(to_json_line(summary) + "\n")
        else:
            self._out.write(in_words(summary, status, context) + "\n")
        self._out.flush()
        return ExitCode.ENDED_WITH_ERRORS if summary.errors else ExitCode.CLEAN

    async def _status(self, links: Any) -> SystemStatus:
        from arb_ray.app.kit import SUPERVISOR

        found: SystemStatus = await links.call(SUPERVISOR, "status", timeout_s=STATUS_TIMEOUT_S)
        return found

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted)

    def _interrupted(self) -> None:
        self._interrupts += 1
        if self._interrupts == 1:
            self._progress.say("stopping; once more to leave at once")
            self._stop.set()
            return
        self._progress.say("left at once; what was open is resumed at the next start")
        for task in asyncio.all_tasks():
            task.cancel()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def keep_actor_logs(ray_dir: Path, target: Path) -> None:
    """Copy what the actors wrote out of Ray's folder, which ends with the run."""
    if target.exists():
        shutil.rmtree(target)
    target.mkdir(parents=True)
    for pattern in ("worker-*.out", "worker-*.err", "raylet.out", "gcs_server.out"):
        for file in ray_dir.glob(f"session_*/logs/{pattern}"):
            if file.stat().st_size:
                shutil.copy(file, target / file.name)


def _ray_options(settings: Settings, ray_dir: Path) -> dict[str, Any]:
    return {
        "num_cpus": settings.ray.local_cpus_count or None,
        "include_dashboard": settings.ray.dashboard,
        "object_store_memory": settings.ray.object_store_bytes,
        "namespace": settings.ray.namespace,
        "_temp_dir": str(ray_dir),
    }
