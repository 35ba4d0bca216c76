"""Log lines: one JSON object each, in order, without secrets, whatever is thrown at them."""

import io
import json
import logging
import re
from decimal import Decimal
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from arb_ray.adapters.telemetry.events import EVENTS
from arb_ray.adapters.telemetry.logs import BASE_KEYS, add_context, configure_logs, get_log
from arb_ray.adapters.telemetry.redaction import ITEMS_MAX, REDACTED, TEXT_MAX, Redactor
from arb_ray.domain.money import USDT, Money, Side

SECRET = SecretStr("s3cr3t-value")


@pytest.fixture(autouse=True)
def restore():
    root = logging.getLogger()
    level = root.level
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    for handler in list(root.handlers):
        if getattr(handler, "is_arb_ray", False):
            root.removeHandler(handler)


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_first_keys_in_order_and_decimals_as_text(stream):
    configure_logs("info", "json", stream=stream)
    log = get_log("arb_ray.test", session_id="s1", symbol="BTC")
    log.info("trade_opened", net_usdt=Decimal("1.50"), side=Side.BUY, path=Path("/x"))
    (line,) = lines(stream)
    assert list(line)[:6] == [*BASE_KEYS, "session_id", "symbol"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["logger"]) == ("info", "arb_ray.test")
    assert (line["net_usdt"], line["side"], line["path"]) == ("1.50", "buy", "/x")


def test_lines_below_the_level_are_not_written(stream):
    configure_logs("warning", "json", stream=stream)
    log = get_log("x")
    log.info("run_live")
    log.warning("run_failed")
    assert [line["event"] for line in lines(stream)] == ["run_failed"]


def test_a_library_line_has_the_same_form_and_its_news_is_left_out(stream):
    configure_logs("debug", "json", SECRET_LIST, stream)
    logging.getLogger("websockets.client").info("connection open")
    logging.getLogger("websockets.client").warning(
        "\x1b[1mslow\x1b[22m %s with %s", "peer", "s3cr3t-value"
    )
    (line,) = lines(stream)
    assert (line["event"], line["level"]) == ("library", "warning")
    assert line["message"] == f"slow peer with {REDACTED}"


SECRET_LIST = (SECRET,)


def test_a_stack_trace_is_one_line_without_secrets(stream):
    configure_logs("info", "json", SECRET_LIST, stream)
    try:
        int("s3cr3t-value")
    except ValueError:
        get_log("x").exception("run_failed")
        logging.getLogger("redis").exception("broken")
    ours, theirs = lines(stream)
    for line in (ours, theirs):
        assert (
            "ValueError: invalid literal for int() with base 10: '[redacted]'" in line["exception"]
        )
    assert "s3cr3t" not in stream.getvalue()


def test_the_console_shows_the_same_without_secrets_or_warnings(stream):
    configure_logs("info", "console", SECRET_LIST, stream)
    try:
        int("s3cr3t-value")
    except ValueError:
        get_log("x").exception("run_failed", token="abc", venue="upbit")
    assert "run_failed" in stream.getvalue()
    assert "upbit" in stream.getvalue()
    assert "s3cr3t" not in stream.getvalue()
    assert "abc" not in stream.getvalue()


def test_a_second_set_up_replaces_the_first(stream):
    first = io.StringIO()
    configure_logs("info", "json", stream=first)
    log = get_log("x")
    configure_logs("info", "json", stream=stream)
    log.info("run_live")
    assert first.getvalue() == ""
    assert len(lines(stream)) == 1


def test_context_variables_are_on_each_line(stream):
    configure_logs("info", "json", stream=stream)
    with structlog.contextvars.bound_contextvars(session_id="s9"):
        get_log("x").info("run_live")
    assert lines(stream)[0]["session_id"] == "s9"


def test_the_facts_of_a_trade_are_fields_of_each_line_and_its_own_fields_win(stream):
    configure_logs("info", "json", stream=stream)
    with structlog.contextvars.bound_contextvars(trade_facts={"symbol": "BTC", "trade_id": "t1"}):
        get_log("x").info("run_live", symbol="ETH")
    (line,) = lines(stream)
    assert (line["symbol"], line["trade_id"]) == ("ETH", "t1")
    assert "trade_facts" not in line


def test_the_process_context_is_on_every_line_whoever_writes_it(stream):
    configure_logs("info", "json", stream=stream, context={"actor": "feed:upbit"})
    add_context(session_id="s7")
    get_log("x").info("run_live")
    logging.getLogger("asyncpg").warning("slow")
    get_log("x").info("run_live", session_id="of its own")
    assert [(line["actor"], line["session_id"]) for line in lines(stream)] == [
        ("feed:upbit", "s7"), ("feed:upbit", "s7"), ("feed:upbit", "of its own"),
    ]  # fmt: skip
    configure_logs("info", "json", stream=stream)
    get_log("x").info("run_live")
    assert "actor" not in lines(stream)[-1]


