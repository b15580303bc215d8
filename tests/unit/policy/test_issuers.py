"""What policy says of issuers and of keys that end."""

import pytest

from gateway.errors import PolicyError
from gateway.policy.load import load_policy

BASE = """
backends: {edge: {type: edge, model: smollm2-135m-instruct, region: local}}
models: {small: [{backend: edge}]}
routes: [{name: all, mode: edge_only}]
tenants:
  acme:
    keys: [{name: prod, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, not_after: %s}]
"""
GOOD = "name: sso, issuer: 'https://login.example.com', audience: gateway, claims: {tenant: org}"


def load(tmp_path, issuers="", not_after="2026-12-31T00:00:00+01:00"):
    (tmp_path / "policy.yaml").write_text(BASE % not_after + (f"issuers: [{issuers}]\n" if issuers else ""))
    return load_policy(tmp_path, {})


def test_an_issuer_is_read(tmp_path):
    """What is not said has safe defaults; one audience need not be a list."""
    (issuer,) = load(tmp_path, f"{{{GOOD}}}").issuers
    assert (issuer.name, issuer.audiences, issuer.algorithms) == ("sso", ("gateway",), ("RS256", "ES256"))
    assert (issuer.tenant_claim, issuer.tenant, issuer.leeway_s) == ("org", None, 30.0)


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        (GOOD.replace("https", "http"), "no https URL"),
        (GOOD + ", tenant: acme", "once"),
        (GOOD.replace(", claims: {tenant: org}", ""), "once"),
        (GOOD + ", algorithms: [HS256]", "HS256"),
        (GOOD + ", algorithms: [none]", "none"),
        (GOOD + ", leeway: 10m", "at most 300s"),
        (GOOD.replace("audience: gateway, ", ""), "`audience` is missing"),
        (GOOD + ", jwks_uri: 'https://x'", "did you mean `jwks_url`"),
        (GOOD + "}, {" + GOOD, "named twice"),
    ],
)
def test_a_mistake_is_named(tmp_path, issuer, said):
    """An issuer that could not be safe is refused at load, with what is wrong."""
    with pytest.raises(PolicyError) as failure:
        load(tmp_path, f"{{{issuer}}}")
    assert said in failure.value.message


def test_the_end_of_a_key_has_a_zone(tmp_path):
    """A moment is one everywhere; without a zone, or in words, it is a mistake."""
    (owner,) = load(tmp_path).keys.values()
    assert owner.not_after == 1_798_671_600.0
    for wrong in ("2026-12-31", "2026-12-31T00:00:00", "soon"):
        with pytest.raises(PolicyError, match="no moment with a time zone"):
            load(tmp_path, not_after=wrong)
