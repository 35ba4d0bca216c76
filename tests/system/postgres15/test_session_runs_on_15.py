"""The suite of tests/integration/test_session_runs.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_session_runs import *  # noqa: F403

pytestmark = pytest.mark.system
