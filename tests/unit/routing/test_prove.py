"""Invariants: what breaks them is found, what keeps them is proved, and nothing is claimed that was not shown."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.policy import policy as commands
from gateway.errors import InvalidRequest, PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.facts import Facts
from gateway.policy.load import load_policy
from gateway.routing.decide import decide
from gateway.routing.prove import leak_of, not_proved, prove
from gateway.routing.proven import load_proven

TIGHT = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  eu: {type: openai, base_url: "http://eu.example", region: eu-west, compliance: [gdpr]}
  eu-kept: {type: openai, base_url: "http://kept.example", region: eu-north, compliance: [gdpr, zero-retention]}
  us: {type: openai, base_url: "http://us.example", region: us-east}
models:
  large:
    - {backend: eu, model: l, price: {input: 1, output: 2}}
    - {backend: us, model: l, price: {input: 3, output: 4}}
  kept:
    - {backend: eu-kept, model: k, price: {input: 5, output: 6}}
  cheap:
    - {backend: us, model: c, price: {input: 0.1, output: 0.1}, tools: false}
  small:
    - {backend: edge}
constraints:
  - name: eu
    when: tenant.region == "eu" && "personal" in request.labels
    require: {region: [eu-*, local], compliance: [gdpr | no-egress]}
  - name: health
    when: '"health" in request.labels'
    require: {compliance: [no-egress]}
  - name: secrets
    when: '"secret" in request.labels || request.feature == "vault"'
    require: {compliance: [zero-retention | no-egress]}
  - name: minors
    when: has(request.metadata.audience) && request.metadata.audience == "minors"
    require: {region: [eu-*]}
routes:
  - {name: autocomplete, when: request.feature == "autocomplete", mode: edge_only}
  - {name: batch, when: request.feature == "batch" && request.hour < 6, mode: cloud_only, models: [cheap, large]}
  - {name: long, when: request.prompt_tokens > 20000, mode: cloud_only, models: [kept], fallback: [large]}
  - name: chat
    mode: draft_refine
    models: [large]
    fallback: [kept, small]
    when_budget_is_spent: edge_only
tenants:
  berlin: {region: eu}
  boston: {region: us}
  clinic: {region: eu, labels: [health]}
invariants:
  - {name: eu, when: 'tenant.region == "eu" && "personal" in request.labels', require: {region: [eu-*, local]}}
  - name: gdpr
    when: tenant.region == "eu" && "personal" in request.labels
    require: {compliance: [gdpr | no-egress]}
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
  - {name: secrets, when: '"secret" in request.labels', require: {compliance: [zero-retention | no-egress]}}
  - {name: vault, when: request.feature == "vault", require: {compliance: [zero-retention | no-egress]}}
  - name: minors
    when: has(request.metadata.audience) && request.metadata.audience == "minors"
    require: {region: [eu-*]}
  - {name: typing, when: request.feature == "autocomplete", require: {region: [local]}}
  - {name: clinic, when: tenant.name == "clinic", require: {region: [local]}}
"""

