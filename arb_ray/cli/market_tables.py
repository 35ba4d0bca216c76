"""The tables of ``arb-ray market``."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Group
from rich.table import Table

from arb_ray.app.market_edges import BOUNDS_PERCENT
from arb_ray.app.market_errors import Row

FAR = 3.0  # a row so many errors off is named below the tables


def render(measured: dict[str, Any]) -> Group:
    """Lay a report out for a terminal."""
    tables = _titled(measured)
    parts: list[Any] = [_comparison(title, rows) for title, rows in tables.items()]
    edges = measured["edges"]
    table = Table(
        title=f"Edges against {measured['leg_b']}, one sample a second and symbol\n"
        f"{measured['preset']} (seed {measured['seed']}): {measured['label']}"
    )
    for column in ("", "share %", "± %", "bound %"):
        table.add_column(column, justify="left" if not column else "right")
    for name, bound in BOUNDS_PERCENT.items():
        share, error = edges[f"{name}_share"] * 100, edges[f"{name}_share_se"] * 100
        table.add_row(f"{name} > 0", f"{share:.4f}", f"{error:.4f}", f"{bound:g}")
    table.add_row("samples", str(edges["samples"]), "", "")
    return Group(*parts, table, _misses(tables), measured["verdict"]["sentence"])


def _titled(measured: dict[str, Any]) -> dict[str, dict[str, Row]]:
    titled = {f"A. Premium of {c}, bps": rows for c, rows in measured["table_a"].items()}
    titled["C. Five-minute closes, bps (*: the sheet contradicts itself)"] = measured["table_c"]
    return titled | {f"F. {b}, busy windows": rows for b, rows in measured["table_f"].items()}


def _misses(tables: dict[str, dict[str, Row]]) -> str:
    far = [
        f"{title.split(',')[0]}: {name}{'*' if row.is_contradicted else ''}"
        for title, rows in tables.items()
        for name, row in rows.items()
        if row.z is None or abs(row.z) > FAR
    ]
    return f"More than {FAR:g} errors off: {'; '.join(far) or 'nothing'}."


_COLUMNS: Final = ("", "simulated", "±", "real", "±", "z")


def _comparison(title: str, rows: dict[str, Row]) -> Table:
    table = Table(title=title)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        real = f"{row.real_low:.4g}"
        if row.real_high != row.real_low:
            real += f" .. {row.real_high:.4g}"
        table.add_row(
            f"{name}{'*' if row.is_contradicted else ''}",
            f"{row.sim:.4g}",
            f"{row.sim_se:.2g}",
            real,
            f"{row.real_se:.2g}",
            "-" if row.z is None else f"{row.z:.1f}",
        )
    return table
