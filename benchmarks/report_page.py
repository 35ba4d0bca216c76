"""
docs/BENCHMARKS.md out of the kept results. Pure: what is kept goes in, the page comes out.

A result is the JSON of one benchmark with ``ran`` beside it (when, by which command). The page says
nothing that is not in there, in the modules' first sentences or in the budgets' names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report_plots import plots_of

HERE = Path(__file__).parent

SECTIONS = (
    *("decode", "feed", "plane", "tick_path", "tick_overload", "tick_profile", "strategy"),
    *("risk", "persistence", "replay", "scale", "soak", "recovery", "year"),
)
"""In the page's order; a result of another name follows them."""

JUDGES = {"soak": ("soak_judge.py",), "recovery": ("recovered.py", "recovery_run.py")}
"""Where budgets stand that are not in the benchmark's own module or in ``NAME_*.py``."""

ROWS_MAX, COLUMNS_MAX, CELL_MAX = 40, 24, 60
"""Of a table of figures; what is beyond is in the JSON beside the page."""

HEAD = """# Benchmarks

Written by `make bench-report` out of [the kept results](benchmarks); a test holds that this page
says what they say. [The benchmarks' own page](../benchmarks/README.md) tells what each measures and
what its budgets mean. A figure belongs to the machine and the load that stand above it.
"""


def page(results: Mapping[str, Mapping[str, Any]], plots: Sequence[str]) -> str:
    """Return the page; ``plots`` are the names of the drawings that are kept."""
    names = [*SECTIONS, *(name for name in sorted(results) if name not in SECTIONS)]
    parts = [HEAD, _overview(names, results)]
    parts += [_section(name, results.get(name), plots) for name in names]
    return "\n".join(parts)


def _overview(names: Sequence[str], results: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for name in names:
        found = results.get(name)
        if found is None:
            rows.append((f"[{name}](#{name})", "not measured yet", "", ""))
            continue
        verdicts = found.get("verdicts", [])
        missed = [one["name"] for one in verdicts if not one["is_kept"]]
        told = "all kept" if verdicts else "none"
        if missed:
            told = f"missed: {', '.join(missed)}"
        ran = found.get("ran", {})
        kept = f"{len(verdicts) - len(missed)} of {len(verdicts)}"
        rows.append((f"[{name}](#{name})", told, kept, str(ran.get("at", ""))[:10]))
    return _table(("benchmark", "budgets", "kept", "measured"), rows)


def _section(name: str, found: Mapping[str, Any] | None, plots: Sequence[str]) -> str:
    if found is None:
        return f"## {name}\n\nNot measured yet: `{command_of(name)}`.\n"
    parts = [f"## {name}\n", f"{_first_sentence(name)}\n"]
    named = budget_names(name)
    parts.append(_circumstances(name, found) + "\n")
    parts.append(_budgets(found.get("verdicts", []), named))
    parts += [
        f"![{plot.title}](benchmarks/{plot.name}.svg)\n"
        for plot in plots_of(name, found)
        if plot.name in plots
    ]
    for title, rows in _figures(found):
        parts += [f"{title}:\n", _records(rows)]
    return "\n".join(parts)


def command_of(name: str) -> str:
    """Return the command that measures one benchmark, keeps its result and writes the page."""
    return f"python -m benchmarks.report --run {name}"


def _first_sentence(name: str) -> str:
    path = HERE / f"{name}.py"
    if not path.exists():
        return "There is no such benchmark in this version."
    words = (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    return " ".join(words.partition("\n\n")[0].split())


def budget_names(name: str) -> list[str]:
    """Return the budgets that a benchmark's source names in so many words, in its order."""
    paths = [HERE / f"{name}.py", *sorted(HERE.glob(f"{name}_*.py"))]
    paths += [HERE / judge for judge in JUDGES.get(name, ())]
    found: dict[str, None] = {}
    for path in dict.fromkeys(path for path in paths if path.exists()):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"at_most", "at_least"}
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                found[str(node.args[0].value)] = None
    return list(found)


def _circumstances(name: str, found: Mapping[str, Any]) -> str:
    ran, machine = found.get("ran", {}), found.get("machine") or found.get("ran", {})
    words = [
        f"`{ran.get('command', f'python -m benchmarks.{name}')}`, {ran.get('at', 'undated')}",
        f"commit {machine.get('commit', 'unknown')}",
        f"{machine.get('processor', 'unknown processor')}, {machine.get('cores', '?')} cores",
        f"load {', '.join(str(one) for one in machine.get('load', ()))} at its begin",
        f"Python {machine.get('python', '?')}, kernel {machine.get('kernel', '?')}",
    ]
    packages = found.get("versions")
    if isinstance(packages, Mapping):
        words.append(", ".join(f"{one} {version}" for one, version in packages.items()))
    return "; ".join(words) + "."


def _budgets(verdicts: Sequence[Mapping[str, Any]], named: Sequence[str]) -> str:
    rows = [
        (
            one["name"],
            _figure(one["value"]),
            f"{'≤' if is_at_most(one) else '≥'} {_figure(one['budget'])}",
            one["unit"],
            "kept" if one["is_kept"] else "**missed**",
            one.get("note", ""),
        )
        for one in verdicts
    ]
    told = {one["name"] for one in verdicts}
    rows += [(name, "not measured", "", "", "", "") for name in named if name not in told]
    return _table(("figure", "measured", "budget", "unit", "", "where"), rows)


def is_at_most(verdict: Mapping[str, Any]) -> bool:
    """Tell whether a verdict's budget is an upper bound, which follows from how it was judged."""
    return bool((verdict["value"] <= verdict["budget"]) == verdict["is_kept"])


def _figures(found: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield every table that a result holds: lists of records, and records by name."""
    known = {"verdicts", "machine", "versions", "ran", "summary", "rounds", "is_kept", "series"}
    rest = {key: value for key, value in found.items() if key not in known}
    single = {key: value for key, value in rest.items() if isinstance(value, int | float | str)}
    if single:
        yield "figures", [{"figure": k.replace("_", " "), "": v} for k, v in single.items()]
    for key, value in rest.items():
        title = key.replace("_", " ")
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            yield title, [_flat(one) for one in value]
        elif isinstance(value, Mapping) and value:
            if all(isinstance(one, Mapping) for one in value.values()):
                yield title, [{"": name} | _flat(one) for name, one in value.items()]
            elif isinstance(value.get("rows"), list):
                yield title, [_flat(one) for one in value["rows"]]
            else:
                yield title, [_flat(value)]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name} ")
        elif not isinstance(value, list | tuple):
            flat[name] = value
    return flat


def _records(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))[:COLUMNS_MAX]
    shown = [tuple(_figure(row.get(column, "")) for column in columns) for row in rows[:ROWS_MAX]]
    table = _table(columns, shown)
    return table if len(rows) <= ROWS_MAX else f"{table}\n{len(rows) - ROWS_MAX} more rows.\n"


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        words = str(value)
        return words if len(words) <= CELL_MAX else words[: CELL_MAX - 3] + "..."
    if isinstance(value, float) and abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(
        f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |\n" for line in lines
    )
