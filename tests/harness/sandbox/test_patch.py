"""Replacing pieces of a text: once, without overlap, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.harness.sandbox.patch import Edit, EditProblem, apply


def problems(text: str, *edits: Edit) -> list[str]:
    with pytest.raises(EditProblem) as caught:
        apply(text, list(edits))
    return caught.value.problems


def test_every_piece_is_looked_for_in_the_original() -> None:
    """P27: the second edit finds what the first one replaces, in any order."""
    text = "one\ntwo\nthree\n"
    edits = [Edit("one", "two"), Edit("two", "one")]

    assert apply(text, edits).text == apply(text, edits[::-1]).text == "two\none\nthree\n"


def test_a_piece_that_is_not_there_is_a_problem() -> None:
    """P27."""
    assert "not found" in problems("a\nb\n", Edit("c", "d"))[0]


def test_a_piece_that_occurs_twice_is_a_problem_that_says_where() -> None:
    """P27: overlapping occurrences count; which one is meant cannot be known."""
    assert problems("x\ny\nx\n", Edit("x", "z")) == [
        "the old text occurs 2 times (at lines 1, 3); add what is around it until it occurs once."
    ]
    assert "occurs 2 times" in problems("aaa", Edit("aa", "b"))[0]
    assert "lines 1, 2, 3, 4, 5, …" in problems("x\n" * 9, Edit("x", "z"))[0]


def test_edits_that_overlap_are_a_problem() -> None:
    """P27: touching is not overlapping."""
    assert problems("abcdef", Edit("abcd", "x"), Edit("cdef", "y")) == ["edits 1 and 2 overlap; make them one edit."]
    assert apply("abcdef", [Edit("abc", "x"), Edit("def", "y")]).text == "xy"


def test_all_problems_are_told_at_once() -> None:
    """One round trip mends them all."""
    found = problems("a b", Edit("", "x"), Edit("c", "y"), Edit("a", "z"))

    assert [line.split(":")[0] for line in found] == ["edit 1 of 3", "edit 2 of 3"]


def test_an_empty_piece_and_a_change_that_changes_nothing_are_problems() -> None:
    """P27."""
    assert "empty" in problems("a", Edit("", "b"))[0]
    assert "nothing to change" in problems("a", Edit("a", "a"))[0]


def test_line_ends_and_the_byte_order_mark_are_kept() -> None:
    """P27: the model writes newlines; the file keeps what it has, line by line."""
    text = "\ufeffone\r\ntwo\r\nthree\nfour\r\n"

    assert apply(text, [Edit("one\ntwo", "1\n2\n2b")]).text == "\ufeff1\r\n2\r\n2b\r\nthree\nfour\r\n"
    assert apply(text, [Edit("three\nfour", "3\n4")]).text == "\ufeffone\r\ntwo\r\n3\n4\r\n"
    assert apply(text, [Edit("four", "4\n5")]).text == "\ufeffone\r\ntwo\r\nthree\n4\r\n5\r\n"
    assert apply(text, [Edit("\ufeffone\r\ntwo", "1")]).text == "\ufeff1\r\nthree\nfour\r\n"
    assert apply("a\rb\n", [Edit("b", "c")]).text == "a\rc\n"


@pytest.mark.parametrize(
    ("text", "old", "new", "expected"),
    [
        ("say “hi” – now\n", 'say "hi" - now', "done", "done\n"),
        ("it’s\n", "it's", "its", "its\n"),
        ("a\u00a0b\u202fc\n", "a b c", "d", "d\n"),
        ("x = 1   \ny = 2\t\nz\n", "x = 1\ny = 2\nz", "w", "w\n"),
        ("x = 1\ny = 2\n", "x = 1  \ny = 2", "w", "w\n"),
        ("ﬁne Ａ\n", "fine A", "ok", "ok\n"),
        ("cafe\u0301 au lait\n", "caf\u00e9 au", "the au", "the au lait\n"),
        ("caf\u00e9 au lait\n", "cafe\u0301 au", "the au", "the au lait\n"),
        ("keep “this”  \r\nx – y  \r\nlast", "x - y", "z", "keep “this”  \r\nz  \r\nlast"),
    ],
)
def test_what_the_eye_takes_for_the_same_matches(text: str, old: str, new: str, expected: str) -> None:
    """P27: only when it does not occur to the letter, and what is around it keeps its bytes."""
    patch = apply(text, [Edit(old, new)])

    assert (patch.text, patch.is_loose) == (expected, True)


def test_a_match_to_the_letter_goes_before_one_to_the_eye() -> None:
    """P27: `"a"` occurs once to the letter, twice to the eye."""
    patch = apply('“a” and "a"', [Edit('"a"', "b")])

    assert (patch.text, patch.is_loose) == ("“a” and b", False)


def test_two_matches_to_the_eye_are_a_problem() -> None:
    """P27."""
    assert "occurs 2 times" in problems("a–b\na—b\n", Edit("a-b", "c"))[0]


def test_no_match_begins_inside_of_a_character() -> None:
    """The `i` of the ligature `ﬁ` cannot be replaced alone."""
    assert "not found" in problems("ﬁ\u00a0x", Edit("i x", "y"))[0]


def test_an_old_text_of_spaces_matches_only_to_the_letter() -> None:
    """After normalisation it would match at every line end."""
    assert "not found" in problems("a\nb", Edit("  ", "x"))[0]


def test_the_diff_shows_what_changed_in_its_context() -> None:
    """Unified, several hunks, two edits in one line as one change."""
    text = "".join(f"line {n}\n" for n in range(1, 31))

    patch = apply(text, [Edit("line 5\n", "five\nfive b\n"), Edit("line 25", "twenty-five"), Edit("ne 26", "NE 26")])

    assert patch.lines == ((5, 5), (25, 25), (26, 26))
    assert patch.diff.split("\n") == [
        "@@ -2,8 +2,9 @@",
        *(" line 2", " line 3", " line 4", "-line 5", "-line 6", "+five", "+five b", "+line 6"),
        *(" line 7", " line 8", " line 9"),
        "@@ -22,8 +23,8 @@",
        *(" line 22", " line 23", " line 24", "-line 25", "+twenty-five", "-line 26", "+liNE 26"),
        *(" line 27", " line 28", " line 29"),
    ]


LINES = st.lists(st.text(st.sampled_from("ab “”'–-é\u00a0\u0301ﬁ\t"), max_size=6), min_size=1, max_size=8)


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.integers(0, 20), st.integers(1, 20), st.text("xy\n", max_size=4))
def test_only_what_was_found_changes(lines: list[str], end: str, start: int, length: int, new: str) -> None:
    """P27: whatever the text, the result is the text with one slice replaced; or a refusal."""
    text = end.join(lines)
    old = text.replace("\r\n", "\n")[start : start + length]
    try:
        patch = apply(text, [Edit(old, new)])
    except EditProblem:
        return

    view = text.replace("\r\n", "\n")
    assert view.count(old) == 1
    assert patch.text.replace("\r\n", "\n") == view.replace(old, new)
    kept = view.index(old)
    if end == "\n":
        assert patch.text[:kept] == text[:kept]


@given(LINES, st.data())
def test_a_loose_match_is_the_same_to_the_eye(lines: list[str], data: st.DataObject) -> None:
    """P27: what was replaced and what was looked for normalise to the same."""
    text = "\n".join(lines)
    looked_for = data.draw(st.text("ab '-efi", min_size=1, max_size=4))
    try:
        patch = apply(text, [Edit(looked_for, "\uffff")])
    except EditProblem:
        return

    before, after = patch.text.split("\uffff")
    assert text.startswith(before)
    assert text.endswith(after)
