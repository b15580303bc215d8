"""The cascade on real sockets with the real edge; how sure it is, a calibration of the test's own says."""

import asyncio
import json

import aiohttp
import anthropic
import msgspec
import openai
import pytest
from click.testing import CliRunner

from gateway.cli.bench import bench
from gateway.modes.confidence import FEATURES, Calibration, Point, calibration_file
from tests.edge_fixture import start_edge, stop_edge, wait_until_warm
from tests.gateway_fixture import KEY, policy_text
from tests.integration.test_disconnect import quiet, within
from tests.upstream.script import Script

pytestmark = pytest.mark.edge

FINAL = "The scripted final."
ASKED = "What is the capital of France?"
BUDGETS = "budgets: [{tokens: 1_000_000, per: day}, {usd: 50, per: month}]"


def route(cascade, *more):
    lines = ["mode: cascade", "models: [large]", f"cascade: {{{cascade}}}", "draft: {max_tokens: 40}", *more]
    return "\n    ".join(lines)


def calibrate(gateway, tmp_path, *, sure):
    """Has the gateway take every answer for good (0.99) or for bad (0.01)."""
    learnt = Calibration(
        features=FEATURES,
        centre=(0.0,) * len(FEATURES),
        scale=(1.0,) * len(FEATURES),
        weights=(0.0,) * len(FEATURES),
        intercept=4.6 if sure else -4.6,
        pairs=500,
        auc=0.7,
        brier=0.1,
        curve=(Point(threshold=0.5, coverage=1.0, error=0.03, most_error=0.04),),
    )
    path = calibration_file(tmp_path / "state", gateway.services.edge.status.fingerprint)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(learnt))


@pytest.fixture
async def start(start_gateway, upstream, tmp_path):
    """A function that starts a gateway whose chat route is a cascade."""
    upstream.default = Script(text=FINAL)

    async def started(cascade="threshold: 0.8", *more, sure=None, **given):
        gateway = await start_gateway(
            policy_text(upstream.base_url, route=route(cascade, *more), budgets=BUDGETS), **given
        )
        if sure is not None:
            calibrate(gateway, tmp_path, sure=sure)
        return gateway

    return started


async def chat(gateway, **more):
    """Status, headers and the body: parsed, or the stream's payloads."""
    asked = {"model": "large", "messages": [{"role": "user", "content": ASKED}], "temperature": 0, "max_tokens": 12}
    async with (
        aiohttp.ClientSession(headers=gateway.auth) as session,
        session.post(f"{gateway.base_url}/chat/completions", json=asked | more) as answer,
    ):
        text = await answer.text()
        if not more.get("stream"):
            return answer.status, answer.headers, json.loads(text)
        payloads = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        assert payloads.pop() == "[DONE]"
        return answer.status, answer.headers, [json.loads(payload) for payload in payloads]


def content(chunks):
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_sure_answer_is_the_edges(start, upstream, stream):
    """No backend is asked; the answer is whole and ordinary, and the tenant pays tokens and no money."""
    gateway = await start(sure=True)
    _, headers, answer = await chat(gateway, stream=stream)
    assert (headers["x-firstdraft-cascade"], headers["x-firstdraft-deployment"][:5]) == ("stands", "edge/")
    text = content(answer) if stream else answer["choices"][0]["message"]["content"]
    assert text
    assert FINAL not in text
    assert upstream.requests == []
    used = await usage(gateway)
    assert used["tokens"] > 0
    assert used["usd"] == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_not_sure_never_reaches_a_client_that_did_not_ask_for_drafts(start, stream):
    """Byte for byte the larger model's answer, charged alone."""
    gateway = await start(sure=False)
    _, headers, answer = await chat(gateway, stream=stream, stream_options={"include_usage": True} if stream else None)
    assert headers["x-firstdraft-cascade"] == "unsure"
    assert "draft" not in json.dumps(answer)
    assert (content(answer) if stream else answer["choices"][0]["message"]["content"]) == FINAL
    told = answer[-1]["usage"] if stream else answer["usage"]
    used = await usage(gateway)
    assert used["tokens"] == told["total_tokens"]
    assert used["usd"] > 0


async def usage(gateway):
    """What the tenant's budgets have booked, in tokens and nano-dollars, once all is settled."""
    await asyncio.sleep(0.2)
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        answer = await (await session.get(f"{gateway.base_url}/firstdraft/usage")).json()
    return {budget["unit"]: round(budget["limit"] - budget["left"], 9) for budget in answer["budgets"]}


