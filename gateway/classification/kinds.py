"""What the classifier looks for, and the labels that it gives."""

from __future__ import annotations

from enum import StrEnum

import msgspec

PERSONAL = "personal"
"""On everything that tells of a person."""
UNCLASSIFIED = "unclassified"
"""On a request that could not be read, or not all of it."""


class Kind(StrEnum):
    """A kind of data that is found by its form. The value is its name in policies, logs and counts."""

    CARD = "card"
    IBAN = "iban"
    NATIONAL_ID = "national-id"
    EMAIL = "email"
    PHONE = "phone"
    IP = "ip"
    SECRET = "secret"  # noqa: S105 - the name of a kind

    __hash__ = str.__hash__
    """An enumeration's own is written in Python, and asked for with every number that is found."""


ALL_KINDS = frozenset(Kind)


class KindFacts(msgspec.Struct, frozen=True):
    """A row of the documentation: a kind, its labels, and how it is told from what looks like it."""

    kind: Kind
    labels: tuple[str, ...]
    means: str


KINDS: tuple[KindFacts, ...] = (
    KindFacts(Kind.CARD, (PERSONAL, "personal.card"), "payment card: issuer's prefix and length, Luhn"),
    KindFacts(Kind.IBAN, (PERSONAL, "personal.iban"), "bank account: country's length, ISO 7064 check"),
    KindFacts(
        Kind.NATIONAL_ID,
        (PERSONAL, "personal.national-id"),
        "number of a person in a national register: its check digits, and a word that names it where these are weak",
    ),
    KindFacts(
        Kind.EMAIL, (PERSONAL, "personal.email"), "e-mail address, but for reserved names (`example.com`, `.test`)"
    ),
    KindFacts(
        Kind.PHONE,
        (PERSONAL, "personal.phone"),
        "phone number: `+` and a country's numbering plan, or a usual national form",
    ),
    KindFacts(Kind.IP, (PERSONAL, "personal.ip"), "IP address, version 4 or 6, of the public Internet"),
    KindFacts(Kind.SECRET, ("secret",), "API keys of known providers, private keys, tokens (JWT), passwords in URLs"),
)
"""Every kind; the table in the documentation is made from this."""


LABELS: dict[Kind, tuple[str, ...]] = {facts.kind: facts.labels for facts in KINDS}
"""The labels that each kind gives."""
