"""More seeded mistakes: of meaning rather than of form. Each is found at its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import Mistake, PolicyError
from gateway.routing.proven import load_proven
from tests.policy_folder import ENVIRON
from tests.unit.policy.test_mistakes import B, C, M, R, Seed, T

SEEDS = {
    # Names in conditions
    "model that there is not": Seed(
        R, 'request.feature == "batch"', 'request.model == ‸"lagre"', "did you mean `large`?"
    ),
    "model in a list": Seed(
        R, 'request.feature == "batch"', 'request.model in ["large", ‸"smal"]', "did you mean `small`?"
    ),
    "tenant that there is not": Seed(R, 'request.feature == "batch"', 'tenant.name == ‸"amce"', "did you mean `acme`?"),
    "region of no tenant": Seed(C, 'tenant.region == "eu"', 'tenant.region == ‸"ue"', "no tenant of region `ue`"),
    "label of no tenant": Seed(
        R, 'when: request.feature == "batch"', "when: '‸\"payin\" in tenant.labels'", "did you mean `paying`?"
    ),
    "label in capitals": Seed(C, '\'"health" in', '\'‸"Health" in', "lower case"),
    "label with a space": Seed(C, '\'"health" in', '\'‸"health data" in', "no request has the label"),
    "hour of a longer day": Seed(R, 'request.feature == "batch"', "request.hour == ‸24", "hours are 0 to 23"),
    "deployment that there is not": Seed(
        R,
        'when: request.feature == "batch"',
        "when: '‸\"gpu-eu/llama\" in backend.unhealthy'",
        "there is no deployment",
    ),
    "header that nobody sets": Seed(
        R, 'request.feature == "batch"', 'request.headers‸["x-region"] == "eu"', "no trusted proxy sets"
    ),
    "metadata that is no text": Seed(R, 'request.feature == "batch"', "request.metadata.a ‸== 1", "(string, int)"),
    "language by its name": Seed(
        R, 'request.feature == "batch"', 'request.language == ‸"german"', "no prompt has the language `german`"
    ),
    "share over one": Seed(R, 'when: request.feature == "batch"', "when: ‸budget.left > 1.5", "never true"),
    "answers under one": Seed(R, 'when: request.feature == "batch"', "when: ‸request.n < 1", "never true"),
    "negative prompt": Seed(R, 'when: request.feature == "batch"', "when: ‸request.prompt_tokens < 0", "never true"),
    "contradiction": Seed(
        R,
        'when: request.feature == "batch"',
        'when: ‸request.feature == "batch" && request.feature == "chat"',
        "never true",
    ),
    "contradiction of two limits": Seed(
        R, 'when: request.feature == "batch"', "when: ‸request.hour > 20 && request.hour < 6", "never true"
    ),
    "constraint that contradicts itself": Seed(
        C, "when: '\"health\" in request.labels'", "when: ‸request.stream && !request.stream", "never applies"
    ),
    "condition for a list": Seed(
        R, 'request.feature == "batch"', 'request.labels ‸== "health"', "(list(string), string)"
    ),
    "the wrong way round": Seed(
        C, "'\"health\" in request.labels'", "'request.labels ‸in \"health\"'", "(list(string), string)"
    ),
    "single equals in a constraint": Seed(C, 'tenant.region == "eu"', 'tenant.region ‸= "eu"', "write `==`"),
    "and in words": Seed(C, '"eu" && "personal"', '"eu" ‸and "personal"', ""),
    "unclosed bracket": Seed(R, 'when: request.feature == "batch"', 'when: (request.feature == "batch"‸', ""),
    # Rules against each other
    "route that another takes": Seed(
        R,
        '  - name: batch\n    when: request.feature == "batch"',
        '  - name: auto\n    when: ‸request.feature == "autocomplete" && request.stream\n    mode: cloud_only\n'
        '  - name: batch\n    when: request.feature == "batch"',
        "never reached",
    ),
    "same condition in other words": Seed(
        R, 'when: request.feature == "batch"', 'when: ‸request.feature in ["autocomplete"]', "never reached"
    ),
    "condition that is always true": Seed(
        R,
        'when: request.feature == "autocomplete"\n    mode: edge_only\n  - name: batch\n    when: request',
        "when: request.n >= 1\n    mode: edge_only\n  - name: batch\n    when: ‸request",
        "never reached",
    ),
    "fallback that is there already": Seed(
        R, "    optimize: {cost: 1.0}", "    optimize: {cost: 1.0}\n    fallback: [‸large]", "adds nothing"
    ),
    "fallback that a constraint removes": Seed(
        R,
        "fallback: [small]\n    cache: {ttl: 1h}\n    when_budget_is_spent: edge_only\n",
        "fallback: [small]\n    cache: {ttl: 1h}\n    when_budget_is_spent: edge_only\n"
        "constraints: [{name: always, require: {region: [eu-*, us-*]}}]\n",
        "never used here",
    ),
    "constraint that nothing meets": Seed(
        C, "      compliance: [no-egress]", "      compliance: [no-egress, gdpr]", "no deployment meets"
    ),
    "region that no backend has": Seed(
        C, "    require:\n      compliance: [no-egress]", "    ‸require:\n      region: [mars]", "no deployment meets"
    ),
    "term that no backend has": Seed(
        C, "      compliance: [no-egress]", "      compliance: [‸no-egres]", "did you mean `no-egress`?"
    ),
    "term of two that no backend has": Seed(C, "[gdpr | no-egress]", "[‸gdrp | no-egress]", "did you mean `gdpr`?"),
    "region of two that no backend has": Seed(
        C, "region: [eu-*, local]", "region: [eu-*, ‸locl]", "did you mean `local`?"
    ),
    "deny and require": Seed(
        C,
        "    require:\n      compliance: [no-egress]",
        "    require:\n      compliance: [no-egress]\n    deny: true",
        "means nothing",
    ),
    # Values
    "expectation without its half": Seed(
        M, "context_tokens: 8_000}", "expect: {first_token: 1s}}", "`per_token` is missing"
    ),
    "expectation in words": Seed(
        M, "context_tokens: 8_000}", "expect: {first_token: ‸fast, per_token: 10ms}}", "expected a duration"
    ),
    "unknown affinity": Seed(R, "    optimize: {cost", "    affinity: ‸prefx\n    optimize: {cost", "`prefix`"),
    "weights of nothing": Seed(R, "optimize: {cost: 1.0}", "optimize: ‸{cost: 0, latency: 0}", "weigh"),
    "first token after the end": Seed(B, "first_token: 8s", "first_token: ‸3m", "longer than"),
    "connecting after the end": Seed(B, "connect: 2s", "connect: ‸5m", "longer than"),
    "cached input dearer than input": Seed(M, "cached_input: 0.5", "cached_input: ‸5", "dearer"),
    "no such network": Seed(
        T,
        "  guest:",
        "trusted_proxies: [{name: a, networks: [‸10.0.0.0/33], headers: [x-a]}]\nx:\n  guest:",
        "no network",
    ),
    "key as a header": Seed(
        C,
        "constraints:",
        "trusted_proxies: [{name: a, networks: [10.0.0.0/8], headers: [‸authorization]}]\nconstraints:",
        "no keys",
    ),
    "invariant that is never true": Seed(
        C,
        "constraints:",
        "invariants:\n  - {name: i, when: ‸1 > 2, require: {region: [local]}}\nconstraints:",
        "says nothing",
    ),
    "invariant that is broken": Seed(
        C, "constraints:", "invariants:\n  - {name: ‸i, require: {region: [local]}}\nconstraints:", "is broken"
    ),
    "two invariants of one name": Seed(
        C,
        "constraints:",
        "invariants:\n  - {name: i, require: {region: ['*']}}\n  - {name: ‸i, require: {region: ['*']}}\nconstraints:",
        "named twice",
    ),
    "budget of a feature twice": Seed(
        T,
        "- {usd: 50, per: month}",
        "- {usd: 50, per: month, feature: a}\n      - ‸{usd: 5, per: month, feature: a}",
        "already",
    ),
    "model name with a space": Seed(M, "  small:", "  ‸sma ll:", "is no name"),
    "list where a name is due": Seed(R, "name: batch", "name: ‸[batch]", "not a list"),
    "base URL without a path": Seed(B, "https://gpu.eu.example.com/v1", "‸https://gpu.eu.example.com", "ends with /v1"),
    "condition as a list": Seed(R, 'when: request.feature == "batch"', "when: ‸[request.stream]", "not a list"),
}


def found_in(folder: Path) -> list[Mistake]:
    """Mistakes, and what the author is warned of."""
    try:
        return list(load_proven(folder, ENVIRON).warnings)
    except PolicyError as problem:
        return problem.mistakes


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS.keys())
def test_seeded_mistake_of_meaning_is_found_in_its_place(seed: Seed, tmp_path: Path):
    """What can never be meant is reported with its file, line and column, as a mistake or as a warning."""
    found = found_in(seed.write(tmp_path))
    here = seed.in_place(tmp_path, found)
    assert any(seed.says in mistake.message for mistake in here), [str(each) for each in found]
