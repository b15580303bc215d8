"""Settings: precedence, checks, and messages that say where a wrong value came from."""

from __future__ import annotations

import msgspec
import pytest

from gateway.errors import SettingsError
from gateway.server.workers import Orders, read_orders
from gateway.services import Machine
from gateway.settings import SETTINGS, Settings, load_settings


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home that is also the working folder, with a policy folder in it."""
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


NO_TEXT = {"state", "redis_url", "cache_keys", "tls_cert", "tls_key", "admin_port", "admin_key"}
"""Settings whose default is nothing that could be written as a value."""


def load(home, flags=None, environ=None):
    return load_settings(flags or {}, environ or {}, home=home)


def mistakes(home, flags=None, environ=None):
    with pytest.raises(SettingsError) as caught:
        load(home, flags, environ)
    return caught.value.message.splitlines()


def test_nothing_given(home):
    """Without flags and variables the defaults hold, and the state folder is in the user's home."""
    settings = load(home)
    assert settings == Settings(state=home / ".local/state/firstdraft")
    assert (settings.host, settings.port, settings.workers, settings.redis_url) == ("127.0.0.1", 8080, 1, None)


def test_flag_before_environment_before_default(home):
    """A flag wins over its variable, a variable over the default."""
    settings = load(home, {"port": "1"}, {"FIRSTDRAFT_PORT": "2", "FIRSTDRAFT_WORKERS": "3"})
    assert (settings.port, settings.workers, settings.drain_s) == (1, 3, 30.0)


def test_wrong_variable_behind_a_flag(home):
    """A variable that a flag overrides is not looked at."""
    assert load(home, {"port": "1"}, {"FIRSTDRAFT_PORT": "x"}).port == 1


def test_table_is_the_settings(home):
    """Every field of Settings has a row in the table, and the default that the row shows is the real one."""
    defaults = load(home)
    assert [row.name for row in SETTINGS] == list(Settings.__slots__)
    for row in SETTINGS:
        if row.name not in NO_TEXT:
            assert row.read(row.default) == getattr(defaults, row.name), row.name


def test_state_follows_xdg(home):
    """XDG_STATE_HOME moves the state folder; a relative one is ignored, as its specification says."""
    assert load(home, {}, {"XDG_STATE_HOME": "/var/x"}).state.as_posix() == "/var/x/firstdraft"
    assert load(home, {}, {"XDG_STATE_HOME": "x"}).state == home / ".local/state/firstdraft"


def test_no_home(home):
    """A user without a home folder is asked for the state folder."""
    with pytest.raises(SettingsError, match=r"--state \(or FIRSTDRAFT_STATE\)"):
        load_settings({}, {}, home=None)
    assert load_settings({"state": str(home)}, {}, home=None).state == home


def test_all_mistakes_at_once(home):
    """Each mistake is one line that names the flag, the variable and what is expected."""
    lines = mistakes(home, {"port": "99999", "host": "http://x"}, {"FIRSTDRAFT_WORKERS": "many"})
    assert lines == [
        "--host 'http://x' (or FIRSTDRAFT_HOST): has to be an IP address or a host name, without a scheme and a port",
        "--port '99999' (or FIRSTDRAFT_PORT): has to be a whole number from 0 to 65,535",
        "FIRSTDRAFT_WORKERS 'many' (or --workers): has to be a whole number from 1 to 64",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", ""),
        ("host", "a b"),
        ("host", "127.0.0.1:80"),
        ("host", "-x"),
        ("port", "-1"),
        ("port", "80.0"),
        ("port", "٨٠"),
        ("port", "1" * 400),
        ("workers", "0"),
        ("workers", "65"),
        ("edge_threads", "0"),
        ("edge_threads", "automatic"),
        ("edge_context", "100"),
        ("body_limit_bytes", "10"),
        ("lease_s", "0.5"),
        ("store_timeout_s", "0"),
        ("store_timeout_s", "61"),
        ("drain_s", "-1"),
        ("drain_s", "nan"),
        ("drain_s", "1e9"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("redis_url", "localhost:6379"),
        ("redis_url", "http://localhost"),
        ("redis_url", "redis://"),
        ("redis_url", "redis://h:port"),
        ("redis_url", "redis://[::1"),
        ("redis_url", "unix://"),
        ("redis_url", "redis://a:1,b:2"),
        ("redis_url", "redis+sentinel://a:1,b:2"),
        ("redis_url", "redis+sentinel://a:1,:2/service"),
        ("redis_url", "redis+cluster://a:1,b:2/3"),
        ("redis_url", "redis+ring://a:1"),
        ("redis_url", "unix+cluster:///x"),
        ("policies", ""),
        ("state", "a\0b"),
    ],
)
def test_values_out_of_range(home, name, value):
    """A value that a setting cannot have is refused with the name of its flag."""
    lines = mistakes(home, {name: value})
    assert len(lines) == 1
    assert lines[0].startswith("--" + name.replace("_", "-"))


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("host", "::1", "::1"),
        ("host", "::", "::"),
        ("host", "fe80::1%eth0", "fe80::1%eth0"),
        ("host", "gateway.internal", "gateway.internal"),
        ("port", "0", 0),
        ("body_limit_bytes", "1_048_576", 1_048_576),
        ("drain_s", "0.5", 0.5),
        ("log_level", "WARNING", "warning"),
        ("redis_url", "redis://:secret@h:6379/0", "redis://:secret@h:6379/0"),
        ("redis_url", "unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        (
            "redis_url",
            "redis+sentinel://:secret@a:1,[::1]:2/service/3",
            "redis+sentinel://:secret@a:1,[::1]:2/service/3",
        ),
        ("redis_url", "rediss+cluster://a,b:2", "rediss+cluster://a,b:2"),
    ],
)
def test_values_in_range(home, name, value, meant):
    """A value that a setting can have is taken."""
    assert getattr(load(home, {name: value}), name) == meant


