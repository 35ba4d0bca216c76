"""What `python -m arb_ray.submit` must understand, refuse and pass on."""

import contextlib
import re
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray import submit
from arb_ray.app.exit_codes import code_of, run_command, sentence
from arb_ray.app.run_request import (
    RunRequest,
    parse_assignment,
    parse_duration_s,
    parse_symbols,
)
from arb_ray.app.settings import known_keys, load_settings
from arb_ray.domain.errors import (
    BadConfig,
    BadInput,
    Fenced,
    LedgerViolation,
    OutcomeUnknown,
    StoreUnavailable,
    VenueUnreachable,
)


@pytest.fixture
def lifecycle(monkeypatch):
    """A lifecycle that notes the request and gives back what the test wants."""
    module = types.ModuleType("arb_ray.app.lifecycle")
    module.requests = []
    module.outcome = 0

    def run(request):
        module.requests.append(request)
        if isinstance(module.outcome, BaseException):
            raise module.outcome
        return module.outcome

    module.run = run
    monkeypatch.setitem(sys.modules, "arb_ray.app.lifecycle", module)
    return module


def request_of(line):
    return submit.parse_request(line.split())


def test_only_the_environment_must_be_said():
    assert request_of("--env dev") == RunRequest(env="dev")
    assert request_of("--env dev").overrides() == {}


def test_every_option_reaches_the_request(tmp_path):
    file = tmp_path / "a.jsonl.zst"
    file.touch()
    request = submit.parse_request(
        [
            *[
                "--env",
                "staging",
                "--source",
                "recorded",
                "--speed",
                "2.5",
                "--symbols",
                "btc,eth",
                "--leg-b",
                "perp",
            ],
            *[
                "--duration",
                "10m",
                "--seed",
                "42",
                "--new-session",
                "--address",
                "10.0.0.5:6379",
                "--record",
                "out",
            ],
            *["--data-dir", "/srv/arb", "--set", "risk.daily_loss_usdt=50", "--json", "--dry-run"],
            *("--recording", str(file)),
        ]
    )

    assert request == RunRequest(
        env="staging",
        source="recorded",
        recordings=(file,),
        speed_ratio=2.5,
        symbols="BTC,ETH",
        leg_b="perp",
        duration_s=600.0,
        seed=42,
        resume=False,
        address="10.0.0.5:6379",
        record_dir=Path("out"),
        data_dir=Path("/srv/arb"),
        extra=(("risk.daily_loss_usdt", "50"),),
        as_json=True,
        dry_run=True,
    )
    assert request.overrides() == {
        "source": "recorded",
        "recording.files": [str(file)],
        "recording.speed_ratio": 2.5,
        "symbols": "BTC,ETH",
        "leg_b": "perp",
        "session.duration_s": 600.0,
        "sim.market_seed": 42,
        "session.resume": False,
        "ray.address": "10.0.0.5:6379",
        "recording.record_dir": "out",
        "session.data_dir": "/srv/arb",
        "risk.daily_loss_usdt": "50",
    }


def test_every_override_is_a_setting_that_exists():
    everything = RunRequest(
        env="dev",
        source="sim",
        recordings=(Path("a"),),
        speed_ratio=1.0,
        preset="lively",
        symbols="BTC",
        leg_b="spot",
        duration_s=1.0,
        seed=1,
        resume=True,
        address="x",
        record_dir=Path("a"),
        data_dir=Path("a"),
    )

    assert set(everything.overrides()) <= {key for key, _ in known_keys()}