def test_a_decimal_that_json_cannot_hold_costs_no_line(stream):
    configure_logs("info", "json", stream=stream)
    for odd in (Decimal("NaN"), Decimal("1e-30"), float("inf"), {Decimal(1): Decimal(2)}):
        get_log("x").info("run_live", notional_usd=odd)
    assert len(lines(stream)) == 4


def test_a_console_line_begins_with_the_time_and_leaves_out_what_never_changes(stream):
    configure_logs("info", "console", stream=stream, context={"session_id": "s1"})
    get_log("arb_ray.actors.host").info("trade_opened", symbol="BTC", notional_usd=500.0)
    line = stream.getvalue()
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \[info +\] trade_opened +", line), line
    assert "symbol=BTC" in line
    assert "s1" not in line
    assert "arb_ray.actors" not in line


def test_a_secret_deep_in_a_chain_of_exceptions_is_hidden(stream):
    configure_logs("info", "json", SECRET_LIST, stream)

    def fails():
        cause = ConnectionError("cannot reach postgresql://arb:other-pass@db:5432/arb")
        raise RuntimeError({"token": ["s3cr3t-value"]}) from cause

    try:
        fails()
    except RuntimeError:
        get_log("x").exception("run_failed", tried=[{"a": ("s3cr3t-value", {"b": SECRET})}])
    text = stream.getvalue()
    assert "s3cr3t" not in text
    assert "other-pass" not in text
    assert f"postgresql://arb:{REDACTED}@db:5432/arb" in text


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "pg_password",
        "operator_token",
        "token",
        "dsn",
        "redis_dsn",
        "api_key",
        "apikey",
        "secret",
        "authorization",
        "credentials",
        "private_key",
    ],
)
def test_keys_named_like_secrets_are_hidden_at_any_depth(key):
    hidden = Redactor()(None, "", {"event": "x", key: "v", "deep": [{"a": {key: "v"}}]})
    assert hidden[key] == REDACTED
    assert hidden["deep"][0]["a"][key] == REDACTED


@pytest.mark.parametrize("key", ["tokens_count", "keyword", "event", "symbol", "dsns_open"])
def test_other_keys_are_left_alone(key):
    assert Redactor()(None, "", {key: "v"})[key] == "v"


def test_passwords_in_addresses_and_secret_types_are_hidden():
    hidden = Redactor()(
        None,
        "",
        {
            "cause": "cannot reach postgresql://arb:hunter2@db:5432/arb?x=1 or redis://:hunter2@r:1/0",
            "plain": "wss://api.upbit.com/websocket/v1",
            "value": SecretStr("hunter2"),
        },
    )
    assert "hunter2" not in json.dumps(hidden)
    assert "postgresql://arb:[redacted]@db:5432/arb?x=1" in hidden["cause"]
    assert hidden["plain"] == "wss://api.upbit.com/websocket/v1"


def test_a_secret_is_hidden_as_a_key_and_inside_structs():
    redact = Redactor([SECRET, SecretStr("abc")])
    text = json.dumps(
        redact(None, "", {"s3cr3t-value": 1, "x": Money(Decimal(1), USDT), "y": "abc"})
    )
    assert "s3cr3t" not in text
    assert '"asset": "USDT"' in text
    assert '"abc"' in text  # too short to be searched for


def test_a_secret_that_contains_another_is_hidden_whole():
    redact = Redactor([SecretStr("hunter"), SecretStr("hunter2-and-more")])
    assert redact(None, "", {"x": "hunter2-and-more"})["x"] == REDACTED


@pytest.mark.parametrize("text", ["p%40ss%2Fword%22", 'p@ss/word\\"', 'p@ss/word"'])
def test_a_secret_is_hidden_as_addresses_and_json_spell_it(text):
    shown = Redactor([SecretStr('p@ss/word"')])(None, "", {"x": f"before {text} after"})["x"]
    assert shown == f"before {REDACTED} after"


def test_sizes_are_bounded():
    plain = Redactor()(
        None,
        "",
        {
            "text": "x" * (TEXT_MAX * 2) + "the end",
            "list": list(range(ITEMS_MAX * 2)),
            "map": {str(n): n for n in range(ITEMS_MAX * 2)},
        },
    )
    assert len(plain["text"]) < TEXT_MAX + 50
    assert plain["text"].endswith("the end")
    assert len(plain["list"]) == ITEMS_MAX + 1
    assert len(plain["map"]) == ITEMS_MAX + 1
    loop: list = []
    loop.append(loop)
    json.dumps(Redactor()(None, "", {"loop": loop}))


class Hostile:
    def __str__(self):
        raise RuntimeError("no")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.just(Hostile())
    | st.just(ValueError("x")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1), values, max_size=4))
def test_every_value_becomes_one_line_of_strict_json(event):
    text = json.dumps(Redactor(SECRET_LIST)(None, "", event), allow_nan=False)
    assert "\n" not in text


def test_every_event_has_a_meaning_of_one_sentence():
    for name, meaning in EVENTS.items():
        assert name.isidentifier()
        assert name == name.lower()
        assert meaning.endswith(".")
