"""Payment cards: the issuer's prefix and length (ISO/IEC 7812, the networks' published ranges), then Luhn."""

from __future__ import annotations

from bisect import bisect_right

_VALUES = bytes.maketrans(b"0123456789", bytes(range(10)))
_DOUBLED = bytes.maketrans(bytes(range(10)), bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))

_RANGES: tuple[tuple[int, int, frozenset[int]], ...] = (
    (2200, 2204, frozenset({16, 17, 18, 19})),  # Mir
    (2221, 2720, frozenset({16})),  # Mastercard
    (3000, 3059, frozenset({14})),  # Diners Club
    (3400, 3499, frozenset({15})),  # American Express
    (3528, 3589, frozenset({16})),  # JCB
    (3600, 3699, frozenset({14})),  # Diners Club
    (3700, 3799, frozenset({15})),  # American Express
    (3800, 3999, frozenset({14})),  # Diners Club
    (4000, 4999, frozenset({16, 19})),  # Visa, Elo
    (5018, 5018, frozenset({16, 18, 19})),  # Maestro
    (5020, 5020, frozenset({16, 18, 19})),  # Maestro
    (5038, 5038, frozenset({16, 18, 19})),  # Maestro
    (5041, 5041, frozenset({16})),  # Elo
    (5067, 5067, frozenset({16})),  # Elo, Verve
    (5081, 5089, frozenset({16})),  # RuPay
    (5100, 5599, frozenset({16})),  # Mastercard
    (5893, 5893, frozenset({16, 18, 19})),  # Maestro
    (6011, 6011, frozenset({16})),  # Discover
    (6069, 6085, frozenset({16})),  # RuPay, Hipercard
    (6200, 6299, frozenset({16, 17, 18, 19})),  # UnionPay
    (6304, 6304, frozenset({16, 18, 19})),  # Maestro
    (6362, 6363, frozenset({16})),  # Elo
    (6440, 6599, frozenset({16})),  # Discover, RuPay
    (6759, 6763, frozenset({16, 18, 19})),  # Maestro
    (8171, 8172, frozenset({16})),  # UnionPay
)
"""First four digits from, to, and the lengths in use; in order, without overlap."""


_FIRSTS = tuple(first for first, _, _ in _RANGES)


def is_card(digits: str) -> bool:
    """`digits`, ASCII digits alone, are the number of a payment card."""
    prefix = int(digits[:4])
    _, last, lengths = _RANGES[max(0, bisect_right(_FIRSTS, prefix) - 1)]
    return _FIRSTS[0] <= prefix <= last and len(digits) in lengths and passes_luhn(digits)


def passes_luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1 is right."""
    values = digits.encode().translate(_VALUES)
    return (sum(values[::-2]) + sum(values[-2::-2].translate(_DOUBLED))) % 10 == 0
