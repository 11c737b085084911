"""The scripted engineer as a model: it says its move piece by piece, as fast as real models do, and calls its tools.

Laws. It keeps nothing between two requests: what it says follows from the request, so it can be asked by any process. Asked
to go on after a part of its message, it says the rest. Token counts are estimates, four characters each.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from cairn.clock import Clock, SystemClock
from cairn.framework.demo.knowledge import Step
from cairn.framework.demo.script import Move, next_move
from cairn.framework.demo.witness import Witness
from cairn.harness.messages import AssistantMessage, Content, ContextMessage, Text, ToolCall, ToolMessage, Usage, UserMessage
from cairn.harness.models.protocol import Activity, Completed, ModelEvent, ModelRequest, TextDelta

#: Characters a second: about 80 tokens, what large models stream. 0 is as fast as it goes.
CHARACTERS_PER_SECOND = 320.0

#: What a provider would count as one token of English.
CHARACTERS_PER_TOKEN = 4

_PIECES = re.compile(r"\s*\S+\s*?")


@dataclass(frozen=True, slots=True)
class Transcript:
    """What the script looks at: finished calls, how many answers are finished, and how much of the next one was said."""

    steps: tuple[Step, ...]
    finished: int
    said: str


class ScriptedEngineer:
    """A Model. `pace` is in characters a second; 0 does not wait."""

    def __init__(
        self, *, pace: float = CHARACTERS_PER_SECOND, witness: Witness | None = None, clock: Clock | None = None
    ) -> None:
        self._pace = pace
        self._witness = witness
        self._clock: Clock = clock or SystemClock()

    @property
    def spec(self) -> str:
        return "scripted:engineer"

    @property
    def context_window(self) -> int | None:
        return None

    async def warm(self) -> None:
        return None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        transcript = transcript_of(request.messages)
        if self._witness is not None:
            self._witness.request(transcript.finished, len(transcript.said))
        move = next_move(transcript.steps)
        text = rest(move.text, transcript.said)
        yield Activity()
        for piece in _PIECES.findall(text):
            if self._pace > 0:
                await self._clock.sleep(len(piece) / self._pace)
            yield TextDelta(0, piece)
        yield Completed(
            content=content_of(move, text, transcript.finished),
            stop="tools" if move.calls else "stop",
            usage=Usage(input=_tokens(_size(request)), output=_tokens(len(text) + _calls_size(move))),
        )


def transcript_of(messages: Sequence[ContextMessage]) -> Transcript:
    """The conversation as steps: each call with its result, in the order in which they were asked for."""
    results = {message.call: message for message in messages if isinstance(message, ToolMessage)}
    steps: list[Step] = []
    finished = 0
    said: list[str] = []
    for message in messages:
        if isinstance(message, AssistantMessage) and message.interrupted:
            said.append(text_of(message))
        elif isinstance(message, AssistantMessage):
            finished += 1
            said.clear()
            calls = [block for block in message.content if isinstance(block, ToolCall)]
            steps += [_step(call, results[call.id]) for call in calls if call.id in results]
    return Transcript(tuple(steps), finished, "".join(said))


def _step(call: ToolCall, result: ToolMessage) -> Step:
    return Step(call.name, call.arguments, text_of(result), result.is_error)


def text_of(message: UserMessage | AssistantMessage | ToolMessage) -> str:
    """The words of a message."""
    return "".join(block.text for block in message.content if isinstance(block, Text))


def rest(text: str, said: str) -> str:
    """What is left to say; everything, if what was said is not its beginning."""
    return text[len(said) :] if text.startswith(said) else text


def content_of(move: Move, text: str, finished: int) -> tuple[Content, ...]:
    """The message: what is said, then the calls. A call's id follows from its place in the conversation."""
    words: tuple[Content, ...] = (Text(text=text),) if text else ()
    calls = [
        ToolCall(id=f"call_{finished + 1}_{place + 1}", name=name, arguments=arguments)
        for place, (name, arguments) in enumerate(move.calls)
    ]
    return (*words, *calls)


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)


def _size(request: ModelRequest) -> int:
    tools = sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in request.tools)
    return len(request.system) + tools + sum(len(text_of(message)) for message in request.messages)


def _calls_size(move: Move) -> int:
    return sum(len(name) + len(str(arguments)) for name, arguments in move.calls)
