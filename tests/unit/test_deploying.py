"""What a submit changes, and what it waits for."""

import platform

import msgspec
import pytest

from arb_ray.adapters.storage.topology_store import StoredTopology
from arb_ray.app import cluster_job
from arb_ray.app.cluster_submit import check_identity, dashboard_address, job_request
from arb_ray.app.cluster_wait import what_is_missing
from arb_ray.app.deploying import deploy_plan, next_deployment
from arb_ray.app.deployment import SCHEMA, decode, encode, submitted_values
from arb_ray.app.job_lines import Counted, Ended, JobRequest, Said, read_line, write_line
from arb_ray.app.node_look import Look, NodeLook, node_problems
from arb_ray.app.run_plan import wanted_pairs
from arb_ray.app.run_request import RunRequest
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import BadInput
from arb_ray.engine.topology import Role
from tests.status_examples import feed, host
from tests.status_examples import status as status_of

SESSION = SessionFacts("s1", 1, 0)


def deployment(symbols="BTC,ETH,XRP,SOL", before=None, running=None, **overrides):
    said = {key.replace("__", "."): value for key, value in overrides.items()}
    settings = load_settings("dev", {"symbols": symbols, **said})
    asked = wanted_pairs(settings)
    more = wanted_pairs(load_settings("dev", {"symbols": running})) if running else asked
    return next_deployment(settings, SESSION, asked=asked, running=more, cpus=2, before=before)


def plan(before, after):
    present = [actor.name for actor in before.topology.actors] if before else []
    return deploy_plan(before, after, present)


def roles(names):
    return {name.split("@")[0] for name in names}


def test_the_first_submit_starts_everything():
    told = plan(None, deployment())
    assert (told.version, told.stop, told.keep, told.removed) == (1, (), (), ())
    assert told.added == ("BTC", "ETH", "SOL", "XRP")
    assert len(told.start) == 8


def test_the_same_again_changes_nothing_but_the_version():
    first = deployment()
    told = plan(first, deployment(before=first))
    assert (told.version, told.start, told.stop, told.changed) == (2, (), (), {})
    assert len(told.keep) == 8


def test_a_limit_restarts_nobody():
    first = deployment()
    told = plan(first, deployment(before=first, risk__daily_loss_usdt=150))
    assert (told.start, told.stop) == ((), ())
    assert told.changed == {"risk.daily_loss_usdt": ("200", "150")}


@pytest.mark.parametrize(
    ("change", "restarted"),
    [
        ({"strategy__min_net_bps": 3}, {"host:000", "host:001"}),
        ({"gateway__request_timeout_s": 9}, {"gateway:main"}),
        ({"persistence__batch_age_s": 2}, {"persistence:main", "host:000", "host:001"}),
        ({"venues__upbit__ping_interval_s": 19}, {"feed:upbit", "host:000", "host:001", "source:main"}),
    ],
)  # fmt: skip
def test_a_setting_restarts_those_who_were_started_with_it(change, restarted):
    first = deployment()
    told = plan(first, deployment(before=first, **change))
    assert roles(told.start) == roles(told.stop) == restarted


def test_a_symbol_that_goes_takes_its_host_and_the_feeds_and_not_the_market():
    first = deployment()
    told = plan(first, deployment("BTC,ETH,XRP", before=first))
    assert told.removed == ("SOL",)
    assert roles(told.start) == {"host:001", "feed:upbit", "feed:binance_spot"}
    again = deployment("BTC,ETH,XRP", before=first)
    assert plan(again, deployment(before=again)).added == ("SOL",)
    assert "source:main" in roles(plan(again, deployment(before=again)).keep)


def test_a_symbol_with_an_open_trade_stays_to_close_it():
    first = deployment()
    after = deployment("BTC,ETH,XRP", before=first, running="BTC,ETH,XRP,SOL")
    assert after.leaving == ("SOL",)
    assert set(after.symbols) == {"BTC", "ETH", "XRP", "SOL"}
    told = plan(first, after)
    assert (told.removed, told.leaving) == (("SOL",), ("SOL",))
    assert roles(told.start) == {"host:001"}


def test_what_was_stopped_is_cut_anew():
    first = deployment()
    stopped = msgspec.structs.replace(first, is_stopped=True)
    assert stopped.groups()["001"] == ("SOL", "XRP")
    after = deployment("SOL", before=stopped)
    assert after.version == 2
    assert after.groups() == {"000": ("SOL",)}
    assert plan(stopped, after).added == ("SOL",)


def test_a_new_packing_cuts_the_hosts_anew():
    first = deployment()
    after = deployment(before=first, topology__symbols_per_actor="1")
    assert [len(group) for group in after.groups().values()] == [1, 1, 1, 1]


def test_a_deployment_survives_the_database():
    before = deployment()
    after = decode(encode(before, "me"))
    assert after == before
    assert after.settings().config_hash() == before.settings().config_hash()
    assert after.pairs(after.settings())[0].symbol == "BTC"


def test_one_of_a_newer_code_is_refused():
    newer = msgspec.structs.replace(deployment(), schema=SCHEMA + 1)
    with pytest.raises(BadInput, match="schema"):
        decode(encode(newer, "me"))
    with pytest.raises(BadInput, match="cannot be read"):
        decode(StoredTopology(3, b'{"version": "x"}', "me"))


