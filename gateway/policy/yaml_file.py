"""One YAML file to a tree of plain values, with line and column of every key and value.

The file is hostile until read: its size, its nesting and what its aliases expand to are bounded before anything is
built (libyaml's recursive composer overflows the stack on deep nesting), custom tags are refused, keys may not repeat.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import yaml

from gateway.policy.mistakes import Mark, Mistakes

MOST_BYTES = 1_000_000
MOST_DEPTH = 32
MOST_NODES = 50_000
"""Counted after aliases are expanded, so that a few lines of them cannot grow into gigabytes."""

Path = tuple[str | int, ...]
Scalar = str | int | bool | Decimal | None

_CORE = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"str", "timestamp", "value", "null", "bool", "int", "float"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]{0,30})")
_DECIMAL = re.compile(r"[-+]?[0-9][0-9_]{0,20}\.[0-9]{0,20}")
_TABLE = {"map": "a mapping", "seq": "a list"}


class Word(str):
    """A plain `yes`, `no`, `on` or `off`: a boolean to YAML 1.1, and most likely a text to whoever wrote it."""

    __slots__ = ()


@dataclass(slots=True)
class Tree:
    """The plain values of a file (or of a folder), and where each of them stands."""

    value: Any = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    key_marks: dict[Path, Mark] = field(default_factory=dict)


def read_tree(file: str, data: bytes, mistakes: Mistakes) -> Tree | None:
    """The tree of one file; None, with the mistakes noted, when it is not YAML that can be used."""
    text = _decode(file, data, mistakes)
    if text is None:
        return None
    try:
        if not _is_bounded(file, text, mistakes):
            return None
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as problem:
        _note_yaml_error(file, text, problem, mistakes)
        return None
    except yaml.YAMLError as problem:
        mistakes.add(Mark(file), f"not YAML: {str(problem).splitlines()[0]}")
        return None
    builder = _Builder(file, text.splitlines(), mistakes)
    builder.tree.value = None if node is None else builder.build(node, ())
    return builder.tree


def _decode(file: str, data: bytes, mistakes: Mistakes) -> str | None:
    if len(data) > MOST_BYTES:
        mistakes.add(Mark(file), f"the file has more than {MOST_BYTES:,} bytes; split it")
        return None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        before = data[: problem.start]
        column = problem.start - (before.rfind(b"\n") + 1) + 1
        mistakes.add(Mark(file, before.count(b"\n") + 1, column), "not UTF-8; save the file as UTF-8")
        return None
    for number, line in enumerate(text.split("\n"), start=1):
        control = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", line)
        if control:
            mistakes.add(Mark(file, number, control.start() + 1), f"control character {control[0]!r}; remove it")
            return None
    return text


def _is_bounded(file: str, text: str, mistakes: Mistakes) -> bool:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_DEPTH:
                at = event.start_mark
                mark = Mark(file, at.line + 1, at.column + 1) if at else Mark(file)
                mistakes.add(mark, f"nested more than {MOST_DEPTH} levels deep")
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return True


def _note_yaml_error(file: str, text: str, problem: yaml.MarkedYAMLError, mistakes: Mistakes) -> None:
    words, hint = problem.problem or "not YAML", ""
    at = problem.problem_mark or problem.context_mark
    if "could not find expected ':'" in words:
        at = problem.context_mark or at  # where the key begins, and not where it was given up
        hint = "; a key has a colon and a space behind it, as in `region: eu`"
    if "unexpected end of stream" in words:
        at, words = problem.context_mark or at, "what begins here has no end"
    mark = Mark(file, at.line + 1, at.column + 1) if at else Mark(file)
    if "another document" in words or "expected a single document" in str(problem.context):
        words, hint = "a second document begins here", "; put it in a file of its own"
    elif "expected <block end>" in words or "did not find expected key" in words:
        hint = "; a value that begins with a quote and goes on behind it needs quotes around the whole: '\"a\" in b'"
    elif "mapping values are not allowed" in words:
        hint = "; a value with `: ` in it needs quotes, and keys of one level stand in one column"
    elif "expected ',' or" in words and "${" in _line(text, at):
        hint = '; inside `{…}` and `[…]` it needs quotes: "${NAME}"'
    elif "expected ',' or" in words and problem.context_mark is not None:
        hint = f"; the bracket in line {problem.context_mark.line + 1} may not be closed"
    elif "cannot start any token" in words:
        hint = "; put the value in quotes (and indent with spaces, not tabs)"
    mistakes.add(mark, f"not YAML: {words}{hint}")


def _line(text: str, at: yaml.Mark | None) -> str:
    """The line that a mark stands in."""
    lines = text.splitlines()
    return lines[at.line] if at is not None and at.line < len(lines) else ""


class _Builder:
    """Walks composed nodes; notes marks and mistakes as it goes."""

    def __init__(self, file: str, lines: list[str], mistakes: Mistakes) -> None:
        self.tree = Tree()
        self._file = file
        self._lines = lines
        self._mistakes = mistakes
        self._nodes = 0

    def build(self, node: yaml.Node, path: Path) -> object:
        self._nodes += 1
        mark = self._mark(node)
        self.tree.marks[path] = mark
        # An alias to a node around it nests without end; the depth of what was composed was bounded before.
        if self._nodes > MOST_NODES or len(path) > MOST_DEPTH:
            self._mistakes.add(mark, "aliases expand to too much here; write it out, or split the file")
            return None
        kind = node.tag.removeprefix(_CORE)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _TEXT_TAGS:
            return _scalar(node, kind)
        self._mistakes.add(mark, f"tag `{node.tag}` has no meaning here; remove it")
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        built: dict[str, object] = {}
        for key_node, value_node in node.value:
            key_mark = self._mark(key_node)
            key = self._key(key_node, key_mark)
            if key is None:
                continue
            if key in built:
                first = self.tree.key_marks[*path, key]
                self._mistakes.add(key_mark, f"`{key}` is given twice; the first is in line {first.line}")
                continue
            self.tree.key_marks[*path, key] = key_mark
            built[key] = self.build(value_node, (*path, key))
        return built

    def _key(self, node: yaml.Node, mark: Mark) -> str | None:
        kind = node.tag.removeprefix(_CORE)
        if kind == "merge":
            self._mistakes.add(mark, "merge keys (`<<`) are not supported; write the keys out")
            return None
        if not isinstance(node, yaml.ScalarNode) or kind not in _TEXT_TAGS:
            self._mistakes.add(mark, f"a key must be a text, not {_TABLE.get(kind, 'this')}")
            return None
        text = str(node.value)
        if kind not in {"str", "timestamp"}:
            read_as = _KIND_NAMES[kind]
            self._mistakes.add(mark, f'YAML reads the key `{text}` as a {read_as}; put it in quotes: "{text}"')
            return None
        return text

    def _mark(self, node: yaml.Node) -> Mark:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        if not isinstance(node, yaml.ScalarNode):
            return Mark(self._file, line, column)
        if node.style == "|":
            return self._block_mark(line, column)
        quotes = 1 if node.style in {"'", '"'} else 0
        width = node.end_mark.column - node.start_mark.column
        if node.end_mark.line != node.start_mark.line:
            return Mark(self._file, line, column, pieces=self._pieces(node))
        if width != len(node.value) + 2 * quotes:
            return Mark(self._file, line, column)
        return Mark(self._file, line, column, line, column + quotes)

    def _pieces(self, node: yaml.ScalarNode) -> tuple[tuple[int, int, int], ...]:
        """Where the lines of a folded text begin in it and in the file; nothing where it is folded in another way."""
        quoted = node.style in {"'", '"'}
        if node.style == "|":
            return ()
        first, last = node.start_mark.line, min(node.end_mark.line, len(self._lines) - 1)
        found, offset = [], 0
        for number in range(first + (node.style == ">"), last + 1):
            line = self._lines[number]
            begins = node.start_mark.column + quoted if number == first else len(line) - len(line.lstrip(" "))
            # The quote at its end is no part of it. What is escaped inside makes the texts differ below.
            text = line[begins : self._end(node, number)].rstrip()
            if text and offset + len(text) <= len(node.value):
                found.append((offset, number + 1, begins + 1))
                offset += len(text) + 1
        told = " ".join(self._lines[at - 1][begins - 1 : self._end(node, at - 1)].rstrip() for _, at, begins in found)
        return tuple(found) if told == node.value.rstrip("\n") else ()

    @staticmethod
    def _end(node: yaml.ScalarNode, line: int) -> int | None:
        """Where a quoted text ends in its last line; None in other lines, and of texts without quotes."""
        is_last = node.style in {"'", '"'} and line == node.end_mark.line
        return node.end_mark.column - 1 if is_last else None

    def _block_mark(self, line: int, column: int) -> Mark:
        first = self._lines[line] if line < len(self._lines) else ""
        indent = len(first) - len(first.lstrip(" "))
        return Mark(self._file, line, column, line + 1, indent + 1)


_BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off"})
"""What YAML 1.1 reads as a boolean; after a tag `!!bool` anything may stand."""
_KIND_NAMES = {"bool": "boolean", "int": "number", "float": "number", "null": "null", "value": "default value"}


def _scalar(node: yaml.ScalarNode, kind: str) -> Scalar:
    """YAML 1.1's odd numbers (octal, `1:30` in base 60, `.inf`) stay text: whoever reads them says what is expected."""
    text = str(node.value)
    if kind == "null":
        return None
    if kind == "bool" and text.lower() in _BOOLEANS:
        return text.lower() == "true" if text.lower() in {"true", "false"} else Word(text)
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "float" and _DECIMAL.fullmatch(text):
        return Decimal(text.replace("_", ""))
    return text
