"""Errors are counted whoever logs them; warnings are not."""

import io
import logging

import pytest

from arb_ray.adapters.telemetry.error_count import count_errors
from arb_ray.adapters.telemetry.logs import configure_logs, get_log
from tests.shell_world import Counts


@pytest.fixture(autouse=True)
def as_before():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_errors_of_ours_and_of_libraries_are_counted_once_and_warnings_never():
    former, counts = Counts(), Counts()
    count_errors(former)
    count_errors(counts)
    configure_logs("info", "json", stream=io.StringIO())
    get_log("arb_ray.test").warning("ws_disconnected")
    get_log("arb_ray.test").error("ws_unreachable")
    logging.getLogger("some.library").critical("it broke")
    assert counts.counters == {"errors_logged": 2}
    assert not former.counters
