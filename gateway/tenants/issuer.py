"""Who may vouch for clients by signed tokens (OIDC, JWT), and what in a token says who they are. Data; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Issuer:
    """An issuer that policy trusts. Claims are named by their path, as in `resource.org_id`."""

    name: str
    url: str
    """The `iss` of its tokens, to the letter."""
    audiences: tuple[str, ...]
    """One of them has to be in `aud`."""
    jwks_url: str | None
    """Where its keys are; None: where its discovery document says."""
    algorithms: tuple[str, ...]
    tenant: str | None
    """The tenant of all its tokens; None: `tenant_claim` says it."""
    tenant_claim: str | None
    tenants: Mapping[str, str] = field(default_factory=dict)
    """What the claim says -> the tenant's name; empty: the claim is the name."""
    feature_claim: str | None = None
    labels_claim: str | None = None
    leeway_s: float = 30.0
    """By how much clocks may differ."""
    keys_kept_s: float = 86_400.0
    """So long keys are used that cannot be fetched anew."""
