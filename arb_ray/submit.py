"""``python -m arb_ray.submit``: run arb_ray, here or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from arb_ray.app.command_line import Parser, argument, natural, positive_float
from arb_ray.app.exit_codes import run_command
from arb_ray.app.run_request import (
    RunRequest,
    check_files,
    check_together,
    parse_assignment,
    parse_duration_s,
    parse_symbols,
)

PROGRAM = "python -m arb_ray.submit"

DESCRIPTION = """\
Trade Upbit against Binance on paper. With --env dev and no address everything runs on this
machine: Ray, PostgreSQL, a Redis-compatible server and simulated exchanges, none of which
needs to be installed. staging and prod belong on a running Ray cluster, which is reached
through its dashboard: submit looks at the cluster, shows the plan, writes what is wanted,
waits until it runs, and ends; the actors trade on. Submitting again changes what runs to
what is asked for, and leaves alone what stays the same."""

EXAMPLES = """\
  one minute of the simulated exchanges, made lively (NOT a real market):
    python -m arb_ray.submit --env dev --duration 60s
  prices that behave as real ones do, where an edge is rare:
    python -m arb_ray.submit --env dev --preset calibrated --symbols top:50 --duration 10m
  live public data of the real exchanges, three symbols, until Ctrl-C:
    python -m arb_ray.submit --env dev --source paper --symbols BTC,ETH,XRP
  captured frames at ten times their speed:
    python -m arb_ray.submit --env dev --source recorded --recording day.jsonl.zst --speed 10
  on a cluster whose head has the dashboard on port 8265; what would change, then for real:
    python -m arb_ray.submit --env staging --address http://10.0.0.1:8265 --dry-run
    python -m arb_ray.submit --env staging --address http://10.0.0.1:8265 --symbols top:50
  stop it, and close what is open:
    python -m arb_ray.submit --env staging --address http://10.0.0.1:8265 --stop --flatten
  for a script: one line of JSON on stdout:
    python -m arb_ray.submit --env dev --duration 60s --json > summary.json"""


def build_parser() -> Parser:
    """Return the parser; whatever is left out is for the settings to decide."""
    parser = Parser(prog=PROGRAM, description=DESCRIPTION, examples=EXAMPLES)
    parser.add_argument("--env", required=True, choices=("dev", "staging", "prod"))
    market = parser.add_argument_group("market")
    market.add_argument(
        "--source",
        choices=("sim", "paper", "recorded"),
        help="simulated exchanges, the real ones' public data, or captured frames",
    )
    market.add_argument(
        "--recording",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="FILE",
        help="frames to serve",
    )
    market.add_argument(
        "--speed", type=argument(positive_float), metavar="X", help="of a recording; 1 is its own"
    )
    market.add_argument(
        "--preset",
        choices=("lively", "calibrated", "stress"),
        help="of the simulated exchanges; only calibrated is like a real market",
    )
    market.add_argument(
        "--symbols", type=argument(parse_symbols), metavar="A,B|top:N", help="what to trade"
    )
    market.add_argument(
        "--leg-b", choices=("spot", "perp"), help="Binance spot, or its USDT-M perpetuals"
    )
    market.add_argument(
        "--seed", type=argument(natural), metavar="N", help="of the simulated market"
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--duration",
        type=argument(parse_duration_s),
        metavar="60s|10m|2h",
        help="counted from the moment when all symbols are live; without it, until Ctrl-C",
    )
    session = run.add_mutually_exclusive_group()
    session.add_argument(
        "--resume",
        dest="resume",
        action="store_true",
        default=None,
        help="continue the open session with its positions (the default)",
    )
    session.add_argument(
        "--new-session", dest="resume", action="store_false", help="begin a new session"
    )
    run.add_argument(
        "--address",
        metavar="URL",
        help="dashboard of a running Ray cluster, http://HEAD:8265; auto on its head",
    )
    run.add_argument("--stop", action="store_true", help="end what runs on the cluster")
    run.add_argument(
        "--flatten", action="store_true", help="with --stop: close every position before"
    )
    run.add_argument("--record", type=Path, metavar="DIR", help="write every received frame there")
    run.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="data of the embedded servers, and the spool"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        type=argument(parse_assignment),
        metavar="key.path=value",
        help="any setting of docs/CONFIGURATION.md; may be repeated",
    )
    out = parser.add_argument_group("output")
    out.add_argument(
        "--json", action="store_true", help="print the summary as one line of JSON on stdout"
    )
    out.add_argument(
        "--dry-run", action="store_true", help="check everything, show the plan, start nothing"
    )
    return parser


def parse_request(arguments: Sequence[str]) -> RunRequest:
    """
    Read the command line.

    Raises:
        BadInput: Its parts do not fit together, or a recording is not there.
        SystemExit: argparse has complained, or printed the help.
    """
    said = build_parser().parse_args(arguments)
    request = RunRequest(
        env=said.env,
        source=said.source,
        recordings=tuple(said.recording),
        speed_ratio=said.speed,
        preset=said.preset,
        symbols=said.symbols,
        leg_b=said.leg_b,
        duration_s=said.duration,
        seed=said.seed,
        resume=said.resume,
        address=said.address,
        record_dir=said.record,
        data_dir=said.data_dir,
        extra=tuple(said.set),
        as_json=said.json,
        dry_run=said.dry_run,
        stop=said.stop,
        flatten=said.flatten,
    )
    check_together(request)
    check_files("--recording", request.recordings)
    request.overrides()  # raises where --set repeats an option
    return request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        request = parse_request(given)
        # Late, because Ray and its friends take seconds to import and --help needs none.
        if request.is_for_cluster:
            from arb_ray.app.cluster_submit import submit_to_cluster

            return submit_to_cluster(request)
        from arb_ray.app.lifecycle import run

        return run(request)

    return run_command(PROGRAM, command)


if __name__ == "__main__":
    sys.exit(main())
