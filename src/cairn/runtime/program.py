"""A program: source text that somebody else wrote, run in an interpreter without any authority but the functions it is given.

Laws. Pure. A program is its source, pinned by digest. It sees no files, no network, no clock, no secrets: what it can reach is
a `Function` it was given, by name, and each call of one is an entry of its journal before it is made. Everything that crosses
is JSON. What goes wrong is a `Failure`, data that whoever wrote the program can mend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cairn.errors import UsageError
from cairn.runtime import records as r
from cairn.runtime.settings import ANSWER_SECONDS
from cairn.runtime.step import StepRepeat

if TYPE_CHECKING:
    from cairn.runtime.fiber import Fiber


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """What one program may use. Each bounds what a hostile one costs; a longer one is several programs."""

    run_seconds: float = 30.0
    """Seconds of computing, waits not counted: a model's program moves data between calls, it does not crunch."""
    memory_bytes: int = 128 << 20
    """Of the interpreter's heap."""
    calls: int = 1_000
    """Calls of functions, all together: each is an entry of the log."""
    cost: float | None = None
    """What its calls may cost together, in the unit that its functions' `cost` is in; None: they are not counted."""
    calls_at_once: int = 100
    """Calls that wait for their outcome at a time."""
    source_bytes: int = 256 << 10
    """Of its text."""
    value_bytes: int = 1 << 20
    """Of the arguments of one call, of one outcome, of the program's inputs and of its result, as JSON: one record holds it."""
    output_bytes: int = 64 << 10
    """Of what it prints; the rest is dropped with a note."""


#: `await step("what it is", function, …)`: a call with words for people.
STEP = "step"

#: Seconds a program that waits for a call keeps its interpreter: a quick call does not pay for a dump and a load.
HOLD_SECONDS = 0.02
#: Bytes of an interpreter's state that are kept before a call; a larger one is kept only when the program parks.
DUMP_BYTES_MAX = 256 << 10
#: Interpreters of one process at a time, each a worker process of about 10 MB; who comes later waits for one.
INTERPRETERS_MAX = 8
#: Seconds without a word after which an interpreter is taken for stuck and killed, beyond the program's own limit of time.
INTERPRETER_GRACE_SECONDS = 5.0
#: Bytes of a state that are kept at all; a larger one is made again from the text and the journal.
DUMP_BYTES_KEPT_MAX = 32 << 20
#: Characters of a failure's text: a traceback that a model reads.
MESSAGE_CHARACTERS_MAX = 8_000
#: Programs one worker process of the interpreter runs before it is replaced.
PROGRAMS_PER_PROCESS = 500


@dataclass(frozen=True)
class Program:
    """The text, and what it is called by in the log."""

    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = self.source.encode("utf-8", "surrogatepass")
        object.__setattr__(self, "digest", f"sha256:{hashlib.sha256(text).hexdigest()}")


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call, as the function is told of it."""

    fiber: Fiber
    number: int
    """The same at every repeat of this program: calls are numbered as it makes them."""
    function: str
    arguments: Mapping[str, Any]
    """By parameter name, when the function says its parameters; else positional ones under "0", "1", …"""
    key: str
    """The same at every repeat of this call: pass it on as the idempotency key of whatever you ask of the outside."""
    name: str
    """Of its step: what it waits for is named after it, so that the names stay apart."""
    also: list[r.Record] = field(default_factory=list)
    """What becomes a fact together with the call's outcome: a function that does not wait may add to it …"""
    blobs: list[str] = field(default_factory=list)
    """… and say what content that refers to."""
    ended: list[Callable[[], None]] = field(default_factory=list)
    """Called once the outcome is in the log, or it is certain that it will not be."""


@dataclass(frozen=True, slots=True)
class Function:
    """What a program may call, awaiting it: `await name(…)`.

    `repeat` says what a repeat means when the process died while it ran (S9), as with a tool: `never` (its outcome is then
    "unknown", which the program is told), `keyed`, `safe`. With `waits` it may wait on the fiber (sleep, ask, wait), is called
    again from its first line after a park, and puts effects into steps.
    """

    name: str
    call: Callable[[FunctionCall], Awaitable[Any]]
    parameters: tuple[str, ...] | None = None
    """The names of its parameters, in order; None takes whatever comes."""
    repeat: StepRepeat = "never"
    cost: float = 0.0
    """What one call costs, made once or again: money, credits, whatever the limit counts."""
    waits: bool = False
    approval: Callable[[FunctionCall], str | bool | None] | None = None
    """Why a person has to say yes first: a reason or True; None or False when nobody has to."""
    approval_seconds: float | None = ANSWER_SECONDS
    """How long there is for that; None: for ever."""
    approvers: tuple[str, ...] = ()
    """Who may say so; empty: whoever may answer here."""
    stub: str = ""
    """Its declaration for the type checker and for whoever writes programs: `async def name(…) -> …: …`."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(f"a function of a program cannot be called {self.name!r}: use a Python identifier")

    def bind(self, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. *Raises* TypeError in the words of a call that does not fit."""
        if self.parameters is None:
            return {**{str(place): value for place, value in enumerate(arguments)}, **keywords}
        if len(arguments) > len(self.parameters):
            raise TypeError(f"{self.name}() takes {len(self.parameters)} arguments, not {len(arguments)}")
        bound = dict(zip(self.parameters, arguments, strict=False))
        for name, value in keywords.items():
            if name not in self.parameters:
                raise TypeError(f"{self.name}() has no parameter '{name}'; it has: {', '.join(self.parameters) or 'none'}")
            if name in bound:
                raise TypeError(f"{self.name}() got '{name}' twice")
            bound[name] = value
        return bound


