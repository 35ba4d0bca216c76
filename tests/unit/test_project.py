"""What holds of the repository as a whole: pins, targets, generated pages, declared names."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from arb_ray.adapters.telemetry.events import EVENTS, LIBRARY
from arb_ray.adapters.telemetry.metric_registry import REGISTRY, MetricKind
from arb_ray.app.config_docs import PAGES

ROOT = Path(__file__).resolve().parents[2]
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
KINDS = {"inc": MetricKind.COUNTER, "set": MetricKind.GAUGE, "observe": MetricKind.HISTOGRAM}


def pins(name):
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-zA-Z0-9._-]+)==(\S+)$", text, re.MULTILINE))


def calls():
    """Yield every call of a method in the package: file and line, object, method, call."""
    for path in sorted((ROOT / "arb_ray").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield place, ast.unparse(node.func.value), node.func.attr, node


def literal(node):
    first = node.args[0] if node.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def test_one_module_spells_redis_keys():
    spelled = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "arb_ray").rglob("*.py"))
        if re.search(r"arb:v1|arbitrage:state", path.read_text())
    ]
    assert spelled == ["arb_ray/adapters/storage/redis_keys.py"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_current(name):
    assert (ROOT / "docs" / name).read_text() == PAGES[name](), "run `make docs`"


def test_every_event_that_is_logged_is_listed():
    unlisted = [
        f"{place} {name}"
        for place, target, method, node in calls()
        if method in LOG_METHODS and re.search(r"(^|[._])log(ger)?$", target)
        if (name := literal(node)) is not None and name not in EVENTS
    ]
    assert unlisted == [], "add them to adapters/telemetry/events.py"


def test_every_event_that_is_listed_is_logged():
    logged = {literal(node) for _, _, method, node in calls() if method in LOG_METHODS}
    assert set(EVENTS) - logged - {LIBRARY} == set(), "log them, or remove them from events.py"


def test_every_metric_that_is_used_is_declared_with_its_kind_and_labels():
    wrong = []
    for place, target, method, node in calls():
        if method not in KINDS or not re.search(r"(^|[._])metrics$", target):
            continue
        name = literal(node)
        if name is None:
            continue
        spec = REGISTRY.get(name)
        labels = {keyword.arg for keyword in node.keywords} - {"amount", "value"}
        if spec is None or spec.kind is not KINDS[method]:
            wrong.append(f"{place} {method} {name}")
        elif None not in labels and labels != set(spec.labels):
            wrong.append(f"{place} {name} has the labels {spec.labels}, not {sorted(labels)}")
    assert wrong == [], "mend them, or adapters/telemetry/metric_registry.py"


def test_requirements_are_pinned_and_name_no_place():
    for name in ("base.txt", "dev.txt"):
        for line in (ROOT / "requirements" / name).read_text().splitlines():
            entry = line.split("#")[0].strip()
            assert not entry or re.fullmatch(r"[a-zA-Z0-9._-]+==\S+", entry), line
            assert not re.search(r"https?:|file:/|--|/(opt|tmp|root|home|work)/", line), line


def test_development_adds_to_the_runtime_and_changes_nothing():
    base, dev = pins("base.txt"), pins("dev.txt")
    assert base.items() <= dev.items()


def test_every_dependency_of_the_project_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {
        "base.txt": [*project["dependencies"], *extras["embedded"]],
        "dev.txt": extras["dev"],
    }
    for name, requirements in wanted.items():
        names = {re.split(r"[\[<>=!~ ]", entry)[0].lower() for entry in requirements}
        assert names <= pins(name).keys(), "run `make requirements`"


def test_the_workflow_and_ci_run_the_same_targets():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["check-and-test"]["steps"]
    targets = {step["run"] for step in steps if step.get("run", "").startswith("make ")}
    ci = re.search(r"for target in (.*); do", (ROOT / ".ci/run").read_text())
    assert targets == {f"make {target}" for target in ci.group(1).split()}
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_ci_is_executable_and_strict():
    path = ROOT / ".ci/run"
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=10)


def test_make_lists_its_targets():
    listed = subprocess.run(
        ["make", "--no-print-directory"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    ).stdout
    for target in ("setup", "demo", "test", "check", "bench", "clean", "test-system"):
        assert f"make {target} " in listed


def test_yaml_files_of_the_project_can_be_read():
    for path in (ROOT / ".pre-commit-config.yaml", ROOT / ".github/workflows/ci.yml"):
        assert yaml.safe_load(path.read_text())


def test_the_licence_is_the_one_that_is_named():
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    assert "Apache-2.0" in (ROOT / "pyproject.toml").read_text()
