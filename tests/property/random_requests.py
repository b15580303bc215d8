"""Random requests for a policy, and random conditions: what a client could send, the odd included."""

from __future__ import annotations

import random

from gateway.inference.request import DraftWish
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts

LABELS = ("personal", "health", "secret", "other", "public.data")
FEATURES = (
    "",
    "chat",
    "batch",
    "autocomplete",
    "vault",
    "contracts",
    "search",
    "odd-one",
    "sure",
    "quick",
    "pocket",
    "support",
)
AUDIENCES = ("minors", "adults", "")


def random_facts(chance: random.Random, policy: CompiledPolicy) -> Facts:
    """One request of one of the policy's tenants; one in fifty names a model that there is not."""
    name = chance.choice(list(policy.tenants))
    tenant = policy.tenants[name].tenant
    deployments = list(policy.deployments)
    models = [*policy.models] * 10 + ["no-such-model"]
    return Facts(
        tenant_name=name,
        tenant_region=tenant.region,
        tenant_labels=tenant.labels,
        feature=chance.choice(FEATURES),
        model=chance.choice(models),
        labels=frozenset(chance.sample(LABELS, chance.choice((0, 0, 1, 1, 2, 3)))),
        prompt_tokens=int(10 ** chance.uniform(0, 5.5)),
        max_tokens=chance.choice((None, 1, 16, 64, 65, 500, 10_000)),
        stream=chance.random() < 0.5,
        tools=chance.random() < 0.15,
        images=chance.random() < 0.1,
        audio=chance.random() < 0.05,
        json_output=chance.random() < 0.1,
        logprobs=chance.random() < 0.05,
        n=chance.choice((1, 1, 1, 1, 2)),
        language=chance.choice(("", "en", "de")),
        metadata={"audience": chance.choice(AUDIENCES)} if chance.random() < 0.4 else {},
        hour=chance.randrange(24),
        budget_left=chance.choice((0.0, 0.05, 0.1, 0.5, 1.0)),
        unhealthy=frozenset(chance.sample(deployments, chance.choice((0, 0, 0, 1, len(deployments))))),
        edge_ready=chance.random() < 0.8,
        edge_context_tokens=chance.choice((0, 2_048, 8_192)),
        draft=chance.choice((None, *DraftWish)),
    )


ATOMS = (
    'tenant.region == "eu"',
    'tenant.name != "acme"',
    '"paying" in tenant.labels',
    'request.feature == "batch"',
    'request.feature in ["chat", "vault"]',
    'request.feature.startsWith("auto")',
    'request.feature.endsWith("t")',
    'request.feature.contains("a")',
    'request.model == "large"',
    '"health" in request.labels',
    '!("personal" in request.labels)',
    'request.labels.exists(l, l.startsWith("pers"))',
    'request.labels.all(l, l != "secret")',
    "size(request.labels) > 1",
    "request.prompt_tokens > 1000",
    "request.max_tokens <= 64",
    "request.n == 1",
    "request.stream",
    "request.tools == false",
    "request.hour >= 6 && request.hour < 20",
    "request.hour in [1, 2, 3]",
    "budget.left < 0.1",
    "backend.edge_ready",
    '"openai-us/gpt-4.1" in backend.unhealthy',
    "has(request.metadata.audience)",
    'request.metadata.audience == "minors"',
    '"audience" in request.metadata',
    'request.metadata["audience"].startsWith("min")',
    "request.prompt_tokens / request.max_tokens > 10",
    "request.prompt_tokens + request.max_tokens > 2000",
    'request.feature.matches("^[a-c]")',
    'request.language == "de"',
)


def random_condition(chance: random.Random, depth: int = 3) -> str:
    """A condition of the atoms above, joined and negated at random."""
    if depth == 0 or chance.random() < 0.25:
        return chance.choice(ATOMS)
    left, right = random_condition(chance, depth - 1), random_condition(chance, depth - 1)
    match chance.randrange(4):
        case 0:
            return f"({left}) && ({right})"
        case 1:
            return f"({left}) || ({right})"
        case 2:
            return f"!({left})"
        case _:
            return f"({chance.choice(ATOMS)}) ? ({left}) : ({right})"
