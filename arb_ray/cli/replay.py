"""``arb-ray replay``: captured frames through the engine, as fast as it goes."""

from __future__ import annotations

import argparse
from pathlib import Path

from arb_ray.app.command_line import Parser, argument, natural, positive_float
from arb_ray.app.run_request import check_files, parse_symbols
from arb_ray.domain.errors import BadInput

EXAMPLES = """\
  arb-ray replay recordings/*.jsonl.zst
  arb-ray replay recordings/*.jsonl.zst --workers 2
  arb-ray replay recordings/*.jsonl.zst --through ray --json"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of ``replay``."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="captured frames")
    parser.add_argument("--seed", type=argument(natural), metavar="N", help="of paper execution")
    parser.add_argument("--symbols", type=argument(parse_symbols), metavar="A,B|top:N")
    parser.add_argument(
        "--through",
        choices=("process", "ray"),
        default="process",
        help="one process, or Ray actors in lock-step; both must decide alike",
    )
    parser.add_argument(
        "--workers",
        type=argument(natural),
        default=1,
        metavar="N",
        help="processes that share the symbols, without Ray; all decide as one does (1)",
    )
    parser.add_argument(
        "--seconds",
        type=argument(positive_float),
        metavar="N",
        help="only the first N seconds of the recording",
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout")


def run(said: argparse.Namespace) -> int:
    """Replay; the decision log's hash is in what is printed."""
    files = check_files("the command line", said.files)
    if said.through == "ray" and said.workers > 1:
        problem = "through Ray the symbols are on two hosts already"
        raise BadInput("--workers", problem, "Leave out one of --workers and --through ray")
    from arb_ray.app.replaying import run as replay

    return replay(
        files=files,
        seed=said.seed,
        symbols=said.symbols,
        through=said.through,
        workers=max(1, said.workers),
        seconds=said.seconds,
        json=said.json,
    )
