"""A model that does what its script says: it streams, stalls, fails, calls tools, and obeys what it reads when asked to.

A script is a list of replies, or a function from the request to the next reply. A reply is a text, a `Say`, a `Call`, a
`Fail`, or a list of them in one message. An exhausted list is an error, so an unexpected extra request fails visibly.
`by_turn` makes a script that can be asked again after a crash: what it says depends on what it is shown, and on nothing else.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cairn.errors import ModelError
from cairn.harness.messages import (
    AssistantMessage,
    Content,
    ContextMessage,
    StopReason,
    Text,
    Thinking,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest, TextDelta, ThinkingDelta


@dataclass(frozen=True, slots=True)
class Say:
    """Text, in deltas of `chunk` characters, with a pause before each."""

    text: str
    chunk: int = 8
    pause: float = 0.0
    thinking: str = ""
    stop: StopReason = "stop"


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call. `id` is made from the number of the request when it is empty."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    arguments_error: str | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Fail with `error`, after having said `after`."""

    error: ModelError
    after: str = ""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say `after`, then nothing for ever. A `deaf` one ignores being closed."""

    after: str = ""
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Nothing is said; `callback` is called when the stream comes to this place."""

    callback: Callable[[], object]


Part = str | Say | Call | Fail | Stall | Meanwhile
Reply = Part | Sequence[Part]
Script = Sequence[Reply] | Callable[[ModelRequest], Reply]


class ScriptedModel:
    """A Model. `requests` holds every request it was asked, in order."""

    def __init__(
        self,
        script: Script,
        *,
        spec: str = "scripted:model",
        usage: Usage = Usage(input=10, output=5),
        pause: float = 0.0,
    ) -> None:
        self._script = script if callable(script) else list(script)
        self._spec = spec
        self._usage = usage
        self._pause = pause
        self.requests: list[ModelRequest] = []
        self.keep_requests = True
        """False: only count them, for long runs."""
        self.asked = 0
        self.closed = 0
        """Streams that ended before they were complete."""

    @property
    def spec(self) -> str:
        return self._spec

    @property
    def context_window(self) -> int | None:
        return None

    async def warm(self) -> None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        if self.keep_requests:
            self.requests.append(_frozen(request))
        self.asked += 1
        number = self.asked
        reply = self._next(request)
        parts = [reply] if isinstance(reply, Part) else list(reply)
        content: list[Content] = []
        stop: StopReason = "stop"
        finished = False
        try:
            for part in parts:
                async for event in self._play(part, content, number):
                    yield event
                if isinstance(part, Say) and part.stop != "stop":
                    stop = part.stop
            if stop == "stop" and any(isinstance(block, ToolCall) for block in content):
                stop = "tools"
            finished = True
            yield Completed(content=tuple(content), stop=stop, usage=self._usage, response_id=f"resp_{number}")
        finally:
            self.closed += not finished

    def _next(self, request: ModelRequest) -> Reply:
        if callable(self._script):
            return self._script(request)
        if len(self.requests) > len(self._script):
            raise ModelError(
                f"the script has {len(self._script)} replies and this is request {len(self.requests)}", kind="unknown"
            )
        return self._script[len(self.requests) - 1]

    async def _play(self, part: Part, content: list[Content], number: int) -> AsyncGenerator[ModelEvent, None]:
        if isinstance(part, str):
            part = Say(part, pause=self._pause)
        if isinstance(part, Say):
            async for event in _say(part, content):
                yield event
        elif isinstance(part, Call):
            yield Activity()
            id = part.id or f"call_{number}_{len(content)}"
            content.append(ToolCall(id=id, name=part.name, arguments=part.arguments, arguments_error=part.arguments_error))
        elif isinstance(part, Fail):
            async for event in _say(Say(part.after), content):
                yield event
            raise part.error
        elif isinstance(part, Meanwhile):
            yield Activity()
            part.callback()
        else:
            async for event in _say(Say(part.after), content):
                yield event
            await _stall(part.deaf)


