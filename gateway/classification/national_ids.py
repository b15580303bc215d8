"""Numbers of persons in national registers.

Each is a row: the shape in which it is written, the check that it must pass, and the tag of the words one of which must
name it where the check is weak or missing (see `cues`). The checks are python-stdnum's.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from stdnum.ar import cuit
from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cnpj, cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nif, nir
from stdnum.gb import nhs, utr
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.il import idnr as teudat_zehut
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.jp import in_ as my_number
from stdnum.kr import rrn
from stdnum.lt import asmens
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif as contribuinte
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as rsa_id

Check = Callable[[str], bool]


class NumberId(msgspec.Struct, frozen=True):
    """A number of digits alone. A form such as `3-2-4` is the lengths of its groups and what stands between them."""

    country: str
    name: str
    check: Check
    alone: tuple[str, ...] = ()
    """Forms that need no word beside them."""
    named: tuple[str, ...] = ()
    """Forms that count when a word names them."""
    tag: str = ""
    """Of the words that do; see `cues.WORDS`."""


class MixedId(msgspec.Struct, frozen=True):
    """A number with letters, found by a pattern (RE2's syntax)."""

    country: str
    name: str
    pattern: str
    check: Check
    tag: str = ""
    """Of the words one of which must name it; empty: none has to."""


def is_nino(found: str) -> bool:
    """A National Insurance number: it has no check digit, but prefixes that are not given (HMRC, NIM39110)."""
    return found[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def is_pension_number(found: str) -> bool:
    """A German Versicherungsnummer: day and month, and the check digit of § 2 VKVV."""
    digits = found.replace(" ", "")
    letter = ord(digits[8]) - ord("A") + 1
    spelled = f"{digits[:8]}{letter:02d}{digits[9:]}"
    day, month = int(digits[2:4]), int(digits[4:6])
    if not (1 <= day <= 31 or 51 <= day <= 81) or not 0 <= month <= 12:
        return False
    products = (int(digit) * weight for digit, weight in zip(spelled, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2), strict=False))
    return sum(sum(divmod(product, 10)) for product in products) % 10 == int(spelled[-1])


def is_resident_identity(found: str) -> bool:
    """A Chinese one; stdnum's check fails for a place whose province it knows, and the county not."""
    try:
        return bool(ric.is_valid(found))
    except KeyError:
        return False


def is_passport(found: str) -> bool:
    """Passports and identity cards have many forms: digits for the most part, behind a word that names them."""
    return sum(character.isdigit() for character in found) * 2 > len(found)


NUMBER_IDS: tuple[NumberId, ...] = (
    NumberId("US", "SSN", ssn.is_valid, ("3-2-4",), ("9", "3 2 4"), "us"),
    NumberId("US", "ITIN", itin.is_valid, ("3-2-4",), ("9", "3 2 4"), "us"),
    NumberId("GB", "NHS number", nhs.is_valid, (), ("10", "3 3 4", "3-3-4"), "gb"),
    NumberId("GB", "UTR", utr.is_valid, (), ("10", "5 5"), "gb"),
    NumberId("DE", "Steuer-ID", idnr.is_valid, (), ("11", "2 3 3 3"), "de"),
    NumberId("FR", "NIR", nir.is_valid, ("15", "13 2", "1 2 2 2 3 3 2")),
    NumberId("FR", "numéro fiscal", nif.is_valid, (), ("13", "2 2 3 3 3"), "fr"),
    NumberId("NL", "BSN", bsn.is_valid, (), ("9", "4.2.3", "4 2 3", "3 3 3", "3.3.3"), "nl"),
    NumberId("BR", "CPF", cpf.is_valid, ("3.3.3-2",), ("11",), "br"),
    NumberId("BR", "CNPJ", cnpj.is_valid, ("2.3.3/4-2",), ("14",), "br"),
    NumberId("IN", "Aadhaar", aadhaar.is_valid, ("4 4 4", "4-4-4"), ("12",), "in"),
    NumberId("AR", "CUIT", cuit.is_valid, ("2-8-1",)),
    NumberId("AT", "Sozialversicherungsnummer", vnr.is_valid, (), ("10", "4 6"), "at"),
    NumberId("AU", "TFN", tfn.is_valid, (), ("9", "3 3 3"), "au"),
    NumberId("BE", "national number", nn.is_valid, ("2.2.2-3.2",)),
    NumberId("BG", "EGN", egn.is_valid, (), ("10",), "bg"),
    NumberId("CA", "SIN", sin.is_valid, (), ("9", "3 3 3", "3-3-3"), "ca"),
    NumberId("CH", "AHV number", ahv.is_valid, ("3.4.4.2",)),
    NumberId("CL", "RUT", rut.is_valid, ("2.3.3-1", "1.3.3-1")),
    NumberId("CN", "resident identity", is_resident_identity, ("18",)),
    NumberId("CZ", "rodné číslo", rc.is_valid, ("6/4", "6/3"), ("10",), "cz"),
    NumberId("DK", "CPR", cpr.is_valid, (), ("6-4", "10"), "dk"),
    NumberId("EE", "isikukood", ik.is_valid, (), ("11",), "ee"),
    NumberId("GR", "AMKA", amka.is_valid, (), ("11",), "gr"),
    NumberId("HR", "OIB", oib.is_valid, (), ("11",), "hr"),
    NumberId("IL", "teudat zehut", teudat_zehut.is_valid, (), ("9",), "il"),
    NumberId("JP", "My Number", my_number.is_valid, (), ("12", "4 4 4", "4-4-4"), "jp"),
    NumberId("KR", "RRN", rrn.is_valid, ("6-7",)),
    NumberId("LT", "asmens kodas", asmens.is_valid, (), ("11",), "lt"),
    NumberId("NO", "fødselsnummer", fodselsnummer.is_valid, ("6 5",), ("11",), "no_"),
    NumberId("PL", "PESEL", pesel.is_valid, (), ("11",), "pl"),
    NumberId("PT", "NIF", contribuinte.is_valid, (), ("9", "3 3 3"), "pt"),
    NumberId("RO", "CNP", cnp.is_valid, (), ("13",), "ro"),
    NumberId("SE", "personnummer", personnummer.is_valid, ("6-4", "8-4"), ("10", "12"), "se"),
    NumberId("TR", "kimlik", tckimlik.is_valid, (), ("11",), "tr"),
    NumberId("ZA", "identity number", rsa_id.is_valid, (), ("13",), "za"),
)

MIXED_IDS: tuple[MixedId, ...] = (
    MixedId("GB", "NINO", r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", is_nino),
    MixedId("DE", "Versicherungsnummer", r"\b\d{2} ?\d{6} ?[A-Z] ?\d{3}\b", is_pension_number),
    MixedId("FR", "NIR (Corsica)", r"\b[12] ?\d{2} ?\d{2} ?2[AB] ?\d{3} ?\d{3} ?\d{2}\b", nir.is_valid),
    MixedId("ES", "DNI", r"\b\d{8}-?[A-Z]\b", dni.is_valid),
    MixedId("ES", "NIE", r"\b[XYZ]-?\d{7}-?[A-Z]\b", nie.is_valid),
    MixedId(
        "IT",
        "codice fiscale",
        r"(?i)\b[A-Z]{6} ?[0-9LMNP-V]{2}[A-EHLMPR-T][0-9LMNP-V]{2} ?[A-Z][0-9LMNP-V]{3}[A-Z]\b",
        codicefiscale.is_valid,
    ),
    MixedId("IN", "PAN", r"\b[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]\b", pan.is_valid),
    MixedId("CL", "RUT", r"\b\d{1,2}\.\d{3}\.\d{3}-[Kk]\b", rut.is_valid),
    MixedId("CN", "resident identity", r"\b\d{17}[Xx]\b", is_resident_identity),
    MixedId("FI", "henkilötunnus", r"\b\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]\b", hetu.is_valid),
    MixedId("IE", "PPS number", r"\b\d{7}[A-W][A-IW]?\b", pps.is_valid, "ie"),
    MixedId("MX", "CURP", r"\b[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d\b", curp.is_valid),
    MixedId("", "passport or identity card", r"\b[A-Z]{0,3}\d[0-9A-Z]{6,9}\b", is_passport, "passport"),
)
