"""A PostgreSQL 15 with TimescaleDB under the name of the embedded one."""

import tempfile
from pathlib import Path

import pytest

from arb_ray.adapters.storage import embedded_postgres as embedded
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.roles import make_roles
from tests.containers.progress import Failed

# Imported again, so that they are made with the server of this folder.
from tests.integration.conftest import (  # noqa: F401
    ROLES_PASSWORD,
    TEMPLATE,
    empty_dsn,
    env,
    execute,
    postgres,
    postgres_dsn,
    shared_dsn,
)
from tests.integration.test_retention import dsn  # noqa: F401
from tests.system.timescale.build import build

SETTINGS = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    # Its scheduler would keep the template from being copied; nothing here is scheduled.
    "timescaledb.max_background_workers": "0",
    # A database has a thousand files here, and none outlives the test.
    "fsync": "off",
}


@pytest.fixture(scope="session")
def embedded_postgres(server_thread):
    """One running server for all tests here; its template has the extension and hypertables."""
    # Not below pytest's folder, which is closed to the user that PostgreSQL may run as.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="arb-timescale-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            programs = build(folder)
        except Failed as reason:
            pytest.skip(f"TimescaleDB cannot be had: {reason}")
        server = embedded.EmbeddedPostgres(folder / "data")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embedded, "find_binaries", lambda: programs)
            patch.setattr(embedded, "SETTINGS", embedded.SETTINGS | SETTINGS)
            server_thread.run(server.__aenter__())
        try:
            server_thread.run(execute(server.dsn, f"CREATE DATABASE {TEMPLATE}"))
            template = server.dsn_of(TEMPLATE)
            server_thread.run(execute(template, "CREATE EXTENSION timescaledb SCHEMA public"))
            migrate.apply(template)
            passwords = dict.fromkeys(("writer_password", "reader_password"), ROLES_PASSWORD)
            make_roles(template, **passwords)
            yield server
        finally:
            server_thread.run(server.__aexit__(None, None, None))
