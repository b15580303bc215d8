"""How often a process that serves looks for garbage in cycles: seldom.

What requests make goes with its last reference, and many requests are under way at once. At Python's usual thresholds
the search comes every few requests, looks at what they still use, and finds next to nothing: a tenth of a proxied
request's CPU.
"""

from __future__ import annotations

import gc

_MADE = 10_000
"""So many more objects were made than freed before the youngest are looked at."""
_YOUNGEST, _YOUNG = 20, 50
"""So many such searches before what has lived through one, or two, is looked at as well."""


def collect_seldom() -> None:
    """Called once, when all is loaded: that stays, and is never looked at again."""
    gc.freeze()
    gc.set_threshold(_MADE, _YOUNGEST, _YOUNG)
    gc.enable()
