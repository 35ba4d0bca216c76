"""One run at a time of an environment; the one before is known to have crashed."""

import asyncio
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from arb_ray.adapters.storage import session_runs
from arb_ray.adapters.storage.risk_store import PostgresRiskStore
from arb_ray.adapters.storage.session_runs import RunLock, SessionRuns
from arb_ray.adapters.storage.session_store import SessionStore
from arb_ray.domain.errors import BadInput, StoreUnavailable
from tests.integration.conftest import execute
from tests.integration.test_session_store import NOW, open_one

ROOT = Path(__file__).parents[2]

HOLDER = """
    import asyncio, sys
    from arb_ray.adapters.storage.session_runs import RunLock

    async def main():
        lock = RunLock(sys.argv[1], sys.argv[2])
        await lock.take()
        print("taken", flush=True)
        await asyncio.sleep(60)

    asyncio.run(main())
"""


@pytest.fixture
def runs(postgres, env):
    return SessionRuns(postgres, env)


async def test_a_second_run_is_refused_and_told_who_runs(shared_dsn, env):
    async with RunLock(shared_dsn, env).held():
        with pytest.raises(BadInput, match=f"goes on: {platform.node()}/{os.getpid()} holds it"):
            await RunLock(shared_dsn, env).take()
        async with RunLock(shared_dsn, f"{env}-other").held():
            pass
    async with RunLock(shared_dsn, env).held():
        pass


async def test_a_run_that_is_killed_frees_its_environment_at_once(shared_dsn, env):
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), shared_dsn, env]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as other:  # noqa: ASYNC220
        try:
            assert other.stdout.readline() == "taken\n"
            lock = RunLock(shared_dsn, env)
            with pytest.raises(BadInput, match=f"/{other.pid} holds it"):
                await lock.take()
        finally:
            other.kill()  # Popen waits for its end
    async with asyncio.timeout(5):
        while True:
            try:
                await lock.take()
                break
            except BadInput:
                await asyncio.sleep(0.02)
    await lock.release()


async def test_a_lock_is_taken_again_when_the_wire_broke(shared_dsn, env, monkeypatch):
    monkeypatch.setattr(session_runs, "WATCH_S", 0.02)
    lock, lost = RunLock(shared_dsn, env), []
    await lock.take()
    watch = asyncio.create_task(lock.watch(lost.append))
    await _cut(shared_dsn, env)
    await asyncio.sleep(0.3)
    assert lost == []
    with pytest.raises(BadInput, match="goes on"):
        await RunLock(shared_dsn, env).take()
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await lock.release()


async def test_a_run_whose_lock_another_one_took_learns_of_it(shared_dsn, env, monkeypatch):
    monkeypatch.setattr(session_runs, "WATCH_S", 0.05)
    lock, other, lost = RunLock(shared_dsn, env), RunLock(shared_dsn, env), []
    await lock.take()
    await lock.release()
    await other.take()
    async with asyncio.timeout(5):
        await lock.watch(lost.append)
    assert "goes on" in lost[0]
    await other.release()


async def test_without_postgres_no_run_begins():
    with pytest.raises(StoreUnavailable):
        await RunLock("postgresql://arb:x@127.0.0.1:1/arb", "dev").take()


async def _cut(dsn, env):
    await execute(
        dsn,
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l WHERE l.locktype = 'advisory'"
        " AND l.objid::bigint = hashtext($1)::bigint & 4294967295",
        env,
    )


async def test_a_run_without_an_end_has_crashed_and_is_told_of_once(postgres, env, runs):
    session = await open_one(SessionStore(postgres, env))
    assert await runs.begin(session.session_id, NOW) is None
    crashed = await runs.begin(session.session_id, NOW + 5)
    assert crashed == session_runs.CrashedRun(session.session_id, session_runs.holder(), NOW)
    assert (await runs.begin(session.session_id, NOW + 7)).started_ns == NOW + 5
    await runs.end(NOW + 9)
    assert await runs.begin(session.session_id, NOW + 11) is None, "it had a clean stop"


async def test_the_runs_of_a_session_keep_how_they_ended(postgres, env, runs, shared_dsn):
    session = await open_one(SessionStore(postgres, env))
    await runs.begin(session.session_id, NOW)
    await runs.begin(session.session_id, NOW + 5)
    await runs.end(NOW + 9)
    await runs.end(NOW + 10)
    rows = await execute(
        shared_dsn,
        "SELECT started_ns, ended_ns, ending FROM arb.session_runs WHERE env = $1 ORDER BY number",
        env,
    )
    assert [tuple(row) for row in rows] == [
        (NOW, NOW + 5, "crashed"),
        (NOW + 5, NOW + 9, "clean"),
    ]


async def test_a_guard_that_lives_elsewhere_refuses_a_run(postgres, env, runs, monkeypatch):
    monkeypatch.setattr(session_runs, "LEASE_ALIVE_S", 0.4)
    monkeypatch.setattr(session_runs, "WATCH_S", 0.1)
    risk = PostgresRiskStore(postgres, env)
    epoch = await risk.take_lease("risk:main/another-node/77")

    async def renew():
        while True:
            await risk.renew_lease(epoch)
            await asyncio.sleep(0.05)

    renewing = asyncio.create_task(renew())
    with pytest.raises(BadInput, match="RiskGuard risk:main/another-node/77 wrote"):
        await runs.refuse_elsewhere()
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)
    await runs.refuse_elsewhere()


async def test_a_guard_of_this_machine_that_is_gone_is_waited_for_by_nobody(
    postgres, env, runs, shared_dsn
):
    await runs.refuse_elsewhere()
    gone = subprocess.Popen([sys.executable, "-c", ""])  # noqa: ASYNC220
    gone.wait()
    await PostgresRiskStore(postgres, env).take_lease(f"risk:main/{platform.node()}/{gone.pid}")
    async with asyncio.timeout(2):
        await runs.refuse_elsewhere()
