"""Text for a model: what a cut keeps and what cleaning leaves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cairn.harness.sandbox.text import head, printable, size_of, split_lines, tail


def test_colours_and_control_characters_are_gone() -> None:
    """What a terminal would have obeyed is not shown."""
    assert printable("\x1b[1;31mred\x1b[0m \x1b]0;title\x07plain\x00\x08\ttab\n") == "red plain\ttab\n"


def test_an_overwritten_line_is_shown_as_it_was_left() -> None:
    """A progress bar is one line, its last; Windows line ends are line ends."""
    assert printable("10%\r50%\r100%\ndone\r\nspin\r") == "100%\ndone\nspin"


def test_the_tail_is_the_last_whole_lines() -> None:
    """P27: lines first, bytes first, and a single line that is too long from its end."""
    text = "".join(f"{n}\n" for n in range(1, 11))

    assert tail(text, lines_max=3).text == "8\n9\n10"
    assert tail(text, bytes_max=4).text == "9\n10"
    assert tail(text, bytes_max=3).text == "10"
    assert tail(text).is_whole
    broken = tail("é" * 100, bytes_max=11)
    assert (broken.text, broken.broken, broken.is_whole) == ("é" * 5, True, False)


def test_the_head_is_the_first_whole_lines() -> None:
    """P27: never a part of one."""
    assert head("1\n22\n333\n", bytes_max=4).text == "1\n22"
    assert head("1\n22\n333\n", lines_max=2).lines == 2
    assert head("a" * 9, bytes_max=3).broken
    assert head("", bytes_max=3).text == ""


@given(st.text("aé\n", max_size=40), st.integers(1, 5), st.integers(1, 12))
def test_a_cut_never_exceeds_its_limits(text: str, lines_max: int, bytes_max: int) -> None:
    """P27."""
    for cut in (tail(text, lines_max, bytes_max), head(text, lines_max, bytes_max)):
        assert len(split_lines(cut.text)) <= lines_max
        assert len(cut.text.encode()) <= bytes_max
        assert cut.text in text
    assert text.rstrip("\n").endswith(tail(text, lines_max, bytes_max).text.rstrip("\n"))
    assert text.startswith(head(text, lines_max, bytes_max).text)


def test_sizes_are_for_people() -> None:
    """The unit that leaves one to four digits."""
    assert [size_of(n) for n in (1, 1023, 1536, 5 * 1024 * 1024)] == ["1 byte", "1023 bytes", "1.5 KB", "5.0 MB"]
