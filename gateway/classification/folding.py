"""One spelling for what can be spelled in many ways: the text as the finders read it, in UTF-8.

Invisible characters go, typographic spaces and dashes become plain ones, digits of other scripts become 0 to 9. Where
there are escapes of JSON inside the text (a tool's arguments), a copy without them follows.
Each character is folded by itself, so that what stands elsewhere cannot change what is found here.
"""

from __future__ import annotations

import re

_INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_SPACES = "\u00a0\u2002\u2003\u2007\u2008\u2009\u200a\u202f\u3000"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_ZEROS = (0x0660, 0x06F0, 0x0966)
"""Where the digits of Arabic, Persian and Devanagari begin."""
_FULL_WIDTH = 0xFEE0
"""How far the full-width forms are from ASCII."""
_PLAIN: dict[bytes, bytes] = {
    **{character.encode(): b"" for character in _INVISIBLE},
    **{character.encode(): b" " for character in _SPACES},
    **{character.encode(): b"-" for character in _DASHES},
    **{chr(zero + digit).encode(): b"%d" % digit for zero in _ZEROS for digit in range(10)},
    **{chr(code + _FULL_WIDTH).encode(): bytes((code,)) for code in range(0x21, 0x7F)},
}
_GROUPS: tuple[tuple[int, re.Pattern[bytes]], ...] = (
    (0xC2, re.compile(rb"\xc2[\xa0\xad]")),
    (0xD9, re.compile(rb"\xd9[\xa0-\xa9]")),
    (0xDB, re.compile(rb"\xdb[\xb0-\xb9]")),
    (0xE0, re.compile(rb"\xe0\xa5[\xa6-\xaf]")),
    (0xE2, re.compile(rb"\xe2(?:\x80[\x80-\x95\xaf]|\x81\xa0|\x88\x92)")),
    (0xE3, re.compile(rb"\xe3\x80\x80")),
    (0xEF, re.compile(rb"\xef(?:\xbb\xbf|\xbc[\x81-\xbf]|\xbd[\x80-\x9e])")),
)
"""What `_PLAIN` holds, by first byte: to look for that in vain costs next to nothing."""
_ESCAPE = re.compile(rb'\\(?:u([0-9a-fA-F]{4})|([nrtbf"/\\]))')
_ESCAPED = {b"n": b"\n", b"r": b"\n", b"t": b" ", b"b": b" ", b"f": b" ", b'"': b'"', b"/": b"/", b"\\": b"\\"}


def fold(text: str) -> bytes:
    """`text` in one spelling."""
    data = text.encode("utf-8", "replace")
    if b"\\" in data:
        unescaped = _ESCAPE.sub(_unescaped, data)
        if unescaped != data:
            data = data + b"\n" + unescaped
    if not data.isascii():
        for begins, group in _GROUPS:
            if begins in data:
                for character in set(group.findall(data)):
                    data = data.replace(character, _PLAIN.get(character, character))
    return data


def _unescaped(found: re.Match[bytes]) -> bytes:
    if found[2] is not None:
        return _ESCAPED[found[2]]
    return chr(int(found[1], 16)).encode("utf-8", "replace")
