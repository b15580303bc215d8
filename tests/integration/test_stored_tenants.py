"""Tenants and keys of the store: made through the admin API, served by all replicas, kept whatever happens."""

import asyncio
import subprocess
import sys

import aiohttp
import pytest

from gateway.tenants import registry
from gateway.tenants.registry import TenantRegistry
from gateway.tenants.stored import StoredTenant
from tests.gateway_fixture import policy_text

BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}
INVARIANT = """
invariants:
  - {name: no-secret-leaves, when: '"secret" in tenant.labels', require: {compliance: [no-egress]}}
"""


@pytest.fixture
async def gateway(start_gateway, upstream, monkeypatch):
    monkeypatch.setattr(registry, "POLL_S", 0.1)
    return await start_gateway(policy_text(upstream.base_url), edge=False, admin_port=0)


async def admin(gateway, method, path, body=None):
    async with aiohttp.ClientSession() as session:
        response = await session.request(method, f"{gateway.admin_url}/admin/v1/tenants{path}", json=body)
        return response.status, await response.json()


async def make(gateway, name="globex", **spec):
    """A tenant with a key; gives the key."""
    status, answer = await admin(gateway, "POST", "", {"name": name, "spec": spec})
    assert status == 201, answer
    status, answer = await admin(gateway, "POST", f"/{name}/keys", {"name": "first"})
    assert status == 201, answer
    return answer["key"]


async def ask(gateway, key, **headers):
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}", **headers}) as session:
        response = await session.post(f"{gateway.base_url}/chat/completions", json=BODY)
        return response.status


async def until_status(gateway, key, wanted):
    async with asyncio.timeout(10):
        while await ask(gateway, key) != wanted:
            await asyncio.sleep(0.05)


async def test_a_tenant_is_made_and_served_at_once(gateway):
    """Its region, labels and budgets are those of a file's tenant; its key is shown once."""
    key = await make(
        gateway, region="eu", labels=["gold"], budgets=[{"tokens": 5_000, "per": "day"}, {"usd": 0.5, "per": "month"}]
    )
    assert await ask(gateway, key) == 200
    record = gateway.services.recent.newest(1)[0]
    assert (record.tenant, record.key, record.hold) == ("globex", "first", "settled")
    assert "gold" in record.labels
    _, shown = await admin(gateway, "GET", "/globex")
    assert [budget["limit"] for budget in shown["budgets"]] == [5_000, 0.5]
    assert shown["budgets"][0]["left"] < 5_000
    assert (shown["source"], shown["refused"]) == ("store", "")
    assert key not in str(shown)
    assert len(shown["keys"][0]["sha256"]) == 12
    _, listed = await admin(gateway, "GET", "")
    assert [(one["name"], one["source"]) for one in listed["tenants"]] == [
        ("acme", "files"),
        ("globex", "store"),
        ("other", "files"),
    ]


async def test_a_budget_of_the_store_is_kept(gateway):
    """A spent budget refuses, and a larger one lets the tenant go on."""
    key = await make(gateway, budgets=[{"tokens": 40, "per": "day"}])
    assert 429 in [await ask(gateway, key) for _ in range(4)]
    status, _ = await admin(gateway, "PATCH", "/globex", {"spec": {"budgets": [{"tokens": 1_000_000, "per": "day"}]}})
    assert status == 200
    assert await ask(gateway, key) == 200


async def test_a_key_is_rotated_with_overlap_and_revoked(gateway):
    """The new one works beside the old one, which ends when it was told to; a revoked one stands for nobody."""
    old = await make(gateway)
    status, made = await admin(gateway, "POST", "/globex/keys", {"name": "second", "replaces": "first", "overlap_s": 1})
    assert status == 201
    assert (await ask(gateway, old), await ask(gateway, made["key"])) == (200, 200)
    await asyncio.sleep(1.1)
    assert (await ask(gateway, old), await ask(gateway, made["key"])) == (401, 200)
    assert (await admin(gateway, "DELETE", "/globex/keys/second"))[0] == 200
    assert await ask(gateway, made["key"]) == 401
    assert (await admin(gateway, "DELETE", "/globex/keys/second"))[0] == 404


async def test_other_replicas_know_within_a_second_or_two(gateway, start_gateway, upstream):
    """Another gateway on the same store serves what was made here, and refuses what was disabled or deleted here."""
    other = await start_gateway(
        policy_text(upstream.base_url), edge=False, admin_port=0, state=gateway.policies.parent / "other"
    )
    key = await make(gateway)
    await until_status(other, key, 200)
    await admin(other, "PATCH", "/globex", {"disabled": True})
    await until_status(gateway, key, 401)
    await admin(other, "PATCH", "/globex", {"disabled": False})
    await until_status(gateway, key, 200)
    await admin(gateway, "DELETE", "/globex")
    await until_status(other, key, 401)
    third = await start_gateway(
        policy_text(upstream.base_url), edge=False, state=gateway.policies.parent / "third", admin_port=0
    )
    assert await ask(third, key) == 401


async def test_tenants_survive_a_store_that_loses_them(gateway, store):
    """An emptied store is given back what this gateway knows, deleted ones included; requests notice nothing."""
    key = await make(gateway)
    gone = await make(gateway, "gone")
    await admin(gateway, "DELETE", "/gone")
    await store.command("DEL", "fd1:{tenants}:records", "fd1:{tenants}:revisions")
    assert await ask(gateway, key) == 200
    await gateway.services.registry.restore()
    fresh = registry.TenantRegistry(gateway.services.store)
    await fresh.look()
    assert set(fresh.tenants) == {"globex"}
    assert await ask(gateway, gone) == 401


