"""Policies that change under a running gateway: swapped whole, refused, told, rolled back, recorded."""

import asyncio
import json
import time
from collections import Counter

import aiohttp
from click.testing import CliRunner

from gateway.cli.policy import policy as commands
from gateway.policy.load import load_policy
from gateway.policy.replay import read
from gateway.routing.explain import as_json, explain
from gateway.telemetry.decision_log import files
from tests.gateway_fixture import policy_text

ENVIRON = {"UPSTREAM_KEY": "sk-upstream"}
BODY = {"model": "large", "messages": [{"role": "user", "content": "hi"}]}
PER_SECOND = 200
SECONDS = 5.0
INVARIANT = """
invariants:
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
"""


def two_policies(upstream):
    """The same folder in two versions that differ in route, model and cache: nothing of one fits the other."""
    text = policy_text(upstream.base_url, second_url=upstream.base_url) + INVARIANT
    one = text.replace("- name: chat\n", "- name: one\n")
    models = "- {backend: cloud, model: scripted, price: {input: 1, output: 2}, max_output_tokens: 1000}"
    other = text.replace("- name: chat\n", "- name: two\n").replace(models, "")
    assert one != other
    return one, other


async def ask(session, gateway, **headers):
    async with session.post(
        f"{gateway.base_url}/chat/completions", json=BODY, headers=gateway.auth | headers
    ) as response:
        await response.read()
        told = {name: response.headers.get(f"x-firstdraft-{name}", "") for name in ("policy", "route", "deployment")}
        return response.status, told["policy"], told["route"], told["deployment"]


async def until(condition, limit_s=10.0):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_edits_under_load_swap_without_a_failed_or_mixed_request(start_gateway, upstream):
    """At 200 requests a second, each request is wholly of one version; a broken edit in between changes nothing."""
    one, other = two_policies(upstream)
    gateway = await start_gateway(one, edge=False)
    file = gateway.policies / "policy.yaml"
    broken = other.replace("mode: cloud_only", "mode: clod_only", 1)
    leaking = other.replace("require: {compliance: [no-egress]}\nroutes", "require: {compliance: [gdpr]}\nroutes")
    assert len({one, other, broken, leaking}) == 4
    loop = asyncio.get_running_loop()
    versions = []

    async def edit():
        for text in (other, broken, one, leaking, other, one):
            file.write_text(text)
            if text in (broken, leaking):
                await until(lambda: gateway.services.policy.refused)
                assert gateway.services.policy.current.version == versions[-1]
            else:
                before = versions[-1] if versions else None
                await until(lambda before=before: gateway.services.policy.current.version != before)
                await until(lambda: gateway.services.policy.refused is None)
                versions.append(gateway.services.policy.current.version)
            await asyncio.sleep(0.2)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        versions.append(gateway.services.policy.current.version)
        editing = group.create_task(edit())
        asked = []
        begun = loop.time()
        while loop.time() - begun < SECONDS or not editing.done():
            asked.append(group.create_task(ask(session, gateway)))
            await asyncio.sleep(max(0.0, begun + len(asked) / PER_SECOND - loop.time()))
    outcomes = Counter(task.result() for task in asked)
    assert {status for status, *_ in outcomes} == {200}
    seen = {(version, route, deployment) for _, version, route, deployment in outcomes}
    assert {(route, deployment) for _, route, deployment in seen} == {
        ("one", "cloud/scripted"),
        ("two", "second/scripted-2"),
    }
    assert len({version for version, _, _ in seen}) == len(seen) == 2
    assert len(asked) >= PER_SECOND * SECONDS * 0.5  # a busy machine sends fewer; it is still load


async def test_refused_edit_shows_everywhere_and_status_says_it(start_gateway, upstream):
    """`/readyz`, the metrics and `policy status` say that a newer policy was refused, and why, until it is right."""
    one, other = two_policies(upstream)
    gateway = await start_gateway(one, edge=False)
    version = gateway.services.policy.current.version
    (gateway.policies / "policy.yaml").write_text(other.replace("mode: edge_only", "mode: edge", 1))
    await until(lambda: gateway.services.policy.refused)
    async with aiohttp.ClientSession() as session:
        ready = await (await session.get(f"{gateway.url}/readyz")).json()
        metrics = await (await session.get(f"{gateway.url}/metrics")).text()
    assert ready["policy"]["version"] == version
    assert "did you mean `edge_only`?" in ready["policy"]["refused"]
    assert "firstdraft_policy_refused 1.0" in metrics
    said = await asyncio.to_thread(CliRunner().invoke, commands, ["status", "--url", gateway.url])
    assert said.exit_code == 1
    assert version in said.output
    assert "policy.yaml" in said.output
    (gateway.policies / "policy.yaml").write_text(other)
    await until(lambda: gateway.services.policy.refused is None)
    await gateway.services.members.report(gateway.services.policy.current.version, refused=False)
    said = await asyncio.to_thread(CliRunner().invoke, commands, ["status", "--json", "--url", gateway.url])
    assert said.exit_code == 0, said.output
    found = json.loads(said.output)
    assert found["version"] != version
    assert set(found["workers"].values()) == {found["version"]}
    assert found["agreed"] is True


