"""
What one run shows to whoever looks: its log lines, its sockets, Ray's state, its Redis keys.

The run has secrets of its own kind in its secret files, one that it was given and one that it
made, and they are then looked for in all places where they must not be.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import psutil
import pytest
import redis

from arb_ray.adapters.storage import redis_keys
from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.telemetry.events import EVENTS, LIBRARY, TRADE_EVENTS
from arb_ray.adapters.telemetry.logs import BASE_KEYS, TRADE_KEYS
from arb_ray.app.settings import secret_keys
from tests.e2e.runs import END_TIMEOUT_S, short_folder, submit
from tests.keyspace import documented_keys, undocumented

pytestmark = pytest.mark.timeout(300)

RAY_MARKERS = (":job_id:", ":actor_name:", ":task_name:")
STATE_PATHS = (
    "api/v0/actors?detail=1",
    "api/v0/tasks?detail=1",
    "api/v0/workers?detail=1",
    "api/v0/nodes?detail=1",
    "api/v0/objects?detail=1",
    "api/v0/runtime_envs?detail=1",
    "api/jobs/",
    "api/cluster_status",
    "logical/actors",
)
RAYS_OWN = ("ray gcs_server", "ray raylet", "ray dashboard", "ray::DashboardAgent")


class Seen(msgspec.Struct):
    """What was to be seen of the run while it lived."""

    code: int = -1
    err: str = ""
    listening: list[tuple[str, str]] = []  # title, address
    command_lines: list[str] = []
    state: dict[str, str] = {}
    memory_with_secret: list[str] = []
    memory_looked_at: int = 0
    files_with_secret: list[str] = []
    files_looked_at: int = 0
    open_pages: dict[str, int] = {}  # answers without a token, by path
    keys: dict[str, tuple[str, float, bytes]] = {}  # type, seconds to live, value
    lines: list[tuple[str, str]] = []  # file, line


@pytest.fixture(scope="module")
def secrets_dir():
    with short_folder() as folder:
        for key in secret_keys():
            section, _, name = key.partition(".")
            (folder / f"arb_{section}__{name}").write_text(marker(key))
        token = folder / "ray_token"
        token.write_text(marker("ray"))
        token.chmod(0o600)
        yield folder


def marker(key):
    return f"marker-{key.replace('.', '-')}-5f0c2d91ab7e"


@pytest.fixture(scope="module")
def seen(secrets_dir):
    with short_folder() as folder:
        data_dir = folder / "data"
        options = ("--seed", "11", "--json", "--set", "ray.dashboard=true")
        token = ("--set", "ray.auth_mode=token")
        environment = {
            "ARB_SECRETS_DIR": str(secrets_dir),
            "RAY_AUTH_TOKEN_PATH": str(secrets_dir / "ray_token"),
            # Another Ray on this machine may have the port that it would take by itself.
            "DASHBOARD_METRIC_PORT": str(free_port()),
        }
        with submit(
            data_dir, *options, *token, gateway=free_port(), environment=environment
        ) as run:
            run.until_live()
            run.until(has_closed_a_trade, "a trade that is closed")
            found = Seen()
            look_at_processes(found, run.family)
            look_at_state(found)
            look_at_redis(found)
            secrets = [marker(key).encode() for key in secret_keys()]
            secrets += [marker("ray").encode(), password_of(data_dir)]
            look_at_memory(found, run.family, marker("redis.password").encode())
            look_at_files(found, folder, secrets)
            run.interrupt()
            found.code, found.err = run.wait(END_TIMEOUT_S), run.err
            look_at_files(found, folder, secrets)
            for file in (data_dir / "submit.log", *(data_dir / "logs").glob("worker-*")):
                found.lines += [(file.name, line) for line in file.read_text().splitlines()]
            found.command_lines.append(run.out + run.err)
        yield found, secrets


def has_closed_a_trade(run):
    status = run.status()
    return status and any(host.trades_closed for host in status.hosts.values())


def password_of(data_dir):
    """The embedded database's own, which nobody was told."""
    return (data_dir / "postgres" / "password").read_bytes().strip()


def look_at_processes(found, family):
    for process in family.processes():
        try:
            found.command_lines.append(" ".join(process.cmdline()))
            for socket in process.net_connections():
                if socket.status == psutil.CONN_LISTEN:
                    found.listening.append((family.label(process), socket.laddr.ip))
                    if family.label(process) == "ray dashboard":
                        found.state.setdefault("ports", "")
                        found.state["ports"] += f"{socket.laddr.port} "
                    if family.label(process) == "valkey":
                        found.state["valkey"] = str(socket.laddr.port)
        except psutil.Error:
            continue  # it ended while we looked


def look_at_state(found):
    """Ask the dashboard with and without the token; its other port serves metrics."""
    urls = [f"http://127.0.0.1:{port}" for port in found.state.pop("ports").split()]
    (api,) = [url for url in urls if "ray_version" in asked(f"{url}/api/version")[1]]
    (metrics,) = [url for url in urls if url != api]
    for path in STATE_PATHS:
        code, found.state[path] = asked(f"{api}/{path}")
        assert code == 200, f"{path}: {code}"
        found.open_pages[path], _ = asked(f"{api}/{path}", token="")
    found.open_pages["metrics"], _ = asked(f"{metrics}/metrics", token="")


def asked(url, token=None):
    """Return an answer's code and text."""
    token = marker("ray") if token is None else token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def look_at_redis(found):
    client = redis.Redis(port=int(found.state.pop("valkey")))
    for key in client.scan_iter("*"):
        found.keys[key.decode()] = (
            client.type(key).decode(), client.pttl(key) / 1e3, client.get(key)
        )  # fmt: skip
    client.close()


def look_at_memory(found, family, secret):
    for process in family.processes():
        if family.label(process) in RAYS_OWN:
            try:
                holds = in_memory(process.pid, secret)
            except PermissionError:
                continue
            found.memory_looked_at += 1
            if holds:
                found.memory_with_secret.append(family.label(process))


def in_memory(pid, secret):
    """Tell whether a process holds a text anywhere in its writable memory."""
    areas = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for area in areas:
            if not area[1].startswith("rw") or area[-1].startswith(("/dev/shm", "[v")):
                continue
            begin, end = (int(part, 16) for part in area[0].split("-"))
            try:
                memory.seek(begin)
                if secret in memory.read(end - begin):
                    return True
            except OSError:
                continue  # mapped, and not there
    return False


def look_at_files(found, folder, secrets):
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.name == "password" or not path.is_file():
                continue  # the one file that is there to hold it, and sockets
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            found.files_looked_at += 1
            if any(secret in content for secret in secrets):
                found.files_with_secret.append(str(path.relative_to(folder)))


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
