"""A pytest plugin for trials: the same examples each time, and no search for a smaller one."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "mutants",
    # That a test fails is all that is asked; what else it could fail with is not.
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    database=None,
    report_multiple_bugs=False,
)
hypothesis.settings.load_profile("mutants")


def pytest_sessionstart() -> None:
    """Refuse to judge another tree than the copy that holds the bug."""
    import arb_ray

    if not Path(arb_ray.__file__).is_relative_to(Path.cwd()):
        raise pytest.UsageError(f"{arb_ray.__file__} is tested instead of {Path.cwd()}")
