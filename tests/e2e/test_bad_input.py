"""
Bad input, as a person makes it: one clear sentence, an exit code, and nothing left running.

What can be known before anything starts is refused within a second or two; the last tests
need a server to be up before the mistake can show.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading

import pytest

from arb_ray.adapters.storage.embedded_postgres import EmbeddedPostgres
from arb_ray.adapters.storage.process import free_port
from arb_ray.adapters.storage.session_runs import RunLock
from tests.e2e.runs import SUBMIT, Run, short_folder, submit

USAGE, UNAVAILABLE = 2, 3
SENTENCE = re.compile(r"(python -m arb_ray\.submit|submit\.py): (error: )?\S.*[.?!]")


@pytest.fixture
def data_dir():
    with short_folder() as folder:
        yield folder / "data"


def refused(run, *words, code=USAGE):
    """Assert that the run ended with one sentence that holds these words."""
    found = run.wait(60)
    assert run.left_running() == []
    assert "Traceback" not in run.err
    assert run.out == ""
    sentence = run.err.rstrip("\n").splitlines()[-1]
    assert SENTENCE.fullmatch(sentence), run.err
    assert not [word for word in words if word not in sentence], sentence
    assert found == code, (found, sentence)
    return sentence


def set_to(data_dir, assignment):
    return submit(data_dir, "--set", assignment)


def command(data_dir, *arguments, **environment):
    """Any command line, with nothing said about the data folder."""
    return Run((*SUBMIT, *arguments), data_dir, environment=environment)


def test_an_unknown_key_is_named_with_the_right_one(data_dir):
    with set_to(data_dir, "risk.daily_los_usdt=5") as run:
        refused(run, "risk.daily_los_usdt", "risk.daily_loss_usdt")


def test_an_unknown_key_in_the_environment_is_named(data_dir):
    with command(data_dir, "--env", "dev", ARB_RISK__DAILY_LOS_USDT="5") as run:
        refused(run, "ARB_RISK__DAILY_LOS_USDT", "ARB_RISK__DAILY_LOSS_USDT")


def test_an_impossible_limit_is_refused(data_dir):
    with set_to(data_dir, "risk.daily_loss_usdt=-5") as run:
        refused(run, "risk.daily_loss_usdt", "-5")


def test_limits_that_refuse_every_entry_are_refused(data_dir):
    with set_to(data_dir, "risk.trade_notional_usdt=10") as run:
        refused(run, "strategy.trade_notional_usdt", "risk.trade_notional_usdt")


@pytest.fixture
def token(data_dir):
    file = data_dir.parent / "token"
    file.write_text("0" * 64)
    return {"RAY_AUTH_TOKEN_PATH": str(file)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--duration", "60s"), ("--duration", "--stop")),
        (("--flatten",), ("--flatten", "--stop")),
    ],
)
def test_what_a_cluster_cannot_do_is_refused(data_dir, token, options, words):
    arguments = ("--env", "prod", "--address", "http://127.0.0.1:1", *options)
    with command(data_dir, *arguments, **token) as run:
        refused(run, *words)


def test_live_orders_are_refused(data_dir):
    with set_to(data_dir, "mode=live") as run:
        refused(run, "mode", "live", "paper")


def test_a_symbol_that_nobody_lists_is_refused(data_dir):
    with submit(data_dir, "--symbols", "BTC,NOSUCHCOIN") as run:
        refused(run, "--symbols", "NOSUCHCOIN")


def test_a_length_of_time_without_a_unit_is_refused(data_dir):
    with submit(data_dir, "--duration", "60") as run:
        refused(run, "--duration", "60s")


def test_a_recording_that_is_not_there_is_named(data_dir):
    missing = data_dir.parent / "no-such-day.jsonl.zst"
    with submit(data_dir, "--source", "recorded", "--recording", str(missing)) as run:
        refused(run, str(missing), "no such file", code=UNAVAILABLE)


@pytest.mark.parametrize(
    "content",
    [b"this is not a recording\n", b"\x28\xb5\x2f\xfd damaged right after its magic number"],
    ids=["text", "damaged"],
)
def test_a_damaged_recording_is_named(data_dir, content):
    file = data_dir.parent / "day.jsonl.zst"
    file.write_bytes(content)
    with submit(data_dir, "--source", "recorded", "--recording", str(file)) as run:
        refused(run, str(file), code=UNAVAILABLE)


def test_a_recording_without_a_frame_is_refused(data_dir):
    file = data_dir.parent / "day.jsonl.zst"
    file.write_bytes(b"")
    with submit(data_dir, "--source", "recorded", "--recording", str(file)) as run:
        refused(run, "recording.files", "no market", code=UNAVAILABLE)


def test_a_data_folder_that_cannot_be_made_is_named(data_dir):
    data_dir.write_text("a file where the folder should be")
    with submit(data_dir) as run:
        refused(run, str(data_dir), code=UNAVAILABLE)


def test_a_replay_is_sent_to_its_own_command(data_dir):
    file = data_dir.parent / "day.jsonl.zst"
    file.touch()
    with submit(data_dir, "--set", "source=replay", "--set", f"recording.files={file}") as run:
        refused(run, "source", "arb-ray replay FILE")


def test_a_cluster_that_does_not_answer_is_named(data_dir, token):
    address = f"http://127.0.0.1:{free_port()}"
    with command(data_dir, "--env", "prod", "--address", address, **token) as run:
        refused(run, address, "does not answer", code=UNAVAILABLE)


def test_an_address_that_is_no_dashboards_is_refused(data_dir, token):
    with command(data_dir, "--env", "prod", "--address", "127.0.0.1:6379", **token) as run:
        refused(run, "--address", "http://HEAD:8265")


def test_a_cluster_without_a_token_is_not_asked(data_dir):
    arguments = ("--env", "prod", "--address", "http://127.0.0.1:1")
    missing = data_dir.parent / "no-token"
    with command(data_dir, *arguments, RAY_AUTH_TOKEN_PATH=str(missing)) as run:
        refused(run, str(missing), "RAY_AUTH_TOKEN_PATH", code=UNAVAILABLE)


def test_a_variable_that_leads_to_another_cluster_is_refused(data_dir, token):
    arguments = ("--env", "prod", "--address", "http://127.0.0.1:1")
    with command(data_dir, *arguments, RAY_ADDRESS="http://10.0.0.9:8265", **token) as run:
        refused(run, "RAY_ADDRESS", "Unset", code=UNAVAILABLE)


def test_an_occupied_port_is_named(data_dir):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with submit(data_dir, gateway=port) as run:
            refused(run, "gateway.http_port", str(port), code=UNAVAILABLE)


def test_a_second_run_on_one_data_folder_is_refused(data_dir):
    arguments = ("--env", "dev", "--data-dir", str(data_dir))
    # The first run's processes work in the data folder too: the second is told by its mark.
    elsewhere = data_dir.parent / "elsewhere"
    with running_postgres(data_dir / "postgres"), command(elsewhere, *arguments) as run:
        refused(run, str(data_dir), code=UNAVAILABLE)


def test_a_second_run_of_an_environment_is_refused_and_told_who_has_it(data_dir):
    """From another folder, as from another machine: only the database is the same."""
    with running_postgres(data_dir.parent / "server", lock_of="dev") as server:
        values = {"embedded": "false", "host": "127.0.0.1", "port": server.port, "user": "arb"}
        ours = ("--env", "dev", "--data-dir", str(data_dir))
        named = (word for key, value in values.items() for word in set_words(key, value))
        password = {"ARB_POSTGRES__PASSWORD": server.password}
        # The server is not the run's own, and would count as left running beside its data.
        elsewhere = data_dir.parent / "elsewhere"
        with command(elsewhere, *ours, *named, **password) as run:
            refused(run, "environment dev", f"/{os.getpid()} holds it", code=UNAVAILABLE)


def set_words(key, value):
    return "--set", f"postgres.{key}={value}"


@contextlib.contextmanager
def running_postgres(folder, lock_of=None):
    """The first run's PostgreSQL, which locks the folder, and its lock of an environment."""
    started, stop = threading.Event(), threading.Event()
    server = EmbeddedPostgres(folder)

    async def serve():
        async with server, contextlib.AsyncExitStack() as stack:
            if lock_of:
                await stack.enter_async_context(RunLock(server.dsn, lock_of).held())
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(60)
        yield server
    finally:
        stop.set()
        thread.join()
