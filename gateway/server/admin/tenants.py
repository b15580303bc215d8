"""Tenants: those of the policy's files to look at, those of the store to make and change, and their keys."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.errors import Conflict, InvalidRequest, NotFound, PolicyError
from gateway.policy.stored_tenants import compile_stored
from gateway.server.admin.state import answer, log_change
from gateway.server.api.usage import Budget, budget_of
from gateway.server.body import read_body
from gateway.server.keys import SERVICES
from gateway.tenants.keys import make_key
from gateway.tenants.stored import StoredKey, StoredTenant
from gateway.wire.fields import typed
from gateway.wire.json_body import read_object

_LONGEST_OVERLAP_S = 366 * 86_400
_MOST_KEYS = 100
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Moment = Annotated[float, Meta(ge=0, le=1e11, description="Unix time, in seconds")]


class KeyShown(msgspec.Struct):
    """A key, by its name and the beginning of its SHA-256."""

    name: str
    sha256: str
    not_after: float | None


class TenantShown(msgspec.Struct):
    """A tenant, and where it comes from."""

    name: str
    source: Literal["files", "store"]
    region: str
    labels: list[str]
    keys: list[KeyShown]
    keyless: bool
    disabled: bool
    refused: str
    """Why it is not served; empty: it is."""
    spec: dict[str, Any] | None = None
    """What a policy file would say of it; of the store's tenants."""


class TenantList(msgspec.Struct):
    """All of them."""

    tenants: list[TenantShown]


class TenantDetail(TenantShown, kw_only=True):
    """One tenant, and what it has left."""

    budgets: list[Budget]


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant to be made; `spec` is what a policy file would say of it, without `keys`."""

    name: Name
    spec: dict[str, Any] = {}


class ChangedTenant(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be another: what is left out stays as it is."""

    spec: dict[str, Any] | None = None
    disabled: bool | None = None


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to be made; the one that it replaces works on for `overlap_s`."""

    name: Name = "default"
    not_after: Moment | None = None
    replaces: Name | None = None
    overlap_s: Annotated[float, Meta(ge=0, le=_LONGEST_OVERLAP_S)] = 86_400


class MadeKey(msgspec.Struct):
    """A new key: the only time that it is shown."""

    key: str
    name: str
    tenant: str
    sha256: str
    not_after: float | None


class Done(msgspec.Struct):
    """It is gone."""

    name: str
    deleted: bool = True


async def list_all(http: web.Request) -> web.Response:
    """The tenants of the policy's files and of the store."""
    return answer(TenantList(_shown(http)))


async def get(http: web.Request) -> web.Response:
    """One tenant, with what is left of its budgets.

    Raises:
        NotFound: there is none of that name.
    """
    services, name = http.app[SERVICES], http.match_info["tenant"]
    found = [tenant for tenant in _shown(http) if tenant.name == name]
    if not found:
        raise _unknown(name)
    policy = services.policy.current.tenants.get(name)
    left = [] if policy is None else await services.ledger.left(name, policy.limits)
    budgets = [Budget(**budget_of(entry)) for entry in left]
    return answer(TenantDetail(**msgspec.structs.asdict(found[0]), budgets=budgets))


async def create(http: web.Request) -> web.Response:
    """Make a tenant in the store. All replicas know it within a second or two; keys are made one by one.

    Raises:
        Conflict: the name is taken, in the files or in the store.
        InvalidRequest: what it is to be is no tenant.
    """
    wanted = typed(read_object(await read_body(http)), NewTenant)
    if wanted.name in http.app[SERVICES].policy.current.tenants:
        raise Conflict(f"There is a tenant {wanted.name!r} already.", param="name")

    def made(before: StoredTenant | None) -> StoredTenant:
        if before is not None:
            raise Conflict(f"There is a tenant {wanted.name!r} already.", param="name")
        return StoredTenant(spec=wanted.spec, created=int(time.time()))

    await _change(http, wanted.name, made, "tenant_created")
    return answer(_one(http, wanted.name), 201)


async def change(http: web.Request) -> web.Response:
    """Change a tenant of the store, or disable it: its keys then stand for nobody, and requests that run end.

    Raises:
        NotFound: the store has none of that name.
        InvalidRequest: what it is to be is no tenant.
    """
    name = http.match_info["tenant"]
    wanted = typed(read_object(await read_body(http)), ChangedTenant)

    def changed(before: StoredTenant | None) -> StoredTenant:
        known = _existing(before, name)
        spec = known.spec if wanted.spec is None else wanted.spec
        disabled = known.disabled if wanted.disabled is None else wanted.disabled
        return msgspec.structs.replace(known, spec=spec, disabled=disabled)

    await _change(http, name, changed, "tenant_changed")
    return answer(_one(http, name))


async def delete(http: web.Request) -> web.Response:
    """Delete a tenant of the store, with its keys. What it has used stays booked.

    Raises:
        NotFound: the store has none of that name.
    """
    name = http.match_info["tenant"]
    await _change(
        http, name, lambda before: StoredTenant(deleted=True, created=_existing(before, name).created), "tenant_deleted"
    )
    return answer(Done(name))


