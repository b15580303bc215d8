"""Refining on real sockets: predictions and scores, against a server that speaks vLLM's and SGLang's endpoints."""

import asyncio

import aiohttp
import anthropic
import openai
import pytest

from tests.gateway_fixture import KEY, policy_text
from tests.integration.test_cascade import ASKED, calibrate, chat, content, usage
from tests.upstream.scoring import ScoringUpstream
from tests.upstream.script import Script

pytestmark = pytest.mark.edge

FINAL = "The scripted final. It says what it is told."
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)
APIS = {"vllm": "{api: vllm}", "sglang": f'{{api: sglang, chat_template: "{TEMPLATE}"}}'}
CASCADE = "mode: cascade\n    models: [large]\n    cascade: {threshold: 0.8}\n    draft: {max_tokens: 40}"
BUDGETS = "budgets: [{tokens: 1_000_000, per: day}, {usd: 50, per: month}]"


@pytest.fixture
async def gpu():
    async with ScoringUpstream() as server:
        server.default = Script(text=FINAL)
        yield server


@pytest.fixture
async def start(start_gateway, gpu, tmp_path):
    """A function that starts a gateway whose edge is never sure, and whose larger model has more to its name."""

    async def started(deployment, refine, *, route=CASCADE, budgets=BUDGETS, backend="type: openai"):
        text = policy_text(gpu.base_url, route=f"{route}\n    {refine}", budgets=budgets)
        text = text.replace("type: openai", backend)
        text = text.replace("price: {input: 1, output: 2}", f"price: {{input: 1, output: 20}}, {deployment}")
        gateway = await start_gateway(text)
        calibrate(gateway, tmp_path, sure=False)
        return gateway

    return started


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", APIS)
async def test_a_draft_that_the_larger_model_would_have_written_stands(start, gpu, api, stream):
    """It is read once, nothing is written; tokens of the read and of the draft are charged, money for the read."""
    gpu.logprobs, gpu.cached_tokens = [-0.2, -1.0, -0.1], 3
    gateway = await start(f"scoring: {APIS[api]}", "refine: {score: {quantile: 0.1, least: -2}}")
    _, headers, answer = await chat(gateway, stream=stream)
    assert (headers["x-firstdraft-cascade"], headers["x-firstdraft-deployment"][:5]) == ("scored", "edge/")
    text = content(answer) if stream else answer["choices"][0]["message"]["content"]
    assert text
    assert FINAL not in text
    (scored,) = gpu.scored
    assert [request.path for request in gpu.requests] == []
    if api == "vllm":
        assert scored["messages"][-1] == {"role": "assistant", "content": text}
        assert scored["messages"][0] == {"role": "user", "content": ASKED}
    else:
        assert scored["logprob_start_len"] < len(scored["input_ids"]) - 1
    used = await usage(gateway)
    assert used["tokens"] > 0
    assert used["usd"] > 0


@pytest.mark.parametrize("api", APIS)
async def test_a_draft_that_surprises_the_larger_model_is_replaced(start, gpu, api):
    """The answer is the larger model's, and both its requests are charged."""
    gpu.logprobs = [-0.2, -9.0]
    gateway = await start(f"scoring: {APIS[api]}", "refine: {score: {quantile: 0.1, least: -2}}")
    _, headers, answer = await chat(gateway)
    assert headers["x-firstdraft-cascade"] == "unsure"
    assert answer["choices"][0]["message"]["content"] == FINAL
    assert len(gpu.scored) == len(gpu.requests) == 1
    used = await usage(gateway)
    assert used["tokens"] > answer["usage"]["total_tokens"]


@pytest.mark.parametrize("spoil", [{}, {"meta_info": {}, "prompt_logprobs": [None]}, [], {"error": {"message": "no"}}])
@pytest.mark.parametrize("api", APIS)
async def test_a_score_that_makes_no_sense_is_none(start, gpu, api, spoil):
    """A server without these endpoints, or of another version, costs one request and no answer."""
    gpu.spoil = spoil
    gateway = await start(f"scoring: {APIS[api]}", "refine: {score: {least: -2}}")
    _, headers, answer = await chat(gateway)
    assert headers["x-firstdraft-cascade"] == "unsure"
    assert answer["choices"][0]["message"]["content"] == FINAL


