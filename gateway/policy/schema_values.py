"""The values of a policy folder: what a file may hold in one place, and what the gateway makes of it.

Used by `schema` and by the cases of `policy test`. Values come out in the gateway's units.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from gateway.inference.servers import SERVERS
from gateway.policy import values

_PLAIN = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

# `WithJsonSchema` says what a file may hold, for editors; the validator turns that into the gateway's units.
Text = Annotated[str, BeforeValidator(values.text), WithJsonSchema({"type": "string", "minLength": 1})]
Name = Annotated[
    str, BeforeValidator(values.name), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"})
]
PlainName = Annotated[
    str, BeforeValidator(values.plain_name), WithJsonSchema({"type": "string", "pattern": f"^{_PLAIN}$"})
]
Label = Annotated[
    str, BeforeValidator(values.label), WithJsonSchema({"type": "string", "pattern": "^[a-z0-9][a-z0-9_.-]{0,63}$"})
]
Word = Annotated[
    str, BeforeValidator(values.word), WithJsonSchema({"type": "string", "minLength": 2, "maxLength": 128})
]
Flag = Annotated[bool, BeforeValidator(values.flag)]
Seconds = Annotated[
    float,
    BeforeValidator(values.duration_s),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$", "examples": ["1500ms", "2s", "1h"]}),
]
Count = Annotated[int, BeforeValidator(values.count), WithJsonSchema({"type": "integer", "minimum": 1})]
Tries = Annotated[
    int, BeforeValidator(values.tries), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": values.MOST_TRIES})
]
NanoUsd = Annotated[
    int,
    BeforeValidator(values.nanousd),
    WithJsonSchema({"type": "number", "minimum": 0, "description": "US dollars; prices for 1,000,000 tokens."}),
]
HedgeAfter = Annotated[
    float,
    BeforeValidator(values.lateness),
    WithJsonSchema({"type": "string", "pattern": r"^(p[5-9]\d|\d+(\.\d+)?(ms|s|m))$", "examples": ["p95", "800ms"]}),
]
ExtraShare = Annotated[
    float,
    BeforeValidator(values.extra_share),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?%$", "examples": ["5%"]}),
]
Share = Annotated[float, BeforeValidator(values.share)]
Weight = Annotated[
    float, BeforeValidator(values.weight), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1_000})
]
Sha256 = Annotated[
    str, BeforeValidator(values.sha256), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
]
Instant = Annotated[
    float,
    BeforeValidator(values.instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-12-31T00:00:00Z"]}),
]
Alternatives = Annotated[
    frozenset[str],
    BeforeValidator(values.alternatives),
    WithJsonSchema(
        {"type": "string", "pattern": rf"^\s*{_PLAIN}(\s*\|\s*{_PLAIN})*\s*$", "examples": ["gdpr | no-egress"]}
    ),
]
RegionPattern = Annotated[
    str,
    BeforeValidator(values.region_pattern),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9._-]*\*?$", "examples": ["eu-west", "eu-*"]}),
]
FieldName = Annotated[
    str,
    BeforeValidator(values.droppable),
    WithJsonSchema({"type": "string", "pattern": "^[a-z][a-z0-9_]{0,63}$", "examples": ["seed", "logit_bias"]}),
]
Network = Annotated[
    str, BeforeValidator(values.network), WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8", "::1/128"]})
]
HeaderName = Annotated[
    str,
    BeforeValidator(values.header_name),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$", "examples": ["x-user-region"]}),
]


UrlPath = Annotated[
    str,
    BeforeValidator(values.url_path),
    WithJsonSchema({"type": "string", "pattern": "^/", "examples": ["/health"]}),
]
ForwardedHeader = Annotated[
    str,
    BeforeValidator(values.forwarded_header),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9-]{1,64}$", "examples": ["anthropic-beta"]}),
]
ServerName = Annotated[str, BeforeValidator(values.server), WithJsonSchema({"enum": sorted(SERVERS)})]
Version = Annotated[
    str, BeforeValidator(values.api_version), WithJsonSchema({"type": "string", "examples": ["2024-10-21", "preview"]})
]
