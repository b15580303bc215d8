"""Passages in prompts, and their search, through a whole gateway, a real store and a scripted backend."""

import asyncio
import json
import time

import aiohttp
import anthropic
import numpy as np
import openai
import pytest
from aiohttp import web

from gateway.cache.entry import EntryCodec
from gateway.errors import RetrievalFailed
from gateway.inference.deployment import Secret
from gateway.retrieval import found as found_module
from gateway.retrieval.found import FoundBefore
from gateway.retrieval.index_folder import IndexFolder
from gateway.retrieval.indexing import build
from gateway.retrieval.passage import Passage, Results
from gateway.retrieval.qdrant import QdrantSearch
from gateway.retrieval.rule import PassageStore
from gateway.retrieval.stores import Retrieval
from tests.gateway_fixture import KEY, OTHER_KEY, policy_text
from tests.upstream.script import Script

pytestmark = pytest.mark.store

QUESTION = "How many days of holiday do I have?"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def documents(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\nEverybody has thirty days of holiday.")
    (folder / "pay.md").write_text("# Pay\n\nSalaries are paid monthly, also in the holiday season.")
    return folder


def index(tmp_path, documents):
    build(documents, IndexFolder(tmp_path / "state", "handbook"), None)


def policy(upstream, *, store="type: files", retrieval="", route="", more=""):
    route = f"mode: cloud_only\n    models: [large]\n    retrieval: {{store: handbook{retrieval}}}\n    {route}"
    return policy_text(upstream.base_url, route=route) + f"\nstores:\n  handbook: {{{store}}}\n{more}"


async def ask(http, gateway, text=QUESTION, *, key=KEY, headers=None, messages=None, **fields):
    messages = messages or [{"role": "user", "content": text}]
    body = {"model": "large", "messages": messages, "temperature": 0, **fields}
    auth = {"authorization": f"Bearer {key}", **(headers or {})}
    async with http.post(f"{gateway.base_url}/chat/completions", json=body, headers=auth) as response:
        return response.status, response.headers, await response.read()


@pytest.fixture
async def gateway(start_gateway, upstream, tmp_path, documents):
    index(tmp_path, documents)
    return await start_gateway(policy(upstream), edge=False)


async def test_passages_go_to_the_backend(gateway, upstream, http):
    """One system message after the client's own, in the order of the documents, and everything else as it was."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "x_unknown": 1},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": QUESTION},
    ]
    status, headers, _ = await ask(http, gateway, messages=messages)
    assert status == 200
    first, added, *rest = upstream.requests[0].json["messages"]
    assert (first, rest) == (messages[0], messages[1:])
    assert added["role"] == "system"
    assert added["content"].index("[leave.md]") < added["content"].index("[pay.md]")
    assert "thirty days" in added["content"]
    assert headers["x-firstdraft-retrieval"] == "searched"
    assert headers["x-firstdraft-sources"] == "leave.md, pay.md"


async def test_sources_are_in_a_plain_answer(gateway, upstream, http):
    """One more top-level member, which SDKs carry along; the backend's own members stay byte for byte."""
    _, _, body = await ask(http, gateway)
    answer = json.loads(body)
    assert answer["sources"] == ["leave.md", "pay.md"]
    assert answer["choices"][0]["message"]["content"]


async def test_sdk_takes_such_an_answer(gateway, upstream):
    """The official SDK reads answer and stream as ever, and gives out the sources."""
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY) as client:
        answer = await client.chat.completions.create(model="large", messages=[{"role": "user", "content": QUESTION}])
        assert answer.sources == ["leave.md", "pay.md"]
        async with client.chat.completions.stream(
            model="large", messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            assert (await stream.get_final_completion()).choices[0].message.content


async def test_sources_are_in_answers_of_other_schemas(gateway, upstream, http):
    """A response and a message name their sources beside what the schema has; both official SDKs give them out."""
    url = gateway.base_url
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
        response = await client.responses.create(model="large", input=QUESTION)
        assert (response.sources, bool(response.output_text)) == (["leave.md", "pay.md"], True)
    async with anthropic.AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key=KEY) as client:
        asked = [{"role": "user", "content": QUESTION}]
        message = await client.messages.create(model="large", max_tokens=50, messages=asked)
        assert (message.sources, message.stop_reason) == (["leave.md", "pay.md"], "end_turn")


