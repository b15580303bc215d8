"""An issuer of signed tokens: a real HTTP server with discovery and keys, that can rotate them, babble and hang."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

AUDIENCE = "firstdraft"


class Issuer:
    """On a free port of the loopback while the context is open."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.rotate("one")
        self.fetches = 0
        self.answer: bytes | None = None
        """What it says in place of its keys."""
        self.hangs = False

    def rotate(self, key_id: str) -> None:
        """Sign with a new key from now on, and show no other."""
        self.keys = {key_id: rsa.generate_private_key(public_exponent=65_537, key_size=2_048)}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/keys", self._keys)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def token(self, *, key_id: str | None = None, algorithm: str = "RS256", **claims: object) -> str:
        """A token with these claims beside the usual ones; None leaves one out."""
        name, key = next(iter(self.keys.items()))
        usual = {"iss": self.url, "aud": AUDIENCE, "exp": time.time() + 60, "org": "acme"}
        kept = {claim: value for claim, value in (usual | claims).items() if value is not None}
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": key_id or name})

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.answer is not None:
            return web.Response(body=self.answer)
        keys = [
            json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
            | {"kid": name, "alg": "RS256", "use": "sig"}
            for name, key in self.keys.items()
        ]
        return web.json_response({"keys": keys})
