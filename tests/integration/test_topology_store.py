"""The wanted state in a real PostgreSQL: the highest version is in force, nothing is rewritten."""

import asyncpg
import pytest

from arb_ray.adapters.storage.topology_store import StoredTopology, TopologyStore
from arb_ray.domain.errors import BadInput
from tests.integration.conftest import execute


def row(version, text=b'{"a": 1}'):
    return StoredTopology(version, text, "me")


async def test_the_highest_version_is_in_force(postgres, env):
    store = TopologyStore(postgres, env)
    assert await store.newest() is None
    await store.append(row(1))
    await store.append(row(2, b'{"a": 2}'))
    assert await store.newest() == row(2, b'{"a": 2}')
    assert await store.newest(after=1) == row(2, b'{"a": 2}')
    assert await store.newest(after=2) is None


async def test_environments_do_not_meet(postgres, env):
    await TopologyStore(postgres, env).append(row(1))
    assert await TopologyStore(postgres, f"{env}-other").newest() is None


async def test_of_two_submits_at_once_the_second_is_told(postgres, env):
    store = TopologyStore(postgres, env)
    await store.append(row(1))
    with pytest.raises(BadInput, match="another submit"):
        await store.append(row(1, b'{"a": 9}'))
    assert await store.newest() == row(1)


async def test_what_was_wanted_once_is_not_rewritten(postgres, env, shared_dsn):
    await TopologyStore(postgres, env).append(row(1))
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await execute(shared_dsn, "UPDATE arb.topology SET desired = '{}'")
