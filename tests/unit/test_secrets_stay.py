"""Secrets stay on the node that read them, and docs/SECURITY.md names tests that exist."""

import ast
import re
from pathlib import Path

import msgspec
import pytest
from ray import cloudpickle

from arb_ray.app.deploying import next_deployment
from arb_ray.app.kit import Kit
from arb_ray.app.run_plan import wanted_pairs
from arb_ray.app.session_facts import SessionFacts
from arb_ray.app.settings import load_settings, secret_keys

ROOT = Path(__file__).resolve().parents[2]
MARKER = "marker-that-must-not-travel"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")


@pytest.fixture
def marked(monkeypatch):
    for key in secret_keys():
        monkeypatch.setenv(f"ARB_{key.upper().replace('.', '__')}", f"{MARKER}-{key}")
    settings = load_settings("dev", {"risk.daily_loss_usdt": 50})
    assert len(settings.secret_values()) == len(secret_keys()) >= 3
    return settings


def kit_of(settings, **more):
    pairs = wanted_pairs(settings, symbols_option=False)
    deployment = next_deployment(
        settings, SessionFacts("s1", 1, 0), asked=pairs, running=pairs, cpus=2, before=None
    )
    values = {**deployment.values, **more}
    return Kit(msgspec.structs.replace(deployment, values=values))


def test_the_kit_that_travels_through_ray_holds_no_secret(marked):
    travels = cloudpickle.dumps(kit_of(marked))
    assert b"daily_loss_usdt" in travels
    assert MARKER.encode() not in travels


def test_a_kit_that_held_one_would_be_noticed(marked):
    assert MARKER.encode() in cloudpickle.dumps(kit_of(marked, leak=f"{MARKER}-leak"))


def test_every_test_that_the_security_page_names_exists():
    named = NAMED_TEST.findall((ROOT / "docs" / "SECURITY.md").read_text())
    assert len(named) > 10
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text())
        functions = {
            n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert not test or test in functions, f"{path}::{test}"