LEAKS = {
    "fallback without the term": (
        "[zero-retention | no-egress]}\n  - name: minors",
        "[gdpr | no-egress]}\n  - name: minors",
        "secrets",
    ),
    "constraint with a wider region, its terms still there": (
        "require: {region: [eu-*, local], comp",
        "require: {region: [eu-*, us-*, local], comp",
        None,
    ),
    "constraint without the term": (
        "[eu-*, local], compliance: [gdpr | no-egress]}\n  - name: h",
        "['*']}\n  - name: h",
        "eu",
    ),
    "constraint that forgets a route": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && request.feature != "batch"\'\n    req',
        "health",
    ),
    "constraint only by day": (
        "when: '\"health\" in request.labels'\n    req",
        "when: '\"health\" in request.labels && request.hour > 5'\n    req",
        "health",
    ),
    "constraint for short prompts": (
        "when: '\"health\" in request.labels'\n    req",
        "when: '\"health\" in request.labels && request.prompt_tokens < 100000'\n    req",
        "health",
    ),
    "constraint for one tenant": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && tenant.name == "clinic"\'\n    req',
        "health",
    ),
    "constraint for streams": (
        "when: '\"health\" in request.labels'\n    req",
        "when: '\"health\" in request.labels && request.stream'\n    req",
        "health",
    ),
    "constraint while the edge is ready": (
        "when: '\"health\" in request.labels'\n    req",
        "when: '\"health\" in request.labels && backend.edge_ready'\n    req",
        "health",
    ),
    "constraint while nothing fails": (
        "when: '\"health\" in request.labels'\n    req",
        'when: \'"health" in request.labels && !("eu/l" in backend.unhealthy)\'\n    req',
        "health",
    ),
    "constraint while there is money": (
        "when: '\"health\" in request.labels'\n    req",
        "when: '\"health\" in request.labels && budget.left > 0.1'\n    req",
        "health",
    ),
    "label of another spelling": ('"secret" in request.labels ||', '"secrets" in request.labels ||', "secrets"),
    "and for or": ("in request.labels || request.feature", "in request.labels && request.feature", "secrets"),
    "feature forgotten": (' || request.feature == "vault"\'', "'", "vault"),
    "label forgotten": (
        '\'"secret" in request.labels || request.feature == "vault"\'',
        'request.feature == "vault"',
        "secrets",
    ),
    "metadata of another case": (
        '== "minors"\n    require: {region: [eu-*]}\nroutes',
        '== "Minors"\n    require: {region: [eu-*]}\nroutes',
        "minors",
    ),
    "draft where it may not be": (
        "require: {region: [eu-*]}\nroutes",
        "require: {region: [eu-*, local]}\nroutes",
        "minors",
    ),
    "route that lets typing out": (
        "mode: edge_only}",
        "mode: cloud_only, models: [small], fallback: [large]}",
        "typing",
    ),
    "route above that takes it": (
        "routes:\n",
        "routes:\n  - {name: tools, when: request.tools, mode: cloud_only, models: [large]}\n",
        "typing",
    ),
    "tenant without its label": ("clinic: {region: eu, labels: [health]}", "clinic: {region: eu}", "clinic"),
    "place without its terms": ("region: eu-west, compliance: [gdpr]", "region: eu-west, compliance: [soc2]", None),
    "place that moved": ('"http://eu.example", region: eu-west', '"http://eu.example", region: us-west', None),
    "downgrade to a place without the terms": (
        "require: {region: [eu-*]}\nroutes",
        "require: {region: [eu-*, us-*, local]}\nroutes",
        "minors",
    ),
}
"""What is replaced, by what, and the invariant that is broken then; None: a constraint still holds, nothing leaks."""


def compiled(directory: Path, text: str) -> CompiledPolicy:
    """The policy in one file."""
    (directory / "policy.yaml").write_text(text)
    return load_policy(directory, {})


def broken(policy: CompiledPolicy) -> dict[str, object]:
    """The invariants that are broken, with their leaks."""
    return {found.invariant: found.leak for found in prove(policy).outcomes if found.verdict == "broken"}


def test_policy_that_keeps_its_invariants_is_proved(tmp_path: Path):
    """Every invariant holds, over all classes of requests, and it says how many these are."""
    proof = prove(compiled(tmp_path, TIGHT))
    assert proof.holds
    assert proof.classes > 100_000
    assert {outcome.verdict for outcome in proof.outcomes} == {"holds"}


@pytest.mark.parametrize("seed", LEAKS.values(), ids=LEAKS.keys())
def test_seeded_leak_is_found_with_a_request_that_shows_it(tmp_path: Path, seed: tuple[str, str, str | None]):
    """Each leak is found, in the invariant that it breaks; the request that is shown does leak."""
    old, new, invariant = seed
    assert TIGHT.count(old) == 1
    policy = compiled(tmp_path, TIGHT.replace(old, new))
    found = broken(policy)
    if invariant is None:
        assert found == {}
        return
    assert invariant in found
    for named in policy.invariants:
        if named.name in found:
            assert leak_of(policy, named, found[named.name].facts) is not None


