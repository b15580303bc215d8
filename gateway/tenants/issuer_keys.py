"""The public keys of one issuer: fetched when they are first needed, kept, fetched anew beside the requests.

    none ──a token comes──▶ fetched ──older than REFRESH_S──▶ fetched anew, while the old ones serve
                               │  └─ a token with a key that is not there ─▶ fetched anew, at most every RETRY_S
                               └─ cannot be fetched: they serve for `keys_kept_s`, then no more

Whatever the issuer says is bounded: time, size, number of keys. Symmetric keys are never taken: whoever checks tokens
with one can make them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt
import structlog

from gateway.errors import IdentityUnavailable
from gateway.tenants.issuer import Issuer

REFRESH_S = 300.0
RETRY_S = 5.0
"""Between two fetches: tokens with keys that nobody has must not become a flood at the issuer."""
_FETCH_S = 5.0
_MOST_BYTES = 512 * 1024
_MOST_KEYS = 100
_DISCOVERY = "/.well-known/openid-configuration"


class _Useless(Exception):
    """What the issuer answered cannot be used; says why."""


class IssuerKeys:
    """The keys of `issuer`, by their ids.

    Args:
        client: asks the issuer; follows no redirects.
        clock: seconds that only grow.
    """

    def __init__(self, issuer: Issuer, client: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self.generation = 0
        """Grows whenever a key that was there is gone: tokens that were checked before are checked again."""

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key of that id; None: the issuer has none.

        Raises:
            IdentityUnavailable: no keys are there, or they are too old.
        """
        now = self._clock()
        if self.is_usable:
            self.touch()
            if (found := self._find(key_id)) is not None:
                return found
        fetching = self._start(now)
        if fetching is not None:
            # Waited for by many: the one that asked first may leave.
            await asyncio.wait((fetching,))
        if not self.is_usable:
            message = f"The keys of the token issuer {self._issuer.name!r} cannot be fetched at the moment."
            raise IdentityUnavailable(message, retry_after_s=RETRY_S)
        return self._find(key_id)

    def touch(self) -> None:
        """Keys that were used without being looked for may be old: have them fetched anew, beside the requests."""
        now = self._clock()
        if self._fetched_at is not None and now - self._fetched_at > REFRESH_S:
            self._start(now)

    @property
    def is_usable(self) -> bool:
        """There are keys, and they are not too old. Where they have become so, nothing that they checked counts."""
        if self._fetched_at is None:
            return False
        if self._clock() - self._fetched_at <= self._issuer.keys_kept_s:
            return True
        self._keys, self._fetched_at = {}, None
        self.generation += 1
        return False

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))

    def _find(self, key_id: str) -> jwt.PyJWK | None:
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(key_id)

    def _start(self, now: float) -> asyncio.Task[None] | None:
        """A fetch that is under way, or a new one; None where the last one is too short ago."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if self._tried_at is not None and now - self._tried_at < RETRY_S:
            return None
        self._tried_at = now
        self._fetching = asyncio.create_task(self._fetch(), name=f"keys of {self._issuer.name}")
        return self._fetching

    async def _fetch(self) -> None:
        log = structlog.get_logger()
        try:
            async with asyncio.timeout(_FETCH_S):
                url = self._issuer.jwks_url or await self._discover()
                keys = _read_keys(await self._get(url), self._issuer.algorithms)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, _Useless) as problem:
            reason = str(problem) or type(problem).__name__
            log.warning("issuer_keys_not_fetched", issuer=self._issuer.name, reason=reason[:300])
            return
        if self._keys.keys() - keys.keys():
            self.generation += 1
        if keys.keys() != self._keys.keys():
            log.info("issuer_keys", issuer=self._issuer.name, keys=len(keys))
        self._keys, self._fetched_at = keys, self._clock()

    async def _discover(self) -> str:
        """Where the keys are, as the issuer's discovery document says."""
        found = await self._get(self._issuer.url.rstrip("/") + _DISCOVERY)
        if found.get("issuer") != self._issuer.url:
            raise _Useless(f"its discovery document is of another issuer: {str(found.get('issuer'))[:100]!r}")
        url = found.get("jwks_uri")
        here = httpx.URL(self._issuer.url)
        if not isinstance(url, str) or (httpx.URL(url).scheme != "https" and httpx.URL(url).host != here.host):
            raise _Useless("its discovery document names no https URL for its keys")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        body = bytearray()
        async with self._client.stream("GET", url, headers={"accept": "application/json"}) as response:
            if response.status_code != httpx.codes.OK:
                raise _Useless(f"{url} answered with status {response.status_code}")
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise _Useless(f"{url} answered more than {_MOST_BYTES:,} bytes")
        try:
            value = httpx.Response(200, content=bytes(body)).json()
        except ValueError:
            raise _Useless(f"{url} answered something that is not JSON") from None
        if not isinstance(value, dict):
            raise _Useless(f"{url} answered no JSON object")
        return value


def _read_keys(value: Mapping[str, Any], algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """The keys that can check signatures; all others are passed over. Raises _Useless: there is none."""
    listed = value.get("keys")
    keys: dict[str, jwt.PyJWK] = {}
    for entry in listed[:_MOST_KEYS] if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") == "oct" or entry.get("use", "sig") != "sig":
            continue
        if entry.get("alg", algorithms[0]) not in algorithms:
            continue
        try:
            keys[str(entry.get("kid", ""))] = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    if not keys:
        raise _Useless("there is no key among its keys that could check a signature")
    return keys
