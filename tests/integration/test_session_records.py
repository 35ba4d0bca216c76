"""Sessions as an operator sees and ends them, on a real PostgreSQL."""

import asyncio
import json

import pytest

from arb_ray.adapters.storage.postgres_pool import Postgres
from arb_ray.adapters.storage.session_records import SessionRecords
from arb_ray.adapters.storage.session_runs import SessionRuns
from arb_ray.adapters.storage.session_store import SessionStore
from arb_ray.cli import main
from arb_ray.domain.errors import BadInput
from tests.integration.conftest import execute
from tests.integration.test_session_store import NOW, Trades, open_one


@pytest.fixture
def sessions(postgres, env):
    return SessionStore(postgres, env)


@pytest.fixture
def records(postgres, env):
    return SessionRecords(postgres, env)


async def test_sessions_are_listed_newest_first_with_what_they_came_to(
    sessions, records, postgres, env
):
    assert await records.newest(5) == ()
    first = await open_one(sessions)
    trades = await Trades(postgres, env).start()
    await trades.begin("BTC-1", first.session_id)
    await trades.end("BTC-1", pnl="0.3")
    second = await open_one(sessions, is_new=True, now_ns=NOW + 10**9)
    await trades.begin("BTC-2", second.session_id)
    newest, oldest = await records.newest(5)
    assert (newest.session_id, newest.closed_ns, newest.trades_open) == (second.session_id, None, 1)
    assert (oldest.session_id, oldest.closed_ns) == (first.session_id, NOW + 10**9)
    assert (oldest.trades_closed, str(oldest.realized_usdt)[:3]) == (1, "0.3")
    assert [one.session_id for one in await records.newest(1)] == [second.session_id]


async def test_a_session_tells_how_its_last_run_ended(sessions, records, postgres, env):
    runs, session = SessionRuns(postgres, env), await open_one(sessions)

    async def told():
        record, _ = await records.find(session.session_id)
        return record.runs, record.last_run

    assert await told() == (0, "")
    await runs.begin(session.session_id, NOW)
    assert await told() == (1, "begun")
    await runs.end(NOW + 1)
    assert await told() == (1, "clean")
    await runs.begin(session.session_id, NOW + 2)
    other = await open_one(sessions, is_new=True, now_ns=NOW + 3)
    await runs.begin(other.session_id, NOW + 4)
    assert await told() == (2, "crashed")


async def test_a_session_is_shown_with_its_last_summary(sessions, records):
    session = await open_one(sessions)
    assert (await records.find(session.session_id))[1] is None
    await sessions.keep_summary(session.session_id, b'{"trades_closed": 3}')
    record, summary = await records.find(session.session_id)
    assert (record.preset, record.seed, summary) == ("lively", 7, {"trades_closed": 3})
    with pytest.raises(BadInput, match="there is none"):
        await records.find("other")


async def test_a_closed_session_is_not_continued(sessions, records):
    session = await open_one(sessions)
    closed = await records.close(session.session_id, NOW + 5)
    assert closed.closed_ns == NOW + 5
    assert (await records.close(session.session_id, NOW + 9)).closed_ns == NOW + 5, "once"
    assert (await open_one(sessions)).session_id != session.session_id


async def test_what_is_open_or_running_is_not_closed(sessions, records, postgres, env, shared_dsn):
    session = await open_one(sessions)
    trades = await Trades(postgres, env).start()
    with pytest.raises(BadInput, match="goes on"):
        await records.close(session.session_id, NOW)
    old = "UPDATE arb.risk_lease SET renewed_ns = renewed_ns - 60000000000 WHERE env = $1"
    await trades.begin("BTC-1", session.session_id)
    await execute(shared_dsn, old, env)
    with pytest.raises(BadInput, match="1 open trades"):
        await records.close(session.session_id, NOW)
    await trades.end("BTC-1")
    assert (await records.close(session.session_id, NOW)).closed_ns == NOW


async def test_another_environments_session_is_not_there(sessions, postgres, env):
    session = await open_one(sessions)
    with pytest.raises(BadInput, match="there is none"):
        await SessionRecords(postgres, f"{env}-other").close(session.session_id, NOW)


async def arb_ray(*arguments):
    return await asyncio.to_thread(main.main, ("sessions", *arguments))


async def test_the_command_lists_shows_and_closes(postgres_dsn, empty_dsn, capsys):
    pool = Postgres(postgres_dsn)
    session_id = (await open_one(SessionStore(pool, "dev"))).session_id
    await pool.close()
    dsn = ("--dsn", postgres_dsn)
    assert await arb_ray("list", *dsn) == 0
    assert f"{session_id}  open" in capsys.readouterr().out
    assert await arb_ray("list", *dsn, "--env", "prod") == 0
    assert "prod has no session yet" in capsys.readouterr().out
    assert await arb_ray("show", session_id, *dsn, "--json") == 0
    assert json.loads(capsys.readouterr().out)["session"]["preset"] == "lively"
    assert await arb_ray("show", "nobody", *dsn) == 3
    assert "there is none" in capsys.readouterr().err
    assert await arb_ray("close", session_id, *dsn) == 2
    assert "--yes" in capsys.readouterr().err
    assert await arb_ray("close", session_id, *dsn, "--yes") == 0
    assert await arb_ray("show", session_id, *dsn) == 0
    assert "closed 20" in capsys.readouterr().out
    assert await arb_ray("list", "--dsn", "postgresql://arb:x@127.0.0.1:1/arb") == 3
    capsys.readouterr()
    assert await arb_ray("list", "--dsn", empty_dsn) == 3
    assert "arb-ray db migrate" in capsys.readouterr().err
