"""
What one run shows to whoever looks: its log lines, its sockets, Ray's state, its Redis keys.

Its secrets are looked for in all places where they must not be.
"""

from __future__ import annotations

import json

import pytest

from arb_ray.adapters.storage import redis_keys
from arb_ray.adapters.telemetry.events import EVENTS, LIBRARY, TRADE_EVENTS
from arb_ray.adapters.telemetry.logs import BASE_KEYS, TRADE_KEYS
from tests.e2e.shown import STATE_PATHS
from tests.keyspace import documented_keys, undocumented

pytestmark = pytest.mark.timeout(600)

RAY_MARKERS = (":job_id:", ":actor_name:", ":task_name:")


@pytest.fixture
def seen(shown):
    """What was to be seen of the run, and the secrets that it had."""
    return shown


# -- logs -----------------------------------------------------------------------------------


def test_the_run_went_well_or_nothing_below_would_mean_much(seen):
    found, _ = seen
    assert found.code == 0, found.err


def test_every_log_line_is_an_object_or_one_of_rays_markers(seen):
    strange = [
        (file, line)
        for file, line in seen[0].lines
        if not line.startswith(("{", *RAY_MARKERS)) and line.strip()
    ]
    assert strange == []
    assert len(objects(seen)) > 50


def objects(seen):
    return [(f, json.loads(line)) for f, line in seen[0].lines if line.startswith("{")]


def test_every_line_has_the_base_fields_and_a_listed_name(seen):
    for _, line in objects(seen):
        assert list(line)[: len(BASE_KEYS)] == list(BASE_KEYS)
        assert line["level"] in {"debug", "info", "warning", "error"}
        assert line["timestamp"].endswith("Z")
        assert line["event"] in EVENTS, line


def test_every_actors_line_names_its_session_and_its_actor(seen):
    lines = objects(seen)
    (session,) = {line["session_id"] for _, line in lines if "session_id" in line}
    for file, line in lines:
        if file != "submit.log":
            assert line["session_id"] == session
            assert ":" in line["actor"] or line["actor"] == "supervisor"
    late = False
    for _, line in (pair for pair in lines if pair[0] == "submit.log"):
        late = late or line["event"] == "run_starting"
        assert not late or line["session_id"] == session, line


def test_every_line_about_a_trade_has_its_four_fields(seen):
    about = [line for _, line in objects(seen) if line["event"] in TRADE_EVENTS]
    events = {line["event"] for line in about}
    assert {"opportunity", "order_reported", "trade_opened", "trade_moved"} <= events
    assert "trade_closed" in events
    for line in about:
        assert set(TRADE_KEYS) <= set(line), line
        assert line["direction"] in {"long_a_short_b", "long_b_short_a"}
        assert line["notional_usd"] > 0
        assert isinstance(line["spread_bps"], float)


def test_a_run_without_trouble_has_nothing_to_warn_of_but_known_things(seen):
    errors = [line for _, line in objects(seen) if line["level"] == "error"]
    assert errors == []
    said = [line["message"] for _, line in objects(seen) if line["event"] == LIBRARY]
    assert len(said) < 10, said


# -- secrets --------------------------------------------------------------------------------


def test_no_file_of_the_run_or_of_ray_holds_a_secret(seen):
    assert seen[0].files_looked_at > 100
    # The one file that is there to hand the Gateway's token to the user's own commands.
    assert set(seen[0].files_with_secret) <= {"data/gateway.json"}


def test_no_command_line_and_no_output_holds_a_secret(seen):
    found, secrets = seen
    assert len(found.command_lines) > 10
    text = "\n".join(found.command_lines).encode()
    assert [secret for secret in secrets if secret in text] == []


def test_rays_state_holds_no_secret(seen):
    found, secrets = seen
    assert set(found.state) == set(STATE_PATHS)
    assert "StrategyHostActor" in found.state["api/v0/actors?detail=1"]
    assert "arb_ray.submit" in found.state["api/jobs/"]
    text = "".join(found.state.values()).encode()
    assert [secret for secret in secrets if secret in text] == []


def test_a_secret_from_a_file_never_reaches_rays_own_processes(seen):
    found, _ = seen
    if not found.memory_looked_at:
        pytest.skip("this user may not read the memory of its own processes")
    assert found.memory_with_secret == []


def test_the_job_api_and_the_state_want_the_token_and_metrics_do_not(seen):
    pages = dict(seen[0].open_pages)
    assert pages.pop("metrics") == 200  # as docs/SECURITY.md says
    assert set(pages) == set(STATE_PATHS)
    assert {path: code for path, code in pages.items() if code not in {401, 403}} == {}


def test_no_redis_key_holds_a_secret(seen):
    found, secrets = seen
    values = b"".join(value for _, _, value in found.keys.values())
    assert [secret for secret in secrets if secret in values] == []


# -- sockets --------------------------------------------------------------------------------


def test_a_run_on_one_machine_listens_on_the_loopback_only(seen):
    listening = seen[0].listening
    titles = {title for title, _ in listening}
    wanted = {"postgres", "valkey", "ray gcs_server", "ray raylet", "ray::GatewayActor"}
    assert wanted | {"ray dashboard", "ray::SourceActor", "ray::FeedActor"} <= titles
    loopback = ("127.", "::ffff:127.", "::1")
    assert [pair for pair in listening if not pair[1].startswith(loopback)] == []


# -- Redis ----------------------------------------------------------------------------------


def test_the_keys_that_a_run_writes_are_those_of_the_page(seen):
    keys = seen[0].keys
    assert keys
    assert undocumented(keys) == []
    written = {redis_keys.parse(key).category for key in keys}
    assert written == {row.category for row in documented_keys()}
