"""Redis with a password and TLS: what is trusted, what is refused, and that nothing goes plain."""

import pytest

from arb_ray.adapters.storage.embedded_valkey import EmbeddedValkey
from arb_ray.adapters.storage.redis_state import RedisStateStore
from arb_ray.app.doctor import Verdict
from arb_ray.app.doctor_services import redis_server
from arb_ray.app.settings import load_settings
from arb_ray.app.stores import redis_url
from arb_ray.cli.main import main
from arb_ray.domain.errors import StoreUnavailable
from tests.tls_front import Authority, TlsFront

PASSWORD = "a pass/word: with @ in it"


@pytest.fixture
async def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
async def valkey(tmp_path):
    async with EmbeddedValkey(tmp_path / "valkey", password=PASSWORD) as server:
        yield server


@pytest.fixture
async def front(authority, valkey):
    async with TlsFront(valkey.port, authority.server("127.0.0.1")) as front:
        yield front


def url_of(monkeypatch, port, ca=None, **more):
    """What the settings make of it: the address that a run uses."""
    monkeypatch.setenv("ARB_REDIS__PASSWORD", PASSWORD)
    values = {"redis.embedded": False, "redis.host": "127.0.0.1", "redis.port": port}
    values |= {"redis.tls": True, "redis.tls_ca_file": ca and str(ca)} | more
    return redis_url(load_settings("dev", values))


async def round_trip(url):
    store = RedisStateStore(url, "dev", timeout_s=2)
    try:
        await store.put_state("s1", {"session": b"1"})
        return await store.ping_ms()
    finally:
        await store.close()


async def test_state_goes_through_tls_with_a_password(front, authority, monkeypatch):
    url = url_of(monkeypatch, front.port, authority.path)
    assert url.startswith("rediss://")
    assert await round_trip(url) > 0
    assert (await redis_server(url)).verdict is Verdict.OK


async def test_a_server_that_nobody_vouches_for_is_refused(front, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    for ca in (None, other.path):
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
            await round_trip(url_of(monkeypatch, front.port, ca))


async def test_a_certificate_of_another_address_is_refused(valkey, authority, monkeypatch):
    async with TlsFront(valkey.port, authority.server("127.0.0.2")) as front:
        with pytest.raises(StoreUnavailable, match=r"(?i)certificate|mismatch"):
            await round_trip(url_of(monkeypatch, front.port, authority.path))


async def test_a_plain_server_gets_no_plain_word_when_tls_is_asked_for(
    valkey, authority, monkeypatch
):
    with pytest.raises(StoreUnavailable):
        await round_trip(url_of(monkeypatch, valkey.port, authority.path))


async def test_the_embedded_server_is_asked_without(monkeypatch):
    url = url_of(monkeypatch, 6379, **{"redis.embedded": True})
    assert url.startswith("redis://")
    assert "@" not in url


def test_the_commands_take_a_tls_address(monkeypatch, tmp_path, capsys):
    """A server that is not there ends them in one sentence, without the password."""
    url = url_of(monkeypatch, 1, tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("")
    assert main(["redis", "check", "--url", url]) == 3
    assert "pass" not in capsys.readouterr().err
