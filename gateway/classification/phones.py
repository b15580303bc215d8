"""Phone numbers, judged by the numbering plans of libphonenumber.

Its own parser takes 40 µs a number, because it takes anything that a person might type. Here the form is known already,
and only its patterns of each country are asked, which takes 2 µs. They are compiled when a country first comes up.
"""

from __future__ import annotations

import re

import msgspec
import re2
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, PhoneNumberDesc

_NO_REGION = "001"
"""Stands for numbers that belong to no country."""
LONGEST = 15
"""Digits, the country's code included (ITU-T E.164)."""
SHORTEST = 7

_LIKELY_REGIONS = (
    "US",
    "GB",
    "DE",
    "FR",
    "ES",
    "IT",
    "NL",
    "BR",
    "IN",
    "AT",
    "CH",
    "BE",
    "PL",
    "PT",
    "IE",
    "AU",
    "JP",
    "CN",
)
_WITHOUT_PREFIX = frozenset({"US", "BR", "IN", "CN"})
"""Where the national prefix is not written."""
_PLANS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "pager", "uan",
)  # fmt: skip


class Plan(msgspec.Struct, frozen=True):
    """How the numbers of a region look: the prefix that is dialled inside, and the forms, each with its lengths."""

    prefix: str
    joined: str
    general: re.Pattern[str]
    forms: tuple[tuple[re.Pattern[str], frozenset[int]], ...]

    def has(self, national: str) -> bool:
        """`national`, without any prefix, is a number; as libphonenumber's `is_valid_number` judges it."""
        if self.general.fullmatch(national) is None:
            return False
        length = len(national)
        return any(length in lengths and form.fullmatch(national) is not None for form, lengths in self.forms)

    def has_dialled(self, digits: str, *, without: bool) -> bool:
        """`digits` are a number as it is dialled inside the region; `without`: the prefix may be left out."""
        national = digits.removeprefix(self.prefix) if self.prefix else digits
        return (without or not self.prefix or national != digits) and self.has(national)


class NumberingPlans:
    """Plans by region, kept once they are compiled: at most as many as there are regions, about 250."""

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}
        dialled = []
        for region in _LIKELY_REGIONS:
            plan = self._plan(region)
            optional = "?" if region in _WITHOUT_PREFIX else ""
            dialled.append(f"(?:{plan.prefix}){optional}(?:{plan.joined})")
        # RE2 asks all of them at once, roughly; few numbers have to be asked about again.
        self._dialled = re2.compile("|".join(dialled))

    def is_international(self, digits: str) -> bool:
        """`digits`, beginning with a country's code, are a number of that country."""
        for length in (1, 2, 3):
            regions = COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:length]), ()) if digits[:1] != "0" else ()
            national = digits[length:]
            for region in regions:
                plan = self._plan(region)
                # "+44 (0)20 …" is common and wrong.
                if plan.has(national) or (plan.prefix == national[:1] == "0" and plan.has(national[1:])):
                    return True
        return False

    def is_national(self, digits: str, region: str) -> bool:
        """`digits` are a number as it is dialled in `region`."""
        return self._plan(region).has_dialled(digits, without=region in _WITHOUT_PREFIX)

    def is_dialled(self, digits: str) -> bool:
        """`digits` are a number as it is dialled in one of the likely regions."""
        if self._dialled.fullmatch(digits.encode()) is None:
            return False
        return any(self.is_national(digits, region) for region in _LIKELY_REGIONS)

    def _plan(self, region: str) -> Plan:
        known = self._plans.get(region)
        if known is None:
            known = self._plans[region] = _read_plan(region)
        return known


def _read_plan(region: str) -> Plan:
    metadata = PhoneMetadata.metadata_for_region(region, None) if region != _NO_REGION else None
    described = [getattr(metadata, plan) for plan in _PLANS] if metadata else []
    found = [plan for plan in described if plan and plan.national_number_pattern]
    general = metadata.general_desc.national_number_pattern if metadata and metadata.general_desc else None
    return Plan(
        prefix=(metadata.national_prefix or "") if metadata else "",
        joined="|".join(f"(?:{plan.national_number_pattern})" for plan in found),
        general=re.compile(general or "(?!)"),
        forms=tuple((re.compile(plan.national_number_pattern), _lengths(plan, metadata)) for plan in found),
    )


def _lengths(plan: PhoneNumberDesc, metadata: PhoneMetadata | None) -> frozenset[int]:
    """A form without lengths of its own has the region's."""
    general = metadata.general_desc if metadata else None
    return frozenset(plan.possible_length or (general.possible_length if general else ()))
