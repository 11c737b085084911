"""A turn has another sandbox than the turn before: it is opened, its tools come with it, and the model is told once.

The sandboxes of the crash tests are folders in memory that outlive a process, as a disk does; the others are real.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.crash.scenarios import sending
from tests.harness.playing import Scene, saying, scene, told

from cairn import Agent, App, Context, Turn, local, tool
from cairn.errors import SandboxError, UsageError
from cairn.harness import records as h
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.sandbox.protocol import FileInfo, Place
from cairn.harness.sandbox.virtual import virtual
from cairn.harness.sandbox.virtual_pool import shared_pool
from cairn.testing import crash_points
from cairn.testing.play import Run, play
from cairn.testing.scripted import Call, ScriptedModel, by_turn
from cairn.testing.world import Provider, World


@dataclass
class Folder:
    """A sandbox with files and no shell, and what opens it. Two that are made anew are not equal."""

    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    """When it was opened and closed."""
    cwd = "/"

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    async def open(self, instance: str, directory: str, place: Place | None = None) -> Folder:
        self.history.append(f"open {self.name}")
        return self

    async def close(self) -> None:
        self.history.append(f"close {self.name}")

    async def stat(self, path: str) -> FileInfo | None:
        found = self.files.get(path.strip("/"))
        return None if found is None else FileInfo(path, "file", len(found))

    async def list(self, path: str) -> list[FileInfo]:
        raise FileNotFoundError(path)

    async def read(self, path: str, *, start: int = 0, size: int | None = None) -> bytes:
        return self.files[path.strip("/")][start:][:size]

    async def write(self, path: str, data: bytes) -> None:
        self.files[path.strip("/")] = data

    async def real_path(self, path: str) -> str:
        return path

    async def exec(self, command: str, **_: Any) -> Any:
        raise SandboxError("there is no shell here")

    async def remove(self, path: str) -> None:
        del self.files[path]

    async def reap(self, process: Any) -> bool:
        return False


@dataclass
class Where:
    place: str = "own"


def going(agent: Agent[Any], places: dict[str, Callable[[], Any]]) -> None:
    """A tool that changes the state, and a prepare function that attaches what the state names."""

    @agent.tool(repeat="safe")
    async def go(ctx: Context[Where], place: str) -> str:
        """Go somewhere else."""
        ctx.state.place = place
        return f"gone {place}"

    @agent.tool(repeat="safe")
    async def look(ctx: Context[Where]) -> str:
        """Say where it is."""
        await asyncio.sleep(5)
        return ctx.sandbox.name

    @agent.prepare
    def prepare(turn: Turn[Where]) -> None:
        if turn.state.place in places:
            turn.sandbox = places[turn.state.place]()


def define(**places: Callable[[], Any]) -> Callable[[Agent[Any], World], None]:
    return lambda agent, world: going(agent, places)


FILE_TOOLS = ("read", "write", "edit", "bash", "grep", "glob", "ls")


def to(place: str) -> Call:
    return Call("go", {"place": place})


def notes(messages: Any) -> list[str]:
    return [text for text in told(messages) if '<note kind="environment">' in text]


def offered(request: ModelRequest) -> set[str]:
    return {spec.name for spec in request.tools}


def attached(note: str) -> str:
    return f'user: <note kind="environment">\n{note}\n</note>'


OTHER_FILES = "The files of the one before are not in it."

GONE = attached("There is no sandbox any more: its tools and its files are out of reach.")


# --- coming and going -------------------------------------------------------------------------------------------------


def test_an_agent_without_a_sandbox_gets_one_with_its_tools_and_is_told_once() -> None:
    """P26: the tools are declared, one note says what it is and what its project says; later turns and messages are told
    nothing more."""
    desk = Folder("desk", {"AGENTS.md": b"Use tabs.", "a": b"one"})
    done = scene(
        *[to("desk"), Call("read", {"path": "a"}), "Read.", "Bye."],
        define=define(desk=lambda: desk), state=Where, client=saying("one", "two"),
    )  # fmt: skip

    first, second, *_, last = done.requests
    assert offered(second) - offered(first) == set(FILE_TOOLS)
    said = "A sandbox is attached now: desk. Its working directory is /.\n\n"
    said += "AGENTS.md of the working directory says:\n\nUse tabs."
    assert notes(last.messages) == [attached(said)]
    assert "one" in outcomes(done)[1]
    assert sorted(desk.history) == ["close desk"] * 2 + ["open desk"] * 2  # one message, one opening


def outcomes(done: Scene) -> list[str]:
    return [record.content[0].text for record in done.of(h.ToolOutcome)]


def test_a_detached_sandbox_takes_its_tools_along() -> None:
    """P26, F4: a note; its tools are said to be gone; a call of one is refused as a tool that does not exist."""
    own = Folder("own")
    done = scene(
        *[to("none"), Call("read", {"path": "a"}), to("own"), "Done."],
        define=define(none=lambda: None), state=Where, sandbox=own,
    )  # fmt: skip

    assert notes(done.requests[-1].messages) == [GONE, attached("A sandbox is attached now: own. Its working directory is /.")]
    assert outcomes(done)[1].startswith("There is no tool named 'read'. Available tools: go, look")
    assert own.history == ["open own", "close own"] * 2
    assert done.of(h.ContextChanged)[0].tools_removed == FILE_TOOLS
    assert done.of(h.ContextChanged)[1].tools_back == FILE_TOOLS


def test_calls_end_in_the_sandbox_that_they_began_in() -> None:
    """S8: a call that runs beside the one that changes it keeps it to its end; the former is closed before the next is
    opened, and after that."""
    own, other = Folder("own"), Folder("other")
    other.history = own.history
    done = scene(
        *[[to("other"), Call("look")], Call("look"), "Done."],
        define=define(other=lambda: other), state=Where, sandbox=own,
    )  # fmt: skip

    assert outcomes(done) == ["gone other", "own", "other"]
    assert own.history == ["open own", "close own", "open other", "close other"]


def test_one_that_is_made_anew_at_each_render_is_opened_once_a_turn_and_told_once() -> None:
    """P26: `turn.sandbox = factory()` works, whatever the factory is."""
    made: list[str] = []
    done = scene(
        *[to("desk"), Call("look"), "Done."],
        define=define(desk=lambda: Folder("desk", {}, made)), state=Where,
    )  # fmt: skip

    assert len(notes(done.requests[-1].messages)) == 1
    assert made == ["open desk", "close desk"] * 2
    assert virtual(seed={"a": "b"}) == virtual(seed={"a": "b"}) != virtual(network=["example.com"])
    assert local("x") == local("x") != local("y")


def test_a_prepare_that_changes_its_mind_at_each_render_fails_the_message() -> None:
    """L1: it is not rendered for ever; the submission fails and says why."""
    names = iter(f"desk-{number}" for number in range(100))
    done = scene(to("desk"), "Done.", define=define(desk=lambda: Folder(next(names))), state=Where)

    (outcome,) = done.outcomes
    assert "chose another sandbox at each render of one turn" in outcome


# --- what a turn is ---------------------------------------------------------------------------------------------------


@tool
def bash() -> str:
    """Mine."""
    return "mine"


def prepared(prepare: Callable[[Turn[Any]], None], **options: Any) -> list[str]:
    from cairn.harness.sandbox.files import file_tools

    agent = Agent("worker", model="some:model", **options)
    agent.prepare(prepare)
    return [each.name for each in agent.render(sandbox_tools=lambda _: file_tools()).tools]


def test_tools_come_and_go_where_the_sandbox_is_assigned() -> None:
    """P26: in the same prepare function, in the agent's order; what was withheld stays so, and an own tool keeps its name."""

    def attach(turn: Turn[Any]) -> None:
        turn.sandbox = virtual()
        turn.without("bash")
        assert "read" in turn.tools
        turn.use(bash)

    def detach(turn: Turn[Any]) -> None:
        turn.without("bash")
        turn.sandbox = None

    assert prepared(attach) == ["read", "write", "edit", "grep", "glob", "ls", "bash"]
    assert prepared(detach, sandbox=local()) == []
    assert prepared(lambda turn: setattr(turn, "sandbox", local()), tools=[bash])[3] == "bash"
    with pytest.raises(UsageError, match="'docker' opens none"):
        prepared(lambda turn: setattr(turn, "sandbox", "docker"))