@pytest.mark.parametrize("sure", [False, True])
async def test_frames_show_the_draft_and_content_only_what_stands(start, sure):
    """The verdict comes before the first content."""
    gateway = await start(sure=sure)
    _, _, chunks = await chat(gateway, stream=True, draft="frames")
    states = [chunk["draft"]["state"] for chunk in chunks if "draft" in chunk]
    drafted = "".join(chunk["draft"]["text"] for chunk in chunks if "draft" in chunk)
    assert states.count("complete") == 1
    complete = next(chunk["draft"] for chunk in chunks if chunk.get("draft", {}).get("state") == "complete")
    assert complete["confidence"] == pytest.approx(0.99 if sure else 0.01, abs=0.001)
    if sure:
        assert states[-1] == "promoted"
        assert content(chunks) == drafted
    else:
        assert states[-1] in {"revised", "replaced"}
        assert content(chunks) == FINAL


async def test_the_target_error_takes_its_threshold_from_the_calibration(start):
    """4 % may be wrong with everything: enough for a target of 5 %, too much for one of 3 %."""
    for target, outcome in (("0.05", "stands"), ("0.03", "unsure")):
        gateway = await start(f"target_error: {target}", sure=True)
        assert (await chat(gateway))[1]["x-firstdraft-cascade"] == outcome


async def test_without_a_calibration_nothing_stands_unless_the_route_says_so(start, upstream):
    """No evidence, no promotion."""
    gateway = await start()
    _, headers, answer = await chat(gateway)
    assert headers["x-firstdraft-cascade"] == "uncalibrated"
    assert answer["choices"][0]["message"]["content"] == FINAL
    trusting = await start("threshold: 0.8, when_uncalibrated: accept")
    assert (await chat(trusting))[1]["x-firstdraft-cascade"] == "stands"


async def test_other_surfaces(start, upstream):
    """Messages, Responses and legacy completions get the edge's answer through their own SDKs, plain and streamed."""
    gateway = await start(sure=True)
    client = openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0)
    claude = anthropic.AsyncAnthropic(base_url=gateway.url, auth_token=KEY, api_key=None, max_retries=0)
    turn = {"role": "user", "content": ASKED}
    message = await claude.messages.create(model="large", max_tokens=12, messages=[turn])
    assert message.content[0].text
    async with claude.messages.stream(model="large", max_tokens=12, messages=[turn]) as stream:
        assert (await stream.get_final_message()).content[0].text
    response = await client.responses.create(model="large", input=ASKED, max_output_tokens=12)
    assert response.output_text
    async with client.responses.stream(model="large", input=ASKED, max_output_tokens=12) as events:
        texts = [event.delta async for event in events if event.type == "response.output_text.delta"]
    assert "".join(texts)
    completion = await client.completions.create(model="large", prompt=ASKED, max_tokens=12)
    assert completion.choices[0].text
    assert upstream.requests == []


async def test_what_the_edge_cannot_do_goes_to_the_larger_model(start):
    """Tools, and a prompt that it has no room for: the header says why."""
    gateway = await start(sure=True)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    _, headers, _ = await chat(gateway, tools=[tool])
    assert (headers["x-firstdraft-cascade"], headers["x-firstdraft-no-draft"]) == ("no_draft", "tools")
    long = [{"role": "user", "content": "word " * 12_000}]
    _, headers, _ = await chat(gateway, messages=long)
    assert (headers["x-firstdraft-cascade"], headers["x-firstdraft-no-draft"]) == ("no_draft", "too_long")


async def test_without_an_edge_the_larger_model_answers(start):
    """The gateway serves on."""
    gateway = await start(edge=False)
    _, headers, answer = await chat(gateway)
    assert (headers["x-firstdraft-cascade"], headers["x-firstdraft-no-draft"]) == ("no_draft", "edge_not_ready")
    assert answer["choices"][0]["message"]["content"] == FINAL


@pytest.mark.parametrize("fallback", [False, True])
async def test_a_larger_model_that_fails_leaves_the_draft_only_where_the_route_says_so(start, upstream, fallback):
    """With the edge in `fallback` the draft is the answer after all; else the failure is the client's."""
    gateway = await start("threshold: 0.8", *(["fallback: [small]"] if fallback else []), sure=False)
    upstream.default = Script(status=500)
    status, headers, answer = await chat(gateway)
    if fallback:
        assert (status, headers["x-firstdraft-deployment"][:5]) == (200, "edge/")
        assert answer["choices"][0]["message"]["content"]
    else:
        assert status in {500, 502}
        assert answer["error"]["message"]


