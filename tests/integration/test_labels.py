"""What the classifier finds decides where a request may go."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from gateway.cli.policy import policy
from tests.gateway_fixture import policy_text

CARD = "4111 1111 1111 1111"


def with_rule(upstream) -> str:
    """A policy whose requests with personal data have to stay where no backend is, and a tenant with words."""
    text = policy_text(upstream.base_url, budgets="dictionary: [{label: health, words: [Bluebird]}]")
    rule = """constraints:
  - name: personal-data-stays
    when: '"personal" in request.labels || "unclassified" in request.labels'
    require: {region: [local]}
"""
    return text.replace("constraints:\n", rule)


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(with_rule(upstream), edge=False)


async def ask(gateway, **fields) -> int:
    """The status of the answer to a request with these fields."""
    body = {"model": "large", "messages": [{"role": "user", "content": "hi"}], **fields}
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        response = await session.post(f"{gateway.base_url}/chat/completions", json=body)
        await response.read()
        return response.status


def said(content) -> list[dict]:
    """Messages with this content."""
    return [{"role": "user", "content": content}]


PERSONAL = [
    {"messages": said(f"charge {CARD}")},
    {"messages": said([{"type": "text", "text": "charge 4111 1111"}, {"type": "text", "text": " 1111 1111"}])},
    {"messages": [*said("hi"), {"role": "tool", "tool_call_id": "c", "content": '{"mail": "bob\\u0040corp.com"}'}]},
    {"tools": [{"type": "function", "function": {"name": "f", "description": "asks bob@corp.com", "parameters": {}}}]},
    {"user": "bob@corp.com"},
    {"messages": said([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])},
    {"messages": said("Project Bluebird")},
]


@pytest.mark.parametrize("fields", PERSONAL, ids=range(len(PERSONAL)))
async def test_what_is_found_binds(gateway, upstream, fields):
    """Personal data anywhere in a request keeps it from backends that may not have it, and nothing is sent."""
    assert await ask(gateway, **fields) == 403


async def test_clean_requests_pass(gateway):
    """Nothing found, nothing bound; and what it took is known."""
    assert await ask(gateway) == 200
    record = gateway.services.recent.get("acme", None)
    assert record.classified == "clean"
    assert 0 < record.classify_s < 1
    assert record.labels == ()


async def test_log_and_metrics_have_counts_and_no_text(gateway):
    """The record has labels, counts and the time; the text is in neither log nor metrics."""
    assert await ask(gateway, messages=said(f"{CARD} or {CARD}")) == 403
    record = gateway.services.recent.get("acme", None)
    assert record.labels == ("personal", "personal.card")
    assert record.found == {"card": 2}
    assert "4111" not in json.dumps(record.fields(), default=str)
    async with aiohttp.ClientSession() as session:
        shown = await (await session.get(f"{gateway.url}/metrics")).text()
    assert 'firstdraft_classify_seconds_count{result="found"} 1.0' in shown
    assert "4111" not in shown


async def test_explain_agrees(gateway, monkeypatch):
    """`policy explain` finds the same in a prompt, and decides the same."""
    monkeypatch.setenv("UPSTREAM_KEY", "k")
    for prompt, status in ((f"charge {CARD}", 403), ("hi", 200), ("the bluebird", 403)):
        assert await ask(gateway, messages=said(prompt)) == status
        record = gateway.services.recent.get("acme", None)
        arguments = ["explain", "--policies", str(Path(gateway.policies)), "--tenant", "acme", "--prompt", prompt]
        explained = CliRunner().invoke(policy, [*arguments, "--no-edge", "--json"])
        told = json.loads(explained.output)
        assert tuple(told["labels"]) == record.labels
        assert told["found"] == record.found
        assert (told["refusal"] or {"status": 200})["status"] == status
