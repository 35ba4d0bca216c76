"""
The world that is broken: stores behind proxies, a Ray cluster of several nodes, and our run on it.

Everything is real and on this machine. What the verdict reads goes around the proxies.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from pathlib import Path

import psutil
import psycopg
import requests

from arb_ray.app.cluster_job import SIM_PORTS
from tests.ray_hosts import RayHosts, Stores
from tests.tcp_proxy import TcpProxy

ENV = "staging"
SHIM = Path(__file__).parent / "shim"
COINS = (
    "BTC", "ETH", "XRP", "SOL", "DOGE", "ADA", "TRX", "AVAX", "LINK", "DOT", "NEAR", "XLM", "BCH",
    "ETC", "ATOM", "SUI", "APT", "ARB", "SAND", "HBAR",
)  # fmt: skip

SETTINGS = {
    # Trades that come, turn and go while somebody watches, as in dev.
    "strategy.max_hold_s": "20",
    "strategy.stop_loss_bps": "200",
    "strategy.expected_hold_s": "60",
    "strategy.cool_down_s": "1",
    "strategy.warm_up_s": "3",
    "strategy.basis_warm_up_s": "10",
    # Wide enough that a run is not over at the first bad minute, and so narrow that the bounds
    # on open trades and notional are met all the time.
    "risk.daily_loss_usdt": "400",
    "risk.symbol_daily_loss_usdt": "200",
    "risk.drawdown_usdt": "400",
    "risk.open_trades_count": "5",
    "risk.consecutive_losses_count": "1000",
    "risk.win_rate_max_ratio": "1",
}


class Wires:
    """The proxies between every node and the stores, in a loop of their own."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._ports = ports
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.proxies: dict[str, TcpProxy] = {}

    def __enter__(self):
        self._thread.start()
        for name, port in self._ports.items():
            self.proxies[name] = self._run(TcpProxy("127.0.0.1", port).__aenter__())
        return self

    def port(self, name: str) -> int:
        """Where a store is reached."""
        return self.proxies[name].port

    def do(self, name: str, act) -> None:
        """Do something to a proxy, in its own loop; it has happened when this returns."""

        async def acted():
            act(self.proxies[name])

        self._run(acted())

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def __exit__(self, *_):
        for proxy in self.proxies.values():
            self._run(proxy.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class World:
    """Stores, wires, nodes and the run. A context manager; nothing outlives it."""

    def __init__(self, folder: Path, *, seed: int, symbols: int, workers: int) -> None:
        self.folder, self.seed, self.workers = folder, seed, workers
        self.symbols = COINS[:symbols]
        self.control = folder / "control"
        self.control.mkdir()

    def __enter__(self):
        self.stores = Stores(self.folder).__enter__()
        try:
            self._enter()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _enter(self) -> None:
        self.stores.migrate()
        self.gateway_token = "chaos-" + "x" * 32
        self.stores.secret("arb_gateway__token", self.gateway_token)
        ports = {"postgres": self.stores.postgres.port, "redis": self.stores.valkey.port}
        self.wires = Wires(ports).__enter__()
        environment = self.stores.environment() | {
            "ARB_POSTGRES__PORT": str(self.wires.port("postgres")),
            "ARB_REDIS__PORT": str(self.wires.port("redis")),
            "CHAOS_CONTROL": str(self.control),
        }
        # Named before it starts: what a start that fails has left behind is ended too.
        self.hosts = RayHosts(
            self.folder, env=ENV, environment=environment, cpus=1, python_path=(SHIM,)
        )
        self.hosts.__enter__()
        for _ in range(self.workers):
            self.hosts.add_worker()
        self.hosts.until_nodes(1 + self.workers)

    def __exit__(self, *_):
        for part in ("hosts", "wires", "stores"):
            if hasattr(self, part):
                getattr(self, part).__exit__(None, None, None)

    # -- the run ------------------------------------------------------------------------------

    def submit(self) -> None:
        """Start the run, and wait until every symbol is live. Raises AssertionError."""
        options = [part for name in SETTINGS.items() for part in ("--set", "=".join(name))]
        told = self.hosts.submit(
            "--source", "sim", "--preset", "lively", "--seed", str(self.seed),
            "--symbols", ",".join(self.symbols), *options, "--json",
        )  # fmt: skip
        assert told.returncode == 0, f"submit ended with {told.returncode}:\n{told.stderr}"

    def stop(self):
        """Close every position and stop: what an operator types at the end."""
        return self.hosts.submit("--stop", "--flatten", "--json")

    def act(self, verb: str, reason: str) -> None:
        """What an operator does over HTTP. Raises requests.RequestException."""
        answer = requests.post(
            f"http://127.0.0.1:{self.hosts.gateway_port}/{verb}",
            json={"reason": reason, "actor": "chaos"},
            headers={"Authorization": f"Bearer {self.gateway_token}"},
            timeout=6,
        )
        answer.raise_for_status()

    # -- who is where -------------------------------------------------------------------------

    def actors(self) -> dict[str, tuple[int, str]]:
        """Return the living actors as Ray lists them: name to pid and node."""
        answer = requests.get(
            f"{self.hosts.address}/api/v0/actors",
            params={"filter_keys": "state", "filter_predicates": "=", "filter_values": "ALIVE"},
            headers={"Authorization": f"Bearer {self.hosts.token.read_text()}"},
            timeout=10,
        )
        answer.raise_for_status()
        rows = answer.json()["data"]["result"]["result"]
        return {row["name"]: (int(row["pid"]), row["node_id"]) for row in rows if row["name"]}

    def pid(self, target: str, timeout_s: float = 15.0) -> int:
        """Return the process of a target such as ``host:0``; waits while there is none."""
        deadline = time.monotonic() + timeout_s
        while True:
            for name, (pid, _) in self.actors().items():
                is_meant = name.partition("@")[0] in (target, f"{target}:main")
                if is_meant and pid and psutil.pid_exists(pid):
                    return pid
            if time.monotonic() >= deadline:
                break
            time.sleep(0.1)
        raise LookupError(f"no process of {target} within {timeout_s:g} s")

    def _exchange_url(self) -> str:
        """The exchanges listen where the head's address is, which the wanted state tells."""
        if not hasattr(self, "_exchange"):
            with psycopg.connect(self.stores.postgres.dsn) as connection:
                query = "SELECT desired::text FROM arb.topology ORDER BY version DESC LIMIT 1"
                desired = connection.execute(query).fetchone()[0]
            self._exchange = re.search(rf"http://[\d.]+:{SIM_PORTS['upbit']}", desired)[0]
        return self._exchange

    # -- the market ---------------------------------------------------------------------------

    def exchange(self, fault: dict) -> None:
        """Ask the simulated exchanges for a fault. Raises requests.RequestException."""
        answer = requests.post(
            f"{self._exchange_url()}/sim/faults", data=json.dumps(fault), timeout=3
        )
        answer.raise_for_status()
