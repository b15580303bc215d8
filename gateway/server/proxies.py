"""Who a request really comes from, and under which URL its sender knows the gateway: what trusted proxies say of it.

A proxy tells both in `forwarded` (RFC 7239) or in `x-forwarded-for`, `-proto` and `-host`. A client can write the same
headers, so they count only from a peer that settings trust, and of a chain of proxies only as far as each is trusted.
Where both kinds are there, a proxy that writes one may have passed on a client's other: then neither counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aiohttp import web
from multidict import CIMultiDictProxy

Network = IPv4Network | IPv6Network
_PAIR = re.compile(r'\s*([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|$)')
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")
_MOST_HOPS = 32
_MOST_PEERS = 4_096


class Hop(NamedTuple):
    """What one proxy says: whom it got the request from, by which scheme, for which host. Empty: nothing."""

    address: str = ""
    scheme: str = ""
    host: str = ""


class Proxies:
    """The proxies whose word is believed.

    Args:
        networks: where they are, in CIDR.
    """

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._networks: tuple[Network, ...] = tuple(ip_network(network) for network in networks)
        self._peers: dict[str, bool] = {}

    def client(self, peer: str | None, headers: CIMultiDictProxy[str]) -> str:
        """The address of the client; of the peer, where nobody who is trusted says more. Empty: there is none."""
        if not self._networks or peer is None:
            return peer or ""
        return self._hop(peer, headers).address or peer

    def url(self, request: web.Request) -> str:
        """Scheme and host under which the client sent `request`, as in `https://gateway.example.com`.

        Empty where no trusted proxy says either: a path alone then leads back to where the client asked.
        """
        if not self._networks or request.remote is None:
            return ""
        hop = self._hop(request.remote, request.headers)
        if not hop.scheme and not hop.host:
            return ""
        host = hop.host if _HOST.fullmatch(hop.host) else request.host
        return f"{hop.scheme if hop.scheme in {'http', 'https'} else request.scheme}://{host}"

    def _hop(self, peer: str, headers: CIMultiDictProxy[str]) -> Hop:
        """What the outermost trusted proxy says; an empty hop where nobody says anything."""
        if not self._trusts(peer):
            return Hop()
        hops = _hops(headers)
        found = Hop()
        for hop in reversed(hops):
            address = _plain(hop.address)
            if not address:
                break
            found = hop._replace(address=address)
            if not self._trusts(address):
                break
        return found

    def _trusts(self, peer: str) -> bool:
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= _MOST_PEERS:
                self._peers.clear()
            known = self._peers[peer] = self._is_inside(peer)
        return known

    def _is_inside(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self._networks)


def is_passed_on(headers: Mapping[str, str]) -> bool:
    """Some proxy says that it passed this request on."""
    return "x-forwarded-for" in headers or "forwarded" in headers


def _hops(headers: CIMultiDictProxy[str]) -> list[Hop]:
    """What the proxies say, the nearest last; nothing where it cannot be told who wrote it."""
    standard, old = headers.getall("forwarded", ()), headers.getall("x-forwarded-for", ())
    if standard and old:
        return []
    if standard:
        return _read_forwarded(", ".join(standard))
    addresses = _listed(headers, "x-forwarded-for")
    schemes, hosts = _listed(headers, "x-forwarded-proto"), _listed(headers, "x-forwarded-host")
    return [
        Hop(address, _of_hop(schemes, index, len(addresses)).lower(), _of_hop(hosts, index, len(addresses)))
        for index, address in enumerate(addresses)
    ]


def _listed(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    text = ",".join(headers.getall(name, ()))
    return [value.strip() for value in text.split(",")][-_MOST_HOPS:] if text else []


def _of_hop(values: list[str], index: int, hops: int) -> str:
    """The value of one hop; where not each proxy added one, the last, which the nearest wrote."""
    if not values:
        return ""
    return values[index] if len(values) == hops else values[-1]


def _read_forwarded(text: str) -> list[Hop]:
    """The elements of a `forwarded` header; none at all where it is not one."""
    hops: list[Hop] = []
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            return []
        name, quoted, plain, ended = found.groups()
        pairs[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        position = found.end()
        if ended != ";":
            hops.append(Hop(pairs.get("for", ""), pairs.get("proto", "").lower(), pairs.get("host", "")))
            pairs = {}
    return hops[-_MOST_HOPS:]


def _plain(address: str) -> str:
    """An address without brackets and port; empty when it is none, as in `unknown` or `_hidden`."""
    text = address.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