def test_words_tell_what_changes():
    first = deployment()
    after = deployment("BTC,ETH,XRP", before=first, running="BTC,ETH,XRP,SOL",
                       risk__daily_loss_usdt=150)  # fmt: skip
    text = "\n".join(plan(first, after).words())
    for words in ("removed: SOL", "closing first: SOL", "200 becomes 150", "start host:001"):
        assert words in text


# -- waiting ------------------------------------------------------------------------------


def ready_status(wanted):
    names = [actor.name for actor in wanted.topology.actors]
    said = status_of(
        deployment=wanted.version,
        wanted=names,
        hosts={one.name: host(list(one.symbols)) for one in wanted.topology.of(Role.HOST)},
        feeds={one.name: feed(one.key) for one in wanted.topology.of(Role.FEED)},
    )
    said.risk["deployment"] = wanted.version
    return said, set(names)


def test_what_is_ready_lacks_nothing():
    wanted = deployment()
    said, present = ready_status(wanted)
    assert what_is_missing(said, wanted, present) == []


def test_each_thing_that_is_missing_is_named():
    wanted = deployment()
    said, present = ready_status(wanted)
    said.risk["deployment"] = 0
    assert what_is_missing(said, wanted, present) == ["RiskGuard has not taken over the limits"]
    said, present = ready_status(wanted)
    assert "old@x has not been stopped yet" in what_is_missing(said, wanted, present | {"old@x"})
    said, present = ready_status(wanted)
    next(iter(said.hosts.values())).live.pop()
    assert any("not live: " in words for words in what_is_missing(said, wanted, present))
    said, present = ready_status(wanted)
    said.deployment = 0
    assert what_is_missing(said, wanted, present) == [
        "the Supervisor has not read the new wanted state"
    ]


# -- the desk -----------------------------------------------------------------------------


def test_a_cluster_is_known_by_the_label_of_every_node():
    check_identity({"a": {"arb-env": "prod"}, "b": {"arb-env": "prod"}}, "prod", "http://x")
    for labels in ({}, {"a": {}}, {"a": {"arb-env": "prod"}, "b": {"arb-env": "staging"}}):
        with pytest.raises(BadInput):
            check_identity(labels, "prod", "http://x")


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (None, "http://127.0.0.1:8265"),
        ("auto", "http://127.0.0.1:8265"),
        ("http://10.0.0.1:8265/", "http://10.0.0.1:8265"),
    ],
)
def test_an_address_is_a_dashboards(said, address):
    assert dashboard_address(said) == address


@pytest.mark.parametrize("said", ["10.0.0.1:6379", "ray://10.0.0.1:10001"])
def test_another_kind_of_address_is_refused(said):
    with pytest.raises(BadInput, match="--address"):
        dashboard_address(said)


def test_the_job_is_told_what_was_said_and_not_where_the_cluster_is():
    request = RunRequest(
        env="prod", address="http://x:8265", symbols="BTC", resume=False, stop=True, flatten=True
    )
    job = job_request(request)
    assert job.overrides == {"symbols": "BTC"}
    assert (job.resume, job.is_stop, job.flatten, job.dry_run) == (False, True, True, False)
    assert "@" in job.actor


def test_a_job_s_command_line_gives_its_request_back():
    import shlex

    job = JobRequest(env="dev", overrides={"symbols": "A,B", "x": "it's"}, actor="me@here")
    *_, module, text = shlex.split(job.entrypoint())
    assert module == "arb_ray.app.cluster_job"
    assert msgspec.json.decode(text, type=JobRequest) == job


def test_lines_are_told_from_what_ray_prints(capsys):
    for line in (Said("x"), Counted(1, 2, "y"), Ended(4, "why", {"a": 1})):
        write_line(line)
        assert read_line(capsys.readouterr().out.strip()) == line
    for noise in ("", "(raylet) hello", '{"event": "log"}', '{"arb":"unknown"}', '{"arb":'):
        assert read_line(noise) is None


def test_a_desk_of_another_version_is_refused_before_anything_is_looked_at(capsys):
    job = JobRequest(env="dev", overrides={}, actor="me", code="0.0.9")
    assert cluster_job.main([msgspec.json.encode(job).decode()]) == 3
    ended = read_line(capsys.readouterr().out.strip().splitlines()[-1])
    assert "the desk has 0.0.9" in ended.error


# -- the nodes ----------------------------------------------------------------------------


def test_a_node_without_a_secret_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("ARB_SECRETS_DIR", str(tmp_path))
    values = submitted_values(load_settings("staging", wants_secrets=False))
    told = Look("staging", values)()
    assert "postgres.password" in told.config
    assert told.config_hash == ""


def test_every_problem_of_a_node_is_told_and_redis_is_none():
    from arb_ray import __version__

    well = NodeLook("h", __version__, platform.python_version(), config_hash="c", redis="away")
    looks = {
        "n1": well,
        "n2": msgspec.structs.replace(well, code="0.0.9"),
        "n3": msgspec.structs.replace(well, config="risk.x: is unknown"),
        "n4": msgspec.structs.replace(well, config_hash="d"),
        "n5": msgspec.structs.replace(well, postgres="refused"),
        "n6": "it gave no answer in 60 s",
        "n7": msgspec.structs.replace(well, python="3.10.2"),
        "n8": msgspec.structs.replace(well, plane="/dev/shm has no room for 2.0 MB"),
    }
    problems = node_problems(looks, {name: f"10.0.0.{name[1]}" for name in looks}, "c")
    assert len(problems) == 7
    assert [problem.split(":")[0] for problem in problems] == [
        f"node 10.0.0.{number}" for number in (2, 3, 4, 5, 6, 7, 8)
    ]