@pytest.mark.parametrize("name", ["fallback without the term", "metadata of another case", "tenant without its label"])
def test_counterexample_is_replayed_by_explain(tmp_path: Path, name: str):
    """The command that `prove` prints shows the same deployment being reached."""
    old, new, invariant = LEAKS[name]
    leak = broken(compiled(tmp_path, TIGHT.replace(old, new)))[invariant]
    shown = CliRunner().invoke(commands, ["prove", str(tmp_path)])
    assert shown.exit_code == 1
    lines = shown.output.splitlines()
    place = next(number for number, line in enumerate(lines) if f"invariant `{invariant}` is broken" in line)
    words = shlex.split(lines[place + 1].removeprefix("  replay: firstdraft policy "))
    replayed = CliRunner().invoke(commands, words)
    assert replayed.exit_code == 0, replayed.output
    row = next(line for line in replayed.output.splitlines() if f" {leak.deployment} " in line)
    assert not row.lstrip().startswith("-") or "draft" in row or "spent" in row


def test_policy_that_breaks_an_invariant_is_not_loaded(tmp_path: Path):
    """The mistake stands at the invariant and has the request in it."""
    old, new, _ = LEAKS["label of another spelling"]
    (tmp_path / "policy.yaml").write_text(TIGHT.replace(old, new))
    with pytest.raises(PolicyError) as caught:
        load_proven(tmp_path, {})
    (mistake,) = caught.value.mistakes
    assert TIGHT.splitlines()[mistake.line - 1].startswith("  - {name: secrets, when")
    assert "--label secret" in mistake.message


def test_condition_that_cannot_be_evaluated_counts_as_true(tmp_path: Path):
    """Absent metadata is no way around an invariant; the message says what to write."""
    text = TIGHT.replace("when: has(request.metadata.audience) && request", "when: request")
    policy = compiled(tmp_path, text)
    assert prove(policy).holds
    policy = compiled(
        tmp_path,
        text.replace(
            "when: request.metadata.audience", "when: has(request.metadata.audience) && request.metadata.audience", 1
        ),
    )
    leak = broken(policy)["minors"]
    assert leak.is_unknown
    assert "audience" not in leak.facts.metadata


def test_regular_expressions_are_proved_where_texts_are_known_and_broken_where_one_is_made(tmp_path: Path):
    """Of named texts it is known what matches, for a pattern one is made; beyond that nothing is claimed."""
    keeps = "require: {compliance: [zero-retention | no-egress]}"
    guarded = TIGHT.replace(
        '"secret" in request.labels ||', 'request.feature.matches("^se[cd]") || "secret" in request.labels ||'
    )
    cases = {
        'request.feature.matches("^se[cd]")': "holds",  # the same condition
        'request.feature == "secrets"': "holds",  # a text that is named
        'request.feature in ["sedan", "vault"]': "holds",
        'request.feature.matches("^se")': "broken",  # `se` is matched, and by the other not
        'request.feature == "sexton"': "broken",
        'request.feature.matches("^sec")': "not proved",  # true, and would take all texts to see
        'tenant.name.matches("^clin")': "broken",
        'tenant.name.matches("^nobody$")': "holds",  # names of tenants are all known
    }
    for number, (when, verdict) in enumerate(cases.items()):
        (tmp_path / str(number)).mkdir()
        text = f"{guarded}  - {{name: asked, when: '{when}', {keeps}}}\n".replace(
            "clinic: {region: eu, labels: [health]}", "clinic: {region: eu}"
        ).replace('  - {name: clinic, when: tenant.name == "clinic", require: {region: [local]}}\n', "")
        outcome = prove(compiled(tmp_path / str(number), text)).outcomes[-1]
        assert outcome.verdict == verdict, (when, outcome)
        if verdict == "not proved":
            assert "cannot be enumerated" in outcome.why


