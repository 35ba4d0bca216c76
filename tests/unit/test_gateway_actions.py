"""What an action's body may be; the rest is tested over a socket."""

import json

import pytest

from arb_ray.actors.gateway_actions import (
    ACTOR_CHARS_MAX,
    REASON_CHARS_MAX,
    UNNAMED,
    read_asked,
)
from arb_ray.domain.errors import BadInput


def said(**fields):
    return json.dumps(fields).encode()


def test_a_whole_body_is_read_and_trimmed():
    asked = read_asked("halt", said(reason=" lunch ", actor=" ann@desk "))
    assert (asked.reason, asked.actor, asked.symbol) == ("lunch", "ann@desk", None)
    assert read_asked("halt", said(reason="점심")).reason == "점심"


def test_flatten_needs_nothing():
    for body in (b"", b"{}"):
        asked = read_asked("flatten", body)
        assert (asked.reason, asked.actor, asked.symbol) == ("", UNNAMED, None)
    assert read_asked("flatten", said(symbol="1INCH")).symbol == "1INCH"


@pytest.mark.parametrize("verb", ["halt", "resume"])
@pytest.mark.parametrize("reason", [{}, {"reason": ""}, {"reason": "  "}])
def test_halt_and_resume_need_a_reason(verb, reason):
    with pytest.raises(BadInput) as refused:
        read_asked(verb, said(actor="ann", **reason))
    assert refused.value.place == "reason"


@pytest.mark.parametrize(
    ("verb", "body", "place"),
    [
        ("halt", b"halt!", "body"),
        ("halt", b"[]", "body"),
        ("halt", b"\xff\xfe", "body"),
        ("halt", said(reason=5), "body"),
        ("halt", said(reason="x", forced=True), "body"),
        ("halt", said(reason="x" * (REASON_CHARS_MAX + 1)), "reason"),
        ("halt", said(reason="x\ny"), "reason"),
        ("halt", said(reason="x\x1b[2J"), "reason"),
        ("halt", said(reason="x", actor="a" * (ACTOR_CHARS_MAX + 1)), "actor"),
        ("halt", said(reason="x", actor=" "), "actor"),
        ("halt", said(reason="x", symbol="BTC"), "symbol"),
        ("flatten", said(symbol=""), "symbol"),
        ("flatten", said(symbol="btc"), "symbol"),
        ("flatten", said(symbol="*"), "symbol"),
        ("flatten", said(symbol="B" * 21), "symbol"),
        ("flatten", said(symbol="BTC\n"), "symbol"),
    ],
)
def test_a_body_that_is_wrong_is_refused_by_its_field(verb, body, place):
    with pytest.raises(BadInput) as refused:
        read_asked(verb, body)
    assert refused.value.place == place
    assert refused.value.mend


def test_the_bounds_themselves_are_allowed():
    asked = read_asked("halt", said(reason="x" * REASON_CHARS_MAX, actor="a" * ACTOR_CHARS_MAX))
    assert len(asked.reason) == REASON_CHARS_MAX
