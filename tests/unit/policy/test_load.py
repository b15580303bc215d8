"""A folder that is right: what becomes of each of its entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.budgets.limit import Limit, Rate
from gateway.cache.rule import CacheRule
from gateway.errors import PolicyError
from gateway.inference.deployment import FREE, Price, Secret, Timeouts
from gateway.inference.request import DraftWish
from gateway.policy import starter
from gateway.policy.compile import Mode
from gateway.policy.load import load_policy
from tests.policy_folder import ENVIRON, FILES, HASH, loaded, write_folder

SHIPPED = Path(__file__).parents[3] / "policies"


def test_backend_has_its_address_key_terms_and_limits(tmp_path: Path):
    """Values come out in the gateway's units, references expanded, a URL without a slash at its end."""
    backends = loaded(tmp_path).backends
    gpu = backends["gpu-eu"]
    assert gpu.api_key == Secret("gpu-secret-value")
    assert "gpu-secret-value" not in repr(gpu)
    assert (gpu.region, gpu.compliance, gpu.concurrency) == ("eu-west", frozenset({"gdpr", "zero-retention"}), 64)
    assert gpu.timeouts == Timeouts(connect_s=2, first_token_s=8, idle_s=1.5, total_s=120)
    assert backends["openai-us"].base_url == "https://us.example.com/v1"
    assert backends["openai-us"].api_key is None
    assert backends["openai-us"].timeouts == Timeouts()


def test_prices_are_exact_nano_dollars(tmp_path: Path):
    """A price is taken as the decimal that was written; cached input costs like input when nothing is said."""
    deployments = loaded(tmp_path).deployments
    assert deployments["gpu-eu/meta-llama/Llama-3.3-70B"].price == Price(
        input_nanousd=250_000_000, output_nanousd=750_000_000, cached_input_nanousd=250_000_000
    )
    assert deployments["openai-us/gpt-4.1"].price.cached_input_nanousd == 500_000_000
    text = FILES["models.yaml"].replace("input: 0.25", "input: 0.000000003").replace("output: 0.75", "output: 0.07")
    price = loaded(tmp_path, models=text).deployments["gpu-eu/meta-llama/Llama-3.3-70B"].price
    assert (price.input_nanousd, price.output_nanousd) == (3, 70_000_000)


def test_edge_is_a_deployment_without_price_and_without_tools(tmp_path: Path):
    """The edge is free by default, and cannot do what llama.cpp's small model cannot."""
    policy = loaded(tmp_path)
    edge = policy.edge
    assert edge is not None
    assert edge is policy.deployments["edge/smollm2-135m-instruct"]
    assert policy.models["small"] == (edge,)
    assert edge.price == FREE
    assert (edge.tools, edge.images, edge.json_output) == (False, False, False)


def test_edge_that_no_model_names_can_still_draft(tmp_path: Path):
    """An edge backend makes a deployment by itself; a path or URL of a model shows as its short name."""
    text = FILES["backends.yaml"].replace("smollm2-135m-instruct", "/srv/models/phi-4.Q4.gguf")
    models = FILES["models.yaml"].replace(
        "  small:\n    - {backend: edge}\n", "  small:\n    - {backend: edge, price: {input: 1, output: 1}}\n"
    )
    policy = loaded(tmp_path / "named", backends=text, models=models)
    assert policy.edge_models == ("/srv/models/phi-4.Q4.gguf",)
    assert policy.edge is not None
    assert (policy.edge.id, policy.edge.model) == ("edge/phi-4.Q4", "phi-4.Q4")
    assert policy.edge.price.input_nanousd == 10**9
    unnamed = loaded(
        tmp_path / "unnamed",
        models="models: {large: [{backend: openai-us, model: m, price: free}]}",
        routes="routes: [{name: chat, mode: draft_refine}]",
    )
    assert unnamed.edge is not None
    assert unnamed.edge.id in unnamed.deployments


def test_constraint_knows_at_load_which_deployments_it_allows(tmp_path: Path):
    """A region may end in a star, compliance entries must all hold, and of `a | b` one is enough."""
    policy = loaded(tmp_path)
    allowed = {
        constraint.name: {name for name, bit in policy.positions.items() if constraint.allowed >> bit & 1}
        for constraint in policy.constraints
    }
    assert allowed == {
        "eu-stays": {"gpu-eu/meta-llama/Llama-3.3-70B", "edge/smollm2-135m-instruct"},
        "health-stays": {"edge/smollm2-135m-instruct"},
    }