def test_the_overrides_are_what_the_settings_then_hold():
    request = request_of(
        "--env dev --preset stress --seed 9 --symbols top:7 --duration 90s --new-session "
        "--set risk.daily_loss_usdt=150 --set gateway.enabled=false"
    )

    settings = load_settings(request.env, request.overrides(), environ={})

    assert settings.sim.preset == "stress"
    assert settings.sim.market_seed == 9
    assert settings.symbols == "top:7"
    assert settings.session.duration_s == 90
    assert settings.session.resume is False
    assert settings.risk.daily_loss_usdt == 150
    assert settings.gateway.enabled is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("10m", 600),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("1m30s", 90),
        ("0.5h", 1_800),
        (" 1M ", 60),
        ("8760h", 31_536_000),
    ],
)
def test_durations_are_read_with_their_units(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "60",
        "s",
        "-5s",
        "1d",
        "10m 5x",
        "0s",
        "0h0m",
        "8761h",
        "nan",
        "infs",
        "1e3s",
        "\uff15s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(BadInput) as caught:
        parse_duration_s(text)

    assert caught.value.place == "--duration"


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_bad_input(text):
    with contextlib.suppress(BadInput):
        assert 0 < parse_duration_s(text) <= 31_536_000


@pytest.mark.parametrize(
    ("text", "symbols"),
    [("BTC", "BTC"), ("btc, eth", "BTC,ETH"), ("top:20", "top:20"), ("TOP:5", "top:5")],
)
def test_symbols_are_read_in_any_case(text, symbols):
    assert parse_symbols(text) == symbols


@pytest.mark.parametrize(
    "text", ["", ",", "BTC,", "top:0", "top:", "top:-1", "B/C", "BTC,BTC", "é"]
)
def test_what_names_no_symbols_is_refused(text):
    with pytest.raises(BadInput):
        parse_symbols(text)


@pytest.mark.parametrize("text", ["", "a", "=1", "A.b=1", "a..b=1", "a.=1", "--x=1"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(BadInput):
        parse_assignment(text)


def test_a_value_may_hold_an_equals_sign_and_be_empty():
    assert parse_assignment("a.b=x=y") == ("a.b", "x=y")
    assert parse_assignment("a.b=") == ("a.b", "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "--env"),
        ("--env live", "invalid choice"),
        ("--env dev --source live", "invalid choice"),
        ("--env dev --duration 60", "Write a number with its unit"),
        ("--env dev --symbols a!b", "BTC,ETH or top:20"),
        ("--env dev --seed -3", "whole number"),
        ("--env dev --seed 1.5", "whole number"),
        ("--env dev --speed 0", "above 0"),
        ("--env dev --speed nan", "above 0"),
        ("--env dev --resume --new-session", "not allowed with"),
        ("--env dev --set nonsense", "key.path=value"),
        ("--env dev --dur 60s", "unrecognized"),  # no abbreviations
        ("--env dev --source paper --preset lively", "not simulated"),
        ("--env dev --source recorded", "--recording"),
        ("--env dev --recording x.zst", "--source recorded"),
        ("--env dev --speed 2", "--source recorded"),
        ("--env dev --preset lively --set sim.preset=stress", "given twice"),
        ("--env dev --set a.b=1 --set a.b=2", "given twice"),
    ],
)
def test_bad_usage_is_one_sentence_and_code_2(line, words, capsys, lifecycle):
    try:
        code = submit.main(line.split())
    except SystemExit as left:
        code = left.code

    told = capsys.readouterr()
    assert code == 2
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not told.out
    assert not lifecycle.requests


def test_a_missing_recording_is_named_and_code_3(tmp_path, capsys, lifecycle):
    for place, problem in ((tmp_path / "no.zst", "no such file"), (tmp_path, "not a file")):
        line = ["--env", "dev", "--source", "recorded", "--recording", str(place)]

        assert submit.main(line) == 3
        told = capsys.readouterr().err
        assert str(place) in told
        assert problem in told
    assert not lifecycle.requests


def test_the_lifecycles_code_is_the_exit_code(lifecycle):
    for lifecycle.outcome in (0, 4, 130):
        assert submit.main(["--env", "dev"]) == lifecycle.outcome
    assert lifecycle.requests[0] == RunRequest(env="dev")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadConfig("a.b", "is wrong", "Mend it"), 2),
        (BadInput("--speed", "is wrong", "Mend it"), 2),
        (BadInput("/x/y.zst", "is damaged", "Mend it"), 3),
        (StoreUnavailable("postgres", "refused"), 3),
        (BadInput("symbols", "NOPE is not in the registry", "Choose another"), 2),
        (VenueUnreachable("upbit", "timed out"), 3),
        (OutcomeUnknown("risk.reserve", 500), 3),
        (LedgerViolation("e", "does not balance"), 4),
        (Fenced("guard", 1, 2), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_of_ours_is_one_sentence_with_its_code(error, code, lifecycle, capsys):
    lifecycle.outcome = error

    assert submit.main(["--env", "dev"]) == code
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    assert not told.out


def test_an_occupied_port_is_unavailable_even_as_bad_config():
    error = BadConfig("sim.upbit_port", "cannot listen", "Free it")
    error.__cause__ = OSError(98, "in use")

    assert code_of(error) == 3


def test_a_bug_is_not_swallowed(lifecycle):
    lifecycle.outcome = ZeroDivisionError()

    with pytest.raises(ZeroDivisionError):
        submit.main(["--env", "dev"])


def test_sentences_end_once():
    assert sentence(BadInput("a", "is wrong", "Mend it")) == "a: is wrong. Mend it."
    assert sentence(BadInput("a", "is wrong", "Mend it.")) == "a: is wrong. Mend it."
    assert sentence(BadConfig("a", "is unknown", "Did you mean b?")).endswith("b?")


def test_a_code_of_true_would_be_an_integer():
    assert run_command("x", lambda: True) == 1


def test_help_shows_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as left:
        submit.main(["--help"])

    told = capsys.readouterr().out
    assert left.value.code == 0
    for word in ("--env dev --duration 60s", "exit codes:", "130", "NOT a real market"):
        assert word in told


def test_every_example_of_the_help_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "day.jsonl.zst").touch()
    examples = re.findall(r"python -m arb_ray\.submit (.*)", submit.EXAMPLES)

    assert len(examples) >= 5
    for line in examples:
        assert submit.parse_request(line.split(" > ")[0].split())
