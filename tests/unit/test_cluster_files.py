"""The cluster files: Ray takes them, and what their comments promise holds in both."""

import ast
import copy
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster import guide

ROOT = Path(__file__).resolve().parents[2]
AWS = ROOT / "ray-cluster.yaml"
LOCAL = ROOT / "deploy" / "ray-cluster.local.yaml"
NODE_ENV = ROOT / "deploy" / "node.env"
ENVIRONMENTS = {AWS: "prod", LOCAL: "staging"}
BOTH = pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.name)
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
SOURCED = ". ~/arb_ray/node.env;"

HEALTH_MS = {  # measured to notice a dead node within five seconds, and to end a frozen process
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_kill_worker_timeout_milliseconds": "200",
}


def load(path):
    return yaml.safe_load(path.read_text())


def node_environment():
    """Return what a shell has after it sourced the file, as a node's shell does."""
    script = 'set -eu; . "$0"; env'
    done = subprocess.run(
        ["sh", "-c", script, str(NODE_ENV)],
        env={"HOME": "/home/arb", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def start_command(config, which):
    stop, start = config[which]
    assert stop == f"{SOURCED} ray stop"
    return start


@BOTH
def test_ray_takes_the_file(path):
    validate_config(prepare_config(load(path)))


@BOTH
def test_ray_refuses_the_file_with_a_key_that_it_does_not_know(path):
    config = prepare_config(load(path)) | {"min_wrokers": 2}
    with pytest.raises(Exception, match="min_wrokers"):
        validate_config(config)


@BOTH
def test_nothing_is_scaled(path):
    types = prepare_config(copy.deepcopy(load(path)))["available_node_types"]
    workers = [kind for kind in types.values() if kind.get("max_workers")]
    assert workers
    assert all(kind["min_workers"] == kind["max_workers"] for kind in workers)
    assert load(path)["max_workers"] == sum(kind["max_workers"] for kind in workers)


@BOTH
@pytest.mark.parametrize("which", STARTS)
def test_every_node_starts_with_the_environments_label_and_the_common_settings(path, which):
    start = start_command(load(path), which)
    assert start.startswith(SOURCED)
    assert f"--labels=arb-env={ENVIRONMENTS[path]} " in start
    assert 'ulimit -n "$(ulimit -H -n)";' in start
    assert "--block" not in start, "ssh would wait for it for ever"


@BOTH
def test_the_dashboard_is_reached_through_ssh_only(path):
    hosts = re.findall(r"--dashboard-host=(\S+)", start_command(load(path), STARTS[0]))
    assert hosts == ["127.0.0.1"]


@BOTH
def test_nodes_get_the_settings_the_program_and_the_secrets_as_files(path):
    mounts = load(path)["file_mounts"]
    assert mounts["~/arb_ray/node.env"] == "deploy/node.env"
    assert mounts["~/arb_ray/secrets"] == "secrets"
    kept_out = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/cluster.yaml"} <= set(kept_out)
    for there in mounts.values():
        assert there in ("secrets", "dist") or (ROOT / there).exists(), there
    assert "sh ~/arb_ray/install_node.sh" in load(path)["setup_commands"]


@BOTH
def test_no_secret_stands_in_the_file(path):
    for text in (path.read_text(), NODE_ENV.read_text()):
        assert not re.search(
            r"(password|token|secret|key)\s*[:=]\s*['\"]?[A-Za-z0-9+/_-]{16,}", text
        )
        assert not re.search(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|[0-9a-f]{32}", text)
        assert "RAY_AUTH_TOKEN=" not in text, "a token in the environment is seen by all"


@pytest.mark.parametrize("which", STARTS)
def test_both_clusters_start_alike_but_for_their_environment(which):
    aws, local = (start_command(load(path), which) for path in (AWS, LOCAL))
    assert aws.replace("arb-env=prod", "arb-env=staging") == local


def test_production_is_in_tokyo_and_on_demand():
    config = load(AWS)
    assert config["provider"]["region"] == "ap-northeast-1"
    assert config["provider"]["availability_zone"].startswith("ap-northeast-1")
    types = config["available_node_types"]
    assert set(types) == {"head", "worker"}, "Ray's default worker would be a spot instance"
    for kind in types.values():
        assert "InstanceMarketOptions" not in kind["node_config"]
        assert kind["node_config"]["ImageId"].startswith("ami-")


def test_nodes_demand_the_token_and_read_it_from_a_file():
    found = node_environment()
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN_PATH"] == "/home/arb/arb_ray/secrets/ray_auth_token"
    assert found["ARB_SECRETS_DIR"] == "/home/arb/arb_ray/secrets"


def test_nodes_notice_each_others_death_in_seconds():
    found = node_environment()
    assert {name: found.get(name) for name in HEALTH_MS} == HEALTH_MS


def test_a_process_that_starts_again_looks_for_no_plugins():
    assert node_environment()["PYDANTIC_DISABLE_PLUGINS"] == "__all__"


def test_the_node_finds_its_own_ray_first():
    assert node_environment()["PATH"].split(":")[0] == "/home/arb/arb_ray/venv/bin"


def test_a_command_of_the_guide_is_run_or_says_that_it_is_not():
    text = guide.text()
    kinds = {info for info, _ in guide.blocks(text)}
    odd = {
        kind
        for kind in kinds
        if kind.startswith(("sh", "bash", "console"))
        and kind != "sh not-run"
        and not guide.STEP.fullmatch(kind)
    }
    assert odd == set(), "mark each with `sh step=NAME` or `sh not-run`"


def test_every_step_of_the_guide_is_run_by_the_cluster_test():
    tree = [
        node
        for path in sorted((ROOT / "tests" / "cluster").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    words = {node.value for node in tree if isinstance(node, ast.Constant)}
    named = set(guide.steps(guide.text()))
    assert named - words == set()
