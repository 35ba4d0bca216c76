"""What several modules of end-to-end tests share."""

import pytest

from tests.e2e.shown import look_at_a_run


@pytest.fixture(scope="session")
def shown():
    """One run that was looked at from all sides; it is over."""
    return look_at_a_run()