FailureKind = Literal[
    "syntax", "type", "error", "time", "memory", "recursion", "calls", "cost", "value", "diverged", "crashed", "refused"
]


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a program has no result. `kind` for programs, `message` for whoever wrote it: a traceback, or what to do."""

    kind: FailureKind
    message: str


class ProgramResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a program: its last expression's value, or why there is none; and what it printed."""

    value: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None
    printed: str = ""
    calls: int = 0

    @property
    def is_completed(self) -> bool:
        return self.failure is None


class ProgramFailed(Exception):
    """Ends a run from inside, with its failure."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        if len(message) > MESSAGE_CHARACTERS_MAX:
            half = MESSAGE_CHARACTERS_MAX // 2
            message = f"{message[:half]}\n[…]\n{message[-half:]}"
        self.failure = Failure(kind=kind, message=message)
        super().__init__(f"{kind}: {message}")


# --- what crosses ----------------------------------------------------------------------------------------------------


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a call came to, as its entry of the journal holds it. `order`: outcomes are told to the program in this order,
    the first time and at every repeat."""

    order: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    """The type of an exception; empty when there is a value."""
    message: str = ""


def encoded(value: Any, limits: ProgramLimits, what: str) -> bytes:
    """The value as JSON. *Raises* ProgramFailed for what is no JSON, or too large."""
    try:
        data = msgspec.json.encode(value, order="sorted")
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ProgramFailed("value", f"{what} is not JSON: {error}") from None
    if len(data) > limits.value_bytes:
        raise ProgramFailed("value", f"{what} has {len(data):,} bytes; at most {limits.value_bytes:,} cross at once")
    return data


def entry_name(number: int, function: str, arguments: bytes) -> str:
    """What a call is called in the journal: its number, its function, and a digest of its arguments, so that another call in
    its place is noticed."""
    return f"{number}:{function}:{hashlib.sha256(arguments).hexdigest()[:16]}"


#: What the interpreter has and its type checker does not know of.
_UNKNOWN_TO_THE_CHECKER = """\
from typing import Any, Awaitable, Callable, Iterable, Iterator, TypeVar
_T = TypeVar("_T")
_R = TypeVar("_R")
class FileExistsError(OSError): ...
class FileNotFoundError(OSError): ...
class IsADirectoryError(OSError): ...
class NotADirectoryError(OSError): ...
class PermissionError(OSError): ...
class ImportError(Exception): ...
class ModuleNotFoundError(ImportError): ...
class UnboundLocalError(NameError): ...
class UnicodeDecodeError(ValueError): ...
class UnicodeEncodeError(ValueError): ...
def filter(function: Callable[[_T], Any] | None, iterable: Iterable[_T], /) -> Iterator[_T]: ...
def map(function: Callable[..., _R], iterable: Iterable[Any], /, *more: Iterable[Any]) -> Iterator[_R]: ...
def format(value: Any, spec: str = "", /) -> str: ...
def getattr(object: Any, name: str, default: Any = ..., /) -> Any: ...
def hasattr(object: Any, name: str, /) -> bool: ...
def setattr(object: Any, name: str, value: Any, /) -> None: ...
async def step(name: str, function: Callable[..., Awaitable[_R]], /, *args: Any, **kwargs: Any) -> _R: ...
def open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any: ...
"""


def stubs(functions: Sequence[Function], inputs: Iterable[str] = ()) -> str:
    """The declarations of all that a program may name, for the type checker."""
    declared = [each.stub or f"async def {each.name}(*args: Any, **kwargs: Any) -> Any: ..." for each in functions]
    return _UNKNOWN_TO_THE_CHECKER + "\n".join([*declared, *(f"{name}: Any" for name in inputs)]) + "\n"
