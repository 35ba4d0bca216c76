"""``arb-ray``: the operator's commands. Each is imported only when it is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from arb_ray import __version__
from arb_ray.app.command_line import Parser
from arb_ray.app.exit_codes import run_command
from arb_ray.app.run_request import check_files
from arb_ray.cli import (
    audit,
    config,
    db,
    doctor,
    logs,
    market,
    operate,
    pnl,
    redis,
    replay,
    sessions,
    sim,
    stability,
    status,
)

PROGRAM = "arb-ray"

DESCRIPTION = """\
Commands beside a run of arb_ray. A run itself is `python -m arb_ray.submit`."""

EXAMPLES = """\
  arb-ray status
  arb-ray halt --reason "the premium looks wrong"
  arb-ray doctor --env prod
  arb-ray frames recordings/*.jsonl.zst
  arb-ray market --preset calibrated --hours 6
  arb-ray config show --env prod"""

FRAMES_EXAMPLES = """\
  arb-ray frames recordings/*.jsonl.zst
  arb-ray frames recordings/upbit.jsonl.zst --json
exit code 1: a gap, a mismatch or a malformed frame was found; 3: a file cannot be read"""


def build_parser() -> Parser:
    """Return the parser with every command."""
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"arb_ray {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=Parser
    )

    def add(
        name: str, words: str, examples: str, run: Callable[[argparse.Namespace], int]
    ) -> Parser:
        command = commands.add_parser(
            name, help=words, description=f"{words[0].upper()}{words[1:]}.", examples=examples
        )
        command.set_defaults(run=run)
        return command

    status.add_arguments(
        add("status", "tell whether it is well, and what is open", status.EXAMPLES, status.run)
    )
    for verb in ("halt", "resume", "flatten"):
        run = operate.command(verb)
        operate.add_arguments(verb, add(verb, operate.WORDS[verb], operate.EXAMPLES[verb], run))
    sessions.add_arguments(
        add("sessions", "list, show or close sessions", sessions.EXAMPLES, sessions.run)
    )
    doctor.add_arguments(
        add("doctor", "check what a run needs of this machine", doctor.EXAMPLES, doctor.run)
    )
    stability.add_arguments(
        add(
            "stability",
            "try out what must hold when servers fail",
            stability.EXAMPLES,
            stability.run,
        )
    )
    frames = add(
        "frames", "check captured frames and rebuild their books", FRAMES_EXAMPLES, _frames
    )
    frames.add_argument("files", nargs="+", type=Path, metavar="FILE")
    frames.add_argument("--json", action="store_true", help="one line of JSON on stdout")

    market.add_arguments(
        add("market", "measure a simulated market against real ones", market.EXAMPLES, market.run)
    )
    replay.add_arguments(
        add("replay", "run captured frames through the engine", replay.EXAMPLES, replay.run)
    )
    sim.add_arguments(add("sim", "serve the simulated exchanges alone", sim.EXAMPLES, sim.run))
    db.add_arguments(
        add("db", "see to the database: schema, roles, backups, old months", db.EXAMPLES, db.run)
    )
    redis.add_arguments(
        add("redis", "check, clean up or migrate what lies in Redis", redis.EXAMPLES, redis.run)
    )
    logs.add_arguments(
        add("logs", "show the logs of a run in the order of time", logs.EXAMPLES, logs.run)
    )
    audit.add_arguments(add("audit", "check that the ledger holds", audit.EXAMPLES, audit.run))
    pnl.add_arguments(add("pnl", "tell what was earned, and why", pnl.EXAMPLES, pnl.run))
    config.add_arguments(
        add("config", "show the settings, or explain every one", config.EXAMPLES, config.run)
    )
    return parser


def _frames(said: argparse.Namespace) -> int:
    files = check_files("the command line", said.files)
    from arb_ray.cli.frames import run

    return run(files, json=said.json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        said = build_parser().parse_args(given)
        return int(said.run(said))

    return run_command(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
