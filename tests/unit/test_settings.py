"""Settings: layers, refusals with key and remedy, secrets."""

import ast
import pickle
import re
from pathlib import Path

import pytest
import yaml

from arb_ray.app.config_docs import UNITS_OF_KEYS, is_number, unit_of
from arb_ray.app.config_files import flatten, read_yaml
from arb_ray.app.settings import Settings, known_keys, load_settings, secret_keys
from arb_ray.app.settings_errors import BadSettings
from arb_ray.domain.errors import BadConfig
from arb_ray.engine.risk_limits import RiskLimits
from arb_ray.engine.strategy_params import StrategyParams

SECRETS = {"ARB_POSTGRES__PASSWORD": "pg-hunter2", "ARB_REDIS__PASSWORD": "rd-hunter2"}


def load(env="dev", overrides=None, **environ):
    return load_settings(env, overrides, environ)


def refusal(env="dev", overrides=None, **environ):
    with pytest.raises(BadConfig) as caught:
        load(env, overrides, **environ)
    return caught.value


@pytest.fixture
def folder(tmp_path):
    """A config folder of one's own: the checkout's, to be changed."""
    from arb_ray.app.config_files import config_dir

    for path in config_dir({}).glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


@pytest.mark.parametrize("env", ["dev", "staging", "prod"])
def test_every_environment_loads_with_its_secrets(env):
    settings = load(env, **SECRETS)
    assert settings.env == env
    assert settings.mode == "paper"


def test_later_layers_win(tmp_path):
    (tmp_path / "arb_redis__password").write_text("from-file\n")
    (tmp_path / "arb_postgres__password").write_text("from-file\n")
    environ = {
        "ARB_SECRETS_DIR": str(tmp_path),
        "ARB_POSTGRES__PASSWORD": "from-environment",
        "ARB_SIM__MARKET_SEED": "7",
        "ARB_SESSION__DURATION_S": "5",
    }
    settings = load_settings("dev", {"session.duration_s": 60}, environ)
    assert settings.source == "sim"  # dev.yaml over base.yaml
    assert settings.sim.market_seed == 7  # environment over YAML
    assert settings.session.duration_s == 60  # command line over environment
    assert settings.redis.password.get_secret_value() == "from-file"
    assert settings.postgres.password.get_secret_value() == "from-environment"


def test_an_override_of_none_was_not_given():
    assert load(overrides={"sim.preset": None}).sim.preset == "lively"


def test_symbols_are_taken_as_text_or_list_in_any_case(folder):
    assert load(ARB_SYMBOLS="btc, eth").symbols == "BTC,ETH"
    (folder / "dev.yaml").write_text("symbols: [BTC, ETH]\n")
    assert load_settings("dev", None, {}, folder).symbols == "BTC,ETH"
    assert "BTC,ETH" in refusal(ARB_SYMBOLS="BTC;ETH").mend
    assert "top:20" in refusal(ARB_SYMBOLS="top:0").mend


def test_lists_and_choices_of_numbers_arrive_as_text():
    settings = load(
        ARB_VENUES__UPBIT__DEPTH_LEVELS="30",
        ARB_STRATEGY__SIZE_FRACTIONS="1,0.5",
        ARB_RECORDING__FILES="a.zst,b.zst",
    )
    assert settings.venues.upbit.depth_levels == 30
    assert settings.strategy.size_fractions == (1.0, 0.5)
    assert settings.recording.files == ("a.zst", "b.zst")


def test_live_mode_is_refused_with_a_reason():
    error = refusal(ARB_MODE="live")
    assert error.key == "mode"
    assert "paper only" in str(error)


