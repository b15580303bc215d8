"""A third set of seeded mistakes, written to slip through: wrong types, odd YAML, look-alikes, the wrong kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.policy.test_mistakes import B, C, M, R, Seed, T
from tests.unit.policy.test_seeds_of_others import found_in

SEEDS = {
    "backend is a list": Seed(
        B,
        "  edge:\n    type: edge\n    model: smollm2-135m-instruct\n    region: local\n    compliance: [no-egress]\n",
        "  edge: ‸[edge]\n",
        "expected a mapping, not a list",
    ),
    "compliance mapping": Seed(
        B, "compliance: [no-egress]", "compliance: ‸{no-egress: true}", "expected a list, as in `[a, b]`, not a mappi"
    ),
    "compliance nested list": Seed(
        B, "compliance: [no-egress]", "compliance: [‸[no-egress]]", "expected a text, not a list"
    ),
    "compliance null item": Seed(
        B, "compliance: [no-egress]", "compliance: [no-egress, ‸null]", "expected a text, but there is nothing here"
    ),
    "negative duration": Seed(B, "connect: 2s", "connect: ‸-2s", "expected a duration such as `1500ms`, `2s`,"),
    "huge duration": Seed(B, "connect: 2s", "connect: ‸999999999999d", "a duration is over 0 and at most 366 days"),
    "unit month": Seed(B, "connect: 2s", "connect: ‸2mo", "`mo` is no unit"),
    "unit capital": Seed(B, "connect: 2s", "connect: ‸2S", "`S` is no unit of time; write ms, s, m, h or"),
    "duration exp": Seed(B, "connect: 2s", "connect: ‸1e3s", "expected a duration such as `1500ms`, `2s`,"),
    "concurrency huge": Seed(
        B, "concurrency: 64", "concurrency: ‸99999999999999999999", "expected a whole number from 1 to 1,000,000,"
    ),
    "concurrency float": Seed(B, "concurrency: 64", "concurrency: ‸64.0", "expected a whole number, as in 2_000_000"),
    "concurrency bool": Seed(B, "concurrency: 64", "concurrency: ‸true", "expected a whole number, as in 2_000_000"),
    "base_url javascript": Seed(
        B, "base_url: ${US_URL}", "base_url: ‸javascript:alert(1)", "expected an http:// or https:// URL, as in h"
    ),
    "base_url port": Seed(
        B,
        "base_url: ${US_URL}",
        "base_url: ‸https://example.com:99999/v1",
        "expected an http:// or https:// URL, as in h",
    ),
    "base_url unicode zero width": Seed(
        B,
        "base_url: ${US_URL}",
        "base_url: ‸https://exam\u200bple.com/v1",
        "expected an http:// or https:// URL, as in h",
    ),
    "base_url env in middle unset": Seed(
        B, "base_url: ${US_URL}", "base_url: ‸https://${US_HOST}/v1", "US_HOST is not set"
    ),
    "region env unset": Seed(B, "region: us-east", "region: ‸${US_REGION}", "US_REGION is not set"),
    "edge model env unset": Seed(B, "model: smollm2-135m-instruct", "model: ‸${EDGE_MODEL}", "EDGE_MODEL is not set"),
    "model env unset": Seed(M, "model: gpt-4.1\n", "model: ‸${GPT}\n", "GPT is not set"),
    "api_key text number": Seed(
        B, "api_key: ${GPU_KEY}", "api_key: ‸12345", "expected a text, but `12345` is a number; pu"
    ),
    "api_key dir": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸file:/tmp", "cannot be read"),
    "api_key misspelt env": Seed(B, "api_key: ${GPU_KEY}", "api_key: ‸${GPU_KEYS}", "did you mean"),
    "api_key dollar": Seed(
        B, "api_key: ${GPU_KEY}", "api_key: ‸$GPU_KEY", "this looks like the key itself: write `${NAM"
    ),
    "model entry text": Seed(M, "    - {backend: edge}", "    - ‸edge", "expected a mapping, not a text"),
    "price list": Seed(
        M,
        "price: {input: 2, output: 8, cached_input: 0.5}",
        "price: ‸[2, 8]",
        "expected `{input: 0.25, output: 0.75}` in US",
    ),
    "price null": Seed(
        M,
        "price: {input: 2, output: 8, cached_input: 0.5}",
        "price: ‸null",
        "there is nothing here; give it a value, or r",
    ),
    "price Free": Seed(
        M,
        "price: {input: 2, output: 8, cached_input: 0.5}",
        "price: ‸Free",
        "expected `{input: 0.25, output: 0.75}` in US",
    ),
    "price only input": Seed(
        M, "price: {input: 2, output: 8, cached_input: 0.5}", "‸price: {input: 2}", "`output` is missing"
    ),
    "price comma": Seed(M, "output: 0.75", "output: ‸'0,75'", "expected US dollars as a number, as in 0.25"),
    "price euro": Seed(M, "output: 0.75", "output: ‸0.75€", "expected US dollars as a number, as in 0.25"),
    "price huge": Seed(M, "output: 0.75", "output: ‸1000000000000", "expected US dollars from 0 to 1,000,000,000"),
    "context text unit": Seed(
        M, "context_tokens: 8_000", "context_tokens: ‸8k", "expected a whole number, as in 2_000_000"
    ),
    "backend is a model name": Seed(M, "backend: gpu-eu", "backend: ‸large", "there is no backend `large`"),
    "route is text": Seed(R, "routes:\n", "routes:\n  - ‸chat\n", "expected a mapping, not a text"),
    "route name unicode lookalike": Seed(R, "name: batch", "name: ‸bаtch", "is no name"),
    "models of backend": Seed(R, "models: [large]", "models: [‸gpu-eu]", "no model `gpu-eu`"),
    "models lookalike": Seed(R, "models: [large]", "models: [‸lаrge]", "`lаrge` is no name; use letters, digits and"),
    "models empty": Seed(R, "models: [large]", "models: ‸[]", "this names no model; leave `models` out for"),
    "mode with dash": Seed(R, "mode: cloud_only", "mode: ‸cloud-only", "did you mean `cloud_only`"),
    "optimize text": Seed(R, "optimize: {cost: 1.0}", "optimize: ‸cost", "expected a mapping, not a text"),
    "cache text": Seed(R, "cache: {ttl: 1h}", "cache: ‸1h", "expected a mapping, not a text"),
    "fallback self": Seed(R, "fallback: [small]", "fallback: [‸chat]", "no model `chat`"),
    "fallback nested": Seed(R, "fallback: [small]", "fallback: [‸[small]]", "expected a text, not a list"),
    "draft text": Seed(
        R, "draft: {model: small, max_tokens: 100, default: off}", "draft: ‸off", "expected a mapping, not a boolean"
    ),
    "retrieval of a backend": Seed(R, "cache: {ttl: 1h}", "retrieval: {store: ‸gpu-eu}", "no store `gpu-eu`"),
    "when mapping": Seed(
        R, 'when: request.feature == "batch"', "when: ‸{feature: batch}", "expected a text, not a mapping"
    ),
    "when lookalike variable": Seed(
        R, 'when: request.feature == "batch"', 'when: request.fe‸аture == "batch"', "`а` cannot stand in a condition"
    ),
    "when single &": Seed(R, 'when: request.feature == "batch"', "when: request.stream ‸& request.tools", "write `&&`"),
    "when not": Seed(
        R,
        'when: request.feature == "batch"',
        "when: not ‸request.stream",
        "`request` is not expected here; conditions a",
    ),
    "when =>": Seed(R, 'when: request.feature == "batch"', "when: request.n ‸=> 2", "write `>=`"),
    "when smart quotes": Seed(
        R, 'when: request.feature == "batch"', "when: request.feature == ‸“batch”", "put texts in plain quotes: \" or '"
    ),
    "unbalanced quote": Seed(
        R,
        'when: request.feature == "batch"',
        'when: request.feature == ‸"batch',
        "the quote at the end of a text is missing",
    ),
    "when undeclared fn": Seed(
        R,
        'when: request.feature == "batch"',
        'when: lower‸(request.feature) == "a"',
        "unknown name `lower`; there are `all`, `backe",
    ),
    "when in wrong": Seed(
        R,
        'when: request.feature == "batch"',
        'when: request.feature ‸in "batch"',
        "`in` does not work on (string, string)",
    ),
    "when list mix": Seed(
        R,
        'when: request.feature == "batch"',
        'when: request.feature in ["a", ‸1]',
        "`request.feature` is never equal to this: it",
    ),
    "when bad regex": Seed(
        R,
        'when: request.feature == "batch"',
        'when: request.feature.matches(‸"[a")',
        "`[a` is no regular expression: missing ]: [a",
    ),
    "when compare bool text": Seed(
        R, 'when: request.feature == "batch"', 'when: request.stream ‸== "true"', "`==` does not work on (bool, string)"
    ),
    "when has on text": Seed(R, 'when: request.feature == "batch"', "when: has‸(request.feature.x)", "has no fields"),
    "unknown tenant var": Seed(
        R, 'when: request.feature == "batch"', 'when: tenant‸.plan == "pro"', "unknown variable"
    ),
    "require text": Seed(
        C, "    require:\n      compliance: [no-egress]", "    require: ‸no-egress", "expected a mapping, not a text"
    ),
    "require region star inside": Seed(
        C, "region: [eu-*, local]", "region: [‸'*-eu', local]", "`*-eu` is no region; write `eu-west`, or `eu"
    ),
    "require region regex": Seed(C, "region: [eu-*, local]", "region: [‸eu-.*, local]", "did you mean `eu-*`"),
    "require backend": Seed(
        C, "      compliance: [no-egress]", "      ‸backend: [edge]", "unknown key `backend`; there are `compliance`"
    ),
    "terms with a double bar": Seed(
        C, "[gdpr | no-egress]", "[‸gdpr || no-egress]", "`` is no compliance term; write `gdpr`, or `"
    ),
    "terms with an ampersand": Seed(
        C, "[gdpr | no-egress]", "[‸gdpr & no-egress]", "`gdpr & no-egress` is no compliance term; wr"
    ),
    "deny text": Seed(C, "    require:\n      compliance: [no-egress]", "    deny: ‸always", "expected true or false"),
    "key plain": Seed(
        T,
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "sha256: ‸fd-live-abcdef",
        "expected the SHA-256 of a key, 64 hex digits",
    ),
    "same key hash upper": Seed(
        T,
        "keyless: true",
        "keys: [{name: other, sha256: ‸9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08}]",
        "already `prod`",
    ),
    "budget per year": Seed(T, "per: month", "per: ‸year", "expected one of minute, hour, day, week, mon"),
    "budget text": Seed(T, "tokens: 2_000_000", "tokens: ‸2M", "expected a whole number, as in 2_000_000"),
    "budget warn number": Seed(
        T,
        "- {usd: 50, per: month}",
        "- {usd: 50, per: month, warn_at: ‸0.8}",
        "expected a share of the budget, as in `80%`",
    ),
    "budget rolling bad unit": Seed(
        T, "per: month", "per: ‸rolling 1y", "`y` is no unit of time; write ms, s, m, h or"
    ),
    "rate per month": Seed(T, "per: minute", "per: ‸month", "`month` is not known here; there are `day`, `"),
    "timezone path": Seed(
        T,
        "    region: eu\n",
        "    region: eu\n    timezone: ‸../../etc/passwd\n",
        "`../../etc/passwd` is no time zone of this m",
    ),
    "classification kinds": Seed(
        T, "    region: eu\n", "    region: eu\n    classification: {kinds: [‸cards]}\n", "did you mean `card`"
    ),
    "dictionary label upper": Seed(
        T,
        "    region: eu\n",
        "    region: eu\n    dictionary: [{label: ‸Projects, words: [Bluebird]}]\n",
        "`Projects` is no label; use lower case lette",
    ),
    "tenant name dots": Seed(T, "  guest:", "  ‸../guest:", "`../guest` is no name; use letters, digits a"),
    "tenant name null": Seed(T, "  guest:", "  ‸~:", "YAML reads the key `~` as a null; put it in"),
    "duplicate in flow": Seed(M, "{backend: edge}", "{backend: edge, ‸backend: edge}", "given twice"),
    "tag binary": Seed(B, "region: us-east", "region: ‸!!binary aGk=", "tag `tag:yaml.org,2002:binary` has no meanin"),
    "tag omap": Seed(
        B, "compliance: [no-egress]", "compliance: ‸!!omap [a: b]", "there is nothing here; give it a value, or r"
    ),
    "tag bool": Seed(T, "keyless: true", "keyless: ‸!!bool 'maybe'", "expected true or false"),
    "missing space after colon": Seed(
        B, "    region: us-east", "    ‸region:us-east", "not YAML: could not find expected ':'; a key"
    ),
    "zero width in value": Seed(R, "mode: cloud_only", "mode: ‸cloud_only\u200b", "did you mean `cloud_only`"),
    "unicode key": Seed(B, "    region: us-east", "    ‸rеgion: us-east", "did you mean `region`"),
    "complex key": Seed(T, "  guest:\n", "  ? ‸{a: b}\n  : {}\n  guest:\n", "a key must be a text"),
    "folded when": Seed(
        R,
        'when: request.feature == "batch"',
        'when: >\n      request.feature ==\n      "batch" &&\n      request‸.fature == "x"',
        "did you mean `request.feature`",
    ),
    "alias cycle": Seed(
        T, "    labels: [paying]", "    labels: ‸&l [*l]", "aliases expand to too much here; write it ou"
    ),
    "invariants mapping": Seed(C, "constraints:\n", "invariants: ‸{a: b}\nconstraints:\n", "is a list"),
    "invariant deny": Seed(
        C,
        "constraints:\n",
        "invariants:\n  - {name: i, ‸deny: true, require: {region: [local]}}\nconstraints:\n",
        "unknown key `deny`",
    ),
    "proxies host name": Seed(
        C,
        "constraints:\n",
        "trusted_proxies:\n  - {name: a, networks: [‸proxy.example.com], headers: [x-a]}\nconstraints:\n",
        "no network",
    ),
    "proxies hostbits": Seed(
        C,
        "constraints:\n",
        "trusted_proxies:\n  - {name: a, networks: [‸10.0.0.1/8], headers: [x-a]}\nconstraints:\n",
        "no network",
    ),
    "proxies header key": Seed(
        C,
        "constraints:\n",
        "trusted_proxies:\n  - {name: a, networks: [10.0.0.0/8], headers: [‸X-Api-Key]}\nconstraints:\n",
        "no keys",
    ),
    "header case in condition": Seed(
        C, "'\"health\" in request.labels'\n", 'request.headers‸["X-Region"] == "eu"\n', "no trusted proxy"
    ),
    "store type": Seed(T, "tenants:\n", "stores:\n  w: {type: ‸file}\ntenants:\n", "did you mean `files`"),
    "store qdrant file url": Seed(
        T,
        "tenants:\n",
        "stores:\n  w: {type: qdrant, id: x, url: ‸file:///x}\ntenants:\n",
        "expected an http:// or https:// URL, as in h",
    ),
    "store cache": Seed(
        T,
        "tenants:\n",
        "stores:\n  w: {type: files, cache: ‸off}\ntenants:\n",
        "expected a duration such as `1500ms`, `2s`,",
    ),
    "retrieval typo": Seed(R, "cache: {ttl: 1h}", "retrieval: {store: x, ‸topk: 3}", "did you mean `top_k`"),
    "cascade target percent": Seed(
        R,
        "mode: cloud_only",
        "mode: cascade\n    cascade: {target_error: ‸5%}",
        "expected a share from 0 to 1, as in 0.5",
    ),
    "hedge after p100": Seed(
        R, "mode: cloud_only", "mode: hedge\n    hedge: {after: ‸p100}", "expected a duration such as `1500ms`, `2s`,"
    ),
    "hedge extra num": Seed(
        R, "mode: cloud_only", "mode: hedge\n    hedge: {extra: ‸0.05}", "expected a share of the requests, as in `5%`"
    ),
    "draft default true": Seed(R, "default: off", "default: ‸true", "a boolean is not known here; write one of of"),
    "unsat tenant name+region": Seed(
        R,
        'when: request.feature == "batch"',
        'when: ‸tenant.name == "guest" && tenant.region == "eu"',
        "this is never true",
    ),
    "feature that cannot be": Seed(
        R, 'when: request.feature == "batch"', 'when: ‸request.feature == "has space"', "this is never true"
    ),
    "constraint region typo with star": Seed(
        C, "region: [eu-*, local]", "region: [‸ue-*, local]", "did you mean `eu-*`"
    ),
    "constraint region case": Seed(C, "region: [eu-*, local]", "region: [‸EU-*, local]", "did you mean `eu-*`"),
    "fallback unreachable edge_only": Seed(
        R, "mode: edge_only", "mode: edge_only\n    fallback: [‸small]", "adds nothing"
    ),
    "unsat startsWith": Seed(
        R,
        'when: request.feature == "batch"',
        'when: ‸request.feature.startsWith("a") && request.feature.startsWith("b")',
        "never true",
    ),
}


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_adversary_s_mistake_is_found_in_its_place(seed: Seed, tmp_path: Path):
    """Whatever is written where something else is due is reported with its file, line and column."""
    assert "‸" in seed.new
    found = found_in(seed.write(tmp_path))
    here = seed.in_place(tmp_path, found)
    assert any(seed.says in mistake.message for mistake in here), [str(each) for each in found]
