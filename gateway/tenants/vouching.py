"""The way to `tokens`, which is loaded only where policy names issuers: it needs the extra `oidc`."""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Self

from gateway.errors import IdentityUnavailable, SettingsError
from gateway.tenants.issuer import Issuer

if TYPE_CHECKING:
    from gateway.tenants.tokens import Tokens, Vouched

_MISSING = "policy has `issuers`, but what checks their tokens is missing: pip install 'firstdraft[oidc]'"


class Vouching:
    """Checks tokens, with what is loaded when it is first needed. An async context manager."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tokens is not None:
            await self._tokens.__aexit__(kind, error, trace)

    def load(self) -> Tokens:
        """What checks tokens. Raises SettingsError: it is not installed."""
        if self._tokens is None:
            try:
                module = import_module("gateway.tenants.tokens")
            except ImportError:
                raise SettingsError(_MISSING) from None
            self._tokens = module.Tokens()
        return self._tokens

    async def check(self, token: str, issuers: tuple[Issuer, ...]) -> Vouched:
        """As `Tokens.check`; IdentityUnavailable, too, where it is not installed."""
        try:
            tokens = self.load()
        except SettingsError as error:
            raise IdentityUnavailable(error.message) from None
        return await tokens.check(token, issuers)
