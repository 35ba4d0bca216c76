"""The command: a seed in, survivors out."""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path

from tests.mutants.planting import (
    EXCUSES,
    Mutant,
    diff,
    draw,
    excuse_for,
    is_money,
    modules,
    stale_excuses,
)
from tests.mutants.trial import BrokenTrial, Copy, Outcome

EXIT_OK, EXIT_SURVIVOR, EXIT_USAGE = 0, 1, 2

COUNT = 60
ROOT = Path(__file__).resolve().parents[2]

EXAMPLES = """\
examples:
  python -m tests.mutants                              the default sample
  python -m tests.mutants --count 200 --seed 7         another, larger one
  python -m tests.mutants --module 'engine.risk*' --all     every bug of some modules
  python -m tests.mutants --list                       which bugs a run would plant
  python -m tests.mutants --json                       the verdict for machines

exit codes: 0 every bug was noticed, or is reviewed and changes nothing; 1 one survived;
2 usage, an entry of equivalents.toml that fits no bug, or tests that fail without one
"""


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    patterns = options.module or ["*"]
    chosen = [name for name in modules(root) if any(fnmatchcase(name, p) for p in patterns)]
    if not chosen:
        print(f"No module is named {' or '.join(patterns)}. Known:", file=sys.stderr)
        print(" ".join(modules(root)), file=sys.stderr)
        return EXIT_USAGE
    stale = stale_excuses(root, chosen)
    for excuse in stale:
        place = f"arb_ray.{excuse.module} {excuse.within}"
        print(f"{EXCUSES} fits no bug any more: {place}: {excuse.after}", file=sys.stderr)
    if stale:
        print("Take these entries out, or review them anew", file=sys.stderr)
        return EXIT_USAGE
    count = sys.maxsize if options.all else options.count
    drawn = draw(root, chosen, count, options.seed)
    excused = [mutant for mutant in drawn if excuse_for(root, mutant)]
    planted = [mutant for mutant in drawn if mutant not in excused]
    if options.list:
        for mutant in planted:
            print(f"{mutant.path}:{mutant.line} {mutant.operator} {mutant.occurrence}")
        return EXIT_OK
    began_s = time.monotonic()
    if not options.json:
        print(
            f"First all tests without a bug, to see that they pass and what each reaches;"
            f" then {len(planted)} bugs",
            flush=True,
        )
    outcomes = []
    try:
        for outcome in _outcomes(root, planted, options.jobs):
            outcomes.append(outcome)
            if not options.json:
                _tell(outcome, len(outcomes), len(planted), root)
    except BrokenTrial as broken:
        print(f"{broken}\nMend that first: make test-unit", file=sys.stderr)
        return EXIT_USAGE
    return _verdict(options, outcomes, excused, time.monotonic() - began_s, root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Plant bugs in engine and domain, and name those that no test noticed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--count", type=_count, default=COUNT, help=f"how many bugs ({COUNT})")
    parser.add_argument("--all", action="store_true", help="every bug, not a sample")
    parser.add_argument("--seed", type=int, default=1, help="which sample (1)")
    parser.add_argument(
        "--module", action="append", metavar="NAME", help="only these: engine.risk, 'engine.trade*'"
    )
    cores = min(2, os.cpu_count() or 1)
    parser.add_argument("--jobs", type=_count, default=cores, help=f"trials at a time ({cores})")
    parser.add_argument("--list", action="store_true", help="show the sample and plant nothing")
    parser.add_argument("--json", action="store_true", help="the verdict as one JSON line")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _outcomes(root: Path, planted: list[Mutant], jobs: int) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="arb_ray_mutants.") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        proved = Copy.of(root, Path(folder, "0"))
        proved.prove()
        copies.put(proved)
        for number in range(1, min(jobs, len(planted))):
            copies.put(proved.twin(Path(folder, str(number))))

        def trial(mutant: Mutant) -> Outcome:
            copy = copies.get()
            try:
                return copy.try_out(mutant)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(jobs) as pool:
            running = [pool.submit(trial, mutant) for mutant in planted]
            try:
                for done in as_completed(running):
                    yield done.result()
            finally:
                pool.shutdown(cancel_futures=True)


def _tell(outcome: Outcome, number: int, total: int, root: Path) -> None:
    mutant = outcome.mutant
    what = f"noticed by {outcome.noticed_by}" if outcome.noticed_by else "SURVIVED"
    place = f"{mutant.path}:{mutant.line}"
    print(f"{number:>4}/{total} {outcome.took_s:5.1f} s {place} {mutant.operator}: {what}")
    if not outcome.noticed_by:
        print(diff(root, mutant))
    sys.stdout.flush()


def _verdict(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    excused: list[Mutant],
    took_s: float,
    root: Path,
) -> int:
    survivors = sorted(
        (outcome.mutant for outcome in outcomes if not outcome.noticed_by),
        key=lambda mutant: (mutant.path, mutant.line),
    )
    table = _table(outcomes, excused)
    if options.json:
        told = {
            "seed": options.seed,
            "planted": len(outcomes),
            "noticed": len(outcomes) - len(survivors),
            "equivalent": len(excused),
            "survivors": [
                {
                    "place": f"{mutant.path}:{mutant.line}",
                    "operator": mutant.operator,
                    "is_money": is_money(mutant.module),
                    "diff": diff(root, mutant),
                }
                for mutant in survivors
            ],
            "modules": table,
            "took_s": round(took_s, 1),
        }
        print(json.dumps(told))
        return EXIT_SURVIVOR if survivors else EXIT_OK
    print(f"\n{'module':28} planted noticed survived reviewed")
    for module, counts in table.items():
        planted, survived = counts["planted"], counts["survived"]
        print(
            f"{module:28} {planted:7} {planted - survived:7} {survived:8} {counts['equivalent']:8}"
        )
    for mutant in survivors:
        print(f"\nSURVIVED {mutant.path}:{mutant.line} {mutant.operator}\n{diff(root, mutant)}")
    print(
        f"\nseed {options.seed}: {len(outcomes)} bugs planted in {took_s:.0f} s,"
        f" {len(excused)} more reviewed as changing nothing; {len(survivors)} survived,"
        f" {sum(is_money(mutant.module) for mutant in survivors)} in risk, trade or ledger"
    )
    return EXIT_SURVIVOR if survivors else EXIT_OK


def _table(outcomes: Iterable[Outcome], excused: Iterable[Mutant]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for mutant in [*(outcome.mutant for outcome in outcomes), *excused]:
        table.setdefault(mutant.module, {"planted": 0, "survived": 0, "equivalent": 0})
    for outcome in outcomes:
        table[outcome.mutant.module]["planted"] += 1
        table[outcome.mutant.module]["survived"] += not outcome.noticed_by
    for mutant in excused:
        table[mutant.module]["equivalent"] += 1
    return dict(sorted(table.items()))
