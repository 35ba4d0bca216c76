"""
A pytest plugin for trials: which test reaches which line, and only the tests that matter.

``MUTANTS_MAP`` names the file that the map is written to; ``MUTANTS_TESTS`` one with
the tests to run, in that order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import hypothesis
import msgspec
import pytest

MAP, TESTS = "MUTANTS_MAP", "MUTANTS_TESTS"

# That a test fails is all that is asked; what else it could fail with is not, and a trial is
# the same each time. A busy machine is no bug, so nothing has a deadline but the whole test.
hypothesis.settings.register_profile(
    "mutants",
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    database=None,
    deadline=None,
    report_multiple_bugs=False,
)
hypothesis.settings.load_profile("mutants")


class Reach(msgspec.Struct):
    """What the run without a bug has shown."""

    took_s: dict[str, float]  # by test
    lines: dict[str, dict[int, list[str]]]  # file -> line -> tests, or their files, that ran it


class _Mapper:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._took_s: dict[str, float] = {}
        self._coverage = coverage.Coverage(
            data_file=None, include=["arb_ray/engine/*", "arb_ray/domain/*"], config_file=False
        )
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began_s = time.monotonic()
        answer = yield
        self._took_s[item.nodeid] = time.monotonic() - began_s
        self._coverage.switch_context("")
        return answer

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        # What a file of tests makes for them all while it is imported is run by each of them.
        self._coverage.switch_context(collector.nodeid if collector.nodeid.endswith(".py") else "")
        answer = yield
        self._coverage.switch_context("")
        return answer

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            str(Path(file).relative_to(Path.cwd())): {
                line: [test for test in tests if test]
                for line, tests in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        self._path.write_bytes(msgspec.json.encode(Reach(self._took_s, lines)))


def pytest_configure(config: pytest.Config) -> None:
    """Begin the map, if it is asked for."""
    if os.environ.get(MAP):
        config.pluginmanager.register(_Mapper(Path(os.environ[MAP])))


def pytest_sessionstart() -> None:
    """Refuse to judge another tree than the copy that holds the bug."""
    import arb_ray

    if not Path(arb_ray.__file__).is_relative_to(Path.cwd()):
        raise pytest.UsageError(f"{arb_ray.__file__} is tested instead of {Path.cwd()}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that reach the bug, the fastest first."""
    if not os.environ.get(TESTS):
        return
    wanted = Path(os.environ[TESTS]).read_text(encoding="utf-8").splitlines()
    rank = {name: number for number, name in enumerate(wanted)}
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in rank])
    kept = [item for item in items if item.nodeid in rank]
    items[:] = sorted(kept, key=lambda item: rank[item.nodeid])
