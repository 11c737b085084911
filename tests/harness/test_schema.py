"""What a model is told about a function, and what its arguments become."""

from __future__ import annotations

import datetime
import enum
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cairn.errors import UsageError
from cairn.harness.arguments import DEPTH_MAX, ECHO_CHARACTERS_MAX, compile_schema
from cairn.harness.context_face import Context
from cairn.harness.schema import schema_of, signature_of, split_docstring


class Priority(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Place:
    """A point in a file."""

    path: str
    line: int = 1


def prop(kind: str, **more: Any) -> dict[str, Any]:
    """The schema of an object with one field `x`."""
    return {"type": "object", "properties": {"x": {"type": kind, **more}}}


def problems(validate: Callable[[dict[str, Any]], dict[str, Any]], arguments: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as raised:
        validate(arguments)
    return str(raised.value)


# --- from a function to a schema -------------------------------------------------------------------------------------


def test_a_schema_carries_types_bounds_defaults_and_the_docstrings_words() -> None:
    """P7: the schema is all the model knows, so everything the signature says is in it."""

    def find(
        ctx: Context[Any],
        text: str,
        at: Place,
        kind: Literal["bug", "idea"] = "bug",
        limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10,
        tags: list[str] | None = None,
        priority: Priority = Priority.LOW,
    ) -> str:
        """Find things.

        Args:
            ctx: Not for the model.
            text: What to
                look for.
            at (Place): Where: first.
        """
        return text

    schema = schema_of(find)

    assert schema["required"] == ["text", "at"]
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "text": {"type": "string", "description": "What to look for."},
        "at": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "line": {"type": "integer", "default": 1}},
            "required": ["path"],
            "description": "Where: first.",
        },
        "kind": {"type": "string", "enum": ["bug", "idea"], "default": "bug"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 50, "default": 10},
        "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "priority": {"type": "string", "enum": ["high", "low"], "default": "low"},
    }
    assert "$defs" not in schema


@dataclass
class Tree:
    title: str
    children: list[Tree] = field(default_factory=list)


