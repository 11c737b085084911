"""MCP servers as functions: real server processes, and a real one over HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.programs.mcp_server import made
from tests.programs.serving import serving

from cairn import Agent, App
from cairn.errors import ToolError, UsageError
from cairn.harness.code_stubs import declaration
from cairn.harness.mcp_module import McpServer
from cairn.harness.tools import Tool
from cairn.testing.scripted import Call, ScriptedModel

SERVER = Path(__file__).parent / "mcp_server.py"


def local(**options: Any) -> McpServer:
    return McpServer("box", command=[sys.executable, str(SERVER)], **options)


class Caller:
    key = "k"


async def call(tool: Tool, **arguments: Any) -> Any:
    return await tool.run(Caller(), tool.validate(arguments))


def with_tools(main: Callable[[McpServer, dict[str, Tool]], Awaitable[None]], server: McpServer) -> None:
    async def run() -> None:
        try:
            await main(server, {tool.name: tool for tool in await server.tools()})
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.system
def test_a_servers_tools_are_typed_functions_with_the_repeat_class_of_their_hints() -> None:
    """S9: hints say what a repeat means, unless they are not trusted; names are the server's and the tool's."""
    tools = {tool.name: tool for tool in local().load()}
    careful = {tool.name: tool.repeat for tool in local(trust=False).load(["add", "put"])}

    assert [tools[name].repeat for name in ("box_add", "box_put", "box_environment")] == ["safe", "keyed", "never"]
    assert declaration(tools["box_add"].spec, "box_add").startswith("async def box_add(a: int, b: int) -> Any:")
    assert careful == {"box_add": "never", "box_put": "never"}


@pytest.mark.system
def test_a_server_is_started_once_and_again_after_it_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call it died in is told so and not made again; the next one finds a new server, without the host's environment."""
    monkeypatch.setenv("HOST_SECRET", "x")

    async def main(server: McpServer, tools: dict[str, Tool]) -> None:
        first = (await call(tools["box_put"], path="a", text="b")).content
        assert (await call(tools["box_put"], path="a", text="b")).content == first
        with pytest.raises(ToolError, match="box"):
            await call(tools["box_die"])
        again = (await call(tools["box_put"], path="a", text="b")).content
        assert again != first
        pid = msgspec.json.decode(again)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert msgspec.json.decode((await call(tools["box_put"], path="a", text="b")).content)["pid"] != pid, "it is keyed"
        names = (await call(tools["box_environment"])).content
        assert "GIVEN" in names and "HOST_SECRET" not in names

    with_tools(main, local(env={"GIVEN": "1"}))


@pytest.mark.system
def test_what_a_server_says_wrong_is_an_error_in_words() -> None:
    """A tool that fails, an answer that is too long, arguments that do not fit, a program that is none."""

    async def main(server: McpServer, tools: dict[str, Tool]) -> None:
        with pytest.raises(ToolError, match="not today"):
            await call(tools["box_fail"], why="not today")
        with pytest.raises(ToolError, match="more than 1,000,000"):
            await call(tools["box_much"])
        with pytest.raises(ValueError, match="expected an integer"):
            await call(tools["box_add"], a="x", b=1)
        results = await asyncio.gather(*(call(tools["box_add"], a=number, b=1) for number in range(20)))
        assert [result.content for result in results] == [str(number + 1) for number in range(20)]

    with_tools(main, local())
    with pytest.raises(ToolError, match="box"):
        McpServer("box", command=["/nonexistent/program"]).load()
    with pytest.raises(ToolError, match="box"):
        McpServer("box", command=[sys.executable, "-c", "raise SystemExit(1)"]).load()


@pytest.mark.parametrize("options", [{}, {"command": "a b"}, {"command": []}, {"command": ["a"], "url": "http://x"}])
def test_a_server_is_a_command_or_an_address(options: dict[str, Any]) -> None:
    """Said where it is written."""
    with pytest.raises(UsageError, match="command="):
        McpServer("box", **options)
    with pytest.raises(UsageError, match="identifier"):
        McpServer("a box", url="http://x")


@pytest.mark.slow
def test_a_server_over_http_answers_again_after_it_was_restarted() -> None:
    """Streamable HTTP; the address outlives the process behind it."""

    async def main(server: McpServer, tools: dict[str, Tool]) -> None:
        assert (await call(tools["box_add"], a=1, b=2)).content == "3"

    with serving(made().streamable_http_app()) as url:
        with_tools(main, McpServer("box", url=f"{url}/mcp", headers={"Authorization": "Bearer x"}))
        server = McpServer("box", url=f"{url}/mcp")
        tools = {tool.name: tool for tool in server.load()}
    with pytest.raises(ToolError, match="box"):
        asyncio.run(call(tools["box_add"], a=1, b=2))


@pytest.mark.system
def test_a_program_calls_a_server(tmp_path: Path) -> None:
    """Code mode over a real process, loaded where the agent is defined, reached when it is called."""
    server = local()
    program = "import asyncio\nsum(await asyncio.gather(*[box_add(a=n, b=1) for n in range(5)]))"
    model = ScriptedModel([Call("run_program", {"code": program}), "Done."])
    agent = Agent("clerk", model=model, tools=server.load(["add"]), codemode=True)

    async def main() -> None:
        async with App([agent], store=tmp_path / "c.db") as app:
            reply = await asyncio.wait_for((await app.conversation(agent, "c").send("Go.")).reply(), 30)
            assert reply.text == "Done."
        await server.close()

    asyncio.run(main())
    (result,) = [block.text for block in model.requests[-1].messages[-1].content]  # type: ignore[union-attr]
    assert result == "15"
