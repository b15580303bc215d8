"""The name under which an answer is kept: everything that can change the answer, and nobody can guess it.

An HMAC: who cannot read the secret cannot tell a key from a prompt, nor ask whether another tenant sent a prompt.
Each part has its length before it, so that no two lists of parts read alike.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable

import msgspec

from gateway.inference.request import InferenceRequest

_VERSION = b"prompt/1"

LEFT_OUT = {
    "user": "names the end user for the provider's abuse checks; no model sees it",
    "safety_identifier": "the newer name of `user`",
    "prompt_cache_key": "steers the provider's own prefix cache; it changes what an answer costs, not what it says",
}
"""Request fields that are not in the key, each with the reason. All others are, known or unknown.

`stream_options` is left out only where it says nothing but `include_usage`: that decides whether the client is shown
the usage, which is kept apart from the answer. `stream` stays in: answers to both kinds are kept as they came.
"""

_USAGE_ONLY = {"include_usage"}


def cache_key(
    secret: bytes,
    *,
    request: InferenceRequest,
    tenant: str,
    deployment_ids: tuple[str, ...],
    policy_part: str,
    extra: bytes,
) -> str:
    """64 hexadecimal digits. An empty `tenant` stands for all tenants, no tenant's name is empty."""
    parts = [
        _VERSION,
        b"one tenant" if tenant else b"shared",
        _bytes(tenant),
        _bytes(request.surface),
        _bytes(policy_part),
        extra,
        str(len(deployment_ids)).encode(),
        *(_bytes(deployment_id) for deployment_id in deployment_ids),
    ]
    for name in sorted(request.fields):
        value = bytes(request.fields[name])
        if name not in LEFT_OUT and not (name == "stream_options" and _says_usage_only(value)):
            parts += (_bytes(name), value)
    return hmac.digest(secret, _framed(parts), "sha256").hex()


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _says_usage_only(value: bytes) -> bool:
    try:
        options = msgspec.json.decode(value, type=dict[str, msgspec.Raw] | None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return options is None or set(options) <= _USAGE_ONLY
