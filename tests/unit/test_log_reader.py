"""`arb-ray logs`: every process' lines in one stream, and only what was asked for."""

import json
import re

import pytest

from arb_ray.cli import main


def line(second, event="run_live", **fields):
    base = {"timestamp": f"2026-01-02T03:04:{second:02d}.000000Z", "level": "info"}
    return json.dumps({**base, "logger": "x", "event": event, "session_id": "s1", **fields})


@pytest.fixture
def data_dir(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "submit.log").write_text(
        "\n".join([line(1, "run_starting"), line(9, "run_stopped")])
    )
    (logs / "worker-a-1.err").write_text(
        "\n".join(
            [
                ":actor_name:StrategyHostActor",
                line(3, "trade_opened", symbol="BTC", actor="host:000@1f"),
                line(7, "trade_closed", symbol="BTC", actor="host:000@1f"),
                '{"timestamp": "2026-01-02T03:04:08',
            ]
        )
    )
    (logs / "worker-b-2.err").write_text(
        "\n".join(
            [
                line(2, "trade_opened", symbol="ETH", actor="host:001@1f"),
                line(5, "ws_disconnected", level="warning", actor="feed:upbit@2c"),
                '{"another": "object"}',
                "[1, 2]",
            ]
        )
    )
    (logs / "gcs_server.out").write_text(line(4))
    return tmp_path


def shown(capsys, data_dir, *options):
    assert main.main(["logs", "--data-dir", str(data_dir), "--json", *options]) == 0
    return [json.loads(text) for text in capsys.readouterr().out.splitlines()]


def test_lines_of_all_processes_come_in_the_order_of_time(capsys, data_dir):
    seconds = [told["timestamp"][17:19] for told in shown(capsys, data_dir)]
    assert seconds == ["01", "02", "03", "05", "07", "09"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (("--level", "warning"), ["ws_disconnected"]),
        (("--symbol", "BTC"), ["trade_opened", "trade_closed"]),
        (("--event", "trade_closed", "--event", "run_stopped"), ["trade_closed", "run_stopped"]),
        (("--actor", "host:000"), ["trade_opened", "trade_closed"]),
        (("--actor", "host"), ["trade_opened", "trade_opened", "trade_closed"]),
        (("--actor", "hos"), []),
        (("--actor", "feed:upbit@2c"), ["ws_disconnected"]),
    ],
)
def test_only_what_was_asked_for_is_shown(capsys, data_dir, options, wanted):
    assert [told["event"] for told in shown(capsys, data_dir, *options)] == wanted


def test_a_person_gets_lines_that_begin_with_the_time(capsys, data_dir):
    assert main.main(["logs", "--data-dir", str(data_dir), "--symbol", "ETH"]) == 0
    (told,) = capsys.readouterr().out.splitlines()
    assert re.match(r"\d\d:04:02\.000 \[info +\] trade_opened", told)
    assert "symbol=ETH" in told


def test_files_can_be_named(capsys, data_dir):
    file = data_dir / "logs" / "worker-b-2.err"
    assert len(shown(capsys, data_dir, str(file))) == 2


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--data-dir", "/nowhere"), 3, "holds no logs of a run"),
        (("/nowhere.err",), 3, "there is no such file"),
        (("--event", "no_such_event"), 2, "is no event"),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(capsys, options, code, words):
    assert main.main(["logs", *options]) == code
    assert words in capsys.readouterr().err
