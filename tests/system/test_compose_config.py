"""Docker Compose itself reads the stack's file. It needs no engine for that."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.containers import debian
from tests.containers.progress import Failed

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.prod.yml"
EXAMPLE = ROOT / ".env.example"


@pytest.fixture(scope="session")
def compose(tmp_path_factory):
    """Compose 2 of this machine, or the next Debian's, unpacked aside."""
    program = debian.installed_compose()
    if program is None:
        try:
            program = debian.fetch_compose(tmp_path_factory.mktemp("compose"))
        except Failed as reason:
            pytest.skip(f"Docker's compose plugin cannot be had: {reason}")

    def run(*words, env_file="/dev/null", file=FILE, **variables):
        command = [program, "--project-directory", ROOT, "--env-file", env_file, "--file", file]
        environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | variables
        return subprocess.run(
            [*command, *words], check=False, env=environ, capture_output=True, text=True, timeout=60
        )

    return run


def read(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compose_reads_the_file_without_a_word(compose):
    done = compose("config", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_example_says_what_holds_without_it(compose):
    with_example = read(compose("config", "--format", "json", env_file=EXAMPLE))
    assert with_example == read(compose("config", "--format", "json"))


def test_a_variable_changes_what_it_names(compose):
    plain = read(
        compose(
            "config", "--format", "json", POSTGRES_IMAGE="postgres:17-bookworm", ARB_ENV="staging"
        )
    )
    services = plain["services"]
    assert services["postgres"]["image"] == services["backup"]["image"] == "postgres:17-bookworm"
    assert "--labels=arb-env=staging" in services["ray-worker"]["command"]
    assert services["migrate"]["environment"]["ARB_ENV"] == "staging"
    assert '--env "$$ARB_ENV"' in services["migrate"]["command"][-1]
    assert services["submit"]["environment"]["ARB_ENV"] == "staging"


def test_what_compose_publishes_is_on_loopback(compose):
    services = read(compose("config", "--format", "json"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_arguments_of_submit_reach_its_shell(compose):
    services = read(compose("config", "--format", "json", SUBMIT_ARGS="--source sim"))["services"]
    script = services["submit"]["command"][-1]
    assert script.endswith("--address http://ray-head:8265 --source sim")


def test_a_word_that_compose_does_not_know_is_refused(compose, tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(FILE.read_text().replace("healthcheck:", "healthchek:"))
    assert compose("config", "--quiet", file=broken).returncode != 0
