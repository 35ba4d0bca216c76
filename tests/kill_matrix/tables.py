"""The matrix as a person reads it: after a run, and in docs/KILL_MATRIX.md."""

from __future__ import annotations

from collections import defaultdict

from tests.kill_matrix.cells import HARMS, STATES, WRITES, Cell, When, all_cells
from tests.kill_matrix.ray_cells import STATES as RAY_STATES
from tests.kill_matrix.ray_cells import VICTIMS, RayCell, ray_cells
from tests.kill_matrix.result import Result

AnyCell = Cell | RayCell


def table(cells: list[AnyCell], results: dict[str, Result]) -> str:
    """Return places x harms: seconds until flat, FAIL, or UNREACHED."""
    blocks: defaultdict[tuple[str, ...], list[AnyCell]] = defaultdict(list)
    for cell in cells:
        blocks[_columns(cell)].append(cell)
    return "\n\n".join(_block(found, results) for found in blocks.values())


def _columns(cell: AnyCell) -> tuple[str, ...]:
    """Return what tells one block of the table from another."""
    if isinstance(cell, RayCell):
        return ("ray",)
    return ("state",) if cell.trigger.state and cell.then is None else ("write",)


def _block(cells: list[AnyCell], results: dict[str, Result]) -> str:
    rows: defaultdict[str, dict[str, str]] = defaultdict(dict)
    columns: dict[str, None] = {}
    for cell in cells:
        place, harm = _place(cell)
        columns[harm] = None
        rows[place][harm] = _mark(results[cell.id])
    width = max(len(place) for place in rows)
    widths = {one: max(9, len(one)) for one in columns}
    head = " ".join(f"{one:>{widths[one]}}" for one in columns)
    lines = [f"{'seconds until flat':{width}}  {head}"]
    for place, marks in rows.items():
        line = " ".join(f"{marks.get(one, ''):>{widths[one]}}" for one in columns)
        lines.append(f"{place:{width}}  {line}".rstrip())
    return "\n".join(lines)


def _place(cell: AnyCell) -> tuple[str, str]:
    if isinstance(cell, RayCell):
        return cell.state, cell.victim
    if _columns(cell) == ("state",):
        return cell.trigger.state, f"{cell.victim}/{cell.harm}"
    place, _, harm = cell.id.rpartition(".")
    return place, harm


def _mark(result: Result) -> str:
    if not result.is_reached:
        return "UNREACHED"
    return f"{result.flat_after_s:.1f}" if result.is_ok else "FAIL"


def markdown() -> str:
    """Return the tables of docs/KILL_MATRIX.md."""
    harms = [f"{victim} {harm}" for victim, harm in HARMS]
    lines = [f"| state | {' | '.join(harms)} |", "|---" * (len(harms) + 1) + "|"]
    lines += [f"| {state} |{' x |' * len(harms)}" for state in STATES]
    whens = [str(when) for when in When]
    lines += ["", f"| write | comes by in | {' | '.join(whens)} |"]
    lines += ["|---" * (len(whens) + 2) + "|"]
    for write in WRITES:
        nth = f", {write.nth}." if write.nth > 1 else ""
        what = f"{write.holder}: `{write.method}` {write.label}{nth}".rstrip()
        note = f" ({write.note})" if write.note else ""
        lines.append(f"| {what}{note} | {write.script} |{' x |' * len(whens)}")
    lines += ["", f"| over Ray | {' | '.join(RAY_STATES)} |", "|---" * (len(RAY_STATES) + 1) + "|"]
    known = {cell.id for cell in ray_cells()}
    for victim in VICTIMS:
        marks = ["x" if f"ray.{victim}.{state}" in known else " " for state in RAY_STATES]
        lines.append(f"| {victim} | {' | '.join(marks)} |")
    count = len(all_cells()) + len(known)
    return "\n".join([*lines, "", f"{count} cells."])
