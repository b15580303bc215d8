"""The labels of one request, from everybody who may add one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.errors import InvalidRequest

MOST_LABELS = 32
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def gather(
    *, tenant: frozenset[str], header: str, metadata: str, found: frozenset[str] = frozenset()
) -> frozenset[str]:
    """Join the tenant's labels with those that the client names and those that the classifier found.

    Args:
        tenant: labels that policy gives to all of the tenant's requests.
        header: the value of `x-firstdraft-labels`, names separated by commas; empty when absent.
        metadata: the value of the body's `metadata.labels`, likewise.
        found: what the classifier found in the text.

    Raises:
        InvalidRequest: a name is not one (lower case letters, digits, `_`, `-`, `.`; 64 at most), or there are too
            many. Silently leaving one out could let data go where it must not.
    """
    given = tenant.union(_names(header, "x-firstdraft-labels"), _names(metadata, "metadata.labels"))
    if len(given) > MOST_LABELS + len(tenant):
        message = f"a request may have {MOST_LABELS} labels at most"
        raise InvalidRequest(message, param="metadata.labels")
    return given | found


def _names(value: str, param: str) -> Iterable[str]:
    if not value:
        return ()
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    for name in names:
        if not _LABEL.fullmatch(name):
            message = (
                f"{param} has a label that is no name: use lower case letters, digits, '_', '-' and '.', "
                "64 characters at most, separated by commas"
            )
            raise InvalidRequest(message, param=param)
    return names
