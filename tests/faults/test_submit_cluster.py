"""
submit to a running cluster of two nodes with token, secrets and stores, as an operator does.

One cluster serves the module; the tests go down its life in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import signal
import time

import asyncpg
import pytest
import requests

from tests.e2e.runs import short_folder
from tests.ray_hosts import RayHosts, Stores

pytestmark = pytest.mark.timeout(600)

SYMBOLS = "ADA,BTC,DOGE,ETH,SOL,XRP"
MARKET = ("--source", "sim", "--preset", "lively")
BACK_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def life():
    """The whole life, told step by step; each test looks at one step."""
    with (
        short_folder() as folder,
        Stores(folder) as stores,
        RayHosts(folder, env="staging", environment=stores.environment()) as hosts,
    ):
        yield Life(folder, stores, hosts)


class Life:
    """What happened, by name; a step that was asked for runs those before it."""

    def __init__(self, folder, stores, hosts):
        self.folder, self.stores, self.hosts = folder, stores, hosts
        self._told = {}

    def step(self, name):
        order = [
            "wrong_env", "no_schema", "missing_secret", "dry", "submit", "changed",
            "same", "node_lost", "stop", "stop_again",
        ]  # fmt: skip
        for one in order[: order.index(name) + 1]:
            if one not in self._told:
                self._told[one] = getattr(self, f"_{one}")()
        return self._told[name]

    def _wrong_env(self):
        return self.hosts.submit("--dry-run", env="prod")

    def _no_schema(self):
        return self.hosts.submit(*MARKET, "--dry-run")

    def _missing_secret(self):
        self.stores.migrate()
        path = self.stores.secrets / "arb_postgres__password"
        hidden = path.rename(self.folder / "hidden")
        try:
            told = self.hosts.submit(*MARKET, "--symbols", SYMBOLS)
        finally:
            hidden.rename(path)
        return told, self.rows("SELECT * FROM arb.topology")

    def _dry(self):
        self.hosts.add_worker()
        self.hosts.until_nodes(2)
        told = self.hosts.submit(*MARKET, "--symbols", SYMBOLS, "--dry-run", "--json")
        return (
            told,
            self.rows("SELECT * FROM arb.topology"),
            self.rows("SELECT * FROM arb.sessions"),
        )

    def _submit(self):
        told = self.hosts.submit(*MARKET, "--symbols", SYMBOLS, "--json")
        assert told.returncode == 0, told.stderr
        (worker,) = self.hosts.workers
        return told, self.pids(), self.status(), set(self.pids_below(worker.pid))

    def _changed(self):
        fewer = ",".join(SYMBOLS.split(",")[:-1])
        told = self.hosts.submit(
            *MARKET, "--symbols", fewer, "--set", "risk.daily_loss_usdt=90", "--json"
        )
        assert told.returncode == 0, told.stderr
        return told, self.pids(), self.status()

    def _same(self):
        fewer = ",".join(SYMBOLS.split(",")[:-1])
        told = self.hosts.submit(
            *MARKET, "--symbols", fewer, "--set", "risk.daily_loss_usdt=90", "--json"
        )
        return told, self.pids()

    def _node_lost(self):
        (worker,) = self.hosts.workers
        lost = self.pids_below(worker.pid)
        before = self.status()
        for pid in [worker.pid, *lost]:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        self.until(lambda: not self.healthy(), "unhealthy", 30)
        self.until(self.healthy, "healthy again", BACK_WITHIN_S)
        seconds, after = time.monotonic() - began, self.status()
        self.until(lambda: decisions(self.status()) > decisions(after), "deciding again", 20)
        return seconds, before, after, lost

    def _stop(self):
        told = self.hosts.submit("--stop", "--flatten", "--json")
        return told, self.pids(), self.rows("SELECT * FROM arb.trades WHERE status = 'open'")

    def _stop_again(self):
        return self.hosts.submit("--stop", "--json")

    # -- looking ------------------------------------------------------------------------

    def rows(self, sql):
        import asyncio

        async def fetch():
            connection = await asyncpg.connect(self.stores.postgres.dsn)
            try:
                return await connection.fetch(sql)
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def status(self):
        return requests.get(f"http://127.0.0.1:{self.hosts.gateway_port}/status", timeout=5).json()

    def healthy(self):
        try:
            url = f"http://127.0.0.1:{self.hosts.gateway_port}/health"
            return requests.get(url, timeout=8).status_code == 200
        except requests.RequestException:
            return False

    def until(self, is_so, what, timeout_s):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if is_so():
                return
            time.sleep(0.3)
        raise AssertionError(f"not {what} within {timeout_s:g} s: {self.status()['missing']}")

    def pids(self):
        """Pids of our actors' processes by their class."""
        found = {}
        for process in self.hosts.family.processes():
            label = self.hosts.family.label(process)
            if label.startswith("ray::") and label.endswith("Actor") and "Job" not in label:
                found.setdefault(label, set()).add(process.pid)
        return found

    def pids_below(self, pid):
        import psutil

        return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def decisions(status):
    return sum(host["decisions"] for host in status["hosts"].values())


