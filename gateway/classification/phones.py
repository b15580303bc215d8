"""Phone numbers, judged by the numbering plans of libphonenumber.

Its own parser takes 40 µs a number, because it takes anything that a person might type. Here the form is known already,
and only its patterns of each country are asked, which takes 2 µs. They are compiled when a country first comes up.
"""

from __future__ import annotations

import re

import re2
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

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


class NumberingPlans:
    """Patterns by region, kept once they are compiled: at most as many as there are regions, about 250."""

    def __init__(self) -> None:
        self._patterns: dict[str, tuple[re.Pattern[str], str]] = {}
        dialled = []
        for region in _LIKELY_REGIONS:
            pattern, prefix = self._plan(region)
            optional = "?" if region in _WITHOUT_PREFIX else ""
            dialled.append(f"(?:{prefix}){optional}(?:{pattern.pattern})")
        # RE2 asks all of them at once.
        self._dialled = re2.compile("|".join(dialled))

    def is_international(self, digits: str) -> bool:
        """`digits`, beginning with a country's code, are a number of that country."""
        for length in (1, 2, 3):
            regions = COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:length]), ()) if digits[:1] != "0" else ()
            national = digits[length:]
            for region in regions:
                pattern, prefix = self._plan(region)
                # "+44 (0)20 …" is common and wrong.
                if pattern.fullmatch(national) or (prefix == national[:1] == "0" and pattern.fullmatch(national[1:])):
                    return True
        return False

    def is_national(self, digits: str, region: str) -> bool:
        """`digits` are a number as it is dialled in `region`."""
        pattern, prefix = self._plan(region)
        national = digits.removeprefix(prefix) if prefix else digits
        without = not prefix or region in _WITHOUT_PREFIX
        return (without or national != digits) and pattern.fullmatch(national) is not None

    def is_dialled(self, digits: str) -> bool:
        """`digits` are a number as it is dialled in one of the likely regions."""
        return self._dialled.fullmatch(digits.encode()) is not None

    def _plan(self, region: str) -> tuple[re.Pattern[str], str]:
        known = self._patterns.get(region)
        if known is None:
            metadata = PhoneMetadata.metadata_for_region(region, None) if region != "001" else None
            described = [getattr(metadata, plan) for plan in _PLANS] if metadata else []
            patterns = [plan.national_number_pattern for plan in described if plan and plan.national_number_pattern]
            joined = "|".join(f"(?:{pattern})" for pattern in patterns)
            prefix = (metadata.national_prefix or "") if metadata else ""
            known = self._patterns[region] = (re.compile(joined or "(?!)"), prefix)
        return known
