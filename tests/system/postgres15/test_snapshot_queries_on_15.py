"""The suite of tests/integration/test_snapshot_queries.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_snapshot_queries import *  # noqa: F403

pytestmark = pytest.mark.system