async def test_replicas_say_their_versions_to_each_other(start_gateway, upstream):
    """Two gateways on one store: each lists both, and one that has left is gone at once."""
    one, other = two_policies(upstream)
    first = await start_gateway(one, edge=False)
    second = await start_gateway(other, edge=False)
    second.services.members.name = "another-host:7"
    await second.services.members.report(second.services.policy.current.version, refused=False)
    ready = await first.services.readiness()
    assert ready.parts["policy"]["workers"]["another-host:7"] == second.services.policy.current.version
    assert len(ready.parts["policy"]["workers"]) == 2
    await second.services.members.leave()
    assert len((await first.services.readiness()).parts["policy"]["workers"]) == 1


async def test_rollback_restores_the_last_good_policy(start_gateway, upstream, tmp_path):
    """`policy rollback` writes the version before; the gateway takes it up; a broken folder gets what is in force."""
    one, other = two_policies(upstream)
    gateway = await start_gateway(one, edge=False)
    store, file = gateway.services.policy, gateway.policies / "policy.yaml"
    first = store.current.version
    file.write_text(other)
    await until(lambda: store.current.version != first)
    second = store.current.version
    await until(lambda: len(list((tmp_path / "state/policies").glob("[0-9]*"))) == 2)
    flags = ["rollback", "--policies", str(gateway.policies), "--state", str(tmp_path / "state")]

    file.write_text("routes: [{name: x}]")
    await until(lambda: store.refused)
    done = await asyncio.to_thread(CliRunner().invoke, commands, [*flags, "--json"])
    assert json.loads(done.output)["restored"] == second
    await until(lambda: store.refused is None)
    assert (store.current.version, file.read_text()) == (second, other)

    done = await asyncio.to_thread(CliRunner().invoke, commands, flags)
    assert first in done.output
    await until(lambda: store.current.version == first)
    assert file.read_text() == one

    listed = await asyncio.to_thread(CliRunner().invoke, commands, [*flags, "--list", "--json"])
    assert {kept["version"] for kept in json.loads(listed.output)} == {first, second}
    done = await asyncio.to_thread(CliRunner().invoke, commands, [*flags, "--to", "nonsense"])
    assert done.exit_code == 1


async def test_what_was_decided_is_recorded_and_replayed(start_gateway, upstream, tmp_path):
    """A recorded request, explained, is what the client was told; `policy diff` says what another folder changes."""
    one, other = two_policies(upstream)
    (tmp_path / "state").mkdir()
    gateway = await start_gateway(one, edge=False, record_decisions=1.0)
    async with aiohttp.ClientSession() as session:
        told = [await ask(session, gateway, **{"x-firstdraft-feature": f"f{number}"}) for number in range(5)]
        refused = await ask(session, gateway, **{"x-firstdraft-labels": "health"})
    assert refused[0] in (403, 503)
    current, _ = files(tmp_path / "state")
    await until(current.exists)
    recorded = read(current.read_bytes().splitlines())
    assert len(recorded) == 6
    assert b'"hi"' not in current.read_bytes()
    for (status, version, route, deployment), line in zip(told, recorded, strict=False):
        shown = as_json(explain(gateway.services.policy.current, line.facts))
        assert (status, version, route) == (200, shown["policy_version"], shown["route"])
        assert deployment in shown["deployments"]
        assert abs(line.at - time.time()) < 60

    (tmp_path / "new").mkdir()
    (tmp_path / "new/policy.yaml").write_text(other)
    load_policy(tmp_path / "new", ENVIRON)
    arguments = ["diff", str(gateway.policies), str(tmp_path / "new"), "--state", str(tmp_path / "state")]
    shown = await asyncio.to_thread(CliRunner().invoke, commands, [*arguments, "--json"], env=ENVIRON)
    assert shown.exit_code == 1, shown.output
    found = json.loads(shown.output)
    assert (found["requests"], found["changed"]) == (6, 6)
    routes = [change for change in found["changes"] if change["what"] == "route"]
    assert {(change["before"], change["after"]) for change in routes} == {("one", "two")}
    same = [*arguments[:2], str(gateway.policies), *arguments[3:]]
    shown = await asyncio.to_thread(CliRunner().invoke, commands, same, env=ENVIRON)
    assert shown.exit_code == 0, shown.output
