"""Policies with the tenants of the store: none may break an invariant, as none of the files may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from gateway.errors import PolicyError
from gateway.policy.compiled import CompiledPolicy
from gateway.policy.stored_tenants import Compiled, compile_stored, merged
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
        by_kind: dict[_Kind, str] = {}
        for name, found in tenants.items():
            by_kind.setdefault(_kind(policy, found), name)
        new = [kind for kind in by_kind if kind not in self._proved]
        if new and not broken(whole, prove(whole, most_choices=MOST_CHOICES_AT_LOAD)):
            self._proved |= dict.fromkeys(new, "")
        for kind in new:
            if kind not in self._proved:
                found = tenants[by_kind[kind]]
                alone = replace(policy, tenants={by_kind[kind]: found.tenant})
                leaks = broken(alone, prove(alone, most_choices=MOST_CHOICES_AT_LOAD))
                self._proved[kind] = leaks[0].message if leaks else ""
        return {
            name: self._proved[kind] for name, found in tenants.items() if self._proved[kind := _kind(policy, found)]
        }


def _kind(policy: CompiledPolicy, found: Compiled) -> _Kind:
    tenant = found.tenant.tenant
    sources = [rule.source for rule in policy.constraints] + [rule.source for rule in policy.routes]
    sources += [rule.source for rule in policy.invariants]
    names_asked = any("tenant.name" in source for source in sources)
    return tenant.name if names_asked else "", tenant.region, tenant.labels
