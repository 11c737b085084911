"""Interpreters: worker processes that run programs, one program at a time each, and what they say in our words.

Laws. The only file that knows the interpreter's library. A program is text in a process of its own without files, network or
environment; a process that crashes, hangs or grows is killed and replaced, and costs one run of one program. Nothing is started
before the first program, and nothing is kept once the last one has ended for a while.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath, PurePosixPath
from typing import Any

from cairn.errors import MissingExtra
from cairn.runtime.program import (
    INTERPRETER_GRACE_SECONDS,
    INTERPRETERS_MAX,
    PROGRAMS_PER_PROCESS,
    Outcome,
    Program,
    ProgramFailed,
    ProgramLimits,
)

#: What programs call to wait; answered by the fiber, so that it lasts.
SLEEP = "asyncio.sleep"

#: Exceptions a program can tell apart; any other is a RuntimeError whose text begins with its name.
_EXCEPTIONS: dict[str, type[Exception]] = {
    each.__name__: each
    for each in (
        ArithmeticError, AssertionError, AttributeError, FileExistsError, FileNotFoundError, IndexError, IsADirectoryError,
        KeyError, LookupError, NotADirectoryError, NotImplementedError, OSError, PermissionError, RuntimeError, TimeoutError,
        TypeError, ValueError, ZeroDivisionError,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that a program made. `number` counts all calls of the program."""

    number: int
    function: str
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Every branch of the program waits. `asked`: the calls since it was last blocked; `pending`: all that it waits for."""

    asked: tuple[Asked, ...]
    pending: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The program has ended with this value."""

    value: Any


@dataclass(frozen=True, slots=True)
class Halted:
    """The program does nothing more until this call of a file is answered: whoever reads a file does not await it."""

    call: Asked


Turn = Blocked | Done | Halted


