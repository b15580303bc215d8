"""The model of a policy folder: every key that a file may have, and what its value looks like.

Values come out in the gateway's units (seconds, nano-dollars, tokens). What needs more than one entry to judge
(references, names given twice, conditions) is judged in `compile`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from gateway.classification.dictionary import MOST_WORDS
from gateway.inference.deployment import BackendType
from gateway.inference.servers import LimitField
from gateway.inference.usage import IMAGE_TOKENS_BOUND
from gateway.policy import values
from gateway.policy.schema_values import (
    Alternatives,
    Count,
    ExtraShare,
    FieldName,
    Flag,
    ForwardedHeader,
    HeaderName,
    HedgeAfter,
    Instant,
    Label,
    Name,
    NanoUsd,
    Network,
    PlainName,
    RegionPattern,
    Seconds,
    ServerName,
    Sha256,
    Share,
    Text,
    Tries,
    UrlPath,
    Version,
    Weight,
    Word,
)
from gateway.retrieval.rule import StoreType

LONGEST_CLASSIFICATION_S = 1.0
LONGEST_READ_ON_S = 120.0
MOST_PASSAGES = 50
LEAST_WEIGHT = 0.01
MOST_CONCURRENCY = 1_000
"""Where a number of requests at once is found out, and no other bound is named."""


class Spec(BaseModel):
    """What all entries share: unknown keys are errors, nothing is converted behind the author's back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _is_something(cls, value: object) -> object:
        """A key without a value is an oversight: a `when:` left empty would match everything."""
        if value is None:
            raise ValueError("there is nothing here; give it a value, or remove the key")
        return value


class TimeoutsSpec(Spec):
    """Limits of one attempt, in seconds."""

    connect: Seconds | None = None
    first_token: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None


class CheckSpec(Spec):
    """A GET that says whether the backend serves: any status from 200 to 299."""

    path: UrlPath
    every: Seconds = 5.0


class ColdStartSpec(Spec):
    """A backend that unloads what is not asked for: each of its deployments is asked for one token in that time."""

    every: Seconds


class AutoSpec(Spec):
    """A number that is found out, and its bound."""

    auto: Count


def _concurrency(value: object) -> object:
    if value == "auto":
        return AutoSpec(auto=MOST_CONCURRENCY)
    return value if isinstance(value, dict) else values.count(value)


Concurrency = Annotated[
    int | AutoSpec,
    BeforeValidator(_concurrency),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"const": "auto"},
                {"type": "object", "properties": {"auto": {"type": "integer", "minimum": 1}}, "required": ["auto"]},
            ]
        }
    ),
]


class BackendSpec(Spec):
    """Somewhere a request can be answered."""

    type: BackendType
    model: Text | None = None
    role: Literal["draft"] | None = None
    base_url: Text | None = None
    api_key: Text | None = None
    region: Text | None = None
    compliance: list[PlainName] = []
    timeouts: TimeoutsSpec = TimeoutsSpec()
    concurrency: Concurrency | None = None
    queue: Count = 256
    retries: Tries | None = None
    read_on: Seconds | None = None
    health: CheckSpec | None = None
    warm_connections: Tries = 0
    cold_start: ColdStartSpec | None = None
    server: ServerName | None = None
    max_tokens_field: LimitField | None = None
    both_limits: Flag | None = None
    usage_option: Flag | None = None
    developer_role: Flag | None = None
    api_version: Version | None = None
    aws_region: PlainName | None = None
    project: PlainName | None = None
    location: PlainName | None = None
    forward_headers: list[ForwardedHeader] = []

    @model_validator(mode="after")
    def _reads_on_within_bounds(self) -> BackendSpec:
        if self.read_on is not None and self.type == "edge":
            raise ValueError("the edge stops when its client leaves; remove `read_on`")
        if self.read_on is not None and self.read_on > LONGEST_READ_ON_S:
            raise ValueError("`read_on` is at most 2m: so long budget and connection stay taken")
        return self


class PriceSpec(Spec):
    """Nano-dollars for a million tokens."""

    input: NanoUsd
    output: NanoUsd
    cached_input: NanoUsd | None = None
    cache_write: NanoUsd | None = None
    audio_input: NanoUsd | None = None
    reasoning: NanoUsd | None = None
    audio_output: NanoUsd | None = None
    rejected_prediction: NanoUsd | None = None


def _price(value: object) -> object:
    if value == "free":
        return PriceSpec.model_construct(input=0, output=0, cached_input=0)
    if not isinstance(value, dict):
        raise ValueError("expected `{input: 0.25, output: 0.75}` in US dollars for 1M tokens, or `free`")  # noqa: TRY004 - as in values
    return value


class ExpectSpec(Spec):
    """How fast a deployment is expected to be, until it has been measured. In seconds."""

    first_token: Seconds
    per_token: Seconds


