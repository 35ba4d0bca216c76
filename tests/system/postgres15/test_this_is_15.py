"""Otherwise nothing here would mean much."""

import pytest

from tests.integration.conftest import execute

pytestmark = pytest.mark.system


async def test_this_is_postgresql_15(shared_dsn):
    (row,) = await execute(shared_dsn, "SHOW server_version")
    assert row["server_version"].startswith("15.")
