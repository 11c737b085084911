"""What a provider's failure means, without a provider: codes, statuses, texts, waits."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cairn.errors import RETRYABLE_MODEL_ERRORS, ModelErrorKind
from cairn.harness.messages import Usage
from cairn.harness.models.classify import (
    CODES,
    MESSAGE_CHARS_MAX,
    Failure,
    classify,
    is_overflow,
    is_silent_overflow,
    kind_of,
    retry_after,
)
from cairn.harness.models.failure import failure_of

#: As providers word it: the family, the status it comes with, the text.
OVERFLOWS = [
    (400, "prompt is too long: 213462 tokens > 200000 maximum"),
    (400, "input length and `max_tokens` exceed context limit: 190000 + 32000 > 200000"),
    (413, "Request exceeds the maximum allowed number of bytes."),
    (400, "Your input exceeds the context window of this model."),
    (400, "This model's maximum context length is 128000 tokens. However, your messages resulted in 130112 tokens."),
    (400, "The decoder prompt (length 9000) is longer than the maximum model length of 8192."),
    (400, "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."),
    (400, "Input is too long for requested model."),
    (400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
    (400, "Please reduce the length of the messages or completion."),
    (400, "Prompt contains 131,073 tokens and 0 draft tokens, too large for model with 131072 maximum context length"),
    (400, "the request exceeds the available context size. try increasing the context size"),
    (400, "The number of tokens to keep from the initial prompt is greater than the context length"),
    (400, "prompt too long; exceeded max context length by 12 tokens"),
    (400, "prompt token count of 130001 exceeds the limit of 128000"),
    (400, "Your request exceeded model token limit: 8192"),
    (None, "model_context_window_exceeded"),
    (413, "no body"),
]

#: About tokens or size, but not about the length of this prompt.
THROTTLES = [
    (429, "Too many tokens, please wait before trying again."),
    (429, "This request would exceed your organization's rate limit of 50,000 input tokens per minute."),
    (413, "Request too large for model x on tokens per minute (TPM): Limit 6000, Requested 7021, please reduce your size."),
    (400, "ThrottlingException: Too many tokens in the request, rate limit"),
    (429, "maximum context length is no reason to wait, the rate limit is"),
]


@pytest.mark.parametrize(("status", "text"), OVERFLOWS)
def test_a_prompt_that_does_not_fit_is_an_overflow(status: int | None, text: str) -> None:
    """P21: each family of servers words it in its own way."""
    assert kind_of(Failure(text, status=status)) == "overflow"


@pytest.mark.parametrize(("status", "text"), THROTTLES)
def test_throttling_text_is_not_an_overflow(status: int, text: str) -> None:
    """P21: making the prompt smaller would not help; waiting does."""
    assert not is_overflow(Failure(text, status=status))
    assert kind_of(Failure(text, status=status)) in ("rate_limit", "invalid_request")


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure("no", status=429, code="insufficient_quota", type="insufficient_quota"), "quota"),
        (Failure("You exceeded your current quota", status=429, code="insufficient_quota"), "quota"),
        (Failure("You exceeded your current quota", status=429, code="RESOURCE_EXHAUSTED"), "rate_limit"),
        (Failure("You exceeded your current quota", status=429, code="RESOURCE_EXHAUSTED", hint="quota"), "quota"),
        (Failure("Your credit balance is too low to", status=400, type="invalid_request_error"), "quota"),
        (Failure("Insufficient Balance", status=402), "quota"),
        (Failure("monthly limit reached, upgrade", status=403), "quota"),
        (Failure("slow down", status=429), "rate_limit"),
        (Failure("slow down", status=429, code="rate_limit_exceeded"), "rate_limit"),
    ],
)
def test_an_empty_purse_is_told_from_a_full_minute(failure: Failure, kind: ModelErrorKind) -> None:
    """P20: a quota does not come back by waiting, a rate limit does; both are often a 429."""
    assert kind_of(failure) == kind


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure("Overloaded", status=529, type="overloaded_error"), "overload"),
        (Failure("Overloaded", type="overloaded_error"), "overload"),
        (Failure("", status=503), "overload"),
        (Failure("", status=500), "server"),
        (Failure("", status=599), "server"),
        (Failure("", status=502), "server"),
        (Failure("", status=524), "timeout"),
        (Failure("", status=408), "timeout"),
        (Failure("", status=401), "auth"),
        (Failure("", status=404), "invalid_request"),
        (Failure("", status=418), "invalid_request"),
        (Failure("context canceled", transport="broken"), "network"),
        (Failure("maximum context length", transport="timeout"), "timeout"),
        (Failure("<html>", transport="garbage"), "server"),
        (Failure("The server is busy right now"), "overload"),
        (Failure("Bad gateway"), "server"),
        (Failure("it is Tuesday"), "unknown"),
        (Failure("flagged", status=400, code="content_policy_violation"), "refusal"),
    ],
)
def test_codes_outrank_statuses_and_statuses_outrank_prose(failure: Failure, kind: ModelErrorKind) -> None:
    """P20: structure decides, text is the last resort, and what is unknown is not retried."""
    assert kind_of(failure) == kind


@given(
    message=st.text(max_size=60),
    status=st.none() | st.integers(0, 999),
    code=st.none() | st.sampled_from(sorted(CODES)) | st.text(max_size=10),
    type_=st.none() | st.sampled_from(sorted(CODES)),
    headers=st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "x"]), st.text(max_size=12)),
)
def test_every_failure_has_a_kind_and_a_wait_that_can_be_slept(
    message: str, status: int | None, code: str | None, type_: str | None, headers: dict[str, str]
) -> None:
    """T19: classification is total, whatever a server sends."""
    error = classify(Failure(message, status=status, code=code, type=type_, headers=headers), now=0.0)

    assert error.retryable == (error.kind in RETRYABLE_MODEL_ERRORS)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    assert len(str(error)) < MESSAGE_CHARS_MAX + 100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": formatdate(1_000_060, usegmt=True)}, 60.0),
        ({"retry-after": formatdate(999_000, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_a_wait_is_read_as_milliseconds_seconds_or_a_date(headers: dict[str, str], seconds: float | None) -> None:
    """P20: what cannot be read is no wait at all, never a huge or negative one."""
    assert retry_after(headers, now=1_000_000.0) == seconds


@pytest.mark.parametrize(
    ("stop", "usage", "silent"),
    [
        ("stop", Usage(input=210_000, output=5), True),
        ("stop", Usage(input=10_000, cache_read=195_000, output=5), True),
        ("stop", Usage(input=199_000, output=900), False),
        ("tools", Usage(input=210_000, output=5), True),
        ("length", Usage(input=199_500, output=0), True),
        ("length", Usage(input=199_500, output=1), False),
        ("length", Usage(input=100_000, output=0), False),
    ],
)
def test_a_prompt_that_was_cut_silently_is_seen_in_the_numbers(stop: str, usage: Usage, silent: bool) -> None:
    """P21: some servers answer although the prompt did not fit; the counts give them away."""
    assert is_silent_overflow(stop, usage, 200_000) is silent  # type: ignore[arg-type]
    assert is_silent_overflow(stop, usage, None) is False  # type: ignore[arg-type]


def test_the_error_names_who_failed_how_and_quotes_the_provider() -> None:
    """S14: one line a person can act on, with the request's id for the provider's support."""
    failure = Failure("Overloaded\n  now", status=529, type="overloaded_error", headers={"request-id": "req_9"})

    error = classify(failure, now=0.0, who="anthropic:claude-x")

    assert str(error) == "anthropic:claude-x: overload 529: Overloaded now"
    assert error.details == {"code": "overloaded_error", "request_id": "req_9"}


class APIStatusError(Exception):
    """Shaped as the vendors shape theirs."""

    def __init__(self, status_code: int, body: object, headers: dict[str, str]) -> None:
        super().__init__("Error code")
        self.status_code, self.body, self.headers = status_code, body, headers


class APITimeoutError(Exception):
    pass


class ConnectError(Exception):
    pass


class ModelConnectionError(Exception):
    pass


def test_an_exceptions_facts_are_read_by_shape_and_not_by_class() -> None:
    """T19: nested and flat bodies, header names in any case, a text body, no body."""
    nested = failure_of(APIStatusError(429, {"error": {"type": "a", "message": "m"}}, {"Retry-After": "3"}))
    flat = failure_of(APIStatusError(400, {"code": "c", "message": "n"}, {}))
    text = failure_of(APIStatusError(502, "<html>bad</html>", {}))

    assert (nested.status, nested.type, nested.message, nested.headers) == (429, "a", "m", {"retry-after": "3"})
    assert (flat.status, flat.code, flat.message) == (400, "c", "n")
    assert (text.status, text.message, text.transport) == (502, "<html>bad</html>", None)


def test_a_connection_that_was_never_made_is_told_from_one_that_broke() -> None:
    """L3: both are the network's, and the details say which."""
    refused = ModelConnectionError("Connection error.")
    refused.__cause__ = ConnectError("refused")

    assert failure_of(refused).transport == "connect"
    assert failure_of(ModelConnectionError("x")).transport == "broken"
    assert failure_of(APITimeoutError("x")).transport == "timeout"
    assert failure_of(ConnectionResetError("x")).transport == "broken"


@given(
    st.recursive(
        st.none() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "status"]), inner)
        ),
    )
)
def test_reading_an_exception_never_fails(body: object) -> None:
    """T19: a body is whatever a broken server sent."""
    assert kind_of(failure_of(APIStatusError(500, body, {}))) in ("server", *RETRYABLE_MODEL_ERRORS, *CODES.values())
