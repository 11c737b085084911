"""Arguments a model wrote, made to fit a JSON Schema: cloned, coerced where the meaning is plain, checked, and refused
in words the model can act on.

Laws. Pure, and total: whatever comes in, the answer is a value that fits or a ValueError, never another exception. A
value that already fits is never changed. What came in is never mutated. Unknown schema keywords are ignored, as JSON
Schema demands; a `pattern` that Python cannot compile is, too.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any

#: Characters of the received arguments that an error repeats: enough to see the mistake, too few to flood the context.
ECHO_CHARACTERS_MAX = 2_000

#: Problems listed in one error; a model mends the first few and the rest follow.
PROBLEMS_MAX = 20

#: Levels of nesting that are looked at. Deeper than any honest argument, far above Python's stack.
DEPTH_MAX = 100

#: Places where a schema and a value are compared, in one validation (about 10 us each). What a model writes in one
#: answer has a few thousand; a schema that refers to itself in several alternatives would take exponential time.
COMPARISONS_MAX = 40_000

#: Characters of a text that may be read as a number; longer ones cost quadratic time and mean nothing.
NUMBER_CHARACTERS_MAX = 400

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NAMES = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_MISSING = object()


def compile_schema(schema: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from arguments to arguments that fit `schema`, an object schema.

    Coerced, only where the value does not fit as it is: `"42"` → 42, 42 → `"42"`, 7.0 → 7, `"true"` → true, one value →
    a list of it, JSON text → the object or list it holds; null for an optional field is dropped. The function *raises*
    ValueError with `path: message` lines and the received arguments.
    """
    patterns: dict[str, re.Pattern[str] | None] = {}

    def validate(arguments: dict[str, Any]) -> dict[str, Any]:
        problems: list[str] = []
        try:
            fitted = _Checker(schema, patterns).fit(arguments, schema, "", problems, 0)
        except (RecursionError, _TooMuchError):
            problems.append("(arguments): too large or too deeply nested to be checked")
            fitted = None
        if not problems and not isinstance(fitted, dict):
            problems.append(f"(arguments): expected an object, got {_show(fitted)}")
        if problems:
            raise ValueError(refusal(problems, arguments))
        assert isinstance(fitted, dict)
        return fitted

    return validate


def refusal(problems: list[str], arguments: object) -> str:
    """The text a model is shown for arguments that do not fit."""
    shown = [f"- {problem}" for problem in problems[:PROBLEMS_MAX]]
    if len(problems) > PROBLEMS_MAX:
        shown.append(f"- and {len(problems) - PROBLEMS_MAX} more")
    return "\n".join(["The arguments do not fit:", *shown, f"Received: {_show(arguments, ECHO_CHARACTERS_MAX)}"])


class _TooMuchError(Exception):
    """COMPARISONS_MAX is used up."""


