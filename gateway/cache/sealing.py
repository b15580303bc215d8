"""Encryption of answers at rest: AES-256-GCM, with keys that can be changed while old entries live on.

The first key seals; all keys open. To change the key, put the new one in front, restart, and drop the old one when the
longest time to live has passed. Entries of before encryption was switched on are read until they expire; a sealed
entry without its key is a miss. The name of an entry is bound to it, so that nobody who can write to the store can
move one answer under another prompt.

    sealed = first 4 bytes of SHA-256(key) ‖ nonce (12) ‖ ciphertext and tag (16)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from gateway.errors import SettingsError

_KEY_BYTES = 32
_ID_BYTES = 4
_NONCE_BYTES = 12


class Sealer:
    """Seals with the first of `keys` (32 bytes each, at least one), opens with any.

    Raises:
        SettingsError: the extra `encryption` is not installed, or a key has another length.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != _KEY_BYTES for key in keys):
            raise SettingsError(f"a key that seals the cache has {_KEY_BYTES} bytes")
        try:
            aead = import_module("cryptography.hazmat.primitives.ciphers.aead")
        except ImportError:
            message = (
                "keys to seal the cache are set, but cryptography is missing: pip install 'firstdraft[encryption]'"
            )
            raise SettingsError(message) from None
        self._ciphers: dict[bytes, Any] = {_id_of(key): aead.AESGCM(key) for key in reversed(keys)}
        self._first = _id_of(keys[0])

    def seal(self, data: bytes, name: str) -> bytes:
        """`data`, readable only with the key and under the same `name`."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed: bytes = self._ciphers[self._first].encrypt(nonce, data, name.encode())
        return self._first + nonce + sealed

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed. Raises ValueError: no key of ours, changed, or under another name."""
        cipher = self._ciphers.get(sealed[:_ID_BYTES])
        if cipher is None:
            raise ValueError("sealed with a key that is not here")
        nonce, body = sealed[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], sealed[_ID_BYTES + _NONCE_BYTES :]
        try:
            data: bytes = cipher.decrypt(nonce, body, name.encode())
        except Exception as error:
            # cryptography's InvalidTag is no ValueError, and cannot be named where the extra is missing.
            raise ValueError("changed, or sealed under another name") from error
        return data


def read_keys(text: str) -> tuple[bytes, ...]:
    """Keys in base64, divided by commas or white space. Raises ValueError with a sentence that shows none of them."""
    keys = []
    for position, word in enumerate(text.replace(",", " ").split(), start=1):
        try:
            key = base64.b64decode(word, altchars=b"-_" if "-" in word or "_" in word else None, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {position} is not base64") from None
        if len(key) != _KEY_BYTES:
            raise ValueError(
                f"key {position} has {len(key)} bytes instead of {_KEY_BYTES}; try: openssl rand -base64 32"
            )
        keys.append(key)
    return tuple(keys)


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"firstdraft cache key\0" + key).digest()[:_ID_BYTES]
