"""A JSON schema becomes a grammar (GBNF) that llama.cpp can hold an answer to.

All that the grammar lets pass is valid under the schema, and a schema that cannot be promised in full is refused with
the keyword that is in the way: nothing is left out silently. Not all that is valid can be written: properties come in
the schema's order, only those that it names, with no more than one space between.

The text is a client's: its size, depth and repetitions are bounded, because a grammar is expanded in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.errors import EdgeUnsuitable

MOST_BYTES = 32_768
_MOST_DEPTH = 24
_MOST_RULES = 1_000
_MOST_REPEATED = 256
_MOST_VALUES = 500

_BASE = {
    "ws": '" "?',
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "value": "object | array | string | number | boolean | null",
    "pair": 'string ":" ws value',
    "object": '"{" (pair ("," ws pair)*)? "}"',
    "array": '"[" (value ("," ws value)*)? "]"',
}
"""Rules that every grammar has; `type` names them."""
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_PYTHON: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}
_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id"}
    | {"$comment", "$defs", "definitions", "strict"}
)
_KNOWN = _ANNOTATIONS | {
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "enum", "const"),
    *("anyOf", "$ref", "minLength", "maxLength"),
}

Schema = Mapping[str, Any]


def grammar_of(schema: str) -> str:
    """The grammar of a schema's JSON text. Raises EdgeUnsuitable, which names what cannot be promised."""
    if len(schema.encode("utf-8", errors="replace")) > MOST_BYTES:
        raise EdgeUnsuitable(f"the JSON schema is longer than the {MOST_BYTES} bytes that the edge takes")
    try:
        root = msgspec.json.decode(schema.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise EdgeUnsuitable(f"the JSON schema is not JSON: {error}") from error
    return _Converter(root).text()


class _Converter:
    def __init__(self, root: object) -> None:
        self._root = root
        self._rules: dict[str, str] = dict(_BASE)
        self._references: dict[str, str] = {}

    def text(self) -> str:
        """All rules, from `root` on."""
        root = self._named("root", self._rule(self._root, 0))
        return "\n".join(f"{name} ::= {body}" for name, body in {root: self._rules[root], **self._rules}.items())

    def _named(self, name: str, body: str) -> str:
        if len(self._rules) >= _MOST_RULES:
            raise EdgeUnsuitable(f"the JSON schema needs more than the {_MOST_RULES} rules that the edge takes")
        self._rules[name] = body
        return name

    def _new(self, body: str) -> str:
        return self._named(f"r{len(self._rules)}", body)

    def _rule(self, schema: object, depth: int) -> str:
        """The right side of a rule for `schema`."""
        if depth > _MOST_DEPTH:
            raise EdgeUnsuitable(f"the JSON schema is more than {_MOST_DEPTH} levels deep")
        if schema is True:
            return "value"
        if not isinstance(schema, dict):
            raise EdgeUnsuitable("a part of the JSON schema is not an object")
        unknown = sorted(schema.keys() - _KNOWN)
        if unknown:
            raise EdgeUnsuitable(f"the edge cannot promise {unknown[0][:40]!r} of the JSON schema")
        if "$ref" in schema:
            return self._reference(schema["$ref"], depth)
        if "anyOf" in schema:
            options = _list(schema, "anyOf")
            return " | ".join(self._new(self._rule(option, depth + 1)) for option in options)
        if "const" in schema or "enum" in schema:
            return _literals(schema)
        return self._typed(schema, depth)

    def _reference(self, reference: object, depth: int) -> str:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise EdgeUnsuitable("the edge follows a $ref only inside the JSON schema")
        known = self._references.get(reference)
        if known is None:
            known = self._references[reference] = self._new("")  # named before it is made: it may name itself
            self._rules[known] = self._rule(self._find(reference), depth + 1)
        return known

    def _find(self, reference: str) -> object:
        found = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                raise EdgeUnsuitable(f"the JSON schema has nothing at {reference[:80]!r}")
            found = found[key]
        return found

    def _typed(self, schema: Schema, depth: int) -> str:
        kinds = schema.get("type", _implied(schema))
        names = kinds if isinstance(kinds, list) else [kinds]
        if not names or any(name not in _TYPES for name in names):
            raise EdgeUnsuitable(f"the JSON schema has no type {str(kinds)[:40]!r}")
        return " | ".join(self._of_type(name, schema, depth) for name in dict.fromkeys(names))

    def _of_type(self, name: str, schema: Schema, depth: int) -> str:
        if name == "object":
            return self._object(schema, depth)
        if name == "array":
            return self._array(schema, depth)
        if name == "string" and ("minLength" in schema or "maxLength" in schema):
            return rf'"\"" char{_times(schema, "minLength", "maxLength")} "\""'
        return name

    def _array(self, schema: Schema, depth: int) -> str:
        item = self._new(self._rule(schema.get("items", True), depth + 1))
        least, most = _bounds(schema, "minItems", "maxItems")
        if most == 0:
            return '"[]"'
        more = f'("," ws {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'

    def _object(self, schema: Schema, depth: int) -> str:
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise EdgeUnsuitable("`properties` of the JSON schema has to be an object, `required` a list")
        missing = [name for name in required if not isinstance(name, str) or name not in properties]
        if missing:
            raise EdgeUnsuitable(f"the JSON schema requires {str(missing[0])[:40]!r}, which is none of its properties")
        if not properties:
            return self._map(others, depth)
        pairs = [
            (self._new(f'{_literal(name)} ":" ws {self._new(self._rule(value, depth + 1))}'), name in required)
            for name, value in properties.items()
        ]
        return f'"{{" {self._pairs(pairs)} "}}"'

    def _pairs(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """In order; those that are not required may be left out. A rule for each place keeps the size linear."""
        first, more = '""', '""'
        for pair, is_required in reversed(pairs):
            after = self._new(more)
            first = f"{pair} {after}" if is_required else f"{pair} {after} | {self._new(first)}"
            more = f'"," ws {pair} {after}' if is_required else f'("," ws {pair})? {after}'
        return self._new(first)

    def _map(self, others: object, depth: int) -> str:
        if others is True:
            return "object"
        if others is False:
            return '"{}"'
        pair = self._new(f'string ":" ws {self._new(self._rule(others, depth + 1))}')
        return f'"{{" ({pair} ("," ws {pair})*)? "}}"'


def _implied(schema: Schema) -> str | list[str]:
    """The type that the other keywords speak of; all types where there is none."""
    for name, keywords in (
        ("object", ("properties", "required", "additionalProperties")),
        ("array", ("items", "minItems", "maxItems")),
        ("string", ("minLength", "maxLength")),
    ):
        if any(keyword in schema for keyword in keywords):
            return name
    return list(_TYPES)


def _list(schema: Schema, keyword: str) -> list[Any]:
    values = schema[keyword]
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST_VALUES:
        raise EdgeUnsuitable(f"`{keyword}` of the JSON schema has to be a list of 1 to {_MOST_VALUES}")
    return values


def _literals(schema: Schema) -> str:
    values = _list(schema, "enum") if "enum" in schema else [schema["const"]]
    if "const" in schema:
        values = [value for value in values if value == schema["const"]]
    kinds = schema.get("type", list(_TYPES))
    allowed = kinds if isinstance(kinds, list) else [kinds]
    fitting = [value for value in values if any(_is_of(value, str(kind)) for kind in allowed)]
    if not fitting:
        raise EdgeUnsuitable("the JSON schema allows no value: none of `enum` or `const` is of its type")
    return " | ".join(_literal(value) for value in fitting)


def _is_of(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return kind in _PYTHON and isinstance(value, _PYTHON[kind])


def _literal(value: object) -> str:
    """A value's JSON as a literal of the grammar; what is not ASCII is written as an escape of JSON."""
    text = json.dumps(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _bounds(schema: Schema, least_name: str, most_name: str) -> tuple[int, int | None]:
    least, most = schema.get(least_name, 0), schema.get(most_name)
    for name, value in ((least_name, least), (most_name, most)):
        if value is not None and (type(value) is not int or not 0 <= value <= _MOST_REPEATED):
            raise EdgeUnsuitable(f"`{name}` of the JSON schema has to be 0 to {_MOST_REPEATED} for the edge")
    if most is not None and most < least:
        raise EdgeUnsuitable(f"`{least_name}` of the JSON schema is more than `{most_name}`")
    return least, most


def _times(schema: Schema, least_name: str, most_name: str) -> str:
    least, most = _bounds(schema, least_name, most_name)
    return f"{{{least},{'' if most is None else most}}}"