class _Checker:
    """One walk through a value and its schema together. `patterns` is shared by all walks of a schema."""

    def __init__(self, root: dict[str, Any], patterns: dict[str, re.Pattern[str] | None]) -> None:
        self._root = root
        self._patterns = patterns
        self._comparisons = 0

    def fit(self, value: Any, schema: Any, path: str, problems: list[str], depth: int) -> Any:
        """The value, coerced to the schema; what does not fit is added to `problems`."""
        self._comparisons += 1
        if self._comparisons > COMPARISONS_MAX:
            raise _TooMuchError
        if depth > DEPTH_MAX:
            problems.append(f"{_at(path)}: nested more than {DEPTH_MAX} levels deep")
            return value
        if schema is False:
            problems.append(f"{_at(path)}: not allowed")
            return value
        if not isinstance(schema, dict):
            return _clone(value, depth)
        if isinstance(schema.get("$ref"), str):
            value = self.fit(value, self._resolve(schema["$ref"]), path, problems, depth + 1)
        for part in _schemas(schema.get("allOf")):
            value = self.fit(value, part, path, problems, depth + 1)
        for choice in ("anyOf", "oneOf"):
            if _schemas(schema.get(choice)):
                value = self._choose(value, schema[choice], path, problems, depth + 1)
        types = _types(schema)
        if types and not any(_is(value, kind) for kind in types):
            coerced = _coerce(value, types)
            if coerced is _MISSING:
                expected = " or ".join(_NAMES.get(kind, kind) for kind in types)
                problems.append(f"{_at(path)}: expected {expected}, got {_show(value)}")
                return value
            value = coerced
        if isinstance(value, float) and "integer" in types and "number" not in types:
            value = int(value)
        if isinstance(value, dict):
            value = self._object(value, schema, path, problems, depth)
        elif isinstance(value, (list, tuple)):
            value = self._array(value, schema, path, problems, depth)
        _check_values(value, schema, path, problems)
        self._check_text(value, schema, path, problems)
        return value

    def _resolve(self, reference: str) -> Any:
        node: Any = self._root
        if not reference.startswith("#"):
            return True
        for part in reference[1:].split("/")[1:]:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        return True if node is None else node

    def _choose(self, value: Any, schemas: list[Any], path: str, problems: list[str], depth: int) -> Any:
        """The first alternative the value fits unchanged, else the first it can be coerced to, else the nearest's
        complaints: a value that fits is never changed, whichever alternative comes first."""
        attempts: list[tuple[list[str], Any]] = []
        for schema in schemas:
            found: list[str] = []
            attempts.append((found, self.fit(value, schema, path, found, depth)))
            if not found and _same(attempts[-1][1], value):
                return attempts[-1][1]
        for found, fitted in attempts:
            if not found:
                return fitted
        same_kind = [a for a, schema in zip(attempts, schemas, strict=True) if _kind(value) in self._kinds(schema, 0)]
        if len(same_kind) == 1:
            problems.extend(same_kind[0][0])
        else:
            kinds = sorted({kind for schema in schemas for kind in self._kinds(schema, 0)})
            expected = " or ".join(_NAMES.get(kind, kind) for kind in kinds) or "another value"
            problems.append(f"{_at(path)}: expected {expected} in one of the allowed forms, got {_show(value)}")
        return value

    def _kinds(self, schema: Any, depth: int) -> list[str]:
        """The JSON types a schema names, looking through references."""
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return []
        if isinstance(schema.get("$ref"), str):
            return self._kinds(self._resolve(schema["$ref"]), depth + 1)
        return _types(schema) or [_kind(option) for option in schema.get("enum") or ()]

    def _object(self, value: dict[Any, Any], schema: dict[str, Any], path: str, problems: list[str], depth: int) -> Any:
        properties = schema.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        required = [name for name in _schemas(schema.get("required")) if isinstance(name, str)]
        extra = schema.get("additionalProperties", True)
        fitted: dict[str, Any] = {}
        for name, item in value.items():
            where = f"{path}.{name}" if path else str(name)
            if not isinstance(name, str):
                problems.append(f"{where}: a field's name must be text")
            elif name in properties:
                if item is None and name not in required and not self._allows_null(properties[name], 0):
                    continue
                fitted[name] = self.fit(item, properties[name], where, problems, depth + 1)
            elif extra is False and "patternProperties" not in schema:
                problems.append(f"{where}: there is no such field{_suggest(name, properties)}")
            else:
                fitted[name] = self.fit(item, extra, where, problems, depth + 1)
        problems.extend(f"{path}.{name}: required" if path else f"{name}: required" for name in required if name not in value)
        return fitted

    def _allows_null(self, schema: Any, depth: int) -> bool:
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return schema is True
        found: list[str] = []
        return self._plain(schema, depth) or (self.fit(None, schema, "", found, depth + 1) is None and not found)

    def _plain(self, schema: dict[str, Any], depth: int) -> bool:
        """Whether the schema says nothing at all about the value, so that null is as good as any."""
        return not schema.keys() - {"title", "description", "default", "examples"}

    def _array(self, value: Any, schema: dict[str, Any], path: str, problems: list[str], depth: int) -> list[Any]:
        prefix = _schemas(schema.get("prefixItems"))
        rest = schema.get("items", True)
        return [
            self.fit(item, prefix[n] if n < len(prefix) else rest, f"{path}.{n}" if path else str(n), problems, depth + 1)
            for n, item in enumerate(value)
        ]

    def _check_text(self, value: Any, schema: dict[str, Any], path: str, problems: list[str]) -> None:
        pattern = schema.get("pattern")
        if not isinstance(value, str) or not isinstance(pattern, str):
            return
        if pattern not in self._patterns:
            try:
                self._patterns[pattern] = re.compile(pattern)
            except (re.error, OverflowError, RecursionError):
                self._patterns[pattern] = None
        compiled = self._patterns[pattern]
        if compiled is not None and not compiled.search(value):
            problems.append(f"{_at(path)}: {_show(value)} does not match the pattern {pattern}")


# --- one value and its type ----------------------------------------------------------------------------------------