async def test_sources_are_in_the_first_draft_frame(start_gateway, upstream, http, tmp_path, documents):
    """On each surface the first frame of a draft names them, where every SDK looks past it."""
    index(tmp_path, documents)
    upstream.default = Script(think_s=2.0)
    source = policy(upstream).replace(
        "mode: cloud_only\n    models: [large]", "mode: draft_refine\n    models: [large]"
    )
    gateway = await start_gateway(source)
    auth = {"authorization": f"Bearer {KEY}"}
    asked = {"model": "large", "stream": True, "draft": "frames"}
    messages = [{"role": "user", "content": QUESTION}]
    for path, body in (
        ("chat/completions", {"messages": messages}),
        ("responses", {"input": QUESTION}),
        ("messages", {"messages": messages, "max_tokens": 40}),
    ):
        async with http.post(f"{gateway.base_url}/{path}", json=asked | body, headers=auth) as response:
            lines = [line[6:] async for line in response.content if line.startswith(b"data: {")]
        drafts = [value["draft"] for line in lines if "draft" in (value := json.loads(line))]
        assert drafts[0]["sources"] == ["leave.md", "pay.md"], path
        assert not any("sources" in draft for draft in drafts[1:])


async def test_what_is_found_again_is_not_searched_again(gateway, upstream, http):
    """The second time the result comes from the cache; another tenant, label or question is searched anew."""
    states = [
        (await ask(http, gateway, text, key=key, headers=headers))[1]["x-firstdraft-retrieval"]
        for text, key, headers in (
            (QUESTION, KEY, None),
            (QUESTION.upper() + "  ", KEY, None),
            (QUESTION, OTHER_KEY, None),
            (QUESTION, KEY, {"x-firstdraft-labels": "internal"}),
            ("holiday", KEY, None),
        )
    ]
    assert states == ["searched", "hit", "searched", "searched", "searched"]


async def test_a_changed_document_is_in_the_next_answer(start_gateway, upstream, http, tmp_path, documents):
    """Neither a kept result nor a kept answer is given from the old version."""
    index(tmp_path, documents)
    gateway = await start_gateway(policy(upstream, route="cache: {ttl: 1h}"), edge=False)
    for expected in ("miss", "hit"):
        assert (await ask(http, gateway))[1]["x-firstdraft-cache"] == expected
    (documents / "leave.md").write_text("# Leave\n\nEverybody has forty days of holiday.")
    index(tmp_path, documents)
    _, headers, _ = await ask(http, gateway)
    assert (headers["x-firstdraft-cache"], headers["x-firstdraft-retrieval"]) == ("miss", "searched")
    assert "forty days" in upstream.requests[-1].json["messages"][0]["content"]


async def test_passages_are_bounded(start_gateway, upstream, http, tmp_path, documents):
    """What does not fit into the route's tokens stays out; what fits goes in."""
    (documents / "long.md").write_text("holiday " * 140)
    index(tmp_path, documents)
    gateway = await start_gateway(policy(upstream, retrieval=", max_tokens: 40"), edge=False)
    _, headers, _ = await ask(http, gateway)
    assert "long.md" not in headers["x-firstdraft-sources"]
    assert len(upstream.requests[0].json["messages"][0]["content"]) < 400