@pytest.mark.parametrize(
    ("require", "allowed"),
    [
        ("region: ['*']", {"gpu-eu", "edge"}),
        ("region: [eu-west]", {"gpu-eu"}),
        ("compliance: [gdpr, zero-retention]", {"gpu-eu"}),
        ("compliance: [gdpr | no-egress]", {"gpu-eu", "edge"}),
        ("compliance: [gdpr | no-egress, zero-retention]", {"gpu-eu"}),
    ],
)
def test_requirement_is_met_by_region_and_all_terms(tmp_path: Path, require: str, allowed: set[str]):
    """A backend without a region is in no region, not even in `*`."""
    policy = loaded(
        tmp_path,
        backends=FILES["backends.yaml"].replace("    region: us-east\n", ""),
        constraints=f"constraints: [{{name: c, when: request.n == 1, require: {{{require}}}}}]",
    )
    constraint = policy.constraints[0]
    found = {d.backend.name for d in policy.deployments.values() if not constraint.objection(d)}
    assert found == allowed


@pytest.mark.parametrize("require", ["region: [eu]", "compliance: [gdpr, no-egress]"])
def test_requirement_that_nothing_meets_is_a_mistake_unless_it_denies(tmp_path: Path, require: str):
    """What leaves nothing is most likely a slip; who means it says `deny: true`."""
    with pytest.raises(PolicyError, match="no deployment meets `c`; if such requests are to be refused, say `deny"):
        loaded(tmp_path / "a", constraints=f"constraints: [{{name: c, when: request.n == 1, require: {{{require}}}}}]")
    policy = loaded(tmp_path / "b", constraints="constraints: [{name: c, when: request.n == 1, deny: true}]")
    assert [constraint.allowed for constraint in policy.constraints] == [0]


def test_route_has_everything_that_it_says(tmp_path: Path):
    """Durations, prices, weights and names of a route are settled at load; `off` needs no quotes."""
    autocomplete, batch, chat = loaded(tmp_path).routes
    assert autocomplete.mode is Mode.EDGE_ONLY
    assert (autocomplete.weight_latency, autocomplete.weight_cost) == (1.0, 0.0)
    assert (batch.weight_latency, batch.weight_cost, batch.when_spent) == (0.0, 1.0, "cheapest")
    assert batch.primary is not None
    assert len(batch.primary) == 2
    assert chat.when is None
    assert chat.primary is None
    assert [d.id for d in chat.fallback] == ["edge/smollm2-135m-instruct"]
    assert chat.cache == CacheRule(ttl_s=3600)
    assert (chat.draft.default, chat.draft.max_tokens, chat.draft.allow) == (DraftWish.OFF, 100, True)
    assert chat.objectives.final_first_token_s == 1.5
    assert chat.objectives.cost_per_request_nanousd == 20_000_000


def test_cache_rule_can_be_shared_and_for_any_temperature(tmp_path: Path):
    """`shared` and `temperature: any` are a route's explicit choice."""
    text = FILES["routes.yaml"].replace("{ttl: 1h}", "{ttl: 90s, shared: yes, temperature: any}")
    assert loaded(tmp_path, routes=text).routes[-1].cache == CacheRule(ttl_s=90, shared=True, any_temperature=True)


def test_tenant_has_its_keys_budgets_and_rate(tmp_path: Path):
    """Budgets in tokens and dollars, per window and feature; a rate in seconds."""
    policy = loaded(
        tmp_path,
        tenants=FILES["tenants.yaml"].replace("- {usd: 50,", "- {tokens: 5, per: day, feature: x}\n      - {usd: 0.5,"),
    )
    acme = policy.tenants["acme"]
    assert (acme.tenant.region, acme.tenant.labels, acme.keyless) == ("eu", frozenset({"paying"}), False)
    assert acme.keys == (("prod", HASH),)
    assert acme.limits == (
        Limit(amount=2_000_000, unit="tokens", per="day"),
        Limit(amount=5, unit="tokens", per="day", feature="x"),
        Limit(amount=500_000_000, unit="nanousd", per="month"),
    )
    assert acme.rate == Rate(requests=600, tokens=200_000, per_s=60.0)
    assert acme.when_store_is_gone == "closed"
    assert not acme.share_prefixes
    assert policy.keys == {HASH: ("acme", "prod", None)}
    assert policy.keyless_tenant == "guest"


def test_one_condition_in_two_places_is_evaluated_once(tmp_path: Path):
    """Equal conditions share one evaluation; constant ones need none."""
    text = """constraints:
  - {name: a, when: request.stream, require: {region: ['*']}}
  - {name: b, when: request.stream, require: {region: [local]}}
  - {name: c, when: "1 < 2", require: {region: ['*']}}
"""
    policy = loaded(tmp_path, constraints=text)
    assert [constraint.when for constraint in policy.constraints] == [0, 0, None]
    assert len(policy.conditions) == 3


