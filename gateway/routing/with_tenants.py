"""Policies with the tenants of the store: none may break an invariant, as none of the files may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.stored_tenants import Compiled, compile_stored, merged
from gateway.policy.syntax import Name, Unknown, walk
from gateway.routing.prove import broken, prove
from gateway.routing.proven import MOST_CHOICES_AT_LOAD
from gateway.tenants.stored import StoredTenant

_Kind = tuple[str, str, frozenset[str]]
"""All that conditions can ask about a tenant: those alike in it are proved once."""


class WithTenants:
    """Completes policies. `refused` says which tenants the last one was completed without, and why."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self._given: Mapping[str, StoredTenant] = {}
        self._compiled: dict[str, tuple[StoredTenant, Compiled]] = {}
        self._proved_for: CompiledPolicy | None = None
        self._proved: dict[_Kind, str] = {}

    def give(self, tenants: Mapping[str, StoredTenant]) -> None:
        """These are the store's tenants from now on; those that are disabled have no keys and no say."""
        self._given = {name: tenant for name, tenant in tenants.items() if not tenant.disabled}

    def complete(self, policy: CompiledPolicy) -> CompiledPolicy:
        """The policy with all tenants that it can have. May take seconds: not for the event loop."""
        if not self._given and not self._compiled:
            return policy
        refused: dict[str, str] = {}
        compiled = self._compile(refused)
        whole, taken = merged(policy, compiled)
        refused |= taken
        if policy.invariants:
            kept = {name: found for name, found in compiled.items() if name not in taken}
            leaks = self._leaks(policy, whole, kept)
            if leaks:
                refused |= leaks
                whole, _ = merged(policy, {name: found for name, found in kept.items() if name not in leaks})
        for name in refused.keys() - self.refused.keys():
            structlog.get_logger().error("tenant_refused", tenant=name, reason=refused[name])
        self.refused = refused
        return whole

    def _compile(self, refused: dict[str, str]) -> dict[str, Compiled]:
        before, self._compiled = self._compiled, {}
        for name, given in self._given.items():
            known = before.get(name)
            try:
                found = known[1] if known is not None and known[0] == given else compile_stored(name, given)
            except PolicyError as problem:
                refused[name] = "; ".join(mistake.message for mistake in problem.mistakes)
            else:
                self._compiled[name] = (given, found)
        return {name: found for name, (_, found) in self._compiled.items()}

    def _leaks(self, policy: CompiledPolicy, whole: CompiledPolicy, tenants: Mapping[str, Compiled]) -> dict[str, str]:
        """Which tenants break an invariant, and which one."""
        if self._proved_for is not policy:
            self._proved_for, self._proved = policy, {}
        names_asked = _asks_names(policy)
        by_kind: dict[_Kind, str] = {}
        for name, found in tenants.items():
            by_kind.setdefault(_kind(found, names_asked=names_asked), name)
        new = [kind for kind in by_kind if kind not in self._proved]
        if new and not broken(whole, prove(whole, most_choices=MOST_CHOICES_AT_LOAD)):
            self._proved |= dict.fromkeys(new, "")
        for kind in new:
            if kind not in self._proved:
                found = tenants[by_kind[kind]]
                alone = replace(policy, tenants={by_kind[kind]: found.tenant})
                leaks = broken(alone, prove(alone, most_choices=MOST_CHOICES_AT_LOAD))
                self._proved[kind] = leaks[0].message if leaks else ""
        kinds = {name: _kind(found, names_asked=names_asked) for name, found in tenants.items()}
        return {name: self._proved[kind] for name, kind in kinds.items() if self._proved[kind]}


def _kind(found: Compiled, *, names_asked: bool) -> _Kind:
    tenant = found.tenant.tenant
    return tenant.name if names_asked else "", tenant.region, tenant.labels


def _asks_names(policy: CompiledPolicy) -> bool:
    """Some condition asks for the tenant's name, however that is written (`tenant . name`)."""
    trees = [*policy.conditions.trees]
    trees += [found.condition.tree for found in policy.invariants if found.condition is not None]
    parts = (part for tree in trees for part in walk(tree))
    return any(isinstance(part, Unknown) or (isinstance(part, Name) and part.name == "tenant.name") for part in parts)
