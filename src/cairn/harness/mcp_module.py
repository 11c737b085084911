"""The tools of an MCP server as tools of ours, for a model or for its programs.

    files = McpServer("files", command=["uvx", "some-server"], env={"TOKEN": …})     # or url="https://…/mcp"
    Agent("clerk", model="…", tools=files.load(), codemode=True)                     # `await files_read(path="a")`

Laws. A server is somebody else's program: what it says of its tools is data, its answers are bounded, and what it needs to know
(tokens) is given to it and shown to nobody. It is started or reached at the first call, kept while it is used, and started
again when it has died; a call that was under way then has an unknown end and is repeated only if its class says so. A server
that says of a tool that it reads only makes it `safe`, idempotent makes it `keyed`; the rest is `never`. Those are hints:
`trust=False` takes none of them.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from cairn.errors import MissingExtra, ToolError, UsageError
from cairn.harness.arguments import compile_schema
from cairn.harness.asking import Asks
from cairn.harness.code_stubs import identifier
from cairn.harness.messages import Image, ResultContent, Text, ToolSpec
from cairn.harness.tools import CallContext, Repeat, Tool, ToolResult

#: Seconds for a server to start and to say what it has.
CONNECT_SECONDS = 30.0
#: Seconds for one call.
CALL_SECONDS = 60.0
#: Seconds without a call after which a server is let go of; the next call reaches it again.
IDLE_SECONDS = 300.0
#: Bytes of one answer.
ANSWER_BYTES_MAX = 1_000_000
#: Tools of one server that are offered; more is a server that wants `only`.
TOOLS_MAX = 500
#: Pages of tools that are read.
PAGES_MAX = 50


class McpServer:
    """One server: how it is reached, and the connection while there is one."""

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        headers: Mapping[str, str] | None = None,
        trust: bool = True,
        timeout: float = CALL_SECONDS,
    ) -> None:
        """`command` is started with `env` (of our environment it sees only PATH, HOME and the like), or `url` is asked, with
        `headers`. Nothing happens yet. *Raises* UsageError."""
        if identifier(name) != name:
            raise UsageError(f"McpServer({name!r}): use a Python identifier: it begins the name of each function")
        if (command is None) == (url is None) or isinstance(command, str) or command == []:
            raise UsageError(f"McpServer({name!r}): give command=['program', 'argument', …] or url='https://…'")
        self.name = name
        self._command, self._url = command, url
        self._env, self._cwd, self._headers = dict(env or {}), cwd, dict(headers or {})
        self._trust, self._timeout = trust, timeout
        self._connection: _Connection | None = None

    # --- what it has

    async def tools(self, only: Collection[str] | None = None, *, approve: Collection[str] = ()) -> list[Tool]:
        """Its tools, called `{name}_{tool}`; a call of one of `approve` waits for a person. *Raises* UsageError, ToolError."""
        listed = await self._reached(_list_tools, again=True)
        names = [each.name for each in listed]
        for wanted in (*(only or ()), *approve):
            if wanted not in names:
                raise UsageError(f"MCP server {self.name!r} has no tool {wanted!r}; it has: {', '.join(names) or 'none'}")
        chosen = [each for each in listed if only is None or each.name in only]
        if len(chosen) > TOOLS_MAX:
            raise UsageError(f"MCP server {self.name!r} has {len(chosen)} tools; name those you want with only=[…]")
        return [self._tool(each, each.name in approve) for each in chosen]

    def load(self, only: Collection[str] | None = None, *, approve: Collection[str] = ()) -> list[Tool]:
        """`tools` for where nothing can be awaited: a module that defines an agent. The server is let go of again."""
        found: list[Tool] = []

        async def main() -> None:
            try:
                found.extend(await self.tools(only, approve=approve))
            finally:
                await self.close()

        _alone(main)
        return found

    async def close(self) -> None:
        """The server is let go of. *Idempotent*; a later call reaches it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    # --- a tool

    def _tool(self, listed: Any, asks: bool) -> Tool:
        repeat = self._repeat(listed.annotations)

        async def run(context: CallContext, arguments: dict[str, Any]) -> ToolResult:
            return await self._call(listed.name, arguments, context.key, again=repeat != "never")

        schema = dict(listed.input_schema or {"type": "object", "properties": {}})
        spec = ToolSpec(
            name=f"{self.name}_{identifier(listed.name)}"[:64],
            description=(listed.description or listed.title or listed.name).strip(),
            parameters=schema,
        )
        return Tool(
            spec=spec,
            run=run,
            validate=compile_schema(schema),
            repeat=repeat,
            timeout_seconds=self._timeout + CONNECT_SECONDS,
            place=f"MCP server {self.name}: {listed.name}",
            asks=Asks("approval") if asks else None,
        )

    def _repeat(self, hints: Any) -> Repeat:
        if hints is None or not self._trust:
            return "never"
        if hints.read_only_hint:
            return "safe"
        return "keyed" if hints.idempotent_hint else "never"

    async def _call(self, tool: str, arguments: dict[str, Any], key: str, again: bool) -> ToolResult:
        async def call(client: Any) -> Any:
            return await client.call_tool(tool, arguments, read_timeout_seconds=self._timeout, meta={"cairn/key": key})

        result = await self._reached(call, again=again)
        content = tuple(_block(each) for each in result.content)
        if sum(len(each.text) for each in content if isinstance(each, Text)) > ANSWER_BYTES_MAX:
            raise ToolError(f"the answer of {tool} has more than {ANSWER_BYTES_MAX:,} characters; ask for less of it")
        if result.is_error:
            raise ToolError("\n".join(each.text for each in content if isinstance(each, Text)) or f"{tool} failed")
        if result.structured_content is not None:
            value = result.structured_content
            # A server of the official kind wraps what is no object: {"result": 5}.
            plain = value["result"] if isinstance(value, dict) and set(value) == {"result"} else value
            return ToolResult(msgspec.json.encode(plain).decode(), is_value=True)
        return ToolResult(content)

    # --- reaching it

    async def _reached(self, ask: Any, *, again: bool) -> Any:
        """What the server answers to `ask`, over the connection there is or a new one. *Raises* ToolError.

        Whether a server that went away did what it was asked is unknown: it is asked again only if it may be.
        """
        while True:
            connection = self._connection
            if connection is None or not connection.is_alive:
                if connection is not None:
                    await connection.close()
                connection = self._connection = _Connection(self.name, functools.partial(_client, self))
            try:
                return await connection.ask(ask)
            except ToolError:
                raise
            except Exception as error:
                if again and not connection.is_alive and connection.was_reached:
                    again = False
                    continue
                raise ToolError(f"MCP server {self.name!r}: {type(error).__name__}: {error}") from None


