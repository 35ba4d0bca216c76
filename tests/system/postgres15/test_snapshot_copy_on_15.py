"""The suite of tests/integration/test_snapshot_copy.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_snapshot_copy import *  # noqa: F403

pytestmark = pytest.mark.system
