"""What the doctor makes of what it finds; no server is asked here."""

import json

import pytest

from arb_ray.app import doctor, doctor_machine, doctor_ray, doctor_services
from arb_ray.app.doctor import Verdict
from arb_ray.app.settings import load_settings
from arb_ray.cli import main
from arb_ray.domain.errors import PlaneUnavailable

PROD = {
    "ARB_POSTGRES__PASSWORD": "pg-hunter2",
    "ARB_REDIS__PASSWORD": "rd-hunter2",
    "ARB_GATEWAY__TOKEN": "gw-hunter2-hunter2",
}
OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


def verdicts(checks):
    return [check.verdict for check in checks]


def settings(env="dev", environ=None, **said):
    return load_settings(
        env, {key.replace("__", "."): value for key, value in said.items()}, environ or {}
    )


def test_every_problem_of_the_settings_is_one_check_with_its_remedy():
    found, checks = doctor.read_config("prod", {}, {})
    assert found is None
    assert verdicts(checks) == [FAIL, FAIL, WARN]
    assert "postgres.password" in checks[0].words
    assert "arb_postgres__password" in checks[0].remedy
    found, (check,) = doctor.read_config("prod", {}, PROD)
    assert found is not None
    assert check.verdict is OK


def test_secrets_are_told_by_name_and_never_by_value(tmp_path):
    for key, mode in (("gateway__token", 0o600), ("postgres__password", 0o644)):
        file = tmp_path / f"arb_{key}"
        file.write_text(f"hunter2-hunter2-{key}")
        file.chmod(mode)
    environ = {"ARB_SECRETS_DIR": str(tmp_path), "ARB_REDIS__PASSWORD": "hunter2"}
    checks = doctor.secrets(settings("prod", environ), environ)
    assert verdicts(checks) == [OK, WARN, OK]
    gateway, postgres, redis = checks
    assert "0600" in gateway.words
    assert "0644" in postgres.words
    assert postgres.remedy == f"chmod 600 {tmp_path / 'arb_postgres__password'}"
    assert "ARB_REDIS__PASSWORD" in redis.words
    assert "hunter2" not in repr(checks)


def test_a_missing_token_of_the_gateway_is_a_warning_outside_dev(tmp_path):
    environ = {key: value for key, value in PROD.items() if "GATEWAY" not in key}
    checks = doctor.secrets(settings("prod", environ), environ)
    assert verdicts(checks) == [WARN, OK, OK]
    assert "halt" in checks[0].words
    assert verdicts(doctor.secrets(settings(), {})) == [OK, OK, OK]


def test_a_folder_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    good = settings(session__data_dir=str(tmp_path / "data"))
    bad = settings(session__data_dir=str(tmp_path / "file" / "data"))
    assert doctor_machine.data_folder(good).verdict is OK
    assert doctor_machine.data_folder(bad).verdict is FAIL
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "nothing stays of the trial"


class Usage:
    def __init__(self, free):
        self.free = free


@pytest.mark.parametrize(("free", "verdict"), [(10**7, FAIL), (6 * 10**8, WARN), (10**12, OK)])
def test_a_full_disk(monkeypatch, tmp_path, free, verdict):
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: Usage(free))
    assert doctor_machine.disk(settings(session__data_dir=str(tmp_path))).verdict is verdict


def test_shared_memory_is_held_against_the_object_store(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _: Usage(100))
    assert doctor_machine.shared_memory(100).verdict is OK
    assert doctor_machine.shared_memory(101).verdict is WARN
    monkeypatch.undo()
    assert doctor_machine.shared_memory(1, tmp_path / "none").verdict is WARN


