import pytest

from gateway.errors import SettingsError
from gateway.store.address import Login, Place, read_address


def test_one_server():
    """User, password and database are the connection's; messages show none of them but the database."""
    address = read_address("redis://user:p%40ss@store.example/3")
    assert address.kind == "server"
    assert address.places == (Place(host="store.example", port=6379),)
    assert address.login == Login(username="user", password="p@ss", database=3)
    assert address.shown == "redis://store.example/3"
    assert address.tls is None


def test_unix_socket():
    """A path is a place of its own."""
    assert read_address("unix:///run/store.sock?db=2").places == (Place(path="/run/store.sock"),)
    assert read_address("unix:///run/store.sock?db=2").login.database == 2


def test_sentinels():
    """The path names the service, then the database; Sentinels have their own port and login."""
    address = read_address("redis+sentinel://:secret@a,[::1]:5/budgets/2?sentinel_password=other")
    assert address.kind == "sentinel"
    assert address.places == (Place(host="a", port=26379), Place(host="::1", port=5))
    assert (address.service, address.login, address.sentinel_login) == (
        "budgets",
        Login(password="secret", database=2),
        Login(password="other"),
    )
    assert "secret" not in address.shown
    assert "other" not in address.shown


def test_cluster():
    """Some of its nodes are enough, and TLS is the scheme's."""
    address = read_address("rediss+cluster://u:p@a:1,b?ssl_cert_reqs=none")
    assert address.kind == "cluster"
    assert address.places == (Place(host="a", port=1), Place(host="b", port=6379))
    assert address.tls is not None
    assert read_address("rediss://a").tls.check_hostname


@pytest.mark.parametrize(
    "url", ["redis+sentinel://a:1", "redis+cluster://a:1,,b", "redis+ring://a", "rediss://a?ssl_ca_certs=/not/there"]
)
def test_url_that_is_none(url):
    """A URL that says too little is a setting that is wrong."""
    with pytest.raises(SettingsError, match="--redis-url"):
        read_address(url)
