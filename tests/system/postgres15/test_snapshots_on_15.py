"""The suite of tests/integration/test_snapshots.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_snapshots import *  # noqa: F403

pytestmark = pytest.mark.system
