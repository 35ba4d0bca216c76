"""What must hold of the stack: it starts, trades, lives through a crash, and tells no secret."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.containers.leaks import LeakSearch
from tests.containers.progress import Failed, say, step, wait_for
from tests.containers.stack import (
    DASHBOARD_URL,
    GATEWAY_URL,
    LEFT_OUT,
    PROMETHEUS_URL,
    Container,
    Stack,
)

ONE_SHOT = ("migrate", "submit")
SUBMIT_ARGS = "--source sim --symbols top:10 --set sim.preset=lively --set strategy.max_hold_s=30"
UP_TIMEOUT_S = 240.0
SUBMIT_TIMEOUT_S = 240.0
TRADE_TIMEOUT_S = 150.0
# Ray takes five seconds to notice, and new processes some more to start on a busy machine.
FAILOVER_TIMEOUT_S = 120.0
PORTS = {"8265", "8790", "9090"}  # and Grafana's 3000, which is left out
CLOSED = "SELECT count(*) FROM arb.trades WHERE status = 'closed' AND outcome = 'posted'"


class Scenario:
    """The steps, in the order in which an operator would see them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lost: list[str] = []
        """Actors that were on the node that was killed."""

    def play(self, *, bare: bool) -> None:
        """Raise Failed at the first thing that does not hold."""
        try:
            self._starts(bare=bare)
            self._publishes_on_loopback_only()
            self._asks_for_tokens()
            if bare:
                self._worker_comes_back()
            else:
                self._trades()
                self._is_watched()
                self._survives_a_dead_worker()
                self._books_hold()
                self._backs_up()
            self._tells_no_secret(bare=bare)
            if not bare:
                self._stops()
        except Failed:
            self._tell_what_was()
            raise
        finally:
            with step("docker compose down"):
                self._stack.compose("down", "--volumes", "--timeout", "20", timeout_s=120)

    def _starts(self, *, bare: bool) -> None:
        for name, why in LEFT_OUT.items():
            say(f"  LEFT OUT: {name}: {why}")
        services = self._stack.services()
        started_ones = [one for one in services if one != "submit"]
        with step(f"docker compose up: {len(started_ones)} services, until all are healthy"):
            words = ("up", "--detach", "--no-build", "--pull", "never")
            self._stack.compose(*words, *started_ones, timeout_s=UP_TIMEOUT_S)
            self._all_healthy(set(started_ones), UP_TIMEOUT_S)
        if not bare:
            with step("submit: the actors are wanted, started and ready"):
                words = ("up", "--detach", "--no-build", "--no-deps", "submit")
                self._stack.compose(*words, timeout_s=60)
                self._all_healthy({"submit"}, SUBMIT_TIMEOUT_S)

    def _all_healthy(self, services: set[str], timeout_s: float) -> None:
        def are_well() -> bool:
            seen = self._stack.containers()
            broken = [one for one in seen if one.state == "exited" and one.exit_code]
            if broken:
                raise Failed(f"{broken[0].name} ended with {broken[0].exit_code}")
            well = {one.service for one in seen if _is_well(one)}
            return services <= well and all(_is_well(one) for one in seen)

        wait_for("every service well", are_well, timeout_s)

    def _publishes_on_loopback_only(self) -> None:
        with step("only what is meant is published, on 127.0.0.1"):
            published = set()
            for one in self._stack.containers():
                for line in self._stack.engine.docker("port", one.id).splitlines():
                    address, _, port = line.rpartition(" ")[2].rpartition(":")
                    if address != "127.0.0.1":
                        raise Failed(f"{one.name} listens on {address}:{port}")
                    published.add(port)
            if published != PORTS:
                raise Failed(f"published are {sorted(published)}, not {sorted(PORTS)}")

    def _asks_for_tokens(self) -> None:
        with step("Ray's Jobs API wants its token"):
            jobs = f"{DASHBOARD_URL}/api/jobs/"
            without, _ = self._stack.get(jobs)
            with_it, _ = self._stack.get(jobs, token=self._stack.secret("ray_auth_token"))
            if (without, with_it) != (401, 200):
                raise Failed(f"it answered {without} without a token and {with_it} with it")

    def _trades(self) -> None:
        with step("/health is 200, and trades are closed") as notes:
            wait_for("/health", self._is_healthy, FAILOVER_TIMEOUT_S)
            closed = wait_for("a closed trade", self._closed, TRADE_TIMEOUT_S)
            notes.append(f"{closed} closed")

    def _is_healthy(self) -> bool:
        return self._stack.get(f"{GATEWAY_URL}/health")[0] == 200

    def _closed(self) -> int:
        return int(self._stack.sql(CLOSED))

    def _is_watched(self) -> None:
        with step("Prometheus reads every node and the Gateway") as notes:
            nodes = 1 + len(self._stack.of("ray-worker"))

            def are_read() -> bool:
                ray = self._up("ray")
                return ray.count("1") >= nodes and self._up("arb_gateway") == ["1"]

            wait_for("all targets up", are_read, 90)
            notes.append(f"{len(self._up('ray'))} targets of Ray")
            found = self._query("count(arb_risk_state)")
            if not found:
                raise Failed("Prometheus has no arb_risk_state")

    def _up(self, job: str) -> list[str]:
        return self._query(f'up{{job="{job}"}}')

    def _query(self, expression: str) -> list[str]:
        words = expression.replace("{", "%7B").replace("}", "%7D").replace('"', "%22")
        status, answer = self._stack.get(f"{PROMETHEUS_URL}/api/v1/query?query={words}")
        if status != 200:
            return []
        return [one["value"][1] for one in answer["data"]["result"]]

    def _worker_comes_back(self) -> None:
        with step("a worker's container is killed and comes back") as notes:
            victim = self._stack.of("ray-worker")[-1]
            _crash(victim)
            self._is_back(victim)
            notes.append(victim.name)

    def _a_worker_with_strategies(self) -> tuple[Container, list[str]]:
        for worker in self._stack.of("ray-worker"):
            actors = self._stack.actors_on(worker)
            if any(name.startswith("host:") for name in actors):
                return worker, actors
        raise Failed("no worker runs a strategy host, so a crash of one would prove nothing")

    def _is_back(self, victim: Container) -> None:
        def is_well_again() -> bool:
            now = {one.name: one for one in self._stack.of("ray-worker")}[victim.name]
            return now.restarts > victim.restarts and _is_well(now)

        wait_for(f"{victim.name} healthy again", is_well_again, FAILOVER_TIMEOUT_S)

    def _survives_a_dead_worker(self) -> None:
        with step("a worker is killed: noticed, taken over, healthy again") as notes:
            victim, self._lost = self._a_worker_with_strategies()
            began_s = time.monotonic()
            _crash(victim)
            notes.append(f"{victim.name} with {', '.join(self._lost)}")
            wait_for("/health is not 200", lambda: not self._is_healthy(), FAILOVER_TIMEOUT_S, 0.3)
            notes.append(f"unhealthy after {time.monotonic() - began_s:.0f} s")
            wait_for("/health", self._is_healthy, FAILOVER_TIMEOUT_S)
            notes.append(f"healthy after {time.monotonic() - began_s:.0f} s")
            self._is_back(victim)
        with step("trades go on") as notes:
            query = f"SELECT count(*) FROM arb.trades WHERE opened_ns > {time.time_ns()}"
            opened = wait_for(
                "a trade opened after the crash",
                lambda: int(self._stack.sql(query)),
                TRADE_TIMEOUT_S,
            )
            notes.append(f"{opened} opened since")

    def _books_hold(self) -> None:
        with step("the ledger's audit is clean"):
            words = ("run", "--rm", "--no-deps", "-T", "migrate", "arb-ray", "audit")
            self._stack.compose(*words, "--env", "prod", timeout_s=120)

    def _backs_up(self) -> None:
        with step("a backup is taken, and restores") as notes:
            script = ("exec", "-T", "backup", "sh", "/opt/backup/backup.sh")
            self._stack.compose(*script, "once", timeout_s=60)
            newest = self._stack.compose(
                *("exec", "-T", "backup", "sh", "-c", "ls /backups/*.dump | tail -n 1"),
                timeout_s=30,
            ).strip()
            self._stack.compose(*script, "restore", newest, "arb_restored", timeout_s=60)
            words = ("exec", "-T", "postgres", "psql", "--user=arb", "--dbname=arb_restored")
            counted = self._stack.compose(*words, "-XAtc", CLOSED, timeout_s=30).strip()
            if int(counted) < 1:
                raise Failed("the restored database has no closed trade")
            notes.append(f"{counted} closed trades in {newest.rpartition('/')[2]}")

    def _tells_no_secret(self, *, bare: bool) -> None:
        search = LeakSearch(self._stack)
        with step("no secret in the image's layers, history and labels"):
            search.in_image()
        with step("no secret in docker inspect nor in the containers' logs"):
            search.in_containers()
        if not bare:
            with step("no secret in Ray's logs, jobs and actors"):
                search.in_ray()

    def _stops(self) -> None:
        with step("submit --stop --flatten leaves no open trade") as notes:
            words = ("run", "--rm", "--no-deps", "-T", "submit", "python", "-m", "arb_ray.submit")
            where = ("--env", "prod", "--address", "http://ray-head:8265", "--stop", "--flatten")
            done = self._stack.tries(*words, *where, "--json", timeout_s=180)
            told = json.loads(done.stdout) if done.stdout.strip().startswith("{") else {}
            # 4 says that something was amiss in the run, and what: the crash, and nothing else.
            expected = {f"{name} ended unexpectedly and was started again" for name in self._lost}
            if done.returncode not in (0, 4) or not told or set(told["errors"]) - expected:
                raise Failed(f"the stop ended with {done.returncode}: {told or done.stderr[-800:]}")
            notes.append(f"{told['trades_closed']} trades closed, {told['realized_usdt']} USDT")
            if self._stack.sql("SELECT count(*) FROM arb.trades WHERE status = 'open'") != "0":
                raise Failed("trades are open after --stop --flatten")
        self._books_hold()

    def _tell_what_was(self) -> None:
        for one in self._stack.containers():
            if not _is_well(one):
                say(f"--- {one.name}: {one.state} {one.health} exit {one.exit_code}")
                say(self._stack.logs(one.service))
        self._stack.keep_ray_logs(self._stack.logs_dir)
        status, health = self._stack.get(f"{GATEWAY_URL}/health")
        say(f"--- /health: {status} {str(health)[:1500]}")


def _crash(victim: Container) -> None:
    """End a container from outside: what `docker kill` ends, the engine does not start again."""
    os.kill(victim.pid, signal.SIGKILL)


def _is_well(one: Container) -> bool:
    if one.service in ONE_SHOT:
        return one.state == "exited" and one.exit_code == 0
    return one.state == "running" and one.health == "healthy"
