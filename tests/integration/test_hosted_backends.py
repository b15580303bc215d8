"""Azure, Bedrock and Vertex behind the gateway, through the real SDKs, from servers that check requests as they do."""

import hashlib
import json

import anthropic
import openai
import pytest

from tests.gateway_fixture import KEY
from tests.upstream import hosted
from tests.upstream.hosted import TEXT, Hosted

ASKED = [{"role": "user", "content": "Say hello."}]
BACKENDS = {
    "azure": "type: azure, base_url: '{url}', api_version: 2024-10-21, api_key: '${{AZURE}}'",
    "azure-v1": "type: azure, base_url: '{url}/openai/v1', api_key: '${{AZURE}}'",
    "bedrock": "type: bedrock, base_url: '{url}', aws_region: eu-central-1",
    "vertex": "type: vertex, base_url: '{url}/v1/projects/p/locations/l'",
}
MODELS = {
    "azure": ("azure", "my deployment"),
    "azure-v1": ("azure-v1", "gpt-4.1"),
    "bedrock": ("bedrock", "eu.anthropic.claude-sonnet-4-20250514-v1:0"),
    "claude-on-vertex": ("vertex", "claude-sonnet-4@20250514"),
    "gemini": ("vertex", "google/gemini-2.5-flash"),
}
PATHS = {
    ("azure", False): "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21",
    ("azure-v1", False): "/openai/v1/chat/completions",
    ("bedrock", False): "/model/eu.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke",
    ("bedrock", True): "/model/eu.anthropic.claude-sonnet-4-20250514-v1%3A0/invoke-with-response-stream",
    ("claude-on-vertex", False): "/v1/projects/p/locations/l/publishers/anthropic/models/"
    "claude-sonnet-4%4020250514:rawPredict",
    ("claude-on-vertex", True): "/v1/projects/p/locations/l/publishers/anthropic/models/"
    "claude-sonnet-4%4020250514:streamRawPredict",
    ("gemini", False): "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
}


@pytest.fixture
async def providers(tmp_path, monkeypatch):
    async with Hosted() as found:
        (tmp_path / "account.json").write_text(json.dumps(found.service_account()))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", hosted.ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", hosted.SECRET_KEY)
        monkeypatch.setenv("AWS_SESSION_TOKEN", hosted.SESSION_TOKEN)
        monkeypatch.setenv("AZURE", hosted.KEY)
        yield found


@pytest.fixture
async def gateway(start_gateway, providers):
    lines = ["backends:"]
    lines += [f"  {name}: {{{given.format(url=providers.url)}, region: eu}}" for name, given in BACKENDS.items()]
    price = "price: {input: 1, cached_input: 0.1, cache_write: 1.25, output: 2}"
    lines.append("models:")
    lines += [f"  {name}: [{{backend: {at}, model: '{model}', {price}}}]" for name, (at, model) in MODELS.items()]
    lines += ["routes: [{name: all, mode: cloud_only}]", "tenants:"]
    lines.append(f"  acme: {{keys: [{{name: k, sha256: {hashlib.sha256(KEY.encode()).hexdigest()}}}]}}")
    return await start_gateway("\n".join(lines), edge=False, environ={"AZURE": hosted.KEY})