class ScoringSpec(Spec):
    """How a deployment gives the log-probabilities of a draft."""

    api: Literal["vllm", "sglang"]
    chat_template: Annotated[str | None, BeforeValidator(values.template)] = None

    @model_validator(mode="after")
    def _has_its_template(self) -> ScoringSpec:
        if (self.api == "sglang") != (self.chat_template is not None):
            raise ValueError(
                "sglang needs the model's `chat_template` (Jinja), because it is sent tokens; vllm has its own"
            )
        return self


class DeploymentSpec(Spec):
    """One model on one backend."""

    backend: PlainName
    model: Text | None = None
    price: Annotated[PriceSpec | None, BeforeValidator(_price)] = None
    context_tokens: Count | None = None
    max_output_tokens: Count | None = None
    image_tokens: Count = IMAGE_TOKENS_BOUND
    tools: Flag = True
    images: Flag = True
    json_output: Flag = True
    drop: list[FieldName] = []
    prediction: Flag = False
    scoring: ScoringSpec | None = None
    expect: ExpectSpec | None = None


class RequireSpec(Spec):
    """What a deployment must have: one of the regions, and of each compliance entry one of its alternatives."""

    region: list[RegionPattern] | None = None
    compliance: list[Alternatives] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> RequireSpec:
        if not self.region and not self.compliance:
            raise ValueError("`require` asks for nothing; name a `region` or a `compliance` term")
        return self


class ConstraintSpec(Spec):
    """A rule that only narrows where a request may go, or with `deny` lets it go nowhere."""

    name: PlainName
    when: Text | None = None
    require: RequireSpec | None = None
    deny: Flag = False

    @model_validator(mode="after")
    def _says_one_thing(self) -> ConstraintSpec:
        if self.deny and self.require is not None:
            raise ValueError("`deny` refuses everything, so that `require` means nothing; remove one of them")
        return self


class InvariantSpec(Spec):
    """What has to hold of all requests: wherever `when` is true, whatever can be reached meets `require`."""

    name: PlainName
    when: Text | None = None
    require: RequireSpec


class TrustedProxySpec(Spec):
    """Peers that may say something about a request in headers: what they set, clients behind them cannot."""

    name: PlainName
    networks: Annotated[list[Network], Field(min_length=1)]
    headers: Annotated[list[HeaderName], Field(min_length=1)]


class OptimizeSpec(Spec):
    """Weights for ranking what the constraints left."""

    latency: Weight = 0.0
    cost: Weight = 0.0

    @model_validator(mode="after")
    def _weighs_something(self) -> OptimizeSpec:
        if not self.latency and not self.cost:
            raise ValueError("it weighs nothing; give `latency` or `cost` a weight, or leave `optimize` out")
        return self


class ObjectivesSpec(Spec):
    """Limits that ranking tries to keep."""

    final_first_token: Seconds | None = None
    cost_per_request: NanoUsd | None = None


def _temperature(value: object) -> object:
    if value != "any":
        raise ValueError("expected `any`; without this key only answers at temperature 0 are cached")
    return value


class CacheSpec(Spec):
    """Which answers are kept, and for how long."""

    ttl: Seconds
    stale: Seconds | None = None
    shared: Flag = False
    charge: Share = 0.0
    temperature: Annotated[Literal["any"] | None, BeforeValidator(_temperature)] = None


def _draft_default(value: object) -> object:
    # YAML 1.1 takes a plain `off` for a boolean; here it can only mean the word.
    return str(value) if isinstance(value, str) else value


class RetrievalSpec(Spec):
    """Passages that are added to the prompt."""

    store: PlainName
    top_k: Count = 4
    max_tokens: Count = 2_000
    when_retrieval_fails: Literal["answer", "reject"] = "answer"

    @model_validator(mode="after")
    def _is_bounded(self) -> RetrievalSpec:
        if self.top_k > MOST_PASSAGES:
            raise ValueError(f"`top_k` is at most {MOST_PASSAGES}")
        return self


class StoreSpec(Spec):
    """Where passages come from."""

    type: StoreType
    url: Text | None = None
    id: Text | None = None
    api_key: Text | None = None
    region: Text | None = None
    compliance: list[PlainName] = []
    tenants: list[PlainName] = []
    embeddings: Flag = False
    text_field: Text = "text"
    source_field: Text = "source"
    version: Text | None = None
    timeout: Seconds = 2.0
    cache: Seconds | None = 300.0


class DraftSpec(Spec):
    """Whether, how long and how a draft is made."""

    model: Name | None = None
    max_tokens: Count = 128
    default: Annotated[Literal["off", "frames", "reasoning"], BeforeValidator(_draft_default)] = "off"
    allow: Flag = True
    similarity: Literal["words", "meaning"] = "words"


