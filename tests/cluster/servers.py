"""PostgreSQL and Valkey for the cluster, on the control machine's address in the site's network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from arb_ray.adapters.storage.embedded_postgres import DATABASE, USER, EmbeddedPostgres
from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from tests.cluster import site
from tests.cluster.progress import Failed, step


class SitePostgres(EmbeddedPostgres):
    """The embedded server, open to the hosts of the site, by password."""

    def __init__(self, folder: Path, address: str, network: str) -> None:
        super().__init__(folder)
        self._address = address
        self._network = network

    def command(self, port: int) -> Sequence[str]:
        """Listen on the site's network too; the last of two settings holds."""
        return [*super().command(port), f"--listen_addresses=127.0.0.1,{self._address}"]

    def _initdb(self) -> None:
        super()._initdb()
        with (self.cwd / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self._network} scram-sha-256\n")


class SiteValkey(EmbeddedValkey):
    """The embedded server, open to the hosts of the site, by password."""

    def __init__(self, folder: Path, address: str) -> None:
        super().__init__(folder, password=secrets.token_hex(16))
        self._address = address

    @property
    def password(self) -> str:
        """What the clients must know."""
        assert self._password is not None
        return self._password

    def command(self, port: int) -> Sequence[str]:
        """Listen on the site's network too; the last of two settings holds."""
        words = super().command(port)
        with (self.cwd / "valkey.conf").open("a") as config:
            config.write(f"bind 127.0.0.1 {self._address}\n")
        return words


async def serve(folder: Path, address: str, network: str) -> None:
    """Run both until stdin ends; tell on stdout how to reach them."""
    async with contextlib.AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(
            SitePostgres(folder / "postgres", address, network)
        )
        valkey = await stack.enter_async_context(SiteValkey(folder / "valkey", address))
        told = {
            "POSTGRES_HOST": address,
            "POSTGRES_PORT": postgres.port,
            "POSTGRES_USER": USER,
            "POSTGRES_DATABASE": DATABASE,
            "REDIS_HOST": address,
            "REDIS_PORT": valkey.port,
            "postgres_password": postgres.password,
            "redis_password": valkey.password,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def running_stores(log: Path) -> Iterator[dict[str, str]]:
    """Run both in a process of their own; yield what the guide's reader knows of them."""
    folder, network = str(site.SITE / "stores"), f"{site.SUBNET}.0/24"
    with step("PostgreSQL and Valkey on the site's network"), log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.servers", folder, site.CONTROL_IP, network],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        told = process.stdout.readline()
        if not told:
            raise Failed(f"the stores did not start; see {log.name}")
    try:
        yield {name: str(value) for name, value in json.loads(told).items()}
    finally:
        process.stdin.close()
        process.wait(timeout=60)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
