"""What a benchmark says of its budgets, and how it ends."""

import argparse
import io

import msgspec
import pytest
from rich.console import Console

from benchmarks.budgets import add_outputs, at_least, at_most, count, finish, judged

KEPT = at_most("kept", 1.0, 1.0, "ms")
MISSED = at_least("missed", 0.99999, 1.0, "1/s", note="host:000")


@pytest.fixture
def say():
    parser = argparse.ArgumentParser()
    add_outputs(parser)
    return parser.parse_args


def test_a_figure_at_its_budget_keeps_it_and_one_beyond_misses_it():
    assert KEPT.is_kept
    assert not at_most("x", 1.0000001, 1.0, "ms").is_kept
    assert at_least("x", 1.0, 1.0, "1/s").is_kept
    # It is shown as 1: the verdict is on the figure and not on what is shown of it.
    assert (MISSED.value, MISSED.is_kept) == (1.0, False)


def test_only_a_missed_budget_with_check_ends_with_1(say, capsys):
    assert finish(say(["--check"]), {}, [KEPT, MISSED]) == 1
    assert finish(say(["--check"]), {}, [KEPT]) == 0
    assert finish(say([]), {}, [MISSED]) == 0
    assert capsys.readouterr().out == ""


def test_json_is_one_line_with_the_verdicts(say, capsys):
    finish(say(["--json"]), {"ratio": 1.5}, [KEPT, MISSED])
    (line,) = capsys.readouterr().out.splitlines()
    told = msgspec.json.decode(line)
    assert (told["ratio"], told["is_kept"]) == (1.5, False)
    assert [one["name"] for one in told["verdicts"]] == ["kept", "missed"]


def test_the_table_names_what_is_missed_and_where():
    console = Console(file=io.StringIO(), width=120)
    console.print(judged([KEPT, MISSED], "Budgets of a test"))
    text = console.file.getvalue()
    assert "Budgets of a test" in text
    assert [line for line in text.splitlines() if "MISSED" in line and "host:000" in line]
    console = Console(file=io.StringIO(), width=120)
    console.print(judged([KEPT]))
    assert "where" not in console.file.getvalue()


def test_a_count_below_1_is_refused():
    assert count("3") == 3
    with pytest.raises(argparse.ArgumentTypeError):
        count("0")