async def _say(part: Say, content: list[Content]) -> AsyncGenerator[ModelEvent, None]:
    if part.thinking:
        yield ThinkingDelta(len(content), part.thinking)
        content.append(Thinking(text=part.thinking, signature="signed"))
    for start in range(0, len(part.text), part.chunk):
        if part.pause:
            await asyncio.sleep(part.pause)
        yield TextDelta(len(content), part.text[start : start + part.chunk])
    if part.text:
        content.append(Text(text=part.text))


async def _stall(deaf: bool) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not deaf:
                raise


def _frozen(request: ModelRequest) -> ModelRequest:
    return replace(request, messages=tuple(request.messages), tools=tuple(request.tools))


def last_text(request: ModelRequest) -> str:
    """What stands last in the request: a user's words or a tool's result."""
    for message in reversed(request.messages):
        if isinstance(message, UserMessage | ToolMessage):
            return "\n".join(block.text for block in message.content if isinstance(block, Text))
    return ""


def by_turn(replies: Sequence[Reply | Callable[[ModelRequest], Reply]]) -> Callable[[ModelRequest], Reply]:
    """A script without memory: reply `i` to a request that contains `i` finished responses; asked to continue after a part
    of it, the rest. A reply may be a function of the request. Call ids are those of the turn, whoever asks how often."""

    def script(request: ModelRequest) -> Reply:
        turn = sum(isinstance(message, AssistantMessage) and not message.interrupted for message in request.messages)
        if turn >= len(replies):
            raise ModelError(f"the script has {len(replies)} turns and this is turn {turn + 1}", kind="unknown")
        reply = replies[turn]
        chosen = reply(request) if callable(reply) else reply
        parts = [chosen] if isinstance(chosen, Part) else list(chosen)
        named = [
            replace(part, id=part.id or f"call_{turn}_{place}") if isinstance(part, Call) else part
            for place, part in enumerate(parts)
        ]
        return _rest(named, already_said(request.messages))

    return script


def already_said(messages: Sequence[ContextMessage]) -> str:
    """What the model has said of the message it is asked to continue; empty when it is not, or when somebody spoke since."""
    said: list[str] = []
    for message in reversed(messages):
        if isinstance(message, AssistantMessage) and message.interrupted:
            said.append(_text(message))
        elif not (isinstance(message, UserMessage) and _text(message).startswith("<note ")):
            break
    return "".join(reversed(said))


def _rest(parts: Sequence[Part], said: str) -> list[Part]:
    """The parts without the first `len(said)` characters of their text. Who has said everything thinks, and says nothing."""
    left, rest = len(said), list[Part]()
    for part in parts:
        if left == 0 or isinstance(part, Call | Meanwhile):
            rest.append(part)
            continue
        text = _words(part)
        skipped, left = min(left, len(text)), max(0, left - len(text))
        if isinstance(part, str):
            rest.append(text[skipped:])
        elif isinstance(part, Say):
            rest.append(replace(part, text=text[skipped:], thinking=""))
        else:
            rest.append(replace(part, after=text[skipped:]))
    if said and not any(isinstance(part, Call) or _words(part) for part in rest):
        rest.append(Say("", thinking="Nothing is missing."))
    return rest


def _words(part: Part) -> str:
    return part if isinstance(part, str) else part.text if isinstance(part, Say) else getattr(part, "after", "")


def _text(message: ContextMessage) -> str:
    return "".join(block.text for block in message.content if isinstance(block, Text))


_ORDER = re.compile(r"CALL (\w+)(?: (\{.*?\}))?(?=\s|$)", re.DOTALL)


def obedient(request: ModelRequest) -> Reply:
    """A script that obeys whatever it reads: `CALL name {json}` in the last message becomes that call; else it repeats
    the text. Nothing it does is more than its host allows."""
    import msgspec

    text = last_text(request)
    calls = [Call(name, msgspec.json.decode(raw or "{}")) for name, raw in _ORDER.findall(text)]
    return calls or Say(text or "nothing")
