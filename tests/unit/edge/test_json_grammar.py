import ctypes
import json
from pathlib import Path

import llama_cpp
import numpy as np
import pytest

from gateway.edge.grammar import Grammar
from gateway.edge.json_grammar import grammar_of
from gateway.edge.model import silence
from gateway.edge.model_files import SHIPPED_MODEL, find_model
from gateway.errors import EdgeUnsuitable

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["a", 'b\n"\\é']}, "minItems": 1, "maxItems": 2},
        "mail": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "required": ["age", "mail"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/node"}, "value": {"type": ["number", "boolean"]}},
            "required": ["value"],
        }
    },
}


class Vocabulary:
    """The shipped model's words, without its weights."""

    def __init__(self, path: Path) -> None:
        silence()
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        self.pointer = llama_cpp.llama_model_get_vocab(self._model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.pointer)
        self.end = llama_cpp.llama_vocab_eos(self.pointer)

    def tokens(self, text: str) -> list[int]:
        data, room = text.encode(), len(text.encode()) + 8
        found = np.empty(room, dtype=np.int32)
        pointer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama_cpp.llama_tokenize(self.pointer, data, len(data), pointer, room, False, False)
        return found[:count].tolist()

    def grammar(self, schema: object) -> Grammar:
        return Grammar(self.pointer, self.size, grammar_of(json.dumps(schema)))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(find_model(SHIPPED_MODEL))


def passes(vocabulary: Vocabulary, schema: object, text: str) -> bool:
    """The whole text may be written, and then the answer may end."""
    grammar = vocabulary.grammar(schema)
    for token in vocabulary.tokens(text):
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return grammar.allows(vocabulary.end)


@pytest.mark.parametrize(
    ("schema", "text", "is_valid"),
    [
        (PERSON, '{"name": "Ann", "age": 3, "tags": ["a", "a"], "mail": null}', True),
        (PERSON, '{"age":3,"mail":"x"}', True),
        (PERSON, '{"age": 3, "tags": ["b\\n\\"\\\\\\u00e9"], "mail": null}', True),
        (PERSON, '{"age": 3, "mail": "x\\u00e9\\n"}', True),
        (PERSON, '{"mail": "x", "age": 3}', False),
        (PERSON, '{"name": "Ann"}', False),
        (PERSON, '{"age": 3.5, "mail": null}', False),
        (PERSON, '{"age": 3, "mail": null, "more": 1}', False),
        (PERSON, '{"age": 3, "tags": [], "mail": null}', False),
        (PERSON, '{"age": 3, "tags": ["a", "a", "a"], "mail": null}', False),
        (PERSON, '{"name": "Ann is long", "age": 3, "mail": null}', False),
        (PERSON, '{"age": 3, "mail": nul', False),
        (TREE, '{"left": {"left": {"value": 1}, "value": true}, "value": -1.5e3}', True),
        (TREE, '{"left": {}, "value": 1}', False),
        ({"type": "object"}, '{"a": [1, {"b": null}], "c": ""}', True),
        ({"type": "object"}, "[]", False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1, "b": 2}', True),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": ""}', False),
        ({"type": "array", "maxItems": 0}, "[]", True),
        ({"type": "array", "items": {"type": "boolean"}}, "[true, false, true]", True),
        ({"properties": {"a": {"const": 1}}}, "{}", True),
        ({"properties": {"a": {}, "b": {}}}, '{"b": [{}]}', True),
        ({"enum": [1, "1", None], "type": "integer"}, '"1"', False),
        ({}, '"anything"', True),
    ],
)
def test_what_the_grammar_lets_pass(vocabulary, schema, text, is_valid):
    """Valid JSON under the schema passes, in the schema's order; what is not valid does not, nor does half of it."""
    assert passes(vocabulary, schema, text) is is_valid


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ('{"type": "string", "pattern": "^a$"}', "pattern"),
        ('{"type": "number", "minimum": 3}', "minimum"),
        ('{"type": "text"}', "type"),
        ('{"type": ["string", {}]}', "type"),
        ('{"properties": []}', "properties"),
        ('{"type": "object", "required": ["a"]}', "'a'"),
        ('{"type": "object", "required": [[]]}', "requires"),
        ('{"type": "string", "maxLength": 100000000}', "maxLength"),
        ('{"type": "array", "minItems": 3, "maxItems": 2}', "minItems"),
        ('{"type": "array", "minItems": true}', "minItems"),
        ('{"enum": []}', "enum"),
        ('{"enum": [1], "const": 2}', "no value"),
        ('{"$ref": "https://example.com/schema"}', r"\$ref"),
        ('{"$ref": "#/nowhere"}', "nowhere"),
        ('{"properties": {"a": 3}}', "not an object"),
        ("[1]", "not an object"),
        ('{"type": "object"', "not JSON"),
        ('{"items": ' * 40 + "{}" + "}" * 40, "levels"),
        ('{"items": ' * 5_000 + "{}" + "}" * 5_000, "longer|levels|not JSON"),
        (json.dumps({"properties": {f"p{n}": {} for n in range(900)}}), "rules"),
        (json.dumps({"description": "x" * 40_000}), "longer"),
    ],
)
def test_a_schema_that_cannot_be_promised_is_refused(schema, named):
    """The error names what is in the way; nothing is left out silently, and nothing grows without bound."""
    with pytest.raises(EdgeUnsuitable, match=named):
        grammar_of(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_only_refers_to_itself_is_refused(vocabulary, schema):
    """A grammar without end is an error of the request, not of the process."""
    with pytest.raises(EdgeUnsuitable):
        vocabulary.grammar(schema)


def test_only_what_is_allowed_is_left(vocabulary):
    """A restricted row keeps the logits of the tokens that may be next, and no others."""
    grammar = vocabulary.grammar({"type": "boolean"})
    row = np.linspace(0, 1, vocabulary.size, dtype=np.float32)
    left = grammar.restrict(row)
    kept = np.flatnonzero(np.isfinite(left))
    assert set(vocabulary.tokens("true") + vocabulary.tokens("false")) <= set(kept.tolist())
    assert np.array_equal(left[kept], row[kept])
    assert all(grammar.allows(int(token)) for token in kept)
