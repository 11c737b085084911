"""An OpenAPI document as tools: one typed function per operation, for a model or for its programs.

    tools = openapi("shop.json", name="shop", base_url="https://api.shop.example", headers={"Authorization": token})
    Agent("clerk", model="…", tools=tools, codemode=True)          # `await shop_list_orders(customer="c1")`

Laws. A request goes to the one origin it was made for, whatever a document, an argument or an answer says: no other host, no
redirect, no path that climbs. Credentials are the host's: neither a model nor a program sees them, and an answer that repeats
one is shown without it. What a repeat means is the method's: reading is `safe`; PUT and DELETE are `keyed`, since HTTP lets
them be repeated, but what is repeated must be what was begun; POST and PATCH are `never`, or `keyed` when the service takes
a key.
"""

from __future__ import annotations

import functools
import hashlib
import json
import ssl
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cairn.errors import ToolError, UsageError
from cairn.harness.arguments import compile_schema
from cairn.harness.asking import Asks
from cairn.harness.code_stubs import identifier
from cairn.harness.messages import ToolSpec
from cairn.harness.openapi_document import Argument, Operation, is_json, operations
from cairn.harness.tools import CallContext, Repeat, Tool

#: Seconds for one request, its answer with it: a program waits for it, and a tool has a minute.
REQUEST_SECONDS = 30.0
#: Bytes of an answer that are read; more is an error that says so: a program's value has at most 1 MiB.
RESPONSE_BYTES_MAX = 1_000_000
#: Characters of a refusal's body that are shown.
REFUSAL_CHARACTERS_MAX = 2_000
#: Characters of a credential below which an answer is not searched for it: a short word is in every text.
CREDENTIAL_CHARACTERS_MIN = 8
#: Bytes of a document.
DOCUMENT_BYTES_MAX = 32 << 20

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

_REPEATS: dict[str, Repeat] = {"GET": "safe", "HEAD": "safe", "OPTIONS": "safe", "PUT": "keyed", "DELETE": "keyed"}


def openapi(
    document: Mapping[str, Any] | str | Path,
    *,
    name: str,
    base_url: str | None = None,
    headers: Headers | None = None,
    only: Collection[str] | None = None,
    approve: Collection[str] = (),
    idempotency_header: str | None = None,
    timeout: float = REQUEST_SECONDS,
) -> list[Tool]:
    """A tool per operation of the document (JSON: what it says, or a path to it), called `{name}_{operation}`.

    `base_url` is where requests go; without it, the document's first server, which must then be an absolute address. `headers`
    (or a function that gives them at each request) are sent and never shown. `only` are the operations that are offered, by
    operation name; a call of one of `approve` waits for a person. With `idempotency_header` ("Idempotency-Key") every call
    sends the same key at each repeat, so that a POST may be repeated. *Raises* UsageError for what cannot work.
    """
    said = document if isinstance(document, Mapping) else _read(Path(document))
    if identifier(name) != name:
        raise UsageError(f"openapi: name={name!r}; use a Python identifier: it begins the name of each function")
    origin = _Origin(base_url if base_url is not None else _server(said), headers, timeout, idempotency_header)
    found = {each.name: each for each in operations(said)}
    for wanted in (*(only or ()), *approve):
        if wanted not in found:
            raise UsageError(f"openapi: there is no operation {wanted!r}; there are: {', '.join(found) or 'none'}")
    chosen = [each for each in found.values() if only is None or each.name in only]
    return [_tool(name, each, origin, each.name in approve) for each in chosen]


def _tool(module: str, operation: Operation, origin: _Origin, asks: bool) -> Tool:
    async def run(context: CallContext, arguments: dict[str, Any]) -> Any:
        return await origin.call(operation, arguments, context.key)

    returns = f"\n\nReturns: {operation.returns}" if operation.returns else ""
    spec = ToolSpec(
        name=f"{module}_{operation.name}"[:64],
        description=operation.description + returns,
        parameters=operation.parameters,
    )
    repeat = _REPEATS.get(operation.method, "keyed" if origin.key_header else "never")
    return Tool(
        spec=spec,
        run=run,
        validate=compile_schema(operation.parameters),
        repeat=repeat,
        timeout_seconds=origin.timeout + 5.0,
        place=f"openapi {module}: {operation.method} {operation.path}",
        asks=Asks("approval") if asks else None,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > DOCUMENT_BYTES_MAX:
            raise UsageError(f"openapi: {path} has more than {DOCUMENT_BYTES_MAX:,} bytes; use `only` on a smaller document")
        said = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"openapi: {path} cannot be read: {error}") from None
    except ValueError as error:
        raise UsageError(f"openapi: {path} is not JSON ({error}); a document in YAML has to be converted first") from None
    if not isinstance(said, dict):
        raise UsageError(f"openapi: {path} is no OpenAPI document")
    return said


def _server(document: Mapping[str, Any]) -> str:
    servers = document.get("servers")
    first = servers[0].get("url") if isinstance(servers, list) and servers and isinstance(servers[0], Mapping) else None
    if not isinstance(first, str) or not urlsplit(first).netloc:
        raise UsageError(f"openapi: the document's server is {first!r}, no absolute address; give base_url='https://…'")
    return first


