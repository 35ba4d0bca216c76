"""`arb-ray redis` on a real Valkey: what it finds, removes and moves, and what it leaves alone."""

import asyncio
import json

import pytest
import redis.asyncio

from arb_ray.adapters.storage import redis_survey, redis_upkeep
from arb_ray.adapters.storage.redis_keys import CacheKey, MetricKey, OldStateKey, StateKey
from arb_ray.adapters.storage.redis_survey import survey
from arb_ray.adapters.storage.redis_upkeep import clean_finished, move_back, move_old
from arb_ray.adapters.storage.session_records import SessionRecords
from arb_ray.cli.main import main
from arb_ray.domain.errors import BadInput, StoreUnavailable
from arb_ray.engine.state_document import encode_document
from tests.tcp_proxy import TcpProxy

DAY_S = 86_400
SOUND = encode_document({"a": 1}, 1, 1)


@pytest.fixture
async def client(redis_url):
    found = redis.asyncio.Redis.from_url(redis_url)
    before = await found.config_get("maxmemory-policy")
    yield found
    await found.config_set("maxmemory-policy", before["maxmemory-policy"])
    await found.aclose()


async def put(client, *keys, value=SOUND, ttl_s=DAY_S):
    for key in keys:
        await client.set(str(key), value, ex=ttl_s)


def state(session="s1", category="session", env="dev"):
    return StateKey(env, session, category)


async def test_a_keyspace_as_it_should_be_has_nothing_to_object_to(client):
    await put(client, state(), state(category="metrics"), MetricKey("dev", "BTC", "premium"))
    await put(client, CacheKey("dev", "rules:upbit"), state(env="prod"))
    await client.config_set("maxmemory-policy", "volatile-ttl")
    seen = await survey(client, "dev", 1000)
    assert (seen.found, seen.findings, seen.keys, seen.is_complete) == (0, [], 5, True)
    assert seen.counts == {"state": 2, "metrics": 1, "cache": 1, "other_env": 1}
    assert seen.policy == "volatile-ttl"
    assert seen.warning == ""


async def test_each_kind_of_stray_key_is_found_and_told_by_name(client):
    await put(client, "cat:picture", "arb:v1:dev:state:s1", "arb:v2:dev:state:s1:session")
    await put(client, OldStateKey("dev", "s0", "session"), state())
    await client.set(str(state("s2")), SOUND)  # without a life
    await client.hset(str(state("s3")), "field", "value")
    await put(client, state("s4"), value=SOUND[:-3])
    await put(client, state("s5"), value=b"x" * (redis_survey.VALUE_BYTES_MAX + 1))
    seen = await survey(client, "dev", 1000)
    assert {(one.kind, one.key) for one in seen.findings} == {
        ("foreign", "cat:picture"),
        ("malformed", "arb:v1:dev:state:s1"),
        ("malformed", "arb:v2:dev:state:s1:session"),
        ("old", "arbitrage:state:dev:s0:session"),
        ("untimed", "arb:v1:dev:state:s2:session"),
        ("malformed", "arb:v1:dev:state:s3:session"),
        ("malformed", "arb:v1:dev:state:s4:session"),
        ("malformed", "arb:v1:dev:state:s5:session"),
    }
    assert {one.problem for one in seen.findings if one.key == str(state("s5"))} == {
        "it is larger than any of ours"  # and was not read
    }
    assert seen.found == 8
    assert seen.counts["state"] == 1


async def test_thousands_of_keys_are_seen_in_pages_and_a_bound_is_told(client, monkeypatch):
    monkeypatch.setattr(redis_survey, "FINDINGS_MAX", 3)
    await client.mset({f"other:{number}": "x" for number in range(2_000)})
    pages = []
    seen = await survey(client, "dev", 10_000, pages.append)
    assert seen.counts == {"foreign": 2_000}
    assert len(seen.findings) == 3
    assert len(pages) > 2
    part = await survey(client, "dev", 1)
    assert not part.is_complete
    assert 0 < part.keys < 2_000


async def test_a_policy_that_forgets_live_state_is_warned_of(client):
    await client.config_set("maxmemory-policy", "allkeys-lru")
    assert "allkeys-lru" in (await survey(client, "dev", 10)).warning


async def test_a_server_that_goes_away_is_told_as_that(client, embedded_valkey):
    await put(client, state())
    async with TcpProxy("127.0.0.1", embedded_valkey.port) as proxy:
        other = redis.asyncio.Redis.from_url(
            f"redis://127.0.0.1:{proxy.port}/0", socket_timeout=0.2
        )
        proxy.stall()
        with pytest.raises(StoreUnavailable):
            await survey(other, "dev", 10)
        await other.aclose()


