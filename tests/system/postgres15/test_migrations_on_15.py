"""The suite of tests/integration/test_migrations.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_migrations import *  # noqa: F403

pytestmark = pytest.mark.system