def _client(server: McpServer) -> Any:
    """A client of the SDK that is not connected yet."""
    try:
        import httpx2
        from mcp import Client, StdioServerParameters
        from mcp.client.streamable_http import streamable_http_client
    except ImportError:
        raise MissingExtra("MCP servers need the SDK: pip install 'cairn-agents[mcp]'") from None
    if server._command is not None:
        program, *arguments = server._command
        return Client(StdioServerParameters(command=program, args=arguments, env=server._env, cwd=server._cwd or os.getcwd()))
    assert server._url is not None
    http = httpx2.AsyncClient(headers=server._headers, timeout=httpx2.Timeout(CONNECT_SECONDS, read=server._timeout))
    return Client(streamable_http_client(server._url, http_client=http))


class _Connection:
    """A connection, held by one task: the SDK wants to be entered and left by the same one."""

    def __init__(self, name: str, client: Any) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Any] = self._loop.create_future()
        self._leave = asyncio.Event()
        self._asking = 0
        self._used = self._loop.time()
        self._task = asyncio.create_task(self._hold(client), name=f"MCP server {name}")

    @property
    def is_alive(self) -> bool:
        return not self._task.done() and not self._leave.is_set() and self._loop is asyncio.get_running_loop()

    @property
    def was_reached(self) -> bool:
        """It stood once: what failed is not the way there."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    async def ask(self, ask: Any) -> Any:
        """What comes of `ask(client)`. A server that dies meanwhile ends it."""
        self._asking += 1
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                client = await asyncio.shield(self._ready)
            asking = asyncio.ensure_future(ask(client))
            try:
                await asyncio.wait({asking, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    raise ConnectionError("the server has gone while it was asked; whether it did it is unknown")
                return asking.result()
            except Exception as error:
                if _is_gone(error):
                    self._leave.set()
                raise
            finally:
                if not asking.done():
                    asking.cancel()
                    await asyncio.wait({asking}, timeout=1.0)
        except TimeoutError:
            self._leave.set()
            raise ConnectionError(f"the server did not answer within {CONNECT_SECONDS:g} s") from None
        finally:
            self._asking -= 1
            self._used = self._loop.time()

    async def close(self) -> None:
        self._leave.set()
        if self._loop is asyncio.get_running_loop() and not self._task.done():
            await asyncio.wait({self._task}, timeout=5.0)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=5.0)

    async def _hold(self, client: Any) -> None:
        try:
            async with client() as reached:
                self._ready.set_result(reached)
                await self._until_unused()
        except BaseException as error:
            if not self._ready.done():
                inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
                is_plain = isinstance(inner, Exception)
                self._ready.set_exception(inner if is_plain else ConnectionError("it was let go of before it had started"))
                self._ready.exception()  # whoever asked has it; nobody may have
            if not isinstance(error, Exception):
                raise

    async def _until_unused(self) -> None:
        while not self._leave.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._leave.wait()
            if self._asking == 0 and self._loop.time() - self._used >= IDLE_SECONDS:
                return


def _is_gone(error: Exception) -> bool:
    """Whether this is the end of a connection, and not an answer."""
    import anyio
    from mcp import MCPError

    if isinstance(error, MCPError):
        return "closed" in str(error).lower() or "timed out" in str(error).lower()
    return isinstance(error, (OSError, anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream))


async def _list_tools(client: Any) -> list[Any]:
    """All tools, page by page."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(PAGES_MAX):
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return found


def _block(content: Any) -> ResultContent:
    """What the server gave, as what a model reads."""
    if content.type == "text":
        return Text(text=content.text)
    if content.type == "image":
        return Image(mime_type=content.mime_type, data=base64.b64decode(content.data))
    if content.type == "resource" and (text := getattr(content.resource, "text", None)) is not None:
        return Text(text=text)
    if content.type == "resource_link":
        return Text(text=f"[{content.name}: {content.uri}]")
    return Text(text=f"[{content.type}, which cannot be shown]")


def _alone(main: Any) -> None:
    """Run it in an event loop of its own, wherever this is called from."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="cairn-mcp")
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