def finished(closed, known):
    async def finished_of(session_ids):
        return set(session_ids) & closed, set(session_ids) & known

    return finished_of


async def test_only_what_finished_sessions_left_is_removed(client):
    await put(client, state("open"), state("done"), state("done", "metrics"), state("unheard"))
    await put(client, state("done", env="prod"), "other:done", MetricKey("dev", "BTC", "premium"))
    asked = finished({"done"}, {"open", "done"})
    dry = await clean_finished(client, "dev", asked, keys_max=100, dry_run=True)
    assert (dry.removed, len(await client.keys("*"))) == (2, 7)
    done = await clean_finished(client, "dev", asked, keys_max=100)
    assert (done.removed, done.kept_open, done.kept_unknown, done.cursor) == (2, 1, 1, 0)
    assert await client.exists(str(state("done")), str(state("done", "metrics"))) == 0
    assert len(await client.keys("*")) == 5
    again = await clean_finished(client, "dev", asked, keys_max=100)
    assert again.removed == 0
    unknown = await clean_finished(client, "dev", asked, keys_max=100, with_unknown=True)
    assert unknown.named == [str(state("unheard"))]
    assert await client.exists(str(state("open"))) == 1


async def test_a_bounded_cleanup_goes_on_where_it_ended(client):
    for number in range(1_500):
        await put(client, state(f"s{number}"))
    asked = finished({f"s{number}" for number in range(1_500)}, set())
    rounds, cursor = 0, 0
    while True:
        done = await clean_finished(client, "dev", asked, keys_max=1, cursor=cursor)
        rounds, cursor = rounds + 1, done.cursor
        if cursor == 0:
            break
    assert rounds > 1
    assert await client.keys("*") == []


async def test_old_keys_move_with_their_lives_and_back_again(client, tmp_path):
    old = OldStateKey("dev", "s1", "session")
    untimed = OldStateKey("dev", "s1", "metrics")
    await put(client, old, value=b"session", ttl_s=100)
    await client.set(str(untimed), b"metrics")
    await put(client, OldStateKey("prod", "s1", "session"))
    report = tmp_path / "moved.jsonl"
    dry = await move_old(client, "dev", None)
    assert (dry.moved, dry.dry_run) == (2, True)
    assert await client.exists(str(old)) == 1
    done = await move_old(client, "dev", report)
    assert (done.moved, done.conflicts, done.malformed) == (2, 0, 0)
    assert await client.get(str(old.now)) == b"session"
    assert 90 < await client.ttl(str(old.now)) <= 100
    assert await client.get(str(untimed.now)) == b"metrics"
    assert DAY_S - 10 < await client.ttl(str(untimed.now)) <= DAY_S
    assert await client.exists(str(old), str(untimed)) == 0
    assert (await move_old(client, "dev", report)).moved == 0  # a repeat finds nothing left
    back = await move_back(client, "dev", report, dry_run=False)
    assert back.moved == 2
    assert 90 < await client.ttl(str(old)) <= 100
    assert await client.ttl(str(untimed)) == -1
    assert await client.exists(str(old.now), str(untimed.now)) == 0
    assert (await move_back(client, "dev", report, dry_run=False)).gone == 2


async def test_a_key_that_goes_while_it_is_moved_back_is_not_counted_as_moved(
    client, tmp_path, monkeypatch
):
    report = tmp_path / "moved.jsonl"
    await put(client, OldStateKey("dev", "s1", "session"))
    await move_old(client, "dev", report)
    rename = redis_upkeep._rename

    async def too_late(client, source, *others):
        await client.delete(source)
        return await rename(client, source, *others)

    monkeypatch.setattr(redis_upkeep, "_rename", too_late)
    back = await move_back(client, "dev", report, dry_run=False)
    assert (back.moved, back.gone) == (0, 1)


async def test_what_a_dry_run_would_move_back_stays(client, tmp_path):
    old, report = OldStateKey("dev", "s1", "session"), tmp_path / "moved.jsonl"
    await put(client, old)
    await move_old(client, "dev", report)
    assert (await move_back(client, "dev", report, dry_run=True)).moved == 1
    assert await client.exists(str(old.now)) == 1
    await put(client, old)
    assert (await move_back(client, "dev", report, dry_run=False)).conflicts == 1


async def test_what_a_run_has_written_under_the_new_name_is_never_overwritten(client, tmp_path):
    old = OldStateKey("dev", "s1", "session")
    await put(client, old, value=b"old")
    await put(client, old.now, value=b"new")
    done = await move_old(client, "dev", tmp_path / "moved.jsonl")
    assert (done.moved, done.conflicts) == (0, 1)
    assert await client.get(str(old.now)) == b"new"
    assert await client.get(str(old)) == b"old"