async def test_passages_are_in_the_hold(start_gateway, upstream, http, tmp_path, documents):
    """A budget that has room for the question alone refuses the question with its passages."""
    (documents / "long.md").write_text("# Holiday\n\n" + "holiday and more holiday. " * 40)
    index(tmp_path, documents)
    budgets = "budgets: [{tokens: 600, per: day}]"
    for text, expected in ((QUESTION, 429), ("Unheard-of words", 200)):
        upstream.default = Script(text="Yes.")
        source = policy(upstream).replace("keys: [{name: prod", f"{budgets}\n    keys: [{{name: prod", 1)
        gateway = await start_gateway(source.replace("acme:", f"acme{expected}:"), edge=False)
        assert (await ask(http, gateway, text, max_tokens=5))[0] == expected


@pytest.mark.parametrize(("when", "expected"), [("answer", 200), ("reject", 503)])
async def test_retrieval_that_fails(start_gateway, upstream, http, when, expected):
    """Without an index the route answers without passages and says so, or refuses, as it says."""
    gateway = await start_gateway(policy(upstream, retrieval=f", when_retrieval_fails: {when}"), edge=False)
    status, headers, body = await ask(http, gateway)
    assert (status, headers["x-firstdraft-retrieval"]) == (expected, "failed")
    assert status == 200 or json.loads(body)["error"]["code"] == "retrieval_failed"


@pytest.mark.parametrize(("when", "expected"), [("answer", 200), ("reject", 403)])
async def test_constraints_hold_for_stores(start_gateway, upstream, http, tmp_path, documents, when, expected):
    """A store in the wrong place gives no passages to a request that must not go there."""
    index(tmp_path, documents)
    inside = "constraints:\n  - {name: inside, when: '\"internal\" in request.labels', require: {region: [eu-west]}}"
    source = policy(upstream, store="type: files, region: us-east", retrieval=f", when_retrieval_fails: {when}")
    source = source.replace("constraints:", inside)
    gateway = await start_gateway(source, edge=False)
    assert (await ask(http, gateway))[1]["x-firstdraft-retrieval"] == "searched"
    status, headers, _ = await ask(http, gateway, headers={"x-firstdraft-labels": "internal"})
    assert status == expected
    if status == 200:
        assert headers["x-firstdraft-retrieval"] == "denied"
        assert len(upstream.requests[-1].json["messages"]) == 1


async def test_a_store_of_one_tenant(start_gateway, upstream, http, tmp_path, documents):
    """Another tenant's requests get no passages, and its searches find no such store."""
    index(tmp_path, documents)
    gateway = await start_gateway(policy(upstream, store="type: files, tenants: [acme]"), edge=False)
    assert (await ask(http, gateway))[1]["x-firstdraft-retrieval"] == "searched"
    assert (await ask(http, gateway, key=OTHER_KEY))[1]["x-firstdraft-retrieval"] == "denied"
    url = f"{gateway.base_url}/vector_stores/handbook/search"
    for key, expected in ((KEY, 200), (OTHER_KEY, 404)):
        async with http.post(url, json={"query": "x"}, headers={"authorization": f"Bearer {key}"}) as response:
            assert response.status == expected


async def test_the_edge_reads_the_same_passages(start_gateway, upstream, http, tmp_path, documents):
    """What the edge is given is what the backend would be given."""
    index(tmp_path, documents)
    source = policy(upstream).replace("mode: cloud_only\n    models: [large]", "mode: edge_only\n    models: [small]")
    gateway = await start_gateway(source)
    without = await start_gateway(policy_text(upstream.base_url))

    async def tokens(gateway, model):
        _, _, body = await ask(http, gateway, model=model, max_tokens=2)
        return json.loads(body)["usage"]["prompt_tokens"]

    assert await tokens(gateway, "large") > await tokens(without, "small") + 20


# --- the search itself ----------------------------------------------------------------------------------------


