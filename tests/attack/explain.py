"""Random requests through a running gateway, each compared with what `policy explain` says of it, field by field.

    python -m tests.attack.explain --requests 10000 --seed 1

The gateway is whole (HTTP, keys, classifier, policy, store, cache, budgets, retries); its backends are scripted
servers, some of which fail for a while. What the gateway says that it decided from (`decisions.jsonl`) is held against
what was sent; what it did (headers, log record, error, who was called, what was kept or downgraded) against what is
explained.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from gateway.classification.language import language_in
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.replay import read
from gateway.policy.store import PolicyStore
from gateway.routing.explain import as_json, explain
from gateway.routing.proven import load_proven
from gateway.server.run import bind, listening
from gateway.services import Machine, Services
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedValkey
from gateway.telemetry.record import RequestRecord
from tests.upstream.script import Script
from tests.upstream.scripted import ScriptedUpstream

KEYS = {
    name: f"fd-{name}-key-for-the-comparison-0000000000000000000" for name in ("berlin", "boston", "clinic", "poor")
}
BACKENDS = ("eu", "north", "us", "phone")
PROMPTS = {
    "When does my parcel arrive?": "en",
    "Wann kommt mein Paket an?": "de",
    "Write to anna.schmidt@web.de about the card 4111 1111 1111 1111.": "",
    "42": "",
    "Bitte prüfe die IBAN DE89 3704 0044 0532 0130 00, ob sie richtig ist.": "de",
}
POLICY = """
backends:
  edge: {{type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}}
  eu: {{type: openai, base_url: "{eu}", region: eu-west, compliance: [gdpr]}}
  north: {{type: openai, base_url: "{north}", region: eu-north, compliance: [gdpr, zero-retention]}}
  us: {{type: openai, base_url: "{us}", region: us-east}}
  phone: {{type: openai, role: draft, base_url: "{phone}", region: eu-west, compliance: [gdpr]}}
models:
  large:
    - {{backend: eu, model: l, price: {{input: 2, output: 4}}, max_output_tokens: 200}}
    - {{backend: north, model: l, price: {{input: 3, output: 6}}, max_output_tokens: 200, context_tokens: 9000}}
  world:
    - {{backend: us, model: w, price: {{input: 5, output: 9}}, max_output_tokens: 300}}
    - {{backend: eu, model: s, price: {{input: 1, output: 1}}, max_output_tokens: 300, tools: false}}
  pocket: [{{backend: phone, model: p, price: free}}]
  small: [{{backend: edge}}]
stores:
  tickets: {{type: http, url: "{search}", id: vs, region: us-east, tenants: [boston, poor]}}
constraints:
  - name: personal
    when: tenant.region == "eu" && "personal" in request.labels
    require: {{region: [eu-*, local], compliance: [gdpr | no-egress]}}
  - name: health
    when: '"health" in request.labels'
    require: {{compliance: [zero-retention | no-egress]}}
  - name: minors
    when: request.metadata.audience == "minors"
    require: {{region: [eu-*, local]}}
routes:
  - {{name: dear, when: request.feature == "dear", mode: cloud_only, models: [world], when_budget_is_spent: cheapest}}
  - {{name: autocomplete, when: request.feature == "autocomplete", mode: edge_only}}
  - name: pocket
    when: request.feature == "pocket"
    mode: draft_refine
    models: [large]
    draft: {{model: pocket, default: frames}}
  - name: sure
    when: request.feature == "sure"
    mode: cascade
    models: [large]
    cascade: {{threshold: 0.8}}
  - {{name: quick, when: request.feature == "quick", mode: hedge, models: [large], hedge: {{after: 5s}}}}
  - name: cheap
    when: request.feature in ["batch", "cheap"] && budget.left > 0.0
    mode: cloud_only
    models: [world]
    optimize: {{cost: 1.0}}
    cache: {{ttl: 1h, temperature: any}}
    when_budget_is_spent: cheapest
  - name: support
    when: request.feature == "support"
    mode: cloud_only
    models: [world]
    retrieval: {{store: tickets}}
  - name: german
    when: request.language == "de"
    mode: cloud_only
    models: [large]
    cache: {{ttl: 1h, shared: true}}
  - name: long
    when: request.prompt_tokens > 2000 || request.max_tokens > 150
    mode: cloud_only
    models: [world]
    fallback: [large]
  - name: again
    when: request.feature == "again"
    mode: cloud_only
    fallback: [world]
    cache: {{ttl: 1h, shared: true}}
  - {{name: rest, mode: cloud_only, fallback: [world], cache: {{ttl: 1h, shared: true}}}}
