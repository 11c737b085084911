"""Calls whose outcome, or whose leave to run, comes from outside: what a tool says about that, and what may be answered.

Laws. Pure. A call that asks is bound to exactly what it asks: the tool's name and the arguments that would be run, by their
digest. An answer is JSON of one of four forms, and there is no form that changes the arguments. What cannot be decided is
asked: a rule that raises asks a person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from cairn.errors import UsageError
from cairn.harness.arguments import compile_schema
from cairn.harness.messages import ToolSpec
from cairn.runtime.settings import ANSWER_SECONDS

AskKind = Literal["approval", "client_tool", "program"]
OnMessage = Literal["queue", "withdraw"]

#: Says of the arguments whether the call needs an approval; a text is the reason people are shown. Pure, plain, quick.
Rule = Callable[[dict[str, Any]], "bool | str"]

#: Bytes of one answer, a client's output with it: it is one record of the log, and a record holds 1 MB.
ANSWER_BYTES_MAX = 900_000
#: Characters of a rejection's reason: a page, which the model reads.
REASON_CHARACTERS_MAX = 4_000


@dataclass(frozen=True, slots=True)
class Asks:
    """That a tool's calls wait for an answer, and for whose. Made by `approval(…)` and `client_tool(…)`."""

    kind: AskKind = "approval"
    rule: Rule | None = None
    """Which calls ask. None: every one."""
    expires_seconds: float | None = ANSWER_SECONDS
    by: tuple[str, ...] = ()
    """Who may answer. Empty: whoever may write to the conversation."""
    on_message: OnMessage = "queue"
    output: Mapping[str, Any] | None = None
    """JSON Schema of what a client may give as the output."""

    def reason(self, arguments: dict[str, Any]) -> str | None:
        """Why this call asks, perhaps in no words; None: it does not."""
        if self.rule is None:
            return ""
        try:
            said = self.rule(arguments)
        except Exception as error:
            return f"whether it needs an approval could not be decided: {type(error).__name__}: {error}"
        if isinstance(said, str):
            return said or None
        return "" if said else None


def approval(
    rule: Rule | None = None,
    *,
    expires: float | None = ANSWER_SECONDS,
    by: str | Sequence[str] = (),
    on_message: OnMessage = "queue",
) -> Asks:
    """What `@agent.tool(approval=…)` takes: the call is parked until somebody approves or rejects it.

    `rule` says of the arguments whether it is (a text is shown as the reason); `expires` in seconds (None: never); `by` names
    who may answer (the names of tokens); `on_message="withdraw"` gives the call up as soon as another message comes, where
    `"queue"` lets the message wait. *Raises* UsageError.
    """
    names = (by,) if isinstance(by, str) else tuple(by)
    _check(rule, expires, names, on_message)
    return Asks("approval", rule, expires, names, on_message)


def asks_of(label: str, given: Any) -> Asks | None:
    """What `approval=` of a tool stands for. *Raises* UsageError."""
    if given is None or given is False:
        return None
    if given is True:
        return Asks()
    if isinstance(given, Asks):
        return given
    if callable(given) and not isinstance(given, type):
        return approval(given)
    raise UsageError(f"{label}: approval={given!r}; use True, a function of the arguments, or approval(…)")


def _check(rule: Any, expires: Any, by: tuple[str, ...], on_message: Any) -> None:
    import inspect

    if rule is not None and (not callable(rule) or inspect.iscoroutinefunction(rule)):
        raise UsageError(f"approval: {rule!r} is no plain function of the arguments that returns a bool or a reason")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, (int, float)) or not expires > 0):
        raise UsageError(f"approval: expires={expires!r}; it is in seconds and must be more than zero, or None for never")
    if not all(isinstance(name, str) and name for name in by):
        raise UsageError(f"approval: by={by!r}; give the names of those who may answer")
    if on_message not in ("queue", "withdraw"):
        raise UsageError(f"approval: on_message={on_message!r}; use 'queue' or 'withdraw'")


# --- the question -----------------------------------------------------------------------------------------------------