class CascadeSpec(Spec):
    """From which confidence on the edge's answer stands, and what then happens where there is none."""

    threshold: Share | None = None
    target_error: Share | None = None
    within: Seconds | None = None
    when_uncalibrated: Literal["escalate", "accept"] = "escalate"

    @model_validator(mode="after")
    def _has_one_measure(self) -> CascadeSpec:
        if (self.threshold is None) == (self.target_error is None):
            raise ValueError(
                "say either `threshold: 0.8` (least confidence) or `target_error: 0.05` (share of wrong ones)"
            )
        if self.threshold == 0 or self.target_error in {0, 1}:
            raise ValueError("a `threshold` is over 0, a `target_error` between 0 and 1")
        return self


class HedgeSpec(Spec):
    """When a second deployment is asked beside one that is late, and for how many requests at most."""

    after: HedgeAfter = 0.95
    extra: ExtraShare = 0.05


class ScoreSpec(Spec):
    """From which score on a larger model lets the draft stand."""

    quantile: Share = 0.1
    least: Annotated[float, BeforeValidator(values.logprob), WithJsonSchema({"type": "number", "maximum": 0})]


class RefineSpec(Spec):
    """What is done with a draft before a larger model is asked for an answer of its own."""

    wait: Seconds | None = None
    score: ScoreSpec | None = None


class RouteSpec(Spec):
    """How a request is served. The first route that matches decides."""

    name: PlainName
    when: Text | None = None
    mode: Literal["edge_only", "cloud_only", "cascade", "draft_refine", "hedge"]
    models: list[Name] = []
    optimize: OptimizeSpec | None = None
    objectives: ObjectivesSpec = ObjectivesSpec()
    affinity: Literal["prefix"] | None = None
    pin: Literal["conversation"] | None = None
    fallback: list[Name] = []
    cache: CacheSpec | None = None
    retrieval: RetrievalSpec | None = None
    draft: DraftSpec = DraftSpec()
    cascade: CascadeSpec | None = None
    hedge: HedgeSpec | None = None
    refine: RefineSpec | None = None
    when_budget_is_spent: Literal["reject", "edge_only", "cheapest"] = "reject"


class KeySpec(Spec):
    """An API key, by its hash."""

    name: PlainName
    sha256: Sha256
    not_after: Instant | None = None


class BudgetSpec(Spec):
    """At most so much in each window: a calendar's, in the tenant's time zone, or `rolling 24h`."""

    tokens: Count | None = None
    usd: NanoUsd | None = None
    per: Annotated[str, BeforeValidator(values.window)]
    feature: PlainName | None = None
    key: PlainName | None = None
    warn_at: Annotated[float | None, BeforeValidator(values.percentage)] = None

    @model_validator(mode="after")
    def _has_one_unit(self) -> BudgetSpec:
        if (self.tokens is None) == (self.usd is None):
            raise ValueError("a budget has either `tokens` or `usd`")
        if self.usd == 0:
            raise ValueError("a budget of 0 allows nothing; leave the tenant out instead")
        return self


class RateSpec(Spec):
    """How fast: evenly, with bursts up to the whole amount."""

    requests: Count | None = None
    tokens: Count | None = None
    per: Literal["second", "minute", "hour", "day"] = "minute"

    @model_validator(mode="after")
    def _limits_something(self) -> RateSpec:
        if self.requests is None and self.tokens is None:
            raise ValueError("a rate limits `requests`, `tokens` or both")
        return self


class ClassificationSpec(Spec):
    """What is looked for in the text of requests. Without a word about it: everything."""

    kinds: list[Literal["card", "iban", "national-id", "email", "phone", "ip", "secret"]] | None = None
    limit: Seconds | None = None

    @model_validator(mode="after")
    def _is_short(self) -> ClassificationSpec:
        if self.limit is not None and self.limit > LONGEST_CLASSIFICATION_S:
            raise ValueError("`limit` is at most 1s: no other request is served in that time")
        return self


class DictionarySpec(Spec):
    """Words that give a request a label when they stand in its text."""

    label: Label
    words: Annotated[list[Word], Field(min_length=1)]


class TenantSpec(Spec):
    """Who pays."""

    region: Text | None = None
    labels: list[PlainName] = []
    classification: ClassificationSpec = ClassificationSpec()
    dictionary: list[DictionarySpec] = []
    keys: list[KeySpec] = []
    keyless: Flag = False
    budgets: list[BudgetSpec] = []
    rate: RateSpec | None = None
    timezone: Annotated[str, BeforeValidator(values.time_zone)] = "UTC"
    when_store_is_gone: Literal["closed", "open"] = "closed"
    share_prefixes: Flag = False
    weight: Weight = 1.0

    @field_validator("weight")
    @classmethod
    def _weighs_something(cls, weight: float) -> float:
        if weight < LEAST_WEIGHT:
            raise ValueError(f"a tenant's weight is at least {LEAST_WEIGHT}; 0 would never be served")
        return weight

    @model_validator(mode="after")
    def _has_no_long_dictionary(self) -> TenantSpec:
        if sum(len(entry.words) for entry in self.dictionary) > MOST_WORDS:
            raise ValueError(f"a tenant's `dictionary` has {MOST_WORDS:,} words at most")
        return self