@pytest.fixture
async def chat(gateway):
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
async def test_openais_sdk_gets_whole_and_streamed_answers(chat, gateway, providers, model):
    """Whatever hosts the model, an OpenAI client gets its text, its finish reason and its usage."""
    whole = await chat.chat.completions.create(model=model, messages=ASKED, max_tokens=50)
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens == 5
    stream = await chat.chat.completions.create(
        model=model, messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == 5
    assert all(chunk.choices for chunk in chunks[:-1])
    (first, _, _), (second, _, _) = providers.requests
    assert first == PATHS[model, False]
    assert second == PATHS.get((model, True), PATHS[model, False])


@pytest.mark.parametrize("model", ["bedrock", "claude-on-vertex", "gemini"])
async def test_anthropics_sdk_gets_whole_and_streamed_answers(gateway, providers, model):
    """A Messages client gets a message, natively where the host speaks Messages, and what its cache wrote is priced."""
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        whole = await client.messages.create(model=model, messages=ASKED, max_tokens=50)
        assert whole.content[0].text == TEXT
        async with client.messages.stream(model=model, messages=ASKED, max_tokens=50) as stream:
            assert await stream.get_final_text() == TEXT
            assert (await stream.get_final_message()).stop_reason == "end_turn"
    if model != "gemini":
        record = gateway.services.recent.get("acme", None)
        assert (record.input_tokens, record.cached_input_tokens, record.output_tokens) == (16, 4, 5)
        assert record.cost_nanousd == 9 * 1000 + 4 * 100 + 3 * 1250 + 5 * 2000


async def test_azures_content_filter_is_passed_on(chat, providers):
    """What Azure refuses by its filter reaches the client as Azure said it."""
    with pytest.raises(openai.BadRequestError) as caught:
        await chat.chat.completions.create(model="azure", messages=[{"role": "user", "content": "forbidden"}])
    assert caught.value.code == "content_filter"
    assert caught.value.body["innererror"]["code"] == "ResponsibleAIPolicyViolation"


async def test_azure_is_asked_in_its_own_words(chat, providers):
    """Azure gets the limit under its newer name, and no bearer token."""
    await chat.chat.completions.create(model="azure", messages=ASKED, max_tokens=50)
    _, headers, body = providers.requests[-1]
    assert (body["max_completion_tokens"], body.get("max_tokens")) == (50, None)
    assert headers["api-key"] == hosted.KEY


@pytest.mark.parametrize(
    ("kind", "status"), [("throttlingException", 429), ("modelStreamErrorException", 424), ("somethingNew", 502)]
)
async def test_an_exception_in_bedrocks_stream_is_told(chat, providers, kind, status):
    """An exception of AWS's in the stream becomes an error event with its words."""
    providers.exception = (kind, "Too many tokens, please wait.")
    stream = await chat.chat.completions.create(model="bedrock", messages=ASKED, stream=True)
    with pytest.raises(openai.APIError, match="Too many tokens") as caught:
        [chunk async for chunk in stream]
    assert caught.value.code in {status, str(status), None}


async def test_a_corrupt_stream_of_bedrocks_is_no_answer(chat, providers):
    """A byte that is not what its checksum says ends the answer with an error."""
    providers.corrupt = True
    with pytest.raises(openai.APIError, match="checksum"):
        [chunk async for chunk in await chat.chat.completions.create(model="bedrock", messages=ASKED, stream=True)]


async def test_wrong_credentials_are_the_gateways_trouble(chat, providers, monkeypatch):
    """A signature that AWS does not accept is told as 502, and shows nothing of it."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(openai.InternalServerError) as caught:
        await chat.chat.completions.create(model="bedrock", messages=ASKED)
    assert (caught.value.status_code, caught.value.code) == (502, "backend_credentials")


async def test_no_credentials_are_told_and_the_loop_goes_on(chat, providers, monkeypatch):
    """Where Google's credentials cannot be read, requests are refused with a clear error."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/account.json")
    with pytest.raises(openai.InternalServerError) as caught:
        await chat.chat.completions.create(model="gemini", messages=ASKED)
    assert caught.value.code == "backend_credentials"
    assert "Google Cloud" in caught.value.message


async def test_tokens_are_fetched_once_and_renewed_before_they_end(chat, providers):
    """Requests share a token as long as it is good; one that is about to end is renewed first."""
    for _ in range(3):
        await chat.chat.completions.create(model="gemini", messages=ASKED)
    assert len(providers.tokens) == 1


async def test_tokens_that_are_about_to_end_are_renewed(chat, providers):
    """A token that ends within minutes is not used for another request."""
    providers.token_s = 60
    for _ in range(2):
        await chat.chat.completions.create(model="gemini", messages=ASKED)
    assert len(providers.tokens) == 2