@pytest.mark.parametrize(
    ("plane", "is_full", "verdict"),
    [
        ("auto", False, [OK]),
        ("shm", False, [OK]),
        ("ray", True, []),
        ("auto", True, [WARN]),
        ("shm", True, [FAIL]),
    ],
)
def test_the_tick_plane_is_tried_out(monkeypatch, plane, is_full, verdict):
    def full(*_):
        raise PlaneUnavailable("/dev/shm has no room for 2.0 MB")

    if is_full:
        monkeypatch.setattr("arb_ray.app.planes.try_out", full)
    found = doctor_machine.tick_plane(settings(topology__tick_plane=plane))
    assert [check.verdict for check in found] == verdict


@pytest.mark.parametrize(("soft", "verdict"), [(256, FAIL), (1_024, WARN), (65_536, OK)])
def test_open_files(monkeypatch, soft, verdict):
    monkeypatch.setattr(doctor_machine.resource, "getrlimit", lambda _: (soft, 65_536))
    assert doctor_machine.open_files().verdict is verdict


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_a_variable_that_redirects_ray_is_told(name):
    environ = {name: "http://other:8265"}
    (check,) = doctor_ray.environment(environ, "http://head:8265")
    assert (check.verdict, check.remedy) == (WARN, f"unset {name}")
    assert doctor_ray.environment(environ, None)[0].verdict is WARN
    assert doctor_ray.environment(environ, "http://other:8265")[0].verdict is OK
    assert doctor_ray.environment({}, None)[0].verdict is OK


def test_rays_token_must_be_there_and_closed_to_others(tmp_path):
    prod, file = settings("prod", PROD), tmp_path / "token"

    def checks(**environ):
        return verdicts(doctor_ray.authentication(prod, environ))

    on = {"RAY_AUTH_MODE": "token"}
    assert checks() == [FAIL, FAIL]
    assert checks(RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN_PATH=str(file)) == [FAIL, FAIL]
    assert checks(**on) == [FAIL]
    assert checks(**on, RAY_AUTH_TOKEN_PATH=str(file)) == [FAIL], "no such file"
    file.write_text("\n")
    file.chmod(0o600)
    assert checks(**on, RAY_AUTH_TOKEN_PATH=str(file)) == [FAIL], "empty"
    file.write_text("secret-of-ray")
    assert checks(**on, RAY_AUTH_TOKEN_PATH=str(file)) == [OK]
    file.chmod(0o640)
    assert checks(**on, RAY_AUTH_TOKEN_PATH=str(file)) == [FAIL]
    assert verdicts(doctor_ray.authentication(settings(), {})) == [OK]


@pytest.mark.parametrize(
    ("ahead_s", "verdict"),
    [(0.0, OK), (-0.49, OK), (0.5, WARN), (-4.9, WARN), (5.0, FAIL), (-60, FAIL)],
)
def test_clocks_must_agree(ahead_s, verdict):
    check = doctor_services.skew(ahead_s)
    assert check.verdict is verdict
    assert ("ahead of" if ahead_s > 0 else "behind") in check.words


def test_an_embedded_server_needs_its_wheel(monkeypatch):
    assert doctor_services._wheel("redis", "json").verdict is OK
    check = doctor_services._wheel("redis", "no_such_wheel")
    assert (check.verdict, "embedded" in check.remedy) == (FAIL, True)


@pytest.mark.parametrize(("verdict", "code"), [(OK, 0), (WARN, 0), (FAIL, 1)])
def test_the_command_is_1_when_a_check_failed(monkeypatch, capsys, verdict, code):
    asked = []

    def examine(env, overrides, *, address):
        asked.append((env, overrides, address))
        return [doctor.Check("disk", verdict, "it is full", "Free some")]

    monkeypatch.setattr(doctor, "examine", examine)
    line = "doctor --env prod --address http://h:1 --data-dir d --source paper"
    assert main.main(line.split()) == code
    overrides = {"session.data_dir": "d", "source": "paper"}
    assert asked == [("prod", overrides, "http://h:1")]
    assert "it is full. Free some" in capsys.readouterr().out
    assert main.main([*line.split(), "--json"]) == code
    assert json.loads(capsys.readouterr().out)["checks"][0]["verdict"] == verdict
