"""API keys, tokens, private keys: what opens a door for whoever reads it.

Known by their form alone, so each pattern is one that its provider documents, or that nothing else has.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable

import msgspec


class Credential(msgspec.Struct, frozen=True):
    """A form (RE2's syntax), and what a span has to pass beyond it."""

    name: str
    pattern: str
    check: Callable[[bytes], bool] | None = None


_PLACEHOLDER = re.compile(
    rb"(?i)example|placeholder|changeme|your|xxxx|\*\*\*|<|\$\{?|\{\{|dummy|redacted|password|passwd|0000000|1234567"
)
_VALUE = re.compile(rb"[=:\s\"']+")
_LEAST_DIFFERENT = 10
"""Characters that a random value of 20 and more has at the least (in hex, 10 are likely); words have fewer."""


def is_random(found: bytes) -> bool:
    """Nobody wrote this by hand to stand for a key: letters and digits, many different ones."""
    value = _VALUE.split(found.rstrip(b"\"'"))[-1]
    if value.isalpha() or value.isdigit() or len(set(value)) < _LEAST_DIFFERENT:
        return False
    return not _PLACEHOLDER.search(value)


def is_no_placeholder(found: bytes) -> bool:
    """It is not the key of somebody's documentation."""
    return not _PLACEHOLDER.search(found)


def is_jwt(found: bytes) -> bool:
    """Its first part is the header of a JSON Web Token (RFC 7515): an object with `alg`."""
    header = found.partition(b".")[0]
    try:
        read = json.loads(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(read, dict) and "alg" in read


def is_password(found: bytes) -> bool:
    """What stands between `:` and `@` in a URL is no placeholder."""
    return not _PLACEHOLDER.search(found.rpartition(b":")[2])


CREDENTIALS: tuple[Credential, ...] = (
    Credential("private key", r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY(?: BLOCK)?-----"),
    Credential("JWT", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}", is_jwt),
    Credential("AWS access key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", is_no_placeholder),
    Credential(
        "AWS secret key",
        r"(?i)aws_?(?:secret)?_?(?:access)?_?key[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9/+]{40}\b",
        is_random,
    ),
    Credential("OpenAI, DeepSeek", r"\bsk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{32,}|[A-Za-z0-9]{32,})", is_random),
    Credential("Anthropic", r"\bsk-ant-[a-z]{3,5}\d\d-[A-Za-z0-9_-]{24,}", is_no_placeholder),
    Credential("OpenRouter", r"\bsk-or-v1-[0-9a-f]{64}\b"),
    Credential("Firstdraft", r"\bfd-[A-Za-z0-9_-]{43}\b"),
    Credential("GitHub", r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    Credential("GitLab", r"\bgl(?:pat|dt|rt|ptt)-[A-Za-z0-9_-]{20,}"),
    Credential("Google", r"\bAIza[A-Za-z0-9_-]{35}"),
    Credential("Google OAuth", r"\b(?:ya29\.[A-Za-z0-9_-]{30,}|GOCSPX-[A-Za-z0-9_-]{28})"),
    Credential("Slack", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}", is_no_placeholder),
    Credential(
        "Slack webhook", r"hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}", is_no_placeholder
    ),
    Credential("Stripe", r"\b(?:[rs]k_live_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9]{32,})", is_no_placeholder),
    Credential("SendGrid", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    Credential("npm, PyPI", r"\b(?:npm_[A-Za-z0-9]{36}\b|pypi-AgE[A-Za-z0-9_-]{50,})"),
    Credential("Hugging Face, Groq, xAI", r"\b(?:hf_[A-Za-z]{34}|gsk_[A-Za-z0-9]{52}|xai-[A-Za-z0-9]{80})\b"),
    Credential(
        "Databricks, DigitalOcean, Shopify",
        r"\b(?:dapi[0-9a-f]{32}|do[opr]_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-f]{32})\b",
    ),
    Credential("Telegram", r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b"),
    Credential("Azure storage", r"AccountKey=[A-Za-z0-9+/]{86}=="),
    Credential(
        "password in a URL",
        r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:@/\"'<>]{0,64}:[^\s:@/\"'<>]{3,128}@[A-Za-z0-9.\[-]",
        is_password,
    ),
    Credential(
        "assigned secret",
        r"(?i)(?:api|secret|access|auth|private|client)[_-]?(?:key|token|secret)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[A-Za-z0-9_/+-]{20,128}={0,2}",
        is_random,
    ),
    Credential("bearer token", r"(?i)\bbearer\s{1,3}[A-Za-z0-9._~+/-]{24,512}={0,2}", is_random),
)