class Interpreters:
    """The interpreters of one process. Give one to whoever runs programs; close it when the process stops."""

    def __init__(self, processes_max: int = INTERPRETERS_MAX) -> None:
        self._processes_max = processes_max
        self._pool: Any = None
        self._starting = asyncio.Lock()

    @property
    def version(self) -> str:
        """Of the interpreter: a dump is understood by the same one only."""
        return str(_library().__version__)

    async def close(self) -> None:
        """No process is left."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.__aexit__(None, None, None)

    def session(
        self,
        limits: ProgramLimits,
        *,
        moment: float,
        seed: str,
        functions: Iterable[str],
        stubs: str | None = None,
        files: Iterable[str] = (),
    ) -> _Lease:
        """One interpreter, for one program. Its clock stands at `moment`, its randomness is of `seed`: a program that is run
        again sees the same. With `stubs` the text is type-checked before it runs. `files` are the file calls it may make."""
        policy = {
            "datetime": datetime.fromtimestamp(moment, UTC),
            "timezone": "UTC",
            "sleep": "call_host",
            "process_time": "zero",
            "random_start": {"seed": seed},
        }
        options = {
            "script_name": "program.py",
            "limits": {
                "max_feed_duration_secs": limits.run_seconds,
                "max_memory": limits.memory_bytes,
                "max_suspensions": 100 * limits.calls + 10_000,
            },
            "type_check": stubs is not None,
            "type_check_stubs": stubs,
            "type_check_format": "concise",
            "os_policy": policy,
        }
        return _Lease(self, options, frozenset(functions), frozenset(files), limits)

    async def _started(self) -> Any:
        async with self._starting:
            if self._pool is None:
                pool = _library().AsyncMonty(
                    min_processes=0,
                    max_processes=self._processes_max,
                    request_timeout=None,
                    max_checkouts_per_worker=PROGRAMS_PER_PROCESS,
                    feed_duration_limit_grace=INTERPRETER_GRACE_SECONDS,
                )
                await pool.__aenter__()
                self._pool = pool
            return self._pool


def _library() -> Any:
    try:
        import pydantic_monty
    except ImportError:
        raise MissingExtra("programs need the interpreter: pip install 'cairn-agents[programs]'") from None
    return pydantic_monty


class _Lease:
    """An interpreter for the time of an `async with`. Leaving one whose process died is no error."""

    def __init__(
        self,
        interpreters: Interpreters,
        options: dict[str, Any],
        functions: frozenset[str],
        files: frozenset[str],
        limits: ProgramLimits,
    ) -> None:
        self._interpreters, self._options = interpreters, options
        self._functions, self._files, self._limits = functions, files, limits
        self._checkout: AbstractAsyncContextManager[Any] | None = None

    async def __aenter__(self) -> Session:
        pool = await self._interpreters._started()
        self._checkout = pool.checkout(**self._options)
        session = await self._checkout.__aenter__()
        return Session(session, Output(self._limits.output_bytes), self._functions, self._files, self._limits)

    async def __aexit__(self, *raised: Any) -> None:
        checkout, self._checkout = self._checkout, None
        if checkout is not None:
            with suppress(_library().MontyError):
                await checkout.__aexit__(None, None, None)


class Output:
    """What a program printed, up to a number of bytes."""

    def __init__(self, bytes_max: int, before: str = "") -> None:
        self._max = bytes_max
        self._parts = [before]
        self._size = len(before.encode("utf-8", "replace"))
        self._is_cut = False

    def add(self, text: str) -> None:
        if self._is_cut:
            return
        data = text.encode("utf-8", "replace")
        room = self._max - self._size
        if len(data) > room:
            self._is_cut = True
            text = (
                data[: max(0, room)].decode("utf-8", "ignore")
                + f"\n[printed more than {self._max:,} bytes; the rest is dropped]\n"
            )
        self._size += len(data)
        self._parts.append(text)

    @property
    def text(self) -> str:
        return "".join(self._parts)


class Session:
    """One program in one interpreter, driven from stop to stop. After an error it is of no use."""

    def __init__(
        self, session: Any, output: Output, functions: frozenset[str], files: frozenset[str], limits: ProgramLimits
    ) -> None:
        self._session = session
        self._functions, self._files = functions, files
        self._limits = limits
        self._stop: Any = None
        self._asked: list[Asked] = []
        """Calls since the program was last blocked."""
        self.output = output

    @property
    def pid(self) -> int | None:
        """Of its process, for tests that kill it."""
        return self._session.worker_pid  # type: ignore[no-any-return]

    async def start(self, program: Program, inputs: Mapping[str, Any], *, check: bool) -> Turn:
        """Run the text until it stops. *Raises* ProgramFailed."""
        return await self._until_blocked(
            self._session.feed_start(
                program.source, inputs=dict(inputs) or None, print_callback=self._printed, skip_type_check=not check
            )
        )

    async def load(self, dump: bytes, printed: str) -> tuple[int, ...]:
        """Stand where `dump` was taken; what the program waits for. *Raises* ProgramFailed when it is no dump of this."""
        self.output = Output(self._limits.output_bytes, printed)
        try:
            self._stop = await self._session.load_snapshot(dump, print_callback=self._printed)
            return tuple(self._stop.pending_call_ids)
        except Exception as error:
            raise ProgramFailed("refused", f"the interpreter does not take its own dump: {type(error).__name__}") from None

    async def answer(self, number: int, outcome: Outcome, value: Any) -> Turn:
        """Tell the program what a call came to, and run until it stops again. *Raises* ProgramFailed."""
        told = {"exception": exception(outcome)} if outcome.error else {"return_value": value}
        return await self._until_blocked(self._stop.resume({number: told}))

    async def answer_file(self, call: Asked, outcome: Outcome, value: Any) -> Turn:
        """Tell the program, which is halted, what its call of a file came to. *Raises* ProgramFailed."""
        told = {"exception": exception(outcome)} if outcome.error else {"return_value": native(call.function, value)}
        return await self._until_blocked(self._stop.resume(told))

    def dump(self) -> bytes:
        """The state of the blocked program."""
        return bytes(self._stop.dump())

    # --- beneath

    def _printed(self, stream: str, text: str) -> None:
        self.output.add(text)

    async def _until_blocked(self, step: Any) -> Turn:
        library = _library()
        try:
            stop = await step
            while True:
                if isinstance(stop, library.MontyComplete):
                    return Done(stop.output)
                if isinstance(stop, library.AsyncFutureSnapshot):
                    self._stop, asked, self._asked = stop, tuple(self._asked), []
                    return Blocked(asked, tuple(stop.pending_call_ids))
                if (halted := self._halted(stop)) is not None:
                    self._stop = stop
                    return halted
                stop = await self._go_on(stop, self._asked)
        except library.MontyError as error:
            raise failed(library, error) from None

    def _halted(self, stop: Any) -> Halted | None:
        """The call of a file that the program may make, in JSON."""
        if not getattr(stop, "is_os_function", False) or (name := file_name(stop.function_name)) not in self._files:
            return None
        arguments = tuple(map(_plain, stop.args))
        keywords = {key: _plain(value) for key, value in stop.kwargs.items()}
        return Halted(Asked(stop.call_id, name, arguments, keywords))

    async def _go_on(self, stop: Any, asked: list[Asked]) -> Any:
        """Past a stop that nobody has to wait for: a name, a call that begins, a thing that programs do not have."""
        library = _library()
        if isinstance(stop, library.AsyncNameLookupSnapshot):
            name = stop.variable_name
            if stop.object_id is None and name in self._functions:
                return await stop.resume(value=_placeholder(name))
            return await stop.resume()
        if stop.is_os_function and stop.function_name != SLEEP:
            return await stop.resume_not_handled()
        if not stop.is_os_function and stop.function_name not in self._functions:
            return await stop.resume({"exception": NameError(f"name '{stop.function_name}' is not defined")})
        asked.append(Asked(stop.call_id, str(stop.function_name), tuple(stop.args), dict(stop.kwargs)))
        if len(asked) > self._limits.calls:
            raise ProgramFailed("calls", f"it made more than {self._limits.calls:,} calls")
        return await stop.resume({"future": ...})


def file_name(function: str) -> str:
    """`Path.read_text` and `open` of the interpreter, as a function's name."""
    return "path_" + function.removeprefix("Path.")


