"""What an OpenAPI document (3.0, 3.1) offers, as data: one operation each, with one JSON Schema for all that it takes.

Laws. Pure, and total on the parts it does not know: what cannot be said is left out or `{}` (anything). References are followed
inside the document only and written out in their place; one that leads back to itself, or too deep, is `{}`. Nothing of a
document decides where a request goes: that is `openapi_module.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cairn.errors import UsageError

METHODS = ("get", "head", "put", "post", "patch", "delete", "options", "trace")

#: How deep references are written out: the types of a program's call are read by a model, which reads the first levels.
DEPTH_MAX = 12
#: Places of all schemas of one operation together; what is larger says `{}` from there on.
PLACES_MAX = 4_000
#: Characters of an operation's description that are kept.
DESCRIPTION_CHARACTERS_MAX = 2_000

#: Headers that a caller does not set: they are the connection's, or carry the host's credentials.
RESERVED_HEADERS = frozenset(
    {"accept", "authorization", "connection", "content-length", "content-type", "cookie", "expect", "forwarded", "host"}
    | {"proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "via"}
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One parameter of an operation: under which `name` it is given, and where it goes (`wire` at `place`)."""

    name: str
    wire: str
    place: str
    """`path`, `query`, `header`; `body` for a field of the body, `whole` for the body itself."""
    schema: dict[str, Any]
    is_required: bool
    explode: bool = True
    """A list in the query is repeated, instead of joined by commas."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation."""

    name: str
    method: str
    path: str
    description: str
    arguments: tuple[Argument, ...]
    body: str = ""
    """The body's media type; empty when there is none."""
    returns: str = ""
    """The shape of its answer, in words of Python."""

    @property
    def parameters(self) -> dict[str, Any]:
        """One JSON Schema of all that it takes."""
        return {
            "type": "object",
            "properties": {each.name: each.schema for each in self.arguments},
            "required": [each.name for each in self.arguments if each.is_required],
            "additionalProperties": False,
        }


def operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    """All operations, in the document's order. *Raises* UsageError for what is no OpenAPI document of version 3."""
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith("3."):
        raise UsageError(f"this is no OpenAPI 3 document: its `openapi` is {version!r}")
    names: set[str] = set()
    for path, item in _mapping(document.get("paths")).items():
        item = _resolved(document, item)
        if not str(path).startswith("/"):
            raise UsageError(f"the document has a path {path!r}; a path begins with '/'")
        for method in METHODS:
            if isinstance(said := item.get(method), Mapping):
                yield _operation(document, names, str(path), method, item, said)


def _operation(
    document: Mapping[str, Any],
    names: set[str],
    path: str,
    method: str,
    item: Mapping[str, Any],
    said: Mapping[str, Any],
) -> Operation:
    inline = _Inline(document)
    arguments = list(_parameters(document, inline, item, said, path))
    body, fields = _body(document, inline, said, {each.name for each in arguments})
    texts = [str(said.get(field) or "").strip() for field in ("summary", "description")]
    description = "\n\n".join(dict.fromkeys(text for text in texts if text)) or f"{method.upper()} {path}"
    return Operation(
        name=_unique(_name(said.get("operationId"), method, path), names),
        method=method.upper(),
        path=path,
        description=description[:DESCRIPTION_CHARACTERS_MAX],
        arguments=(*arguments, *fields),
        body=body,
        returns=_returns(document, inline, said),
    )


def _parameters(
    document: Mapping[str, Any], inline: _Inline, item: Mapping[str, Any], said: Mapping[str, Any], path: str
) -> Iterator[Argument]:
    """An operation's own parameters take the place of the path's. Cookies are the host's."""
    listed = [_resolved(document, each) for each in (*_list(item.get("parameters")), *_list(said.get("parameters")))]
    places = {(str(each.get("in")), str(each.get("name"))): each for each in listed}
    names: set[str] = set()
    for (place, wire), each in places.items():
        if place not in ("path", "query", "header") or (place == "header" and wire.lower() in RESERVED_HEADERS):
            continue
        content = next(iter(_mapping(each.get("content")).values()), None)
        schema = inline.of(each.get("schema") if content is None else _mapping(content).get("schema"))
        if each.get("description") and "description" not in schema:
            schema = {**schema, "description": str(each["description"])[:DESCRIPTION_CHARACTERS_MAX]}
        required = place == "path" or each.get("required") is True
        explode = each.get("explode") is not False
        yield Argument(_unique(_identifier(wire), names), wire, place, schema, required, explode)


def _body(
    document: Mapping[str, Any], inline: _Inline, said: Mapping[str, Any], taken: set[str]
) -> tuple[str, tuple[Argument, ...]]:
    """A JSON object becomes parameters of its own, so that a call reads as one; any other body is `body`."""
    request = _resolved(document, said.get("requestBody"))
    content = _mapping(request.get("content"))
    media = next((each for each in content if is_json(each)), None) or next(
        (each for each in content if each == "application/x-www-form-urlencoded" or each.startswith("text/")), None
    )
    if media is None:
        return "", ()
    schema = inline.of(_mapping(content[media]).get("schema"))
    properties, needed = _mapping(schema.get("properties")), _list(schema.get("required"))
    is_needed = request.get("required") is True
    is_plain = schema.get("type") == "object" and not schema.get("additionalProperties") and not media.startswith("text/")
    fits = is_plain and properties and all(_identifier(name) == name for name in properties) and not taken & set(properties)
    if fits and (is_needed or not needed):
        return media, tuple(
            Argument(name, name, "body", dict(_mapping(each)), is_needed and name in needed)
            for name, each in properties.items()
        )
    return media, (Argument(_unique("body", taken), "", "whole", schema, is_needed),)


