"""
Contenders that take turns in one run, so that whatever else the machine does meets all alike.

A contender's ``measure`` does one repeat and returns its figure (ns a frame, µs of CPU, updates a
second: the caller's unit). Each round asks all of them, another one first; medians are told.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).parent.parent


class Contender(msgspec.Struct, frozen=True):
    """Somebody who takes part; ``measure`` runs one repeat and returns its figure."""

    name: str
    measure: Callable[[], float]


class Figures(msgspec.Struct, frozen=True):
    """What one contender reached over all rounds."""

    median: float
    least: float
    most: float
    rounds: tuple[float, ...]


def side_by_side(contenders: Sequence[Contender], *, repeats: int) -> dict[str, Figures]:
    """Ask all contenders in turn, once to warm up and then ``repeats`` times."""
    rounds: dict[str, list[float]] = {one.name: [] for one in contenders}
    assert len(rounds) == len(contenders), "two contenders have one name"
    for one in contenders:
        one.measure()
    for number in range(repeats):
        first = number % len(contenders)
        for one in (*contenders[first:], *contenders[:first]):
            rounds[one.name].append(one.measure())
    return {name: figures(values) for name, values in rounds.items()}


def figures(values: Sequence[float]) -> Figures:
    """Return the median and the range of ``values``, which must not be empty."""
    return Figures(statistics.median(values), min(values), max(values), tuple(values))


def ratio(ours: Figures, theirs: Figures) -> float:
    """Return the median of the ratios round by round: a drift of the machine cancels out."""
    return statistics.median(a / b for a, b in zip(ours.rounds, theirs.rounds, strict=True))


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package; one that is missing says so."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, Any]:
    """Return what a figure must be read with: processor, cores, load, Python, commit."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": [round(one, 2) for one in os.getloadavg()],
        "python": platform.python_version(),
        "kernel": platform.release(),
        "commit": _commit(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """Return the commit, with -dirty if code differs from it: kept results lie in docs."""
    described = _git("describe", "--always")
    changed = described and _git("status", "--porcelain", "--", ".", ":(exclude)docs")
    return described + ("-dirty" if changed else "") or "no checkout"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return done.stdout.strip()
