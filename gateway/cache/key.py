"""The name under which an answer is kept: everything that can change the answer, and nobody can guess it.

A keyed hash (BLAKE2b, RFC 7693): who cannot read the secret cannot tell a key from a prompt, nor ask whether another
tenant sent a prompt.
The parts are MessagePack, where each has its type and length before it: no two lists of parts read alike.
"""

from __future__ import annotations

import hashlib

import msgspec

from gateway.inference.request import InferenceRequest

_VERSION = b"prompt/2"
_ENCODER = msgspec.msgpack.Encoder()

LEFT_OUT = {
    "stream": "the form of the answer, not the answer: what cannot be said in both forms is kept for its own",
    "user": "names the end user for the provider's abuse checks; no model sees it",
    "safety_identifier": "the newer name of `user`",
    "prompt_cache_key": "steers the provider's own prefix cache; it changes what an answer costs, not what it says",
}
"""Request fields that are not in the key, each with the reason. All others are, known or unknown.

`stream_options` is left out only where it says nothing but `include_usage`: that decides whether the client is shown
the usage, which is kept apart from the answer.
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
    """64 hexadecimal digits. `secret` has 64 bytes at most; an empty `tenant` stands for all, no tenant's name is."""
    fields: list[bytes] = []
    for name in sorted(request.fields):
        value = bytes(request.fields[name])
        if name not in LEFT_OUT and not (name == "stream_options" and _says_usage_only(value)):
            fields += (_bytes(name), value)
    whose = b"one tenant" if tenant else b"shared"
    deployments = [_bytes(deployment_id) for deployment_id in deployment_ids]
    parts = [_VERSION, whose, _bytes(tenant), request.surface, _bytes(policy_part), extra, deployments, fields]
    if request.forwarded:
        parts.append([_bytes(text) for header in sorted(request.forwarded.items()) for text in header])
    return hashlib.blake2b(_ENCODER.encode(parts), digest_size=32, key=secret).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _says_usage_only(value: bytes) -> bool:
    try:
        options = msgspec.json.decode(value, type=dict[str, msgspec.Raw] | None)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return options is None or set(options) <= _USAGE_ONLY
