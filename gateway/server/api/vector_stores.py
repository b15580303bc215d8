"""`POST /v1/vector_stores/{id}/search`: the policy's passage stores, in OpenAI's shape."""

from __future__ import annotations

from aiohttp import web

from gateway.classification import labels
from gateway.errors import NotFound, PolicyDenied
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.retrieval.passage import Passage
from gateway.retrieval.rule import PassageStore
from gateway.routing.decide import searchable
from gateway.server.body import read_body
from gateway.server.keys import IDENTITY, POLICY, RECORD, SERVICES
from gateway.server.said import said_labels
from gateway.tenants.tenant import Tenant
from gateway.wire.openai_search import FoundText, SearchRequest, as_prompt, decode_search, encode_found


async def search(http: web.Request) -> web.Response:
    """The passages of one store that fit best, for whoever policy lets search it.

    Raises:
        NotFound: there is no such store for this tenant.
        PolicyDenied: a constraint keeps this query from the store.
        RetrievalFailed: the store could not be searched.
    """
    asked = decode_search(await read_body(http))
    policy, tenant = http[POLICY], http[IDENTITY].tenant
    named = labels.gather(
        tenant=tenant.labels,
        header=said_labels(http),
        metadata="",
        found=policy.tenants[tenant.name].found_in(as_prompt(asked)).labels,
    )
    rights = http[RECORD].labels = tuple(sorted(named))
    store = _store(policy, tenant, named, http.match_info["id"])
    passages: dict[str, Passage] = {}
    for query in asked.queries:
        results, _ = await http.app[SERVICES].retrieval.search(
            store, query, most=asked.most, tenant=tenant.name, rights=rights, filters=asked.filters
        )
        for passage in results.passages:
            if passage.id not in passages or passages[passage.id].score < passage.score:
                passages[passage.id] = passage
    return web.Response(body=encode_found(asked, _best(asked, passages)), content_type="application/json")


def _store(policy: CompiledPolicy, tenant: Tenant, named: frozenset[str], name: str) -> PassageStore:
    store = policy.stores.get(name)
    # A store of other tenants' is not told from one that is not there.
    if store is None or (store.tenants and tenant.name not in store.tenants):
        raise NotFound(f"There is no vector store {name[:80]!r} here.", param="vector_store_id")
    facts = Facts(
        tenant_name=tenant.name, tenant_region=tenant.region, tenant_labels=tenant.labels, model="", labels=named
    )
    if reason := searchable(policy, facts, store):
        raise PolicyDenied(f"This search is not allowed: {reason}.")
    return store


def _best(asked: SearchRequest, passages: dict[str, Passage]) -> list[FoundText]:
    found = sorted(passages.values(), key=lambda passage: (-passage.score, passage.id))
    return [
        FoundText(passage.id, passage.source, passage.score, passage.attributes, passage.text)
        for passage in found[: asked.most]
        if passage.score >= asked.least_score
    ]
