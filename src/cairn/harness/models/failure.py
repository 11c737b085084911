"""Reading an exception of the provider library into the facts `classify` decides on.

Laws. No provider library is imported: its exceptions are read by attribute and by class name, so this file also works
on the vendors' own exceptions and is testable without them. It decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cairn.errors import ModelErrorKind
from cairn.harness.models.classify import Failure, Transport

#: Class names, ours to look for in an exception's ancestry, the most specific first.
_TRANSPORTS: Final[Mapping[str, Transport]] = {
    "ModelTimeoutError": "timeout",
    "ModelRequestTimeout": "timeout",
    "APITimeoutError": "timeout",
    "TimeoutException": "timeout",
    "ModelConnectionError": "broken",
    "APIConnectionError": "broken",
    "TransportError": "broken",
    "StreamError": "broken",
    "ConnectionError": "broken",
    "JSONDecodeError": "garbage",
    "UnicodeDecodeError": "garbage",
    "ValidationError": "garbage",
    "UnexpectedModelBehavior": "garbage",
}

_HINTS: Final[Mapping[str, ModelErrorKind]] = {
    "ModelContextWindowExceededError": "overflow",
    "ModelQuotaExceededError": "quota",
    "ModelRateLimitError": "rate_limit",
    "ModelOverloadedError": "overload",
    "ModelUnavailableError": "overload",
    "ModelServerError": "server",
    "ModelAuthenticationError": "auth",
    "ModelNotFoundError": "invalid_request",
    "ModelRequestRejectedError": "invalid_request",
    "ContentFilterError": "refusal",
}

#: How the library words a body or a chunk that is no JSON; it has no class of its own for it.
_UNDECODABLE: Final = ("Failed to decode response", "Expected a JSON response")


def failure_of(error: BaseException) -> Failure:
    """The facts in `error`. Never raises, whatever the exception is."""
    names = [cls.__name__ for cls in type(error).__mro__]
    message = str(getattr(error, "message", "") or error)
    body = getattr(error, "body", None)
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) and status >= 400 else None
    inner = _error_object(body)
    transport = None if status else next((_TRANSPORTS[name] for name in names if name in _TRANSPORTS), None)
    if transport == "broken" and _cause_named(error, "ConnectError", "ConnectTimeout", "ConnectionRefusedError"):
        transport = "connect"
    if transport is None and status is None and message.startswith(_UNDECODABLE):
        transport = "garbage"
    return Failure(
        message=str(inner.get("message") or _body_text(body) or message),
        status=status,
        code=_text(getattr(error, "provider_error_code", None) or inner.get("code") or inner.get("status")),
        type=_text(getattr(error, "provider_error_type", None) or inner.get("type")),
        headers={str(name).lower(): str(value) for name, value in (getattr(error, "headers", None) or {}).items()},
        transport=transport,
        wait=_seconds(getattr(error, "retry_after", None)),
        hint=next((_HINTS[name] for name in names if name in _HINTS), None),
    )


def _error_object(body: Any) -> Mapping[str, Any]:
    """The object that reports the failure: vendors put it under `error`, some servers at the top."""
    if not isinstance(body, Mapping):
        return {}
    inner = body.get("error", body)
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, Mapping) else {}


def _body_text(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, (Mapping, list)) and body:
        return json.dumps(body, default=str)
    return ""


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int)) and str(value) else None


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value >= 0 else None


def _cause_named(error: BaseException, *names: str) -> bool:
    """Whether an exception of one of these class names is in the chain of causes (each seen once: chains may loop)."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if any(cls.__name__ in names for cls in type(current).__mro__):
            return True
        current = current.__cause__ or current.__context__
    return False
