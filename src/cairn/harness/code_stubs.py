"""A tool as a typed Python function: its declaration, for the type checker of programs and for the model that writes them.

Laws. Pure and total: any JSON Schema gives a declaration that parses; what it cannot say is `Any`. The names of a declaration
are the tool's own; one that is no Python name gets underscores, and two that would be the same are numbered.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cairn.harness.messages import ToolSpec

#: How deep a parameter's type is spelled out; below it says `Any`. A model reads the first levels.
DEPTH_MAX = 4
#: Values of an enumeration that are spelled out.
LITERALS_MAX = 30

_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


def identifier(name: str) -> str:
    """The name as a Python identifier."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{plain}" if plain[0].isdigit() or keyword.iskeyword(plain) or plain in ("search", "describe") else plain


def function_names(specs: Iterable[ToolSpec]) -> dict[str, str]:
    """The function's name of each tool, by the tool's name."""
    names: dict[str, str] = {}
    for spec in specs:
        name, number = identifier(spec.name), 2
        while name in names.values():
            name, number = f"{identifier(spec.name)}_{number}", number + 1
        names[spec.name] = name
    return names


def parameters_of(spec: ToolSpec) -> tuple[str, ...]:
    """The names of its parameters, those that must be given first."""
    properties, required = _properties(spec.parameters)
    return (*(name for name in properties if name in required), *(name for name in properties if name not in required))


def declaration(spec: ToolSpec, name: str) -> str:
    """`async def name(…) -> Any: …`, with what the tool says of itself."""
    properties, required = _properties(spec.parameters)
    order = parameters_of(spec)
    legal = all(each.isidentifier() and not keyword.iskeyword(each) for each in order)
    if legal:
        parts = [_parameter(each, properties[each], each in required) for each in order]
    else:
        parts = ["**arguments: Any"]
    text = _document(spec, properties if legal else {})
    return f"async def {name}({', '.join(parts)}) -> Any:\n    {text}\n"


def _properties(schema: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    properties = schema.get("properties")
    required = schema.get("required")
    found = {str(name): each for name, each in properties.items()} if isinstance(properties, Mapping) else {}
    return found, {str(name) for name in required} if isinstance(required, list) else set()


def _parameter(name: str, schema: Any, is_required: bool) -> str:
    annotation = type_of(schema)
    if is_required:
        return f"{name}: {annotation}"
    return (
        f"{name}: {annotation if 'None' in annotation.split(' | ') or annotation == 'Any' else annotation + ' | None'} = None"
    )


def type_of(schema: Any, depth: int = 0) -> str:
    """The Python type that says most of what the schema says."""
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return "Any"
    if isinstance(values := schema.get("enum"), list) and 0 < len(values) <= LITERALS_MAX and all(map(_is_literal, values)):
        return f"Literal[{', '.join(map(repr, values))}]"
    for union in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(union), list) and choices:
            return _union(type_of(each, depth + 1) for each in choices)
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(type_of({**schema, "type": each}, depth + 1) for each in kind)
    if kind == "array":
        return f"list[{type_of(schema.get('items'), depth + 1)}]"
    if kind == "object":
        extra = schema.get("additionalProperties")
        return f"dict[str, {type_of(extra, depth + 1) if isinstance(extra, Mapping) else 'Any'}]"
    return _SIMPLE.get(kind, "Any") if isinstance(kind, str) else "Any"


def _union(types: Iterable[str]) -> str:
    found = list(dict.fromkeys(types))
    return "Any" if "Any" in found else " | ".join(found)


def _is_literal(value: Any) -> bool:
    return isinstance(value, (str, int, bool)) or value is None


def _document(spec: ToolSpec, properties: Mapping[str, Any]) -> str:
    """The tool's description and what its parameters say of themselves, as a docstring."""
    lines = [spec.description.strip()]
    told = [
        f"    {name}: {' '.join(str(each['description']).split())}"
        for name, each in properties.items()
        if isinstance(each, Mapping) and each.get("description")
    ]
    if told:
        lines += ["", "    Args:", *(f"    {line}" for line in told)]
    text = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if text.endswith('"'):
        text += " "
    return f'"""{text}"""'
