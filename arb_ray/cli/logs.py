"""``arb-ray logs``: the logs of a run, of all its processes, for a person."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from arb_ray.adapters.telemetry.events import EVENTS
from arb_ray.adapters.telemetry.log_reader import Line, merged
from arb_ray.app.command_line import Parser
from arb_ray.app.run_request import check_files
from arb_ray.domain.errors import BadInput

LEVELS = ("debug", "info", "warning", "error", "critical")

EXAMPLES = """\
  arb-ray logs                                  (of the last run in the folder data)
  arb-ray logs --data-dir /var/tmp/arb --level warning
  arb-ray logs --symbol BTC --event trade_opened --event trade_closed --json
  arb-ray logs /tmp/arb-ray-*/session_latest/logs/worker-*.err
While a run is under way its actors' logs are in Ray's folder, as in the last example."""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``logs``."""
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="these instead")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), metavar="DIR", help="of the run"
    )
    parser.add_argument("--level", choices=LEVELS[:-1], default="debug", help="this and worse")
    parser.add_argument("--event", action="append", metavar="NAME", help="only these; repeatable")
    parser.add_argument("--symbol", metavar="COIN", help="only lines about it")
    parser.add_argument("--actor", metavar="NAME", help="only of it; host:000, or host for all")
    parser.add_argument("--json", action="store_true", help="the lines as they were written")


def run(said: argparse.Namespace) -> int:
    """Print what was asked for, in the order of time."""
    for name in said.event or ():
        if name not in EVENTS:
            raise BadInput("--event", f"{name} is no event", "See docs/EVENTS.md")
    # Late, because structlog's console is slow to load, and --help needs none of it.
    from arb_ray.adapters.telemetry.logs import ConsoleLines

    console = ConsoleLines(colors=sys.stdout.isatty())
    for line in merged(_files(said)):
        if _is_asked_for(line, said):
            text = _as_json(line) if said.json else console.line(line)
            sys.stdout.write(f"{text}\n")
    return 0


def _files(said: argparse.Namespace) -> tuple[Path, ...]:
    if said.files:
        return check_files("the command line", said.files)
    found = [said.data_dir / "submit.log", *sorted((said.data_dir / "logs").glob("worker-*"))]
    existing = tuple(file for file in found if file.is_file())
    if not existing:
        raise BadInput(str(said.data_dir), "holds no logs of a run", "Name another --data-dir")
    return existing


def _is_asked_for(line: Line, said: argparse.Namespace) -> bool:
    level = line.get("level")
    if level in LEVELS and LEVELS.index(level) < LEVELS.index(said.level):
        return False
    if said.event and line["event"] not in said.event:
        return False
    if said.symbol and line.get("symbol") != said.symbol:
        return False
    # `host:000` stands for every version of it, `host` for every host.
    actor = str(line.get("actor", ""))
    return (
        not said.actor
        or actor == said.actor
        or actor.startswith((f"{said.actor}@", f"{said.actor}:"))
    )


def _as_json(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(", ", ": "))