def _schemas(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _types(schema: dict[str, Any]) -> list[str]:
    given = schema.get("type")
    if isinstance(given, str):
        return [given]
    return [kind for kind in given if isinstance(kind, str)] if isinstance(given, list) else []


def _kind(value: Any) -> str:
    return next((kind for kind in _NAMES if _is(value, kind)), "unknown")


def _is(value: Any, kind: str) -> bool:
    """Whether the value is of that JSON type; 7.0 is an integer, true is not, and NaN is no number."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return _is(value, "number") and (isinstance(value, int) or value.is_integer())
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, (list, tuple))
        case "object":
            return isinstance(value, dict)
        case "null":
            return value is None
    return False


def _coerce(value: Any, types: list[str]) -> Any:
    """The value as the first of `types` it can plainly be read as; `_MISSING` when there is none. Text last: anything
    could be text, and only a bare number or truth value is taken for it."""
    for kind in sorted(types, key=lambda kind: (kind == "array", kind == "string")):
        read = _read(value, kind)
        if read is not _MISSING:
            return read
    return _MISSING


def _read(value: Any, kind: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if kind == "boolean" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in ("integer", "number"):
            return _read_number(text, kind)
        if kind in ("object", "array") and text[:1] in ("{", "["):
            parsed = _parse(text)
            if _is(parsed, kind):
                return parsed
    if kind == "array" and value is not None:
        return [value]
    if kind == "string" and (isinstance(value, bool) or _is(value, "number")):
        return json.dumps(value)
    return _MISSING


def _read_number(text: str, kind: str) -> Any:
    if len(text) > NUMBER_CHARACTERS_MAX:
        return _MISSING
    if _INTEGER.fullmatch(text):
        return int(text.split(".")[0])
    if kind == "number" and _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else _MISSING
    return _MISSING


def _parse(text: str) -> Any:
    try:
        parsed = json.loads(text)
        # An escaped half of a surrogate pair parses, but could never be recorded: it is not taken for JSON.
        json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return parsed


# --- rules on values -----------------------------------------------------------------------------------------------


def _check_values(value: Any, schema: dict[str, Any], path: str, problems: list[str]) -> None:
    options = schema.get("enum")
    if isinstance(options, list) and not any(_same(value, option) for option in options):
        shown = ", ".join(_show(option) for option in options)
        problems.append(f"{_at(path)}: {_show(value)} is not one of {shown}{_suggest(value, options)}")
    if "const" in schema and not _same(value, schema["const"]):
        problems.append(f"{_at(path)}: must be {_show(schema['const'])}, got {_show(value)}")
    if _is(value, "number"):
        problems.extend(f"{_at(path)}: {text}, got {_show(value)}" for text in _number_faults(value, schema))
    for least, most, unit, kind in _SIZES:
        if _is(value, kind):
            problems.extend(f"{_at(path)}: {text}" for text in _size_faults(len(value), schema, least, most, unit))
    if schema.get("uniqueItems") is True and isinstance(value, list):
        seen = [json.dumps(item, sort_keys=True, default=repr) for item in value]
        if len(set(seen)) < len(seen):
            problems.append(f"{_at(path)}: the items must differ")


_SIZES = (
    ("minLength", "maxLength", "characters", "string"),
    ("minItems", "maxItems", "items", "array"),
    ("minProperties", "maxProperties", "fields", "object"),
)


def _number_faults(value: float, schema: dict[str, Any]) -> list[str]:
    return [
        f"{text} {_show(schema[name])}"
        for name, (text, holds) in _NUMBER_RULES.items()
        if _is(schema.get(name), "number") and not holds(value, schema[name])
    ]


def _is_multiple(value: float, of: float) -> bool:
    if of == 0:
        return True
    if isinstance(value, int) and isinstance(of, int):
        return value % of == 0
    try:
        ratio = value / of
        # 0.3 is a multiple of 0.1 to everyone but binary floats.
        return math.isfinite(ratio) and abs(ratio - round(ratio)) < 1e-9
    except OverflowError:
        return False


_NUMBER_RULES: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("must be at least", operator.ge),
    "maximum": ("must be at most", operator.le),
    "exclusiveMinimum": ("must be more than", operator.gt),
    "exclusiveMaximum": ("must be less than", operator.lt),
    "multipleOf": ("must be a multiple of", _is_multiple),
}


def _size_faults(size: int, schema: dict[str, Any], least: str, most: str, unit: str) -> list[str]:
    faults = []
    if _is(schema.get(least), "number") and size < schema[least]:
        faults.append(f"at least {schema[least]} {unit} are needed, got {size}")
    if _is(schema.get(most), "number") and size > schema[most]:
        faults.append(f"at most {schema[most]} {unit} are allowed, got {size}")
    return faults


# --- words ---------------------------------------------------------------------------------------------------------


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, and 1 is 1.0 only when both are numbers."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _clone(value: Any, depth: int) -> Any:
    if depth > DEPTH_MAX:
        return value
    if isinstance(value, dict):
        return {name: _clone(item, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clone(item, depth + 1) for item in value]
    return value


def _at(path: str) -> str:
    return path or "(arguments)"


def _suggest(given: Any, known: Any) -> str:
    names = [name for name in known if isinstance(name, str)]
    close = difflib.get_close_matches(given[:100], names, 1) if isinstance(given, str) else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(names[:20])}" if isinstance(known, dict) and names else ""


def _show(value: Any, characters_max: int = 80) -> str:
    """The value as JSON, short enough, and always encodable: half a surrogate pair is escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, TypeError, RecursionError):
        text = f"something that is not JSON ({type(value).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= characters_max else f"{text[:characters_max]}… ({len(text)} characters)"
