"""Words beside a number that say what it is, or what it is not.

Many numbers have no check digit, or one that every tenth number passes. Such a number counts when a word before it
names its kind ("SSN", "téléphone"), and does not when the word before it names another ("order no."). Words on other
lines never speak against a number, so that a text that is added cannot hide what stands in another.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from operator import itemgetter

import re2

NO = "no"
"""The tag of words that say that a number is not a person's."""

_BEFORE_BYTES = 40
_AFTER_BYTES = 24
_AGAINST_BYTES = 20
_END = itemgetter(1)
_LONGEST_WORD = 40
_MOST_REMEMBERED = 4_096
REACH_BYTES = _BEFORE_BYTES + 2 * _LONGEST_WORD
"""How far from a number its cues may begin or end."""

WORDS: Mapping[str, str] = {
    NO: (
        "order orders bestellung bestellnummer bestell auftrag auftragsnummer commande pedido ordine ordernummer "
        "invoice rechnung rechnungsnummer facture factura fattura factuur fatura nota_fiscal tracking shipment "
        "parcel sendung sendungsnummer colis isbn issn ean gtin upc asin barcode sku serial seriennummer imei "
        "imsi iccid meid mac part_no part_number article artikel artikelnummer ticket case issue build version "
        "ver release firmware kernel revision rev commit hash sha sha1 sha256 md5 checksum timestamp epoch unix_time "
        "lot batch ref reference referenz référence transaction_id transaction txn trace_id span_id request_id "
        "session_id message_id order_id user_id uuid doi pmid arxiv patent protocolo seed offset bytes lines "
        "section chapter kapitel oid catalog catalogue model_no"
    ),
    "card": (
        "card cards creditcard cc visa mastercard amex maestro debit karte kreditkarte kreditkartennummer carte "
        "carte_bancaire tarjeta cartão carta creditcardnummer kaart pan card_number cardnumber"
    ),
    "phone": (
        "phone phones fon telephone telefon telefonnummer tel telefono teléfono téléphone tél telefone telefoon "
        "telefoonnummer mobile mobil mobilnummer mobiltelefon cell cellphone cellulare celular fax call calling "
        "dial whatsapp sms text_me handy handynummer ruf rufnummer anruf anrufen portable móvil movil llama "
        "mobiel gsm phone_number reach_me ring hotline durchwahl numéro_de_téléphone phonenumber"
    ),
    "ip": (
        "ip ips ipv4 ipv6 ip_address addr address adresse host hostname server client remote peer from login "
        "logins logged ping traceroute ssh src dst source remote_addr x_forwarded_for client_ip dirección "
        "indirizzo visitor"
    ),
    "us": (
        "ssn ssns social_security social_security_number social_security_no social social_insurance_us itin taxpayer"
    ),
    "gb": "nhs nhs_number nhs_no nino national_insurance ni_number utr",
    "de": (
        "steuer_id steuerid steueridentifikationsnummer idnr steuer_idnr identifikationsnummer steuernummer "
        "steuerliche_identifikationsnummer"
    ),
    "nl": "bsn burgerservicenummer sofinummer sofi_nummer",
    "br": "cpf cnpj",
    "in": "aadhaar aadhar uidai uid",
    "fr": "nir sécurité_sociale numéro_de_sécu insee numéro_fiscal",
    "es": "dni nie nif",
    "ca": "sin social_insurance",
    "au": "tfn medicare tax_file_number",
    "pl": "pesel",
    "dk": "cpr cpr_nummer",
    "no_": "fødselsnummer personnr fnr",
    "se": "personnummer",
    "at": "svnr sozialversicherungsnummer",
    "cz": "rodné_číslo rodne_cislo",
    "bg": "egn егн",
    "gr": "amka αμκα",
    "hr": "oib",
    "tr": "tckn tc_kimlik kimlik",
    "za": "rsa_id south_african_id sa_id",
    "ro": "cnp",
    "ee": "isikukood",
    "lt": "asmens_kodas",
    "jp": "my_number マイナンバー",
    "pt": "número_de_contribuinte contribuinte",
    "ie": "pps ppsn pps_number",
    "il": "teudat_zehut",
    "cn": "身份证 身份证号",
    "passport": (
        "passport passport_no passport_number reisepass reisepassnummer personalausweis personalausweisnummer "
        "ausweisnummer ausweis passeport pasaporte passaporto paspoort paspoortnummer passaporte"
    ),
    "any": (
        "national_id national_identity id_number identity_number tax_id tax_number tin tax_identification "
        "personal_identity personal_code id_card identity_card"
    ),
}
"""Tag -> its words; `_` stands for nothing, a space, `-`, `_` or a dot."""