def test_any_file_may_hold_any_section(tmp_path: Path):
    """One file with all sections is the same policy as five; subfolders and hidden files are no part of it."""
    whole = "".join(FILES.values())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "policy.yml").write_text(whole)
    (tmp_path / "one" / ".hidden.yaml").write_text("nonsense: [")
    (tmp_path / "one" / "tests").mkdir()
    (tmp_path / "one" / "tests" / "case.yaml").write_text("nonsense: [")
    one, five = load_policy(tmp_path / "one", ENVIRON), loaded(tmp_path / "five")
    assert one.counts == five.counts
    assert one.deployments == five.deployments


def test_aliases_can_be_used_within_reason(tmp_path: Path):
    """YAML's own anchors work where they stay small."""
    text = """tenants:
  a: &plan
    budgets: [{tokens: 10, per: day}]
  b: *plan
"""
    tenants = loaded(tmp_path, tenants=text).tenants
    assert tenants["a"].limits == tenants["b"].limits


def test_version_is_of_the_content_and_of_what_it_refers_to(tmp_path: Path):
    """The same content has the same version anywhere; a changed variable changes it, a changed key does not."""
    one, same = loaded(tmp_path / "a").version, loaded(tmp_path / "b").version
    assert one == same
    moved = load_policy(tmp_path / "a", {**ENVIRON, "US_URL": "https://other.example.com"}).version
    rotated = load_policy(tmp_path / "a", {**ENVIRON, "GPU_KEY": "another"}).version
    edited = loaded(tmp_path / "b", tenants="tenants: {}").version
    assert rotated == one
    assert len({one, moved, edited}) == 3


def test_key_comes_from_a_file_beside_the_policy(tmp_path: Path):
    """`file:` is read from the policy's folder, without the line break at its end, and watched."""
    folder = write_folder(tmp_path, backends=FILES["backends.yaml"].replace("${GPU_KEY}", "file:gpu.key"))
    (folder / "gpu.key").write_text("from-a-file\n")
    policy = load_policy(folder, ENVIRON)
    assert policy.backends["gpu-eu"].api_key == Secret("from-a-file")
    assert policy.watched == {folder / "gpu.key"}


@pytest.mark.parametrize(
    ("reference", "environ", "key"),
    [
        ("${K:-}", {}, None),
        ("${K:-}", {"K": ""}, None),
        ("${K:-}", {"K": "x"}, Secret("x")),
        ("${K}", {"K": " x\n"}, Secret("x")),
    ],
)
def test_key_may_be_left_out_where_policy_says_so(tmp_path: Path, reference: str, environ: dict, key: Secret | None):
    """With `:-` an empty or unset variable means: send no key."""
    folder = write_folder(tmp_path, backends=FILES["backends.yaml"].replace("${GPU_KEY}", reference))
    assert load_policy(folder, {**ENVIRON, **environ}).backends["gpu-eu"].api_key == key


@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "schlüssel"])
def test_key_that_no_header_can_carry_is_refused_unseen(tmp_path: Path, value: str):
    """A key with a line break in it would be a second header; the message does not show it."""
    with pytest.raises(PolicyError) as caught:
        load_policy(write_folder(tmp_path), {**ENVIRON, "GPU_KEY": value})
    assert "no header can carry" in caught.value.message
    assert value not in caught.value.message


def test_budgets_of_a_tenant(tmp_path: Path):
    """Windows follow the tenant's time zone; a budget may be one key's, rolling, and warn."""
    folder = write_folder(tmp_path)
    (folder / "more.yaml").write_text(
        f"""
tenants:
  berlin:
    timezone: Europe/Berlin
    keys: [{{name: prod, sha256: {"ab" * 32}}}]
    budgets:
      - {{tokens: 100, per: day}}
      - {{tokens: 100, per: day, key: prod}}
      - {{usd: 1, per: rolling 24h, warn_at: 80%}}
"""
    )
    limits = load_policy(folder, ENVIRON).tenants["berlin"].limits
    assert {limit.zone for limit in limits} == {"Europe/Berlin"}
    assert [(limit.per, limit.rolling_s, limit.key, limit.warn_at) for limit in limits] == [
        ("day", 0, None, None),
        ("day", 0, "prod", None),
        ("rolling 24h", 86_400, None, 0.8),
    ]


