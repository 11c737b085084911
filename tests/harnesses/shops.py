"""The example harnesses, with an agent whose tools leave their traces in a world, and the provider that answers them.

One conversation of two messages. The first one's answer: three tool calls at once (one of each class), one more, a text; the
second one's: a text. The provider decides by what it is shown, so that who is asked again is answered the same.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from cairn.runtime import Client, DurableObject, ObjectApplication
from cairn.runtime import records as r
from cairn.runtime.storage import SqliteStore
from cairn.testing.history import logs_of
from cairn.testing.providers import Call, ProviderRequest, Reply, Say
from cairn.testing.world import World

EXAMPLES = Path(__file__).parents[2] / "examples"

LIBRARIES = ("pydantic_ai", "openai_agents")

PROMPTS = ("Order a lamp.", "Thank you.")

#: The class of each tool. Whoever may not be repeated does not say so: it is what holds without a word.
TOOLS = {"look": "safe", "charge": "keyed", "launch": "never", "ship": "keyed"}

#: What a tool does to the world before and after its effect; a test lets the process die there.
Around = Callable[[str, str], None]


def respond(request: ProviderRequest) -> Reply:
    """What the model says to what it is shown."""
    _, results = place(request)
    if request.said == PROMPTS[1]:
        return Reply.of(Say("You are ", "welcome."))
    if results == 0:
        calls = [Call(tool, {"item": "lamp"}, id=f"call_{tool}") for tool in ("look", "charge", "launch")]
        return Reply.of(Say("Let me ", "see."), *calls)
    return Reply.of(Call("ship", {"item": "lamp"}, id="call_ship")) if results == 3 else Reply.of(Say("It is ", "on its way."))


def place(request: ProviderRequest) -> tuple[str, int]:
    """Which request of the conversation this is: its message, and how many results it has been given for it."""
    last = max(number for number, entry in enumerate(request.entries) if entry.role == "user" and entry.text == request.said)
    return request.said, sum(entry.role == "tool" for entry in request.entries[last:])


class Shop:
    """One library's example, serving the world's tools."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.adapter, self.chat = _load(f"{library}_harness")

    def application(self, world: World, url: str, around: Around = lambda tool, when: None) -> ObjectApplication:
        """Its `Chat` with an agent whose tools are the world's."""
        cls: type[DurableObject[Any]] = type("Chat", (self.chat.Chat,), {"agent": self._agent(world, url, around)})
        if self.library == "openai_agents":
            cls.tools = {tool: {"repeat": how} for tool, how in TOOLS.items() if how != "never"}  # type: ignore[attr-defined]
        return ObjectApplication(cls)

    def _tools(self, world: World, around: Around) -> list[Any]:
        def make(tool: str) -> Any:
            async def act(item: str) -> str:
                around(tool, "before")
                world.effect(tool, key=self.adapter.this_try().key)
                around(tool, "after")
                return f"{tool}ed {item}"

            act.__name__ = tool
            return act

        return [make(tool) for tool in TOOLS]

    def _agent(self, world: World, url: str, around: Around) -> Any:
        if self.library == "pydantic_ai":
            return _pydantic(self.adapter, self._tools(world, around), url)
        return _openai(self._tools(world, around), url)


def _pydantic(adapter: ModuleType, tools: list[Any], url: str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.toolsets import FunctionToolset

    toolset: FunctionToolset[None] = FunctionToolset(id="shop")
    for tool in tools:
        how = TOOLS[tool.__name__]
        toolset.add_function(tool, takes_ctx=False, metadata={"cairn": {"repeat": how}} if how != "never" else None)
    model = AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(api_key="loopback", base_url=url))
    return Agent(model, name="shop", toolsets=[toolset], capabilities=[adapter.CairnDurability()])


def _openai(tools: list[Any], url: str) -> Any:
    from agents import Agent, OpenAIResponsesModel, function_tool
    from openai import AsyncOpenAI

    model = OpenAIResponsesModel("gpt-5", AsyncOpenAI(api_key="loopback", base_url=f"{url}/v1"))
    return Agent(name="shop", model=model, tools=[function_tool(tool) for tool in tools])


