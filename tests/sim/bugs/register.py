"""What a planted bug is: a function that returns patches, registered under its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

patch = mock.patch.object
BUGS: dict[str, Callable[[], Any]] = {}


def bug(plant: Callable[[], Any]) -> Callable[[], Any]:
    """Register a bug by its function's name; its docstring tells the mistake."""
    BUGS[plant.__name__] = plant
    return plant


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Run with a bug inside."""
    found = BUGS[name]()
    with contextlib.ExitStack() as stack:
        for one in found if isinstance(found, tuple) else (found,):
            stack.enter_context(one)
        yield
