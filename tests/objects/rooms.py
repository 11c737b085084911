"""The objects that clients talk to in these tests, one class for each thing a client can meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from cairn.runtime import DurableObject
from cairn.runtime.callables import callable
from cairn.runtime.connections import Connection
from cairn.runtime.request import Request, Response


@dataclass
class RoomState:
    count: int = 0
    names: list[str] = field(default_factory=list)


class Room(DurableObject[RoomState]):
    """A counter and what is said in it."""

    @callable
    async def add(self, by: int = 1) -> int:
        self.state.count += by
        return self.state.count

    @callable(read_only=True)
    async def look(self) -> dict[str, Any]:
        return {"count": self.state.count, "connections": sorted(each.id for each in self.connections)}

    @callable
    async def up_to(self, to: int, stop_at: int = -1) -> AsyncGenerator[int, None]:
        for number in range(to):
            if number == stop_at:
                raise ValueError(f"stopped at {number}")
            yield number

    @callable(timeout=60.0)
    async def endless(self) -> AsyncGenerator[int, None]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.01)

    @callable(read_only=True)
    async def lines(self, to: int) -> AsyncGenerator[Any, None]:
        for number in range(to):
            yield f"data: {number}\n\n" if number % 2 == 0 else {"number": number}

    @callable
    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @callable
    async def fail(self) -> None:
        raise ValueError("no such luck")

    @callable
    async def greet(self, name: str) -> None:
        await self.sub_object(Desk, name).note("made")

    @callable
    async def leave(self) -> None:
        await self.destroy()

    async def hidden(self) -> str:
        return "never"

    def validate_state(self, state: RoomState, source: str) -> None:
        if state.count < 0:
            raise ValueError("a count is never negative")

    async def on_connect(self, connection: Connection, request: Request) -> None:
        if request.argument("refuse"):
            raise ValueError("the room is full")
        connection.set_state({"by": connection.by})
        connection.send(f"welcome {request.path}")

    async def on_message(self, connection: Connection, message: str | bytes) -> None:
        if message == "close":
            connection.close(4001, "as you wish")
        elif isinstance(message, bytes):
            connection.send(message[::-1])
        else:
            self.broadcast(f"{connection.state['by']}: {message}", without=[connection.id])

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        self.state.names.append(f"left {code}")

    async def on_request(self, request: Request) -> Response:
        if request.path == "/page":
            return Response(b"<h1>hi</h1>", 200, (("content-type", "text/html"),))
        if request.path == "/own":
            policy = ("content-security-policy", "default-src 'self'")
            return Response(b"", 201, (policy, ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("connection", "upgrade")))
        if request.path == "/split":
            return Response(b"", 200, (("x-a", "b\r\nset-cookie: evil=1"),))
        if request.path == "/fail":
            raise ValueError("the password is hunter2")
        if request.path == "/stream":
            return Response.streaming("lines", int(request.argument("to", "3")), type="text/event-stream")
        if request.path == "/endless":
            return Response.streaming("endless")
        if request.path == "/no-stream":
            return Response.streaming(request.argument("method"))
        if request.path == "/empty":
            return Response(b"ignored", 204)
        return Response.json(
            {
                "method": request.method,
                "path": request.path,
                "by": request.by,
                "query": request.query,
                "headers": dict(request.headers),
                "body": request.body.decode(),
                "id": self.id,
            }
        )


@dataclass
class DeskState:
    notes: list[str] = field(default_factory=list)


class Desk(DurableObject[DeskState]):
    """A sub-object of a room."""

    @callable
    async def note(self, text: str) -> int:
        self.state.notes.append(text)
        return len(self.state.notes)

    async def on_request(self, request: Request) -> Response:
        return Response.json({"path": request.path, "notes": self.state.notes})


class Hall(DurableObject[RoomState]):
    """Its clients may only look, and those who say so are told no protocol."""

    def readonly(self, connection: Connection, request: Request) -> bool:
        return True

    def protocol(self, connection: Connection, request: Request) -> bool:
        return not request.argument("plain")

    @callable
    async def set(self, count: int) -> int:
        self.state.count = count
        return count

    async def on_message(self, connection: Connection, message: str | bytes) -> None:
        self.broadcast(f"heard {message!r}")


class Club(DurableObject[RoomState]):
    """It has desks for members, made when they come, and shows nobody the one in the back."""

    @callable
    async def furnish(self) -> None:
        await self.sub_object(Desk, "back").note("hidden")

    def opens(self, kind: str, name: str, request: Request) -> bool:
        return kind == "desk" and (name.startswith("member-") or bool(request.argument("key")))


class MyE2EThing(DurableObject[RoomState]):
    """A name that two ways of writing it in kebab-case write differently."""

    async def on_request(self, request: Request) -> Response:
        await asyncio.sleep(0)
        return Response.text(self.id)


CLASSES: tuple[type[DurableObject[Any]], ...] = (Room, Desk, Hall, Club, MyE2EThing)