async def create_key(http: web.Request) -> web.Response:
    """Make a key for a tenant of the store, and show it, once. With `replaces`, both work for `overlap_s`.

    Raises:
        NotFound: the store has no such tenant, or no such key to be replaced.
        Conflict: the name of the key is taken.
    """
    name = http.match_info["tenant"]
    body = await read_body(http)
    wanted = typed(read_object(body), NewKey) if body.strip() else NewKey()
    plain, digest = make_key()
    now = time.time()

    def with_key(before: StoredTenant | None) -> StoredTenant:
        known = _existing(before, name)
        # A key that has ended is of no use to anybody: its name is free again.
        kept = [key for key in known.keys if key.not_after is None or key.not_after > now]
        names = {key.name for key in kept}
        if wanted.name in names:
            raise Conflict(f"Tenant {name!r} has a key {wanted.name!r} already.", param="name")
        if wanted.replaces is not None and wanted.replaces not in names:
            raise NotFound(f"Tenant {name!r} has no key {wanted.replaces!r}.", param="replaces")
        if len(kept) >= _MOST_KEYS:
            raise Conflict(f"Tenant {name!r} has {_MOST_KEYS} keys; revoke one first.")
        kept = [_ending(key, now + wanted.overlap_s) if key.name == wanted.replaces else key for key in kept]
        made = StoredKey(name=wanted.name, sha256=digest, created=int(now), not_after=wanted.not_after)
        return msgspec.structs.replace(known, keys=(*kept, made))

    await _change(http, name, with_key, "key_created", key=wanted.name)
    return answer(MadeKey(plain, wanted.name, name, digest, wanted.not_after), 201)


async def delete_key(http: web.Request) -> web.Response:
    """Revoke a key of a tenant of the store: all replicas refuse it within a second or two.

    Raises:
        NotFound: the store has no such tenant, or it has no such key.
    """
    name, key_name = http.match_info["tenant"], http.match_info["key"]

    def without(before: StoredTenant | None) -> StoredTenant:
        known = _existing(before, name)
        kept = tuple(key for key in known.keys if key.name != key_name)
        if len(kept) == len(known.keys):
            raise NotFound(f"Tenant {name[:64]!r} has no key {key_name[:64]!r}.")
        return msgspec.structs.replace(known, keys=kept)

    await _change(http, name, without, "key_revoked", key=key_name)
    return answer(Done(key_name))


async def _change(http: web.Request, name: str, changed: Any, what: str, **facts: object) -> None:  # noqa: ANN401 - as `TenantRegistry.change` takes it
    """Write a change that makes a tenant which can be served, and have it in force here."""
    services = http.app[SERVICES]

    def checked(before: StoredTenant | None) -> StoredTenant:
        after: StoredTenant = changed(before)
        if not after.deleted:
            try:
                compile_stored(name, after)
            except PolicyError as problem:
                message = "; ".join(mistake.message for mistake in problem.mistakes)
                raise InvalidRequest(f"This is no tenant: {message}", param="spec") from None
        return after

    await services.registry.change(name, checked)
    await services.renew_tenants()
    log_change(http, what, tenant=name, **facts)


def _ending(key: StoredKey, at: float) -> StoredKey:
    """The key with an end, no later than it had."""
    return msgspec.structs.replace(key, not_after=at if key.not_after is None else min(at, key.not_after))


def _existing(tenant: StoredTenant | None, name: str) -> StoredTenant:
    if tenant is None:
        raise _unknown(name)
    return tenant


def _unknown(name: str) -> NotFound:
    return NotFound(f"The store has no tenant {name[:64]!r}; those of the policy's files are changed there.")


def _one(http: web.Request, name: str) -> TenantShown:
    return next(tenant for tenant in _shown(http) if tenant.name == name and tenant.source == "store")


def _shown(http: web.Request) -> list[TenantShown]:
    services = http.app[SERVICES]
    policy, stored, refused = services.policy.current, services.registry.tenants, services.with_tenants.refused
    ends = {digest: owner.not_after for digest, owner in policy.keys.items()}
    shown = [
        TenantShown(
            name=name,
            source="files",
            region=found.tenant.region,
            labels=sorted(found.tenant.labels),
            keys=[KeyShown(key, digest[:12], ends.get(digest)) for key, digest in found.keys],
            keyless=found.keyless,
            disabled=False,
            refused="",
        )
        for name, found in policy.tenants.items()
        if name not in stored or name in refused
    ]
    shown += [
        TenantShown(
            name=name,
            source="store",
            region=str(tenant.spec.get("region", "")),
            labels=sorted(tenant.spec.get("labels", ())),
            keys=[KeyShown(key.name, key.sha256[:12], key.not_after) for key in tenant.keys],
            keyless=False,
            disabled=tenant.disabled,
            refused=refused.get(name, ""),
            spec=tenant.spec,
        )
        for name, tenant in stored.items()
    ]
    return sorted(shown, key=lambda tenant: (tenant.name, tenant.source))