@pytest.mark.parametrize(
    ("variable", "value", "key", "says"),
    [
        ("ARB_RISK__DAILY_LOSS_USDT", "-5", "risk.daily_loss_usdt", "greater than 0"),
        ("ARB_RISK__DAILY_LOSS_USDT", "nan", "risk.daily_loss_usdt", "finite"),
        ("ARB_GATEWAY__TOKEN", "fifteen-letters", "gateway.token", "Make one"),
        ("ARB_GATEWAY__TOKEN", "blanks and more than 16", "gateway.token", "Make one"),
        ("ARB_STRATEGY__MAX_HOLD_S", "inf", "strategy.max_hold_s", "finite"),
        ("ARB_RISK__OPEN_TRADES_COUNT", "1.5", "risk.open_trades_count", "valid integer"),
        ("ARB_REDIS__PORT", "70000", "redis.port", "65535"),
        ("ARB_SIM__PRESET", "wild", "sim.preset", "'calibrated'"),
        ("ARB_VENUES__UPBIT__DEPTH_LEVELS", "7", "venues.upbit.depth_levels", "1, 5, 15, 30"),
        ("ARB_VENUES__UPBIT__WS_URL", "upbit.com", "venues.upbit.ws_url", "wss?"),
        ("ARB_STRATEGY__FX_MIN_KRW", "9999", "strategy.fx_min_krw", "below 2500"),
        ("ARB_STRATEGY__TRADE_NOTIONAL_USDT", "5000", "strategy.trade_notional_usdt", "1000"),
        ("ARB_STRATEGY__STOP_LOSS_BPS", "9000", "strategy.stop_loss_bps", "smaller"),
        ("ARB_VENUES__BINANCE_SPOT__ENABLED", "no", "venues.binance_spot.enabled", "leg_b"),
        ("ARB_SOURCE", "recorded", "recording.files", "--recording"),
        ("ARB_RISK__SYMBOL_NOTIONAL_USDT", "499", "risk.symbol_notional_usdt", "at least 500"),
        ("ARB_RISK__TOTAL_NOTIONAL_USDT", "499", "risk.total_notional_usdt", "at least 500"),
        ("ARB_RISK__MARK_AGE_MAX_MS", "999", "risk.mark_age_max_ms", "1000"),
        ("ARB_TOPOLOGY__TICK_PLANE", "udp", "topology.tick_plane", "'auto'"),
        ("ARB_VENUES__UPBIT__PING_INTERVAL_S", "45", "venues.upbit.silence_timeout_s", "above 45"),
        ("ARB_SOURCE", "replay", "source", "arb-ray replay FILE"),
        ("ARB_RISK", "5", "risk", "mapping"),
    ],
)
def test_an_impossible_value_names_its_key_and_what_to_write(variable, value, key, says):
    error = refusal(**{variable: value})
    assert error.key == key
    assert says in error.mend


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ARB_RISK__DAILY_LOS_USDT", "ARB_RISK__DAILY_LOSS_USDT"),
        ("ARB_RISK_DAILY_LOSS_USDT", "ARB_RISK__DAILY_LOSS_USDT"),
        ("ARB_SYMBOL", "ARB_SYMBOLS"),
        ("ARB_FOO__BAR", "Unset it"),
        ("ARB_FOO__bar", "Unset it"),
    ],
)
def test_an_unknown_variable_is_named_as_it_was_written_with_what_was_meant(variable, meant):
    error = refusal(**{variable: "1"})
    assert error.key == variable
    assert "no setting" in error.problem
    assert meant in error.mend


def test_all_problems_are_told_at_once_and_survive_pickling():
    error = refusal(ARB_REDIS__PORT="0", ARB_SIM__PRESET="x", ARB_NO_SUCH_THING="1")
    assert isinstance(error, BadSettings)
    assert {problem.key for problem in error.problems} == {
        "redis.port",
        "sim.preset",
        "ARB_NO_SUCH_THING",
    }
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(error).startswith("3 settings are wrong")


def test_missing_secrets_of_prod_are_one_sentence_each():
    error = refusal("prod")
    assert [problem.key for problem in error.problems] == ["postgres.password", "redis.password"]
    assert "arb_postgres__password" in str(error)
    assert "ARB_REDIS__PASSWORD" in str(error)


def test_prod_never_embeds_nor_starts_a_cluster_nor_goes_without_a_token():
    error = refusal(
        "prod",
        {"ray.address": "", "ray.auth_mode": "disabled"},
        ARB_POSTGRES__EMBEDDED="true",
        ARB_REDIS__PASSWORD="long-enough",
    )
    assert error.key == "ray.address"
    error = refusal("prod", {"ray.auth_mode": "disabled"}, ARB_POSTGRES__EMBEDDED="1", **SECRETS)
    assert {problem.key for problem in error.problems} == {"postgres.embedded", "ray.auth_mode"}