tenants:
  berlin: {{region: eu, classification: {{limit: 1s}}, keys: [{{name: k, sha256: {berlin}}}]}}
  boston:
    region: us
    classification: {{limit: 1s}}
    keys: [{{name: k, sha256: {boston}}}]
    budgets: [{{usd: 50, per: day}}]
  clinic: {{region: eu, classification: {{limit: 1s}}, labels: [health], keys: [{{name: k, sha256: {clinic}}}]}}
  poor:
    region: us
    classification: {{limit: 1s}}
    keys: [{{name: k, sha256: {poor}}}]
    budgets: [{{usd: 0.01, per: minute}}]
"""
PRIVATE = "between you and me"
"""No condition asks for it, so nothing may write it down."""
FEATURES = ("", "chat", "autocomplete", "pocket", "sure", "quick", "batch", "cheap", "support", "again", "dear", "dear")


@dataclass
class Sent:
    """One request as a client makes it."""

    tenant: str
    feature: str
    labels: tuple[str, ...]
    body: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        found = {"authorization": f"Bearer {KEYS[self.tenant]}"}
        if self.feature:
            found["x-firstdraft-feature"] = self.feature
        if self.labels:
            found["x-firstdraft-labels"] = ",".join(self.labels)
        return found

    @property
    def prompt(self) -> str:
        content = self.body["messages"][0]["content"]
        return content if isinstance(content, str) else content[0]["text"]


@dataclass
class Seen:
    """What came of it."""

    status: int
    headers: dict[str, str]
    error: dict[str, Any] | None
    record: RequestRecord
    called: list[str]
    """Backends that had a request, in order."""
    facts: Facts | None
    """From which the gateway says that it decided; None: it had decided before."""


@dataclass
class Outcome:
    """What was compared, and where it differed."""

    requests: int = 0
    differing: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """Of everything that can happen, how often it did."""


def random_request(chance: random.Random) -> Sent:
    """What a client could send; one in forty names a model that there is not."""
    text, feature = chance.choice(list(PROMPTS)), chance.choice(FEATURES)
    if chance.random() < (0.5 if feature == "dear" else 0.05):
        text += " word" * chance.choice((700, 900, 5_000))
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if chance.random() < 0.06:
        parts.append({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}})
    if chance.random() < 0.03:
        parts.append({"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}})
    content = text if len(parts) == 1 else parts
    models = ("large", "large", "world", "small", "pocket", *["no-such"] * (chance.random() < 0.12))
    body: dict[str, Any] = {"model": chance.choice(models), "messages": [{"role": "user", "content": content}]}
    for share, more in (
        (0.5, {"temperature": 0}),
        (0.4, {"stream": True}),
        (0.3, {"max_tokens": chance.choice((1, 16, 100, 180))}),
        (0.1, {"tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}]}),
        (0.06, {"response_format": {"type": "json_object"}}),
        (0.05, {"logprobs": True}),
        (0.05, {"n": 2}),
        (0.2, {"draft": chance.choice(("off", "frames", "reasoning"))}),
        (0.3, {"metadata": {"audience": chance.choice(("minors", "adults")), "note": PRIVATE}}),
    ):
        if chance.random() < share:
            body.update(more)
    labels = tuple(chance.sample(("personal", "health", "other"), chance.choice((0, 0, 0, 1, 2))))
    return Sent(chance.choice([*KEYS, *["poor"] * 4 * (feature == "dear")]), feature, labels, body)


Make = Callable[[random.Random], Sent]


class Decisions:
    """Takes the place of the log of decisions: every one is kept, until it is looked at."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.written = b""

    def wants_one(self) -> bool:
        return True

    def add(self, line: bytes) -> None:
        self.lines.append(line)

    def taken(self) -> Facts | None:
        """The facts of the last decision since the last call; None where there was none."""
        found = read(self.lines)
        self.written += b"".join(self.lines)
        self.lines.clear()
        return found[-1].facts if found else None


