"""Specs of issuers -> `Issuer`."""

from __future__ import annotations

from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes
from gateway.policy.schema_issuers import IssuerSpec
from gateway.policy.validate import Specs
from gateway.tenants.issuer import Issuer


def compile_issuers(specs: Specs, document: Document, mistakes: Mistakes) -> tuple[Issuer, ...]:
    """All issuers, in their order; a name or a URL that is there twice is a mistake."""
    seen = set[str]()
    for path, spec in specs.issuers:
        for key, value in (("name", spec.name), ("issuer", spec.issuer)):
            if value in seen:
                mistakes.add(document.mark((*path, key)), f"`{value}` is named twice")
            seen.add(value)
    return tuple(_issuer(spec) for _, spec in specs.issuers)


def _issuer(spec: IssuerSpec) -> Issuer:
    return Issuer(
        name=spec.name,
        url=spec.issuer,
        audiences=tuple(spec.audience),
        jwks_url=spec.jwks_url,
        algorithms=tuple(spec.algorithms),
        tenant=spec.tenant,
        tenant_claim=spec.claims.tenant,
        tenants=dict(spec.tenants),
        feature_claim=spec.claims.feature,
        labels_claim=spec.claims.labels,
        leeway_s=spec.leeway,
        keys_kept_s=spec.keys_kept,
    )