def test_the_functions_of_programs_follow() -> None:
    """Code mode: what a program may call is what the turn offers."""
    from cairn.harness.sandbox.files import file_tools

    agent = Agent("worker", model="some:model", state=Where, codemode=True)
    going(agent, {"desk": lambda: Folder("desk")})

    def functions(place: bytes) -> set[str]:
        return {each.name for each in agent.render({"place": place}, sandbox_tools=lambda _: file_tools()).functions}

    assert functions(b'"desk"') - functions(b'"own"') >= {"read", "write", "edit"}


# --- across crashes ---------------------------------------------------------------------------------------------------

TRIP: list[Any] = [
    [to("far"), Call("look")],
    Call("look"),
    [to("none"), Call("look")],
    to("own"),
    Call("look"),
    "Home.",
    "Still here.",
]


def traveller() -> Callable[[World], Agent[Any]]:
    """Its two folders outlive its processes."""
    far, own = {"AGENTS.md": b"Far away."}, {"AGENTS.md": b"At home."}

    def make(world: World) -> Agent[Any]:
        agent = Agent("toy", model=Provider(world, ScriptedModel(by_turn(TRIP))), state=Where, sandbox=Folder("own", own))
        going(agent, {"far": lambda: Folder("far", far), "none": lambda: None})
        return agent

    return make