async def test_answers_that_stand_are_kept(start, upstream):
    """The second time it is a hit; what the larger model said is kept as well."""
    for sure in (True, False):
        gateway = await start("threshold: 0.8", "cache: {ttl: 1h}", sure=sure)
        asked = [{"role": "user", "content": f"{ASKED} {sure}"}]
        first = await chat(gateway, messages=asked, max_tokens=40)
        await asyncio.sleep(0.2)
        again = await chat(gateway, messages=asked, max_tokens=40)
        assert first[1]["x-firstdraft-cache"] == "miss"
        stopped = first[2]["choices"][0]["finish_reason"] == "stop"
        assert again[1]["x-firstdraft-cache"] == ("hit" if stopped else "miss")


async def test_a_client_that_leaves_stops_edge_and_backend(start, upstream):
    """While the edge answers, and after the larger model was asked."""
    upstream.default = Script(chunks=400, delay_s=0.02)
    asked = {"model": "large", "messages": [{"role": "user", "content": "Tell a story."}], "stream": True}
    for sure in (True, False):
        gateway = await start(sure=sure)
        async with aiohttp.ClientSession(headers=gateway.auth) as session:
            # With draft frames the first bytes come while the edge writes; without, with the larger model's content.
            asking = asked | {"draft": "frames" if sure else "off"}
            response = await session.post(f"{gateway.base_url}/chat/completions", json=asking)
            await response.content.readany()
            response.close()
            await within(2, lambda gateway=gateway: quiet(gateway, upstream))
        assert (len(upstream.requests) > 0) is not sure
        await asyncio.sleep(0.2)
        assert (await usage(gateway))["tokens"] > 0


async def test_an_edge_that_is_killed_in_the_middle_leaves_the_answer_to_the_larger_model(start, tmp_path):
    """The client sees an ordinary answer, and a draft that was dropped."""
    (tmp_path / "edge").mkdir()
    process, socket_path = start_edge(tmp_path / "edge")
    try:
        wait_until_warm(process, socket_path)
        gateway = await start(sure=True, edge_at=socket_path)
        asked = [{"role": "user", "content": "Tell a long story about a lighthouse."}]
        body = {"model": "large", "messages": asked, "stream": True, "draft": "frames"}
        async with (
            aiohttp.ClientSession(headers=gateway.auth) as session,
            session.post(f"{gateway.base_url}/chat/completions", json=body) as answer,
        ):
            begun = await answer.content.readany()
            process.kill()
            text = (begun + await answer.content.read()).decode()
    finally:
        stop_edge(process)
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    chunks = [json.loads(line) for line in lines]
    assert text.endswith("data: [DONE]\n\n")
    assert content(chunks) == FINAL
    assert [chunk["draft"]["state"] for chunk in chunks if "draft" in chunk][-1] == "dropped"


async def test_bench_tells_what_a_cascade_does_for_your_questions(start_gateway, upstream, tmp_path, monkeypatch):
    """The command asks both routes, and its table counts what stood; a feature without a cascade is told."""
    upstream.default = Script(text=FINAL)
    both = (
        f'when: request.feature == "cascade"\n    {route("threshold: 0.8")}\n  - name: reference\n    mode: cloud_only'
    )
    gateway = await start_gateway(policy_text(upstream.base_url, route=both))
    calibrate(gateway, tmp_path, sure=True)
    asked = tmp_path / "mine.csv"
    asked.write_text("question,answer\nWhat is it?,That.\nWhat is the capital of France?,\nWhy?,\n")
    monkeypatch.setenv("FIRSTDRAFT_KEY", KEY)
    words = ["cascade", str(asked), "--url", gateway.url, "--max-tokens", "8", "--shots", "1"]
    done = await asyncio.to_thread(CliRunner().invoke, bench, words)
    assert done.exit_code == 0, done.output
    assert "2 (100%)" in done.output
    assert len(upstream.requests) == 2
    assert [turn["role"] for turn in upstream.requests[0].json["messages"]] == ["user", "assistant", "user"]
    done = await asyncio.to_thread(CliRunner().invoke, bench, [*words, "--feature", "reference"])
    assert "gets no cascade" in done.output
    assert done.exit_code == 1
