"""TLS with the operator's own certificate, taken up anew when its files change.

Each handshake is done with the context that is current then (`sni_callback` swaps it in), so that a new certificate is
one assignment: connections that are open keep the one they began with, and files that do not fit together are never
half in use. Files that cannot be used are refused at the start; later they are an error in the log, and the old
certificate serves on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from gateway.errors import SettingsError
from gateway.settings import Settings

_LOOK_S = 1.0
_Signature = tuple[tuple[int, int, int], ...]
"""Of both files: when it changed (ns), its size and its inode."""


class Certificate:
    """A certificate and its key, in PEM; `context` is what a listener is given, once for all.

    Raises:
        SettingsError: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self._seen = self._signature()
        self._current = self._load()
        self._refused = ""
        self.context = _new_context()
        self.context.sni_callback = self._swap
        self._fill(self.context)

    def _swap(self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        handshake.context = self._current

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[ssl.SSLContext]:
        """The listener's context; while this is open, changed files are taken up within about a second."""
        following = asyncio.create_task(self._follow(), name="certificate watch")
        try:
            yield self.context
        finally:
            following.cancel()
            await asyncio.wait((following,))

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take up the files if they have changed. Reads files: not for the event loop."""
        signature = self._signature()
        if signature == self._seen and not self._refused:
            return
        changed, self._seen = signature != self._seen, signature
        try:
            self._current = self._load()
        except SettingsError as error:
            # Two files are seldom replaced in the same instant: what is still wrong at the next look is told.
            if not changed and self._refused != error.message:
                structlog.get_logger().error("certificate_refused", reason=error.message)
                self._refused = error.message
            elif changed:
                self._refused = self._refused or "changing"
        else:
            self._refused = ""
            structlog.get_logger().info("certificate_changed", file=str(self._cert))

    def _load(self) -> ssl.SSLContext:
        context = _new_context()
        self._fill(context)
        return context

    def _fill(self, context: ssl.SSLContext) -> None:
        for setting, file in (("tls-cert", self._cert), ("tls-key", self._key)):
            try:
                text = file.read_bytes()
            except OSError as problem:
                raise _refused(setting, file, f"cannot be read: {problem.strerror}") from None
            if b"-----BEGIN" not in text:
                raise _refused(setting, file, "is not in PEM: there is no line that begins with -----BEGIN")
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except _PasswordAskedError:
            raise _refused("tls-key", self._key, "is encrypted; give a key without a passphrase") from None
        except ssl.SSLError as problem:
            raise _refused(*self._blamed(problem)) from None

    def _blamed(self, problem: ssl.SSLError) -> tuple[str, Path, str]:
        """Which file is wrong, as far as OpenSSL says."""
        if problem.reason == "KEY_VALUES_MISMATCH":
            return "tls-key", self._key, f"does not belong to the certificate in {self._cert}"
        try:
            _new_context().load_verify_locations(self._cert)
        except ssl.SSLError:
            return "tls-cert", self._cert, "holds no certificate that can be read"
        why = f" ({problem.reason})" if problem.reason else ""
        return "tls-key", self._key, f"holds no private key that can be used{why}"

    def _signature(self) -> _Signature:
        states = []
        for file in (self._cert, self._key):
            with contextlib.suppress(OSError):
                state = file.stat()
                states.append((state.st_mtime_ns, state.st_size, state.st_ino))
        return tuple(states)


def certificate_of(settings: Settings) -> Certificate | None:
    """The certificate that settings name, None where they name none. Raises SettingsError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_cert, settings.tls_key)


class _PasswordAskedError(Exception):
    """OpenSSL would ask for a passphrase at the terminal."""


def _no_password() -> str:
    raise _PasswordAskedError


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _refused(setting: str, file: Path, what: str) -> SettingsError:
    variable = "FIRSTDRAFT_" + setting.upper().replace("-", "_")
    return SettingsError(f"--{setting} ({variable}) {file}: {what}")