@pytest.mark.parametrize("backend", ["type: openai", "type: openai\n    server: openai"])
async def test_the_draft_goes_along_as_a_prediction(start, gpu, backend):
    """What of it was rejected is told in the usage, held, and paid for at its own price; OpenAI itself takes it."""
    gateway = await start("prediction: true", "", backend=backend)
    _, _, answer = await chat(gateway)
    (request,) = gpu.requests
    assert request.json["max_tokens"]
    assert request.json["prediction"]["type"] == "content"
    assert request.json["prediction"]["content"]
    rejected = answer["usage"]["completion_tokens_details"]["rejected_prediction_tokens"]
    assert rejected > 0
    used = await usage(gateway)
    assert used["tokens"] == answer["usage"]["total_tokens"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_backend_that_knows_no_prediction_is_asked_without(start, gpu, stream):
    """What the gateway added and the backend refuses is no error of the client's."""
    gpu.default = Script(text=FINAL, refuses_prediction=True)
    gateway = await start("prediction: true", "")
    status, _, answer = await chat(gateway, stream=stream)
    assert status == 200
    assert (content(answer) if stream else answer["choices"][0]["message"]["content"]) == FINAL
    assert ["prediction" in request.json for request in gpu.requests] == [True, False]


async def test_messages_take_a_prediction_through_the_hub(start, gpu):
    """Another schema's client gains from it as well, and sees nothing of it."""
    gateway = await start("prediction: true", "")
    asked = {"model": "large", "max_tokens": 12, "messages": [{"role": "user", "content": ASKED}]}
    async with (
        aiohttp.ClientSession(headers=gateway.auth) as session,
        session.post(f"{gateway.base_url}/messages", json=asked) as answer,
    ):
        assert (await answer.json())["content"][0]["text"] == FINAL
    assert gpu.requests[0].json["prediction"]["content"]


async def test_in_draft_refine_the_final_waits_for_what_it_can_use(start, gpu):
    """The draft is whole before the larger model is asked, and shown meanwhile."""
    route = "mode: draft_refine\n    models: [large]\n    draft: {max_tokens: 8}"
    gateway = await start("prediction: true", "refine: {wait: 20s}", route=route)
    _, _, chunks = await chat(gateway, stream=True, draft="frames")
    drafted = "".join(chunk["draft"]["text"] for chunk in chunks if "draft" in chunk)
    assert gpu.requests[0].json["prediction"]["content"] == drafted
    assert content(chunks) == FINAL


async def test_a_revised_verdict_tells_what_changed(start, gpu):
    """Applied to the draft, the changes are the final; they ride inside the draft object."""
    route = "mode: draft_refine\n    models: [large]\n    draft: {max_tokens: 40}"
    gateway = await start("prediction: true", "refine: {wait: 20s}", route=route)
    asked = [{"role": "user", "content": "Count from one to five, one sentence for each number."}]
    _, _, chunks = await chat(gateway, stream=True, draft="frames", messages=asked, max_tokens=40)
    drafted = "".join(chunk["draft"]["text"] for chunk in chunks if "draft" in chunk)
    # The same draft comes again at temperature 0; now the final keeps it and says one sentence more.
    gpu.default = Script(
        text=f"{drafted}\nAnd that is all of it, as far as anybody knows. Ask again whenever you like.", chunks=None
    )
    _, _, chunks = await chat(gateway, stream=True, draft="frames", messages=asked, max_tokens=40)
    again = "".join(chunk["draft"]["text"] for chunk in chunks if "draft" in chunk)
    verdict = next(
        chunk["draft"] for chunk in chunks if chunk.get("draft", {}).get("state") not in (None, "partial", "complete")
    )
    assert verdict["state"] == "revised"
    for start_at, end_at, new in reversed(verdict["changes"]):
        again = again[:start_at] + new + again[end_at:]
    assert again == content(chunks)


async def test_sdks_pass_over_what_changed(start, gpu):
    """The changes stay inside the draft object: chat, Messages and Responses read as ever, plain and streamed."""
    route = "mode: draft_refine\n    models: [large]\n    draft: {max_tokens: 40, default: frames}"
    gateway = await start("prediction: true", "refine: {wait: 20s}", route=route, budgets="")
    turn = {"role": "user", "content": "Count from one to five, one sentence for each number."}
    asked = {"model": "large", "messages": [turn], "max_tokens": 40, "temperature": 0}
    client = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    first = await client.chat.completions.create(**asked)
    more = "And that is all of it, as far as anybody knows. Ask again whenever you like."
    gpu.default = Script(text=f"{first.draft['text']}\n{more}")
    plain = await client.chat.completions.create(**asked)
    assert plain.draft["changes"]
    assert plain.choices[0].message.content.endswith(more)
    streamed = [chunk async for chunk in await client.chat.completions.create(stream=True, **asked)]
    assert any("changes" in chunk.draft for chunk in streamed if hasattr(chunk, "draft"))
    claude = anthropic.AsyncAnthropic(base_url=gateway.url, auth_token=KEY, api_key=None, max_retries=0)
    async with claude.messages.stream(model="large", max_tokens=40, messages=[turn]) as stream:
        assert (await stream.get_final_message()).content[0].text.split() == gpu.default.text.split()
    async with client.responses.stream(model="large", input=[turn], max_output_tokens=40) as stream:
        assert (await stream.get_final_response()).output_text.split() == gpu.default.text.split()


async def test_a_client_that_leaves_while_its_draft_is_read(start, gpu):
    """The read ends with the client, and is settled."""
    gateway = await start(f"scoring: {APIS['vllm']}", "refine: {score: {least: -2}}")
    gpu.reads_s = 30.0
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        asked = {"model": "large", "messages": [{"role": "user", "content": ASKED}], "max_tokens": 12}
        task = asyncio.create_task(session.post(f"{gateway.base_url}/chat/completions", json=asked))
        async with asyncio.timeout(20):
            await gpu.reading.wait()
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(5):
        while gateway.services.in_flight:
            await asyncio.sleep(0.01)
    assert (await usage(gateway))["tokens"] > 0
