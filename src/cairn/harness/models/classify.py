"""What a provider's failure means: one table-driven function from facts to a `ModelError` with a kind.

Laws. Pure: no clock, no I/O, no provider library; the facts arrive as a `Failure`, the time as an argument. Structure
decides before prose: a code the provider documents outranks the status, and the text is only read where providers put
the meaning nowhere else. Overflow is looked for first, because its remedy (make the request smaller) is useless for
everything else; throttling that talks about tokens is excluded from it by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

from cairn.errors import ModelError, ModelErrorKind
from cairn.harness.messages import StopReason, Usage

#: How much of a provider's own text an error quotes, in characters: enough for any documented message, short enough
#: for a terminal and a record.
MESSAGE_CHARS_MAX: Final = 600

#: A truncating server (it drops the start of the prompt instead of refusing) reports an input this close to the window.
TRUNCATED_SHARE: Final = 0.99

Transport = Literal["connect", "timeout", "broken", "garbage"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of one failed request: an HTTP answer, an error event inside a stream, or a broken connection."""

    message: str
    status: int | None = None
    code: str | None = None
    """The provider's machine-readable code, such as `context_length_exceeded`."""
    type: str | None = None
    """Its broader error type, such as `overloaded_error`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Lower-case names."""
    transport: Transport | None = None
    """How the connection failed, when that is the failure."""
    wait: float | None = None
    """Seconds the provider asked for in its body (Google), if it did."""
    hint: ModelErrorKind | None = None
    """What the provider library made of it; used where our own tables are silent."""


#: Codes and types in the vendors' error references -> what to do about them. One vocabulary: none is used by two
#: vendors with two meanings.
CODES: Final[Mapping[str, ModelErrorKind]] = {
    # Anthropic, `error.type`
    "invalid_request_error": "invalid_request",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "quota",
    "not_found_error": "invalid_request",
    "request_too_large": "overflow",
    "rate_limit_error": "rate_limit",
    "api_error": "server",
    "timeout_error": "timeout",
    "overloaded_error": "overload",
    # OpenAI and compatible servers, `error.code` or `error.type`
    "context_length_exceeded": "overflow",
    "string_above_max_length": "overflow",
    "insufficient_quota": "quota",
    "billing_hard_limit_reached": "quota",
    "billing_not_active": "quota",
    "credit_balance_exhausted": "quota",
    "exceeded_current_quota_error": "quota",
    "organization_spend_limit_exceeded": "quota",
    "project_spend_limit_exceeded": "quota",
    "organization_usage_limit_exceeded": "quota",
    "invalid_api_key": "auth",
    "account_deactivated": "auth",
    "model_not_found": "invalid_request",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_reached_error": "rate_limit",
    "too_many_requests": "rate_limit",
    "slow_down": "overload",
    "server_is_overloaded": "overload",
    "engine_overloaded": "overload",
    "service_unavailable": "overload",
    "server_error": "server",
    "content_filter": "refusal",
    "content_policy_violation": "refusal",
    # Google, `error.status`
    "UNAUTHENTICATED": "auth",
    "PERMISSION_DENIED": "auth",
    "NOT_FOUND": "invalid_request",
    "UNAVAILABLE": "overload",
    "INTERNAL": "server",
    "DEADLINE_EXCEEDED": "timeout",
    "RESOURCE_EXHAUSTED": "rate_limit",
}

#: Codes too broad to outrank the text: a 400 of this type may be an overflow or an empty purse.
BROAD_CODES: Final = frozenset({"invalid_request_error", "RESOURCE_EXHAUSTED", "api_error", "rate_limit_error"})

STATUSES: Final[Mapping[int, ModelErrorKind]] = {
    400: "invalid_request",
    401: "auth",
    402: "quota",
    403: "auth",
    404: "invalid_request",
    405: "invalid_request",
    408: "timeout",
    409: "server",
    413: "overflow",
    422: "invalid_request",
    425: "server",
    429: "rate_limit",
    498: "overload",
    500: "server",
    502: "server",
    503: "overload",
    504: "timeout",
    520: "server",
    524: "timeout",
    529: "overload",
}

#: How servers say "the prompt does not fit", per family. Numbers vary, so the patterns stop before them.
OVERFLOW: Final[tuple[re.Pattern[str], ...]] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"prompt is too long",  # Anthropic
        r"exceeds? (the )?context limit",  # Anthropic, input + max_tokens
        r"request (size )?exceeds the maximum (allowed )?(number of bytes|size)",  # Anthropic, 413
        r"exceeds the context window",  # OpenAI Responses
        r"maximum context length",  # OpenAI Chat, OpenRouter, Mistral, vLLM
        r"context[_ ]length[_ ]exceeded",  # OpenAI-compatible
        r"longer than the maximum model length",  # vLLM
        r"input token count.*exceeds the maximum",  # Google
        r"exceeds the maximum number of tokens allowed",  # Google, with a file
        r"input is too long for requested model",  # Bedrock
        r"maximum prompt length is \d+",  # xAI
        r"reduce the length of the (messages|prompt|input)",  # Groq
        r"prompt contains [\d,]+ tokens.*too large",  # Mistral
        r"exceeds the available context size",  # llama.cpp
        r"greater than the context length",  # LM Studio
        r"exceeded max context length",  # Ollama
        r"prompt token count of [\d,]+ exceeds",  # GitHub
        r"exceeded model token limit",  # Moonshot
        r"context window exceed|model_context_window_exceeded",  # MiniMax, Z.ai
        r"too many tokens in (the )?(prompt|request|input)",  # Cohere and others
    )
)

