"""Several edges beside one gateway, and one elsewhere, as their users meet them."""

import asyncio

import httpx
import pytest

from gateway.edge.model_files import SHIPPED_MODEL, find_model
from tests.integration.process_fixture import Process
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

POLICY = """
backends:
  edge: {{type: edge, model: {shipped}, region: local, compliance: [no-egress]}}
  second: {{type: edge, model: {second}, region: local, compliance: [no-egress]}}
  third: {{type: edge, model: {third}, region: local, compliance: [no-egress]}}
  cloud: {{type: openai, base_url: "{cloud}", region: us-east}}
models:
  large: [{{backend: cloud, model: l, price: free}}]
  first: [{{backend: edge}}]
  second: [{{backend: second}}]
  third: [{{backend: third}}]
routes:
  - {{name: chat, when: request.model == "large", mode: draft_refine, draft: {{model: second, max_tokens: 8}}}}
  - {{name: edge, mode: edge_only}}
tenants:
  guest: {{keyless: true}}
"""
ASK = {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 4}


async def ask(url: str, model: str, **more) -> httpx.Response:
    async with httpx.AsyncClient(timeout=30) as client:
        return await client.post(f"{url}/v1/chat/completions", json={"model": model, **ASK, **more})


@pytest.mark.edge
async def test_each_edge_serves_its_own_model_within_one_bound_of_memory(tmp_path, edge_socket, upstream):
    """The policy's order decides who fits; who does not says why, and no model ever stands in for another."""
    upstream.default = Script(text="Good day.", think_s=2.0)
    state, folder = tmp_path / "state", tmp_path / "policies"
    state.mkdir()
    folder.mkdir()
    (state / "models").symlink_to(edge_socket.parent / "models")
    paths = {name: tmp_path / f"{name}.gguf" for name in ("second", "third", "fourth")}
    for path in paths.values():
        path.symlink_to(find_model(SHIPPED_MODEL))
    text = POLICY.format(shipped=SHIPPED_MODEL, cloud=upstream.base_url, **paths)
    (folder / "policy.yaml").write_text(text)
    async with Process(folder, state, "--edge-context", "512", "--edge-memory-mb", "600") as gateway:
        async with httpx.AsyncClient() as client, asyncio.timeout(60):
            while True:
                edges = (await client.get(f"{gateway.url}/readyz")).json()["edge"]
                states = [edge["state"] for edge in (edges, *edges["others"])]
                if states == ["warm", "warm", "failed"]:
                    break
                await asyncio.sleep(0.1)
            metrics = (await client.get(f"{gateway.url}/metrics")).text
        assert "third.gguf does not fit" in edges["others"][1]["reason"]
        assert f'firstdraft_edge_up{{model="{paths["second"]}"}} 1.0' in metrics
        for model, deployment in (("first", f"edge/{SHIPPED_MODEL}"), ("second", "second/second")):
            assert (await ask(gateway.url, model)).headers["x-firstdraft-deployment"] == deployment
        refused = await ask(gateway.url, "third")
        assert refused.status_code == 503
        assert "does not fit" in refused.json()["error"]["message"]
        drafted = (await ask(gateway.url, "large", draft="frames")).json()
        assert (drafted["choices"][0]["message"]["content"], drafted["draft"]["model"]) == ("Good day.", "second")

        (folder / "policy.yaml").write_text(text.replace("second.gguf", "fourth.gguf"))
        await gateway.until(lambda: any(line.get("event") == "edge_models_changed" for line in gateway.log), 20)
        refused = await ask(gateway.url, "second")
        assert refused.status_code == 503
        assert "is not loaded" in refused.json()["error"]["message"]
        assert (await ask(gateway.url, "first")).status_code == 200


ELSEWHERE = """
backends:
  phone: {{type: openai, role: draft, base_url: "{phone}", region: eu-west}}
  cloud: {{type: openai, base_url: "{cloud}", region: eu-west}}
models:
  large: [{{backend: cloud, model: l, price: {{input: 1, output: 1}}}}]
  handy: [{{backend: phone, model: gemma, price: {{input: 1, output: 1}}}}]
routes:
  - {{name: chat, mode: draft_refine, models: [large], draft: {{max_tokens: 9}}}}
tenants:
  guest: {{keyless: true, budgets: [{{tokens: 100000, per: day}}]}}
"""


async def test_an_edge_elsewhere_drafts_over_the_network_and_is_paid(start_gateway, upstream):
    """Its words are the draft, its tokens are booked beside the final's, and it gets the draft's own limit."""
    upstream.default = Script(text="Paris.", think_s=0.5)
    async with ScriptedUpstream() as phone:
        phone.default = Script(text="Paris.")
        gateway = await start_gateway(ELSEWHERE.format(phone=phone.base_url, cloud=upstream.base_url), edge=False)
        for stream in (False, True):
            answer = await ask(gateway.url, "large", draft="frames", stream=stream, max_tokens=50)
            assert answer.status_code == 200
            assert '"state":"confirmed"' in answer.text
            assert '"model":"gemma"' in answer.text
            assert phone.requests[-1].json["max_tokens"] == 9
            assert upstream.requests[-1].json["max_tokens"] == 50
            assert "draft" not in phone.requests[-1].json
        spent = await gateway.services.ledger.left("guest", gateway.services.policy.current.tenants["guest"].limits)
    (record, *_) = gateway.services.recent._records.values()
    assert sorted(attempt.role for attempt in record.attempts) == ["draft", "final"]
    used = [attempt.input_tokens + attempt.output_tokens for attempt in record.attempts]
    assert all(used)
    assert record.input_tokens + record.output_tokens == sum(used)
    assert spent[0].left <= 100_000 - 2 * sum(used)
