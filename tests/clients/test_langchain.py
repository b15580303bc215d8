"""LangChain's `ChatOpenAI` against a whole gateway: it needs the base URL, and nothing else."""

import asyncio

import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.gateway_fixture import KEY, policy_text
from tests.upstream.script import Script

ASK = "What is the capital of France? Answer in one word."
DRAFT_ROUTE = "mode: draft_refine\n    models: [large]\n    fallback: [small]\n    draft: {max_tokens: 24}"
PARIS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}


def model_of(gateway, **more):
    return ChatOpenAI(base_url=gateway.base_url, api_key=KEY, model="large", max_retries=0, **more)


@pytest.fixture
async def gateway(start_gateway, upstream):
    return await start_gateway(policy_text(upstream.base_url, route=DRAFT_ROUTE))


@pytest.mark.parametrize("draft", ["off", "frames"])
@pytest.mark.parametrize("responses", [False, True])
async def test_plain_and_streamed_with_and_without_drafts(gateway, upstream, draft, responses):
    """What LangChain shows is the final, on both of OpenAI's surfaces, whether there are drafts or not."""
    upstream.default = Script(text="Paris it is.", think_s=0.8 if draft == "frames" else 0)
    model = model_of(gateway, use_responses_api=responses, extra_body={"draft": draft})
    answer = await model.ainvoke(ASK)
    assert answer.text == "Paris it is."
    assert answer.usage_metadata["input_tokens"] == 11
    pieces = [chunk.text async for chunk in model.astream(ASK)]
    assert "".join(pieces) == "Paris it is."
    assert len([piece for piece in pieces if piece]) > 1


@pytest.mark.parametrize("responses", [False, True])
async def test_tools(gateway, upstream, responses):
    """A bound tool's call comes back with its arguments."""

    @tool
    def weather(city: str) -> str:
        """Weather of a city."""
        return city

    upstream.default = Script(text="", tool_calls=[PARIS], finish_reason="tool_calls")
    answer = await model_of(gateway, use_responses_api=responses).bind_tools([weather]).ainvoke(ASK)
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("weather", {"city": "Paris"})]


async def test_errors_and_a_client_that_leaves(gateway, upstream):
    """An unknown model is the SDK's error; a stream that is left ends the backend's work."""
    model = ChatOpenAI(base_url=gateway.base_url, api_key=KEY, model="lerge", max_retries=0)
    with pytest.raises(openai.NotFoundError):
        await model.ainvoke(ASK)
    upstream.default = Script(chunks=500, delay_s=0.05)
    stream = model_of(gateway).astream(ASK)
    async for chunk in stream:
        if chunk.text:
            break
    await stream.aclose()
    async with asyncio.timeout(3):
        while upstream.open:
            await asyncio.sleep(0.02)


async def test_embeddings(gateway):
    """Vectors as the backend made them."""
    embeddings = OpenAIEmbeddings(
        base_url=gateway.base_url, api_key=KEY, model="large", check_embedding_ctx_length=False, max_retries=0
    )
    assert await embeddings.aembed_documents(["one", "two"]) == [[0.25, -0.5, 1.0]] * 2
