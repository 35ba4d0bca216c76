"""Debian's servers under the names of the embedded ones, so that the same suites run on both."""

import shutil
import subprocess
import time
from types import SimpleNamespace

import pytest
import redis

from arb_ray.adapters.storage.process import free_port

# PostgreSQL is the wheel's here too: it knows which sessions are finished.
from tests.integration.conftest import (  # noqa: F401
    embedded_postgres,
    empty_dsn,
    env,
    postgres,
    server_thread,
    shared_dsn,
)


@pytest.fixture(scope="session")
def embedded_valkey(tmp_path_factory):
    """Redis 7 from Debian's package, where the integration tests have Valkey from a wheel."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; `make test-system` as root installs it")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_until_ready(port)
        yield SimpleNamespace(port=port, url=f"redis://127.0.0.1:{port}/0")
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_until_ready(port):
    deadline = time.monotonic() + 10
    while not _answers(port):
        assert time.monotonic() < deadline, "redis-server did not start"
        time.sleep(0.05)


def _answers(port):
    client = redis.Redis(port=port)
    try:
        return client.ping()
    except redis.ConnectionError:
        return False
    finally:
        client.close()


@pytest.fixture
def redis_url(embedded_valkey):
    """An empty Redis."""
    client = redis.Redis(port=embedded_valkey.port)
    client.flushall()
    client.close()
    return embedded_valkey.url
