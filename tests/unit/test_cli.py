"""What `arb-ray` must understand, and whom it must call."""

import json
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from arb_ray.adapters.storage import migrate
from arb_ray.adapters.storage.hypertables import SnapshotsIn
from arb_ray.cli import (
    config,
    database,
    db,
    doctor,
    main,
    market,
    operate,
    redis,
    replay,
    sessions,
    sim,
    stability,
    status,
)
from arb_ray.domain.errors import BadInput, StoreUnavailable

COMMANDS = (
    *("status", "halt", "resume", "flatten", "sessions", "doctor"),
    *("frames", "market", "replay", "sim", "db", "redis", "stability"),
    *("logs", "audit", "pnl", "config"),
)


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for what the commands call; each notes its call and answers 0."""
    noted = []

    def stand_in(name):
        module = types.ModuleType(name)

        def run(*given, **said):
            noted.append((name, given, said))
            return 0

        module.run = run
        monkeypatch.setitem(sys.modules, name, module)

    for name in ("arb_ray.cli.frames", "arb_ray.app.replaying"):
        stand_in(name)
    return noted


@pytest.fixture
def recording(tmp_path):
    file = tmp_path / "upbit.jsonl.zst"
    file.touch()
    return file


def test_frames_gets_its_files(calls, recording):
    assert main.main(["frames", str(recording), "--json"]) == 0
    assert calls == [("arb_ray.cli.frames", ((recording,),), {"json": True})]


@pytest.fixture
def measured(monkeypatch):
    asked = []

    def report(preset, seed, hours, symbols, *, days, leg_b, tell):
        asked.append((preset, seed, hours, symbols, days, leg_b))
        tell(1, 1, "parts measured")
        return {"preset": preset, "verdict": {"is_exceeded": preset == "lively"}}

    monkeypatch.setattr("arb_ray.app.market_report.report", report)
    monkeypatch.setattr("arb_ray.cli.market_tables.render", lambda measured: f"table of {measured}")
    return asked


def test_market_measures_the_calibrated_market_unless_told_otherwise(measured, capsys):
    assert main.main(["market"]) == 0
    ((preset, seed, hours, symbols, days, leg_b),) = measured
    assert (preset, seed, hours, days, leg_b) == ("calibrated", 1, 1.0, 21.0, "spot")
    assert len(symbols) == 20
    told = capsys.readouterr()
    assert "table of" in told.out
    assert "1 of 1 parts measured" in told.err


def test_market_speaks_json(measured, capsys):
    line = "market --preset stress --seed 2 --hours 0.5 --days 3 --symbols top:2 --leg-b perp"

    assert main.main([*line.split(), "--json"]) == 0
    assert measured == [("stress", 2, 0.5, ("BTC", "ETH"), 3.0, "perp")]
    assert json.loads(capsys.readouterr().out)["preset"] == "stress"


def test_a_market_too_good_to_be_believed_is_exit_1(measured):
    assert main.main(["market", "--preset", "lively"]) == 1


def test_replay_gets_all_that_was_said(calls, recording):
    line = f"replay {recording} --seed 3 --symbols btc --through ray --seconds 9 --json"

    assert main.main(line.split()) == 0
    assert calls[0][2] == {
        "files": (recording,),
        "seed": 3,
        "symbols": "BTC",
        "through": "ray",
        "workers": 1,
        "seconds": 9.0,
        "json": True,
    }


def test_replay_is_shared_by_workers_or_goes_through_ray(calls, recording, capsys):
    assert main.main(["replay", str(recording), "--workers", "2"]) == 0
    assert calls[0][2]["workers"] == 2
    assert main.main(["replay", str(recording), "--workers", "2", "--through", "ray"]) == 2
    assert "--workers" in capsys.readouterr().err
    assert len(calls) == 1


@pytest.mark.parametrize("command", ["frames", "replay"])
def test_a_file_that_is_not_there_is_named(command, tmp_path, calls, capsys):
    assert main.main([command, str(tmp_path / "no.zst")]) == 3
    assert "no.zst: there is no such file" in capsys.readouterr().err
    assert not calls


@pytest.fixture
def served(monkeypatch):
    configs = []

    async def serve(sim_config):
        configs.append(sim_config)

    monkeypatch.setattr("arb_ray.adapters.venues.sim.exchange.serve", serve)
    return configs


def test_sim_takes_three_ports_in_a_row(served):
    assert (
        main.main(
            ["sim", "--port", "9000", "--preset", "stress", "--seed", "5", "--symbols", "eth,btc"]
        )
        == 0
    )

    (said,) = served
    assert (said.upbit_port, said.binance_spot_port, said.binance_usdm_port) == (9000, 9001, 9002)
    assert (said.preset, said.seed, said.symbols) == ("stress", 5, ("ETH", "BTC"))


def test_sim_takes_free_ports_and_the_top_symbols(served):
    assert main.main(["sim", "--symbols", "top:3"]) == 0

    (said,) = served
    assert (said.upbit_port, said.binance_spot_port, said.binance_usdm_port) == (0, 0, 0)
    assert len(said.symbols) == 3


@pytest.mark.parametrize("text", ["-1", "65534", "http", "", "1.5"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(BadInput):
        sim.parse_port(text)


DSN = "postgresql://arb@db/arb"


def test_db_status_lists_and_is_1_when_something_is_pending(monkeypatch, capsys):
    found = migrate.MigrationStatus(
        applied=("0001.ledger",), pending=("0002.snapshots",), unknown=()
    )
    monkeypatch.setattr(migrate, "status", lambda dsn: found)
    monkeypatch.setattr(migrate, "snapshots_in", lambda dsn: SnapshotsIn("nothing"))

    assert main.main(["db", "status", "--dsn", DSN]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["applied", "0001.ledger"],
        ["pending", "0002.snapshots"],
        ["snapshots", "lie", "in", "nothing"],
    ]


def test_db_status_is_0_when_all_is_applied_and_speaks_json(monkeypatch, capsys):
    found = migrate.MigrationStatus(applied=("0001.ledger",), pending=(), unknown=())
    monkeypatch.setattr(migrate, "status", lambda dsn: found)
    monkeypatch.setattr(migrate, "snapshots_in", lambda dsn: SnapshotsIn("months"))

    assert main.main(["db", "status", "--dsn", DSN, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["applied"], told["snapshots"]["kind"]) == (["0001.ledger"], "months")


@pytest.mark.parametrize(
    ("snapshots", "code", "words"),
    [
        (SnapshotsIn("hypertables", "2.19.3", ("x",)), 0, "hypertables of TimescaleDB 2.19.3"),
        (SnapshotsIn("months", "2.19.3", (), ("x",)), 1, "arb-ray db migrate makes hypertables"),
        (SnapshotsIn("nothing", None, (), (), ("x",)), 1, "x: neither months nor hypertables"),
        (SnapshotsIn("months", None, (), ("x",)), 0, "snapshots lie in      months"),
    ],
)
def test_db_status_tells_where_snapshots_lie(snapshots, code, words, monkeypatch, capsys):
    monkeypatch.setattr(migrate, "status", lambda dsn: migrate.MigrationStatus((), (), ()))
    monkeypatch.setattr(migrate, "snapshots_in", lambda dsn: snapshots)

    assert main.main(["db", "status", "--dsn", DSN]) == code
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    "said",
    [
        "connection to db failed: refused\n\tIs the server running on that host?",
        "Multiple attempts failed. All failures were:\n- connection to db failed: refused\n- x",
    ],
)
def test_db_without_an_answer_is_one_sentence(said, monkeypatch, capsys):
    def fail(dsn):
        raise StoreUnavailable("postgres", said)

    monkeypatch.setattr(migrate, "status", fail)

    assert main.main(["db", "status", "--dsn", DSN]) == 3
    told = capsys.readouterr().err
    assert told == "arb-ray: postgres is unavailable: connection to db failed: refused.\n"


def test_db_migrate_tells_what_it_did(monkeypatch, capsys):
    def apply(dsn, told):
        told("x is a hypertable now")
        return ("0001.ledger",) if dsn == DSN else ()

    monkeypatch.setattr(migrate, "apply", apply)

    assert main.main(["db", "migrate", "--dsn", DSN]) == 0
    assert capsys.readouterr().out == "0001.ledger\nx is a hypertable now\n"


def test_db_rollback_asks_whether_it_is_meant(monkeypatch, capsys):
    undone = []
    monkeypatch.setattr(
        migrate, "rollback", lambda dsn, count, told: undone.append(count) or ("x",)
    )

    assert main.main(["db", "rollback", "--dsn", DSN]) == 2
    assert not undone
    assert "deletes the data" in capsys.readouterr().err
    assert main.main(["db", "rollback", "--dsn", DSN, "--count", "2", "--yes"]) == 0
    assert undone == [2]


def test_db_takes_the_address_from_the_settings_and_quotes_the_password(monkeypatch):
    asked = []
    monkeypatch.setenv("ARB_POSTGRES__PASSWORD", "p@ss/w:rd")
    monkeypatch.setenv("ARB_REDIS__PASSWORD", "x")
    monkeypatch.setattr(migrate, "apply", lambda dsn, told: asked.append(dsn) or ())

    assert main.main(["db", "migrate", "--env", "staging"]) == 0
    assert asked == ["postgresql://arb:p%40ss%2Fw%3Ard@postgres:5432/arb_staging"]


@pytest.mark.parametrize("line", ["db status", "db status --dsn mysql://x"])
def test_db_without_a_server_says_what_to_name(line, capsys):
    assert main.main(line.split()) == 2
    assert "--dsn" in capsys.readouterr().err or "postgresql://" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri", ["postgresql://u:p,@db-1:5432,db-2:5432/arb", "postgresql:///arb?host=/run", "unix:///s"]
)
def test_a_uri_of_several_servers_or_of_none_is_taken_as_it_is(uri):
    assert database.uri_of("--dsn", uri, "URI", ("postgresql://", "unix://")) == uri


def test_config_show_prints_settings_without_secrets(monkeypatch, capsys):
    monkeypatch.setenv("ARB_POSTGRES__PASSWORD", "do-not-show-me")
    monkeypatch.setenv("ARB_REDIS__PASSWORD", "nor-me-please")

    assert main.main(["config", "show", "--env", "prod"]) == 0
    assert main.main(["config", "show", "--env", "prod", "--json"]) == 0
    told = capsys.readouterr().out
    assert "do-not-show-me" not in told
    assert "nor-me-please" not in told
    page, line = told.rsplit("\n", 2)[0], told.splitlines()[-1]
    assert yaml.safe_load(page) == json.loads(line)


def test_config_show_takes_what_submit_would_take(capsys):
    line = "config show --set risk.daily_loss_usdt=150 --json"

    assert main.main(line.split()) == 0
    assert json.loads(capsys.readouterr().out)["risk"]["daily_loss_usdt"] == "150"


def test_config_docs_is_the_page(capsys):
    assert main.main(["config", "docs"]) == 0
    assert capsys.readouterr().out.startswith("# Configuration")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "COMMAND"),
        ("dance", "invalid choice"),
        ("market --hours 0", "above 0"),
        ("replay", "FILE"),
        ("sim --preset real", "invalid choice"),
        ("db", "verb"),
        ("config docs --json", "Leave them out"),
        ("halt", "--reason"),
        ("halt --reason x --symbol BTC", "--symbol"),
        ("status --url ftp://x", "no address"),
        ("status --watch 0", "above 0"),
        ("sessions show", "do not go together"),
        ("sessions list 5", "do not go together"),
        ("sessions close 5", "--yes"),
        ("sessions list --dsn mysql://x", "--dsn"),
        ("db retention --dsn postgresql://a@h:x/arb", "--dsn: is no PostgreSQL URI"),
        ("stability --dsn arb", "--dsn: is no PostgreSQL URI"),
        ("redis check --url redis://h:x", "--url: is no Redis URL"),
        ("config show --set risk.daily_los=1", "Did you mean risk.daily_loss_usdt?"),
        ("config show --set mode=live", "paper only"),
    ],
)
def test_bad_usage_is_one_sentence_and_code_2(line, words, capsys, calls):
    try:
        code = main.main(line.split())
    except SystemExit as left:
        code = left.code

    told = capsys.readouterr()
    assert code == 2
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not told.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as left:
        main.main([command, "--help"])

    told = capsys.readouterr().out
    assert left.value.code == 0
    assert f"arb-ray {command}" in told.split("examples:")[1]
    assert "exit codes:" in told


def test_every_example_is_understood():
    texts = (
        main.EXAMPLES,
        main.FRAMES_EXAMPLES,
        market.EXAMPLES,
        replay.EXAMPLES,
        sim.EXAMPLES,
        db.EXAMPLES,
        config.EXAMPLES,
        status.EXAMPLES,
        *operate.EXAMPLES.values(),
        sessions.EXAMPLES,
        doctor.EXAMPLES,
        redis.EXAMPLES,
        stability.EXAMPLES,
    )
    lines = re.findall(r"^  arb-ray ([^(|\n]*)", "\n".join(texts), flags=re.MULTILINE)

    assert len(lines) >= 10
    for line in lines:
        assert main.build_parser().parse_args(shlex.split(line))


def test_help_is_fast_because_it_loads_neither_ray_nor_the_settings():
    probe = (
        "import sys, arb_ray.cli.main as m, arb_ray.submit as s; m.build_parser(); s.build_parser();"
        "heavy = {'ray', 'pydantic', 'asyncpg', 'aiohttp', 'psycopg', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    root = Path(main.__file__).resolve().parents[2]

    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
