"""
docs/BENCHMARKS.md, with plots: measured, kept and written by one command.

    python -m benchmarks.report --run                  # every benchmark, then the page
    python -m benchmarks.report --run decode strategy  # these; the others keep their results
    python -m benchmarks.report --from DIR             # takes DIR/NAME.json, then the page
    python -m benchmarks.report                        # the page and the plots anew
    python -m benchmarks.report --check                # is the page what would be written?

Results are kept as docs/benchmarks/NAME.json, plots beside them. Plots need matplotlib
(``make bench-peers``); without it the page keeps the plots that are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.__main__ import benchmarks
from benchmarks.report_page import SECTIONS, page
from benchmarks.report_plots import draw, plots_of
from benchmarks.side_by_side import ROOT, machine

KEPT = ROOT / "docs" / "benchmarks"
PAGE = ROOT / "docs" / "BENCHMARKS.md"
RUN_S_MAX = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for; return 1 where a run failed, or the page is another one."""
    said = _parser().parse_args(arguments)
    kept: Path = said.into
    if said.check:
        return _check(kept)
    kept.mkdir(parents=True, exist_ok=True)
    failed = []
    if said.run is not None:
        names = said.run or [name for name in SECTIONS if name in benchmarks()]
        failed = [name for name in names if not _run(name, kept, said.with_arguments.split())]
    if said.source:
        for path in sorted(said.source.glob("*.json")):
            _take(path, kept)
    write(kept)
    if failed:
        _say(f"without a result: {', '.join(failed)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", nargs="*", metavar="NAME", help="measure these, or all")
    parser.add_argument("--with-arguments", default="", metavar="TEXT", help="for each that is run")
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="results to take")
    parser.add_argument("--into", type=Path, default=KEPT, metavar="DIR", help="docs/benchmarks")
    parser.add_argument("--check", action="store_true", help="exit 1 where the page is another one")
    return parser


def _run(name: str, kept: Path, more: Sequence[str]) -> bool:
    """Measure one benchmark and keep what it said; tell whether it said anything."""
    _say(f"== {name}")
    began = datetime.now(UTC)
    circumstances = machine()
    command = ["-m", f"benchmarks.{name}", "--json", *more]
    asked = [sys.executable, *command]
    try:
        done = subprocess.run(
            asked, cwd=ROOT, stdout=subprocess.PIPE, timeout=RUN_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    lines = done.stdout.splitlines()
    if not lines:
        return False
    said = " ".join(("python", "-m", f"benchmarks.{name}", *more))
    found = msgspec.json.decode(lines[-1])
    found["ran"] = circumstances | {"at": f"{began:%Y-%m-%d %H:%M} UTC", "command": said}
    _keep(kept / f"{name}.json", found)
    return True


def _take(path: Path, kept: Path) -> None:
    """Keep a benchmark's own JSON; of one that was not run by us the file's time is told."""
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    try:
        found = msgspec.json.decode(b"\n".join(lines))
    except msgspec.DecodeError:
        found = msgspec.json.decode(lines[-1])
    at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    own = found.get("machine") or machine()
    command = f"python -m benchmarks.{path.stem}"
    found.setdefault("ran", own | {"at": f"{at:%Y-%m-%d %H:%M} UTC", "command": command})
    _keep(kept / path.name, found)


def _keep(path: Path, found: dict[str, Any]) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def results(kept: Path) -> dict[str, dict[str, Any]]:
    """Return the kept results by the benchmarks' names."""
    return {path.stem: msgspec.json.decode(path.read_bytes()) for path in kept.glob("*.json")}


def written(kept: Path) -> str:
    """Return the page of what is kept, with the plots that are there."""
    return page(results(kept), [path.stem for path in kept.glob("*.svg")])


def write(kept: Path) -> None:
    """Draw every plot, and write the page beside the folder of the results."""
    plots = [plot for name, found in results(kept).items() for plot in plots_of(name, found)]
    try:
        for plot in plots:
            draw(plot, kept / f"{plot.name}.svg")
    except ImportError:
        _say("matplotlib is not installed (make bench-peers): the plots stay as they are")
    else:
        wanted = {plot.name for plot in plots}
        for path in kept.glob("*.svg"):
            if path.stem not in wanted:
                path.unlink()
    _page_of(kept).write_text(written(kept))


def _page_of(kept: Path) -> Path:
    return PAGE if kept.resolve() == KEPT else kept.parent / PAGE.name


def _check(kept: Path) -> int:
    target = _page_of(kept)
    if target.exists() and target.read_text() == written(kept):
        return 0
    _say(f"{target.name} is not what the kept results say: python -m benchmarks.report")
    return 1


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
