"""Folders with short names: Ray's socket paths may hold 107 bytes, and pytest's are long."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="e2e."))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder of this test."""
    yield from _folder()


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """An empty folder of this module."""
    yield from _folder()
