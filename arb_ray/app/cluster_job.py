"""
submit's job on the head: ``python -m arb_ray.app.cluster_job REQUEST``; look, plan, write, wait.

It looks at every node first and changes nothing while anything is amiss. Then it writes the
wanted state, sees that a Supervisor runs, waits until the actors are ready, and ends; they
are detached and trade on. A person calls ``python -m arb_ray.submit`` instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from arb_ray import __version__
from arb_ray.adapters.clock import SystemClock
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.session_runs import SessionRuns
from arb_ray.adapters.storage.session_store import Session, SessionStore
from arb_ray.adapters.storage.snapshot_store import PostgresSnapshotStore
from arb_ray.adapters.storage.topology_store import TopologyStore
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from arb_ray.app.cluster_wait import Readiness, until_ready, until_stopped
from arb_ray.app.deploying import DeployPlan, deploy_plan, next_deployment
from arb_ray.app.deployment import Deployment, decode, encode, submitted_values
from arb_ray.app.exit_codes import ExitCode, code_of, sentence
from arb_ray.app.job_lines import Ended, JobRequest, Said, write_line
from arb_ray.app.local_servers import VENUES
from arb_ray.app.node_look import Look, node_problems
from arb_ray.app.registry import PairInstruments
from arb_ray.app.restoring import restore
from arb_ray.app.resuming import market_identity, market_words, with_open_trades
from arb_ray.app.run_plan import wanted_pairs
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import Settings, load_settings
from arb_ray.app.stores import postgres_dsn
from arb_ray.domain.errors import ArbError, BadInput, OutcomeUnknown
from arb_ray.engine.session_snapshot import Counts
from arb_ray.engine.status import SystemStatus
from arb_ray.engine.topology import Role, WantedActor

if TYPE_CHECKING:
    from arb_ray.actors.cluster import RayCluster

SIM_PORTS = {"upbit": 8_791, "binance_spot": 8_792, "binance_usdm": 8_793}
"""Where the simulated exchanges listen on the head: fixed, so that a firewall can know them, and
below 10002, where the ports of Ray's workers begin: one of those could take a port of ours."""


def main(arguments: list[str]) -> int:
    """Carry a request out; say how it ended."""
    request = msgspec.json.decode(arguments[0], type=JobRequest)
    configure_logs("info", "json", ())
    try:
        ended = asyncio.run(_run(request))
    except ArbError as error:
        ended = Ended(int(code_of(error)), sentence(error))
    write_line(ended)
    return ended.code


async def _run(request: JobRequest) -> Ended:
    from arb_ray.actors import cluster

    if request.code != __version__:
        raise BadInput(
            "arb_ray",
            f"the desk has {request.code}, the head has {__version__}",
            "Install the same on both; nothing was changed",
        )
    settings = load_settings(request.env, request.overrides)
    configure_logs("info", "json", settings.secret_values())
    cluster.connect(settings.ray.namespace)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(cluster.disconnect)
        postgres = Postgres(postgres_dsn(settings))
        stack.push_async_callback(postgres.close)
        await asyncio.to_thread(_refuse_other_schema, settings)
        job = _Job(request, settings, postgres)
        return await (job.stop() if request.is_stop else job.submit())