@pytest.mark.parametrize("env", ["staging", "prod"])
def test_a_cluster_without_rays_token_is_refused(env):
    error = refusal(env, {"ray.auth_mode": "disabled"}, **SECRETS)
    assert error.key == "ray.auth_mode"
    assert "lets anyone who reaches the cluster run code on it" in str(error)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "head.example"])
def test_a_gateway_beyond_the_loopback_needs_a_token(host):
    error = refusal("dev", {"gateway.host": host})
    assert error.key == "gateway.host"
    assert "arb_gateway__token" in str(error)
    token = {"ARB_GATEWAY__TOKEN": "a-token-of-the-operators"}
    assert load("dev", {"gateway.host": host}, **token).gateway.host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_a_gateway_on_the_loopback_needs_none(host):
    assert load("dev", {"gateway.host": host}).gateway.host == host
    assert load("dev", {"gateway.host": "::", "gateway.enabled": False}).gateway.host == "::"


def test_secrets_are_refused_in_yaml_and_on_the_command_line(folder):
    with (folder / "dev.yaml").open("a") as file:
        file.write("\nredis:\n  password: oops-secret\n")
    text = (folder / "dev.yaml").read_text().replace("redis:\n  embedded: true\n\n", "")
    (folder / "dev.yaml").write_text(text)
    with pytest.raises(BadConfig) as caught:
        load_settings("dev", None, {}, folder)
    assert caught.value.key == "redis.password"
    assert "oops-secret" not in str(caught.value)
    assert refusal(overrides={"postgres.password": "oops"}).key == "postgres.password"


def test_no_message_shows_a_secret():
    error = refusal(ARB_POSTGRES__PASSWORD="x" * 5_000)
    assert "xxx" not in str(error)


def test_secrets_do_not_travel():
    settings = load("prod", **SECRETS)
    assert {s.get_secret_value() for s in settings.secret_values()} == set(SECRETS.values())
    for shown in (repr(settings), str(settings.public_values()), settings.model_dump_json()):
        assert "hunter2" not in shown
    bare = settings.without_secrets()
    assert bare.secret_values() == ()
    assert b"hunter2" not in pickle.dumps(bare)
    assert settings.postgres.password is not None
    assert bare.config_hash() == settings.config_hash()


def test_the_hash_follows_values_and_not_secrets():
    one = load("prod", **SECRETS)
    other = load("prod", **dict.fromkeys(SECRETS, "another-secret"))
    changed = load("prod", ARB_STRATEGY__MIN_NET_BPS="4", **SECRETS)
    assert one.config_hash() == other.config_hash()
    assert one.config_hash() != changed.config_hash()
    assert one.config_hash("risk") == changed.config_hash("risk")
    assert re.fullmatch(r"[0-9a-f]{12}", one.config_hash())


def test_settings_are_frozen():
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.risk.daily_loss_usdt = 1
    with pytest.raises(ValueError, match="frozen"):
        settings.mode = "live"


def test_a_file_cannot_name_another_environment(folder):
    (folder / "dev.yaml").write_text("env: prod\n")
    with pytest.raises(BadConfig, match=r"dev.yaml says 'prod'"):
        load_settings("dev", None, {}, folder)
    assert "ARB_ENV says" in str(refusal(ARB_ENV="prod"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("risk: [", "not valid YAML"),
        ("risk: {a: 1}\nrisk: {b: 2}", "written twice"),
        ("- 1", "not a mapping"),
        ("1: 2", "not a mapping"),
        ("a: \x01", "not valid YAML"),
    ],
)
def test_a_broken_file_is_one_sentence(folder, text, says):
    (folder / "dev.yaml").write_text(text)
    with pytest.raises(BadConfig, match=says) as caught:
        load_settings("dev", None, {}, folder)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_told_with_its_meaning(folder):
    text = (folder / "base.yaml").read_text().replace("  daily_loss_usdt: 200\n", "")
    (folder / "base.yaml").write_text(text)
    with pytest.raises(BadConfig, match=r"risk\.daily_loss_usdt: is missing.*Realized loss"):
        load_settings("dev", None, {}, folder)