async def test_each_move_is_reported_before_it_is_made(client, tmp_path, monkeypatch):
    """A crash in between leaves a move too many in the report, never one too few."""
    await put(client, OldStateKey("dev", "s1", "session"))

    async def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(redis_upkeep, "_rename", crash)
    report = tmp_path / "moved.jsonl"
    with pytest.raises(KeyboardInterrupt):
        await move_old(client, "dev", report)
    monkeypatch.undo()
    assert json.loads(report.read_text())["new"] == "arb:v1:dev:state:s1:session"
    assert (await move_back(client, "dev", report, dry_run=False)).gone == 1
    assert (await move_old(client, "dev", report)).moved == 1


async def test_a_report_of_another_environment_or_form_is_refused_and_a_torn_line_is_not(
    client, tmp_path
):
    report = tmp_path / "moved.jsonl"
    await put(client, OldStateKey("dev", "s1", "session"))
    await move_old(client, "dev", report)
    with pytest.raises(BadInput, match="is not of prod"):
        await move_back(client, "prod", report, dry_run=True)
    report.write_text(report.read_text() + '{"old":"arbi')
    assert (await move_back(client, "dev", report, dry_run=True)).moved == 1
    report.write_text("nonsense\n" + report.read_text())
    with pytest.raises(BadInput, match=":1"):
        await move_back(client, "dev", report, dry_run=True)
    report.write_bytes(b"\xff\xfe" + report.read_bytes())
    with pytest.raises(BadInput, match="--report"):
        await move_back(client, "dev", report, dry_run=True)


# The command itself


def test_check_tells_what_it_found_and_exits_with_it(redis_url, capsys):
    with redis.Redis.from_url(redis_url) as server:
        server.set("cat:picture", "x")
        assert main(["redis", "check", "--url", redis_url]) == 1
        told = capsys.readouterr().out
        assert "cat:picture: it is no key of arb_ray" in told
        server.delete("cat:picture")
    assert main(["redis", "check", "--url", redis_url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == 0


async def test_cleanup_asks_postgresql_what_is_finished(postgres, shared_dsn, env, client):
    async with postgres.transaction("sessions of the test") as connection:
        await connection.executemany(
            "INSERT INTO arb.sessions (env, session_id, source, started_ns, closed_ns) "
            "VALUES ($1, $2, 'sim', 1, $3)",
            [(env, "open", None), (env, "done", 5)],
        )
    records = SessionRecords(postgres, env)
    assert await records.closed_and_known(["open", "done", "other"]) == ({"done"}, {"open", "done"})
    await put(client, state("open", env=env), state("done", env=env))
    done = await clean_finished(client, env, records.closed_and_known, keys_max=10)
    assert done.named == [str(state("done", env=env))]


def test_cleanup_by_command_removes_nothing_that_postgresql_does_not_know(
    redis_url, shared_dsn, capsys
):
    with redis.Redis.from_url(redis_url) as server:
        server.set(str(state("nobody")), SOUND, ex=100)
        arguments = ["redis", "cleanup", "--url", redis_url, "--dsn", shared_dsn]
        assert main([*arguments, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["kept_unknown"] == 1
        assert main([*arguments, "--unknown"]) == 0
        assert "1 of 1 state keys removed" in capsys.readouterr().out
        assert server.keys("*") == []


async def test_cleanup_needs_the_tables_that_know_the_sessions(
    client, redis_url, empty_dsn, capsys
):
    await put(client, state())
    arguments = ["redis", "cleanup", "--url", redis_url, "--dsn", empty_dsn, "--unknown"]
    assert await asyncio.to_thread(main, arguments) == 3
    assert "it lacks tables of this code" in capsys.readouterr().err
    assert await client.exists(str(state())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["migrate"], "--report: is missing"),
        (["migrate", "--back", "--dry-run"], "--report: is missing"),
        (["check"], "dev embeds its Redis"),
        (["check", "--url", "http://x"], "is no Redis URL"),
    ],
)
def test_bad_arguments_are_told_with_a_remedy(arguments, words, capsys):
    assert main(["redis", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_migrate_by_command_moves_and_says_so(redis_url, tmp_path, capsys):
    report = str(tmp_path / "moved.jsonl")
    with redis.Redis.from_url(redis_url) as server:
        server.set("arbitrage:state:dev:s1:session", "x")
        base = ["redis", "migrate", "--url", redis_url]
        assert main([*base, "--dry-run"]) == 0
        assert "1 keys would be moved" in capsys.readouterr().out
        assert main([*base, "--report", report]) == 0
        assert server.keys("*") == [b"arb:v1:dev:state:s1:session"]
        assert main([*base, "--report", report, "--back"]) == 0
        assert server.keys("*") == [b"arbitrage:state:dev:s1:session"]
