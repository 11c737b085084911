"""One JSON value: which type it is, what it can plainly be read as, and whether it keeps the rules of a schema.

Laws. Pure and total: any Python value may come in, and nothing is raised. Nothing here looks inside a list or an object.
"""

from __future__ import annotations

import difflib
import json
import math
import operator
import re
from collections.abc import Callable
from typing import Any

#: Characters of a text that may be read as a number; longer ones cost quadratic time and mean nothing.
NUMBER_CHARACTERS_MAX = 400

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

#: The JSON types, and what a person calls them.
NAMES = {
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

#: What `coerce` answers when there is nothing to be read.
MISSING = object()


def kind_of(value: Any) -> str:
    """The value's JSON type; `unknown` for what is no JSON."""
    return next((kind for kind in NAMES if is_kind(value, kind)), "unknown")


def is_kind(value: Any, kind: str) -> bool:
    """Whether the value is of that JSON type; 7.0 is an integer, true is not, and NaN is no number."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return is_kind(value, "number") and (isinstance(value, int) or value.is_integer())
        case "number":
            # An integer is asked first: one beyond the floats cannot even be asked whether it is finite.
            return (isinstance(value, int) and not isinstance(value, bool)) or (
                isinstance(value, float) and math.isfinite(value)
            )
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, (list, tuple))
        case "object":
            return isinstance(value, dict)
        case "null":
            return value is None
    return False


def coerce(value: Any, types: list[str]) -> Any:
    """The value as the first of `types` it can plainly be read as; `MISSING` when there is none. Text last: anything
    could be text, and only a bare number or truth value is taken for it."""
    for kind in sorted(types, key=lambda kind: (kind == "array", kind == "string")):
        read = _read(value, kind)
        if read is not MISSING:
            return read
    return MISSING


def _read(value: Any, kind: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if kind == "boolean" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in ("integer", "number"):
            return _read_number(text, kind)
        if kind in ("object", "array") and text[:1] in ("{", "["):
            parsed = _parse(text)
            if is_kind(parsed, kind):
                return parsed
    if kind == "array" and value is not None:
        return [value]
    if kind == "string" and (isinstance(value, bool) or is_kind(value, "number")):
        return json.dumps(value)
    return MISSING


def _read_number(text: str, kind: str) -> Any:
    if len(text) > NUMBER_CHARACTERS_MAX:
        return MISSING
    if _INTEGER.fullmatch(text):
        return int(text.split(".")[0])
    if kind == "number" and _NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else MISSING
    return MISSING


def _parse(text: str) -> Any:
    try:
        parsed = json.loads(text)
        # An escaped half of a surrogate pair parses, but could never be recorded: it is not taken for JSON.
        json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return parsed


def faults(value: Any, schema: dict[str, Any]) -> list[str]:
    """Each rule of the schema on the value as such that it breaks, in words."""
    broken: list[str] = []
    options = schema.get("enum")
    if isinstance(options, list) and not any(same(value, option) for option in options):
        shown = ", ".join(show(option) for option in options)
        broken.append(f"{show(value)} is not one of {shown}{suggest(value, options)}")
    if "const" in schema and not same(value, schema["const"]):
        broken.append(f"must be {show(schema['const'])}, got {show(value)}")
    if is_kind(value, "number"):
        broken.extend(f"{text}, got {show(value)}" for text in _number_faults(value, schema))
    for least, most, unit, kind in _SIZES:
        if is_kind(value, kind):
            broken.extend(_size_faults(len(value), schema, least, most, unit))
    if schema.get("uniqueItems") is True and isinstance(value, list):
        seen = {_canonical(item) for item in value}
        if len(seen) < len(value):
            broken.append("the items must differ")
    return broken


_SIZES = (
    ("minLength", "maxLength", "characters", "string"),
    ("minItems", "maxItems", "items", "array"),
    ("minProperties", "maxProperties", "fields", "object"),
)


def _number_faults(value: float, schema: dict[str, Any]) -> list[str]:
    return [
        f"{text} {show(schema[name])}"
        for name, (text, holds) in _NUMBER_RULES.items()
        if is_kind(schema.get(name), "number") and not holds(value, schema[name])
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
    if is_kind(schema.get(least), "number") and size < schema[least]:
        faults.append(f"at least {schema[least]} {unit} are needed, got {size}")
    if is_kind(schema.get(most), "number") and size > schema[most]:
        faults.append(f"at most {schema[most]} {unit} are allowed, got {size}")
    return faults


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, and 1 is 1.0 only when both are numbers."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _canonical(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=repr)
    except (ValueError, TypeError):
        return repr(value)


def suggest(given: Any, known: Any) -> str:
    """The end of a sentence about a name there is not: the nearest there is, or (for fields) all there are."""
    names = [name for name in known if isinstance(name, str)]
    close = difflib.get_close_matches(given[:100], names, 1) if isinstance(given, str) else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(names[:20])}" if isinstance(known, dict) and names else ""


def show(value: Any, characters_max: int = 80) -> str:
    """The value as JSON, short enough, and always encodable: half a surrogate pair is escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, TypeError, RecursionError):
        text = f"something that is not JSON ({type(value).__name__})"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= characters_max else f"{text[:characters_max]}… ({len(text)} characters)"