def digest_of_call(name: str, arguments: bytes | msgspec.Raw) -> str:
    """What an answer has to name: of the tool and of the arguments, however their fields are ordered."""
    canonical = msgspec.json.encode([name, msgspec.json.decode(arguments)], order="sorted")
    return f"sha256:{hashlib.sha256(canonical).hexdigest()}"


# --- the answer -------------------------------------------------------------------------------------------------------


class Given(msgspec.Struct, frozen=True, tag_field="answer", kw_only=True, omit_defaults=True):
    """An answer as it is recorded."""


class Approve(Given, frozen=True, tag="approve"):
    """The call may run, with the arguments that were shown."""


class Reject(Given, frozen=True, tag="reject"):
    """The call is not to be made; the model is told why."""

    reason: str = ""


class Output(Given, frozen=True, tag="output"):
    """What came of the call, which was made elsewhere."""

    output: msgspec.Raw


class Failure(Given, frozen=True, tag="error"):
    """The call was made elsewhere and did not work."""

    error: str


AnyAnswer = Approve | Reject | Output | Failure

_decoder = msgspec.json.Decoder(AnyAnswer)

#: Which answers fit which question.
FITTING: Mapping[AskKind, tuple[type[Given], ...]] = {
    "approval": (Approve, Reject),
    "client_tool": (Output, Failure, Reject),
    "program": (),
}


def read_answer(raw: bytes | msgspec.Raw) -> AnyAnswer:
    """*Raises* msgspec.MsgspecError for what is none."""
    answer: AnyAnswer = _decoder.decode(raw)
    return answer


def write_answer(answer: AnyAnswer) -> msgspec.Raw:
    """The one form of it: the same answer is the same bytes. *Raises* UsageError for one that cannot be recorded."""
    if isinstance(answer, Output):
        answer = Output(output=msgspec.Raw(msgspec.json.encode(msgspec.json.decode(answer.output), order="sorted")))
    if isinstance(answer, Reject) and len(answer.reason) > REASON_CHARACTERS_MAX:
        raise UsageError(f"a reason has at most {REASON_CHARACTERS_MAX:,} characters, not {len(answer.reason):,}")
    try:
        raw = msgspec.json.encode(answer)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the answer cannot be recorded: {error}") from None
    if len(raw) > ANSWER_BYTES_MAX:
        raise UsageError(f"an answer takes at most {ANSWER_BYTES_MAX:,} bytes; this one takes {len(raw):,}")
    return msgspec.Raw(raw)


def digest_of_answer(raw: bytes | msgspec.Raw) -> str:
    """What tells two answers apart, long after the first was taken."""
    return hashlib.sha256(bytes(raw)).hexdigest()[:32]


def misfit(kind: AskKind, answer: AnyAnswer, schema: Mapping[str, Any] | None) -> str | None:
    """Why this cannot answer that question; None when it can."""
    if not isinstance(answer, FITTING[kind]):
        wanted = "approve or reject" if kind == "approval" else "an output, an error, or reject"
        return f"it waits for {wanted}; arguments and outcome of an approved call are the call's own"
    if isinstance(answer, Output) and schema is not None:
        # Wrapped, because the checker is one of arguments, which are objects; an output may be anything.
        check = compile_schema({"type": "object", "properties": {"output": dict(schema)}, "required": ["output"]})
        value = msgspec.json.decode(answer.output)
        try:
            fitted = check({"output": value})
        except ValueError as error:
            return f"the output does not fit what its tool says. {error}"
        if fitted != {"output": value}:
            return f"the output does not fit what its tool says: {msgspec.json.encode(dict(schema)).decode()[:500]}"
    return None


# --- tools that run somewhere else --------------------------------------------------------------------------------------


def client_spec(name: str, description: str, parameters: Mapping[str, Any] | None) -> ToolSpec:
    """A client's tool as the model sees it."""
    schema = {"type": "object", "properties": {}} if parameters is None else dict(parameters)
    return ToolSpec(name=name, description=description, parameters=schema)
