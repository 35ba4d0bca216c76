"""The command: the matrix, or some cells of it; a table and a verdict."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from tests.kill_matrix.bugs import BUGS, NO_BUG, planted
from tests.kill_matrix.cells import UNREACHABLE, Cell, all_cells
from tests.kill_matrix.ray_cells import RayCell, ray_cells, run_ray_cells
from tests.kill_matrix.result import Result
from tests.kill_matrix.server import Server
from tests.kill_matrix.stage import Stage
from tests.kill_matrix.tables import markdown, table

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

EXAMPLES = """\
examples:
  python -m tests.kill_matrix                           every cell
  python -m tests.kill_matrix --list                    what there is
  python -m tests.kill_matrix --cell entering.host.kill one, by its name
  python -m tests.kill_matrix --match .guard.           those with this in their names
  python -m tests.kill_matrix --match ray.              those that kill actors of a run over Ray
  python -m tests.kill_matrix --no-ray                  all others
  python -m tests.kill_matrix --sample 12 --seed 7      some, by lot; none over Ray
  python -m tests.kill_matrix --plant all               each planted bug, on the cells that see it

exit codes: 0 all hold, 1 a cell failed or was never reached (or a bug was not seen), 2 usage
"""


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if options.worker:
        Path(options.worker).mkdir(parents=True)
        asyncio.run(_work(Path(options.worker)))
        return EXIT_OK
    if options.plant:
        return _plant(options)
    if options.table:
        print(markdown())
        return EXIT_OK
    cells = _chosen(options)
    if cells is None:
        return EXIT_USAGE
    if options.list:
        for cell in cells:
            print(cell.id)
        print(f"{len(cells)} cells")
        return EXIT_OK
    began = time.monotonic()
    results = run_cells([(cell.id, "") for cell in cells if isinstance(cell, Cell)], options)
    over_ray = [cell for cell in cells if isinstance(cell, RayCell)]
    if over_ray:
        done = len(results)

        def tell(result: Result) -> None:
            nonlocal done
            done += 1
            _progress(options, result, done, len(cells), "")

        results += run_ray_cells(over_ray, tell)
    return _verdict(options, cells, results, time.monotonic() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kill_matrix",
        description="Kill every actor at every state of a trade and at every write; then judge.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cell", action="append", metavar="ID", help="only this one; repeatable")
    parser.add_argument("--match", metavar="TEXT", help="only cells with TEXT in their names")
    parser.add_argument("--no-ray", action="store_true", help="leave out the cells over Ray")
    parser.add_argument("--sample", type=int, metavar="N", help="N cells by lot")
    parser.add_argument("--seed", type=int, default=0, help="of the lot (0)")
    parser.add_argument("--list", action="store_true", help="name the cells and run none")
    parser.add_argument("--table", action="store_true", help="the matrix as docs/ shows it")
    parser.add_argument("--json", action="store_true", help="the verdict as one JSON line")
    parser.add_argument("--jobs", type=int, default=3, help="cells at a time (3)")
    parser.add_argument("--keep", metavar="DIR", help="leave logs and databases there")
    parser.add_argument("--plant", metavar="BUG", help=f"all, or one of: {', '.join(BUGS)}")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def _chosen(options: argparse.Namespace) -> list[Cell | RayCell] | None:
    # Those over Ray take minutes: no lot falls on them.
    over_ray = [] if options.no_ray or options.sample else ray_cells()
    cells: list[Cell | RayCell] = [*all_cells(), *over_ray]
    if options.cell:
        known = {cell.id: cell for cell in (*cells, UNREACHABLE)}
        unknown = [name for name in options.cell if name not in known]
        if unknown:
            print(f"There is no cell {', '.join(unknown)}; --list names them", file=sys.stderr)
            return None
        cells = [known[name] for name in options.cell]
    if options.match:
        cells = [cell for cell in cells if options.match in cell.id]
    if options.sample:
        lot = random.Random(options.seed)
        cells = lot.sample(cells, min(options.sample, len(cells)))
    if not cells:
        print("No cell is meant; --list names them", file=sys.stderr)
        return None
    return cells


def run_cells(
    jobs: list[tuple[str, str]], options: argparse.Namespace, seen: set[str] | None = None
) -> list[Result]:
    """
    Run cells, each with a bug planted or none, in worker processes with a server each.

    ``seen`` takes the bugs that a cell complained of.
    """
    if not jobs:
        return []
    folder = Path(options.keep) if options.keep else Path(tempfile.mkdtemp(prefix="kill."))
    folder.mkdir(parents=True, exist_ok=True)
    waiting: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    results: list[Result] = []
    lock = threading.Lock()

    def drive(number: int) -> None:
        command = [sys.executable, "-m", "tests.kill_matrix", "--worker", str(folder / str(number))]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert worker.stdin is not None
        assert worker.stdout is not None
        with worker:
            while True:
                try:
                    cell_id, plant = waiting.get_nowait()
                except Empty:
                    break
                try:
                    print(cell_id, plant, sep="\t", file=worker.stdin, flush=True)
                    line = worker.stdout.readline()
                except BrokenPipeError:
                    line = ""
                result = (
                    msgspec.json.decode(line, type=Result)
                    if line
                    else Result(cell_id, problems=["the worker ended"])
                )
                with lock:
                    results.append(result)
                    if seen is not None and result.problems:
                        seen.add(plant)
                    _progress(options, result, len(results), len(jobs), plant)
                if not line:
                    break
            worker.stdin.close()

    threads = [
        threading.Thread(target=drive, args=(number,))
        for number in range(min(options.jobs, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not options.keep and (options.plant or all(one.is_ok for one in results)):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        # What failed may not fail again: its logs are worth more than a tidy folder.
        print(f"The logs and databases stay in {folder}", file=sys.stderr)
    return results


async def _work(folder: Path) -> None:
    """Run the cells that stdin names, one after another; stdout has a result for each."""
    # What a library prints must not get between the results.
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    cells = {cell.id: cell for cell in (*all_cells(), UNREACHABLE)}
    async with Server(folder / "postgres") as server:
        loop = asyncio.get_running_loop()
        number = 0
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            cell_id, plant = line.rstrip("\n").split("\t")
            number += 1
            place = _place(folder, number, cell_id)
            result = await Stage(cells[cell_id], server, place, plant).run()
            print(msgspec.json.encode(result).decode(), file=results)


def _place(folder: Path, number: int, cell_id: str) -> Path:
    """Make a short folder: sockets lie in it, and a path has 107 bytes."""
    place = folder / str(number)
    place.mkdir()
    (place / "cell").write_text(f"{cell_id}\n", encoding="utf-8")
    return place


def _progress(
    options: argparse.Namespace, result: Result, done: int, count: int, plant: str
) -> None:
    word = "ok" if result.is_ok else "FAILED"
    if plant:
        word = "seen" if result.problems else "NOT SEEN"
    print(
        f"{done:>4}/{count} {word:8} {result.flat_after_s:5.1f} s {result.took_s:5.1f} s"
        f"  {result.id}{'  ' + plant if plant else ''}",
        file=sys.stderr,
        flush=True,
    )
    if plant and result.problems:
        print(f"          {result.problems[0][:140]}", file=sys.stderr, flush=True)
    elif not result.is_ok and not plant:
        for problem in result.problems[:5]:
            print(f"          {problem}", file=sys.stderr)
        print(f"          again: {_again(result)}", file=sys.stderr, flush=True)


def _again(result: Result) -> str:
    return f"python -m tests.kill_matrix --cell {result.id} --keep {tempfile.gettempdir()}/cell"


def _verdict(
    options: argparse.Namespace, cells: list[Cell | RayCell], results: list[Result], took_s: float
) -> int:
    told_of = {result.id for result in results}
    results += [Result(one.id, problems=["no result"]) for one in cells if one.id not in told_of]
    failed = [result for result in results if not result.is_ok]
    unreached = [result for result in results if not result.is_reached]
    told = {
        "cells": len(cells),
        "failed": [msgspec.to_builtins(one) | {"again": _again(one)} for one in failed],
        "never_reached": len(unreached),
        "slowest_flat_s": round(max((one.flat_after_s for one in results), default=0.0), 1),
        "rival_refused": sum(one.rival_refused for one in results),
        "took_s": round(took_s, 1),
        "seed": options.seed if options.sample else None,
    }
    if options.json:
        print(json.dumps(told))
        return EXIT_FAILED if failed else EXIT_OK
    print(table(cells, {one.id: one for one in results}))
    for result in failed:
        print(f"FAILED {result.id}: {'; '.join(result.problems[:3])}")
        print(f"  again: {_again(result)}")
    print(
        f"a rival beside the trade was refused {told['rival_refused']} times; slowest to be flat:"
        f" {told['slowest_flat_s']} s; {told['took_s']:.0f} s in all"
    )
    print(f"{len(cells)} cells, {len(failed)} failed, {len(unreached)} of them never reached")
    return EXIT_FAILED if failed else EXIT_OK


def _plant(options: argparse.Namespace) -> int:
    bugs = {**BUGS, **NO_BUG}
    if options.plant != "all" and options.plant not in bugs:
        print(f"There is no bug {options.plant}. Known: {', '.join(BUGS)}", file=sys.stderr)
        return EXIT_USAGE
    names = list(BUGS) if options.plant == "all" else [options.plant]
    for name in names:
        with planted(name):
            pass  # one that has lost its place must not fall for a crash that a cell has seen
    jobs = [(cell, name) for name in names for cell in bugs[name][1]]
    seen: set[str] = set()
    run_cells(jobs, options, seen)
    # One of its cells is enough: where a bug needs a race, the others may have lost it.
    missed = [name for name in names if name not in seen]
    print(f"{len(names)} planted bugs on {len(jobs)} cells, {len(missed)} not seen", *missed)
    return EXIT_FAILED if missed else EXIT_OK


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
