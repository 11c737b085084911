"""`curl` and `wget`: their arguments, their files and their output. The request itself is the host's."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

#: Exit codes of curl(1): a wrong option, a request that came to nothing, an answer of 400 or more with -f, a file.
USAGE, FAILED, REFUSED, UNWRITTEN = 2, 7, 22, 23

Header = tuple[str, str]


@dataclass
class Fetch:
    """What came of a request; `error` when nothing did."""

    status: int
    headers: list[Header]
    body: bytes
    error: str = ""
    url: str = ""


Ask = Callable[[str, str, list[Header], bytes, dict[str, Any]], Fetch]


@dataclass
class _Wanted:
    """A command line, understood."""

    urls: list[str] = field(default_factory=list)
    method: str = ""
    headers: list[Header] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    output: str = ""
    form: str = ""
    seconds: float = 30.0
    flags: set[str] = field(default_factory=set)


#: Long options as their short ones; capitals and others without a short one keep a name.
_LONG = {
    "request": "X", "header": "H", "data": "d", "data-raw": "raw", "data-binary": "binary", "data-urlencode": "encode",
    "output": "o", "remote-name": "O", "silent": "s", "show-error": "S", "fail": "f", "location": "L", "include": "i",
    "head": "I", "write-out": "w", "user": "u", "user-agent": "A", "max-time": "m", "get": "G", "json": "json",
    "compressed": "compressed", "connect-timeout": "connect", "retry": "retry", "fail-with-body": "f", "url": "url",
    "no-progress-meter": "s", "verbose": "v", "referer": "e",
}  # fmt: skip
_VALUED = frozenset("XHdowuAme") | {"raw", "binary", "encode", "json", "connect", "retry", "url"}
_FLAGS = frozenset("OsSfLiIGv") | {"compressed"}


def curl(argv: list[str], data: bytes, cwd: str, files: Any, ask: Ask) -> tuple[int, bytes, str]:
    """The exit code, stdout and stderr."""
    wanted = _Wanted()
    try:
        for option, value in _options(argv):
            _take(wanted, option, value, data, cwd, files)
    except ValueError as error:
        return USAGE, b"", f"curl: {error}\n"
    if not wanted.urls:
        return USAGE, b"", "curl: (2) no URL specified\n"
    code, output, errors = 0, b"", ""
    for url in wanted.urls:
        code, more, said = _fetched(wanted, url if "://" in url else f"https://{url}", cwd, files, ask)
        output, errors = output + more, errors + said
    return code, output, errors


def _options(argv: list[str]) -> Iterator[tuple[str, str]]:
    words = iter(argv)
    for word in words:
        if word.startswith("--"):
            name, given, value = word[2:].partition("=")
            if name not in _LONG:
                raise ValueError(f"option {word}: is unknown")
            option = _LONG[name]
            yield option, value if given else _value(words, word) if option in _VALUED else ""
        elif word.startswith("-") and len(word) > 1:
            rest = word[1:]
            while rest:
                option, rest = rest[0], rest[1:]
                if option in _VALUED:
                    yield option, rest or _value(words, f"-{option}")
                    break
                if option not in _FLAGS:
                    raise ValueError(f"option -{option}: is unknown")
                yield option, ""
        else:
            yield "url", word


def _value(words: Iterator[str], option: str) -> str:
    value = next(words, None)
    if value is None:
        raise ValueError(f"option {option}: requires parameter")
    return value


def _take(wanted: _Wanted, option: str, value: str, data: bytes, cwd: str, files: Any) -> None:
    if option == "url":
        wanted.urls.append(value)
    elif option == "X":
        wanted.method = value.upper()
    elif option == "H":
        name, _, text = value.partition(":")
        wanted.headers.append((name.strip(), text.strip()))
    elif option in ("d", "binary", "raw", "json", "encode"):
        wanted.data.append(_body(option, value, data, cwd, files))
        if option == "json":
            wanted.headers += [("Content-Type", "application/json"), ("Accept", "application/json")]
    elif option == "o":
        wanted.output = value
    elif option == "w":
        wanted.form = value
    elif option == "u":
        wanted.headers.append(("Authorization", "Basic " + base64.b64encode(value.encode()).decode()))
    elif option in ("A", "e"):
        wanted.headers.append(("User-Agent" if option == "A" else "Referer", value))
    elif option == "m":
        wanted.seconds = float(value)
    elif option in _FLAGS:
        wanted.flags.add(option)


def _body(option: str, value: str, data: bytes, cwd: str, files: Any) -> bytes:
    if value.startswith("@") and option in ("d", "binary", "json"):
        content = data if value == "@-" else _read(files, cwd, value[1:])
        return content.replace(b"\r", b"").replace(b"\n", b"") if option == "d" else content
    if option == "encode":
        name, given, text = value.partition("=")
        return (f"{name}={quote(text, safe='')}" if given and name else quote(text or value, safe="")).encode()
    return value.encode()


def _read(files: Any, cwd: str, path: str) -> bytes:
    try:
        content: bytes = files.read_file(_absolute(cwd, path))
    except Exception as error:
        raise ValueError(f"(26) failed to open {path}: {error}") from None
    return content


def _fetched(wanted: _Wanted, url: str, cwd: str, files: Any, ask: Ask) -> tuple[int, bytes, str]:
    body = b"&".join(wanted.data)
    if "G" in wanted.flags and body:
        url, body = f"{url}{'&' if '?' in url else '?'}{body.decode('utf-8', 'replace')}", b""
    method = wanted.method or ("HEAD" if "I" in wanted.flags else "POST" if wanted.data and "G" not in wanted.flags else "GET")
    headers = list(wanted.headers)
    names = {name.lower() for name, _ in headers}
    if body and "content-type" not in names:
        headers.append(("Content-Type", "application/x-www-form-urlencoded"))
    headers += [header for header in (("User-Agent", "curl/8.0"), ("Accept", "*/*")) if header[0].lower() not in names]
    found = ask(method, url, headers, body, {"follow": "L" in wanted.flags, "seconds": wanted.seconds})
    is_silent = "s" in wanted.flags and "S" not in wanted.flags
    if found.error:
        return FAILED, _written(wanted, found, b""), "" if is_silent else f"curl: ({FAILED}) {found.error}\n"
    if "f" in wanted.flags and found.status >= 400:
        said = "" if is_silent else f"curl: ({REFUSED}) The requested URL returned error: {found.status}\n"
        return REFUSED, _written(wanted, found, b""), said
    output = (_head(found) if wanted.flags & {"i", "I"} else b"") + found.body
    path = wanted.output or (urlsplit(url).path.rpartition("/")[2] if "O" in wanted.flags else "")
    if path and path != "-":
        try:
            files.write_file(_absolute(cwd, path), output)
        except Exception as error:
            return UNWRITTEN, b"", f"curl: ({UNWRITTEN}) client returned ERROR on write: {error}\n"
        output = b""
    return 0, _written(wanted, found, output), ""


def _head(found: Fetch) -> bytes:
    lines = [f"HTTP/1.1 {found.status}", *(f"{name}: {value}" for name, value in found.headers), "", ""]
    return "\r\n".join(lines).encode()


def _written(wanted: _Wanted, found: Fetch, output: bytes) -> bytes:
    form = wanted.form.replace("\\n", "\n").replace("\\t", "\t")
    types = [value for name, value in found.headers if name.lower() == "content-type"]
    for name, value in (
        ("http_code", f"{found.status:03}"),
        ("response_code", f"{found.status:03}"),
        ("size_download", str(len(found.body))),
        ("url_effective", found.url),
        ("content_type", types[0] if types else ""),
    ):
        form = form.replace(f"%{{{name}}}", value)
    return output + form.encode()


def _absolute(cwd: str, path: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"


def wget(argv: list[str], data: bytes, cwd: str, files: Any, ask: Ask) -> tuple[int, bytes, str]:
    """`wget [-q] [-O FILE] URL`: by way of curl."""
    words, given = ["-sSfL"], ""
    rest = iter(argv)
    for word in rest:
        if word.startswith(("-O", "--output-document")):
            given = (
                word.partition("=")[2] if "=" in word else word[2:] if word.startswith("-O") and word[2:] else next(rest, "")
            )
        elif word.startswith("--header"):
            words += ["-H", word.partition("=")[2] or next(rest, "")]
        elif not word.startswith("-"):
            words.append(word)
    urls = [word for word in words if not word.startswith("-")]
    name = urlsplit(urls[-1]).path.rpartition("/")[2] if urls else ""
    code, output, errors = curl([*words, "-o", given or name or "index.html"], data, cwd, files, ask)
    return (8 if code == REFUSED else code and 4), output, errors.replace("curl:", "wget:")
