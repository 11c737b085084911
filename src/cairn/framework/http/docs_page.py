"""The OpenAPI document as a page for people: plain HTML, one style, no script.

Laws. Pure. Everything of the document is escaped. Nothing is loaded from anywhere; the style is allowed by its digest.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; } section { border-top: 1px solid var(--line); padding: .5rem 0; }
code, pre { font: .9em ui-monospace, monospace; } pre { overflow-x: auto; padding: .75rem; border: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0;
vertical-align: top; } td:first-child { white-space: nowrap; width: 9rem; }
.method { font-weight: 700; } summary { cursor: pointer; }
"""

_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

GUARDS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; frame-ancestors 'none'; base-uri 'none'",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}

_CODE = re.compile(r"`([^`]*)`")


def render(document: dict[str, Any]) -> bytes:
    """The page."""
    return "".join(_page(document)).encode()


def _page(document: dict[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{_plain(info['title'])} API</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{_plain(info['title'])} {_plain(info['version'])}</h1><p>{_text(info['description'])}</p>"
    mount = document["servers"][0]["url"].rstrip("/")
    yield f'<p>For programs: <a href="{_plain(mount)}/openapi.json">openapi.json</a>.</p>'
    for tag in document["tags"]:
        operations = list(_operations(document, tag["name"]))
        if operations:
            yield f"<h2>{_plain(tag['name'].capitalize())}</h2><p>{_text(tag['description'])}</p>"
            for method, path, operation in operations:
                yield from _operation(method, path, operation)
    yield "<h2>Shapes</h2>"
    for name, schema in document["components"]["schemas"].items():
        shown = _plain(json.dumps(schema, indent=2, ensure_ascii=False))
        yield f'<details id="{_plain(name)}"><summary><code>{_plain(name)}</code></summary><pre>{shown}</pre></details>'
    yield "</body></html>"


def _operations(document: dict[str, Any], tag: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield method.upper(), path, operation


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<section><h3 id="{_plain(operation["operationId"])}">{_plain(operation["summary"])}</h3>'
    yield f'<p><code><span class="method">{method}</span> {_plain(path)}</code></p>'
    if "description" in operation:
        yield f"<p>{_text(operation['description'])}</p>"
    if "parameters" in operation:
        yield "<table>"
        for each in operation["parameters"]:
            need = "" if each.get("required") else " (optional)"
            yield f"<tr><td><code>{_plain(each['name'])}</code>{need}</td><td>{_text(each['description'])}</td></tr>"
        yield "</table>"
    body = operation.get("requestBody")
    if body is not None:
        yield f"<pre>{_plain(json.dumps(body['content']['application/json']['example'], indent=2))}</pre>"
    yield "<details><summary>Answers</summary><table>"
    for status, response in operation["responses"].items():
        yield f"<tr><td><code>{status}</code></td><td>{_text(response['description'])}{_shapes(response)}</td></tr>"
    yield "</table></details></section>"


def _shapes(response: dict[str, Any]) -> str:
    """Links to the shapes a good answer has."""
    names = re.findall(r"#/components/schemas/([\w.-]+)", json.dumps(response.get("content", {})))
    shown = [f'<a href="#{_plain(name)}">{_plain(name)}</a>' for name in dict.fromkeys(names) if name != "ErrorBody"]
    return f" ({', '.join(shown)})" if shown else ""


def _plain(text: str) -> str:
    return html.escape(str(text))


def _text(text: str) -> str:
    """Words with `code` in them."""
    return _CODE.sub(r"<code>\1</code>", _plain(text))
