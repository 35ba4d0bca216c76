"""
Figures beside their budgets: how every benchmark here judges, tells and ends.

Tables go to stderr, one line of JSON to stdout when asked for, and the exit code is 1 only when
``--check`` was given and a budget is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.table import Table


class Verdict(msgspec.Struct, frozen=True):
    """A measured figure beside its budget; ``note`` tells where it was measured."""

    name: str
    value: float
    budget: float
    unit: str
    is_kept: bool
    note: str = ""


def at_most(name: str, value: float, budget: float, unit: str, note: str = "") -> Verdict:
    """Return the verdict on a figure that must not exceed its budget."""
    return Verdict(name, round(value, 3), budget, unit, value <= budget, note)


def at_least(name: str, value: float, budget: float, unit: str, note: str = "") -> Verdict:
    """Return the verdict on a figure that must reach its budget."""
    return Verdict(name, round(value, 3), budget, unit, value >= budget, note)


def are_kept(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether no budget is missed."""
    return all(verdict.is_kept for verdict in verdicts)


def judged(verdicts: Sequence[Verdict], title: str = "Budgets") -> Table:
    """Return the table that people look at; the column of notes only where there is one."""
    has_notes = any(verdict.note for verdict in verdicts)
    table = Table(title=title)
    for column in ("figure", "measured", "budget", "unit", "", *["where"] * has_notes):
        table.add_column(column, justify="right" if column in {"measured", "budget"} else "left")
    for one in verdicts:
        kept = "kept" if one.is_kept else "MISSED"
        cells = (one.name, f"{one.value:,g}", f"{one.budget:g}", one.unit, kept)
        table.add_row(*cells, *[one.note] * has_notes)
    return table


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options that every benchmark has."""
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 where a budget is missed")


def finish(said: argparse.Namespace, told: dict[str, Any], verdicts: Sequence[Verdict]) -> int:
    """Write the line of JSON if it was asked for, verdicts included; return the exit code."""
    is_kept = are_kept(verdicts)
    if said.json:
        whole = told | {"verdicts": msgspec.to_builtins(verdicts), "is_kept": is_kept}
        sys.stdout.write(msgspec.json.encode(whole).decode() + "\n")
    return 1 if said.check and not is_kept else 0


def count(text: str) -> int:
    """Read an argument that counts something, and is 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number
