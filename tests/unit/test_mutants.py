"""The mutation check, tried on a tree of two small modules: it draws by its seed, names what
nobody noticed, and touches nothing.
"""

import json
import shutil
import subprocess

import pytest

from tests.mutants.command import EXIT_OK, EXIT_SURVIVOR, EXIT_USAGE, ROOT, main
from tests.mutants.planting import EXCUSES, draw, excuses, modules, mutants_of, stale_excuses

ROOM = '''\
def room(limit: int, used: int) -> int:
    """Return what is left."""
    return limit - used
'''
AGE = '''\
def is_stale(age_ms: int) -> bool:
    """Tell whether it is too old."""
    return age_ms > 500
'''
NOTICES_ROOM = (
    "from arb_ray.engine.risk import room\n\ndef test_room():\n    assert room(5, 2) == 3\n"
)
NOTICES_AGE = """\
from arb_ray.domain.age import is_stale

def test_is_stale():
    assert [is_stale(age) for age in (499, 500, 501)] == [False, False, True]
"""
OVERLOOKS_AGE = """\
from arb_ray.domain.age import is_stale

def test_is_stale():
    assert [is_stale(age) for age in (0, 499, 501)] == [False, False, True]
"""
EXCUSE = """\
[[mutant]]
module = "domain.age"
within = "is_stale"
before = "return age_ms > 500"
after = "{after}"
why = "No age is 500."
"""


@pytest.fixture
def tree(tmp_path):
    """A tree with two modules in which all tests pass and every bug but one is noticed."""
    files = {
        "arb_ray/__init__.py": "",
        "arb_ray/engine/__init__.py": "",
        "arb_ray/engine/risk.py": ROOM,
        "arb_ray/domain/__init__.py": "",
        "arb_ray/domain/age.py": AGE,
        "tests/__init__.py": "",
        "tests/sim/__main__.py": "",
        "tests/unit/test_room.py": NOTICES_ROOM,
        "tests/property/test_age.py": NOTICES_AGE,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copytree(
        ROOT / "tests/mutants", tmp_path / "tests/mutants", ignore=shutil.ignore_patterns("__py*")
    )
    (tmp_path / EXCUSES).write_text("")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def contents(tree):
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in sorted(tree.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }


def verdict(capsys, tree, *arguments):
    code = main(["--all", "--json", *arguments], tree)
    return code, json.loads(capsys.readouterr().out)


def test_the_sample_is_a_function_of_the_seed():
    chosen = ["domain.money", "domain.book", "engine.pnl"]
    one, again = draw(ROOT, chosen, 20, seed=3), draw(ROOT, list(chosen), 20, seed=3)
    assert one == again
    assert len(set(one)) == 20
    assert set(draw(ROOT, chosen, 20, seed=4)) != set(one)
    assert draw(ROOT, chosen, 10, seed=3) == one[:10], "a larger sample begins like a smaller"


def test_by_default_each_module_of_risk_trade_and_ledger_meets_two_bugs(capsys):
    assert main(["--list"]) == EXIT_OK
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) >= 40
    money = ("risk.py", "trade.py", "trade_settle.py", "postings.py", "pnl.py", "domain/ledger.py")
    for name in money:
        assert sum(f"{name}:" in line for line in listed) == 2, name


def test_a_bug_that_all_tests_overlook_is_named_and_fails_the_run(tree, capsys):
    (tree / "tests/property/test_age.py").write_text(OVERLOOKS_AGE)
    before = contents(tree)
    code, told = verdict(capsys, tree)
    assert code == EXIT_SURVIVOR
    assert {survivor["place"] for survivor in told["survivors"]} == {"arb_ray/domain/age.py:3"}
    assert any("+    return age_ms >= 500" in survivor["diff"] for survivor in told["survivors"])
    assert told["modules"]["engine.risk"]["survived"] == 0
    assert contents(tree) == before, "the checkout is only read"


def test_bugs_that_the_tests_notice_pass(tree, capsys):
    before = contents(tree)
    code, told = verdict(capsys, tree)
    assert (code, told["survivors"]) == (EXIT_OK, [])
    assert (
        told["noticed"]
        == told["planted"]
        == sum(len(mutants_of(tree, module)) for module in ("engine.risk", "domain.age"))
    )
    assert contents(tree) == before


def test_a_bug_that_the_simulation_alone_notices_is_noticed(tree, capsys):
    (tree / "tests/property/test_age.py").write_text(OVERLOOKS_AGE)
    lives = "from arb_ray.domain.age import is_stale\n\nassert not is_stale(500)\n"
    (tree / "tests/sim/__main__.py").write_text(lives)
    code, told = verdict(capsys, tree, "--module", "domain.age")
    assert (code, told["survivors"]) == (EXIT_OK, [])


def test_a_reviewed_bug_is_counted_and_not_planted(tree, capsys):
    (tree / "tests/property/test_age.py").write_text(OVERLOOKS_AGE)
    (tree / EXCUSES).write_text(EXCUSE.format(after="return age_ms >= 500"))
    _, told = verdict(capsys, tree, "--module", "domain.age")
    assert told["equivalent"] == told["modules"]["domain.age"]["equivalent"] == 1
    assert told["planted"] == len(mutants_of(tree, "domain.age")) - 1
    assert not any("+    return age_ms >= 500" in one["diff"] for one in told["survivors"])


def test_an_entry_of_the_reviewed_that_fits_no_bug_stops_the_run(tree, capsys):
    (tree / EXCUSES).write_text(EXCUSE.format(after="return age_ms >= 501"))
    assert main(["--all", "--jobs", "1"], tree) == EXIT_USAGE
    told = capsys.readouterr()
    assert "fits no bug any more: arb_ray.domain.age is_stale: return age_ms >= 501" in told.err
    assert "planted" not in told.out


def test_tests_that_fail_without_a_bug_stop_the_run(tree, capsys):
    (tree / "tests/unit/test_room.py").write_text("def test_room():\n    assert False\n")
    assert main(["--all", "--jobs", "1"], tree) == EXIT_USAGE
    assert "Without any bug this fails: tests/unit/test_room.py::test_room" in (
        capsys.readouterr().err
    )


def test_an_unknown_module_is_answered_with_the_known_ones(tree, capsys):
    assert main(["--module", "engine.rsik"], tree) == EXIT_USAGE
    assert "No module is named engine.rsik. Known:\ndomain.age engine.risk" in (
        capsys.readouterr().err
    )


def test_every_reviewed_entry_fits_a_bug_of_today():
    assert {excuse.module for excuse in excuses(ROOT)} <= set(modules(ROOT))
    assert stale_excuses(ROOT, modules(ROOT)) == []


def test_words_for_people_and_assertions_are_not_mutated(tree):
    source = '''\
def paid(amount: int | None = 0) -> int:
    """Return 1 + 1."""
    assert amount != 1, "1 + 1"
    if not amount:
        raise ValueError(f"{amount + 1}")
    return amount
'''
    (tree / "arb_ray/domain/age.py").write_text(source)
    places = {(mutant.line, mutant.operator) for mutant in mutants_of(tree, "domain.age")}
    assert {line for line, _ in places} == {1, 4, 5}
    assert (5, "RemoveStatement") in places, "that it is raised at all is code"
    assert (1, "NumberReplacer") in places, "so is a default"
