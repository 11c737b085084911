"""`Context[State]`: what a tool or a hook is handed, in the words of the person who writes it.

It wraps the loop's `CallContext` and adds nothing but clear errors; it holds no state of its own.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

import msgspec

from cairn.errors import UsageError

if TYPE_CHECKING:
    from cairn.harness.sandbox.protocol import Sandbox
    from cairn.harness.tools import CallContext

S = TypeVar("S")
T = TypeVar("T")

#: A data part's name: it becomes `data-<name>` in a client's message.
DATA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
#: Bytes of one value that is shown: it is sent whole to every reader at each change.
SHOWN_BYTES_MAX = 65_536


class Context(Generic[S]):
    """One running call, seen from inside. Valid until the call returns; do not keep it."""

    __slots__ = ("_call", "_no_steps")

    def __init__(self, call: CallContext, *, no_steps: str = "") -> None:
        """`no_steps` says why `step` is refused; empty allows it."""
        self._call = call
        self._no_steps = no_steps

    @property
    def state(self) -> S:
        """This call's own copy of the agent's state: change it freely.

        *Durable* together with the call's outcome, and visible to other calls from then on; a call that fails, is aborted
        or whose outcome is unknown changes nothing. *Raises* UsageError when the agent declares no state.
        """
        draft = self._call.draft
        if draft is None:
            raise UsageError("this agent has no state: give it one with Agent(…, state=YourDataclass)")
        return draft.value  # type: ignore[no-any-return]

    @property
    def call(self) -> str:
        """The id of this call."""
        return self._call.call

    @property
    def key(self) -> str:
        """The same at every repeat of this call: pass it on as the idempotency key of whatever you ask of the outside."""
        return self._call.key

    @property
    def conversation(self) -> str:
        """The id of the conversation this call belongs to."""
        return self._call.conversation

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the chat client said beside the messages that are answered (JSON): the page it is on, what is selected.

        It comes from the client, like the messages: decide nothing by it that the client may not decide. Read it only.
        """
        return self._call.extra

    @property
    def sandbox(self) -> Sandbox:
        """Where commands run and files are. *Raises* UsageError when the agent has no sandbox."""
        sandbox = self._call.sandbox
        if sandbox is None:
            raise UsageError("this agent has no sandbox: give it one, such as Agent(…, sandbox=local())")
        return sandbox

    def progress(self, text: str) -> None:
        """Readers see `text` as the latest of this call; the model never does. Dropped once the call has settled."""
        self._call.progress(text)

    def show(self, name: str, value: Any) -> None:
        """People are shown `value` (JSON) beside the answer's words, as the data part `name`; the model is not.
        The next value of that name replaces it.

        *Durable* no later than this call's outcome. *Raises* UsageError for a name or a value that cannot be shown.
        """
        if not isinstance(name, str) or not DATA_NAME.fullmatch(name):
            raise UsageError(f"ctx.show: {name!r} is no name; use letters, digits, '-', '_', '.', at most 64")
        self._call.show(name, _json("ctx.show", value))

    def describe(self, **values: Any) -> None:
        """What clients are told about the answer (its `metadata`) from now on holds these values (JSON); objects are merged,
        anything else is replaced. *Durable* and *Raises* as with `show`."""
        self._call.describe(_json("ctx.describe", values))

    @overload
    async def step(
        self, name: str, callback: Callable[[], Awaitable[T]], *, repeat: Literal["safe", "keyed", "never"] = "safe"
    ) -> T: ...

    @overload
    async def step(self, name: str, callback: Callable[[], T], *, repeat: Literal["safe", "keyed", "never"] = "safe") -> T: ...

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: Literal["safe", "keyed", "never"] = "safe") -> Any:
        """The result of `callback()`, which ran now or before an interruption; JSON.

        *Durable*: the result, before this returns. *Idempotent* by `name` within this call; use each name once, such as
        `f"charge:{order.id}"`. *Raises* StepUnknown when a keyed or never step was started by a process that died,
        StepNameReused, and UsageError in a tool that is not `repeat="resume"` (its steps could never be used).
        """
        if self._no_steps:
            raise UsageError(self._no_steps)
        return await self._call.step(name, callback, repeat=repeat)


def _json(where: str, value: Any) -> bytes:
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise UsageError(f"{where}: the value is not JSON: {error}") from None
    if len(encoded) > SHOWN_BYTES_MAX:
        raise UsageError(f"{where}: {len(encoded)} bytes are more than people can be shown at once ({SHOWN_BYTES_MAX})")
    return encoded
