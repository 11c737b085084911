"""What comes to an object over HTTP and what it answers: plain structs, which travel through the log as they are."""

from __future__ import annotations

from typing import Any

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One HTTP request, or the one that asked for a WebSocket."""

    method: str = "GET"
    path: str = "/"
    """Below the object: `/` or what follows its id in the URL."""
    url: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case, in order."""
    body: bytes = b""
    by: str = ""
    """Who asks, as whoever let them in says."""

    def header(self, name: str, default: str = "") -> str:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), default)

    def argument(self, name: str, default: str = "") -> str:
        """The first value of that name in the query."""
        return next((value for key, value in self.query if key == name), default)

    def json(self, type: Any = Any) -> Any:
        """The body, read as JSON. Raises msgspec.ValidationError, msgspec.DecodeError."""
        return msgspec.json.decode(self.body, type=type)


class Response(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an object answers."""

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    stream: str = ""
    """A streaming callable of the object: what it yields is the body, instead of `body`."""
    arguments: msgspec.Raw = msgspec.Raw(b"[]")

    @classmethod
    def streaming(cls, method: str, *arguments: Any, type: str = "text/plain; charset=utf-8", status: int = 200) -> Response:
        """The body is what that streaming callable yields, as it does: text as it is, anything else as a line of JSON."""
        given = msgspec.Raw(msgspec.json.encode(arguments))
        return cls(b"", status, (("content-type", type),), method, given)

    @classmethod
    def text(cls, text: str, status: int = 200) -> Response:
        return cls(text.encode(), status, (("content-type", "text/plain; charset=utf-8"),))

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Response:
        return cls(msgspec.json.encode(value), status, (("content-type", "application/json"),))
