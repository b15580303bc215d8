"""Credentials that change: AWS's signature of each request, Google's tokens. The libraries are extras.

Both find their credentials as their own tools do (environment, files, the machine's identity); whatever of that asks
the network or the disk runs in a thread, once for all requests that wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from gateway.errors import BackendCredentials

if TYPE_CHECKING:
    from gateway.inference.deployment import Backend

_GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_WITHIN_S = 20.0


class Signer(Protocol):
    """Knows the headers that say who asks."""

    async def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """The headers for one POST of a JSON body. Raises BackendCredentials: there are none that can be used."""


def signer_of(backend: Backend) -> Signer | None:
    """Who signs requests to this backend; None where a key in a header does, or nothing."""
    if backend.api_key is not None:
        return None
    if backend.type == "bedrock":
        return AwsSigner(backend)
    return GoogleTokens(backend) if backend.type == "vertex" else None


class AwsSigner:
    """AWS Signature Version 4, by botocore."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._credentials: Any = None
        self._finding = asyncio.Lock()

    async def headers(self, url: str, body: bytes) -> Mapping[str, str]:
        """Signed for this very URL and body."""
        from botocore.auth import SigV4Auth  # type: ignore[import-untyped] # noqa: PLC0415 an extra
        from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # noqa: PLC0415 an extra

        frozen = await self._frozen()
        request = AWSRequest(method="POST", url=url, data=body, headers={"content-type": "application/json"})
        SigV4Auth(frozen, "bedrock", self._backend.aws_region).add_auth(request)
        return {name: value for name, value in request.headers.items() if name.lower() != "content-type"}

    async def _frozen(self) -> Any:  # noqa: ANN401 botocore has no types
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped] # noqa: PLC0415 an extra

        try:
            async with self._finding:
                if self._credentials is None:
                    self._credentials = await asyncio.to_thread(_find_aws)
                if getattr(self._credentials, "refresh_needed", lambda: False)():
                    return await asyncio.to_thread(self._credentials.get_frozen_credentials)
            return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise _without_credentials(self._backend, "AWS") from error


def _find_aws() -> Any:  # noqa: ANN401 botocore has no types
    from botocore.exceptions import NoCredentialsError  # noqa: PLC0415 an extra
    from botocore.session import Session  # type: ignore[import-untyped] # noqa: PLC0415 an extra

    found = Session().get_credentials()
    if found is None:
        raise NoCredentialsError
    return found


class GoogleTokens:
    """Access tokens of Google's application default credentials, renewed some minutes before they end."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._credentials: Any = None
        self._renewing = asyncio.Lock()

    async def headers(self, url: str, body: bytes) -> Mapping[str, str]:  # noqa: ARG002 a token is for all requests
        """A token that is good for some minutes at least."""
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 an extra

        if self._credentials is None or not self._credentials.valid:
            async with self._renewing:
                if self._credentials is None or not self._credentials.valid:
                    try:
                        self._credentials = await asyncio.to_thread(_renew_google, self._credentials)
                    except GoogleAuthError as error:
                        raise _without_credentials(self._backend, "Google Cloud") from error
        return {"authorization": f"Bearer {self._credentials.token}"}


def _renew_google(credentials: Any) -> Any:  # noqa: ANN401 google-auth has no types
    import google.auth  # noqa: PLC0415 an extra

    if credentials is None:
        credentials, _ = google.auth.default(scopes=[_GOOGLE_SCOPE], request=_transport())
    credentials.refresh(_transport())
    return credentials


class _Answer:
    """What google-auth wants of a response."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.data = response.content


def _transport() -> Any:  # noqa: ANN401 google-auth has no types
    """google-auth's transport, over the client that the rest of the gateway has. Blocks: for a thread."""
    from google.auth.exceptions import TransportError  # noqa: PLC0415 an extra

    def ask(
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: object,
    ) -> _Answer:
        try:
            response = httpx.request(method, url, content=body, headers=headers, timeout=timeout or _TOKEN_WITHIN_S)
        except httpx.HTTPError as error:
            raise TransportError(error) from error  # type: ignore[no-untyped-call] # google-auth has no types
        return _Answer(response)

    return ask


def _without_credentials(backend: Backend, of: str) -> BackendCredentials:
    message = f"{backend.name} cannot be asked: no credentials of {of} could be found or renewed"
    return BackendCredentials(message, deployment=backend.name)
