"""Which files a search looks at: globs and ignore rules."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.harness.sandbox.search import Glob, Rules, alternatives, is_ignored, name_matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.py", "a.py", True),
        ("*.py", "deep/down/a.py", True),
        ("*.py", "a.pyc", False),
        ("src/*.py", "src/a.py", True),
        ("src/*.py", "src/b/a.py", False),
        ("src/*.py", "other/src/a.py", False),
        ("src/**/*.py", "src/a.py", True),
        ("src/**/*.py", "src/b/c/a.py", True),
        ("**/test_*", "a/b/test_x", True),
        ("**/test_*", "test_x", True),
        ("src/**", "src/a/b", True),
        ("src/**", "src", False),
        ("**", "anything/at/all", True),
        ("a/**/b/**/c", "a/x/b/y/z/c", True),
        ("a/**/b/**/c", "a/b/c", True),
        ("a/**/b/**/c", "a/x/c", False),
        ("*.{ts,tsx}", "x/y.tsx", True),
        ("{a,b}/{c,d}", "b/c", True),
        ("{a,{b,c}}.txt", "c.txt", True),
        ("{a", "{a", True),
        ("[ab]?", "bz", True),
        ("[!ab]", "a", False),
        ("[]]", "]", True),
        ("[a", "[a", True),
        (r"\*", "*", True),
        (r"\*", "x", False),
        (".*", ".hidden", True),
        ("*", ".hidden", True),
        ("/top", "top", True),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    """P27: what stays within a name, what crosses directories."""
    assert Glob(pattern).matches(path) is expected


@given(st.text("ab*?[]!-", max_size=8), st.text("ab-]!", max_size=8))
def test_names_match_as_in_the_standard_library(pattern: str, name: str) -> None:
    """The matcher is ours because that one backtracks; what they say is the same."""
    assert name_matches(pattern, name) == bool(re.match(fnmatch.translate(pattern), name))


def test_a_hostile_glob_takes_no_time() -> None:
    """X7: polynomial, with a small power, where a regular expression would never end."""
    assert not name_matches("*a" * 200 + "b", "a" * 4_000)
    assert not Glob("/".join(["**", "a*"] * 40) + "/b").matches("/".join(["a"] * 200))
    with pytest.raises(ValueError, match="too many alternatives"):
        alternatives("{a,b}" * 20)


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        ("*.log\n!keep.log", ["a.log", "b/c.log"], ["keep.log", "log"]),
        ("/build", ["build"], ["b/build"]),
        ("build/", ["build/", "b/build/"], ["build"]),
        ("doc/*.txt", ["doc/a.txt"], ["doc/b/a.txt", "x/doc/a.txt"]),
        ("doc/**/a", ["doc/a", "doc/b/c/a"], ["a"]),
        ("# comment\n\n  \n", [], ["# comment"]),
        (r"\#x", ["#x"], []),
        ("a\n!a\na", ["a"], []),
    ],
)
def test_ignore_rules(rules: str, ignored: list[str], kept: list[str]) -> None:
    """P27: as git reads them; the last rule that matches decides. A trailing slash marks a directory here."""
    here = [("", Rules(rules))]

    assert [path for path in ignored if not is_ignored(here, path.rstrip("/"), path.endswith("/"))] == []
    assert [path for path in kept if is_ignored(here, path.rstrip("/"), path.endswith("/"))] == []


def test_inner_rules_go_before_outer_ones() -> None:
    """A directory may take back what its parent excludes, for itself only."""
    here = [("", Rules("*.tmp")), ("b/", Rules("!x.tmp"))]

    assert not is_ignored(here, "b/x.tmp", False)
    assert is_ignored(here, "b/y.tmp", False)
