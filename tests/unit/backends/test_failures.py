"""Errors of aiohttp and what lies under it."""

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from gateway.backends.failures import LIBRARY_ERRORS, failure
from gateway.errors import BackendBroken, BackendCut, BackendTimeout, BackendUnreachable

_KEY = ConnectionKey("secret-host", 443, True, True, None, None, None)
_INFO = aiohttp.RequestInfo(URL("https://secret-host/"), "POST", {}, URL("https://secret-host/"))


def _all_below(kind):
    return {kind}.union(*(_all_below(child) for child in kind.__subclasses__()))


def _made(kind):
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        return kind(_KEY, ssl.CertificateError("x"))
    if issubclass(kind, aiohttp.client_exceptions.UnixClientConnectorError):
        return kind("/secret-host", _KEY, OSError(2, "x"))
    if issubclass(kind, (aiohttp.ClientConnectorError, aiohttp.ClientConnectorSSLError)):
        return kind(_KEY, OSError(111, "x"))
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return kind(b"a", b"b", "secret-host", 443)
    if issubclass(kind, aiohttp.ClientResponseError):
        return kind(_INFO, ())
    if issubclass(kind, (aiohttp.InvalidURL, aiohttp.client_exceptions.NonHttpUrlClientError)):
        return kind("http://secret-host")
    return kind()


EXPECTED = {
    aiohttp.ClientError: (BackendUnreachable, BackendCut),
    aiohttp.ClientConnectionError: (BackendUnreachable, BackendCut),
    aiohttp.ClientConnectionResetError: (BackendUnreachable, BackendCut),
    aiohttp.ClientOSError: (BackendUnreachable, BackendCut),
    aiohttp.ServerConnectionError: (BackendUnreachable, BackendCut),
    aiohttp.ServerDisconnectedError: (BackendUnreachable, BackendCut),
    aiohttp.ClientPayloadError: (BackendUnreachable, BackendCut),
    aiohttp.client_exceptions.UploadAbortedError: (BackendUnreachable, BackendCut),
    aiohttp.ServerTimeoutError: (BackendTimeout, BackendTimeout),
    aiohttp.ConnectionTimeoutError: (BackendTimeout, BackendTimeout),
    aiohttp.SocketTimeoutError: (BackendTimeout, BackendTimeout),
    aiohttp.ClientConnectorError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ClientConnectorDNSError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ClientProxyConnectionError: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.UnixClientConnectorError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ClientSSLError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ClientConnectorSSLError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ClientConnectorCertificateError: (BackendUnreachable, BackendUnreachable),
    aiohttp.ServerFingerprintMismatch: (BackendUnreachable, BackendUnreachable),
    aiohttp.InvalidURL: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.InvalidUrlClientError: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.InvalidUrlRedirectClientError: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.NonHttpUrlClientError: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.NonHttpUrlRedirectClientError: (BackendUnreachable, BackendUnreachable),
    aiohttp.client_exceptions.RedirectClientError: (BackendBroken, BackendBroken),
    aiohttp.ClientResponseError: (BackendBroken, BackendBroken),
    aiohttp.ContentTypeError: (BackendBroken, BackendBroken),
    aiohttp.ClientHttpProxyError: (BackendBroken, BackendBroken),
    aiohttp.TooManyRedirects: (BackendBroken, BackendBroken),
    aiohttp.WSServerHandshakeError: (BackendBroken, BackendBroken),
}


def test_every_error_of_aiohttp_is_in_the_table():
    """A new version of aiohttp that has an error more makes this fail, so that somebody decides what it is."""
    own = {kind for kind in _all_below(aiohttp.ClientError) if kind.__module__.startswith("aiohttp")}
    assert own == set(EXPECTED)


@pytest.mark.parametrize("kind", EXPECTED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("answered", [False, True])
def test_error_is_mapped_and_names_no_host(kind, answered):
    """Each error has its class, before and after the head of an answer, and a message that shows no address."""
    error = _made(kind)
    found = failure(error, deployment="cloud/m", answered=answered)
    assert type(found) is EXPECTED[kind][answered]
    assert isinstance(error, LIBRARY_ERRORS)
    assert "secret-host" not in found.message
    assert found.deployment == "cloud/m"


@pytest.mark.parametrize("kind", sorted(_all_below(HttpProcessingError), key=str), ids=lambda kind: kind.__name__)
def test_http_that_cannot_be_parsed_is_broken(kind):
    """What aiohttp's parser refuses is BackendBroken."""
    error = kind.__new__(kind)
    assert isinstance(error, LIBRARY_ERRORS)
    assert type(failure(error, deployment="d", answered=True)) is BackendBroken


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(), BackendTimeout),
        (ConnectionResetError(104, "reset"), BackendUnreachable),
        (ssl.SSLError("handshake"), BackendUnreachable),
        (OSError(24, "too many open files"), BackendUnreachable),
    ],
)
def test_errors_of_the_system_are_mapped(error, expected):
    """What the socket layer raises becomes ours as well."""
    assert isinstance(error, LIBRARY_ERRORS)
    assert type(failure(error, deployment="d", answered=False)) is expected
