import time
from types import SimpleNamespace

import pytest

from gateway.errors import Unauthenticated
from gateway.server.identity import identify
from gateway.tenants.keys import hash_key, make_key
from gateway.tenants.tenant import KeyOwner, Tenant

PLAIN, HASHED = make_key()


def policy(keyless=None):
    tenants = {name: SimpleNamespace(tenant=Tenant(name=name)) for name in ("acme", "local")}
    return SimpleNamespace(tenants=tenants, keys={HASHED: KeyOwner("acme", "prod")}, keyless_tenant=keyless)


def test_a_key_stands_for_its_tenant():
    """Both ways of sending it lead to the same tenant and key name."""
    for headers in ({"authorization": f"Bearer {PLAIN}"}, {"x-api-key": PLAIN}):
        identity = identify(policy(), headers, loopback=True)
        assert (identity.tenant.name, identity.key) == ("acme", "prod")


def test_no_key_is_refused_where_nobody_is_keyless():
    """Without a keyless tenant, a request without a key has no tenant."""
    with pytest.raises(Unauthenticated) as failure:
        identify(policy(), {}, loopback=True)
    assert failure.value.code == "missing_api_key"


def test_keyless_holds_on_loopback_only():
    """A policy that needs no key opens nothing to other machines, even after a reload."""
    assert identify(policy("local"), {}, loopback=True).tenant.name == "local"
    with pytest.raises(Unauthenticated):
        identify(policy("local"), {}, loopback=False)


def test_a_placeholder_is_no_key():
    """SDKs insist on a key: what does not look like one of ours is a keyless request, where that is allowed."""
    headers = {"authorization": "Bearer sk-anything"}
    assert identify(policy("local"), headers, loopback=True).tenant.name == "local"
    with pytest.raises(Unauthenticated):
        identify(policy("local"), headers, loopback=False)


def test_a_known_key_counts_whatever_it_looks_like():
    """A key that policy knows is never taken for a placeholder."""
    known = policy("local")
    known.keys[hash_key("test")] = KeyOwner("acme", "old")
    assert identify(known, {"x-api-key": "test"}, loopback=True).tenant.name == "acme"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8080", "origin": "https://evil.example"},
        {"host": "127.0.0.1:8080", "origin": "null"},
        {"host": "evil.example:8080"},
        {"host": "10.0.0.1"},
    ],
)
def test_web_pages_are_no_keyless_tenant(headers):
    """A page that is open in a browser on this machine must not spend what needs no key, nor rebind its name to it."""
    with pytest.raises(Unauthenticated):
        identify(policy("local"), headers, loopback=True)
    assert identify(policy("local"), headers | {"x-api-key": PLAIN}, loopback=True).tenant.name == "acme"


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "app.localhost:1"])
def test_pages_of_this_machine_are_served(host):
    """A page served from this machine is as good as a program on it."""
    headers = {"host": host, "origin": f"http://{host}"}
    assert identify(policy("local"), headers, loopback=True).tenant.name == "local"


def test_a_wrong_key_of_ours_is_refused_even_where_none_is_needed():
    """A mistyped key must not be charged to the keyless tenant."""
    with pytest.raises(Unauthenticated):
        identify(policy("local"), {"x-api-key": "fd-mistyped"}, loopback=True)


def test_a_key_ends_when_it_says():
    """Until then it works, beside a newer one; afterwards it is told that it has expired."""
    known = policy()
    known.keys[HASHED] = KeyOwner("acme", "prod", time.time() + 60)
    assert identify(known, {"x-api-key": PLAIN}, loopback=True).until > time.time()
    known.keys[HASHED] = KeyOwner("acme", "prod", time.time() - 1)
    with pytest.raises(Unauthenticated, match="expired"):
        identify(known, {"x-api-key": PLAIN}, loopback=True)


def test_nothing_without_a_key_comes_through_a_proxy():
    """Who is behind a proxy on this machine is not on this machine."""
    for name in ("x-forwarded-for", "forwarded"):
        with pytest.raises(Unauthenticated):
            identify(policy("local"), {"host": "127.0.0.1", name: "for=127.0.0.1"}, loopback=True)


@pytest.mark.parametrize("headers", [{"host": "["}, {"host": "a]b"}, {"origin": "http://["}])
def test_a_host_that_is_none_is_not_this_machine(headers):
    """What cannot be read is refused as a stranger's, and is no fault of the gateway's."""
    with pytest.raises(Unauthenticated):
        identify(policy("local"), headers, loopback=True)
