"""Documents to passages: at headings and paragraphs, none longer than a model reads well.

Plain text, Markdown and reStructuredText are taken as they are; of HTML, its text. A passage carries the headings that
it stands under, since a paragraph seldom repeats what it is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst", ".html", ".htm"})
VERSION = "1"
"""Changes with what this file makes of a document."""

_LONGEST = 1_200
"""Characters of a passage: some 300 tokens."""
_SHORTEST = 200
"""Paragraphs are joined until a passage is at least so long."""
_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")


def split(text: str, suffix: str) -> list[str]:
    """The passages of a document, in order. `suffix` is that of its file, in lower case."""
    if suffix in {".html", ".htm"}:
        text = _html_text(text)
    passages: list[str] = []
    for headings, paragraphs in _sections(text.replace("\r\n", "\n").replace("\x00", "")):
        head = " > ".join(headings)
        room = max(_SHORTEST, _LONGEST - len(head) - 1)
        passages += [f"{head}\n{body}" if head else body for body in _joined(paragraphs, room)]
    return passages


def _sections(text: str) -> Iterator[tuple[list[str], list[str]]]:
    headings: list[tuple[int, str]] = []
    paragraphs: list[str] = []
    fenced = False
    for block in re.split(r"\n\s*\n", text):
        lines = block.strip("\n").split("\n")
        found = None if fenced else _HEADING.match(lines[0].strip())
        if found:
            if paragraphs:
                yield [title for _, title in headings], paragraphs
                paragraphs = []
            level = len(found[1])
            headings = [(deep, title) for deep, title in headings if deep < level] + [(level, found[2][:200])]
            lines = lines[1:]
        fenced ^= sum(line.lstrip().startswith("```") for line in lines) % 2 == 1
        if body := "\n".join(lines).strip():
            paragraphs.append(body)
    if paragraphs:
        yield [title for _, title in headings], paragraphs


def _joined(paragraphs: list[str], room: int) -> Iterator[str]:
    held = ""
    for paragraph in paragraphs:
        for piece in _pieces(paragraph, room):
            if held and (len(held) >= _SHORTEST or len(held) + len(piece) + 2 > room):
                yield held
                held = ""
            held = f"{held}\n\n{piece}" if held else piece
    if held:
        yield held


def _pieces(paragraph: str, room: int) -> Iterator[str]:
    """A paragraph that is too long, cut between sentences, else between words, else anywhere."""
    held = ""
    for sentence in _SENTENCE_END.split(paragraph):
        rest = sentence
        while len(rest) > room:
            cut = rest.rfind(" ", 1, room)
            cut = cut if cut > 0 else room
            if held:
                yield held
                held = ""
            yield rest[:cut]
            rest = rest[cut:].lstrip()
        if held and len(held) + len(rest) + 1 > room:
            yield held
            held = ""
        held = f"{held} {rest}" if held else rest
    if held:
        yield held


class _Text(HTMLParser):
    _SKIPPED = frozenset({"script", "style", "template", "noscript", "head"})
    _BLOCKS = frozenset({"p", "div", "li", "tr", "br", "section", "article", "pre", "table", "ul", "ol", "blockquote"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 the library's name
        if tag in self._SKIPPED:
            self._skipping += 1
        elif tag in self._BLOCKS:
            self.pieces.append("\n\n")
        elif re.fullmatch(r"h[1-6]", tag):
            self.pieces.append(f"\n\n{'#' * int(tag[1])} ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._SKIPPED:
            self._skipping = max(0, self._skipping - 1)
        elif tag in self._BLOCKS or re.fullmatch(r"h[1-6]", tag):
            self.pieces.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self.pieces.append(re.sub(r"\s+", " ", data))


def _html_text(html: str) -> str:
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "".join(parser.pieces)