def test_only_a_type_that_contains_itself_stays_a_reference() -> None:
    """P7: not every provider follows `$ref`, so a schema holds none unless it must."""

    def plant(tree: Tree, at: Place) -> int:
        return len(tree.children)

    signature = signature_of(plant)

    assert signature.parameters["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    assert list(signature.parameters["$defs"]) == ["Tree"]
    assert list(signature.parameters["$defs"]["Tree"]["properties"]) == ["title", "children"]
    fitted = signature.validate({"tree": {"title": 1, "children": {"title": "b"}}, "at": {"path": "a"}})
    assert signature.convert(fitted) == {"tree": Tree("1", [Tree("b")]), "at": Place("a")}


def test_a_schema_is_the_same_every_time_it_is_made() -> None:
    """P26: a request's prefix may only change when a tool does."""

    def both(b: str, a: int = 1) -> None: ...

    assert json.dumps(schema_of(both)) == json.dumps(schema_of(both))
    assert list(schema_of(both)["properties"]) == ["b", "a"]


def test_a_function_without_parameters_has_an_empty_object_schema() -> None:
    """P7: providers want an object even when there is nothing to say."""

    def now() -> str:
        return ""

    assert schema_of(now) == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def test_a_docstring_ends_its_description_at_the_first_section() -> None:
    """P7: what is written for programmers (Raises, Returns) does not reach the model."""
    description, entries = split_docstring(
        "Do it.\n\nSlowly.\n\nArgs:\n    a: One.\n    **b (int): Two:\n        three.\n\nReturns:\n    Nothing."
    )

    assert description == "Do it.\n\nSlowly."
    assert entries == {"a": "One.", "b": "Two: three."}


def test_a_class_defined_inside_a_function_resolves_under_postponed_annotations() -> None:
    """P7: what works at module level works in a test."""

    @dataclass
    class Inner:
        n: int

    def use(inner: Inner) -> int:
        return inner.n

    signature = signature_of(use, {"Inner": Inner})

    assert signature.convert(signature.validate({"inner": {"n": "3"}})) == {"inner": Inner(3)}


def positional(a: int, /) -> None: ...
def variadic(*parts: str) -> None: ...
def keywords(**parts: str) -> None: ...
def not_json(a: Callable[[], None]) -> None: ...
def two_contexts(a: Context[Any], b: Context[Any]) -> None: ...
def unresolved(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def misdocumented(a: int) -> None:
    """Do.

    Args:
        b: No such thing.
    """


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (positional, "positional-only"),
        (variadic, "*parts"),
        (keywords, "**parts"),
        (not_json, "parameter 'a'"),
        (two_contexts, "two parameters take a Context"),
        (unresolved, "Nowhere"),
        (misdocumented, "'b'"),
    ],
)
def test_a_function_no_model_could_call_is_refused_by_name_and_place(function: Any, said: str) -> None:
    """P6: the mistake is found where it is written, before any model is asked."""
    with pytest.raises(UsageError) as raised:
        signature_of(function)

    assert said in str(raised.value)
    assert f"{function.__name__} ({__file__}:" in str(raised.value)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "given_value", "expected"),
    [
        (prop("integer"), "42", 42),
        (prop("integer"), " -7 ", -7),
        (prop("integer"), 7.0, 7),
        (prop("integer"), "7.0", 7),
        (prop("number"), "1.5e3", 1500.0),
        (prop("number"), 3, 3),
        (prop("boolean"), "true", True),
        (prop("boolean"), "False", False),
        (prop("string"), 42, "42"),
        (prop("string"), True, "true"),
        (prop("string"), "42", "42"),
        (prop("array", items={"type": "integer"}), "5", [5]),
        (prop("array", items={"type": "integer"}), ["5", 6], [5, 6]),
        (prop("array", items={"type": "string"}), '["a", "b"]', ["a", "b"]),
        (prop("array", items={"type": "string"}), "a, b", ["a, b"]),
        (prop("object"), '{"a": 1}', {"a": 1}),
        ({"properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}}, "5", "5"),
        ({"properties": {"x": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}}, "5", 5),
        ({"properties": {"x": {"type": ["integer", "null"]}}}, None, None),
        ({"properties": {"x": {"enum": ["a"], "type": "string"}}}, "a", "a"),
    ],
)
def test_a_value_that_plainly_means_what_is_asked_is_taken_for_it(schema: Any, given_value: Any, expected: Any) -> None:
    """P7: `"42"` for an integer becomes 42; a value that fits already is never changed."""
    fitted = compile_schema({"type": "object", **schema})({"x": given_value})

    assert fitted == {"x": expected}
    assert type(fitted["x"]) is type(expected)


def test_null_for_an_optional_field_is_as_if_it_was_not_given() -> None:
    """P7: models fill in null for what they want to leave out."""

    def search(text: str, limit: int = 10, after: str | None = "start") -> None: ...

    signature = signature_of(search)

    fitted = signature.validate({"text": "a", "limit": None, "after": None})

    assert fitted == {"text": "a", "after": None}
    assert signature.convert(fitted) == {"text": "a", "after": None}


def test_the_received_arguments_are_not_touched() -> None:
    """P7: the transcript holds what the model wrote."""
    received = {"x": ["1", {"y": None}]}

    fitted = compile_schema(prop("array", items={}))(received)

    assert received == {"x": ["1", {"y": None}]}
    assert fitted["x"] is not received["x"]
    assert fitted["x"][1] is not received["x"][1]


def test_a_refusal_lists_every_problem_with_its_path_and_echoes_what_came() -> None:
    """P6: the model can mend its call from the text alone."""

    def open_issue(title: str, places: list[Place], kind: Literal["bug", "idea"] = "bug") -> None: ...

    said = problems(
        signature_of(open_issue).validate, {"places": [{"path": "a"}, {"line": "many"}], "kind": "bgu", "titel": "T"}
    )

    assert said.splitlines() == [
        "The arguments do not fit:",
        '- places.1.line: expected an integer, got "many"',
        "- places.1.path: required",
        '- kind: "bgu" is not one of "bug", "idea"; did you mean \'bug\'?',
        "- titel: there is no such field; did you mean 'title'?",
        "- title: required",
        'Received: {"places": [{"path": "a"}, {"line": "many"}], "kind": "bgu", "titel": "T"}',
    ]


def test_a_refusal_is_short_however_much_came_in() -> None:
    """P6: an error must not flood the context."""
    said = problems(compile_schema(prop("integer")), {"x": "y" * 100_000})

    assert len(said) < ECHO_CHARACTERS_MAX + 500


@pytest.mark.parametrize(
    ("rule", "good", "bad", "said"),
    [
        ({"type": "integer", "minimum": 1}, 1, 0, "at least 1"),
        ({"type": "integer", "maximum": 1}, 1, 2, "at most 1"),
        ({"type": "number", "exclusiveMinimum": 0}, 0.1, 0, "more than 0"),
        ({"type": "number", "exclusiveMaximum": 1}, 0.9, 1, "less than 1"),
        ({"type": "number", "multipleOf": 0.1}, 0.3, 0.35, "multiple of 0.1"),
        ({"type": "string", "minLength": 2}, "ab", "a", "at least 2 characters"),
        ({"type": "string", "maxLength": 2}, "ab", "abc", "at most 2 characters"),
        ({"type": "string", "pattern": "^a+$"}, "aa", "b", "pattern ^a+$"),
        ({"type": "array", "minItems": 1}, [1], [], "at least 1 items"),
        ({"type": "array", "uniqueItems": True}, [1, 2], [1, 1], "must differ"),
        ({"enum": [1, "a", None]}, None, True, "not one of"),
        ({"const": True}, True, 1, "must be true"),
        ({"type": "string", "allOf": [{"minLength": 1}, {"maxLength": 1}]}, "a", "ab", "at most 1"),
        ({"oneOf": [{"type": "boolean"}, {"type": "object"}]}, {}, "z", "true or false or an object"),
        ({"prefixItems": [{"type": "string"}], "items": False, "type": "array"}, ["a"], ["a", 1], "not allowed"),
        ({"$ref": "#/$defs/Odd"}, 3, 4, "must be 3"),
        (False, None, 1, "not allowed"),
    ],
)
def test_each_rule_of_a_schema_is_held(rule: Any, good: Any, bad: Any, said: str) -> None:
    """P6: what the schema forbids never reaches the tool."""
    validate = compile_schema({"type": "object", "properties": {"x": rule}, "$defs": {"Odd": {"const": 3}}})

    if rule is not False:
        assert validate({"x": good}) == {"x": good}
    assert said in problems(validate, {"x": bad})


@pytest.mark.parametrize(
    "value", ["42x", "", "NaN", "1_000", "inf", True, None, [1], {}, float("nan"), 1.5, "9" * 5000, "0x10"]
)
def test_a_value_that_is_no_integer_is_not_guessed_to_be_one(value: Any) -> None:
    """P6: coercion is for what is plain; the rest is the model's to mend."""
    schema = {**prop("integer"), "required": ["x"]}

    assert "x: " in problems(compile_schema(schema), {"x": value})


def test_what_only_the_python_type_knows_is_checked_before_the_call() -> None:
    """P6: a date that is none is a validation error, not an error inside the tool."""

    def remind(day: datetime.date) -> None: ...

    signature = signature_of(remind)

    assert signature.convert(signature.validate({"day": "2026-02-28"})) == {"day": datetime.date(2026, 2, 28)}
    assert "- day: " in problems(signature.validate, {"day": "2026-02-31"})


def test_a_problem_found_by_the_type_has_the_same_form_of_path() -> None:
    """P6: one form for all problems, whoever finds them."""

    def remind(days: dict[str, list[datetime.date]]) -> None: ...

    said = problems(signature_of(remind).validate, {"days": {"a": ["2026-01-01", "soon"]}})

    assert "- days" in said
    assert "$" not in said


def test_a_recursive_schema_is_followed_as_deep_as_the_value_and_no_deeper() -> None:
    """T19: a tree of the model's own depth is neither a crash nor an endless walk."""
    schema = {
        "type": "object",
        "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}},
        "additionalProperties": False,
    }
    validate = compile_schema(schema)
    shallow: dict[str, Any] = {"child": {"child": {"n": "3"}}}
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"child": deep}

    assert validate(shallow) == {"child": {"child": {"n": 3}}}
    assert f"more than {DEPTH_MAX} levels" in problems(validate, deep)
    assert "x" in problems(compile_schema(prop("object")), {"x": "[" * 100_000})


