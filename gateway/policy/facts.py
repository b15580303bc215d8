"""What a decision may depend on: the facts of one request, and the CEL variables that show them to `when`.

Everything that decides is in here. A decision that needed anything else could not be explained or replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Literal

import msgspec

from gateway.inference.prediction import EdgeNow, Prediction
from gateway.inference.request import DraftWish

_MOST_INT = 2**63 - 1


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of one request. Immutable; equal facts under one policy give equal decisions."""

    tenant_name: str
    tenant_region: str = ""
    tenant_labels: frozenset[str] = frozenset()
    feature: str = ""
    model: str
    """The public model that the client named."""
    labels: frozenset[str] = frozenset()
    """From the client, and from the classifier; the tenant's are added to them."""
    prompt_tokens: int = 0
    """An estimate, for routing only."""
    max_tokens: int | None = None
    stream: bool = False
    tools: bool = False
    images: bool = False
    audio: bool = False
    json_output: bool = False
    logprobs: bool = False
    n: int = 1
    language: str = ""
    metadata: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    """That a trusted proxy set; names in lower case."""
    hour: int = 0
    """Of the day, 0..23, in UTC."""
    budget_left: float = 1.0
    """The smallest share that is left of any of the tenant's budgets, 0..1."""
    unhealthy: frozenset[str] = frozenset()
    """Ids of deployments that fail at the moment."""
    edge_ready: bool = False
    edge_reason: str = ""
    """Why the edge is not ready."""
    edge_context_tokens: int = 0
    """What the edge holds, prompt and answer together; 0: not known."""
    edge_wait_s: float = 0.0
    """How long a new request would wait at the edge until its prompt is read, in seconds."""
    edges: Mapping[str, EdgeNow] = {}
    """By id of deployment, the edges beside the policy's first, which the four above speak of."""
    draft: DraftWish | None = None
    predicted: Mapping[str, Prediction] = {}
    """By id of deployment; what is not in it was never asked."""
    draw: float = 0.0
    """From 0 to below 1, drawn for this request: which of those that are nearly equal is asked."""
    prefix: int = 0
    """A hash of the prompt's beginning, on routes with affinity for it; 0: none."""

    def edge(self, deployment: str) -> EdgeNow:
        """How the edge of this deployment is; one of which nothing is said is like the first."""
        return self.edges.get(deployment) or EdgeNow(
            ready=self.edge_ready,
            reason=self.edge_reason,
            context_tokens=self.edge_context_tokens,
            wait_s=self.edge_wait_s,
        )


VariableType = Literal["string", "int", "double", "bool", "list(string)", "map(string, string)"]


class Variable(msgspec.Struct, frozen=True):
    """A CEL variable: its type, what it means, and how it is read from the facts."""

    name: str
    type: VariableType
    meaning: str
    read: Callable[[Facts], object]


def _whole(number: int) -> int:
    """CEL's int has 64 bits; what a client sends may have more."""
    return max(-_MOST_INT, min(int(number), _MOST_INT))


VARIABLES: tuple[Variable, ...] = (
    Variable("tenant.name", "string", "the tenant", attrgetter("tenant_name")),
    Variable("tenant.region", "string", "its region, empty when it has none", attrgetter("tenant_region")),
    Variable("tenant.labels", "list(string)", "labels that policy gives it", lambda facts: sorted(facts.tenant_labels)),
    Variable("request.feature", "string", "the part of the tenant's product that asks", attrgetter("feature")),
    Variable("request.model", "string", "the model that the client named", attrgetter("model")),
    Variable(
        "request.labels",
        "list(string)",
        "labels from client, tenant and classifier",
        lambda facts: sorted(facts.labels | facts.tenant_labels),
    ),
    Variable("request.prompt_tokens", "int", "estimated input tokens", lambda facts: _whole(facts.prompt_tokens)),
    Variable(
        "request.max_tokens",
        "int",
        "most output tokens, 0 when the client gave no limit",
        lambda facts: _whole(facts.max_tokens or 0),
    ),
    Variable("request.n", "int", "answers asked for", lambda facts: _whole(facts.n)),
    Variable("request.stream", "bool", "a streamed answer is asked for", attrgetter("stream")),
    Variable("request.tools", "bool", "tools are offered or forced", attrgetter("tools")),
    Variable("request.images", "bool", "the prompt has images", attrgetter("images")),
    Variable("request.audio", "bool", "the prompt has audio", attrgetter("audio")),
    Variable("request.json_output", "bool", "a JSON object or schema is asked for", attrgetter("json_output")),
    Variable("request.logprobs", "bool", "token probabilities are asked for", attrgetter("logprobs")),
    Variable(
        "request.language",
        "string",
        "of what the user wrote, as in `en`; empty where it cannot be told",
        attrgetter("language"),
    ),
    Variable(
        "request.metadata",
        "map(string, string)",
        "the client's metadata; ask `has(request.metadata.x)` first",
        lambda facts: dict(facts.metadata),
    ),
    Variable(
        "request.headers",
        "map(string, string)",
        'headers that a trusted proxy set, as in `request.headers["x-user-region"]`',
        lambda facts: dict(facts.headers),
    ),
    Variable("request.hour", "int", "hour of the day in UTC, 0..23", lambda facts: _whole(facts.hour)),
    Variable(
        "budget.left", "double", "smallest share left of any budget, 0.0..1.0", lambda facts: float(facts.budget_left)
    ),
    Variable("backend.unhealthy", "list(string)", "deployments that fail now", lambda facts: sorted(facts.unhealthy)),
    Variable("backend.edge_ready", "bool", "the edge can answer now", attrgetter("edge_ready")),
)
"""Every variable of the language; the table in the documentation is made from this."""
