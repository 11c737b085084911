"""From a Python function to what a model needs to call it, and back from a model's JSON to Python values.

Laws. Pure: a function's signature, types and docstring are read once, at definition; mistakes are refused there. The
schema is the whole truth the model gets, so it carries defaults, bounds and the docstring's words for each parameter.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from cairn.errors import UsageError
from cairn.harness.arguments import compile_schema as compile_schema
from cairn.harness.arguments import refusal
from cairn.harness.context_face import Context

#: Headings that end a docstring's description, as in Google's style guide.
_SECTIONS = re.compile(
    r"^\s*(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Notes?|Attributes):\s*$", re.MULTILINE
)
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Signature:
    """A function as a model can call it."""

    description: str
    parameters: dict[str, Any]
    """JSON Schema of an object."""
    context: str | None
    """The name of the parameter that takes the `Context`, which the model never sees."""
    validate: Callable[[dict[str, Any]], dict[str, Any]]
    """JSON arguments that fit, coerced; raises ValueError with a text for the model."""
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    """Validated JSON arguments as the types the function asks for, by name; omitted ones stay omitted."""


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The JSON Schema of the function's parameters. *Raises* UsageError as `signature_of` does."""
    return signature_of(function).parameters


def signature_of(function: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> Signature:
    """Everything there is to know of a function that shall be a tool. `localns` resolves names of local classes.

    *Raises* UsageError, naming the function and the parameter, for what a model cannot give: positional-only or variadic
    parameters, a type that is not JSON, an annotation that cannot be resolved, a documented parameter there is not.
    """
    label = _label(function)
    parameters, hints = parameters_of(function, localns)
    contexts = [name for name in parameters if is_context(hints.get(name))]
    if len(contexts) > 1:
        raise UsageError(f"{label}: two parameters take a Context: {', '.join(contexts)}; keep one")
    description, documented = _docstring(function, label, parameters)
    asked = {name: parameter for name, parameter in parameters.items() if name not in contexts}
    struct = _struct(label, asked, hints)
    schema = _schema(label, struct, asked, hints, documented)
    fit = compile_schema(schema)

    def validate(arguments: dict[str, Any]) -> dict[str, Any]:
        fitted = fit(arguments)
        try:
            msgspec.convert(fitted, struct)
        except (msgspec.ValidationError, ValueError, TypeError, RecursionError) as error:
            raise ValueError(refusal([_readable(str(error))], arguments)) from None
        return fitted

    def convert(arguments: dict[str, Any]) -> dict[str, Any]:
        converted = msgspec.convert(arguments, struct)
        return {name: value for name in asked if (value := getattr(converted, name)) is not msgspec.UNSET}

    return Signature(description, schema, contexts[0] if contexts else None, validate, convert)


def place_of(function: Callable[..., Any]) -> str:
    """`path:line` of a function, for messages to people; empty when it has none."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def parameters_of(
    function: Callable[..., Any], localns: Mapping[str, Any] | None = None
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The function's parameters, all fillable by name, and its resolved annotations. *Raises* UsageError as above."""
    label = _label(function)
    return _parameters(function, label), _hints(function, label, localns)


def is_context(hint: Any) -> bool:
    """Whether an annotation asks for the `Context`."""
    return hint is Context or typing.get_origin(hint) is Context


def _label(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    place = place_of(function)
    return f"{name} ({place})" if place else name


def _parameters(function: Callable[..., Any], label: str) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise UsageError(f"{label} has no readable signature; wrap it in a function of your own") from None
    kinds = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    for name, parameter in signature.parameters.items():
        if parameter.kind in kinds:
            raise UsageError(f"{label}: a model cannot fill {kinds[parameter.kind]}{name}; name each parameter")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise UsageError(f"{label}: parameter {name!r} is positional-only, but models give arguments by name")
    return dict(signature.parameters)


def _hints(function: Callable[..., Any], label: str, localns: Mapping[str, Any] | None) -> dict[str, Any]:
    target = inspect.unwrap(function)
    if not inspect.isroutine(target) and not isinstance(target, type):
        target = getattr(target, "func", None) or type(target).__call__
    try:
        return typing.get_type_hints(target, localns=dict(localns or {}), include_extras=True)
    except NameError as error:
        raise UsageError(
            f"{label}: {error}; annotations of a tool must be importable when it is defined, not only for type checkers"
        ) from None
    except TypeError as error:
        raise UsageError(f"{label}: an annotation cannot be read: {error}") from None


def _struct(label: str, asked: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> type[msgspec.Struct]:
    """A Struct with a field per parameter. Omitted ones become UNSET and are left out of the call, so that Python's own
    defaults apply, mutable or not."""
    fields: list[Any] = []
    for name, parameter in asked.items():
        hint = hints.get(name, Any)
        if parameter.default is inspect.Parameter.empty:
            fields.append((name, hint))
        else:
            fields.append((name, _optional(hint), msgspec.UNSET))
    try:
        return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
    except TypeError as error:
        raise UsageError(f"{label}: its parameters cannot be described to a model: {error}") from None


def _optional(hint: Any) -> Any:
    return typing.Union[hint, msgspec.UnsetType]  # noqa: UP007 - not every annotation supports `|`


def _schema(
    label: str,
    struct: type[msgspec.Struct],
    asked: Mapping[str, inspect.Parameter],
    hints: Mapping[str, Any],
    documented: Mapping[str, str],
) -> dict[str, Any]:
    try:
        (_,), definitions = msgspec.json.schema_components([struct], ref_template=_DEFS + "{name}")
    except TypeError:
        # The whole failed; ask one by one, so that the message names the parameter.
        for name in asked:
            _json_type(label, name, hints.get(name, Any))
        raise
    plain = _plain(definitions["Arguments"], definitions)
    properties = plain["properties"]
    for name, parameter in asked.items():
        if documented.get(name):
            properties[name]["description"] = documented[name]
        default = _default(parameter)
        if default is not msgspec.UNSET:
            properties[name]["default"] = default
    schema = {"type": "object", "properties": properties, "required": plain["required"], "additionalProperties": False}
    recursive = {name: _plain(definitions[name], definitions) for name in _referenced(plain, definitions)}
    return {**schema, "$defs": recursive} if recursive else schema


def _plain(node: Any, definitions: Mapping[str, Any]) -> Any:
    """A copy with every definition written out where it is used, because not every provider follows `$ref`; only a type
    that contains itself stays one. Titles go (they repeat the name), and enums say their type."""
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    name = str(node.get("$ref", "")).removeprefix(_DEFS)
    if name in definitions and not _contains_itself(name, definitions):
        written = _plain(definitions[name], definitions)
        return {**written, **{key: value for key, value in node.items() if key != "$ref"}}
    plain = {
        key: value if key in ("default", "const", "enum") else _plain(value, definitions)
        for key, value in node.items()
        if key not in ("title", "properties")
    }
    if isinstance(node.get("properties"), dict):
        # Not through `_plain` as a whole: a property may well be called title.
        plain["properties"] = {key: _plain(value, definitions) for key, value in node["properties"].items()}
    if "enum" in plain and "type" not in plain:
        kinds = {type(value) for value in plain["enum"]}
        if kinds in ({str}, {int}):
            plain = {"type": "string" if kinds == {str} else "integer", **plain}
    return plain


_DEFS = "#/$defs/"


def _referenced(node: Any, definitions: Mapping[str, Any]) -> list[str]:
    """The definitions `node` reaches that contain themselves, in order of name."""
    reached: set[str] = set()
    waiting = [node]
    while waiting:
        for name in _names_in(waiting.pop()) - reached:
            reached.add(name)
            waiting.append(definitions[name])
    return sorted(name for name in reached if _contains_itself(name, definitions))


def _contains_itself(name: str, definitions: Mapping[str, Any]) -> bool:
    reached: set[str] = set()
    waiting = [definitions[name]]
    while waiting:
        for found in _names_in(waiting.pop()) - reached:
            reached.add(found)
            waiting.append(definitions[found])
    return name in reached


def _names_in(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"].removeprefix(_DEFS)} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_names_in, node.values()))
    return set().union(*map(_names_in, node)) if isinstance(node, list) else set()


def _json_type(label: str, name: str, hint: Any) -> None:
    try:
        msgspec.json.schema(hint)
    except TypeError:
        raise UsageError(
            f"{label}: parameter {name!r} of type {getattr(hint, '__name__', hint)} is not JSON; use str, int, float, "
            f"bool, list, dict, None, Literal, enums, dates, dataclasses or Structs of them"
        ) from None


def _default(parameter: inspect.Parameter) -> Any:
    """The default as JSON, UNSET when there is none or it says nothing (None) or is no JSON."""
    if parameter.default is inspect.Parameter.empty or parameter.default is None:
        return msgspec.UNSET
    try:
        return msgspec.to_builtins(parameter.default)
    except (TypeError, msgspec.MsgspecError):
        return msgspec.UNSET


def _docstring(
    function: Callable[..., Any], label: str, parameters: Mapping[str, inspect.Parameter]
) -> tuple[str, dict[str, str]]:
    """The description, and the words for each parameter under `Args:`."""
    text = inspect.cleandoc(getattr(function, "__doc__", None) or "")
    description, documented = split_docstring(text)
    for name in documented:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise UsageError(f"{label}: its docstring describes {name!r}, which is no parameter; there are: {known}")
    return description, documented


def split_docstring(text: str) -> tuple[str, dict[str, str]]:
    """A Google-style docstring as its description (up to the first section) and its `Args:` entries."""
    sections = list(_SECTIONS.finditer(text))
    description = text[: sections[0].start()].strip() if sections else text.strip()
    entries: dict[str, str] = {}
    ends = [section.start() for section in sections[1:]] + [len(text)]
    for section, end in zip(sections, ends, strict=False):
        if section.group(1) in ("Args", "Arguments", "Parameters"):
            body = text[section.end() : end]
            entries.update(_entries(inspect.cleandoc(body)))
    return description, entries


def _entries(body: str) -> dict[str, str]:
    """`name: words` lines; a line indented further belongs to the entry above it."""
    entries: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        match = _ENTRY.match(line)
        if match:
            name = match.group(1)
            entries[name] = match.group(2).strip()
        elif name and line.startswith(" "):
            entries[name] = f"{entries[name]} {line.strip()}".strip()
        elif line.strip():
            # Unindented prose ends the list: it belongs to nobody.
            name = ""
    return entries


def _readable(text: str) -> str:
    """msgspec's `Expected … - at `$.a[0].b`` in the form of every other problem: `a.0.b: expected …`."""
    said, _, path = text.partition(" - at `$")
    path = re.sub(r"\[(\w+|\.\.\.)\]", r".\1", path.rstrip("`")).lstrip(".")
    said = said[:1].lower() + said[1:]
    return f"{path or '(arguments)'}: {said}"