async def test_what_is_given_back_piece_by_piece_is_read_by_who_has_just_started(store):
    """A worker that read the newest records while older ones were still to come reads those too, in any order."""
    before = TenantRegistry(store)
    for name in ("one", "two", "three"):
        await before.change(name, lambda _: StoredTenant())
    known = {name: (one.revision, one.data) for name, one in before._known.items()}
    await store.command("FLUSHALL")
    fresh = TenantRegistry(store)
    for names in (["three"], ["one", "two"]):
        words = [word for name in names for word in (name, *known[name])]
        await store.script(before._restore, registry._KEYS, words)
        assert await fresh.look()
        assert set(names) <= set(fresh.tenants)
    assert set(fresh.tenants) == {"one", "two", "three"}
    assert not await fresh.look()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "acme"}, 409, "already"),
        ({"name": "../x"}, 400, "name"),
        ({"name": "a", "spec": {"budget": []}}, 400, "did you mean `budgets`"),
        ({"name": "a", "spec": {"budgets": [{"tokens": -1, "per": "day"}]}}, 400, "whole number"),
        ({"name": "a", "spec": {"keys": []}}, 400, "not for tenants of the store"),
        ({"name": "a", "spec": {"keyless": True}}, 400, "not for tenants of the store"),
        ({"name": "a", "spec": {"budgets": [{"tokens": 1, "per": "day", "key": "nope"}]}}, 400, "no key `nope`"),
        ({"spec": {}}, 400, "name"),
        ({"name": "a", "budgets": []}, 400, "unknown field `budgets`"),
    ],
)
async def test_what_is_no_tenant_is_refused(gateway, body, status, said):
    """The words are those that a policy file's mistakes have; nothing is written."""
    found, answer = await admin(gateway, "POST", "", body)
    assert found == status
    assert said in answer["error"]["message"]
    assert gateway.services.registry.tenants == {}


async def test_a_change_that_says_nothing_known_is_refused(gateway):
    """Who misspells `disabled` is told, and does not believe that it is done."""
    key = await make(gateway)
    status, answer = await admin(gateway, "PATCH", "/globex", {"disable": True})
    assert (status, answer["error"]["param"]) == (400, "disable")
    assert (await admin(gateway, "POST", "/globex/keys", {"name": "b", "overlap": 5}))[0] == 400
    assert await ask(gateway, key) == 200


async def test_tenants_of_the_files_are_changed_there(gateway):
    """The admin API does not touch what is reviewed in files."""
    for method, path, body in (
        ("PATCH", "/acme", {"disabled": True}),
        ("DELETE", "/acme", None),
        ("POST", "/acme/keys", {"name": "x"}),
        ("DELETE", "/acme/keys/prod", None),
    ):
        assert (await admin(gateway, method, path, body))[0] == 404


async def test_a_name_that_a_file_takes_later_is_the_files(gateway):
    """Both at once is an error that everybody can see; the store's keys stand for nobody meanwhile."""
    key = await make(gateway)
    file = gateway.policies / "policy.yaml"
    file.write_text(file.read_text() + "  globex: {region: us}\n")
    await until_status(gateway, key, 401)
    _, listed = await admin(gateway, "GET", "")
    (refused,) = [one for one in listed["tenants"] if one["name"] == "globex" and one["source"] == "store"]
    assert "files have a tenant of this name" in refused["refused"]


async def test_no_tenant_breaks_an_invariant(start_gateway, upstream):
    """A tenant whose labels would let data out is not served, and said so; one of the same store that would not, is."""
    gateway = await start_gateway(policy_text(upstream.base_url) + INVARIANT, edge=False, admin_port=0)
    good = await make(gateway, "good", labels=["gold"])
    bad = await make(gateway, "bad", labels=["secret"])
    assert (await ask(gateway, good), await ask(gateway, bad)) == (200, 401)
    _, shown = await admin(gateway, "GET", "/bad")
    assert "no-secret-leaves" in shown["refused"]


async def test_a_constraint_sees_a_tenant_of_the_store(start_gateway, upstream):
    """Region and labels narrow as those of a file's tenant do."""
    rule = 'constraints:\n  - {name: us-stays, when: tenant.region == "us", deny: true}'
    gateway = await start_gateway(
        policy_text(upstream.base_url).replace("constraints:", rule, 1), edge=False, admin_port=0
    )
    assert await ask(gateway, await make(gateway, "here", region="eu")) == 200
    assert await ask(gateway, await make(gateway, "there", region="us")) == 403


async def test_commands_make_list_and_revoke_keys(gateway):
    """`firstdraft keys` against the admin API: the key goes to standard output, and works until it is revoked."""
    await make(gateway)

    async def run(*words):
        command = [sys.executable, "-m", "gateway.cli.main", "keys", *words, "--admin", gateway.admin_url]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)

    made = await run("new", "globex", "--name", "second", "--replaces", "first")
    assert made.returncode == 0, made.stderr
    assert await ask(gateway, made.stdout.strip()) == 200
    listed = await run("list", "globex")
    assert "globex  first" in listed.stdout
    assert "until" in listed.stdout
    assert (await run("revoke", "globex", "second")).returncode == 0
    assert await ask(gateway, made.stdout.strip()) == 401
    refused = await run("revoke", "acme", "prod")
    assert (refused.returncode, "404" in refused.stderr) == (1, True)
