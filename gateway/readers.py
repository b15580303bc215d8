"""What the text of a setting has to be: a reader for each kind of value.

Each turns text into the value, or raises ValueError with what it has to be, as the end of a sentence.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:.]{2,45}\])(:[0-9]{1,5})?")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")


def path(text: str) -> Path:
    """A path; `~` is the home folder."""
    if not text or "\0" in text:
        raise ValueError("has to be a path")
    return Path(text).expanduser()


def host(text: str) -> str:
    """An IP address or a host name."""
    if _HOST_NAME.fullmatch(text) is None:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            raise ValueError("has to be an IP address or a host name, without a scheme and a port") from None
    return text


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number in this range."""

    def read(text: str) -> int:
        value = int(text) if re.fullmatch(r"[0-9](_?[0-9]){0,18}", text) else -1
        if not low <= value <= high:
            raise ValueError(f"has to be a whole number from {low:,} to {high:,}")
        return value

    return read


def or_auto(low: int, high: int) -> Callable[[str], int]:
    """A whole number in this range; 0 for `auto`."""

    def read(text: str) -> int:
        if text.lower() == "auto":
            return 0
        try:
            return whole(low, high)(text)
        except ValueError as error:
            raise ValueError(f"{error}, or auto") from None

    return read


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Seconds in this range."""

    def read(text: str) -> float:
        value = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else -1.0
        if not low <= value <= high:
            raise ValueError(f"has to be seconds from {low:g} to {high:g}")
        return value

    return read


def share(text: str) -> float:
    """A share from 0 to 1."""
    value = float(text) if re.fullmatch(r"[01]?(\.[0-9]{1,9})?", text) and text else -1.0
    if not 0 <= value <= 1:
        raise ValueError("has to be a share from 0 to 1, as in 0.01")
    return value


def one_of(*allowed: str) -> Callable[[str], str]:
    """One of these words, in lower case."""

    def read(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError("has to be one of " + ", ".join(allowed))
        return text.lower()

    return read


def switch(text: str) -> bool:
    """On or off."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("has to be on or off")


def redis_url(text: str) -> str:
    """The URL of a Redis, or of Sentinels or a Cluster."""
    expected = (
        "has to be redis://HOST:PORT/DB, rediss://… (TLS), unix:///PATH, "
        "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT"
    )
    try:
        parts = urlsplit(text)
        scheme, _, kind = parts.scheme.partition("+")
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        complete = all(bool(host.hostname) and host.port != 0 for host in hosts)
    except ValueError:  # a port that is none, an unfinished IPv6 address
        raise ValueError(expected) from None
    path = parts.path.strip("/")
    good = {
        "": bool(path) if scheme == "unix" else complete and len(hosts) == 1,
        "sentinel": complete and bool(path) and scheme != "unix",
        "cluster": complete and not path and scheme != "unix",
    }
    if scheme not in {"redis", "rediss", "unix"} or not good.get(kind, False):
        raise ValueError(expected)
    return text


def cache_keys(text: str) -> str:
    """Only that it is there: what reads the keys is the cache."""
    if not text.removeprefix("file:"):
        raise ValueError("has to be file:PATH, or keys in base64")
    return text


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, or `*`; `none` for none."""
    given = _listed(text)
    if given in ((), ("none",)):
        return ()
    if given == ("*",):
        return given
    for origin in given:
        if _ORIGIN.fullmatch(origin) is None:
            raise ValueError(f"has to be origins such as https://app.example.com, or * alone; {origin[:80]!r} is none")
    return tuple(_as_browsers_write(origin) for origin in given)


def _as_browsers_write(origin: str) -> str:
    """In lower case, without the port that goes without saying."""
    plain = origin.lower()
    for scheme, port in (("http://", ":80"), ("https://", ":443")):
        if plain.startswith(scheme):
            plain = plain.removesuffix(port)
    return plain


def networks(text: str) -> tuple[str, ...]:
    """Networks in CIDR, or addresses; `none` for none."""
    given = _listed(text)
    if given in ((), ("none",)):
        return ()
    try:
        return tuple(str(ipaddress.ip_network(network)) for network in given)
    except ValueError:
        raise ValueError("has to be addresses or networks such as 10.0.0.0/8, separated by commas") from None


def key_hash(text: str) -> str:
    """The SHA-256 of a key in hex, or `file:PATH`; never the key itself, which others could see."""
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return text.lower()
    if not text.startswith("file:") or len(text) == len("file:"):
        raise ValueError("has to be file:PATH, or a SHA-256 in 64 hexadecimal digits; not the key itself")
    return text


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
