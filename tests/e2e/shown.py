"""
One run that is looked at from all sides while it lives, and judged when it is over.

It has secrets of its own kind in its secret files, one that it was given and one that it made,
and they are looked for in all places where they must not be.
"""

from __future__ import annotations

import contextlib
import os
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import psutil
import redis

from arb_ray.adapters.storage.process import free_port
from arb_ray.app.settings import secret_keys
from tests.e2e.metric_pages import RAY_REPORT_MS, pages_of
from tests.e2e.runs import END_TIMEOUT_S, short_folder, submit

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
    pages: tuple = ()  # of metrics: the Gateway's, Ray's, the Gateway's again


@contextlib.contextmanager
def secret_files():
    """Every secret as a file, each with a marker of its own."""
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


def look_at_a_run():
    """Start a run, look at all of it, end it; return what was seen and the secrets that it had."""
    with secret_files() as secrets_dir, short_folder() as folder:
        data_dir = folder / "data"
        options = ("--seed", "11", "--json", "--set", "ray.dashboard=true")
        token = ("--set", "ray.auth_mode=token")
        environment = {
            "ARB_SECRETS_DIR": str(secrets_dir),
            "RAY_AUTH_TOKEN_PATH": str(secrets_dir / "ray_token"),
            "RAY_metrics_report_interval_ms": RAY_REPORT_MS,
            # Another Ray on this machine may have the port that it would take by itself.
            "DASHBOARD_METRIC_PORT": str(free_port()),
        }
        with submit(
            data_dir, *options, *token, gateway=free_port(), environment=environment
        ) as run:
            run.until_live()
            run.until(has_closed_a_trade, "a trade that is closed")
            found = Seen()
            found.pages = pages_of(run, folder)
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
        return found, secrets


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
