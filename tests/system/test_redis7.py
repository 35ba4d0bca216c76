"""The suite of the Redis state store, against Redis 7 from Debian."""

import pytest
import redis

from tests.integration.test_redis_state import *  # noqa: F403  # the same tests, another server

pytestmark = pytest.mark.system


def test_this_is_redis_and_not_valkey(embedded_valkey):
    client = redis.Redis(port=embedded_valkey.port)
    server = client.info("server")
    client.close()

    assert server["redis_version"].startswith("7.")
    assert "valkey_version" not in server
