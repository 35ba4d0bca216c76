"""What holds of every struct of the core: what was said once stays said."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import msgspec
import pytest

import arb_ray.domain
import arb_ray.engine

CORE = sorted(
    module.name
    for package in (arb_ray.domain, arb_ray.engine)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
)
CHANGES = {
    "MailboxCounts",
    "EvaluationStats",
    "StatusAnswer",
    "ViewCounts",
    "FeedState",
    "Connection",
    "LiveBook",
    "Reservation",
    "RollingPremium",
    "SymbolRow",
    "OpportunityLine",
    "TradeLine",
    "HostStatus",
    "FeedStatus",
    "SystemStatus",
}
"""The memory of a machine, or a document that is being filled: whoever holds it may change it."""

STORED = {
    "arb_ray.domain.book": 1,
    "arb_ray.domain.ledger": 1,
    "arb_ray.domain.risk_intent": 1,
    "arb_ray.engine.status": 1,
    "arb_ray.engine.topology": 1,
    "arb_ray.engine.trade_events": 1,
}
"""What lies in databases and journals, and what survivors of an upgrade send, carries these. Raise
one together with a reader of the older form."""


def structs(name):
    module = importlib.import_module(name)
    return [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, msgspec.Struct) and one.__module__ == name
    ]


@pytest.mark.parametrize("name", CORE)
def test_a_struct_of_the_core_cannot_be_changed_after_it_was_made(name):
    mutable = {one.__name__ for one in structs(name) if not one.__struct_config__.frozen}
    assert mutable <= CHANGES, "freeze it, or say in CHANGES who may change it"


def test_a_schema_is_raised_on_purpose():
    declared = {
        name: importlib.import_module(name).SCHEMA
        for name in CORE
        if "\nSCHEMA = " in Path(importlib.import_module(name).__file__).read_text()
    }
    assert declared == STORED


BY_NAME = {
    *("Digests", "FeedOptions", "PlanTerms", "RiskLimits", "Standing", "StrategyParams"),
    *("Event", "EdgeConfirmed", "EdgeGone", "ExitDecided", "FundingPaid", "OrderReported"),
    *("QueryAnswered", "ReserveAnswered", "ReserveUnanswered", "Retry", "Settled", "Signal"),
}
"""Figures of one kind side by side, and events with their times: a swap would be no type error."""


def test_what_could_be_swapped_unseen_is_given_by_name_only():
    by_name = {
        one.__name__
        for name in CORE
        for one in structs(name)
        if {taken.kind for taken in inspect.signature(one).parameters.values()}
        == {inspect.Parameter.KEYWORD_ONLY}
    }
    assert BY_NAME - by_name == set()


SETTINGS = {"CostTerms", "FeedOptions", "StrategyParams", "TradeLimits"}


@pytest.mark.parametrize("name", CORE)
def test_a_number_that_nobody_gave_is_zero(name):
    begins = {
        f"{one.__name__}.{field.name}": field.default
        for one in structs(name)
        if one.__name__ not in SETTINGS
        for field in msgspec.structs.fields(one)
        if type(field.default) in {int, float} and field.name != "schema"
    }
    assert {place for place, default in begins.items() if default} == set()
