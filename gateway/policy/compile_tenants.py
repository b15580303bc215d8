"""Specs of tenants -> `TenantPolicy`, and whose each API key is."""

from __future__ import annotations

from gateway.budgets.limit import Limit, Rate
from gateway.policy.compiled import TenantPolicy
from gateway.policy.document import Document
from gateway.policy.mistakes import Mistakes
from gateway.policy.schema import BudgetSpec, RateSpec, TenantSpec
from gateway.policy.validate import Specs
from gateway.policy.values import rolling_s
from gateway.policy.yaml_file import Path
from gateway.tenants.tenant import KeyOwner, Tenant

_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0}


class TenantsCompiler:
    """Compiles all tenants; afterwards `keys` says whose each hash is, and `keyless` who needs none."""

    def __init__(self, document: Document, mistakes: Mistakes) -> None:
        self.keys: dict[str, KeyOwner] = {}
        self.keyless: str | None = None
        self._document = document
        self._mistakes = mistakes

    def compile(self, specs: Specs) -> dict[str, TenantPolicy]:
        """All tenants by name."""
        return {name: self._tenant(name, spec) for name, spec in specs.tenants.items()}

    def _tenant(self, name: str, spec: TenantSpec) -> TenantPolicy:
        path: Path = ("tenants", name)
        if spec.keyless:
            if self.keyless is not None:
                mark = self._document.name_mark((*path, "keyless"))
                self._mistakes.add(mark, f"only one tenant can be keyless, and `{self.keyless}` is it already")
            self.keyless = self.keyless or name
        self._take_keys(path, name, spec)
        return TenantPolicy(
            tenant=Tenant(name=name, region=spec.region or "", labels=frozenset(spec.labels)),
            keys=tuple((key.name, key.sha256) for key in spec.keys),
            limits=self._limits(path, spec),
            rate=_rate(spec.rate) if spec.rate else None,
            when_store_is_gone=spec.when_store_is_gone,
            keyless=spec.keyless,
            weight=spec.weight,
            share_prefixes=spec.share_prefixes,
        )

    def _take_keys(self, path: Path, tenant: str, spec: TenantSpec) -> None:
        names = set[str]()
        for index, key in enumerate(spec.keys):
            at = (*path, "keys", index)
            if key.sha256 in self.keys:
                owner, name, _ = self.keys[key.sha256]
                mark = self._document.mark((*at, "sha256"))
                self._mistakes.add(mark, f"this key is already `{name}` of tenant `{owner}`; a key belongs to one")
            if key.name in names:
                self._mistakes.add(self._document.mark((*at, "name")), f"`{key.name}` is named twice")
            names.add(key.name)
            self.keys.setdefault(key.sha256, KeyOwner(tenant, key.name, key.not_after))

    def _limits(self, path: Path, spec: TenantSpec) -> tuple[Limit, ...]:
        limits: list[Limit] = []
        for index, budget in enumerate(spec.budgets):
            limit = _limit(budget, spec.timezone)
            names = {key.name for key in spec.keys}
            if limit.key is not None and limit.key not in names:
                mark = self._document.mark((*path, "budgets", index, "key"))
                known = f"its keys are {', '.join(sorted(names))}" if names else "it has none"
                self._mistakes.add(mark, f"this tenant has no key `{limit.key}`; {known}")
            if any(limit.same == other.same for other in limits):
                mark = self._document.mark((*path, "budgets", index))
                of = f" for feature {limit.feature}" if limit.feature else ""
                of += f" for key {limit.key}" if limit.key else ""
                self._mistakes.add(mark, f"there is a budget per {limit.per}{of} in this unit already")
            limits.append(limit)
        return tuple(limits)


def _limit(spec: BudgetSpec, zone: str) -> Limit:
    in_tokens = spec.tokens is not None
    return Limit(
        amount=(spec.tokens if in_tokens else spec.usd) or 0,
        unit="tokens" if in_tokens else "nanousd",
        per=spec.per,
        feature=spec.feature,
        key=spec.key,
        rolling_s=rolling_s(spec.per),
        zone=zone,
        warn_at=spec.warn_at,
    )


def _rate(spec: RateSpec) -> Rate:
    return Rate(requests=spec.requests, tokens=spec.tokens, per_s=_SECONDS[spec.per])