class _Origin:
    """The one place that requests go to."""

    def __init__(self, base_url: str, headers: Headers | None, timeout: float, key_header: str | None) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.query:
            raise UsageError(f"openapi: base_url={base_url!r}; use http(s)://host/path, and headers= for credentials")
        self._base = base_url.rstrip("/")
        self._headers = headers
        self.timeout = timeout
        self.key_header = key_header

    async def call(self, operation: Operation, arguments: Mapping[str, Any], key: str) -> Any:
        """What the operation answers. *Raises* ToolError for every answer that is no success."""
        import httpx

        given = self._headers() if callable(self._headers) else (self._headers or {})
        url, query, headers, body = _request(operation, arguments)
        headers = {**headers, "Accept": "application/json, text/*;q=0.9, */*;q=0.1", **given}
        if self.key_header is not None and operation.method not in ("GET", "HEAD", "OPTIONS"):
            headers[self.key_header] = hashlib.sha256(key.encode()).hexdigest()[:40]
        base = httpx.URL(self._base)
        # Only the path and the query are put in: nothing that an argument or a document holds can be read as another host.
        target = base.raw_path.rstrip(b"/") + url.encode()
        address = (
            base.copy_with(raw_path=target).copy_merge_params(httpx.QueryParams(tuple(query)))
            if query
            else base.copy_with(raw_path=target)
        )
        try:
            # A client for each call: it belongs to no event loop, and nothing has to be closed. What is dear is the context.
            async with (
                httpx.AsyncClient(timeout=self.timeout, verify=_tls(), follow_redirects=False, trust_env=False) as client,
                client.stream(operation.method, address, headers=headers, content=body) as answer,
            ):
                data = await _read_answer(answer)
        except httpx.TimeoutException:
            raise ToolError(f"{operation.method} {operation.path}: no answer within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ToolError(
                f"{operation.method} {operation.path}: {type(error).__name__}: {_hide(str(error), given)}"
            ) from None
        return _answer(operation, answer, _hide(data.decode("utf-8", "replace"), given))


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _request(
    operation: Operation, arguments: Mapping[str, Any]
) -> tuple[str, list[tuple[str, str]], dict[str, str], bytes | None]:
    """Path, query, headers and body of a call. *Raises* ToolError for what cannot be sent."""
    path, query, headers, fields = operation.path, list[tuple[str, str]](), dict[str, str](), dict[str, Any]()
    body: bytes | None = None
    for each in operation.arguments:
        if each.name not in arguments:
            continue
        value = arguments[each.name]
        if each.place == "path":
            path = path.replace(f"{{{each.wire}}}", _segment(each, value))
        elif each.place == "query":
            items = value if isinstance(value, list) and each.explode else [value]
            query += [(each.wire, _text(item)) for item in items if item is not None]
        elif each.place == "header":
            headers[each.wire] = _header(each, value)
        elif each.place == "body":
            fields[each.wire] = value
        else:
            body = _body(operation, value)
    if fields or (operation.body and body is None and any(each.place == "body" for each in operation.arguments)):
        body = _body(operation, fields)
    if body is not None:
        headers["Content-Type"] = operation.body
    return quote(path, safe="/%:@!$&'()*+,;=~-._"), query, headers, body


def _segment(argument: Argument, value: Any) -> str:
    """One segment of a path, whatever is in it: a value cannot climb, nor begin a query."""
    text = _text(value)
    if text in ("", ".", ".."):
        raise ToolError(f"{argument.name}: {text!r} cannot stand in a path")
    return quote(text, safe="")


def _header(argument: Argument, value: Any) -> str:
    text = _text(value)
    if not text.isprintable() or not text.isascii():
        raise ToolError(f"{argument.name}: a header is printable ASCII")
    return text


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)


def _body(operation: Operation, value: Any) -> bytes:
    if is_json(operation.body):
        return json.dumps(value, ensure_ascii=False).encode()
    if isinstance(value, Mapping):
        from urllib.parse import urlencode

        return urlencode([(name, _text(each)) for name, each in value.items()]).encode()
    return _text(value).encode()


async def _read_answer(answer: Any) -> bytes:
    parts, size = list[bytes](), 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > RESPONSE_BYTES_MAX:
            raise ToolError(f"the answer has more than {RESPONSE_BYTES_MAX:,} bytes; ask for less of it")
        parts.append(part)
    return b"".join(parts)


def _answer(operation: Operation, answer: Any, text: str) -> Any:
    status, media = answer.status_code, answer.headers.get("content-type", "")
    if 300 <= status < 400:
        raise ToolError(f"{operation.method} {operation.path}: {status}, a redirect; it is not followed")
    if status >= 400:
        raise ToolError(
            f"{operation.method} {operation.path}: {status} {answer.reason_phrase}. {text[:REFUSAL_CHARACTERS_MAX]}"
        )
    if is_json(media):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise ToolError(f"{operation.method} {operation.path}: {status}, and an answer that is not JSON") from None
    if media and not media.startswith("text/") and text:
        raise ToolError(f"{operation.method} {operation.path}: {status}, and an answer of type {media}, which is no text")
    return text


def _hide(text: str, headers: Mapping[str, str]) -> str:
    """The text without the credentials it repeats."""
    for value in headers.values():
        for secret in (value, value.rpartition(" ")[2]):
            if len(secret) >= CREDENTIAL_CHARACTERS_MIN:
                text = text.replace(secret, "[hidden]")
    return text
