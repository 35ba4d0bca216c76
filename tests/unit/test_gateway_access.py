"""How a command finds the Gateway, and what a run leaves for it."""

import os
import stat

import msgspec
import pytest

from arb_ray.app.gateway_access import (
    FILE_NAME,
    TOKEN_VARIABLE,
    LocalGateway,
    find_gateway,
    local_gateway,
    parse_url,
    url_of,
)
from arb_ray.app.settings import load_settings
from arb_ray.domain.errors import BadConfig, BadInput, StoreUnavailable


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    said = {"session.data_dir": str(tmp_path), "gateway.http_port": 4711}
    return load_settings("dev", said, {})


def test_a_run_leaves_its_address_and_a_fresh_token_for_its_owner_only(settings, tmp_path):
    tokens = set()
    for _ in range(2):
        with local_gateway(settings):
            file = tmp_path / FILE_NAME
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            left = msgspec.json.decode(file.read_bytes(), type=LocalGateway)
            assert left.url == "http://127.0.0.1:4711"
            assert os.environ[TOKEN_VARIABLE] == left.token
            assert len(left.token) >= 32
            access = find_gateway("dev", data_dir=str(tmp_path), environ={})
            assert (access.url, access.token.get_secret_value()) == (left.url, left.token)
            assert left.token not in repr(access)
            tokens.add(left.token)
        assert not file.exists()
        assert TOKEN_VARIABLE not in os.environ
    assert len(tokens) == 2


def test_a_run_that_fails_leaves_nothing(settings, tmp_path):
    with pytest.raises(RuntimeError), local_gateway(settings):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    assert TOKEN_VARIABLE not in os.environ


def test_a_configured_token_is_the_one(tmp_path):
    said = {"session.data_dir": str(tmp_path), "gateway.http_port": 4711}
    configured = load_settings("dev", said, {TOKEN_VARIABLE: "configured-by-someone"})
    with local_gateway(configured):
        assert TOKEN_VARIABLE not in os.environ
        access = find_gateway("dev", data_dir=str(tmp_path), environ={})
        assert access.token.get_secret_value() == "configured-by-someone"


def test_without_a_gateway_nothing_is_left(tmp_path):
    said = {"session.data_dir": str(tmp_path), "gateway.enabled": False}
    with local_gateway(load_settings("dev", said, {})):
        assert list(tmp_path.iterdir()) == []


def test_a_url_that_is_said_wins_and_gets_no_other_ones_token(settings, tmp_path):
    with local_gateway(settings):
        other = find_gateway("dev", "http://10.0.0.5:8790", str(tmp_path), {})
        assert (other.url, other.token) == ("http://10.0.0.5:8790", None)
        same = find_gateway("dev", "http://127.0.0.1:4711", str(tmp_path), {})
        assert same.token is not None


def test_elsewhere_the_settings_say_it_and_no_other_secret_is_needed(tmp_path):
    (tmp_path / "arb_gateway__token").write_text("from-a-secret-file\n")
    access = find_gateway("prod", environ={"ARB_SECRETS_DIR": str(tmp_path)})
    assert access.url == "http://127.0.0.1:8790"
    assert access.token.get_secret_value() == "from-a-secret-file"
    environ = {"ARB_GATEWAY__HOST": "10.1.1.1", "ARB_GATEWAY__HTTP_PORT": "99"}
    assert find_gateway("staging", environ=environ).url == "http://10.1.1.1:99"
    assert find_gateway("staging", environ={}).token is None


def test_what_a_run_of_dev_left_is_not_taken_for_another_environment(settings, tmp_path):
    with local_gateway(settings):
        assert find_gateway("prod", data_dir=str(tmp_path), environ={}).token is None


def test_no_run_is_one_sentence(tmp_path):
    with pytest.raises(StoreUnavailable, match="--data-dir"):
        find_gateway("dev", data_dir=str(tmp_path), environ={})


def test_what_is_damaged_is_named(tmp_path):
    (tmp_path / FILE_NAME).write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        find_gateway("dev", data_dir=str(tmp_path), environ={})
    for environ in ({TOKEN_VARIABLE: "two lines\nhere"}, {"ARB_GATEWAY__HTTP_PORT": "http"}):
        with pytest.raises(BadConfig):
            find_gateway("prod", environ=environ)


@pytest.mark.parametrize("text", ["http://h:1", "https://h", "http://[::1]:8790", "http://h:1/"])
def test_addresses(text):
    assert parse_url(text) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    ["", "h:1", "ftp://h", "http://", "http://h:x", "http://h:0", "http://h/p", "http://u@h"],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(BadInput):
        parse_url(text)


def test_an_address_to_listen_on_becomes_one_to_call():
    assert url_of("0.0.0.0", 1) == url_of("::", 1) == "http://127.0.0.1:1"
    assert url_of("fe80::1", 2) == "http://[fe80::1]:2"