def _plain(value: Any) -> Any:
    """An argument of a file call as JSON."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value) if isinstance(value, PurePath) else value


def native(function: str, value: Any) -> Any:
    """What came of a file call, as the interpreter wants it."""
    library = _library()
    match function:
        case "path_open":
            return library.MontyFileHandle(value["path"], value["mode"])
        case "path_read_bytes":
            return base64.b64decode(value["base64"])
        case "path_iterdir":
            return [PurePosixPath(each) for each in value]
        case "path_scan":
            return [library.ScanEntry(*each) for each in value]
        case "path_stat" if value["is_dir"]:
            return library.StatResult.dir_stat(value["mode"], value["mtime"])
        case "path_stat":
            return library.StatResult.file_stat(value["size"], value["mode"], value["mtime"])
        case "path_resolve" | "path_absolute" | "path_rename":
            return PurePosixPath(value)
    return value


def _placeholder(name: str) -> Any:
    """What stands for a function where a program uses its name as a value."""

    async def function(*arguments: Any, **keywords: Any) -> None:
        raise AssertionError("calls of programs are answered by number")

    function.__name__ = function.__qualname__ = name
    return function


def exception(outcome: Outcome) -> Exception:
    """What the program's `await` raises."""
    known = _EXCEPTIONS.get(outcome.error)
    return known(outcome.message) if known is not None else RuntimeError(f"{outcome.error}: {outcome.message}")


def failed(library: Any, error: Exception) -> ProgramFailed:
    """The interpreter's error in our words."""
    if isinstance(error, library.MontySyntaxError):
        return ProgramFailed("syntax", error.display())
    if isinstance(error, library.MontyTypingError):
        return ProgramFailed("type", error.display())
    if isinstance(error, library.MontyCrashedError):
        slow = getattr(error, "timed_out", False)
        return ProgramFailed("time" if slow else "crashed", "the interpreter was killed: " + str(error))
    if not isinstance(error, library.MontyRuntimeError):
        return ProgramFailed("value", str(error))
    inner, text = error.exception(), error.display()
    said = str(error)
    if isinstance(inner, TimeoutError) and "time limit exceeded" in said:
        return ProgramFailed("time", f"it computed for longer than its limit; {said}")
    if isinstance(inner, MemoryError):
        return ProgramFailed("memory", f"it used more memory than its limit; {said}")
    if isinstance(inner, RecursionError):
        return ProgramFailed("recursion", f"its calls were nested too deeply; {said}")
    return ProgramFailed("error", text)
