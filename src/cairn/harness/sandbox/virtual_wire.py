"""What a shell worker may say, and how far it is believed: not at all.

Laws. Everything from a worker is input from an enemy: it is decoded into these types or the worker is ended. Sizes are bounded
before anything is read. What the words mean is checked where they are used: a path by the workspace, a count by whoever
counts.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec

from cairn.errors import SandboxError

LENGTHS = struct.Struct("!II")

#: A header: at most the changes of as many files as a workspace may have, with paths of ordinary length.
HEADER_BYTES_MAX = 32 * 1024 * 1024
#: A payload: what one command may write, and its shell's state.
PAYLOAD_BYTES_MAX = 260 * 1024 * 1024
#: What a worker may send and not be asked for: the rest waits in its socket.
BUFFERED_BYTES = 1024 * 1024
OPERATIONS_MAX = 250_000


class Spoke(msgspec.Struct, tag_field="op", forbid_unknown_fields=True):
    """One frame's header."""


class Ready(Spoke, tag="ready"):
    holds: list[str]
    version: str


class Output(Spoke, tag="output"):
    pass


class Look(Spoke, tag="look"):
    path: str


class List(Spoke, tag="list"):
    path: str


class Read(Spoke, tag="read"):
    path: str


class ReadMany(Spoke, tag="reads"):
    paths: list[str]


class Run(Spoke, tag="run"):
    name: str
    argv: list[str]
    cwd: str


class Fetch(Spoke, tag="fetch"):
    method: str
    url: str
    headers: list[tuple[str, str]]
    follow: bool = False
    seconds: float = 30.0


class Move(msgspec.Struct, array_like=True, tag="move"):
    old: str
    new: str


class Remove(msgspec.Struct, array_like=True, tag="remove"):
    path: str


class MakeDirectory(msgspec.Struct, array_like=True, tag="mkdir"):
    path: str


class MakeLink(msgspec.Struct, array_like=True, tag="link"):
    path: str
    target: str


class Write(msgspec.Struct, array_like=True, tag="write"):
    path: str
    size: int


class SetMode(msgspec.Struct, array_like=True, tag="mode"):
    path: str
    mode: int


class SetTime(msgspec.Struct, array_like=True, tag="time"):
    path: str
    mtime: float


Operation = Move | Remove | MakeDirectory | MakeLink | Write | SetMode | SetTime


class Done(Spoke, tag="done"):
    code: int
    timed_out: bool
    error: str | None
    cwd: str
    changes: list[Operation]
    state: int
    used: bool = False
    """Code has run in the worker's own interpreter; it is not to run another command."""


class Failed(Spoke, tag="failed"):
    text: str


Frame = Ready | Output | Look | List | Read | ReadMany | Run | Fetch | Done | Failed

_decode = msgspec.json.Decoder(Frame).decode
_encode = msgspec.json.Encoder().encode


class Garbage(SandboxError):
    """A worker said something that cannot be."""


class Line:
    """The socket to one worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def take(self) -> tuple[Frame, bytes]:
        """The next frame. *Raises* Garbage; EOFError when the worker has ended."""
        try:
            header, payload = LENGTHS.unpack(await self._reader.readexactly(LENGTHS.size))
            if header > HEADER_BYTES_MAX or payload > PAYLOAD_BYTES_MAX:
                raise Garbage(f"a shell worker announced {header + payload:,} bytes")
            text = await self._reader.readexactly(header)
            data = await self._reader.readexactly(payload) if payload else b""
        except (asyncio.IncompleteReadError, OSError) as error:
            raise EOFError from error
        try:
            return _decode(text), data
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Garbage(f"a shell worker sent what is no frame: {error}") from error

    async def send(self, header: Any, payload: bytes = b"") -> None:
        """The frame is on its way. *Raises* EOFError."""
        data = _encode(header)
        self._writer.write(LENGTHS.pack(len(data), len(payload)) + data)
        if payload:
            self._writer.write(payload)
        try:
            await self._writer.drain()
        except OSError as error:
            raise EOFError from error

    def close(self) -> None:
        self._writer.close()
