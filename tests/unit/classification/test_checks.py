import ipaddress
import itertools
import random

import pytest
import stdnum.iban
import stdnum.luhn
from phonenumbers import is_valid_number, parse
from stdnum import numdb

from gateway.classification.addresses import is_ipv4
from gateway.classification.cards import _FIRSTS, _RANGES, is_card, passes_luhn
from gateway.classification.cues import WORDS
from gateway.classification.ibans import LENGTHS, is_iban
from gateway.classification.national_ids import MIXED_IDS, NUMBER_IDS, is_pension_number, is_resident_identity
from gateway.classification.phones import NumberingPlans


def test_luhn_is_python_stdnums():
    """Our check, which is faster, says what python-stdnum says."""
    chance = random.Random(3)
    for _ in range(2_000):
        digits = "".join(chance.choices("0123456789", k=chance.randint(12, 19)))
        assert passes_luhn(digits) is stdnum.luhn.is_valid(digits)


@pytest.mark.parametrize(
    "digits",
    [
        "4111111111111111", "5555555555554444", "2223003122003222", "378282246310005", "6011111111111117",
        "30569309025904", "38520000023237", "3530111333300000", "6200000000000005", "6759649826438453",
    ],
)  # fmt: skip
def test_test_numbers_of_the_networks_are_cards(digits):
    """The test numbers that card networks publish have their form."""
    assert is_card(digits)
    assert not is_card(digits[:-1] + str((int(digits[-1]) + 1) % 10))
    assert not is_card("9" + digits[1:])


def test_ranges_of_cards_are_in_order():
    """The ranges are looked up by halving, so they are in order and apart."""
    assert list(_FIRSTS) == sorted(_FIRSTS)
    for (_, last, _), (first, _, _) in itertools.pairwise(_RANGES):
        assert last < first


def test_iban_agrees_with_python_stdnum():
    """Lengths are those of the registry that python-stdnum has, and so is the answer for right and wrong numbers."""
    assert numdb.get("iban").info("DE89")[0][0] == "DE"
    for number in (
        "DE89370400440532013000", "GB29NWBK60161331926819", "FR1420041010050500013M02606", "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S", "BR1800360305000010009795493C1", "CH9300762011623852957",
    ):  # fmt: skip
        assert len(number) == LENGTHS[number[:2]]
        assert stdnum.iban.is_valid(number)
        assert is_iban(number)
        assert is_iban(number.lower())
        assert is_iban(f"{number[:4]} {number[4:]} WORD")
        wrong = number[:-1] + str((int(number[-1], 36) + 1) % 10)
        assert not is_iban(wrong)
        assert not is_iban(number[:-2])


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("4930901820", True), ("12125550187", True), ("442079460018", True), ("4402079460018", True),
        ("33612345678", True), ("8613800138000", True), ("390669821234", True), ("999123456789", False),
        ("1555", False), ("12345678901234", False), ("0049309018", False),
    ],
)  # fmt: skip
def test_international_numbers(number, valid):
    """Our faster question to libphonenumber's plans gets its answer."""
    assert NumberingPlans().is_international(number) is valid
    if valid:
        assert is_valid_number(parse("+" + number))


def test_random_phone_numbers_agree_with_libphonenumber():
    """What the plans call a number is one for libphonenumber too, for numbers made at random."""
    chance, plans = random.Random(5), NumberingPlans()
    agreed = 0
    for _ in range(3_000):
        digits = chance.choice(["1", "44", "49", "33", "34", "39", "31", "55", "91"]) + "".join(
            chance.choices("0123456789", k=chance.randint(7, 11))
        )
        if plans.is_international(digits):
            agreed += 1
            assert is_valid_number(parse("+" + digits)), digits
    assert agreed > 300


def test_public_addresses_are_those_of_the_standard_library():
    """Our faster look-up of networks that are not public agrees with `ipaddress`."""
    chance = random.Random(7)
    edges = ["0.0.0.1", "10.255.255.255", "100.64.0.1", "126.255.255.254", "127.0.0.1", "172.15.255.255", "172.16.0.1"]
    edges += ["172.32.0.1", "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.254"]
    for text in edges + [str(ipaddress.IPv4Address(chance.getrandbits(32))) for _ in range(2_000)]:
        address = ipaddress.IPv4Address(text)
        public = is_ipv4(text.encode(), 0, len(text)) is not False
        assert public is (address.is_global and not address.is_multicast), text


def test_pension_number():
    """The example of the German pension insurance passes, and with another check digit it does not."""
    assert is_pension_number("65 170839 J 003")
    assert not is_pension_number("65 170839 J 004")
    assert not is_pension_number("65 990839 J 003")


@pytest.mark.parametrize("number", ["110001199001010001", "11000119900101001X"])
def test_a_resident_identity_of_a_county_that_is_none(number):
    """Where date, check digit and province are right and only the county is unknown, it is none; nothing fails."""
    assert not is_resident_identity(number)
    assert is_resident_identity("110101199003070011")


def test_rules_of_national_ids_can_be_met():
    """Each number has a form, and the word that a form needs is one that is looked for."""
    for known in NUMBER_IDS:
        assert known.alone or known.named
        assert not known.named or known.tag in WORDS, known.name
    for mixed in MIXED_IDS:
        assert not mixed.tag or mixed.tag in WORDS, mixed.name
    assert len({known.country for known in (*NUMBER_IDS, *MIXED_IDS)}) >= 30