def test_space_that_is_too_large_is_not_called_proved(tmp_path: Path):
    """When the search is not through, it says so, and a loaded policy carries a warning."""
    # Seven pigeons in six holes: that they do not fit is true, and no search by cases shows it soon.
    holes = range(6)
    crowded = [
        f'"p{one}{hole}" in request.labels && "p{other}{hole}" in request.labels'
        for hole in holes
        for one in range(7)
        for other in range(one)
    ]
    homeless = [" && ".join(f'!("p{pigeon}{hole}" in request.labels)' for hole in holes) for pigeon in range(7)]
    rules = "\n".join(
        f"  - {{name: n{number}, when: '{when}', require: {{compliance: [gdpr | no-egress]}}}}"
        for number, when in enumerate([*crowded, *homeless])
    )
    text = TIGHT.replace("constraints:\n", f"constraints:\n{rules}\n")
    policy = compiled(tmp_path, f"{text}  - {{name: pigeons, require: {{compliance: [gdpr | no-egress]}}}}\n")
    proof = prove(policy, most_choices=2_000)
    assert proof.outcomes[-1].verdict == "not proved"
    assert "the search was not through" in proof.outcomes[-1].why
    assert not proof.holds
    assert "`pigeons` is not proved" in not_proved(policy, proof)[-1].message


def test_two_hundred_rules_are_searched_in_few_choices(tmp_path: Path):
    """The effort does not grow with the number of classes, which is astronomic here."""

    def rule(name: str, number: int) -> str:
        when = f'tenant.region == "eu" && "label{number}" in request.labels'
        return f"  - {{name: {name}{number}, when: '{when}', require: {{region: [eu-*, local]}}}}"

    def route(number: int) -> str:
        when = f'request.feature == "f{number}" && request.prompt_tokens > {number}'
        return f"  - {{name: r{number}, when: '{when}', mode: cloud_only, fallback: [small]}}"

    constraints = "\n".join(rule("c", number) for number in range(100))
    routes = "\n".join(route(number) for number in range(100))
    invariants = "\n".join(rule("i", number) for number in range(10))
    text = TIGHT.replace("constraints:\n", f"constraints:\n{constraints}\n").replace(
        "routes:\n", f"routes:\n{routes}\n"
    )
    # Routes that come first and name no models would let typing and clinics out: those invariants are not asked here.
    text = text[: text.index("invariants:")]
    proof = prove(compiled(tmp_path, f"{text}invariants:\n{invariants}\n"))
    assert proof.holds
    assert proof.classes > 2**100
    assert proof.choices < 50_000


@pytest.mark.parametrize("text", ["a\0", "\ud800"])
def test_a_text_that_no_condition_can_read_takes_no_route(tmp_path: Path, text: str) -> None:
    """What holds because of the order of routes holds for texts that cannot be shown to conditions."""
    (tmp_path / "policy.yaml").write_text(BY_ROUTES, encoding="utf-8")
    policy = load_policy(tmp_path, {})
    assert prove(policy).holds
    facts = Facts(
        tenant_name="acme", model="large", labels=frozenset({"health"}), metadata={"team": text}, edge_ready=True
    )
    assert isinstance(decide(policy, facts).refusal, InvalidRequest)
    assert leak_of(policy, policy.invariants[0], facts) is None


BY_ROUTES = """\
backends:
  edge: {type: edge, model: smollm2-135m-instruct, region: local, compliance: [no-egress]}
  us: {type: openai, base_url: "http://us.example", region: us-east}
models:
  large: [{backend: us, model: l, price: {input: 3, output: 4}}]
  small: [{backend: edge}]
routes:
  - {name: health, when: '"health" in request.labels', mode: edge_only}
  - {name: team, when: 'has(request.metadata.team) && request.metadata.team == "x"', mode: edge_only}
  - {name: rest, mode: cloud_only}
invariants:
  - {name: health, when: '"health" in request.labels', require: {compliance: [no-egress]}}
tenants:
  acme: {keyless: true}
"""