def test_numbers_beyond_every_float_are_numbers() -> None:
    """T19: JSON has no largest integer, and a model may well write one."""
    validate = compile_schema(prop("integer", minimum=0))

    assert validate({"x": "1" + "0" * 350}) == {"x": 10**350}
    assert "at least 0" in problems(validate, {"x": -(10**400)})
    assert "multiple of 0.5" in problems(compile_schema(prop("number", multipleOf=0.5)), {"x": 10**400})


def test_a_schema_that_refers_to_itself_in_alternatives_is_given_up_not_waited_for() -> None:
    """T19: two alternatives at each of a hundred levels would take longer than the universe has been there."""
    schema = {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}]}

    assert "too large or too deeply nested" in problems(compile_schema(schema), {"x": 1})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
KEYWORDS = """type properties required items anyOf oneOf allOf enum const $ref pattern minimum maxLength multipleOf
    additionalProperties prefixItems uniqueItems"""
keyword = st.sampled_from(re.findall(r"\S+", KEYWORDS))
schemas = st.recursive(
    st.sampled_from(
        [{"type": t} for t in ("string", "integer", "number", "boolean", "array", "object", "null")]
        + [{"$ref": "#"}, {"pattern": "("}, {"enum": [1, "a"]}, {"type": ["integer", "string"]}, {}, True, False]
    )
    | st.dictionaries(keyword, anything, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
    ),
    max_leaves=6,
)


