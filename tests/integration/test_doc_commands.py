"""Commands in the docs do what the docs say; tests/doc_commands.py tells how to mark one."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from arb_ray import submit
from arb_ray.cli import main
from tests.audited_ledger import build
from tests.doc_commands import ROOT, all_scripts, runnable, scripts_of
from tests.integration.conftest import TEMPLATE, _database

BIN = Path(sys.executable).parent
OURS = re.compile(r"^(?:\S*/)?(arb-ray|python3? -m arb_ray\.submit)(?= |$)")
PLACEHOLDER = re.compile(r"…|\.\.\.|<|\{|\||&&|;|\$\(")


@pytest.fixture
def environment(tmp_path):
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("ARB_", "RAY_"))}
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in ("postgres__password", "redis__password", "gateway__token"):
        (folder / f"arb_{name}").write_text("a-secret-of-the-test")
    return {**plain, "PATH": f"{BIN}:{plain['PATH']}"}, folder


@pytest.fixture(scope="module")
def ledger_dsn(embedded_postgres, server_thread):
    """A ledger with some trades, which the audit finds nothing in."""
    dsn = server_thread.run(_database(embedded_postgres, TEMPLATE))
    server_thread.run(build(dsn))
    return dsn


@pytest.mark.parametrize("script", runnable(), ids=lambda script: script.name)
def test_what_is_marked_to_be_run_runs(script, environment, tmp_path, request):
    variables, secrets = environment
    if "database" in script.options:
        variables["DSN"] = request.getfixturevalue("ledger_dsn")
    if "secrets" in script.options:
        variables["ARB_SECRETS_DIR"] = str(secrets)
    folder = ROOT if script.options.get("in") == "repo" else tmp_path
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(script.commands)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=float(script.options.get("timeout", 60)),
    )
    told = done.stdout + done.stderr
    assert done.returncode == int(script.options.get("exit", 0)), told
    assert script.options.get("shows", "") in told
    assert "of-a-test-alone" not in told


def our_commands():
    return [
        pytest.param(command, id=f"{script.name} {command[:60]}")
        for script in all_scripts()
        for command in script.commands
        if OURS.match(command) and not PLACEHOLDER.search(without_comment(command))
    ]


def without_comment(command):
    return re.sub(r"\s(#|\s{2,}\().*$", "", command).strip()


@pytest.mark.parametrize("command", our_commands())
def test_every_command_of_ours_in_the_docs_is_one_that_its_parser_knows(command):
    program = OURS.match(command)[1]
    words = shlex.split(without_comment(command).removeprefix(command[: OURS.match(command).end()]))
    parser = main.build_parser() if program == "arb-ray" else submit.build_parser()
    code = 0
    try:
        parser.parse_args(words)
    except SystemExit as left:
        code = left.code
    assert code == 0, f"{program} refuses: {command}"


def test_marks_are_understood_and_blocks_are_found():
    text = """
Words.

<!-- run exit=2 shows="a b" secrets -->
    one \\
      two

    # a comment
    three

```sh
$ four
```

<!-- run in=repo -->
```bash
five
```

    six
"""
    first, second, third, fourth = scripts_of("page", text)
    assert first.options == {"exit": "2", "shows": "a b", "secrets": ""}
    assert first.commands == ["one  two", "three"]
    assert (second.commands, second.options) == (["four"], None)
    assert (third.commands, third.options) == (["five"], {"in": "repo"})
    assert fourth.commands == ["six"]


@pytest.mark.parametrize(
    "text", ["<!-- run -->\nwords\n", "<!-- run -->\n", "<!-- run oops -->\n    x"]
)
def test_a_mark_that_marks_nothing_is_an_error(text):
    with pytest.raises(AssertionError):
        scripts_of("page", text)
