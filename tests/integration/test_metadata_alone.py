"""A backend that fails after its metadata and before its first content is replaced, in every schema on both sides."""

from __future__ import annotations

import httpx
import pytest

from tests.gateway_fixture import policy_text
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

pytestmark = pytest.mark.store

MESSAGES = {"messages": [{"role": "user", "content": "hello"}]}
SURFACES = {
    "chat/completions": MESSAGES,
    "completions": {"prompt": "hello"},
    "messages": {**MESSAGES, "max_tokens": 20},
    "responses": {"input": "hello"},
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("first", ["openai", "anthropic"])
async def test_metadata_alone_does_not_bind(start_gateway, upstream, first, surface):
    """A role, an id, a block that begins: they wait, so that the cut is never seen and the next one answers whole."""
    upstream.default = Script(text="from the first", cut_after=0)
    async with ScriptedUpstream() as second:
        second.default = Script(text="second answers")
        text = policy_text(upstream.base_url, second_url=second.base_url)
        gateway = await start_gateway(text.replace("type: openai\n", f"type: {first}\n", 1), edge=False)
        async with httpx.AsyncClient(headers=gateway.auth, base_url=gateway.base_url) as client:
            answer = await client.post(f"/{surface}", json={"model": "large", "stream": True, **SURFACES[surface]})
    assert answer.status_code == 200
    assert "answers" in answer.text
    assert "from" not in answer.text
    assert "error" not in answer.text.replace('"error":null', "")
    record = gateway.services.recent.get("acme", None)
    assert [tried.outcome for tried in record.attempts] == ["backend_cut", "ok"]
