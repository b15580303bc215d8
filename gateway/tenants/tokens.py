"""Signed tokens (OIDC, JWT) that stand for tenants: checked once, then known by their hash until they expire.

Loaded only where policy names issuers: it needs the extra `oidc`.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import jwt

from gateway.errors import Unauthenticated
from gateway.tenants.issuer import Issuer
from gateway.tenants.issuer_keys import IssuerKeys
from gateway.tenants.keys import hash_key

_MOST_KNOWN = 10_000
_LONGEST_TOKEN = 16_384
_MOST_LABELS = 32
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_FEATURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Vouched(NamedTuple):
    """What a good token says."""

    issuer: Issuer
    tenant: str
    feature: str
    labels: tuple[str, ...]
    until: float
    """Unix time, in seconds."""
    generation: int
    """Of the issuer's keys when it was checked."""


class Tokens:
    """Checks tokens. One for each worker; an async context manager."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Vouched] = OrderedDict()
        self._keys: dict[Issuer, IssuerKeys] = {}
        self._client = httpx.AsyncClient(follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for keys in self._keys.values():
            await keys.close()
        await self._client.aclose()

    async def check(self, token: str, issuers: tuple[Issuer, ...]) -> Vouched:
        """What `token` says, if one of `issuers` signed it.

        Raises:
            Unauthenticated: it is no good; the message says why.
            IdentityUnavailable: that cannot be told now.
        """
        digest = hash_key(token)
        known = self._known.get(digest)
        if known is not None and known.issuer in issuers:
            keys = self._keys.get(known.issuer)
            if keys is not None and keys.is_usable and keys.generation == known.generation:
                if time.time() < known.until:
                    keys.touch()
                    return known
                del self._known[digest]
        vouched = await self._check(token, issuers)
        self._known[digest] = vouched
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return vouched

    async def _check(self, token: str, issuers: tuple[Issuer, ...]) -> Vouched:
        if len(token) > _LONGEST_TOKEN:
            raise _no_good("it is longer than any token should be")
        try:
            whole = jwt.api_jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _no_good("it is no signed token (JWT)") from None
        header, claims = whole["header"], whole["payload"]
        issuer = next((one for one in issuers if one.url == claims.get("iss")), None)
        if issuer is None:
            raise _no_good("its issuer (iss) is not known here")
        if header.get("alg") not in issuer.algorithms:
            raise _no_good(f"its algorithm is not one of {', '.join(issuer.algorithms)}")
        key_id = header.get("kid", "")
        keys = self._keys_of(issuer, issuers)
        key = await keys.key(key_id if isinstance(key_id, str) else "")
        if key is None:
            raise _no_good("the key that it is signed with is not one of its issuer's")
        return _vouched(issuer, _verified(token, key, issuer), keys.generation)

    def _keys_of(self, issuer: Issuer, issuers: tuple[Issuer, ...]) -> IssuerKeys:
        found = self._keys.get(issuer)
        if found is None:
            # A policy that was loaded anew has new issuers; the keys of old ones are of no use to anybody.
            self._keys = {one: keys for one, keys in self._keys.items() if one in issuers}
            found = self._keys[issuer] = IssuerKeys(issuer, self._client)
        return found


def _verified(token: str, key: jwt.PyJWK, issuer: Issuer) -> dict[str, Any]:
    """The claims of a token whose signature, times, issuer and audience are right."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key,
            algorithms=list(issuer.algorithms),
            audience=list(issuer.audiences),
            issuer=issuer.url,
            leeway=issuer.leeway_s,
            options={"require": ["exp", "iss", "aud"]},
        )
        claims["exp"] = float(claims["exp"])
    except jwt.ExpiredSignatureError:
        raise _no_good("it has expired") from None
    except jwt.ImmatureSignatureError:
        raise _no_good("it is not valid yet") from None
    except jwt.InvalidAudienceError:
        raise _no_good("it was made for another audience (aud)") from None
    except jwt.MissingRequiredClaimError as problem:
        raise _no_good(f"its claim {problem.claim!r} is missing") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError):
        raise _no_good("its signature or its claims are wrong") from None
    return claims


def _vouched(issuer: Issuer, claims: Mapping[str, Any], generation: int) -> Vouched:
    tenant = issuer.tenant
    if tenant is None:
        said = _claim(claims, issuer.tenant_claim or "")
        if not isinstance(said, str) or not said:
            raise _no_good(f"its claim {issuer.tenant_claim!r}, which says whose it is, is missing or no text")
        tenant = issuer.tenants.get(said) if issuer.tenants else said
        if tenant is None:
            raise _no_good(f"its claim {issuer.tenant_claim!r} stands for no tenant here")
    feature = _claim(claims, issuer.feature_claim) if issuer.feature_claim else ""
    if feature is None:
        feature = ""
    if not isinstance(feature, str) or (feature and not _FEATURE.fullmatch(feature)):
        raise _no_good(f"its claim {issuer.feature_claim!r} is no name of a feature")
    return Vouched(issuer, tenant, feature, _labels(issuer, claims), claims["exp"], generation)


def _labels(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels in a list or a text with spaces. What cannot be read refuses the token: a constraint may need it."""
    said = _claim(claims, issuer.labels_claim) if issuer.labels_claim else None
    labels = said.split() if isinstance(said, str) else [] if said is None else said
    if (
        not isinstance(labels, list)
        or len(labels) > _MOST_LABELS
        or not all(isinstance(label, str) and _LABEL.fullmatch(label) for label in labels)
    ):
        raise _no_good(f"its claim {issuer.labels_claim!r} holds no labels")
    return tuple(sorted(set(labels)))


def _claim(claims: Mapping[str, Any], path: str) -> Any:  # noqa: ANN401 - whatever a token may hold
    """The claim at a path; a claim whose own name has dots (`https://example.com/tenant`) comes first."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _no_good(why: str) -> Unauthenticated:
    return Unauthenticated(f"This token is not accepted: {why}.", code="invalid_token")
