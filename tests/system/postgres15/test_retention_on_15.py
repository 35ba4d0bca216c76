"""The suite of tests/integration/test_retention.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_retention import *  # noqa: F403

pytestmark = pytest.mark.system
