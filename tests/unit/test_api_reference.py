"""docs/API_REFERENCE.md lists what there is, and nothing that is not."""

import argparse
import re
from pathlib import Path

import msgspec
import pytest

from arb_ray.actors.gateway_actions import BODY_BYTES_MAX, Asked
from arb_ray.adapters.storage.pnl_records import ROWS_MAX, PnlRow
from arb_ray.adapters.storage.session_records import SessionRecord
from arb_ray.app.doctor import Check
from arb_ray.app.exit_codes import MEANINGS, ExitCode
from arb_ray.cli.main import build_parser
from arb_ray.domain.risk_intent import RiskStatus
from arb_ray.engine.health import STALE_S, Health, StatusAnswer
from tests.unit.test_gateway_judge import gateway

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "API_REFERENCE.md").read_text()
SECTIONS = dict(re.findall(r"^###? (.+)\n((?:(?!##).*\n)*)", PAGE, flags=re.MULTILINE))


def rows(title):
    """The first column of a section's tables."""
    return re.findall(r"^\| `([^`]+)` \|", SECTIONS[title], flags=re.MULTILINE)


def commands():
    (found,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return found.choices


def test_every_endpoint_is_described_and_every_description_has_its_endpoint():
    told = {tuple(title.split()) for title in SECTIONS if re.match(r"(GET|POST) /", title)}
    routes = {
        (route.method, route.resource.canonical)
        for route in gateway(None).app().router.routes()
        if route.method != "HEAD"
    }
    assert told == routes


def test_every_command_is_described_and_every_description_has_its_command():
    told = {title.removeprefix("arb-ray ") for title in SECTIONS if title.startswith("arb-ray ")}
    assert told == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_argument_is_described_and_every_description_has_its_argument(name):
    there = [
        action.option_strings[-1] if action.option_strings else action.metavar or action.dest
        for action in commands()[name]._actions
        if not isinstance(action, argparse._HelpAction)
    ]
    assert sorted(rows(f"arb-ray {name}")) == sorted(there)


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_choice_is_described(name):
    section = SECTIONS[f"arb-ray {name}"]
    for action in commands()[name]._actions:
        if action.choices and action.dest != "source":
            assert all(f"`{choice}`" in section for choice in action.choices), action.dest


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("The risk state", RiskStatus),
        ("The judgement", Health),
        ("The system", StatusAnswer),
        ("A session", SessionRecord),
        ("A PnL row", PnlRow),
        ("A check", Check),
    ],
)
def test_every_field_is_described_and_every_description_has_its_field(title, struct):
    assert sorted(rows(title)) == sorted(struct.__struct_fields__)


def test_the_fields_of_a_body_are_described():
    told = {field for verb in ("halt", "flatten") for field in rows(f"POST /{verb}")}
    assert told == {field.name for field in msgspec.structs.fields(Asked)}


def test_the_bounds_and_exit_codes_are_the_programs():
    assert f"more than {STALE_S:g} s ago" in PAGE
    assert f"more than\n{ROWS_MAX:,} rows" in PAGE
    assert f"larger than {BODY_BYTES_MAX} bytes" in PAGE
    for code in ExitCode:
        meaning = re.search(rf"^  {int(code)} +(.+)$", MEANINGS, flags=re.MULTILINE).group(1)
        assert f"| {int(code)} | {meaning.split(' before')[0]} |" in SECTIONS["Commands"]
