"""
A Ray cluster of several nodes on this machine, as an operator starts one: ``ray start``.

With PostgreSQL, Valkey, secret files and a token. Everything belongs to a Family, so that it
ends with the test and nothing else on the machine does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import requests

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from arb_ray.adapters.storage.process import free_port
from benchmarks.family import Family

ROOT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")
START_TIMEOUT_S = 120.0

TUNED = {
    # RAY.md, "Placement and failover": a lost node is noticed in seconds.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_kill_worker_timeout_milliseconds": "200",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
}


class Stores:
    """PostgreSQL and Valkey in a thread of their own, and the secrets that open them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self.secrets = folder / "secrets"

    def __enter__(self):
        self._thread.start()
        self.postgres = self._enter(EmbeddedPostgres(self._folder / "postgres"))
        redis_password = secrets.token_hex(16)
        self.valkey = self._enter(EmbeddedValkey(self._folder / "valkey", password=redis_password))
        self.secrets.mkdir(mode=0o700)
        self.secret("arb_postgres__password", self.postgres.password)
        self.secret("arb_redis__password", redis_password)
        return self

    def secret(self, name: str, value: str) -> Path:
        """Write a secret file."""
        path = self.secrets / name
        path.touch(mode=0o600)
        path.write_text(value)
        return path

    def migrate(self) -> None:
        """Bring the schema up, as ``arb-ray db migrate`` does."""
        migrate.apply(self.postgres.dsn)

    def environment(self) -> dict[str, str]:
        """What a node must know to find them."""
        return {
            "ARB_SECRETS_DIR": str(self.secrets),
            "ARB_POSTGRES__HOST": "127.0.0.1",
            "ARB_POSTGRES__PORT": str(self.postgres.port),
            "ARB_POSTGRES__DATABASE": "arb",
            "ARB_REDIS__HOST": "127.0.0.1",
            "ARB_REDIS__PORT": str(self.valkey.port),
        }

    def _enter(self, server):
        return self._run(self._stack.enter_async_context(server))

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def __exit__(self, *_):
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class RayHosts:
    """``ray start`` once for the head and once for every worker."""

    def __init__(
        self,
        folder: Path,
        *,
        env: str,
        environment: dict[str, str],
        cpus: int = 2,
        python_path: tuple[Path, ...] = (),
    ) -> None:
        self.family = Family(folder)
        self.address = f"http://127.0.0.1:{free_port()}"
        self.gateway_port = free_port()
        self.token = folder / "ray_token"
        self.token.touch(mode=0o600)
        self.token.write_text(secrets.token_hex(32))
        self._folder = folder
        self._env = env
        self._cpus = cpus
        self._gcs = free_port()
        self._environment = {
            **self.family.environment(),
            **TUNED,
            **environment,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": f"{RAY.parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "DASHBOARD_METRIC_PORT": str(free_port()),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "ARB_GATEWAY__HTTP_PORT": str(self.gateway_port),
            "ARB_SESSION__DATA_DIR": str(folder / "data"),
            "PYTHONPATH": os.pathsep.join(map(str, (*python_path, ROOT))),
        }
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            self._environment.pop(name, None)
        self.workers: list[subprocess.Popen] = []
        self._started: list[subprocess.Popen] = []

    def __enter__(self):
        port = self.address.rsplit(":", 1)[1]
        self._start(
            "--head", f"--port={self._gcs}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={port}", "--include-dashboard=true", f"--temp-dir={self._folder}/r",
        )  # fmt: skip
        self.until_nodes(1)
        return self

    def add_worker(self) -> subprocess.Popen:
        """Start one more node; the number of its process group is its pid."""
        worker = self._start(f"--address=127.0.0.1:{self._gcs}")
        self.workers.append(worker)
        return worker

    def _start(self, *options: str) -> subprocess.Popen:
        command = [
            str(RAY), "start", "--block", f"--num-cpus={self._cpus}",
            "--object-store-memory=100000000", f"--labels=arb-env={self._env}",
            "--node-ip-address=127.0.0.1",
            # Another Ray on this machine has the ports that it would take by itself.
            f"--dashboard-agent-listen-port={free_port()}",
            f"--metrics-export-port={free_port()}", *options,
        ]  # fmt: skip
        with (self._folder / "ray_start.log").open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, cwd=self._folder,
            )  # fmt: skip
        self._started.append(process)
        return process

    def until_nodes(self, count: int) -> None:
        """Wait until so many nodes live."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if len(self.nodes()) == count:
                    return
            time.sleep(0.3)
        raise AssertionError((self._folder / "ray_start.log").read_text()[-3000:])

    def nodes(self) -> list[dict]:
        """The living nodes, as the state API tells them."""
        answer = requests.get(
            f"{self.address}/api/v0/nodes",
            params={"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"},
            headers={"Authorization": f"Bearer {self.token.read_text()}"},
            timeout=5,
        )
        return answer.json()["data"]["result"]["result"] if answer.ok else []

    def command(self, *options: str, environment=None) -> subprocess.CompletedProcess:
        """Run a command of ours at the desk: with the token, without the stores' secrets."""
        desk = {
            **self.family.environment(),
            "HOME": str(self._folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            **(environment or {}),
        }
        return subprocess.run(
            [sys.executable, *options], env=desk, cwd=ROOT, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=240, check=False,
        )  # fmt: skip

    def submit(self, *options: str, env: str | None = None, environment=None):
        """Run ``python -m arb_ray.submit`` against the head."""
        return self.command(
            "-m", "arb_ray.submit", "--env", env or self._env, "--address", self.address,
            *options, environment=environment,
        )  # fmt: skip

    def __exit__(self, *_):
        self.family.kill()
        for process in self._started:
            process.wait(20)
        self.family.wait_until_gone(20)
