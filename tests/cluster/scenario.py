"""What the cluster must do, from power on to `ray down`, step by step."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster import guide, site
from tests.cluster.books import Books
from tests.cluster.control import Control
from tests.cluster.nodes import ALL, alive
from tests.cluster.progress import Failed, step, wait_for
from tests.cluster.servers import running_stores
from tests.cluster.trading import Trading

HEAD_URL = "http://127.0.0.1:8265"  # through the guide's tunnel
RAY_WORDS = ("raylet", "gcs_server", "ray::", "/ray/")
# The seed is the same by default: sim.market_seed. The cluster's secrets are not this run's.
ONE_PROCESS = """
unset ARB_SECRETS_DIR
python -m arb_ray.submit --env dev --source sim --preset lively --symbols top:50 \\
  --duration 45s --json
"""
ONE_AUDIT = "arb-ray audit --env dev --data-dir data --json"


class Scenario:
    """One run of the test, inside its namespaces."""

    def __init__(self, checkout: Path, work: Path, said: argparse.Namespace) -> None:
        self._checkout = checkout
        self._work = work
        self._said = said
        self._hosts = {
            name: site.Host(name, address, checkout) for name, address in site.HOSTS.items()
        }

    def play(self) -> None:
        """Raise Failed at the first thing that does not hold."""
        shutil.rmtree(self._work / "logs", ignore_errors=True)
        (self._work / "logs").mkdir(parents=True)
        # The checkout is covered by memory soon; an open folder leads below the cover.
        below = os.open(self._work / "logs", os.O_RDONLY | os.O_DIRECTORY)
        with step("site: mounts and a bridge"):
            site.furnish(self._checkout, self._work / "node-image")
            site.wire()
        logs = site.SITE / "logs"
        logs.mkdir()
        try:
            with running_stores(logs / "stores.log") as stores:
                control = Control(guide.steps(guide.text()), stores, logs)
                self._start(control, stores, logs)
                if not self._said.bare:
                    Trading(control, self._hosts, Books(stores)).play()
                self._stop(control)
                if not self._said.bare:
                    one_process(control)
                    if control.unused:
                        raise Failed(f"the guide's {', '.join(control.unused)} was not run")
        finally:
            for host in self._hosts.values():
                host.keep_logs(logs)
            shutil.copytree(logs, f"/proc/self/fd/{below}", dirs_exist_ok=True)

    def _start(self, control: Control, stores: dict[str, str], logs: Path) -> None:
        """Follow the guide until three nodes are alive."""
        control.follow("build", timeout_s=120)
        control.follow("key", timeout_s=20)
        key = (site.CONTROL_HOME / ".ssh" / "arb_cluster.pub").read_text()
        with step("three hosts, each with its ssh server"):
            for host in self._hosts.values():
                host.install(key)
                host.power_on()
        control.follow("secrets", timeout_s=20)
        control.follow("stores", timeout_s=20)
        for name in ("postgres-password", "redis-password"):
            control.follow(name, timeout_s=20, typed=stores[name.replace("-", "_")] + "\n")
        control.follow("cluster-file", timeout_s=20)
        control.follow("up", timeout_s=180)
        control.follow("tunnel", timeout_s=20)
        with step("three nodes alive, each with its label"):
            wait_for("three nodes", lambda: alive(control) == ALL, timeout_s=120, every_s=2)
        control.follow("monitor", timeout_s=20)
        _closed_without_token()
        self._pushes_secrets(control)

    def _pushes_secrets(self, control: Control) -> None:
        """A changed secret reaches every node, and nothing there is restarted."""
        before = self._ray_processes("raylet")
        changed = "changed-by-the-cluster-test"
        (self._checkout / "secrets" / "arb_gateway__token").write_text(changed)
        control.follow("push-secrets", timeout_s=30)
        with step("the new secret on every node, nothing restarted"):
            for host in self._hosts.values():
                if host.read("arb_ray/secrets/arb_gateway__token") != changed:
                    raise Failed(f"the new secret did not reach {host.name}")
            if self._ray_processes("raylet") != before:
                raise Failed("a raylet was restarted")

    def _stop(self, control: Control) -> None:
        """Take the cluster down by the guide, and look whether anything of it stays."""
        control.follow("down", timeout_s=120)
        with step("no process of Ray on any host"):
            wait_for("hosts without Ray", lambda: not self._ray_processes(), 30, every_s=1)

    def _ray_processes(self, *words: str) -> list[tuple[int, str]]:
        return [
            (pid, line)
            for host in self._hosts.values()
            for pid, line in host.processes()
            if any(word in line for word in words or RAY_WORDS)
        ]


def one_process(control: Control) -> None:
    """The same session of the simulated exchanges on one machine: its books must hold as well."""
    with step("the same market and symbols on one machine") as notes:
        told = json.loads(control.run(ONE_PROCESS, name="one-process", timeout_s=180))
        notes.append(f"{told['trades_closed']} trades closed")
        if told["trades_closed"] == 0:
            raise Failed("the run on one machine closed no trade, so its audit says nothing")
    with step("its audit"):
        control.run(ONE_AUDIT, name="one-audit", timeout_s=60)


def _closed_without_token() -> None:
    """Whoever may ask the job API may run anything: it must answer to the token alone."""
    with step("no token, or a wrong one, is refused"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            code = _status(f"{HEAD_URL}/api/jobs/", headers)
            if code not in (401, 403):
                raise Failed(f"the job API answered {code} to a request without the token")


def _status(url: str, headers: dict[str, str]) -> int:
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
