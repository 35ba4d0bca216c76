"""The page of benchmarks is what the kept results say, whatever they look like."""

import msgspec
import pytest

from benchmarks import report
from benchmarks.__main__ import benchmarks
from benchmarks.report_page import SECTIONS, budget_names, page
from benchmarks.report_plots import BAR_MAX, Plot, draw, plots_of

KEPT_ONE = {"name": "delay", "value": 4, "budget": 5, "unit": "ms", "is_kept": True, "note": "here"}
MISSED = {"name": "rate", "value": 10.0, "budget": 40.0, "unit": "1/s", "is_kept": False}
RAN = {"at": "2026-11-26 15:00 UTC", "command": "python -m benchmarks.decode", "load": [0.1]}
POINT = {
    "symbols": 10,
    "rate": 1.0,
    "start_s": 9.0,
    "cores": {"feeds": 0.1},
    "memory_mib": {"feeds": 60.0},
    "p50_ms": 1.0,
    "p99_ms": 5.0,
    "worst_ms": 50.0,
}


def test_the_page_in_the_repository_is_what_the_kept_results_say():
    assert report.main(["--check"]) == 0, "run make bench-report or python -m benchmarks.report"


def test_every_budget_that_a_module_names_is_in_the_page():
    results = {one: {"verdicts": []} for one in benchmarks()}
    names = {name for one in results for name in budget_names(one)}
    assert len(names) > 20
    text = page(results, [])
    assert not [name for name in names if f"| {name} | not measured |" not in text]
    kept = report.results(report.KEPT)
    text = report.PAGE.read_text()
    assert not [name for one in kept for name in budget_names(one) if f"| {name} |" not in text]


def test_every_benchmark_has_a_section():
    assert set(benchmarks()) <= set(SECTIONS)


def test_a_benchmark_without_a_result_says_how_to_get_one():
    assert "Not measured yet: `python -m benchmarks.report --run soak`." in page({}, [])


def test_kept_and_missed_budgets_and_unknown_figures_are_told():
    found = {"verdicts": [KEPT_ONE, MISSED], "ran": RAN, "odd": [{"a": 1, "b": {"c": 2.5}}]}
    text = page({"decode": found}, ["decode_budgets"])
    assert "| [decode](#decode) | missed: rate | 1 of 2 | 2026-11-26 |" in text
    assert "| delay | 4 | ≤ 5 | ms | kept | here |" in text
    assert "| rate | 10 | ≥ 40 | 1/s | **missed** |  |" in text
    assert "(benchmarks/decode_budgets.svg)" in text
    assert "| a | b c |\n| --- | --- |\n| 1 | 2.5 |" in text


def test_a_plot_that_is_not_kept_is_not_linked():
    assert "svg" not in page({"decode": {"verdicts": [KEPT_ONE], "ran": RAN}}, [])


def test_a_result_of_a_name_or_shape_that_nobody_knows_has_its_section():
    text = page({"new": {"verdicts": [KEPT_ONE]}, "scale": {"points": 7}}, [])
    assert "## new" in text
    assert plots_of("scale", {"points": 7}) == []


def test_bars_tell_how_much_of_a_budget_is_used():
    (plot,) = plots_of("decode", {"verdicts": [KEPT_ONE, MISSED]})
    assert plot.bars == {"delay": 0.8, "rate": BAR_MAX}


def test_what_is_known_by_name_is_drawn():
    cell = {"plane": "shm", "hosts": 4, "per_s": 1000}
    tick = {"cells": [{"cell": cell, "times": {"p50_ms": 0.4, "p99_ms": 3.0}}]}
    assert [one.name for one in plots_of("tick_path", tick)] == ["tick_path_p50", "tick_path_p99"]
    names = [one.name for one in plots_of("scale", {"points": [POINT]})]
    assert names == ["scale_cores", "scale_memory", "scale_start", "scale_delay"]


def test_single_figures_and_peers_are_told():
    found = {"verdicts": [], "rows": 5, "ns_per_frame": {"upbit": {"ours": 900.0, "json": 4000.0}}}
    text = page({"decode": found}, [])
    assert "| rows | 5 |" in text
    assert "| upbit | 900 | 4,000 |" in text
    (plot,) = plots_of("decode", found)
    assert plot.bars == {"upbit, ours": 900.0, "upbit, json": 4000.0}


def test_results_of_a_folder_are_taken_and_the_page_is_written(tmp_path):
    source, kept = tmp_path / "from", tmp_path / "docs" / "kept"
    source.mkdir()
    told = {"verdicts": [KEPT_ONE], "machine": {"commit": "abc", "load": [0.5]}}
    (source / "risk.json").write_bytes(b"a line before\n" + msgspec.json.encode(told) + b"\n")
    assert report.main(["--from", str(source), "--into", str(kept)]) == 0
    text = (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert "commit abc" in text
    assert report.main(["--check", "--into", str(kept)]) == 0
    (kept / "risk.json").unlink()
    assert report.main(["--check", "--into", str(kept)]) == 1


def test_the_same_result_is_drawn_to_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    plot = Plot("one", "title", "x", "y", lines={"a": [(1, 2), (2, 3)]}, limit=2.5, is_log=True)
    for name in ("first", "second"):
        draw(plot, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
