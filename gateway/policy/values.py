"""What a single value in a policy may look like: durations, counts, dollars, names, texts.

Each reader takes what YAML gave and returns a value in the unit that the rest of the gateway uses, or raises ValueError
with a sentence that says what is wrong and what to write.
"""

# ruff: noqa: TRY004 - pydantic makes a mistake of a ValueError; a TypeError would pass through it
from __future__ import annotations

import ipaddress
import re
from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.classification.dictionary import LONGEST_WORD
from gateway.inference.servers import SERVERS
from gateway.policy.mistakes import nearest, suggestion
from gateway.policy.yaml_file import Word
from gateway.wire.dropping import KEPT

NANOUSD_PER_USD = 1_000_000_000
MOST_USD = 1_000_000_000
LONGEST_DURATION_S = 366 * 24 * 3600.0
MOST_TRIES = 10
MOST_EXTRA = 0.5
MOST_COUNT = 10**15
MOST_TEXT = 2_000
MOST_TEMPLATE = 20_000
LEAST_LOGPROB = -100

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,127}")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABEL = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_URL_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,200}")
_PERCENTILE = re.compile(r"p([5-9]\d)")
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%")
_WINDOWS = ("minute", "hour", "day", "week", "month")
_HEADER = re.compile(r"[a-z0-9-]{1,64}")
_NOT_FORWARDED = frozenset(
    {
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "expect"),
        *("content-length", "content-type", "content-encoding", "accept", "accept-encoding", "api-key", "date"),
        *("user-agent", "traceparent", "set-cookie", "x-goog-api-key", "x-goog-user-project", "forwarded"),
    }
)
_SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def text(value: object) -> str:
    """A text of 1 to 2,000 characters; not something that YAML took for a boolean, a number or nothing."""
    if isinstance(value, Word | bool):
        shown = str(value) if isinstance(value, Word) else str(value).lower()
        raise ValueError(f'expected a text, but YAML reads `{shown}` as a boolean; put it in quotes: "{shown}"')
    if isinstance(value, int | Decimal):
        raise ValueError(f'expected a text, but `{value}` is a number; put it in quotes: "{value}"')
    if value is None:
        raise ValueError("expected a text, but there is nothing here")
    if not isinstance(value, str):
        raise ValueError(f"expected a text, not {kind_of(value)}")
    if not value.strip():
        raise ValueError("expected a text, but it is empty")
    if len(value) > MOST_TEXT:
        raise ValueError(f"longer than {MOST_TEXT:,} characters")
    return value


def name(value: object) -> str:
    """A name: letters, digits and `._/:@-`, at most 128."""
    found = text(value)
    if not _NAME.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no name; use letters, digits and . _ / : @ - (at most 128)")
    return found


def plain_name(value: object) -> str:
    """The name of a tenant, feature, key, backend or rule: letters, digits and `._-`, at most 64."""
    found = text(value)
    if not _PLAIN_NAME.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no name; use letters, digits and . _ - (at most 64)")
    return found


def label(value: object) -> str:
    """The name of a label: lower case letters, digits and `_.-`, at most 64; as clients may name it."""
    found = text(value)
    if not _LABEL.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no label; use lower case letters, digits and . _ - (at most 64)")
    return found


def word(value: object) -> str:
    """A word or a few, of 2 to 128 characters, with a letter or digit in it."""
    found = text(value).strip()
    if not 2 <= len(found) <= LONGEST_WORD or not any(character.isalnum() for character in found):
        raise ValueError(f"`{found[:80]}` is no word to look for; use 2 to {LONGEST_WORD} characters")
    return found


