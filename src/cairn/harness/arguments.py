"""Arguments a model wrote, made to fit a JSON Schema: cloned, coerced where the meaning is plain, checked, and refused
in words the model can act on.

Laws. Pure, and total: whatever comes in, the answer is a value that fits or a ValueError, never another exception. A
value that already fits is never changed. What came in is never mutated. Unknown schema keywords are ignored, as JSON
Schema demands; a `pattern` that Python cannot compile is, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from cairn.harness.values import MISSING, NAMES, coerce, faults, is_kind, kind_of, same, show, suggest

#: Characters of the received arguments that an error repeats: enough to see the mistake, too few to flood the context.
ECHO_CHARACTERS_MAX = 2_000

#: Problems listed in one error; a model mends the first few and the rest follow.
PROBLEMS_MAX = 20

#: Levels of nesting that are looked at. Deeper than any honest argument, far above Python's stack.
DEPTH_MAX = 100

#: Places where a schema and a value are compared, in one validation (about 10 us each). What a model writes in one
#: answer has a few thousand; a schema that refers to itself in several alternatives would take exponential time.
COMPARISONS_MAX = 40_000


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
            problems.append(f"(arguments): expected an object, got {show(fitted)}")
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
    return "\n".join(["The arguments do not fit:", *shown, f"Received: {show(arguments, ECHO_CHARACTERS_MAX)}"])


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
        if types and not any(is_kind(value, kind) for kind in types):
            coerced = coerce(value, types)
            if coerced is MISSING:
                expected = " or ".join(NAMES.get(kind, kind) for kind in types)
                problems.append(f"{_at(path)}: expected {expected}, got {show(value)}")
                return value
            value = coerced
        if isinstance(value, float) and "integer" in types and "number" not in types:
            value = int(value)
        if isinstance(value, dict):
            value = self._object(value, schema, path, problems, depth)
        elif isinstance(value, (list, tuple)):
            value = self._array(value, schema, path, problems, depth)
        problems.extend(f"{_at(path)}: {fault}" for fault in faults(value, schema))
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
            if not found and same(attempts[-1][1], value):
                return attempts[-1][1]
        for found, fitted in attempts:
            if not found:
                return fitted
        same_kind = [a for a, schema in zip(attempts, schemas, strict=True) if kind_of(value) in self._kinds(schema, 0)]
        if len(same_kind) == 1:
            problems.extend(same_kind[0][0])
        else:
            kinds = sorted({kind for schema in schemas for kind in self._kinds(schema, 0)})
            expected = " or ".join(NAMES.get(kind, kind) for kind in kinds) or "another value"
            problems.append(f"{_at(path)}: expected {expected} in one of the allowed forms, got {show(value)}")
        return value

    def _kinds(self, schema: Any, depth: int) -> list[str]:
        """The JSON types a schema names, looking through references."""
        if not isinstance(schema, dict) or depth > DEPTH_MAX:
            return []
        if isinstance(schema.get("$ref"), str):
            return self._kinds(self._resolve(schema["$ref"]), depth + 1)
        return _types(schema) or [kind_of(option) for option in schema.get("enum") or ()]

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
                problems.append(f"{where}: there is no such field{suggest(name, properties)}")
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
            problems.append(f"{_at(path)}: {show(value)} does not match the pattern {pattern}")


def _schemas(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []


def _types(schema: dict[str, Any]) -> list[str]:
    given = schema.get("type")
    if isinstance(given, str):
        return [given]
    return [kind for kind in given if isinstance(kind, str)] if isinstance(given, list) else []


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