#: Texts that mention tokens or sizes but mean "slower", not "shorter".
NOT_OVERFLOW: Final = re.compile(
    r"tokens?[ -]per[ -](minute|min|hour|day)|\bt[pk]?pm\b|\btpd\b|rate[ _-]?limit|throttl|too many requests"
    r"|please wait|try again (in|later)",
    re.IGNORECASE,
)

#: Money or plan, told only in prose. `exceeded your current quota` is absent on purpose: Google says it for a minute's
#: limit too, and OpenAI sends a code with it.
QUOTA: Final = re.compile(
    r"credit balance is too low|insufficient (balance|credits?|funds)|billing (is )?(not active|disabled|required)"
    r"|enable billing|payment required|spend(ing)? limit|monthly (limit|quota|usage)|purchase (more )?credits"
    r"|PerDay",
    re.IGNORECASE,
)

#: Prose for servers that send no status and no code; the last resort.
PROSE: Final[tuple[tuple[re.Pattern[str], ModelErrorKind], ...]] = (
    (re.compile(r"overloaded|over capacity|at capacity|server is busy", re.IGNORECASE), "overload"),
    (re.compile(r"rate[ _-]?limit|too many requests|throttl", re.IGNORECASE), "rate_limit"),
    (re.compile(r"timed? ?out|deadline exceeded", re.IGNORECASE), "timeout"),
    (re.compile(r"api key|unauthori[sz]ed|authentication", re.IGNORECASE), "auth"),
    (re.compile(r"internal (server )?error|bad gateway|service unavailable", re.IGNORECASE), "server"),
)

TRANSPORTS: Final[Mapping[Transport, ModelErrorKind]] = {
    "connect": "network",
    "timeout": "timeout",
    "broken": "network",
    # Bytes that are no event: a proxy's page or a crashed upstream. The next attempt usually gets another one.
    "garbage": "server",
}


def kind_of(failure: Failure) -> ModelErrorKind:
    """The kind of `failure`. Total: whatever is unknown is `unknown`, never a guess that retries."""
    if failure.transport is not None:
        return TRANSPORTS[failure.transport]
    if is_overflow(failure):
        return "overflow"
    for code in _codes(failure):
        if code not in BROAD_CODES:
            return CODES[code]
    if QUOTA.search(failure.message) and failure.status not in (500, 502, 503, 504, 529):
        return "quota"
    return _by_status(failure)


def is_overflow(failure: Failure) -> bool:
    """Whether the request was too long for the model, and only a shorter one can succeed (P21)."""
    if any(CODES[code] == "overflow" for code in _codes(failure)):
        return True
    if NOT_OVERFLOW.search(failure.message) or failure.status in (401, 402, 403, 429):
        return False
    return failure.status == 413 or any(pattern.search(failure.message) for pattern in OVERFLOW)


def _codes(failure: Failure) -> list[str]:
    """The codes of `failure` that mean something to us, the most specific first."""
    return [code for code in (failure.code, failure.type) if code is not None and code in CODES]


def _by_status(failure: Failure) -> ModelErrorKind:
    if failure.hint is not None and failure.hint not in ("unknown", "overflow"):
        return failure.hint
    for code in _codes(failure):
        return CODES[code]
    if failure.status is not None:
        if failure.status == 413:
            return "rate_limit" if NOT_OVERFLOW.search(failure.message) else "overflow"
        if failure.status in STATUSES:
            return STATUSES[failure.status]
        if 500 <= failure.status < 600:
            return "server"
        if 400 <= failure.status < 500:
            return "invalid_request"
    return next((kind for pattern, kind in PROSE if pattern.search(failure.message)), "unknown")


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds the provider asks to wait, from `retry-after-ms` or `retry-after` (a number of seconds or an HTTP date).

    `now` is the wall clock a date is measured against. None when nothing usable was sent; never negative.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    raw = headers.get("retry-after")
    seconds = _number(raw)
    if seconds is not None or not raw:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(raw).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _number(raw: str | None) -> float | None:
    try:
        value = float(raw) if raw else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None


def classify(failure: Failure, *, now: float, who: str = "the provider") -> ModelError:
    """The error to raise for `failure`. Its text names `who` failed, how, and quotes the provider's own words."""
    kind = kind_of(failure)
    wait = retry_after(failure.headers, now=now)
    details: dict[str, Any] = {}
    if failure.code or failure.type:
        details["code"] = failure.code or failure.type
    if failure.transport:
        details["transport"] = failure.transport
    if request_id := failure.headers.get("request-id") or failure.headers.get("x-request-id"):
        details["request_id"] = request_id
    status = f" {failure.status}" if failure.status else ""
    return ModelError(
        f"{who}: {kind.replace('_', ' ')}{status}: {_quoted(failure.message)}",
        kind=kind,
        status=failure.status,
        retry_after=wait if wait is not None else failure.wait,
        details=details,
    )


def _quoted(message: str) -> str:
    text = " ".join(message.split()) or "no message"
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


def is_silent_overflow(stop: StopReason, usage: Usage, context_window: int | None) -> bool:
    """Whether a response that looks fine shows that its prompt did not fit (P21).

    Two shapes: a server that answers although the input is larger than the window, and one that cuts the prompt to the
    window and then has no room left to answer (`length`, no output, the input as large as the window).
    """
    if not context_window:
        return False
    sent = usage.input + usage.cache_read + usage.cache_write
    if stop == "length":
        return usage.output == 0 and sent >= TRUNCATED_SHARE * context_window
    return sent > context_window
