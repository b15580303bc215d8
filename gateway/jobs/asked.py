"""A request that is answered later: what has to be known of it when whoever asked has gone."""

from __future__ import annotations

import time

import msgspec

from gateway.cache.control import CacheControl
from gateway.errors import Unauthenticated
from gateway.inference.request import DraftWish
from gateway.policy.compiled import CompiledPolicy
from gateway.tenants.tenant import Identity


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, and what the request's headers said beside its body."""

    tenant: str
    key: str = ""
    """The key's name."""
    key_in_policy: bool = False
    """The key stood in the policy when it was used: once it is removed, or over, nothing more is done in its name."""
    labels: tuple[str, ...] = ()
    """Labels that its tenant had then."""
    feature: str = ""
    said_labels: str = ""
    """What the client named in `x-firstdraft-labels`."""
    believed: dict[str, str] = {}
    """Headers that a trusted proxy set."""

    def identity(self, policy: CompiledPolicy) -> Identity:
        """Whom it stands for under the policy that is in force now; labels of then are kept, none is lost.

        Raises:
            Unauthenticated: there is no such tenant any more, or its key was removed or is over.
        """
        known = policy.tenants.get(self.tenant)
        if known is None:
            raise Unauthenticated("The tenant that asked for this is not known here any more.")
        if self.key_in_policy and not policy_has_key(policy, self.tenant, self.key):
            raise Unauthenticated("The API key that this was asked for with has been removed, or is over.")
        tenant = msgspec.structs.replace(known.tenant, labels=known.tenant.labels | frozenset(self.labels))
        return Identity(tenant=tenant, key=self.key)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `id` is its answer's; `url` says the schema of `body`."""

    url: str
    id: str
    body: bytes
    who: Who
    created: int
    """Unix time, in seconds."""
    job: str
    """`async`, `background` or `batch`: as in the log."""
    draft: DraftWish | None = None
    """How a header wants the draft, where the body does not say."""
    cache_control: CacheControl = CacheControl()
    traceparent: str | None = None


def policy_has_key(policy: CompiledPolicy, tenant: str, key: str) -> bool:
    """A key of that name of the tenant's stands in the policy, and is not over."""
    now = time.time()
    return any(
        (tenant, key) == owner[:2] and (owner.not_after is None or now < owner.not_after)
        for owner in policy.keys.values()
    )
