"""The suites of Redis' state, of its fallback and of its upkeep, against Redis 7 from Debian."""

import asyncio

import pytest
import redis

from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.app.settings import load_settings
from arb_ray.app.stores import redis_url
from arb_ray.domain.errors import StoreUnavailable

# The same tests, another server.
from tests.integration.test_redis_fallback import *  # noqa: F403
from tests.integration.test_redis_state import *  # noqa: F403
from tests.integration.test_redis_upkeep import *  # noqa: F403
from tests.tls_front import Authority

pytestmark = pytest.mark.system


def test_this_is_redis_and_not_valkey(embedded_valkey):
    client = redis.Redis(port=embedded_valkey.port)
    server = client.info("server")
    client.close()

    assert server["redis_version"].startswith("7.")
    assert "valkey_version" not in server


async def test_redis_with_tls_and_a_password_of_its_own_is_reached(tmp_path, monkeypatch):
    """Not by a front: Debian's server ends TLS itself."""
    certificate, key = Authority(tmp_path).server("127.0.0.1")
    port = free_port()
    config = tmp_path / "redis.conf"
    config.write_text(
        f"port 0\ntls-port {port}\nbind 127.0.0.1\ndir {tmp_path}\ntls-auth-clients no\n"
        f"tls-cert-file {certificate}\ntls-key-file {key}\nrequirepass of-a-test\nsave ''\n"
    )
    monkeypatch.setenv("ARB_REDIS__PASSWORD", "of-a-test")
    values = {"redis.embedded": False, "redis.host": "127.0.0.1", "redis.port": port}
    values |= {"redis.tls": True, "redis.tls_ca_file": str(tmp_path / "ca.pem")}
    # While it starts it is asked at once, again and again.
    url = redis_url(load_settings("dev", values))
    store = RedisStateStore(url, "dev", probe_first_s=0, probe_max_s=0)
    server = await asyncio.create_subprocess_exec(
        "redis-server", str(config), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            if await _answers(store):
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("it did not answer through TLS")
    finally:
        server.terminate()
        await server.wait()
        await store.close()


async def _answers(store):
    try:
        return await store.ping_ms() > 0
    except StoreUnavailable:
        return False