def _load(folder: str) -> tuple[ModuleType, ModuleType]:
    """The adapter and the program of an example, as they find each other when the program is run."""
    found = []
    for name in ("adapter", "chat"):
        spec = importlib.util.spec_from_file_location(f"{folder}_{name}", EXAMPLES / folder / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"{folder}_{name}"] = module
        if name == "adapter":
            sys.modules["adapter"] = module
        spec.loader.exec_module(module)
        found.append(module)
    del sys.modules["adapter"]
    return found[0], found[1]


async def talk(client: Client) -> list[str]:
    """Say both messages, as often as one likes; what is answered."""
    receipts = [await client.accept("a", "turn", [prompt], key=prompt) for prompt in PROMPTS]
    async with asyncio.timeout(60):
        return [await client.result(receipt, str) for receipt in receipts]


# --- what is there after a life


class Found(msgspec.Struct):
    """What the log and the world say."""

    finished: dict[str, tuple[str, ...]]
    """Per message, the steps that are recorded, in order."""
    effects: dict[str, int]
    keys: dict[str, set[str]]
    requests: Counter[tuple[str, int]]
    state: Any = None


async def look(store: SqliteStore, world: World, requests: list[ProviderRequest]) -> Found:
    """The log, and what it did to those outside."""
    finished: dict[str, list[str]] = {}
    prompts: dict[str, str] = {}
    turns: dict[str, Any] = {}
    for log in await logs_of(store):
        for row in log.rows:
            for record in r.decoder().decode(row.batch.records):
                if isinstance(record, r.FiberAccepted):
                    prompts[record.fiber] = msgspec.json.decode(record.arguments)[0]
                elif isinstance(record, r.StepCompleted):
                    finished.setdefault(prompts[record.fiber], []).append(record.name)
                elif isinstance(record, r.StorageChanged):
                    turns.update({name: msgspec.json.decode(raw) for name, raw in record.puts.items()})
    assert all(len(set(names)) == len(names) for names in finished.values()), finished
    effects = Counter(event.name for event in world.effects())
    keys = {tool: {event.key for event in world.effects(tool)} for tool in TOOLS}
    done = {prompt: tuple(names) for prompt, names in finished.items()}
    return Found(done, dict(effects), keys, Counter(map(place, requests)), shape(turns))


def shape(turns: dict[str, list[Any]]) -> list[Any]:
    """The conversation without what differs from life to life: times, and ids the provider made."""
    messages = [message for key in sorted(turns) for message in turns[key]]
    if any("parts" in message for message in messages):
        parts = [part for message in messages for part in message["parts"]]
        return [[part["part_kind"], part.get("tool_name"), part.get("content") or part.get("args")] for part in parts]
    return [
        [item.get("type", "message"), item.get("name"), item.get("output") or item.get("arguments") or text_of(item)]
        for item in messages
    ]


def text_of(item: dict[str, Any]) -> Any:
    content = item.get("content")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])


def judge(died: Found, ended: Found, whole: Found, answers: list[str], at: str) -> None:
    """What had been finished when the process died was not done again, and the conversation is that of a life without death.

    A `never` call that was begun, and is not known to have happened, is told to the model as unknown: then the texts differ.
    """
    for prompt, names in died.finished.items():
        models = [name for name in names if name.startswith("model ")]
        asked = sorted(key for key in whole.requests if key[0] == prompt)
        for key in asked[: len(models)]:
            assert ended.requests[key] == died.requests[key], f"{at}: a finished model request was repeated: {key}"
        for tool in {name.split()[0] for name in names} & TOOLS.keys():
            assert ended.effects[tool] == died.effects[tool] == max(1, died.effects[tool]), f"{at}: {tool} was repeated"
    assert sum(ended.requests.values()) <= sum(whole.requests.values()) + 1, at
    assert ended.requests.keys() == whole.requests.keys(), at
    assert ended.effects.get("launch", 0) <= 1, at  # S9
    assert all(len(keys) <= 1 for keys in ended.keys.values()), at  # S8: a repeated effect has the same key
    assert {prompt: sorted(names) for prompt, names in ended.finished.items()} == {
        prompt: sorted(name for name in names if name.split()[0] != "launch" or name in ended.finished[prompt])
        for prompt, names in whole.finished.items()
    }, at
    assert answers == ["It is on its way.", "You are welcome."], at
    unknown = "Nobody knows" in str(ended.state)
    assert unknown == ("launch" not in {name.split()[0] for names in ended.finished.values() for name in names}), at
    if not unknown:
        assert ended.state == whole.state, at