class Comparison:
    """One gateway with its backends, and what is known of its cache."""

    def __init__(self, services: Services, url: str, backends: dict[str, ScriptedUpstream]) -> None:
        self.outcome = Outcome()
        self._services = services
        self._url = f"{url}/v1/chat/completions"
        self._backends = backends
        self._decisions = Decisions()
        services.pipeline._decisions = self._decisions
        self._kept: set[str] = set()
        self._told: dict[str, dict[str, Any]] = {}

    @property
    def _policy(self) -> CompiledPolicy:
        return self._services.policy.current

    async def run(self, requests: int, chance: random.Random, make: Make) -> Outcome:
        """One request after the other, so that it is known which call belongs to which."""
        fails = dict.fromkeys(self._backends, 0)
        async with aiohttp.ClientSession() as session:
            for _ in range(requests):
                for name, left in fails.items():
                    fails[name] = left - 1 if left else (8 if chance.random() < 0.004 and name != "phone" else 0)
                    self._backends[name].default = Script(status=503 if fails[name] else 200)
                sent = make(chance)
                self._compare(sent, await self._ask(session, sent))
        return self.outcome

    async def _ask(self, session: aiohttp.ClientSession, sent: Sent) -> Seen:
        for backend in self._backends.values():
            backend.requests.clear()
        async with session.post(self._url, json=sent.body, headers=sent.headers) as response:
            text = await response.read()
            headers = {name.lower(): value for name, value in response.headers.items()}
        error = json.loads(text).get("error") if response.status >= 400 else None
        tenant, record = sent.tenant, None
        async with asyncio.timeout(10):
            while (record := self._services.recent.get(tenant, headers["x-request-id"])) is None:
                await asyncio.sleep(0)
        calls = [(one.at, name) for name, backend in self._backends.items() for one in backend.requests]
        called = [name for _, name in sorted(calls)]
        return Seen(response.status, headers, error, record, called, self._decisions.taken())

    def _compare(self, sent: Sent, seen: Seen) -> None:
        self.outcome.requests += 1
        same = json.dumps([sent.tenant, sent.feature, sent.labels, sent.body], sort_keys=True)
        if seen.facts is None:
            told = self._told[same]  # the same request a moment ago: nothing was decided anew
        else:
            self._check_facts(sent, seen.facts)
            told = self._told[same] = as_json(explain(self._policy, seen.facts))
        before = len(self.outcome.differing)
        self._check_privacy(sent, seen)
        self._check_decision(told, seen)
        if told["refusal"] is not None:
            self._check_refusal(told, seen)
        else:
            self._check_places(told, seen)
            self._check_cache(sent, told, seen)
        if len(self.outcome.differing) > before:
            self.outcome.differing.append(f"    by {same} with {seen.record.fields()}")

    def _same(self, what: str, told: object, seen: object) -> None:
        if told != seen:
            self.outcome.differing.append(f"{what}: explained {told!r}, seen {seen!r}")

    def _check_facts(self, sent: Sent, facts: Facts) -> None:
        """The gateway decided from what was sent."""
        tenant, body, text = self._policy.tenants[sent.tenant].tenant, sent.body, json.dumps(sent.body)
        self._same("tenant", tenant.name, facts.tenant_name)
        self._same("region", tenant.region, facts.tenant_region)
        self._same("tenant's labels", tenant.labels, facts.tenant_labels)
        self._same("feature", sent.feature, facts.feature)
        self._same("model", body["model"], facts.model)
        found = {"personal"} if "anna.schmidt" in sent.prompt or "IBAN" in sent.prompt else set()
        found |= {"unclassified"} if "base64" in text or "input_audio" in text else set()
        named = {label for label in facts.labels if not label.startswith("personal.")}
        self._same("labels", set(sent.labels) | found | tenant.labels, named)
        self._same("limit", body.get("max_tokens"), facts.max_tokens)
        for name, asked in (
            ("stream", "stream" in body),
            ("tools", "tools" in body),
            ("images", "image_url" in text),
            ("audio", "input_audio" in text),
            ("json_output", "response_format" in body),
            ("logprobs", "logprobs" in body),
        ):
            self._same(name, asked, getattr(facts, name))
        self._same("n", body.get("n", 1), facts.n)
        self._same("language", language_in(sent.prompt), facts.language)
        asked_for = {name: value for name, value in body.get("metadata", {}).items() if name == "audience"}
        self._same("metadata", asked_for, facts.metadata)
        self._same("draft", body.get("draft"), None if facts.draft is None else facts.draft.value)

    def _check_privacy(self, sent: Sent, seen: Seen) -> None:
        """Neither the log's line nor the recorded decision has a word of the prompt, of the answer or of a key."""
        written = json.dumps(seen.record.fields()) + self._decisions.written.decode()
        self._decisions.written = b""
        secrets = (sent.prompt if len(sent.prompt) > 2 else PRIVATE, PRIVATE, Script().text, KEYS[sent.tenant], "anna")
        self._same("written down", [], [secret for secret in secrets if secret in written])

    def _check_decision(self, told: dict[str, Any], seen: Seen) -> None:
        """Headers and record say what was explained."""
        record, headers = seen.record, seen.headers
        self._same("policy", (told["policy_version"],) * 2, (record.policy, headers.get("x-firstdraft-policy")))
        self._same("route", (told["route"],) * 2, (record.route, headers.get("x-firstdraft-route", "")))
        self._same("no draft", told["no_draft"], record.no_draft)
        shown = told["no_draft"] if told["draft_wish"] != "off" or told["cascade"] is not None else ""
        if told["refusal"] is None:
            self._same("no draft, told", shown, headers.get("x-firstdraft-no-draft", ""))
        downgraded = record.hold == "downgraded"
        self._same("downgrade, told", "downgraded" if downgraded else None, headers.get("x-firstdraft-budget"))
        mode = told["spent_mode"] if downgraded else told["mode"]
        self._same("mode", mode, record.mode)
        if told["refusal"] is None:
            self._same("mode, told", mode, headers.get("x-firstdraft-mode"))
        denied = told["no_retrieval"] != "" and told["refusal"] is None
        if told["retrieval"] is None:
            self._same("retrieval", "denied" if denied else "", record.retrieval)
        self.outcome.kinds.update([f"route {told['route']}", f"mode {mode}", *(["retrieval denied"] if denied else [])])

    def _check_refusal(self, told: dict[str, Any], seen: Seen) -> None:
        """Nobody was called, and the client got the words of the explanation."""
        refusal, error = told["refusal"], seen.error or {}
        self._same("status", refusal["status"], seen.status)
        self._same("code", refusal["code"], error.get("code"))
        self._same("code, logged", refusal["code"] or "invalid_request_error", seen.record.error)
        self._same("message", refusal["message"], error.get("message"))
        self._same("called", [], seen.called)
        self.outcome.kinds[f"refused {refusal['code']}"] += 1

    def _check_places(self, told: dict[str, Any], seen: Seen) -> None:
        """Whoever was called may be, in the order that was explained; the log names just those."""
        record, policy = seen.record, self._policy
        downgraded = record.hold == "downgraded"
        allowed = told["spent"] if downgraded else told["deployments"]
        asked = [one for one in record.attempts if one.outcome not in {"paused", "over_budget"}]
        finals = [one.deployment for one in asked if one.role == "final"]
        order = list(dict.fromkeys(finals))
        places = [allowed.index(name) if name in allowed else -1 for name in order]
        self._same("asked", sorted(places), places)
        self._same("asked outside", [], [name for name in order if name not in allowed])
        drafts = [one.deployment for one in asked if one.role == "draft"]
        self._same("drafts outside", [], [name for name in drafts if name != told["draft"]])
        made = [policy.deployments[one.deployment].backend.name for one in asked]
        cloud = Counter(name for name in made if name in self._backends)
        self._same("calls", dict(cloud), dict(Counter(seen.called)))
        if seen.status == 200 and record.cache != "hit":
            header = seen.headers.get("x-firstdraft-deployment")
            if header is not None or not (record.stream and record.draft):  # a shown draft takes the headers with it
                self._same("answered by", record.deployment, header)
            self._same("answered outside", True, record.deployment in {*allowed, told["draft"]})
        if order and record.hold != "refused":
            best = next((name for name in allowed if name in order), None)
            self._same("first", best, order[0])
        kinds = {"downgraded": downgraded, "failed over": len(order) > 1, "drafted": bool(drafts)}
        kinds |= {"budget refused": seen.record.hold == "refused", "failed": seen.status >= 500}
        self.outcome.kinds.update(name for name, holds in kinds.items() if holds)

    def _check_cache(self, sent: Sent, told: dict[str, Any], seen: Seen) -> None:
        """What was kept is given again to the same request under the same terms, and to nobody else."""
        rule, body, state = told["cache"], sent.body, seen.headers.get("x-firstdraft-cache")
        cacheable = rule is not None and (rule["any_temperature"] or body.get("temperature") == 0)
        if not cacheable or body.get("n", 1) > 1:
            self._same("cache", "bypass", state)
            return
        asked = {name: value for name, value in body.items() if name not in {"stream", "draft"}}
        owner = "" if rule["shared"] else sent.tenant
        places = sorted(told["deployments"])
        key = json.dumps([owner, asked, told["route"], places, sorted(seen.record.labels)], sort_keys=True)
        self._same("cache", "hit" if key in self._kept else "miss", state)
        if state == "hit":
            self._same("called for what was kept", [], seen.called)
        elif seen.status == 200 and seen.record.deployment in told["deployments"][: told["first_choices"]]:
            self._kept.add(key)  # what a fallback said is not kept
        self.outcome.kinds[f"cache {state}"] += 1


