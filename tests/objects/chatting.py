"""A tab of the published chat client, frame by frame, without its browser.

async with tab(app, "c1") as one:
    request = one.ask("hello")
    end = await one.end(request)
    one.message(request)           what its chunks make

Laws. A frame is what the published client would send; what it is told is kept as it came.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.objects.chat_watching import assembled
from tests.objects.knocking import Line, knock

Json = dict[str, Any]

_numbers = itertools.count()


def person(text: str, id: str, *files: Json) -> Json:
    return {"id": id, "role": "user", "parts": [*files, {"type": "text", "text": text}]}


class Tab:
    """One tab."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._asked: dict[int, list[Json]] = {}
        """What it said, by the number of frames it had been told before."""

    # --- what it says

    def ask(self, text: str, *, id: str = "", before: Sequence[Json] = (), files: Sequence[Json] = (), **more: Any) -> str:
        """A message, after what was said before it: the id of the request. `more` is in its body."""
        return self.request([*before, person(text, id or f"ui-{next(_numbers)}", *files)], **more)

    def request(self, messages: Sequence[Json], *, request: str = "", trigger: str = "submit-message", **more: Any) -> str:
        request = request or f"req-{next(_numbers)}"
        body = json.dumps({"messages": list(messages), "trigger": trigger, **more})
        init = {"method": "POST", "body": body}
        self._asked.setdefault(len(self.line.frames), []).append({"type": "ask", "messages": list(messages)})
        self.line.say({"type": "cf_agent_use_chat_request", "id": request, "init": init})
        return request

    def say(self, type: str, **fields: Any) -> None:
        self.line.say({"type": f"cf_agent_{type}", **fields})

    async def probe(self, id: str) -> Json:
        """It asks whether something streams: the first answer."""
        self.say("stream_resume_request", probeId=id)
        return await self.answer(id)

    async def answer(self, probe: str, type: str = "") -> Json:
        def found() -> list[Json]:
            return [each for each in self.line.frames if each.get("probeId") == probe and type in each["type"]]

        await self.line.until(found)
        return found()[0]

    # --- what it was told

    def told(self, request: str) -> list[Json]:
        """The frames of a stream."""
        return [frame for frame in self.line.said("cf_agent_use_chat_response") if frame["id"] == request]

    def chunks(self, request: str) -> list[Json]:
        """Of a stream; from its last beginning on."""
        found: list[Json] = [
            json.loads(frame["body"]) for frame in self.told(request) if frame["body"] and not frame.get("error")
        ]
        starts = [place for place, chunk in enumerate(found) if chunk["type"] == "start"]
        return found[starts[-1] :] if starts else []

    def message(self, request: str) -> Json:
        return assembled(self.chunks(request))

    def text(self, request: str) -> str:
        return text_of(self.message(request))

    @property
    def transcript(self) -> list[Json]:
        """What its client holds: transcripts as they came, its own messages, streams, and messages that were updated."""
        held: list[Json] = []
        told: dict[str, list[Json]] = {}
        for frame in self.history:
            match frame["type"]:
                case "ask":
                    held = [*frame["messages"]]
                case "cf_agent_chat_messages":
                    held = [*frame["messages"]]
                case "cf_agent_chat_clear":
                    held = []
                case "cf_agent_message_updated":
                    held = [frame["message"] if each["id"] == frame["message"]["id"] else each for each in held]
                case "cf_agent_use_chat_response" if frame["body"] and not frame.get("error"):
                    chunk = json.loads(frame["body"])
                    told[frame["id"]] = [chunk] if chunk["type"] == "start" else [*told[frame["id"]], chunk]
                    if chunk["type"] == "start" and all(each["id"] != chunk["messageId"] for each in held):
                        held.append({"id": chunk["messageId"], "role": "assistant", "parts": []})
                    message = assembled(told[frame["id"]])
                    held = [message if each["id"] == message["id"] else each for each in held]
        return held

    @property
    def history(self) -> list[Json]:
        """What was said and told, in order."""
        frames = self.line.frames
        asked = dict(self._asked)
        found: list[Json] = [*asked.pop(0, [])]
        for place, frame in enumerate(frames, 1):
            found += [frame, *asked.get(place, [])]
        return found

    @property
    def streams(self) -> list[str]:
        """The ids of all streams it heard of, in order."""
        return list(dict.fromkeys(frame["id"] for frame in self.line.said("cf_agent_use_chat_response")))

    async def end(self, request: str) -> Json:
        await self.line.until(lambda: any(frame["done"] for frame in self.told(request)))
        return next(frame for frame in self.told(request) if frame["done"])

    async def ends(self, count: int) -> list[str]:
        """The ids of the first so many streams that have ended."""

        def found() -> list[str]:
            return [frame["id"] for frame in self.line.said("cf_agent_use_chat_response") if frame["done"]]

        await self.line.until(lambda: len(found()) >= count)
        return found()[:count]

    async def saying(self, text: str) -> str:
        """A stream that has said so much: its id."""

        def found() -> list[str]:
            return [id for id in self.streams if text in "".join(chunk.get("delta", "") for chunk in self.chunks(id))]

        await self.line.until(found)
        return found()[-1]

    async def until(self, condition: Callable[[], Any]) -> None:
        await self.line.until(condition)


def text_of(message: Mapping[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@asynccontextmanager
async def tab(app: Any, id: str, agent: str = "clerk", **more: Any) -> AsyncIterator[Tab]:
    """Opened, with the transcript it is sent first."""
    async with knock(app, f"/agents/{agent}/{id}", **more) as line:
        await line.until(lambda: line.said("cf_agent_chat_messages"))
        yield Tab(line)