def flag(value: object) -> bool:
    """A boolean; YAML 1.1's yes, no, on and off included."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Word):
        return value.lower() in {"yes", "on"}
    raise ValueError("expected true or false")


def duration_s(value: object) -> float:
    """Seconds, over 0 and at most 366 days, from `1500ms`, `2s`, `5m`, `1h` or `1d`."""
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit: `{value}s`, or ms, m, h, d")
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        unit = re.fullmatch(r"[\d.]+\s*([A-Za-z]+)", value) if isinstance(value, str) else None
        if unit:
            raise ValueError(f"`{unit[1]}` is no unit of time; write ms, s, m, h or d, as in `2s`")
        raise ValueError("expected a duration such as `1500ms`, `2s`, `5m`, `1h`")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= LONGEST_DURATION_S:
        raise ValueError("a duration is over 0 and at most 366 days")
    return seconds


def count(value: object) -> int:
    """A whole number over 0, as in `2_000_000`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("expected a whole number, as in 2_000_000")
    if not 0 < value <= MOST_COUNT:
        raise ValueError(f"expected a whole number from 1 to {MOST_COUNT:,}")
    return value


def url_path(value: object) -> str:
    """A path on a host, as in `/health`."""
    found = text(value)
    if not _URL_PATH.fullmatch(found):
        raise ValueError("expected a path that begins with /, as in `/health`")
    return found


def lateness(value: object) -> float:
    """When an answer is late: from `p95` the share (0.95, under 1), from `800ms` the seconds as a negative number."""
    found = _PERCENTILE.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        return int(found[1]) / 100
    try:
        return -duration_s(value)
    except ValueError as problem:
        raise ValueError(f"{problem}; or `p95`, the deployment's own, from p50 to p99") from None


def extra_share(value: object) -> float:
    """A share of requests from `5%`: over 0, and at most a half."""
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share <= MOST_EXTRA:
        raise ValueError("expected a share of the requests, as in `5%`, at most `50%`")
    return share


def tries(value: object) -> int:
    """A whole number from 0 to 10."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TRIES:
        raise ValueError(f"expected a whole number from 0 to {MOST_TRIES}")
    return value


def nanousd(value: object) -> int:
    """Nano-dollars, exactly, from dollars; 0 and more, at most nine decimals."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        hint = "; leave the $ out" if isinstance(value, str) and "$" in value else ""
        raise ValueError(f"expected US dollars as a number, as in 0.25{hint}")
    scaled = Decimal(value) * NANOUSD_PER_USD
    if not 0 <= scaled <= MOST_USD * NANOUSD_PER_USD:
        raise ValueError(f"expected US dollars from 0 to {MOST_USD:,}")
    if scaled != scaled.to_integral_value():
        raise ValueError("more than nine decimals; a nano-dollar is the smallest amount")
    return int(scaled)


def window(value: object) -> str:
    """When a budget begins anew: a word of the calendar, or `rolling` and a duration of a minute to 366 days."""
    found = text(value)
    if found in _WINDOWS:
        return found
    word, _, length = found.partition(" ")
    if word != "rolling":
        near = nearest(word, _WINDOWS)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"expected one of {', '.join(_WINDOWS)}, or `rolling 24h`{hint}")
    if rolling_s(found) < 60:
        raise ValueError("a rolling window has at least a minute, as in `rolling 24h`")
    return f"rolling {length.strip()}"


def rolling_s(per: str) -> int:
    """The seconds of `rolling 24h`; 0 for a word of the calendar."""
    word, _, length = per.partition(" ")
    return int(duration_s(length.strip())) if word == "rolling" else 0


def percentage(value: object) -> float:
    """A share from `80%`: over 0 and at most 1."""
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else 0.0
    if not 0 < share <= 1:
        raise ValueError("expected a share of the budget, as in `80%`")
    return share


def time_zone(value: object) -> str:
    """A time zone that this machine's database has."""
    found = text(value)
    try:
        if found != "UTC":
            ZoneInfo(found)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"`{found[:80]}` is no time zone of this machine's database; write `Europe/Berlin`") from None
    return found


def weight(value: object) -> float:
    """A weight from 0 to 1,000."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= 1_000:
        raise ValueError("expected a weight from 0 to 1000, as in 0.3")
    return float(value)


def share(value: object) -> float:
    """A share from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= 1:
        raise ValueError("expected a share from 0 to 1, as in 0.5")
    return float(value)