async def attack(requests: int, seed: int = 1, make: Make = random_request) -> Outcome:
    """Start everything, compare so many requests that `make` makes, stop everything."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fd-explain-")))
        backends = {name: await stack.enter_async_context(ScriptedUpstream()) for name in BACKENDS}
        urls = {name: backend.base_url for name, backend in backends.items()}
        hashes = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
        (folder / "policies").mkdir()
        text = POLICY.format(**urls, **hashes, search=f"{urls['us']}/nowhere")
        (folder / "policies/policy.yaml").write_text(text)
        valkey = await stack.enter_async_context(EmbeddedValkey(folder / "store"))
        settings = Settings(policies=folder / "policies", state=folder / "state", port=0, edge=False, drain_s=1.0)
        watched = await stack.enter_async_context(PolicyStore(settings.policies, {}, load=load_proven))
        machine = Machine(store_url=valkey.url, edge_socket=None)
        found = await stack.enter_async_context(listening(settings, machine, watched, bind(settings), asyncio.Event()))
        return await Comparison(found.services, found.url, backends).run(requests, random.Random(seed), make)


def main() -> None:
    """Print what happened how often, and what differed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)  # of the scripted servers, whose clients leave
    outcome = asyncio.run(attack(given.requests, given.seed))
    for kind, number in sorted(outcome.kinds.items()):
        print(f"{number:7} {kind}")
    print(*outcome.differing[:40], sep="\n")
    print(f"{outcome.requests} requests, {len(outcome.differing)} differences")
    raise SystemExit(bool(outcome.differing))


if __name__ == "__main__":
    main()
