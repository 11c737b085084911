"""What a command asks of the host: files of the workspace, commands in Python, and the network where that is granted."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - what asyncio would load later, when no file can be opened any more
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from .fetch import Fetch, curl, wget
from .python import Interpreter
from .searching import searched
from .touching import touch
from .tree import OTHER, FileError, Files, Node
from .wire import Wire

#: What a command in Python is given as its standard input.
INPUT_BYTES_MAX = 16 * 1024 * 1024

Callback = Callable[[Any], Awaitable[Any]]


class HostFiles:
    """The workspace, over the wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def look(self, path: str) -> Node | None:
        answer, _ = self._ask({"op": "look", "path": path})
        found = answer["entry"]
        return None if found is None else _node(found, path)

    def list(self, path: str) -> list[tuple[str, Node]]:
        answer, _ = self._ask({"op": "list", "path": path})
        return [(name, _node(found, f"{path.rstrip('/')}/{name}")) for name, found in answer["entries"]]

    def read(self, path: str) -> bytes:
        return self._ask({"op": "read", "path": path})[1]

    def read_many(self, paths: Sequence[str]) -> Sequence[bytes]:
        answer, payload = self._ask({"op": "reads", "paths": list(paths)})
        ends = list(accumulate(answer["sizes"], initial=0))
        return [payload[start:end] for start, end in pairwise(ends)]

    def _ask(self, header: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        answer, payload = self._wire.ask(header)
        if "error" in answer:
            raise FileError(answer.get("kind", OTHER), answer["error"])
        return answer, payload


def _node(found: Any, path: str) -> Node:
    kind, mode, size, mtime, target = found
    return Node(kind, mode, size, mtime, target, origin=path)


def command(wire: Wire, name: str) -> Callback:
    """A command of the shell that runs in the host."""

    async def run(context: Any) -> Any:
        header = {"op": "run", "name": name, "argv": list(context.argv), "cwd": context.cwd}
        payload = await _input(context)
        answer, output = await asyncio.to_thread(wire.ask, header, payload)
        await _write(context.stdout, output)
        await _write(context.stderr, answer["errors"].encode())
        return answer["code"]

    return run


def searcher(files: Callable[[], Files]) -> Callback:
    """The grep tool's command."""

    async def run(context: Any) -> Any:
        code, output = searched(files(), context.cwd, list(context.argv))
        for part in output:
            await _write(context.stdout, part)
        return code

    return run


def toucher(files: Callable[[], Files]) -> Callback:
    """`touch`."""

    async def run(context: Any) -> Any:
        now = files()
        code, errors = touch(now, context.cwd, list(context.argv), now.now())
        await _write(context.stderr, errors.encode())
        return code

    return run


def python(files: Callable[[], Files], used: Callable[[], None]) -> Callback:
    """`python3`, in a thread of its own: the worker has to answer for the code while it runs."""

    async def run(context: Any) -> Any:
        used()
        payload = await _input(context)
        loop = asyncio.get_running_loop()

        def to(stream: Any) -> Callable[[bytes], None]:
            return lambda data: asyncio.run_coroutine_threadsafe(_write(stream, data), loop).result()

        interpreter = Interpreter(files(), context.cwd, dict(context.env), to(context.stdout), to(context.stderr))
        return await asyncio.to_thread(interpreter.run, list(context.argv), payload)

    return run


def fetching_commands(wire: Wire) -> dict[str, Callback]:
    """`curl` and `wget` whose requests are made by the host."""

    def ask(method: str, url: str, headers: list[tuple[str, str]], body: bytes, options: dict[str, Any]) -> Fetch:
        header = {"op": "fetch", "method": method, "url": url, "headers": headers, **options}
        answer, payload = wire.ask(header, body)
        if "error" in answer:
            return Fetch(0, [], b"", answer["error"])
        return Fetch(answer["status"], [(name, value) for name, value in answer["headers"]], payload, "", answer["url"])

    def made(program: Callable[..., Any]) -> Callback:
        async def run(context: Any) -> Any:
            payload = await _input(context)
            code, output, errors = await asyncio.to_thread(program, list(context.argv), payload, context.cwd, context.fs, ask)
            await _write(context.stdout, output)
            await _write(context.stderr, errors.encode())
            return code

        return run

    return {"curl": made(curl), "wget": made(wget)}


async def _input(context: Any) -> bytes:
    parts = bytearray()
    while len(parts) < INPUT_BYTES_MAX:
        part = await context.stdin.read_chunk()
        if part is None:
            break
        parts += part
    return bytes(parts[:INPUT_BYTES_MAX])


async def _write(stream: Any, data: bytes) -> None:
    if data:
        await stream.write(data)