@pytest.mark.parametrize(("text", "on"), [("on", True), ("off", False), ("0", False), ("TRUE", True), ("no", False)])
def test_switch_from_the_environment(home, text, on):
    """The switch takes the usual words from its variable."""
    assert load(home, {}, {"FIRSTDRAFT_EDGE": text}).edge is on


def test_switch_from_its_flag(home):
    """`--no-edge` wins over the variable."""
    assert load(home, {"edge": False}, {"FIRSTDRAFT_EDGE": "on"}).edge is False


def test_empty_variable(home):
    """A variable that is set to nothing counts as not set, as in a compose file's `${PORT:-}`."""
    assert load(home, {}, {"FIRSTDRAFT_PORT": ""}).port == 8080


def test_misspelt_variable(home):
    """A variable that is nearly a setting is refused with the right name."""
    lines = mistakes(home, {}, {"FIRSTDRAFT_POLICES": "x"})
    assert lines == [
        "FIRSTDRAFT_POLICES: no such setting; did you mean FIRSTDRAFT_POLICIES (or --policies)?",
    ]


def test_variables_of_policies_and_of_kubernetes(home):
    """Variables that policies read, or that Kubernetes sets for a service of our name, are left alone."""
    environ = {
        "FIRSTDRAFT_BACKEND_URL": "http://x",
        "FIRSTDRAFT_EU_KEY": "k",
        "FIRSTDRAFT_PORT": "tcp://10.0.0.7:8080",
        "FIRSTDRAFT_PORT_8080_TCP_ADDR": "10.0.0.7",
        "FIRSTDRAFT_SERVICE_HOST": "10.0.0.7",
        "FIRSTDRAFT_SERVICE_PORT": "8080",
    }
    assert load(home, {}, environ).port == 8080


def test_password_in_the_url(home):
    """The store's URL is shown neither by an error nor by a repr."""
    assert "hunter2" not in "".join(mistakes(home, {"redis_url": "http://:hunter2@h"}))
    assert "hunter2" not in repr(load(home, {"redis_url": "redis://:hunter2@h"}))


def test_folders_that_cannot_be_used(home):
    """A missing policy folder and a state folder that is a file are refused, with what to do."""
    (home / "file").touch()
    lines = mistakes(home, {"policies": "nowhere", "state": "file"})
    assert lines[0] == (
        "--policies 'nowhere' (or FIRSTDRAFT_POLICIES): does not exist; `firstdraft init nowhere` writes a first one"
    )
    assert lines[1] == "--state 'file' (or FIRSTDRAFT_STATE): is not a folder"


def test_to_a_worker_and_back(home):
    """A worker gets the same settings that its parent has."""
    settings = load(home, {"redis_url": "redis://h", "drain_s": "1.5", "edge": False})
    orders = Orders(settings=settings, machine=Machine(store_url="", edge_socket=None), listener=3, parent=1)
    line = msgspec.json.encode(orders, enc_hook=str)
    assert read_orders(lambda: line).settings == settings


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("127.0.0.1.example.com", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host, loopback):
    """Only addresses that no other machine reaches count as loopback."""
    assert Settings(host=host).loopback is loopback
