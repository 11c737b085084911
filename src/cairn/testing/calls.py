"""A tool call without a loop: what a tool or a hook needs to run in a unit test, kept in memory and open to look at.

call = Call(state=Case())
assert await escalate(call.context) == "Escalated."
assert call.changes() == {"escalated": True}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from cairn.errors import StepNameReused
from cairn.harness.context_face import Context
from cairn.harness.sandbox.protocol import ProcessInfo, Sandbox
from cairn.harness.state import Draft, StateType

S = TypeVar("S")


class Call(Generic[S]):
    """A `CallContext` in memory. `context` is what a tool takes; `progress_shown`, `steps_done` and `processes` hold what
    it did. Hand the same `steps_done` to a second Call to see what a repeat after an interruption does."""

    def __init__(
        self,
        state: S | None = None,
        *,
        call: str = "call_1",
        key: str = "key_1",
        conversation: str = "conversation",
        sandbox: Sandbox | None = None,
        steps_done: dict[str, Any] | None = None,
        extra: Mapping[str, Any] = {},
    ) -> None:
        self.call = call
        self.key = key
        self.conversation = conversation
        self.sandbox = sandbox
        self.extra = extra
        self.draft: Draft[Any] | None = None
        if state is not None:
            kind: StateType[Any] = StateType(type(state))
            self.draft = Draft(kind, kind.dump(state))
        self.progress_shown: list[str] = []
        self.data_shown: dict[str, Any] = {}
        self.metadata_shown: dict[str, Any] = {}
        self.processes: list[ProcessInfo] = []
        self.steps_done: dict[str, Any] = {} if steps_done is None else steps_done
        self._steps_named: set[str] = set()

    @property
    def context(self) -> Context[S]:
        """What the tool's parameter annotated `Context` takes."""
        return Context(self)

    def changes(self) -> dict[str, Any]:
        """The fields of the state this call changed, with their new values."""
        return {} if self.draft is None else {n: msgspec.json.decode(raw) for n, raw in self.draft.changes().items()}

    def progress(self, text: str) -> None:
        self.progress_shown.append(text)

    def show(self, name: str, value: bytes) -> None:
        self.data_shown[name] = msgspec.json.decode(value)

    def describe(self, values: bytes) -> None:
        self.metadata_shown.update(msgspec.json.decode(values))

    async def process_started(self, process: ProcessInfo) -> None:
        self.processes.append(process)

    def keep(self, name: str, value: bytes) -> None:
        """Nothing is kept: there is no conversation."""

    async def step(self, name: str, callback: Callable[[], Any], *, repeat: str = "safe") -> Any:
        """As in the loop: a name once per call, the result as JSON gives it back, an earlier call's result again."""
        if name in self._steps_named:
            raise StepNameReused(f"step {name!r} is used twice in one call; give each its own name")
        self._steps_named.add(name)
        if name not in self.steps_done:
            result = callback()
            if asyncio.iscoroutine(result):
                result = await result
            self.steps_done[name] = msgspec.json.decode(msgspec.json.encode(result))
        return self.steps_done[name]

    async def run_sync(self, callback: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(callback)
