"""Typed state: what a call copies, what it changed, and when two calls collide."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import UsageError
from cairn.harness.state import Draft, StateType, conflicts


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Person:
    name: str
    since: datetime.date = datetime.date(2020, 1, 1)


@dataclass
class Case:
    escalated: bool = False
    notes: list[str] = field(default_factory=list)
    people: dict[str, Person] = field(default_factory=dict)
    level: Level = Level.LOW
    limit: float | None = None

    def note(self, text: str) -> None:
        self.notes.append(text)


class Counter(msgspec.Struct):
    n: int = 0
    by: dict[str, int] = {}


def draft(stored: dict[str, bytes] | None = None, **versions: int) -> Draft[Case]:
    return Draft(StateType(Case), stored or {}, versions)


def test_a_new_conversation_starts_with_the_defaults_and_stores_none_of_them() -> None:
    """Decided in the state's first law: a default that changes in the code changes for whoever never assigned it."""
    one = draft()

    assert one.value == Case()
    assert one.changes() == {}


def test_what_is_assigned_and_what_is_changed_in_place_is_found() -> None:
    """Everything a call did to the state is in its one outcome."""
    one = draft({"notes": b'["a"]', "people": b'{"x": {"name": "X"}}'})
    one.value.escalated = True
    one.value.note("b")
    one.value.people["x"].name = "Y"
    one.value.level = Level.HIGH

    assert one.changes() == {
        "escalated": b"true",
        "notes": b'["a","b"]',
        "people": b'{"x":{"name":"Y"}}',
        "level": b"2",
    }


def test_assigning_an_equal_value_changes_nothing() -> None:
    """No record without a fact."""
    one = draft({"notes": b'["a"]'})
    one.value.notes = ["a"]
    one.value.escalated = False

    assert one.changes() == {}


def test_a_draft_that_nobody_looks_at_never_reads_the_state() -> None:
    """A call that ignores the state pays nothing for it, not even for a field that no longer decodes."""
    one = draft({"level": b'"garbage"'})

    assert one.changes() == {}


def test_two_drafts_share_nothing() -> None:
    """A parallel call cannot see what another has not committed."""
    stored = {"notes": b'["a"]'}
    one, other = draft(stored), draft(stored)
    one.value.notes.append("b")

    assert other.value.notes == ["a"]
    assert other.changes() == {}


def test_a_draft_keeps_what_it_copied_when_the_store_of_fields_goes_on() -> None:
    """The copy is made at the call, not at the first look."""
    stored = {"notes": b'["a"]'}
    one = draft(stored)
    stored["notes"] = b'["a", "b"]'

    assert one.value.notes == ["a"]


@pytest.mark.parametrize(
    ("changed", "copied", "current", "expected"),
    [
        ({"a"}, {}, {}, ()),
        ({"a"}, {"a": 3}, {"a": 3, "b": 9}, ()),
        ({"a"}, {"a": 3}, {"a": 4}, ("a",)),
        ({"b", "a"}, {}, {"a": 1, "b": 1}, ("a", "b")),
        ({"a"}, {}, {"b": 5}, ()),
        (set(), {"a": 1}, {"a": 2}, ()),
    ],
)
def test_two_drafts_collide_only_in_a_field_both_changed(
    changed: set[str], copied: dict[str, int], current: dict[str, int], expected: tuple[str, ...]
) -> None:
    """The later commit wins a field, and that it did so is recorded."""
    assert conflicts(changed, copied, current) == expected


def test_a_draft_names_the_fields_that_somebody_else_committed_meanwhile() -> None:
    """The same, seen from a call."""
    one = draft(escalated=1, notes=1)
    one.value.escalated = True
    one.value.note("x")

    assert one.conflicts({"escalated": 2, "notes": 1, "level": 7}) == ("escalated",)


def test_a_struct_is_state_too() -> None:
    """The fast class of the records is good enough for users."""
    one = Draft(StateType(Counter), {"n": b"4"})
    one.value.by["x"] = 1

    assert one.value.n == 4
    assert one.changes() == {"by": b'{"x":1}'}


def test_a_field_the_class_no_longer_has_is_left_alone() -> None:
    """S15: a redeploy that drops a field destroys nothing."""
    one = draft({"gone": b"1", "escalated": b"true"})

    assert one.value.escalated is True
    assert one.changes() == {}


def test_a_stored_value_the_present_type_cannot_hold_is_refused_by_name() -> None:
    """S14, S15: nothing is guessed and nothing is skipped."""
    with pytest.raises(UsageError, match=r"'Case\.limit' is stored as \"many\""):
        _ = draft({"limit": b'"many"'}).value


@pytest.mark.parametrize(
    "spoil",
    [
        lambda case: setattr(case, "notes", "not a list"),
        lambda case: setattr(case, "notes", [object()]),
        lambda case: setattr(case, "notes", None),
        lambda case: case.notes.append(3),
    ],
)
def test_a_value_that_could_not_be_read_back_is_refused_before_it_is_stored(spoil: Callable[[Case], None]) -> None:
    """S14: what would stop the instance at its next activation never reaches the log."""
    one = draft()
    spoil(one.value)

    with pytest.raises(UsageError, match=r"Case\.notes"):
        one.changes()


@dataclass
class Bare:
    name: str
    n: int = 0


@dataclass(frozen=True)
class Frozen:
    n: int = 0


@dataclass
class NotJson:
    lock: Callable[[], None] = print


class Plain:
    n = 0


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Bare, "'name' a default"),
        (Frozen, "frozen"),
        (NotJson, "'lock'"),
        (Plain, "@dataclass"),
        (Case(), "not an instance"),
        (int, "@dataclass"),
    ],
)
def test_a_class_that_cannot_be_state_is_refused_at_definition(cls: Any, said: str) -> None:
    """The mistake is found where it is written, with what to do."""
    with pytest.raises(UsageError, match=said):
        StateType(cls)


@given(
    st.dictionaries(st.sampled_from(["x", "y"]), st.integers(-(2**63), 2**63), max_size=2),
    st.integers(-(2**63), 2**63),
)
def test_what_a_draft_changed_is_what_the_next_one_reads(by: dict[str, int], n: int) -> None:
    """Applying the changes to the stored fields gives the very value the call had."""
    kind = StateType(Counter)
    one = Draft(kind, {})
    one.value.n, one.value.by = n, by

    assert Draft(kind, one.changes()).value == one.value


@pytest.mark.parametrize(
    ("given", "said"),
    [({"cuont": b"1"}, "has no field 'cuont'"), ({"count": b'"x"'}, "cannot be"), ({"count": b"{"}, "cannot be")],
)
def test_what_a_state_cannot_hold_is_said_of_what_was_given(given: dict[str, bytes], said: str) -> None:
    """S14: a first state comes from outside: the words are about it, and not about what is stored."""

    @dataclass
    class Case:
        count: int = 0

    with pytest.raises(UsageError, match=said) as refused:
        StateType(Case).check(given)

    assert "stored" not in str(refused.value)
