"""The files of deploy/ for Prometheus and Alertmanager, judged by their own tools."""

import subprocess

import pytest

from tests.promql import RULE_TESTS, RULES
from tests.system.monitoring import DEPLOY, alertmanager_config, program

pytestmark = pytest.mark.system


def judged(*command):
    """Run a tool; return what it said, or fail with it."""
    ran = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus.file_sd.yml"])
def test_prometheus_takes_its_configuration_and_rules(name):
    said = judged(
        program("promtool"), "check", "config", "--syntax-only", DEPLOY / "prometheus" / name
    )
    assert "is valid prometheus config file syntax" in said


def test_promtool_finds_nothing_to_say_against_the_rules():
    judged(program("promtool"), "check", "rules", "--lint-fatal", *sorted(RULES.glob("*.yml")))


@pytest.mark.parametrize("path", sorted(RULE_TESTS.glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_are_silent_otherwise(path):
    assert "SUCCESS" in judged(program("promtool"), "test", "rules", path)


def test_alertmanager_takes_its_configuration(tmp_path):
    config = tmp_path / "alertmanager.yml"
    config.write_text(alertmanager_config("http://127.0.0.1:1/"))
    assert "SUCCESS" in judged(program("amtool"), "check-config", config)
