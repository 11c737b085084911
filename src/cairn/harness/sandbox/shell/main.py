"""The program: one command at a time, each in a shell made for it, until the host closes the socket.

Laws. Nothing is kept between two commands but the library itself: where the shell was, its variables and functions come from
the host with each command and go back to it. So any worker can run any command of its tenant, and one that is lost loses one
command.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
from collections.abc import Callable
from typing import Any

from .bridge import Bridge
from .changes import changes
from .jail import close_in
from .python import load_library
from .remote import HostFiles, command, fetching_commands, python, searcher, toucher
from .searching import NAME as SEARCHER
from .system import system_tree
from .touching import NAME as TOUCH
from .tree import Files
from .wire import Gone, Wire

#: Commands of one script. The library ends a session at 100,000, whatever it is told; here a session is one script.
COMMANDS_MAX = 100_000
LOOPS_MAX = 1_000_000

#: Nothing: the host says with each script how long it may take, and ends the worker when that is not kept.
SECONDS_MAX = 7_200.0

#: The length of what a state is known by, which stands before it.
KNOWN_BYTES = 32

FORGOTTEN = b"bash: the variables and functions of the last command could not be restored\n"

#: One write to the host, so that it can count before it has a large output in memory.
OUTPUT_BYTES_MAX = 256 * 1024

#: Everything goes where a terminal would show it, in the order it is written. On the script's first line: its lines keep their
#: numbers.
TOGETHER = "exec 2>&1;"

#: Set by the library for its own use; not the shell's state.
VOLATILE = {"_", "PIPESTATUS", "OPTIND", "BASHKIT_ALLOW_INPROCESS_PYTHON", "BASHKIT_ALLOW_INPROCESS_SQLITE"}

HOME = "/workspace"


def main(descriptor: int, parent: int) -> None:
    """Serve until the host is gone. Never returns: what the shell left behind must not run on."""
    import bashkit

    wire = Wire(socket.socket(fileno=descriptor))
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    load_library()
    holds = close_in(parent)
    try:
        server = Server(wire, bashkit)
        loop.run_until_complete(server.prepare())
        wire.tell({"op": "ready", "holds": holds, "version": bashkit.get_version()})
        while True:
            request, state = wire.take()
            try:
                loop.run_until_complete(server.run(request, state))
            except (bashkit.BashError, ValueError, RuntimeError, MemoryError) as error:
                wire.tell({"op": "failed", "text": f"the shell failed: {type(error).__name__}: {error}"})
    except Gone:
        pass
    finally:
        os._exit(0)


class Server:
    """The shells of one worker."""

    def __init__(self, wire: Wire, library: Any) -> None:
        self._wire = wire
        self._library = library
        self._bridge = Bridge()
        self._files = library.FileSystem.from_capsule(self._bridge.capsule())
        self._plain = library.Bash(python=True, sqlite=True).fs()
        self._system = system_tree(self._plain)
        self._spare: tuple[Any, Any] | None = None
        """A shell that is ready, and what it was made for."""
        self._is_used = False
        """Code has run in this interpreter: what it left behind must not be there for another command."""
        self._fresh = b""
        """What a shell is known by in which nothing was set."""

    def _use(self) -> None:
        self._is_used = True

    async def prepare(self) -> None:
        """The first command need not wait for what every command needs."""
        self._fresh = await _known(self._shell([], False))
        self._spare = ([], False), self._shell([], False)

    async def run(self, request: dict[str, Any], state: bytes) -> None:
        """Run one script and tell the host everything about it."""
        files = self._bridge.files = Files(HostFiles(self._wire), self._system, request["now"], self._plain.read_file)
        made_for = request["commands"], request["network"]
        spare, self._spare = self._spare, None
        shell = spare[1] if spare is not None and spare[0] == made_for else self._shell(*made_for)
        if state and not self._restored(shell, state[KNOWN_BYTES:]):
            self._wire.tell({"op": "output"}, FORGOTTEN)
        if (problem := await self._begin(shell, request)) is not None:
            self._wire.tell({"op": "failed", "text": problem})
            return
        code, error, timed_out = await self._execute(shell, request)
        is_aside = request["cwd"] is not None or bool(request["env"])
        after = b"" if is_aside or timed_out else await self._state(shell, state)
        files.is_over = True
        operations, contents = ([], []) if timed_out else changes(files, request["aside"])
        header = {
            "op": "done",
            "code": code,
            "timed_out": timed_out,
            "error": error,
            "cwd": shell.shell_state().cwd,
            "used": self._is_used,
            "changes": operations,
            "state": len(after),
        }
        self._wire.tell(header, b"".join([*contents, after]))
        self._spare = made_for, self._shell(*made_for)

    async def _execute(self, shell: Any, request: dict[str, Any]) -> tuple[int, str | None, bool]:
        tell = _teller(self._wire)
        work = shell.execute(TOGETHER + request["script"], stdout=tell, stderr=tell, capture=0)
        try:
            async with asyncio.timeout(request["seconds"]):
                result = await work
        except TimeoutError:
            return 124, None, True
        return result.exit_code, result.error, False

    def _shell(self, commands: list[str], network: bool) -> Any:
        shell = self._library.Bash(
            username="agent",
            hostname="cairn",
            cwd=HOME,
            env={"HOME": HOME},
            max_commands=COMMANDS_MAX,
            max_loop_iterations=LOOPS_MAX,
            timeout_seconds=SECONDS_MAX,
            python=True,
            sqlite=True,
            profile=self._library.ExecutionProfile.Interactive,
        )
        shell.mount("/", self._files)
        shell.add_command(SEARCHER, searcher(lambda: self._bridge.current))
        shell.add_command(TOUCH, toucher(lambda: self._bridge.current))
        for name in ("python", "python3"):
            shell.add_command(name, python(lambda: self._bridge.current, self._use))
        for name in commands:
            shell.add_command(name, command(self._wire, name))
        if network:
            for name, callback in fetching_commands(self._wire).items():
                shell.add_command(name, callback)
        return shell

    async def _begin(self, shell: Any, request: dict[str, Any]) -> str | None:
        for name, value in request["env"].items():
            shell.set_env(name, value)
        if request["cwd"] is not None:
            moved = await shell.execute("cd -- " + _quoted(request["cwd"]))
            if moved.exit_code:
                return f"{request['cwd']} is not a directory"
        return None

    def _restored(self, shell: Any, saved: bytes) -> bool:
        """The shell is as it was saved, even by another version and with other commands; False: it cannot be."""
        id, rest = saved[:32].hex(), saved[32:]
        objects: dict[str, bytes] = {}
        while rest:
            size = int.from_bytes(rest[32:36], "big")
            objects[rest[:32].hex()] = rest[36 : 36 + size]
            rest = rest[36 + size :]
        try:
            shell.checkout(id, objects, policy="force")
        except self._library.BashError:
            return False
        return True

    async def _state(self, shell: Any, before: bytes) -> bytes:
        """What the next command has to find again, or nothing when it is what the host has already."""
        now = await _known(shell)
        return b"" if now == (before[:KNOWN_BYTES] or self._fresh) else now + _saved(shell)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _teller(wire: Wire) -> Callable[[bytes], Any]:
    async def tell(data: bytes) -> None:
        for start in range(0, len(data), OUTPUT_BYTES_MAX):
            wire.tell({"op": "output"}, bytes(data[start : start + OUTPUT_BYTES_MAX]))

    return tell


def _saved(shell: Any) -> bytes:
    """Directory, variables, arrays, functions and aliases, as the library keeps them."""
    commit = shell.commit(exclude_filesystem=True)
    parts = [bytes.fromhex(commit.id)]
    for id, data in commit.objects.items():
        parts += [bytes.fromhex(id), len(data).to_bytes(4, "big"), data]
    return b"".join(parts)


async def _known(shell: Any) -> bytes:
    """By what a shell's state is known: equal for equal states, which a snapshot is not."""
    seen = shell.shell_state()
    functions = await shell.execute("declare -f")
    described = [
        seen.cwd,
        sorted((name, value) for name, value in seen.env.items() if name not in VOLATILE),
        sorted((name, value) for name, value in seen.variables.items() if name not in VOLATILE),
        sorted((name, sorted(each.items())) for name, each in seen.arrays.items() if name not in VOLATILE),
        sorted((name, sorted(each.items())) for name, each in seen.assoc_arrays.items()),
        sorted(seen.aliases.items()),
        functions.stdout,
    ]
    return hashlib.sha256(json.dumps(described).encode()).digest()