class _Job:
    """One request on one cluster."""

    def __init__(self, request: JobRequest, settings: Settings, postgres: Postgres) -> None:
        self._request = request
        self._settings = settings
        self._sessions = SessionStore(postgres, settings.env)
        self._runs = SessionRuns(postgres, settings.env)
        self._snapshots = PostgresSnapshotStore(postgres, settings.env)
        self._wanted = TopologyStore(postgres, settings.env)
        self._clock = SystemClock()
        self._log = get_log("arb_ray.app.cluster_job", env=settings.env, operator=request.actor)

    async def submit(self) -> Ended:
        """Bring the cluster to what is asked for."""
        self._settings = self._with_exchanges()
        await asyncio.to_thread(self._look_at_nodes)
        asked = wanted_pairs(self._settings, symbols_option="symbols" in self._request.overrides)
        before = await self._newest()
        running = with_open_trades(self._settings, asked, await self._sessions.open_symbols())
        is_first = not self._request.dry_run and not self._is_running_here()
        if is_first:
            await self._runs.refuse_elsewhere()
        session = await self._session()
        carried = await self._carried(before, session, is_first=is_first)
        deployment = self._following(before, session, carried, asked, running)
        actors, plan = self._planned(before, deployment)
        for words in plan.words():
            write_line(Said(words))
        if self._settings.gateway.enabled and self._settings.gateway.token is None:
            write_line(
                Said("  without a gateway.token: arb-ray halt, resume and flatten are refused")
            )
        if self._request.dry_run:
            write_line(Said("Nothing was changed."))
            return Ended(ExitCode.CLEAN, result=msgspec.to_builtins(plan))
        ready = await self._bring_about(actors, deployment)
        late = await self._opened_meanwhile(deployment)
        if late:
            # The hosts of before entered until they were replaced, after we had looked.
            write_line(Said(f"{', '.join(late)} was entered meanwhile, and is closed first"))
            found = await self._sessions.open_symbols()
            running = with_open_trades(self._settings, asked, found)
            deployment = self._following(deployment, session, carried, asked, running)
            ready = await self._bring_about(self._planned(before, deployment)[0], deployment)
        result = msgspec.to_builtins(plan) | msgspec.to_builtins(ready)
        if ready.problems:
            words = f"not ready after {ready.seconds:.0f} s: {'; '.join(ready.problems)}"
            return Ended(ExitCode.ENDED_WITH_ERRORS, words, result)
        write_line(Said(f"{len(deployment.symbols)} symbols trade, after {ready.seconds:.1f} s"))
        return Ended(ExitCode.CLEAN, result=result)

    def _following(
        self,
        before: Deployment | None,
        session: Session,
        carried: Counts,
        asked: Sequence[PairInstruments],
        running: Sequence[PairInstruments],
    ) -> Deployment:
        from arb_ray.actors import node_probe

        return next_deployment(
            self._settings,
            SessionFacts(
                session.session_id,
                session.seed,
                session.origin_ns,
                market_words(self._settings),
                carried,
            ),
            asked=asked,
            running=running,
            cpus=node_probe.cpu_count(),
            before=before,
        )

    def _is_running_here(self) -> bool:
        from arb_ray.actors import cluster

        return bool(cluster.names_in(self._settings.ray.namespace))

    async def _carried(
        self, before: Deployment | None, session: Session, *, is_first: bool
    ) -> Counts:
        """Return what runs before this one had counted; a change of what runs begins no run."""
        if not is_first:
            is_same = before is not None and before.session.session_id == session.session_id
            return before.session.carried if before is not None and is_same else Counts()
        now_ns = self._clock.now_ns()
        crashed = await self._runs.begin(session.session_id, now_ns)
        restored = await restore(
            self._snapshots,
            self._sessions,
            session,
            market=market_words(self._settings),
            age_max_s=self._settings.persistence.restore_max_age_s,
            now_ns=now_ns,
        )
        for words in restored.words(crashed):
            write_line(Said(words))
        return restored.counts

    def _planned(
        self, before: Deployment | None, deployment: Deployment
    ) -> tuple[RayCluster, DeployPlan]:
        from arb_ray.actors import cluster
        from arb_ray.app.kit import SUPERVISOR, Kit

        actors = cluster.RayCluster(self._settings.ray.namespace, Kit(deployment))
        present = [name for name in actors.present() if name != SUPERVISOR]
        return actors, deploy_plan(before, deployment, present)

    async def _bring_about(self, actors: RayCluster, deployment: Deployment) -> Readiness:
        await self._wanted.append(encode(deployment, self._request.actor))
        self._log.info("deployment_written", version=deployment.version)
        await self._see_to_supervisor(actors, deployment)
        return await until_ready(actors, deployment, self._settings, self._clock)

    async def _opened_meanwhile(self, deployment: Deployment) -> list[str]:
        """Return the symbols with an open trade that nobody runs."""
        opened = {str(symbol) for symbol, _ in await self._sessions.open_symbols()}
        return sorted(opened - set(deployment.symbols))

    async def stop(self) -> Ended:
        """Have all stopped by the Supervisor; positions stay open unless they are to be closed."""
        from arb_ray.actors import cluster
        from arb_ray.app.kit import SUPERVISOR, Kit

        before = await self._newest()
        present = cluster.names_in(self._settings.ray.namespace)
        if before is None or (before.is_stopped and not present):
            write_line(Said("nothing runs"))
            return Ended(ExitCode.CLEAN, result={"stopped": [], "killed": []})
        after = msgspec.structs.replace(
            before,
            version=before.version + 1,
            is_stopped=True,
            flatten=self._request.flatten,
            code=__version__,
        )
        actors = cluster.RayCluster(self._settings.ray.namespace, Kit(after))
        names = [name for name in actors.present() if name != SUPERVISOR]
        if self._request.dry_run:
            for name in names:
                write_line(Said(f"  stop {name}"))
            return Ended(ExitCode.CLEAN, result={"stop": names})
        await self._wanted.append(encode(after, self._request.actor))
        await self._see_to_supervisor(actors, after)
        write_line(Said("closing positions" if after.flatten else "draining"))
        status = await until_stopped(actors, after, self._clock)
        await self._runs.end(self._clock.now_ns())
        newest = await self._newest()
        if newest is None or newest.version == after.version:
            actors.end(SUPERVISOR)
        else:
            write_line(Said(f"another submit wrote version {newest.version}, which runs now"))
        return await self._told_of_stop(before, names, status)

    async def _told_of_stop(
        self, before: Deployment, names: Sequence[str], status: SystemStatus
    ) -> Ended:
        totals = await self._sessions.totals(before.session.session_id)
        write_line(Said(f"stopped; {totals.open_positions} positions stay open"))
        result = {
            "session_id": before.session.session_id,
            "stopped": list(names),
            "open_positions": totals.open_positions,
            "realized_usdt": str(totals.realized_usdt),
            "trades_closed": totals.trades_closed,
            "errors": status.stop_errors,
        }
        code = ExitCode.ENDED_WITH_ERRORS if status.stop_errors else ExitCode.CLEAN
        return Ended(code, result=result)

    async def _newest(self) -> Deployment | None:
        stored = await self._wanted.newest()
        return None if stored is None else decode(stored)

    async def _session(self) -> Session:
        settings = self._settings
        if self._request.dry_run:
            # Opening one is a change; the plan is that of a session that goes on.
            found = None if self._request.resume is False else await self._sessions.current()
            if found is not None and settings.session.resume:
                return found
            return Session("(new)", settings.source, "", settings.sim.market_seed, 0, 0)
        wants_new = self._request.resume is False
        return await self._sessions.open(
            source=settings.source,
            preset=settings.sim.preset if settings.source == "sim" else "",
            seed=settings.sim.market_seed,
            now_ns=self._clock.now_ns(),
            is_new=wants_new or not settings.session.resume,
            identity=market_identity(settings),
        )

    def _with_exchanges(self) -> Settings:
        """Return the settings with the addresses of the simulated exchanges, when they are used."""
        from arb_ray.actors import node_probe

        if self._settings.source != "sim":
            return self._settings
        host = node_probe.own_address()
        found: dict[str, Any] = {}
        for venue in VENUES:
            found[f"venues.{venue}.ws_url"] = f"ws://{host}:{SIM_PORTS[venue]}"
            found[f"venues.{venue}.rest_url"] = f"http://{host}:{SIM_PORTS[venue]}"
        return load_settings(self._request.env, self._request.overrides | found)

    def _look_at_nodes(self) -> None:
        """Look at every node from within. Raises BadInput with all that is amiss."""
        from arb_ray.actors import node_probe

        settings = self._settings
        looks = node_probe.probe_nodes(Look(settings.env, submitted_values(settings)))
        problems = node_problems(looks, node_probe.node_addresses(), settings.config_hash())
        if problems:
            raise BadInput(
                f"cluster of {settings.env}",
                "; ".join(problems),
                "Mend the nodes, and submit again; nothing was changed",
            )
        write_line(Said(f"{len(looks)} nodes have the code, the settings, secrets and PostgreSQL"))
        for node_id, look in looks.items():
            if look.redis:
                write_line(
                    Said(f"  without Redis on {node_id[:8]}, which is no hindrance: {look.redis}")
                )

    async def _see_to_supervisor(self, actors: RayCluster, deployment: Deployment) -> None:
        """Start the Supervisor; one of other code makes way for one of ours."""
        from arb_ray.app.kit import SUPERVISOR

        if SUPERVISOR in actors.present():
            with contextlib.suppress(OutcomeUnknown):
                status = await actors.links.call(SUPERVISOR, "status", timeout_s=5.0)
                if status.code == __version__:
                    return
            write_line(Said("the Supervisor is of other code, or silent, and starts again"))
            actors.end(SUPERVISOR)
        wanted = WantedActor(Role.SUPERVISOR, "main", (), deployment.topology.version)
        actors.start_supervisor(SUPERVISOR, wanted)


def _refuse_other_schema(settings: Settings) -> None:
    """Refuse a database whose schema is not this code's. Raises BadInput, StoreUnavailable."""
    found = migrate.status(postgres_dsn(settings))
    if found.pending:
        raise BadInput(
            "database",
            f"it lacks the migrations {', '.join(found.pending)}",
            f"Run arb-ray db migrate --env {settings.env} on the head, and submit again",
        )
    if found.unknown:
        raise BadInput(
            "database",
            f"it has migrations that this code does not know: {', '.join(found.unknown)}",
            "Install the newer arb_ray on every node",
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