class CueWords:
    """The words, compiled. Made once for each policy."""

    def __init__(self) -> None:
        self.tags: dict[str, tuple[str, ...]] = {}
        spelled = []
        for tag, words in WORDS.items():
            for word in words.split():
                key = word.replace("_", "")
                self.tags[key] = (*self.tags.get(key, ()), tag)
                spelled.append(_spelled(word))
        spelled.sort(key=len, reverse=True)
        options = re2.Options()
        options.never_capture = True
        options.log_errors = False
        options.max_mem = 32 << 20
        self.pattern = re2.compile(rf"(?i)(?:{'|'.join(spelled)})", options)
        self._found: dict[bytes, tuple[str, ...]] = {}

    def tags_of(self, word: bytes) -> tuple[str, ...]:
        """The tags of a word as it was found."""
        tags = self._found.get(word)
        if tags is None:
            if len(self._found) >= _MOST_REMEMBERED:
                self._found.clear()
            tags = self._found[word] = self._look_up(word)
        return tags

    def _look_up(self, word: bytes) -> tuple[str, ...]:
        found = word.decode("utf-8", "replace").lower()
        if not found.isalnum():
            found = "".join(filter(str.isalnum, found))
        return self.tags.get(found, ())


class Cues:
    """The cues in a part of a text."""

    def __init__(self, words: CueWords, data: bytes, first: int, last: int) -> None:
        self._data = data
        self._ends: list[int] = []
        self._starts: list[int] = []
        self._tags: list[tuple[str, ...]] = []
        self._by_tag: dict[str, list[tuple[int, int]]] = {}
        for found in words.pattern.finditer(data, first, last):
            start, end = found.span()
            self._starts.append(start)
            self._ends.append(end)
            tags = words.tags_of(data[start:end])
            self._tags.append(tags)
            for tag in tags:
                self._by_tag.setdefault(tag, []).append((start, end))

    def are_near(self, tag: str, start: int, end: int) -> bool:
        """A cue with `tag` may be near enough to one of the numbers in the span: a first and fast question."""
        found = self._by_tag.get(tag)
        if not found:
            return False
        index = bisect_left(found, start - _BEFORE_BYTES, key=_END)
        return index < len(found) and found[index][0] <= end + _AFTER_BYTES

    def name(self, tags: tuple[str, ...], start: int, end: int) -> bool:
        """A cue with one of `tags` stands shortly before `start` to `end`, or behind it on the same line."""
        if not any(self.are_near(tag, start, end) for tag in tags):
            return False
        index = bisect_right(self._ends, start)
        for before in range(index - 1, -1, -1):
            if start - self._ends[before] > _BEFORE_BYTES:
                break
            if any(tag in tags for tag in self._tags[before]):
                return True
        for after in range(index, len(self._ends)):
            distance = self._starts[after] - end
            if distance > _AFTER_BYTES or (distance > 0 and b"\n" in self._data[end : self._starts[after]]):
                break
            if distance >= 0 and any(tag in tags for tag in self._tags[after]):
                return True
        return False

    def refuse(self, start: int) -> bool:
        """The last cue before `start`, on the same line and near, says that this is something else."""
        index = bisect_right(self._ends, start) - 1
        if index < 0 or self._tags[index] != (NO,) or start - self._ends[index] > _AGAINST_BYTES:
            return False
        return b"\n" not in self._data[self._ends[index] : start]


def _spelled(word: str) -> str:
    """The pattern of a word: bounded where it begins and ends in Latin script, which is written with spaces."""
    pattern = r"[ ._-]?".join(re2.escape(part) for part in word.strip("_").split("_"))
    first = r"(?:\b|_)" if word[0].isascii() else ""
    last = r"(?:\b|_)" if word[-1].isascii() else ""
    return f"{first}{pattern}{last}"
