"""Where a request can be answered: backends and the deployments on them, as policy compiled them."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from gateway.inference.servers import UNKNOWN, Server
from gateway.inference.usage import IMAGE_TOKENS_BOUND

BackendType = Literal["edge", "openai", "azure", "anthropic", "bedrock", "vertex", "minilm"]

TOKENS_PER_PRICE = 1_000_000
"""Prices are given for this many tokens."""


class Secret:
    """A value that never shows itself in a log, a repr or an error."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself: only for the header that sends it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one attempt, in seconds, each over 0."""

    connect_s: float = 2.0
    first_token_s: float = 30.0
    idle_s: float = 30.0
    """Between two reads of a stream."""
    total_s: float = 600.0


class Price(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Nano-dollars (10⁻⁹ USD) for a million tokens. Free deployments have 0 everywhere, because policy said `free`.

    A kind of token without a price of its own (None) costs what its side costs: input or output.
    """

    input_nanousd: int
    output_nanousd: int
    cached_input_nanousd: int
    cache_write_nanousd: int | None = None
    audio_input_nanousd: int | None = None
    reasoning_nanousd: int | None = None
    audio_output_nanousd: int | None = None
    rejected_prediction_nanousd: int | None = None

    def cost_nanousd(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
        audio_input_tokens: int = 0,
        reasoning_tokens: int = 0,
        audio_output_tokens: int = 0,
        rejected_prediction_tokens: int = 0,
    ) -> int:
        """What these tokens cost, rounded up to a nano-dollar.

        Cached and audio tokens are part of the input; reasoning, audio and rejected tokens of the output.
        """
        given = (
            (cached_input_tokens, self.cached_input_nanousd),
            (cache_write_tokens, self.cache_write_nanousd),
            (audio_input_tokens, self.audio_input_nanousd),
        )
        made = (
            (reasoning_tokens, self.reasoning_nanousd),
            (audio_output_tokens, self.audio_output_nanousd),
            (rejected_prediction_tokens, self.rejected_prediction_nanousd),
        )
        millionths = _cost(input_tokens, self.input_nanousd, given) + _cost(output_tokens, self.output_nanousd, made)
        return -(-millionths // TOKENS_PER_PRICE)

    @cached_property
    def input_worst_nanousd(self) -> int:
        """The most that a million input tokens can cost, whatever they are."""
        return max(
            self.input_nanousd,
            self.cached_input_nanousd,
            self.cache_write_nanousd or 0,
            self.audio_input_nanousd or 0,
        )

    @cached_property
    def output_worst_nanousd(self) -> int:
        """The most that a million output tokens can cost, whatever they are."""
        return max(
            self.output_nanousd,
            self.reasoning_nanousd or 0,
            self.audio_output_nanousd or 0,
            self.rejected_prediction_nanousd or 0,
        )


def _cost(tokens: int, price: int, parts: tuple[tuple[int, int | None], ...]) -> int:
    """In millionths: parts with a price of their own at that, the rest at `price`. Parts never make more of a whole."""
    cost = 0
    for count, own in parts:
        if own is not None and count > 0:
            part = min(count, tokens)
            tokens -= part
            cost += part * own
    return cost + tokens * price


FREE = Price(input_nanousd=0, output_nanousd=0, cached_input_nanousd=0)


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment is asked for the log-probabilities of a text that it did not write."""

    api: Literal["vllm", "sglang"]
    chat_template: str = ""
    """Jinja source, for SGLang, which is sent the prompt as tokens. `bos_token` is empty in it: write it out."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """A GET of `path` on the backend's host, every `every_s` seconds."""

    path: str
    every_s: float


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Somewhere a request can be answered. `base_url` has no slash at its end; empty for the edge."""

    name: str
    type: BackendType
    base_url: str = ""
    api_key: Secret | None = None
    region: str
    compliance: frozenset[str] = frozenset()
    timeouts: Timeouts = Timeouts()
    concurrency: int | None = None
    """Most attempts at once; None: no limit."""
    adapts: bool = False
    """The limit is found out, `concurrency` its bound."""
    queue: int = 256
    """Most attempts that wait for their turn, where there is such a limit."""
    retries: int | None = None
    """Further tries on one of its deployments before another is asked; None: one, where no other is left."""
    edge_model: str = ""
    """What the edge loads: a name, a path or `hf://…`; empty for all others."""
    drafts: bool = False
    """Its deployments may draft, as the edge does."""
    read_on_s: float = 0.0
    """How long an answer is read on when its client has left, because this backend bills all of it anyway; 0: not."""
    health: Check | None = None
    """How it is checked; None: only by what comes of attempts."""
    warm_connections: int = 0
    """Connections that are opened ahead."""
    cold_start_s: float | None = None
    """After so many seconds without a request a deployment is asked for one token; None: never."""
    server: Server = UNKNOWN
    """What it does in its own way."""
    api_version: str = ""
    """Sent as `api-version` in the URL."""
    aws_region: str = ""
    """For signatures; empty where it is not AWS."""
    forward_headers: frozenset[str] = frozenset()
    """Headers of the client's that it is sent, in lower case."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one backend."""

    id: str
    """`backend/model`, unique in a policy."""
    backend: Backend
    model: str
    """The name that the backend knows."""
    price: Price
    context_tokens: int | None = None
    """Most tokens of prompt and answer together; None: not known."""
    max_output_tokens: int = 4_096
    """What is reserved, and asked for, when the client gives no limit."""
    image_tokens: int = IMAGE_TOKENS_BOUND
    """The most input tokens that one image costs."""
    tools: bool = True
    images: bool = True
    json_output: bool = True
    drop: frozenset[str] = frozenset()
    """Fields of requests that it is never sent; a response header says which of them a request had."""

    prediction: bool = False
    """It takes OpenAI's `prediction`: text that the answer probably has."""
    scoring: Scoring | None = None
    """It gives the log-probabilities of a draft; None: it does not."""

    @property
    def is_edge(self) -> bool:
        return self.backend.type == "edge"

    @property
    def can_draft(self) -> bool:
        """It is the edge, or an edge elsewhere."""
        return self.is_edge or self.backend.drafts
