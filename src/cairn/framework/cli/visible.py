"""Text that somebody else wrote, made harmless for a terminal: control characters are shown, not sent (X8).

Laws. Pure. What a person reads stays as it is: letters of all scripts, spaces, emoji with their joiners, line breaks and
tabs. What moves the cursor, colours the screen or turns the direction of writing becomes its escape, such as `\\x1b`.
"""

from __future__ import annotations

import re
import unicodedata

#: Joiners that scripts and emoji are spelled with: not printable by themselves, and harmless.
_JOINERS = "\u200c\u200d"


class _Table(dict[int, str]):
    """What each character becomes, found once per character."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_harmless = character.isprintable() or character in "\n\t" + _JOINERS or unicodedata.category(character) == "Zs"
        shown = self[code] = character if is_harmless else _escaped(code)
        return shown


_TABLE = _Table()

#: In a JSON text: what JSON lets pass unescaped and a terminal may obey. DEL, the C1 controls, line separators, and the
#: characters that turn the direction of writing.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text as a terminal may be shown it."""
    return text.replace("\r\n", "\n").translate(_TABLE)


def visible_json(text: str) -> str:
    """A JSON text with the same meaning that a terminal may be shown."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