def _returns(document: Mapping[str, Any], inline: _Inline, said: Mapping[str, Any]) -> str:
    responses = _mapping(said.get("responses"))
    good = next((each for code, each in responses.items() if str(code).startswith("2")), None)
    content = _mapping(_resolved(document, good).get("content"))
    media = next((each for each in content if is_json(each)), None)
    return shape(inline.of(_mapping(content[media]).get("schema"))) if media is not None else ""


def is_json(media: str) -> bool:
    """Whether this media type is JSON."""
    plain = media.split(";")[0].strip().lower()
    return plain == "application/json" or plain.endswith("+json")


def shape(schema: Mapping[str, Any], depth: int = 0) -> str:
    """What a value looks like, for a model: `{id: int, tags: list[str]}`."""
    from cairn.harness.code_stubs import type_of

    if schema.get("type") == "array":
        return f"list[{shape(_mapping(schema.get('items')), depth)}]"
    if (properties := _mapping(schema.get("properties"))) and depth < 3:
        parts = (f"{name}: {shape(_mapping(each), depth + 1)}" for name, each in list(properties.items())[:30])
        return f"{{{', '.join(parts)}}}"
    return type_of(schema)


# --- references -----------------------------------------------------------------------------------------------------


class _Inline:
    """Schemas with what they refer to in its place, up to a number of places."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._left = PLACES_MAX

    def of(self, schema: Any) -> dict[str, Any]:
        found = self._schema(schema, (), 0)
        return found if isinstance(found, dict) else {}

    def _schema(self, schema: Any, path: tuple[str, ...], depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, Mapping):
            return schema if isinstance(schema, bool) else {}
        if self._left < 0 or depth > DEPTH_MAX:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            if reference in path:
                return {}
            return self._schema(lookup(self._document, reference), (*path, reference), depth + 1)
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key in ("properties", "patternProperties") and isinstance(value, Mapping):
                made[key] = {str(name): self._schema(each, path, depth + 1) for name, each in value.items()}
            elif key in ("items", "additionalProperties", "not"):
                made[key] = self._schema(value, path, depth + 1)
            elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
                made[key] = [self._schema(each, path, depth + 1) for each in value]
            elif key not in ("$defs", "definitions", "nullable", "example", "examples", "xml", "discriminator", "externalDocs"):
                made[key] = value
        return _merged(_nullable(made) if schema.get("nullable") is True else made)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    """3.0 says of a type that it may be null; JSON Schema lists null among the types."""
    kind = schema.get("type")
    if not isinstance(kind, str):
        return {"anyOf": [schema, {"type": "null"}]}
    values = {"enum": [*schema["enum"], None]} if isinstance(schema.get("enum"), list) else {}
    return {**schema, "type": [kind, "null"], **values}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """Objects that are all to hold are one object: so they can be parameters."""
    parts = schema.get("allOf")
    if not isinstance(parts, list) or not all(isinstance(each, dict) and "properties" in each for each in parts):
        return schema
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    properties, required = dict(_mapping(merged.get("properties"))), _list(merged.get("required"))
    for each in parts:
        properties |= each["properties"]
        required = [*required, *_list(each.get("required"))]
    return {**merged, "type": "object", "properties": properties, "required": list(dict.fromkeys(required))}


def lookup(document: Mapping[str, Any], reference: str) -> Any:
    """What `#/components/…` refers to. *Raises* UsageError for one that leads out of the document, or to nothing."""
    if not reference.startswith("#/"):
        raise UsageError(f"the document refers to {reference!r}, outside of itself; bundle it into one document first")
    found: Any = document
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise UsageError(f"the document refers to {reference!r}, which it does not have")
        found = found[part]
    return found


def _resolved(document: Mapping[str, Any], given: Any) -> Mapping[str, Any]:
    for _ in range(DEPTH_MAX):
        if not isinstance(given, Mapping) or not isinstance(reference := given.get("$ref"), str):
            break
        given = lookup(document, reference)
    return _mapping(given)


# --- names ----------------------------------------------------------------------------------------------------------


def _name(given: Any, method: str, path: str) -> str:
    """`list_orders`, of the operation's id; of its method and path when it has none."""
    text = given if isinstance(given, str) and given else f"{method}_{path}"
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", _identifier(text)).lower()


def _identifier(text: str) -> str:
    plain = re.sub(r"_+", "_", re.sub(r"\W", "_", text, flags=re.ASCII)).strip("_") or "_"
    return f"_{plain}" if plain[0].isdigit() else plain


def _unique(name: str, names: set[str]) -> str:
    found, number = name, 2
    while found in names:
        found, number = f"{name}_{number}", number + 1
    names.add(found)
    return found


def _mapping(given: Any) -> Mapping[str, Any]:
    return given if isinstance(given, Mapping) else {}


def _list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else []