arguments_of_any_kind = st.dictionaries(st.sampled_from("abcx"), anything, max_size=4) | anything


def answers_or_refuses(schema: Any, arguments: Any) -> None:
    validate = compile_schema({"type": "object", "properties": {"x": schema, "a": schema}, "allOf": [schema]})

    try:
        fitted = validate(arguments)
    except ValueError as refused:
        str(refused).encode()
        assert "Received: " in str(refused)
    else:
        assert isinstance(fitted, dict)


@given(schema=schemas, arguments=arguments_of_any_kind)
def test_validation_raises_nothing_but_value_errors(schema: Any, arguments: Any) -> None:
    """T19: whatever a model writes against whatever schema a server sent, the answer is arguments or a readable refusal."""
    answers_or_refuses(schema, arguments)


@pytest.mark.slow
@settings(max_examples=600)
@given(schema=schemas, arguments=arguments_of_any_kind)
def test_validation_raises_nothing_but_value_errors_in_many_tries(schema: Any, arguments: Any) -> None:
    """T19: the same, 600 times."""
    answers_or_refuses(schema, arguments)


@given(
    st.fixed_dictionaries(
        {"n": st.integers(), "s": st.text(), "b": st.booleans(), "f": st.floats(allow_nan=False, allow_infinity=False)},
        optional={"l": st.lists(st.integers()), "o": st.none()},
    )
)
def test_arguments_that_fit_pass_unchanged_and_a_second_pass_changes_nothing(arguments: dict[str, Any]) -> None:
    """P7: coercion is idempotent and leaves what fits alone."""

    def take(n: int, s: str, b: bool, f: float, l: list[int] | None = None, o: str | None = None) -> None: ...

    validate = signature_of(take).validate

    assert validate(arguments) == arguments
    assert validate(validate(arguments)) == arguments