def test_budget_of_a_key_that_is_not_there(tmp_path: Path):
    """A budget of a key that the tenant does not have would limit nobody."""
    folder = write_folder(tmp_path)
    (folder / "more.yaml").write_text("tenants:\n  berlin:\n    budgets: [{tokens: 1, per: day, key: porto}]\n")
    with pytest.raises(PolicyError, match="this tenant has no key `porto`"):
        load_policy(folder, ENVIRON)


def test_prices_of_kinds_of_tokens(tmp_path: Path):
    """Reasoning, audio and rejected predictions cost what policy says, else what their side costs."""
    folder = write_folder(tmp_path)
    (folder / "more.yaml").write_text(
        "models:\n  thinking:\n    - backend: gpu-eu\n      model: t\n"
        "      price: {input: 1, output: 2, reasoning: 3, audio_input: 4}\n"
    )
    [deployment] = load_policy(folder, ENVIRON).models["thinking"]
    price = deployment.price
    assert price.cost_nanousd(input_tokens=0, output_tokens=1_000_000, reasoning_tokens=500_000) == 2_500_000_000
    assert price.cost_nanousd(input_tokens=10**6, output_tokens=0, audio_input_tokens=10**6) == 4_000_000_000
    assert (price.input_worst_nanousd, price.output_worst_nanousd) == (4 * 10**9, 3 * 10**9)


def test_what_images_cost_and_what_is_read_on(tmp_path: Path):
    """A deployment says what an image costs at most; a backend how long it is read on when a client leaves."""
    folder = write_folder(tmp_path)
    (folder / "more.yaml").write_text(
        "backends:\n  slow: {type: openai, base_url: 'http://127.0.0.1:9/v1', region: eu, read_on: 20s}\n"
        "models:\n  seeing: [{backend: slow, model: m, price: free, image_tokens: 300}]\n"
    )
    policy = load_policy(folder, ENVIRON)
    [deployment] = policy.models["seeing"]
    assert (deployment.image_tokens, deployment.backend.read_on_s) == (300, 20.0)
    assert {(other.image_tokens, other.backend.read_on_s) for other in policy.models["large"]} == {(5_000, 0.0)}


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("{type: openai, base_url: 'http://127.0.0.1:9/v1', region: eu, read_on: 3m}", "at most 2m"),
        ("{type: edge, model: smollm2-135m-instruct, read_on: 3s}", "the edge stops when its client leaves"),
    ],
)
def test_answers_that_cannot_be_read_on(tmp_path: Path, backend: str, says: str):
    """Reading on is bounded, and not for the edge."""
    (tmp_path / "policy.yaml").write_text(f"backends:\n  one: {backend}\n")
    with pytest.raises(PolicyError, match=says):
        load_policy(tmp_path, ENVIRON)


def test_shipped_policies_load_with_an_empty_environment():
    """The folder that the repository ships works on a first day: no key, no variable, OpenAI's address."""
    policy = load_policy(SHIPPED, {})
    cloud = policy.backends["cloud"]
    assert (cloud.base_url, cloud.api_key) == ("https://api.openai.com/v1", None)
    assert policy.keyless_tenant == "local"
    assert [d.model for d in policy.models["large"]] == ["gpt-4.1-mini"]
    assert policy.models["large"][0].price == Price(
        input_nanousd=400_000_000, output_nanousd=1_600_000_000, cached_input_nanousd=100_000_000
    )


def test_starter_files_are_the_shipped_policies():
    """`firstdraft init` writes what the repository ships; the two never drift apart."""
    shipped = [*SHIPPED.glob("*.yaml"), *SHIPPED.glob("tests/*.yaml")]
    assert starter.files() == {str(file.relative_to(SHIPPED)): file.read_text("utf-8") for file in shipped}


def test_how_a_backend_is_tended(tmp_path):
    """Checks, retries, connections ahead and warm-ups are compiled; a number of requests at once may be found out."""
    keys = "health: {path: /health}\n    retries: 0\n    warm_connections: 4\n    cold_start: {every: 4m}\n"
    text = FILES["backends.yaml"].replace("concurrency: 64\n", f"concurrency: {{auto: 32}}\n    {keys}")
    backend = loaded(tmp_path, backends=text).backends["gpu-eu"]
    assert (backend.health.path, backend.health.every_s) == ("/health", 5.0)
    assert (backend.retries, backend.warm_connections, backend.cold_start_s) == (0, 4, 240.0)
    assert (backend.concurrency, backend.adapts) == (32, True)
    auto = FILES["backends.yaml"].replace("concurrency: 64", "concurrency: auto")
    assert loaded(tmp_path / "auto", backends=auto).backends["gpu-eu"].adapts