def shown(run: Run) -> list[str]:
    """What was told of sandboxes and what calls said, in the order of the log."""
    found = []
    for record in run.records:
        if record["type"] == "turn.started":
            found += [note["text"] for note in record.get("notes", ()) if note["kind"] == "environment"]
        elif record["type"] == "tool.outcome":
            found.append(record["content"][0]["text"])
    return found


def runs() -> Iterator[Run]:
    for crash in crash_points():
        yield play(traveller(), sending("Travel", "And?"), [crash])


@pytest.mark.slow
def test_a_change_is_told_once_whatever_dies_when() -> None:
    """T3, P26, S9: before and after every append of a conversation that goes away, has none, and comes back; calls that are
    made again are made in the sandbox of their turn."""
    found = list(runs())

    expected = [
        "gone far",
        "own",
        "A sandbox is attached now: far. Its working directory is /. The files of the one before are not in it.\n\n"
        "AGENTS.md of the working directory says:\n\nFar away.",
        "far",
        "gone none",
        "far",
        "There is no sandbox any more: its tools and its files are out of reach.",
        "gone own",
        "A sandbox is attached now: own. Its working directory is /.",
        "own",
    ]
    for run in found:
        assert run.violations() == []
        # The order of two calls of one message is not given.
        assert sorted(shown(run)) == sorted(expected)
        assert [text for text in shown(run) if " " in text] == [text for text in expected if " " in text]
    assert [run.lives for run in found] == [2] * (len(found) - 1) + [1]
    assert len(found) > 40


# --- with real ones ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_virtual_and_local_take_turns_and_a_new_process_tells_nothing_again(tmp_path: Path) -> None:
    """P26, F3: each has its own files and finds them again; the note says so once, over messages and processes."""
    store, desk = str(tmp_path / "store.db"), tmp_path / "desk"
    desk.mkdir()
    asked: list[ModelRequest] = []

    def run(command: str) -> Call:
        return Call("bash", {"command": command})

    def scripted(*replies: Any) -> Any:
        waiting = iter(replies)

        def reply(request: ModelRequest) -> Any:
            asked.append(request)
            return next(waiting)

        return ScriptedModel(reply)

    async def life(*replies: Any) -> list[str]:
        agent = Agent("worker", model=scripted(*replies), state=Where, sandbox=virtual())
        going(agent, {"desk": lambda: local(desk)})
        async with App(agents=[agent], store=store) as app:
            try:
                await (await app.conversation(agent, "one").send("Go")).reply()
            finally:
                shared_pool().close()
        return [text for text in told(asked[-1].messages) if text.startswith("tool")]

    asyncio.run(life(run("echo here > a"), to("desk"), run("ls; echo there > b"), "Done."))
    said = asyncio.run(life(run("ls; pwd"), to("own"), run("ls; pwd"), "Done."))

    assert (desk / "b").read_text() == "there\n"
    assert notes(asked[-1].messages) == [
        attached(f"A sandbox is attached now: local. Its working directory is {desk}. {OTHER_FILES}"),
        attached(f"A sandbox is attached now: virtual. Its working directory is /workspace. {OTHER_FILES}"),
    ]
    assert any(f"b\n{desk}" in text for text in said) and any("a\n/workspace" in text for text in said)


@pytest.mark.slow
def test_two_over_the_workspace_have_the_same_files() -> None:
    """P26: nothing is said to be missing, and what the project says is not said again."""
    asked: list[ModelRequest] = []
    waiting = iter([to("wide"), Call("bash", {"command": "cat AGENTS.md"}), "Done."])

    def reply(request: ModelRequest) -> Any:
        asked.append(request)
        return next(waiting)

    class Wide:
        """Another one over the workspace."""

        name = "wide"

        async def open(self, instance: str, directory: str, place: Place | None = None) -> Any:
            return await virtual(commands={"greet": lambda: "hello"}).open(instance, directory, place)

    async def main() -> None:
        agent = Agent("worker", model=ScriptedModel(reply), state=Where, sandbox=virtual(seed={"AGENTS.md": "Use tabs."}))
        going(agent, {"wide": Wide})
        async with App(agents=[agent], store=":memory:") as app:
            await (await app.conversation(agent, "one").send("Go")).reply()
        shared_pool().close()

    asyncio.run(main())
    said = "A sandbox is attached now: wide. Its working directory is /workspace. It has the files of the one before."
    assert notes(asked[-1].messages) == [attached(said)]
    assert "Use tabs." in asked[0].system
    assert any("Use tabs." in text for text in told(asked[-1].messages) if text.startswith("tool"))
