"""PostgreSQL 15 from Debian, the oldest that arb_ray runs on, under the name of the embedded one."""

from pathlib import Path

import pytest

from arb_ray.adapters.storage import embedded_postgres as embedded
from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.roles import make_roles

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

PROGRAMS = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def embedded_postgres(server_thread, tmp_path_factory):
    """One running server for all tests here."""
    if not (PROGRAMS / "postgres").exists():
        pytest.skip("postgresql-15 is not installed; apt-get install postgresql-15")
    server = embedded.EmbeddedPostgres(tmp_path_factory.mktemp("postgres15"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded, "find_binaries", lambda: PROGRAMS)
        server_thread.enter(server)
    server_thread.run(execute(server.dsn, f"CREATE DATABASE {TEMPLATE}"))
    migrate.apply(server.dsn_of(TEMPLATE))
    passwords = dict.fromkeys(("writer_password", "reader_password"), ROLES_PASSWORD)
    make_roles(server.dsn_of(TEMPLATE), **passwords)
    return server
