"""The suite of tests/integration/test_risk_store.py, on PostgreSQL 15."""

import pytest

from tests.integration.test_risk_store import *  # noqa: F403

pytestmark = pytest.mark.system
