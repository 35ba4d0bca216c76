"""The kill matrix: a sample of it holds, and it can fail. `make kill-matrix` runs all of it."""

import json
import subprocess
import sys
from pathlib import Path

from tests.kill_matrix.bugs import BUGS, planted
from tests.kill_matrix.cells import HARMS, STATES, WRITES, When, all_cells
from tests.kill_matrix.command import EXIT_FAILED, EXIT_OK
from tests.kill_matrix.tables import markdown

ROOT = Path(__file__).resolve().parents[2]
SEED = 4
CELLS = 6


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill_matrix", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_a_sample_of_the_cells_holds():
    code, out, err = command("--sample", str(CELLS), "--seed", str(SEED), "--jobs", "2", "--json")
    verdict = json.loads(out)
    assert (code, verdict["failed"]) == (EXIT_OK, []), err
    assert verdict["cells"] == CELLS
    assert verdict["rival_refused"] > 0, "nothing tried the limit"


def test_a_cell_sees_a_bug_that_is_planted():
    code, out, err = command("--plant", "recovery_declares_orders_dead", "--jobs", "2")
    assert code == EXIT_OK, err
    assert out.splitlines()[-1].endswith(" 0 not seen")


def test_a_bug_that_no_cell_sees_fails_the_command():
    """The other way round: what does no harm must not count as seen."""
    code, out, _ = command("--plant", "nothing_at_all", "--jobs", "1")
    assert code == EXIT_FAILED
    assert out.splitlines()[-1].endswith(" 1 not seen nothing_at_all")


def test_a_place_that_is_never_reached_fails():
    code, out, _ = command("--cell", "never.reached")
    assert code == EXIT_FAILED
    assert out.splitlines()[-1] == "1 cells, 1 failed, 1 of them never reached"


def test_an_unknown_cell_is_refused():
    code, _, err = command("--cell", "entering.nobody.kill")
    assert code == 2
    assert "entering.nobody.kill" in err


def test_every_state_meets_every_harm_and_every_write_every_point():
    cells = {cell.id for cell in all_cells()}
    assert len(cells) == len(all_cells()), "two cells have one name"
    for state in STATES:
        assert {f"{state}.{victim}.{harm}" for victim, harm in HARMS} <= cells
    assert sum(one.trigger.method != "" for one in all_cells() if one.then is None) == (
        len(WRITES) * len(When) + 3
    )


def test_every_phase_of_the_machine_is_a_state_of_the_matrix():
    from arb_ray.engine.trade_state import Phase

    assert set(STATES) == {str(phase) for phase in Phase}


def test_every_event_of_the_journal_is_a_place_to_die_at():
    """An event that the machine learns must come by a cell too."""
    import typing

    from arb_ray.engine.trade_events import AnyEvent

    labels = {cell.trigger.label for cell in all_cells()} | {
        cell.then.label for cell in all_cells() if cell.then
    }
    assert {one.__name__ for one in typing.get_args(AnyEvent)} - labels == set()


def test_every_write_of_the_stores_is_a_place_to_die_at():
    from tests.kill_matrix.fuse import NAMED

    assert {cell.trigger.method for cell in all_cells()} - {""} == set(NAMED)


def test_every_bug_has_a_place_to_be_planted():
    for name in BUGS:
        with planted(name):
            pass


def test_bugs_name_cells_that_there_are():
    cells = {cell.id for cell in all_cells()}
    for name, (_, seen_by) in BUGS.items():
        assert set(seen_by) <= cells, name


def test_the_page_shows_the_matrix_as_it_is():
    page = (ROOT / "docs" / "KILL_MATRIX.md").read_text(encoding="utf-8")
    assert markdown() in page, "run python -m tests.kill_matrix --table and put it into the page"
