"""aiohttp's errors, and those of the libraries under it, as ours. A test proves that none is left out.

Messages name the deployment and never an address: they may be shown to clients. The cause, with all details, is chained
to the error for the log.
"""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import BackendBroken, BackendCut, BackendError, BackendTimeout, BackendUnreachable

LIBRARY_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, ssl.SSLError)
"""What a request or a read may raise. `OSError` has `TimeoutError` in it."""

_NOT_CONNECTED: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "its host name could not be resolved"),
    (aiohttp.ClientConnectorCertificateError, "its TLS certificate was not accepted"),
    (aiohttp.ClientConnectorSSLError, "the TLS handshake failed"),
    (aiohttp.ServerFingerprintMismatch, "its TLS certificate was not accepted"),
    (aiohttp.ClientConnectorError, "the connection failed"),
    (aiohttp.InvalidURL, "its base_url cannot be used"),
    (aiohttp.NonHttpUrlClientError, "its base_url cannot be used"),
    (ssl.SSLError, "TLS failed"),
)
_BROKEN: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientResponseError, "its answer is not valid HTTP"),
    (HttpProcessingError, "its answer is not valid HTTP"),
    (aiohttp.RedirectClientError, "it redirects, which is not followed"),
)


def failure(error: Exception, *, deployment: str, answered: bool) -> BackendError:
    """Our error for one of `LIBRARY_ERRORS`; `answered`: the head of an answer had come."""
    if isinstance(error, TimeoutError):
        return BackendTimeout(f"{deployment} did not answer in time", deployment=deployment)
    for kind, why in _NOT_CONNECTED:
        if isinstance(error, kind):
            return BackendUnreachable(f"{deployment} could not be reached: {why}", deployment=deployment)
    for kind, why in _BROKEN:
        if isinstance(error, kind):
            return BackendBroken(f"{deployment} cannot be understood: {why}", deployment=deployment)
    if answered:
        return BackendCut(f"{deployment} ended the connection in mid-answer", deployment=deployment)
    return BackendUnreachable(f"{deployment} ended the connection before it answered", deployment=deployment)
