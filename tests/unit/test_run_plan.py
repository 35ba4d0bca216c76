"""What `--dry-run` shows and checks, and what is refused before anything starts."""

import json

import pytest

from arb_ray.app import lifecycle, planes
from arb_ray.app.exit_codes import code_of
from arb_ray.app.kit import _redis_state
from arb_ray.app.run_plan import make_topology, wanted_pairs
from arb_ray.app.run_request import RunRequest
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import ArbError, BadConfig, BadInput, PlaneUnavailable
from arb_ray.engine.topology import Role


def dry_run(tmp_path, *, as_json=False, **said):
    request = RunRequest(
        env="dev", **({"data_dir": tmp_path / "data"} | said), dry_run=True, as_json=as_json
    )
    return lifecycle.run(request)


def refusal(tmp_path, **said):
    with pytest.raises(ArbError) as caught:
        dry_run(tmp_path, **said)
    return caught.value


def test_the_plan_is_one_object_on_stdout(tmp_path, capsys):
    assert dry_run(tmp_path, as_json=True) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.count("\n") == 1
    plan = json.loads(told.out)
    assert (plan["env"], plan["source"], plan["preset"]) == ("dev", "sim", "lively")
    assert len(plan["symbols"]) == 20
    hosts = [actor for actor in plan["actors"] if actor["role"] == "host"]
    shared = [symbol for host in hosts for symbol in host["symbols"]]
    assert sorted(shared) == sorted(plan["symbols"])
    feeds = [actor["key"] for actor in plan["actors"] if actor["role"] == "feed"]
    assert feeds == ["upbit", "binance_spot"]


def test_a_person_is_told_when_a_list_is_cut(tmp_path, capsys):
    assert dry_run(tmp_path) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "… (20 symbols)" in told.err
    assert dry_run(tmp_path, symbols="BTC,ETH") == 0
    assert "…" not in capsys.readouterr().err


def test_nothing_is_made(tmp_path):
    dry_run(tmp_path, record_dir=tmp_path / "record")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["data_dir", "record_dir"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, option):
    (tmp_path / "file").touch()
    error = refusal(tmp_path, **{option: tmp_path / "file" / "below"})
    assert str(tmp_path / "file" / "below") in str(error)
    assert code_of(error) == 3


def test_an_unknown_symbol_is_a_mistake_of_the_option_or_of_the_setting(tmp_path, monkeypatch):
    error = refusal(tmp_path, symbols="NOSUCHCOIN")
    assert error.place == "--symbols"
    assert code_of(error) == 2
    error = refusal(tmp_path, source="paper", symbols="top:2000")
    assert error.place == "--symbols"
    assert code_of(error) == 2
    monkeypatch.setenv("ARB_SYMBOLS", "NOSUCHCOIN")
    error = refusal(tmp_path)
    assert error.place == "symbols"
    assert code_of(error) == 2


def test_a_recording_that_holds_nothing_is_no_mistake_of_the_option(tmp_path):
    file = tmp_path / "day.jsonl.zst"
    file.write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        wanted_pairs(load_settings("dev", {"source": "recorded", "recording.files": [str(file)]}))
    assert code_of(caught.value) == 3


@pytest.mark.parametrize("files", [[], ["day.jsonl.zst"]])
def test_a_replay_is_sent_to_its_own_command(tmp_path, files):
    extra = (("source", "replay"), ("recording.files", ",".join(files)))
    error = refusal(tmp_path, extra=extra)
    assert "arb-ray replay FILE" in str(error)
    assert code_of(error) == 2


def test_no_gateway_runs_where_it_is_switched_off():
    settings = load_settings("dev", {"gateway.enabled": False})
    topology = make_topology(settings, "s1", wanted_pairs(settings))
    assert topology.of(Role.GATEWAY) == ()


def test_the_state_store_is_built_as_the_settings_say():
    wanted = {
        "redis.operation_timeout_ms": 250,
        "redis.connect_timeout_s": 7,
        "redis.pool_max_count": 3,
        "redis.failures_to_fallback_count": 5,
        "redis.state_ttl_s": 11,
        "redis.metrics_ttl_s": 12,
        "redis.cache_ttl_s": 13,
    }
    store = _redis_state(load_settings("dev", wanted))
    pool = store._client.connection_pool
    assert pool.max_connections == 3
    assert pool.connection_kwargs["socket_timeout"] == 0.25
    assert pool.connection_kwargs["socket_connect_timeout"] == 7
    assert store._failures_to_fallback == 5
    assert (store._lives.state_s, store._lives.metrics_s, store._lives.cache_s) == (11, 12, 13)


def test_shm_is_refused_where_it_cannot_be_had_and_auto_is_not(monkeypatch):
    def full(*_):
        raise PlaneUnavailable("/dev/shm has no room for 2.0 MB")

    monkeypatch.setattr(planes, "try_out", full)
    for plane in ("auto", "ray"):
        planes.check_plane(load_settings("dev", {"topology.tick_plane": plane}, {}))
    with pytest.raises(BadConfig, match="no room") as caught:
        planes.check_plane(load_settings("dev", {"topology.tick_plane": "shm"}, {}))
    assert caught.value.key == "topology.tick_plane"
