"""Text of others on a terminal: what is harmless stays as it is, what could drive the terminal is shown."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.framework.cli.visible import visible, visible_json


def test_what_people_write_stays_as_it_is() -> None:
    """Letters of all scripts, emoji with joiners, wide and hard spaces, tabs and line breaks."""
    text = "Grüße, 漢字, שלום, 👩‍👩‍👧 a\u00a0b\u3000c\td\ne"

    assert visible(text) == text


@pytest.mark.slow
@given(st.text())
def test_no_control_character_survives(text: str) -> None:
    """Nothing can move the cursor, colour the screen or turn the writing (X8)."""
    shown = visible(text)

    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Co", "Zl", "Zp") and c not in "\n\t"]
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")


@pytest.mark.slow
@given(st.recursive(st.text(), st.lists))
def test_json_means_the_same_and_holds_no_control_character(value: object) -> None:
    """A program reads what was written; a person who looks at it is not harmed (X8)."""
    shown = visible_json(json.dumps(value, ensure_ascii=False))

    assert json.loads(shown) == value
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp")]


def test_a_line_break_of_another_system_is_a_line_break() -> None:
    assert visible("a\r\nb\rc") == "a\nb\\x0dc"
