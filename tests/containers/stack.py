"""The stack, through the compose file that people use, unchanged; only .env is the test's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from tests.containers import images
from tests.containers.debian import compose_environment, docker_program
from tests.containers.engine import Engine
from tests.containers.progress import Failed, attempt, run

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "arbtest"
LEFT_OUT = {"grafana": "Grafana's server is in no registry that can be reached here"}
DASHBOARD_URL = "http://127.0.0.1:8265"
GATEWAY_URL = "http://127.0.0.1:8790"
PROMETHEUS_URL = "http://127.0.0.1:9090"


class Container(msgspec.Struct, frozen=True):
    """One container of the stack, as the engine sees it now."""

    name: str
    service: str
    id: str
    state: str
    health: str
    exit_code: int
    restarts: int
    pid: int
    addresses: tuple[str, ...]


class Stack:
    """docker compose with the real file."""

    def __init__(self, engine: Engine, work: Path, compose: Path) -> None:
        self.engine = engine
        self.secrets_dir = work / "secrets"
        self._env_file = work / "env"
        self.logs_dir = work / "ray-logs"
        self._environ = os.environ | engine.environ | compose_environment(compose, work)
        self._docker = docker_program("docker")

    def configure(self, values: dict[str, str]) -> None:
        """Write the .env of this test, and secrets where there are none."""
        values = {"STACK_NAME": PROJECT, "SECRETS_DIR": str(self.secrets_dir)} | values
        self._env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        run(ROOT / "deploy/containers/make-secrets.sh", self.secrets_dir, timeout_s=30)

    def compose(self, *words: str, timeout_s: float) -> str:
        """Run a compose command; return its stdout. Raises Failed."""
        return run(*self._command(*words), timeout_s=timeout_s, env=self._environ, cwd=ROOT)

    def tries(self, *words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run a compose command whose failure may be an answer."""
        return attempt(*self._command(*words), timeout_s=timeout_s, env=self._environ, cwd=ROOT)

    def _command(self, *words: str) -> list[str | Path]:
        file = ROOT / "docker-compose.prod.yml"
        return [self._docker, "compose", "--env-file", self._env_file, "--file", file, *words]

    def services(self) -> list[str]:
        """Return what is started here: everything but what is left out."""
        listed = self.compose("config", "--services", timeout_s=30).split()
        return sorted(set(listed) - LEFT_OUT.keys())

    def containers(self) -> list[Container]:
        """Return every container of the stack, ended ones too."""
        label = f"label=com.docker.compose.project={PROJECT}"
        ids = self.engine.docker("ps", "--all", "--quiet", "--filter", label).split()
        seen = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return [
            Container(
                name=one["Name"].lstrip("/"),
                service=one["Config"]["Labels"]["com.docker.compose.service"],
                id=one["Id"],
                state=one["State"]["Status"],
                health=one["State"].get("Health", {}).get("Status", ""),
                exit_code=one["State"]["ExitCode"],
                restarts=one["RestartCount"],
                pid=one["State"]["Pid"],
                addresses=tuple(
                    network["IPAddress"] for network in one["NetworkSettings"]["Networks"].values()
                ),
            )
            for one in seen
        ]

    def of(self, service: str) -> list[Container]:
        """Return the containers of one service."""
        return [one for one in self.containers() if one.service == service]

    def logs(self, service: str, lines: int = 25) -> str:
        """Return the end of a service's log."""
        words = ("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), service)
        return self.tries(*words, timeout_s=60).stdout

    def actors_on(self, container: Container) -> list[str]:
        """Return the names of Ray's living actors on a node. Raises Failed."""
        nodes = {node["node_id"]: node["node_ip"] for node in self._ray_state("nodes")}
        return sorted(
            actor["name"]
            for actor in self._ray_state("actors")
            if actor["state"] == "ALIVE" and nodes.get(actor["node_id"]) in container.addresses
        )

    def _ray_state(self, kind: str) -> list[dict[str, Any]]:
        token = self.secret("ray_auth_token")
        status, said = self.get(f"{DASHBOARD_URL}/api/v0/{kind}?detail=1&limit=1000", token=token)
        if status != 200:
            raise Failed(f"Ray tells nothing of its {kind}: {status} {said}")
        return list(said["data"]["result"]["result"])

    def keep_ray_logs(self, folder: Path) -> None:
        """Copy the logs of every Ray node that still stands below ``folder``."""
        for one in self.containers():
            if one.service in ("ray-head", "ray-worker"):
                target = folder / one.name
                shutil.rmtree(target, ignore_errors=True)
                target.mkdir(parents=True)
                source = f"{one.id}:/tmp/ray/session_latest/logs"
                self.engine.docker_both("cp", "--follow-link", source, str(target))

    def sql(self, query: str) -> str:
        """Return what a query gives, unaligned; through the server's own socket."""
        words = ("psql", "--user=arb", "--dbname=arb", "-XAtc", query)
        return self.compose("exec", "-T", "postgres", *words, timeout_s=60).strip()

    def secret(self, name: str) -> str:
        """Return a secret of the stack."""
        return (self.secrets_dir / name).read_text().strip()

    def get(self, url: str, *, token: str = "", timeout_s: float = 10) -> tuple[int, Any]:
        """Return status and JSON (or text) of what a published port answers; 0 when nothing."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())
        except OSError as error:
            return 0, str(error)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def settings(more: dict[str, str]) -> dict[str, str]:
    """Return what the test's .env says besides names: images, sizes, the simulated market."""
    replaced = {f"{name.upper()}_IMAGE": images.standin(name) for name in images.STANDINS}
    sizes = {"RAY_WORKERS": "2", "RAY_NODE_MEMORY_LIMIT": "4g", "RAY_NODE_CPU_LIMIT": "2"}
    ours = {"STACK_IMAGE": images.OURS, "ARB_ENV": "prod"}
    return replaced | sizes | ours | more
