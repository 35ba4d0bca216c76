"""The servers that a run on one machine brings along: PostgreSQL, Redis, ports, Ray's settings."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.process import free_port, is_port_free
from arb_ray.adapters.storage.roles import WRITER, make_roles
from arb_ray.adapters.telemetry.logs import get_log
from arb_ray.app.progress import Progress
from arb_ray.app.settings import Settings
from arb_ray.app.stores import postgres_dsn
from arb_ray.domain.errors import BadConfig, BadInput

EMBEDDED_EXTRA = "Install them: pip install 'arb_ray[embedded]'; or name servers of your own"
ServerT = TypeVar("ServerT")
VENUES = ("upbit", "binance_spot", "binance_usdm")


@contextlib.asynccontextmanager
async def embedded_stores(settings: Settings, progress: Progress) -> AsyncIterator[dict[str, Any]]:
    """
    Run the embedded servers that the settings ask for; yield the settings that point to them.

    The owner's password goes into this process's environment, until ``as_writer`` replaces it.
    """
    found: dict[str, Any] = {}
    data_dir = Path(settings.session.data_dir)
    async with contextlib.AsyncExitStack() as stack:
        if settings.postgres.embedded:
            from arb_ray.adapters.storage.embedded_postgres import USER, EmbeddedPostgres

            with _missing_wheel("PostgreSQL"), progress.step("PostgreSQL"):
                postgres = await stack.enter_async_context(
                    _logged(EmbeddedPostgres(data_dir / "postgres"), "postgres")
                )
            stack.enter_context(_environment({"ARB_POSTGRES__PASSWORD": postgres.password}))
            found |= {
                "postgres.host": "127.0.0.1",
                "postgres.port": postgres.port,
                "postgres.user": USER,
            }
        if settings.redis.embedded:
            from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey

            with _missing_wheel("Valkey"), progress.step("Valkey"):
                valkey = await stack.enter_async_context(
                    _logged(EmbeddedValkey(data_dir / "valkey"), "valkey")
                )
            found |= {"redis.host": "127.0.0.1", "redis.port": valkey.port}
        yield found


@contextlib.asynccontextmanager
async def _logged(
    server: contextlib.AbstractAsyncContextManager[ServerT], name: str
) -> AsyncIterator[ServerT]:
    log = get_log("arb_ray.app.local_servers")
    async with server as running:
        log.info("server_started", server=name)
        yield running
    log.info("server_stopped", server=name)


def migrate_database(settings: Settings, progress: Progress) -> None:
    """
    Bring the database to this version's schema; a current one needs no right to change it.

    Raises:
        BadInput: It is newer than this code, or this login may not bring it up to date.
        StoreUnavailable: PostgreSQL is away.
    """
    with progress.step("schema", "current"):
        dsn = postgres_dsn(settings)
        found = migrate.status(dsn)
        applied = migrate.apply(dsn) if found.pending or found.unknown else ()
    log = get_log("arb_ray.app.local_servers")
    log.info("migrations_applied", applied=list(applied))


@contextlib.contextmanager
def as_writer(settings: Settings) -> Iterator[dict[str, Any]]:
    """
    Yield the settings by which a run uses its embedded PostgreSQL as the writer, not the owner.

    The password is new each time and lives in this process's environment only, which the local Ray
    inherits. A server of the operator's own has the login that the operator gave.
    """
    if not settings.postgres.embedded:
        yield {}
        return
    password = secrets.token_urlsafe(24)
    make_roles(postgres_dsn(settings), writer_password=password)
    with _environment({"ARB_POSTGRES__PASSWORD": password}):
        yield {"postgres.user": WRITER}


def venue_ports(settings: Settings) -> dict[str, Any]:
    """Choose free ports for embedded exchanges; return the settings that point to them."""
    if settings.source not in ("sim", "recorded"):
        return {}
    found: dict[str, Any] = {}
    for venue in VENUES:
        port = free_port()
        found[f"venues.{venue}.ws_url"] = f"ws://127.0.0.1:{port}"
        found[f"venues.{venue}.rest_url"] = f"http://127.0.0.1:{port}"
    return found


def gateway_port(settings: Settings) -> dict[str, Any]:
    """Choose the Gateway's port, or refuse one that is taken. Raises BadConfig."""
    if not settings.gateway.enabled:
        return {}
    port = settings.gateway.http_port
    if port == 0:
        return {"gateway.http_port": free_port()}
    if settings.gateway.host in {"127.0.0.1", "localhost"} and not is_port_free(port):
        raise BadConfig(
            "gateway.http_port",
            f"port {port} is taken by another program",
            "Free it, or write another port; 0 takes a free one",
        ) from OSError("address in use")
    return {}


@contextlib.contextmanager
def ray_environment(settings: Settings) -> Iterator[Path]:
    """Set what Ray reads from the environment, before it is imported; yield its folder."""
    with tempfile.TemporaryDirectory(prefix="arb-ray-", ignore_cleanup_errors=True) as folder:
        wanted = {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",
            # A local Ray turns authentication on by itself where it finds a token, and a driver
            # with a token hangs against a cluster without one: so it is said explicitly.
            "RAY_AUTH_MODE": settings.ray.auth_mode,
            "RAY_worker_niceness": str(settings.ray.worker_niceness),
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_enable_worker_prestart": "0",
            # A frozen process hears no SIGTERM, and holds its port and its spool until SIGKILL.
            "RAY_kill_worker_timeout_milliseconds": "200",
            # Pydantic would read every installed package's metadata for plugins: a
            # twentieth of a second of each process that starts again.
            "PYDANTIC_DISABLE_PLUGINS": "__all__",
            # Off means on any system: this Ray is for this machine, and listens on its loopback
            # instead of all interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        }
        with _environment(wanted):
            yield Path(folder)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _missing_wheel(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise BadInput(
            what, f"its wheel is not installed ({error.name})", EMBEDDED_EXTRA
        ) from error