def test_a_cluster_of_another_environment_is_refused(life):
    told = life.step("wrong_env")
    assert told.returncode == 3
    assert "not the cluster of prod" in told.stderr
    assert "--labels=arb-env=prod" in told.stderr


def test_a_database_without_its_schema_is_refused_with_the_command_that_mends_it(life):
    told = life.step("no_schema")
    assert told.returncode == 3
    assert "arb-ray db migrate --env staging" in told.stderr


def test_a_missing_secret_on_a_node_is_refused(life):
    told, topology = life.step("missing_secret")
    assert told.returncode == 2
    assert "postgres.password" in told.stderr
    assert topology == []


def test_a_dry_run_shows_the_plan_and_changes_nothing(life):
    told, topology, sessions = life.step("dry")
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["symbols"] == SYMBOLS.split(",")
    assert len(plan["start"]) == 10
    assert "Nothing was changed" in told.stderr
    assert (topology, sessions) == ([], [])


def test_a_submit_waits_until_every_symbol_is_live_and_ends(life):
    told, pids, status, _ = life.step("submit")
    result = json.loads(told.stdout)
    assert (result["live"], result["problems"]) == (6, [])
    assert "6 of 6 symbols live" in told.stderr
    assert status["deployment"] == 1
    assert status["missing"] == []
    assert len(pids["ray::StrategyHostActor"]) == 4
    assert len(pids["ray::FeedActor"]) == 2


def test_hosts_and_feeds_are_dealt_out_over_all_nodes(life):
    _, pids, _, there = life.step("submit")
    spread = pids["ray::StrategyHostActor"] | pids["ray::FeedActor"]
    assert spread & there
    assert spread - there
    for role in ("RiskGuard", "Persistence", "Gateway", "Source", "Supervisor"):
        assert not pids[f"ray::{role}Actor"] & there


def test_a_changed_submit_restarts_only_what_changed(life):
    _, before, _, _ = life.step("submit")
    told, after, status = life.step("changed")
    result = json.loads(told.stdout)
    assert result["removed"] == ["XRP"]
    assert result["changed"]["risk.daily_loss_usdt"] == ["100", "90"]
    for role in ("RiskGuard", "Persistence", "Gateway", "Source", "Supervisor"):
        assert after[f"ray::{role}Actor"] == before[f"ray::{role}Actor"]
    kept = before["ray::StrategyHostActor"] & after["ray::StrategyHostActor"]
    assert len(kept) == 3
    assert status["risk"]["daily_limit_usdt"] == "90"
    assert status["risk"]["deployment"] == status["deployment"] == 2
    wanted = {symbol for host in status["hosts"].values() for symbol in host["symbols"]}
    assert wanted == set(SYMBOLS.split(",")) - {"XRP"}


def test_the_same_submit_again_restarts_nothing(life):
    _, before, _ = life.step("changed")
    told, after = life.step("same")
    result = json.loads(told.stdout)
    assert (result["start"], result["stop"], result["changed"]) == ([], [], {})
    assert after == before


def test_a_lost_node_s_actors_come_back_elsewhere_and_trading_goes_on(life):
    seconds, before, after, lost = life.step("node_lost")
    assert seconds < BACK_WITHIN_S
    assert lost
    assert set(after["hosts"]) == set(before["hosts"])


def test_a_stop_closes_what_is_open_and_ends_every_actor(life):
    told, pids, still_open = life.step("stop")
    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert result["open_positions"] == 0
    assert still_open == []
    assert pids == {}


def test_the_books_hold_after_all_that(life):
    life.step("stop")
    unbalanced = life.rows("SELECT asset FROM arb.postings GROUP BY asset HAVING sum(amount) <> 0")
    assert unbalanced == []
    assert life.rows("SELECT * FROM arb.trades")


def test_stopping_what_is_stopped_is_no_error(life):
    told = life.step("stop_again")
    assert told.returncode == 0, told.stderr