async def test_search_in_openais_shape(gateway):
    """The official SDK searches a store: one query or several, filters, a number of results, a threshold."""
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=KEY) as client:
        page = await client.vector_stores.search("handbook", query="thirty days of holiday")
        assert page.data[0].filename == "leave.md"
        assert "thirty" in page.data[0].content[0].text
        assert page.data[0].attributes["source"] == "leave.md"
        both = await client.vector_stores.search("handbook", query=["holiday", "salaries"], max_num_results=1)
        assert len(both.data) == 1
        only = {"type": "eq", "key": "source", "value": "pay.md"}
        filtered = await client.vector_stores.search("handbook", query="holiday", filters=only)
        assert [one.filename for one in filtered.data] == ["pay.md"]
        with pytest.raises(openai.NotFoundError):
            await client.vector_stores.search("elsewhere", query="x")
        with pytest.raises(openai.BadRequestError, match="filters"):
            await client.vector_stores.search("handbook", query="x", filters={"type": "like"})


WRONG = [b"", b"[]", b'{"query":""}', b'{"query":[]}', b'{"query":7}', b'{"query":"x","max_num_results":0}', b'{"a":1}']


@pytest.mark.parametrize("body", WRONG)
async def test_searches_that_are_none(gateway, http, body):
    """They are refused in OpenAI's shape."""
    async with http.post(
        f"{gateway.base_url}/vector_stores/handbook/search", data=body, headers=gateway.auth
    ) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


# --- stores elsewhere -----------------------------------------------------------------------------------------


class Elsewhere:
    """A vector store behind HTTP that does as it is told."""

    def __init__(self):
        self.seen = []
        self.status, self.body, self.wait_s = 200, None, 0.0

    async def search(self, request):
        self.seen.append((request.match_info["id"], dict(request.headers), await request.json()))
        await asyncio.sleep(self.wait_s)
        data = [{"file_id": "f1", "filename": "a.md", "score": 0.9, "content": [{"type": "text", "text": "Found."}]}]
        body = self.body if self.body is not None else json.dumps({"data": data}).encode()
        return web.Response(status=self.status, body=body, content_type="application/json")


@pytest.fixture
async def elsewhere():
    stub = Elsewhere()
    app = web.Application()
    app.router.add_post("/v1/vector_stores/{id}/search", stub.search)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield stub
    await runner.cleanup()


@pytest.fixture
async def retrieval(store, tmp_path):
    async with Retrieval(tmp_path / "state", FoundBefore(store, b"s", EntryCodec(1_000_000, None))) as opened:
        yield opened


def http_store(elsewhere, **more):
    given = {"url": elsewhere.url, "id": "vs 1", "api_key": Secret("sk-store"), "timeout_s": 0.5}
    return PassageStore(name="wiki", type="http", **(given | more))


async def test_a_store_behind_http(retrieval, elsewhere):
    """It is asked in OpenAI's shape, with its key, filters and number; its answer becomes passages."""
    wanted = {"type": "eq", "key": "a", "value": 1}
    results, _ = await retrieval.search(
        http_store(elsewhere), "Hi there", most=3, tenant="acme", rights=(), filters=wanted
    )
    assert [(passage.source, passage.text) for passage in results.passages] == [("a.md", "Found.")]
    ((name, headers, body),) = elsewhere.seen
    assert (name, headers["Authorization"]) == ("vs 1", "Bearer sk-store")
    assert body == {"query": "Hi there", "max_num_results": 3, "filters": wanted}


