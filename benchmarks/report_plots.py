"""
What of a result is drawn, and the drawing.

``plots_of`` is pure and needs nothing installed; only ``draw`` imports matplotlib (extra
``bench``). The same result gives the same file to the byte.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

BAR_MAX = 2.0  # a budget that is missed by more is drawn as missed by so much


class Plot(msgspec.Struct, frozen=True):
    """One drawing: lines of points, or bars by name; ``limit`` is a budget's line."""

    name: str
    title: str
    x_label: str
    y_label: str
    lines: dict[str, list[tuple[float, float]]] = {}
    bars: dict[str, float] = {}
    limit: float | None = None
    is_log: bool = False


def plots_of(name: str, found: Mapping[str, Any]) -> list[Plot]:
    """Return what is drawn of a benchmark's result: its budgets, and what is known by name."""
    plots = list(_budgets(name, found.get("verdicts", [])))
    # A result of another shape than this version writes has its tables all the same.
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        plots += list(_KNOWN.get(name, _nothing)(found))
    return [plot for plot in plots if plot.lines or plot.bars]


def _nothing(_: Mapping[str, Any]) -> Iterator[Plot]:
    yield from ()


def _budgets(name: str, verdicts: Sequence[Mapping[str, Any]]) -> Iterator[Plot]:
    used = {str(one["name"]): _used(one) for one in verdicts}
    title = f"{name}: share of each budget that is used (beyond 1 it is missed)"
    yield Plot(f"{name}_budgets", title, "measured / budget", "", bars=used, limit=1.0)


def _used(verdict: Mapping[str, Any]) -> float:
    value, budget = float(verdict["value"]), float(verdict["budget"])
    is_at_most = (value <= budget) == verdict["is_kept"]
    over, under = (value, budget) if is_at_most else (budget, value)
    if under <= 0:
        return 0.0 if verdict["is_kept"] else BAR_MAX
    return round(min(max(over / under, 0.0), BAR_MAX), 4)


def _scale(found: Mapping[str, Any]) -> Iterator[Plot]:
    points = sorted(found["points"], key=lambda one: one["symbols"])
    full = [one for one in points if one["rate"] == max(p["rate"] for p in points)]

    def line(key: str, group: str = "") -> list[tuple[float, float]]:
        return [(p["symbols"], p[key].get(group, 0.0) if group else p[key]) for p in full]

    groups = ("exchanges", "feeds", "hosts", "singletons", "stores", "ray")
    cores = {group: line("cores", group) for group in groups}
    yield Plot("scale_cores", "scale: CPU by symbols", "symbols", "cores", lines=cores)
    memory = {group: line("memory_mib", group) for group in groups}
    yield Plot("scale_memory", "scale: memory by symbols (PSS)", "symbols", "MiB", lines=memory)
    start = {"all live after Ray": line("start_s")}
    yield Plot("scale_start", "scale: start-up by symbols", "symbols", "s", lines=start, limit=30.0)
    delays = {words: line(f"{words}_ms") for words in ("p50", "p99", "worst")}
    title = "scale: from socket to decision by symbols"
    yield Plot("scale_delay", title, "symbols", "ms", lines=delays, limit=100.0, is_log=True)


def _tick_path(found: Mapping[str, Any]) -> Iterator[Plot]:
    for figure in ("p50_ms", "p99_ms"):
        lines: dict[str, list[tuple[float, float]]] = {}
        for one in found["cells"]:
            cell = one.get("cell", one)
            label = f"{cell['plane']}, {cell['hosts']} hosts"
            value = one.get("times", one)[figure]
            lines.setdefault(label, []).append((float(cell["per_s"]), float(value)))
        lines = {label: sorted(line) for label, line in sorted(lines.items())}
        words = figure.partition("_")[0]
        title = f"tick_path: {words} from frame to decision by rate"
        yield Plot(f"tick_path_{words}", title, "updates/s", "ms", lines=lines, is_log=True)


def _soak(found: Mapping[str, Any]) -> Iterator[Plot]:
    memory = [(one["at_s"] / 60, one["pss_mib"]) for one in found["series"]]
    yield Plot("soak_memory", "soak: memory of all", "minutes", "MiB", lines={"all": memory})
    delays = {
        words: [(one["at_s"] / 60, one[key]) for one in found["series"] if key in one]
        for words, key in (("p50", "p50_ms"), ("p99", "p99_ms"))
    }
    title = "soak: from socket to decision"
    yield Plot("soak_delay", title, "minutes", "ms", lines=delays, is_log=True)


def _decode(found: Mapping[str, Any]) -> Iterator[Plot]:
    bars = _named(found["ns_per_frame"])
    yield Plot("decode_ns", "decode: time by kind of frame and reader", "ns a frame", "", bars=bars)


def _feed(found: Mapping[str, Any]) -> Iterator[Plot]:
    for stage, by_kind in found["cpu_us_per_frame"].items():
        title = f"feed, {stage}: CPU by kind of frame and reader"
        yield Plot(f"feed_{stage}", title, "µs a frame", "", bars=_named(by_kind), is_log=True)


def _plane(found: Mapping[str, Any]) -> Iterator[Plot]:
    bars = {name: float(one["p50_us"]) for name, one in found["medians"].items()}
    title = "plane: p50 from writer to reader, by plane and readers"
    yield Plot("plane_p50", title, "µs", "", bars=bars, is_log=True)


def _strategy(found: Mapping[str, Any]) -> Iterator[Plot]:
    bars = {name: float(one["median"]) for name, one in found["figures"].items()}
    title = "strategy: CPU of an evaluation"
    yield Plot("strategy_us", title, str(found.get("unit", "")), "", bars=bars, is_log=True)


def _named(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{g}, {who}": float(v) for g, by_who in groups.items() for who, v in by_who.items()}


_KNOWN = {
    "decode": _decode,
    "feed": _feed,
    "plane": _plane,
    "scale": _scale,
    "soak": _soak,
    "strategy": _strategy,
    "tick_path": _tick_path,
}


def draw(plot: Plot, path: Path) -> None:
    """Write a plot as SVG. Raises ImportError without matplotlib (``make bench-peers``)."""
    mpl: Any = importlib.import_module("matplotlib")
    mpl.use("svg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    style = {"svg.hashsalt": plot.name, "svg.fonttype": "none", "font.size": 9}
    with mpl.rc_context(style):
        height = 3.2 if plot.lines else 1.2 + 0.28 * len(plot.bars)
        figure, axes = pyplot.subplots(figsize=(7.2, height))
        for label, line in plot.lines.items():
            axes.plot([x for x, _ in line], [y for _, y in line], marker="o", label=label)
        if plot.bars:
            names = list(plot.bars)[::-1]
            limit = float("inf") if plot.limit is None else plot.limit
            colours = ["#b5453c" if plot.bars[one] > limit else "#3c7ab5" for one in names]
            axes.barh(names, [plot.bars[one] for one in names], color=colours)
        if plot.limit is not None:
            line = axes.axvline if plot.bars else axes.axhline
            line(plot.limit, color="black", linewidth=1, linestyle="--", label="budget")
        if plot.bars and plot.limit is not None:
            axes.set_xlim(0, BAR_MAX)
        if plot.is_log:
            (axes.set_xscale if plot.bars else axes.set_yscale)("log")
        if plot.lines:
            axes.legend(fontsize=7)
            axes.grid(visible=True, alpha=0.3)
        axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
        figure.tight_layout()
        # Without a date and with a fixed salt the same result gives the same bytes.
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
