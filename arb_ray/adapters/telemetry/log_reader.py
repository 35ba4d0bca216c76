"""
Read the log files of a run back: one stream of lines in the order of time.

Each process writes a file of its own. Ray puts marker lines between ours, and a process that
is killed may leave half a line: what is no object of ours is passed over.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from arb_ray.domain.errors import BadInput

Line = dict[str, Any]

LINE_CHARACTERS_MAX = 1_000_000
"""A longer line is none of ours (the redactor bounds them), and is passed over."""


def merged(files: Iterable[Path]) -> Iterator[Line]:
    """
    Yield the lines of all files by their time; of each file one line is held at a time.

    Raises:
        BadInput: A file cannot be read.
    """
    return heapq.merge(*(_lines(file) for file in files), key=_time)


def _lines(file: Path) -> Iterator[Line]:
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                if text.startswith("{") and len(text) <= LINE_CHARACTERS_MAX:
                    line = _parsed(text)
                    if line is not None:
                        yield line
    except OSError as error:
        problem = f"cannot be read ({error.strerror or error})"
        raise BadInput(str(file), problem, "Name a log file that you may read") from error


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    is_ours = isinstance(line, dict) and isinstance(line.get("timestamp"), str)
    return line if is_ours and isinstance(line.get("event"), str) else None


def _time(line: Line) -> str:
    # ISO 8601 in UTC with a fixed number of digits: text order is time order.
    return str(line["timestamp"])