FAULTS = {
    "a refusal": {"status": 500},
    "a redirection": {"status": 302},
    "no JSON": {"body": b"<html>"},
    "another JSON": {"body": b'{"error": "no"}'},
    "bad UTF-8": {"body": b'{"data":[{"filename":"\xff"}]}'},
    "too slow": {"wait_s": 1.0},
    "too large": {"body": b" " * 5_000_000},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_store_behind_http_that_fails(retrieval, elsewhere, fault):
    """Whatever is wrong with it is one error, within the time limit, and nothing is kept."""
    for name, value in fault.items():
        setattr(elsewhere, name, value)
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(RetrievalFailed):
            await retrieval.search(http_store(elsewhere), "x", most=1, tenant="acme", rights=())
        assert time.monotonic() - began < 5
    assert len(elsewhere.seen) == 2


async def test_a_version_in_the_policy(retrieval, elsewhere):
    """Documents elsewhere change unseen: a new version in the policy makes every result be searched anew."""
    for version, expected in (("1", False), ("1", True), ("2", False)):
        _, found_before = await retrieval.search(
            http_store(elsewhere, version=version), "x", most=1, tenant="acme", rights=()
        )
        assert found_before is expected


class Letters:
    """Embeds by letters: enough to find a text again."""

    name = "letters"

    def embed(self, texts):
        vectors = np.zeros((len(texts), 26), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for letter in text.lower():
                if "a" <= letter <= "z":
                    row[ord(letter) - ord("a")] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


async def test_a_store_in_qdrant():
    """Through Qdrant's own client: points become passages, payloads attributes, and a filter chooses."""
    library = pytest.importorskip("qdrant_client")
    client, embedder = library.AsyncQdrantClient(":memory:"), Letters()
    models = library.models
    params = models.VectorParams(size=26, distance=models.Distance.COSINE)
    await client.create_collection("tickets", vectors_config=params)
    texts = ["printer jam", "holiday rules", "laptop broken"]
    points = [
        models.PointStruct(
            id=number, vector=vector.tolist(), payload={"body": text, "file": f"{number}.md", "n": number}
        )
        for number, (text, vector) in enumerate(zip(texts, embedder.embed(texts), strict=True))
    ]
    await client.upsert("tickets", points)
    await client.upsert("tickets", [models.PointStruct(id=9, vector=[1.0] * 26, payload={"file": "no text"})])
    place = PassageStore(name="t", type="qdrant", url="x", id="tickets", text_field="body", source_field="file")
    search = QdrantSearch(place, lambda: embedder, client)
    results = await search.search("holiday rules", 2, None, None)
    assert (results.passages[0].text, results.passages[0].source) == ("holiday rules", "1.md")
    assert results.passages[0].attributes == {"file": "1.md", "n": 1}
    only = await search.search("holiday rules", 2, None, lambda attributes: attributes.get("n") == 2)
    assert [passage.text for passage in only.passages] == ["laptop broken"]
    gone = PassageStore(name="t", type="qdrant", url="x", id="nowhere")
    with pytest.raises(RetrievalFailed):
        await QdrantSearch(gone, lambda: embedder, client).search("x", 1, None, None)
    await search.close()


# --- results that are kept ------------------------------------------------------------------------------------

RESULTS = Results((Passage(id="a#0", source="a", text="text", score=1.5),), "v1")


async def test_results_are_shared_by_replicas(store):
    """What one found, another finds in the store, sealed or not; the key depends on everything asked."""
    one, other = [FoundBefore(store, b"s", EntryCodec(1_000_000, None)) for _ in range(2)]
    await one.put(one.key("acme", "x"), RESULTS, 60)
    assert await other.get(other.key("acme", "x")) == RESULTS
    assert await other.get(other.key("globex", "x")) is None
    assert one.key("a", "b c") != one.key("a b", "c")


async def test_results_expire_softly(store, monkeypatch):
    """Near its end a result is searched anew by some, and given to the others; after its end by all."""
    monkeypatch.setattr(found_module, "_LOCAL_S", 0.0)
    before = FoundBefore(store, b"s", EntryCodec(1_000_000, None))
    await before.put("k", RESULTS, 1.0)
    now = time.time()
    monkeypatch.setattr(found_module.time, "time", lambda: now)
    assert all([await before.get("k") for _ in range(50)])
    now += 0.97
    given = [await before.get("k") for _ in range(200)]
    assert 0 < sum(found is None for found in given) <= 200
    now += 0.2
    assert await before.get("k") is None


async def test_entries_that_are_none(store):
    """Whatever stands under a key, it is a result or nothing."""
    before = FoundBefore(store, b"s", EntryCodec(1_000_000, None))
    for number, data in enumerate([b"", b"\x01", b"\x02x", b"\xff", b"\x01\xc0"]):
        await store.set(f"fd1:found:{number}", data, ttl_s=60)
        assert await before.get(str(number)) is None