def test_a_named_folder_must_exist(tmp_path):
    assert "ARB_CONFIG_DIR" in str(refusal(ARB_CONFIG_DIR=str(tmp_path / "no")))
    assert "ARB_SECRETS_DIR" in str(refusal(ARB_SECRETS_DIR=str(tmp_path / "no")))
    (tmp_path / "arb_postgres__password").write_text("\n")
    assert "is empty" in str(refusal(ARB_SECRETS_DIR=str(tmp_path)))


def test_an_unknown_secret_file_is_refused_and_others_are_left_alone(tmp_path):
    (tmp_path / "tls.key").write_text("not ours")
    load(ARB_SECRETS_DIR=str(tmp_path))
    (tmp_path / "arb_postgres__pasword").write_text("x")
    assert "postgres.password" in refusal(ARB_SECRETS_DIR=str(tmp_path)).mend


def test_a_number_says_its_unit_in_its_last_word():
    without = [key for key, field in known_keys() if is_number(field) and not unit_of(key, field)]
    assert without == []
    assert set(UNITS_OF_KEYS) <= {key for key, _ in known_keys()}


def test_every_key_has_a_meaning_and_a_value_in_base_yaml():
    from arb_ray.app.config_files import config_dir

    base = flatten(read_yaml(config_dir({}) / "base.yaml"))
    keys = {key for key, _ in known_keys()}
    assert keys - secret_keys() - {"env"} == base.keys()
    assert [key for key, field in known_keys() if not field.description] == []


def test_every_key_is_read_somewhere():
    """A setting that nothing reads is a lie to whoever sets it."""
    chains = set(attribute_chains())
    unread = {
        key
        for key, _ in known_keys()
        if key not in READ_BY_ITS_CHECK and not any(reads(chain, key) for chain in chains)
    }
    assert unread == set(), "wire them, or delete them from the model and from base.yaml"


PACKAGE = Path(__file__).resolve().parents[2] / "arb_ray"
MODELS = {"settings_sections.py", "settings_trading.py", "settings_venues.py"}
READ_BY_ITS_CHECK = {
    "mode": "only paper is possible",
}


def reads(chain, key):
    """Tell whether `settings.redis.port`, as its words, reads `redis.port`."""
    words = tuple(key.split("."))
    match words:
        case ("strategy" | "risk", name):
            # These sections become StrategyParams and RiskLimits, whole and by name.
            return chain[-1] == name
        case ("venues", venue, name):
            return chain[-3:] in (words, ("venues", "*", name)) or chain[-2:] == (venue, name)
        case (name,):
            return chain[-2:] in (("settings", name), ("_settings", name))
    return chain[-len(words) :] == words


def attribute_chains():
    """Yield every `a.b.c` of the package as words, with local names put back: `section.port`."""
    for path in PACKAGE.rglob("*.py"):
        if path.name in MODELS:
            continue
        for scope in ast.walk(ast.parse(path.read_text())):
            if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {
                    target.id: words_of(node.value, {})
                    for node in ast.walk(scope)
                    if isinstance(node, ast.Assign)
                    for target in node.targets
                    if isinstance(target, ast.Name)
                }
                for node in ast.walk(scope):
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                        yield words_of(node, names)


def words_of(node, names):
    match node:
        case ast.Attribute(value=value, attr=attr):
            return (*words_of(value, names), attr)
        case ast.Name(id=name):
            return names.get(name) or (name,)
        case ast.Call(func=ast.Name(id="getattr"), args=[value, _]):
            return (*words_of(value, names), "*")  # getattr(settings.venues, venue)
    return ()


def test_strategy_and_risk_speak_the_engines_names():
    settings = load()
    assert settings.strategy.to_params() == StrategyParams(**settings.strategy.model_dump())
    assert set(type(settings.strategy).model_fields) == set(StrategyParams.__struct_fields__)
    assert isinstance(settings.risk.to_limits(), RiskLimits)
    assert settings.risk.to_limits().daily_loss_usdt == 200


def test_exact_amounts_come_from_yaml_as_written(folder):
    tree = yaml.safe_load((folder / "base.yaml").read_text())
    tree["risk"]["daily_loss_usdt"] = 200.1
    (folder / "base.yaml").write_text(yaml.safe_dump(tree))
    settings = load_settings("dev", None, {}, folder)
    assert str(settings.risk.daily_loss_usdt) == "200.1"


def test_settings_survive_pickling():
    settings = load()
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert isinstance(settings, Settings)
