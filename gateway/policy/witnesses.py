"""A text that a regular expression matches, where one is easily made: an example of the requests that it is about.

Reads the simple part of the language (letters, `.`, classes, groups, alternatives, repetition, anchors); what is made
is always put to RE2, which is what `matches` uses, so that a wrong reading costs an example and proves nothing.
"""

from __future__ import annotations

import re2

_ESCAPED = {"d": "0", "w": "a", "s": " ", "b": "", "A": "", "z": "", "n": "\n", "t": "\t"}
_MOST_REPEATED = 64
_DEEPEST = 20


def is_match(pattern: str, text: str) -> bool | None:
    """Whether the pattern is found in `text`, as `matches` of CEL does it; None: it is no pattern."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options).search(text) is not None
    except re2.error:
        return None


def witness(pattern: str) -> str | None:
    """A text that the pattern matches, None where none was found."""
    try:
        text, _ = _alternatives(pattern, 0, 0)
    except (IndexError, ValueError):
        return None
    return text if is_match(pattern, text) else None


def _alternatives(pattern: str, at: int, depth: int) -> tuple[str, int]:
    """What the first alternative from `at` on matches, and where the group ends."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    made, first = "", None
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            first, made, at = made if first is None else first, "", at + 1
            continue
        one, at = _one(pattern, at, depth)
        least, at = _least(pattern, at)
        made += one * least
    return made if first is None else first, at


def _one(pattern: str, at: int, depth: int) -> tuple[str, int]:
    sign = pattern[at]
    if sign in "^$":
        return "", at + 1
    if sign == ".":
        return "a", at + 1
    if sign == "\\":
        return _ESCAPED.get(pattern[at + 1], pattern[at + 1]), at + 2
    if sign == "[":
        return _of_class(pattern, at)
    if sign == "(":
        begins = pattern.index(":", at) + 1 if pattern[at + 1] == "?" else at + 1
        made, end = _alternatives(pattern, begins, depth + 1)
        return made, end + 1
    return sign, at + 1


def _of_class(pattern: str, at: int) -> tuple[str, int]:
    first = pattern[at + 1]
    if first == "^":
        raise ValueError("what a class leaves out is not read")
    end = pattern.index("]", at + 2)
    return (_ESCAPED.get(pattern[at + 2], pattern[at + 2]) if first == "\\" else first), end + 1


def _least(pattern: str, at: int) -> tuple[int, int]:
    """How often what stands before `at` has to be there at least, and what follows."""
    if at >= len(pattern) or pattern[at] not in "*+?{":
        return 1, at
    if pattern[at] == "{":
        end = pattern.index("}", at)
        least, end = min(int(pattern[at + 1 : end].partition(",")[0]), _MOST_REPEATED), end + 1
    else:
        least, end = int(pattern[at] == "+"), at + 1
    return least, end + (pattern[end : end + 1] == "?")