def logprob(value: object) -> float:
    """A natural logarithm of a probability: at most 0."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not LEAST_LOGPROB <= value <= 0:
        raise ValueError("expected the logarithm of a probability, as in -2.5")
    return float(value)


def template(value: object) -> str:
    """The source of a chat template."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a template's text: `chat_template: |`, and below it, indented, what the model has")
    if len(value) > MOST_TEMPLATE:
        raise ValueError(f"longer than {MOST_TEMPLATE:,} characters")
    return value


def sha256(value: object) -> str:
    """A SHA-256 in hex, in lower case."""
    found = value.lower() if isinstance(value, str) else ""
    if not _SHA256.fullmatch(found):
        raise ValueError("expected the SHA-256 of a key, 64 hex digits; `firstdraft keys new TENANT` makes one")
    return found


def instant(value: object) -> float:
    """A moment as Unix time in seconds, from `2026-12-31T00:00:00Z`; without a zone it would be anybody's."""
    found = text(value)
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"`{found[:80]}` is no moment with a time zone; write `2026-12-31T00:00:00Z`")
    return moment.timestamp()


def alternatives(value: object) -> frozenset[str]:
    """Compliance terms of which one is enough, from `gdpr | no-egress`."""
    terms = [term.strip() for term in text(value).split("|")]
    for term in terms:
        if not _PLAIN_NAME.fullmatch(term):
            raise ValueError(f"`{term[:80]}` is no compliance term; write `gdpr`, or `gdpr | no-egress` for either")
    return frozenset(terms)


def region(found: str) -> str:
    """Where a backend is: what a requirement could name."""
    if not _PLAIN_NAME.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no region; use letters, digits and . _ -, as in `eu-west`")
    return found


def region_pattern(value: object) -> str:
    """A region, or a prefix of regions that ends in `*`."""
    found = text(value)
    if not _PLAIN_NAME.fullmatch(found.removesuffix("*") or "x"):
        raise ValueError(f"`{found[:80]}` is no region; write `eu-west`, or `eu-*` for all that begin so")
    return found


def network(value: object) -> str:
    """A network in CIDR notation, as in `10.0.0.0/8`; an address stands for itself."""
    found = text(value)
    try:
        ipaddress.ip_network(found)
    except ValueError as problem:
        raise ValueError(f"`{found[:80]}` is no network such as 10.0.0.0/8: {problem}") from None
    return found


def forwarded_header(value: object) -> str:
    """The name of a header that a backend may be sent as the client wrote it."""
    found = text(value).lower()
    if not _HEADER.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no name of a header; use letters, digits and -")
    if found in _NOT_FORWARDED | _SECRET_HEADERS or found.startswith(("x-firstdraft-", "x-amz-", "proxy-", "sec-")):
        raise ValueError(f"`{found}` is the gateway's own to send, or belongs to one connection; it is never forwarded")
    return found


def server(value: object) -> str:
    """A row of the table of servers."""
    found = text(value)
    if found not in SERVERS:
        raise ValueError(f"`{found[:80]}` is no server that is known{suggestion(found, SERVERS)}")
    return found


def api_version(value: object) -> str:
    """A version such as `2024-10-21` or `preview`; YAML takes a plain date for one."""
    found = value.isoformat() if isinstance(value, date) else text(value)
    if not _PLAIN_NAME.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no version; write it as in 2024-10-21")
    return found


def header_name(value: object) -> str:
    """The name of an HTTP header, in lower case; not one that says who asks."""
    found = text(value).lower()
    if not _HEADER.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no name of a header; use letters, digits and -")
    if found in _SECRET_HEADERS:
        raise ValueError(f"`{found}` holds a key, and conditions see no keys")
    return found


def droppable(value: object) -> str:
    """A field of requests that can be left out and leave the same question."""
    found = text(value)
    if not _FIELD.fullmatch(found):
        raise ValueError(f"`{found[:80]}` is no field of a request: a name at the top of its body, as in `seed`")
    if found in KEPT:
        raise ValueError(f"`{found}` cannot be dropped: without it, it would be another request")
    return found


def kind_of(value: object) -> str:
    """What a YAML value is, in words."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool | Word):
        return "a boolean"
    if value is None:
        return "nothing"
    return "a number" if isinstance(value, int | Decimal) else "a text"
