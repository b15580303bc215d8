"""E-mail addresses and addresses of the Internet, and what looks like one and is none."""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Iterator

IPV6 = r"\b[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}"

_RESERVED = frozenset({"example", "invalid", "localhost", "local", "test", "internal", "lan"})
"""Top names that are nobody's (RFC 2606, RFC 6761, RFC 6762), and those of networks inside a house."""
_RESERVED_DOMAINS = ("example.com", "example.net", "example.org", "domain.com", "yourdomain.com", "yourcompany.com")
"""RFC 2606's, and those that stand for "yours" in documentation."""
_FILE_ENDINGS = frozenset(
    [
        "bz",
        "css",
        "csv",
        "gif",
        "gz",
        "html",
        "ico",
        "ini",
        "jar",
        "jpeg",
        "jpg",
        "js",
        "json",
        "jsx",
        "lock",
        "log",
        "map",
        "mp",
        "pdf",
        "php",
        "png",
        "scss",
        "svg",
        "tar",
        "tgz",
        "toml",
        "ts",
        "tsx",
        "txt",
        "webp",
        "whl",
        "xml",
        "xz",
        "yaml",
        "yml",
    ]
)
"""Of files whose names have an `@` (`logo@2x.png`) and which are no top domain."""
_NO_PERSON = frozenset({"git", "svn", "hg"})
"""Users of addresses that are for programs (`git@github.com:owner/repository`)."""
_LOCAL_BACKWARDS = re.compile(rb"[A-Za-z0-9_.%+'\x80-\xff-]+")
_DOMAIN = re.compile(rb"(?:[A-Za-z0-9\x80-\xff-]{1,63}\.){1,8}[A-Za-z\x80-\xff]{2,24}(?![A-Za-z0-9_-])")
_LONGEST_LOCAL = 64
"""RFC 5321."""
_GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_VERSION_BEFORE = frozenset({b".", b"-", b"_", b"/", b"+", b"v", b"V", b"@", b"^", b"~"})
_VERSION_AFTER = frozenset({b".", b"-", b"_", b"+"})
_NOT_PUBLIC = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
)  # fmt: skip
"""IANA's registry of special purposes, in order, and multicast; looked up here since `ipaddress` takes 3 µs for it."""
_NOT_PUBLIC_FIRST = tuple(int(network.network_address) for network in _NOT_PUBLIC)
_NOT_PUBLIC_LAST = tuple(int(network.broadcast_address) for network in _NOT_PUBLIC)
_VERSION_LIKE = 32
"""Where all four numbers are smaller, it is more often a version than an address."""


def emails(data: bytes) -> Iterator[tuple[int, int]]:
    """Where addresses of somebody are, or nearly: call `is_email` on them."""
    for sign in (b"@", b"%40"):
        at = data.find(sign)
        while at >= 0:
            behind = at + len(sign)
            domain = _DOMAIN.match(data, behind)
            if domain is not None:
                local = _LOCAL_BACKWARDS.match(data[max(0, at - _LONGEST_LOCAL - 1) : at][::-1])
                if local is not None:
                    yield at - local.end(), domain.end()
            at = data.find(sign, behind)


def is_email(data: bytes, start: int, end: int) -> bool:
    """The span is the address of somebody."""
    local, _, domain = data[start:end].decode("utf-8", "replace").replace("%40", "@").lower().partition("@")
    local = local.strip(".'%-")
    top = domain.rpartition(".")[2]
    if not 0 < len(local) <= _LONGEST_LOCAL or top in _RESERVED or top in _FILE_ENDINGS or not top.isalpha():
        return False
    if domain.endswith(_RESERVED_DOMAINS) and any(
        domain.removesuffix(reserved)[-1:] in {"", "."} for reserved in _RESERVED_DOMAINS
    ):
        return False
    after = data[end : end + 2]
    if after[:1] in {b"(", b"="} or (after[:1] == b":" and (after[1:].isalnum() or after[1:] in {b"/", b"~"})):
        return False  # a call in a program, an assignment, a path on a host
    # What stands before the @ of a URL is a password and is found as one.
    return local not in _NO_PERSON and not _is_password(data, start)


def _is_password(data: bytes, start: int) -> bool:
    before = data[max(0, start - 80) : start]
    return before.endswith(b":") and b"://" in before and b" " not in before[before.rfind(b"://") :]


def is_ipv4(data: bytes, start: int, end: int) -> bool | None:
    """The span is an address of the public Internet; None when a word has to say that it is no version."""
    before, after = data[max(0, start - 3) : start], data[end : end + 2]
    if before[-1:] in _VERSION_BEFORE and not before.endswith(b"://"):
        return False
    if before.endswith(b"==") or (after[:1] in _VERSION_AFTER and after[1:].isalnum()):
        return False
    numbers = [int(number) for number in data[start:end].split(b".")]
    if max(numbers) > 255:
        return False
    address = int.from_bytes(numbers)
    index = bisect_right(_NOT_PUBLIC_FIRST, address) - 1
    if index >= 0 and address <= _NOT_PUBLIC_LAST[index]:
        return False
    return None if max(numbers) < _VERSION_LIKE else True


def is_ipv6(data: bytes, start: int, end: int) -> bool:
    """The span is a global unicast address."""
    if start and data[start - 1 : start] in {b":", b"-", b"_"}:
        return False
    try:
        address = ipaddress.IPv6Address(data[start:end].rstrip(b":").decode())
    except ValueError:
        return False
    return address in _GLOBAL_V6 and address.is_global
