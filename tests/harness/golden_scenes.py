"""The scenes that golden histories are recordings of. `python -m tests.harness.golden_scenes` records what is missing.

A new kind of record, or a new way for a submission to go, gets a scene here; a recording that exists is never made again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from tests.harness import golden
from tests.harness.golden_real import REAL
from tests.harness.playing import Scene, die, saying, scene

from cairn import Agent, Context, Image, Limits, Stopping, ToolError, ToolResult, Turn
from cairn.errors import ModelError
from cairn.harness import records as h
from cairn.harness.answers import PendingCall
from cairn.harness.asking import approval
from cairn.harness.client_tool import client_tool
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import Text, ToolSpec
from cairn.harness.sandbox.protocol import ProcessInfo
from cairn.harness.sandbox.virtual import virtual
from cairn.harness.tools import Tool
from cairn.runtime import records as r
from cairn.runtime.files import Change
from cairn.testing import Crash
from cairn.testing.play import Client, settled
from cairn.testing.scripted import Call, Fail, Meanwhile, Reply, Say, Stall, by_turn
from cairn.testing.world import World

OVERLOAD = ModelError("overloaded", kind="overload", status=529)


@dataclass
class Case:
    count: int = 0
    name: str = ""


def tools(agent: Agent[Any], world: World) -> None:
    @agent.tool(repeat="safe")
    async def look(seconds: float = 0.0) -> str:
        """Look."""
        await asyncio.sleep(seconds)
        return "a tree"

    @agent.tool
    async def pay(amount: int) -> str:
        """Pay."""
        world.cue("paying")
        await asyncio.sleep(10)
        return f"paid {amount}"

    @agent.tool
    async def fail() -> str:
        """Fail."""
        raise ToolError("no luck")

    @agent.tool
    async def finish() -> ToolResult:
        """Finish."""
        return ToolResult("bye", terminate=True, details={"reason": "done"})

    @agent.tool(timeout=2)
    async def hang(ctx: Context) -> None:
        """Hang."""
        ctx.progress("hanging")
        await asyncio.sleep(1_000)

    @agent.tool(repeat="safe")
    async def draw(ctx: Context) -> dict[str, int]:
        """Draw, and show how far it is."""
        for done in (50, 100):
            ctx.show("drawing", {"percent": done})
            await asyncio.sleep(1)
        ctx.describe(lines=3)
        return {"lines": 3}

    @agent.tool
    async def perish() -> None:
        """Die."""
        await die()

    @agent.tool(repeat="resume")
    async def ship(ctx: Context) -> str:
        """Ship, and die between two steps the first time."""
        await ctx.step("find", lambda: "it")
        await ctx.step("label", lambda: "printed", repeat="keyed")
        if world.effect("ship", ctx.call) == 1:
            await die()
        return await ctx.step("send", lambda: "gone", repeat="never")


def processes(agent: Agent[Any], world: World) -> None:
    async def run(call: Any, arguments: dict[str, Any]) -> str:
        await call.process_started(ProcessInfo(pid=7, group=7, started=1.0, boot="b", host="h"))
        call.progress("making")
        await asyncio.sleep(1)
        return "made"

    agent._add(Tool(ToolSpec(name="make", description="Make.", parameters={"type": "object"}), run))


def stateful(agent: Agent[Any], world: World) -> None:
    @agent.tool
    async def rename(ctx: Context[Case], name: str, seconds: float) -> str:
        """Rename."""
        await asyncio.sleep(seconds)
        ctx.state.name = name
        ctx.state.count += 1
        return name

    async def extra() -> str:
        """Extra."""
        return "extra"

    @agent.prepare
    def prepare(turn: Turn[Case]) -> None:
        if turn.state.count:
            turn.use(extra)
            turn.instruct(f"You are {turn.state.name}.")


def moving(agent: Agent[Any], world: World) -> None:
    """Its first change attaches a sandbox, its second detaches it."""

    @agent.tool(repeat="safe")
    async def move(ctx: Context[Case]) -> str:
        """Move."""
        ctx.state.count += 1
        return "moved"

    @agent.prepare
    def prepare(turn: Turn[Case]) -> None:
        turn.sandbox = virtual(seed={"AGENTS.md": "Use tabs."}) if turn.state.count == 1 else None


def hooks(agent: Agent[Any], world: World) -> None:
    @agent.on_message
    async def hear() -> str:
        return "She is in a hurry."

    @agent.on_stop
    async def check(event: Stopping) -> str | None:
        return "Sure?" if event.continues == 0 else None

    @agent.on_settled
    async def after() -> None:
        world.effect("after")


def aborting(cue: str) -> Client:
    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("Hello.", key="0")
        await world.cued(cue)
        second = await conversation.send("And?", key="1")
        await conversation.abort(first.submission, reason="enough")
        await settled(first)
        await settled(second)

    return client


async def joining(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("Hello.", key="0")
    await world.cued("paying")
    second, third = await conversation.send("And?", key="1"), await conversation.send("Oh.", key="2")
    await conversation.abort(third.submission, reason="never mind")
    for receipt in (first, second, third):
        await settled(receipt)


async def forking(conversation: ConversationHandle, world: World) -> None:
    first = await conversation.send("Hello.", key="0")
    second = await conversation.send("And?", key="1")
    await world.cued("paying")
    forked = await conversation.fork(id="d")
    await settled(await forked.send("And here?", key="0"))
    await settled(first)
    await settled(second)


async def sending(conversation: ConversationHandle, world: World) -> None:
    image = Image(mime_type="image/png", data=b"png", filename="a.png")
    await settled(await conversation.send("Look.", key="0", attachments=[image], data={"name": b'"Ann"'}))
    push = h.Delivery(kind="signal", type="push", body="<main>", attributes={"by": "ann"})
    await settled(await conversation.send(push, key="1"))


def mid_stream() -> Scene:
    worlds: list[World] = []
    replies: Reply = [Say("I th"), Meanwhile(lambda: worlds[0].cue("mid")), Stall()]

    def script(request: Any) -> Reply:
        return replies if len(request.messages) == 1 else "Yes?"

    return scene(script=script, client=aborting("mid"), define=lambda agent, world: worlds.append(world))


def rename(name: str, seconds: int) -> Call:
    return Call("rename", {"name": name, "seconds": seconds})


def dying(reply: Reply, then: str) -> Scene:
    return scene(script=by_turn([reply, then]), define=tools)


SCENES: dict[str, tuple[str, Callable[[], Scene]]] = {
    "text": ("A question and an answer, twice.", lambda: scene("Hi.", "Bye.", client=saying("Hello.", "Bye."))),
    "thinking": ("Reasoning before the answer.", lambda: scene(Say("Yes.", thinking="Is it?"))),
    "tool": ("A call between two messages.", lambda: scene([Say("I look. "), Call("look")], "A tree.", define=tools)),
    "parallel": (
        "Three calls; the last is the first to finish.",
        lambda: scene([Call("look", {"seconds": n}) for n in (3, 2, 1)], "Trees.", define=tools),
    ),
    "wrong-calls": (
        "Unknown, invalid, unreadable, failing, too slow.",
        lambda: scene(
            [Call("fly"), Call("pay", {"amount": "x"}), Call("pay", arguments_error="cut"), Call("fail"), Call("hang")],
            "Sorry.", define=tools,
        ),
    ),
    "terminate": ("A call that ends the run.", lambda: scene([Say("Bye. "), Call("finish")], define=tools)),
    "shown": ("Data and metadata beside the words.", lambda: scene(Call("draw"), "Drawn.", define=tools)),
    "attaching": (
        "A sandbox is attached, used and detached.",
        lambda: scene(
            Call("move"), Call("write", {"path": "a", "content": "x"}), Call("move"), Call("read", {"path": "a"}), "Moved.",
            define=moving, state=Case,
        ),
    ),
    "process": ("A call in a process of its own, with progress.", lambda: scene(Call("make"), "Made.", define=processes)),
    "state": (
        "Parallel changes of one field, a new tool and new instructions.",
        lambda: scene([rename("Ann", 2), rename("Bob", 1)], "Hi.", define=stateful, state=Case),
    ),
    "hooks": ("All three seams.", lambda: scene("Done.", "Really done.", define=hooks)),
    "length": ("Cut off in a call, then in a text.", lambda: scene(
        [Say("", stop="length"), Call("look")], Say("One ", stop="length"), "two.", define=tools,
    )),
    "refusal": ("A provider that refuses.", lambda: scene(Say("I will not.", stop="refusal"))),
    "retry": (
        "Overloaded, then broken in the middle, then there.",
        lambda: scene(Fail(OVERLOAD), Fail(OVERLOAD, "One, "), "two."),
    ),
    "failure": ("A key that is not accepted.", lambda: scene(Fail(ModelError("no such key", kind="auth", status=401)))),
    "stall": ("A stream that stops.", lambda: scene(Stall("One, "), "two.", limits=Limits(idle_seconds=5))),
    "limit": ("Stopped at a limit.", lambda: scene(*[Call("look")] * 3, define=tools, limits=Limits(turns=2))),
    "timeout": (
        "Stopped at its deadline.",
        lambda: scene(Call("pay", {"amount": 1}), define=tools, limits=Limits(running_seconds=5)),
    ),
    "abort-text": ("Aborted in the middle of a message; another waits.", mid_stream),
    "abort-tool": (
        "Aborted during a call; another message waits.",
        lambda: scene(Call("pay", {"amount": 1}), "Yes?", define=tools, client=aborting("paying")),
    ),
    "join": (
        "One message joins, one is aborted while it waits.",
        lambda: scene(Call("pay", {"amount": 1}), "Both.", define=tools, client=joining),
    ),
    "fork": (
        "Forked during a call, with a message waiting; the log is the fork's.",
        lambda: scene([Say("I pay. "), Call("pay", {"amount": 1})], "Here.", "There.", define=tools, client=forking),
    ),
    "crash-text": (
        "The process dies in the middle of a message.",
        lambda: scene(script=by_turn([Say("One two three four.", pause=0.1)]), crashes=[Crash(6, "after")]),
    ),
    "crash-call": (
        "The process dies in a call that must not be repeated.",
        lambda: dying([Call("look"), Call("perish")], "Hm."),
    ),
    "crash-steps": ("The process dies between two steps of a call.", lambda: dying(Call("ship"), "Shipped.")),
    "deliveries": ("A message with an image, first state, and a signal.", lambda: scene(
        Call("look"), "A tree.", "Pushed.", define=tools, client=sending, state=Case,
    )),
    "asking": ("Calls that wait for answers, and what becomes of them; the last message again.", lambda: asking()),
}  # fmt: skip


def asking() -> Scene:
    """Calls that wait: approved beside one that runs, rejected, carried out by a client, given up for a message, expired; then
    the last message is answered again."""

    def define(agent: Agent[Any], world: World) -> None:
        @agent.tool(approval=approval(expires=60, by="ann"))
        async def pay(amount: int) -> str:
            """Pay."""
            return f"paid {amount}"

        @agent.tool(approval=approval(lambda arguments: "it is loud", on_message="withdraw"))
        async def ring() -> str:
            """Ring."""
            return "rung"

        @agent.tool(repeat="safe")
        async def look() -> str:
            """Look."""
            return "a tree"

    async def asked(conversation: ConversationHandle, count: int) -> list[PendingCall]:
        while True:
            found = await conversation.questions()
            if len(found) == count:
                return found
            await asyncio.sleep(0.5)

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("first", key="1")
        one, two, where = await asked(conversation, 3)
        await conversation.approve(one.call, digest=one.digest, by="ann")
        await conversation.reject(two.call, "too dear", digest=two.digest, by="ann")
        await conversation.answer(where.call, {"city": "Oslo"}, digest=where.digest, by="browser")
        await asked(conversation, 1)
        await settled(await conversation.send("second", key="2"))
        await settled(first)
        third = await conversation.send("third", key="3")
        await settled(third)
        await conversation.rewind(f"msg_{third.submission}", key="4")
        await settled(await conversation.regenerate(key="5"))

    calls = [Call("pay", {"amount": 1}), Call("pay", {"amount": 2}), Call("look"), Call("where")]
    where = client_tool("where", "Where.", output={"type": "object"})
    return scene(
        calls,
        Call("ring"),
        "Both.",
        Call("pay", {"amount": 3}),
        "Nobody.",
        "Again.",
        define=define,
        client=client,
        tools=[where],
    )


def by_hand() -> list[tuple[int, bytes]]:
    """What no agent writes yet: requests and fibers of other kinds, and a rewind."""
    raw = msgspec.Raw(b'{"x":1}')
    delivery = msgspec.Raw(msgspec.json.encode(h.Delivery(body="Hello.")))
    batches: list[list[r.Record]] = [
        [r.InstanceCreated(kind="toy", id="c", uid="inst_1", at=1.0)],
        [r.FiberAccepted(fiber="sub_1", method=h.SUBMISSION, at=2.0, arguments=delivery, timeout_seconds=60.0)],
        [r.InstanceClaimed(epoch=1, worker="w", at=3.0)],
        [
            r.FiberStarted(fiber="sub_1", at=4.0),
            h.ContextOpened(system="Be brief.", tools=()),
            h.TurnStarted(submission="sub_1", turn="t1", message="m1", epoch=1, at=4.0, model="m:x", includes=("sub_1",)),
        ],
        [
            h.MessageCompleted(
                submission="sub_1", turn="t1", message="m1", content=(Text(text="Hi."),), stop="stop", at=5.0, model="m:x"
            ),
            r.FiberSettled(fiber="sub_1", outcome="completed", at=5.0),
        ],
        [h.ConversationRewound(to=1, at=6.0)],
        [r.FiberAccepted(fiber="job_1", method="research", at=7.0, arguments=raw, key="k")],
        [r.FiberStarted(fiber="job_1", at=8.0), r.FiberStashed(fiber="job_1", value=raw)],
        [r.SignalSent(name="ready", at=9.0, payload=raw, fiber="job_1")],
        [r.FiberParked(fiber="job_1", name="code", at=10.0, error=r.ErrorInfo(kind="unknown_method", message="gone"))],
        [r.AnswerGiven(call="c1", digest="d", at=11.0, answer=raw, by="ann")],
        [r.CancelRequested(target="job_1", at=12.0)],
        [r.DestroyRequested(at=13.0)],
        [r.InstanceReleased(at=14.0)],
    ]
    return [(ordinal, r.encode(records)) for ordinal, records in enumerate(batches)]


def platform_by_hand() -> list[tuple[int, bytes]]:
    """What objects write and no agent does: waits, retries, questions, schedules, and what people say to fibers."""
    raw, error = msgspec.Raw(b'{"x":1}'), r.ErrorInfo(kind="ConnectionError", message="no route")
    retry, step = r.Retry(attempts=3), "retry of step call"
    every = r.When(seconds=60.0)
    rings = r.ScheduleRequested(name="beat", method="work", when=every, at=1.0, first=61.0, arguments=raw, retry=retry)
    batches: list[list[r.Record]] = [
        [r.InstanceCreated(kind="toy", id="o", uid="inst_2", at=1.0)],
        [r.FiberAccepted(fiber="fib_1", method="work", at=2.0, arguments=raw, retry=retry)],
        [r.InstanceClaimed(epoch=1, worker="w", at=3.0)],
        [r.FiberStarted(fiber="fib_1", at=4.0)],
        [r.StepStarted(fiber="fib_1", name="look", repeat="safe", epoch=1)],
        [
            r.StepTried(fiber="fib_1", name="call", at=5.0, until=15.0, error=error),
            r.FiberWaiting(fiber="fib_1", name="go", at=5.0, on="signal", event="go", until=900.0),
        ],
        [r.FiberParked(fiber="fib_1", name=step, at=5.0, until=15.0, waits=(step, "go"))],
        [r.SignalSent(name="go", at=6.0, payload=raw, id="sig_1")],
        [r.FiberStarted(fiber="fib_1", at=16.0)],
        [r.FiberWaiting(fiber="fib_1", name="nap", at=16.0, until=20.0)],
        [r.FiberWaited(fiber="fib_1", name="nap", at=20.0)],
        [
            r.FiberWaiting(fiber="fib_1", name="sure?", at=20.0, on="answer", digest="d", request=raw, until=900.0),
            r.FiberParked(fiber="fib_1", name="sure?", at=20.0, until=900.0, waits=("sure?",)),
        ],
        [r.AnswerGiven(call="sure?", digest="d", at=21.0, answer=raw, by="ann", fiber="fib_1")],
        [r.FiberStarted(fiber="fib_1", at=22.0)],
        [r.FiberRetried(fiber="fib_1", at=23.0, until=30.0, error=error)],
        [r.FiberStarted(fiber="fib_1", at=30.0)],
        [r.FiberSettled(fiber="fib_1", outcome="failed", at=31.0, error=error, dead=True)],
        [r.ResolveRequested(fiber="fib_1", outcome="completed", at=32.0, by="ann")],
        [rings],
        [
            r.FiberAccepted(fiber="occ_1", method="work", at=61.0, schedule="beat", occurrence=61.0),
            r.ScheduleFired(name="beat", at=61.0, of=18, occurrence=61.0, fiber="occ_1", next=121.0),
        ],
        [r.CancelRequested(target="beat", at=62.0)],
        [r.ResolveRequested(fiber="occ_1", outcome="completed", at=63.0, result=raw, by="ann")],
        [r.FiberSettled(fiber="occ_1", outcome="completed", at=63.0)],
        [r.FiberAccepted(fiber="fib_2", method="work", at=64.0)],
        [r.FiberSettled(fiber="fib_2", outcome="completed", at=65.0)],
        [r.ForgetRequested(fiber="fib_2", at=66.0)],
    ]
    return [(ordinal, r.encode(records)) for ordinal, records in enumerate(batches)]


def objects_by_hand() -> list[tuple[int, bytes]]:
    """What handlers of objects write: calls from other processes, state and storage, clients and frames, sub-objects."""
    raw, seven = msgspec.Raw(b'{"x":1}'), msgspec.Raw(b"7")
    call = r.Call(what="stream", by="ann", connection="c1", token="con_1", worker="w2", chain=("room/a",))
    opened = r.ConnectionOpened(
        connection="c1", token="con_1", worker="w2", at=4.0, uri="ws://x", tags=("vip",), state=raw, readonly=True, by="ann"
    )
    batches: list[list[r.Record]] = [
        [r.InstanceCreated(kind="room", id="b", uid="inst_3", at=1.0)],
        [r.ObjectReached(at=1.0)],
        [r.InstanceClaimed(epoch=1, worker="w", at=2.0)],
        [r.StateChanged(changes={"count": seven}), r.StorageChanged(puts={"k": raw, "gone": seven})],
        [opened, r.ObjectSent(text="hello", to=("c1",))],
        [r.StateChanged(changes={"count": seven}, source="c1"), r.ObjectSent(binary=b"\x00\x01", without=("c1",))],
        [r.StorageChanged(deletes=("gone",)), r.ConnectionChanged(connection="c1", token="con_1", state=seven)],
        [r.FiberAccepted(fiber="call_1", method="lines", at=5.0, arguments=msgspec.Raw(b"[3]"), key="k", call=call)],
        [r.FiberStarted(fiber="call_1", at=6.0)],
        [r.StateChanged(changes={"count": seven}), r.ObjectSent(call="call_1", chunk=raw)],
        [r.FiberSettled(fiber="call_1", outcome="completed", at=7.0, result=raw)],
        [r.ObjectSent(to=("c1",), code=4000, reason="bye")],
        [r.ConnectionClosed(connection="c1", token="con_1", at=8.0, code=4000, reason="bye")],
        [r.SubObjectAdded(kind="task", name="roof", at=9.0)],
        [r.SubObjectRemoved(kind="task", name="roof", at=10.0)],
        [r.SubObjectRemoved(kind="task", name="roof", at=11.0, gone=True)],
        [r.FiberAccepted(fiber="call_2", method="on_state_changed", at=12.0, call=r.Call(what="state_changed"))],
        [r.DestroyRequested(at=13.0)],
        [r.FiberSettled(fiber="call_2", outcome="aborted", at=14.0, error=r.ErrorInfo(kind="aborted", message="gone"))],
    ]
    return [(ordinal, r.encode(records)) for ordinal, records in enumerate(batches)]


def files_by_hand() -> list[tuple[int, bytes]]:
    """What becomes of an instance's files: made, written, moved, removed, more than one record holds; what a sandbox keeps."""
    made = (
        Change(id=2, kind="directory", parent=1, name="src", mode=0o755),
        Change(id=3, kind="file", parent=2, name="main.py", mode=0o644, mtime=3.0, size=3, text="x=1"),
        Change(id=4, kind="link", parent=1, name="link", mode=0o777, mtime=3.0, target="src/main.py"),
        Change(id=5, kind="file", parent=1, name="data", mode=0o600, mtime=3.0, size=2, data=b"\xff\x00"),
    )
    large = Change(id=3, mtime=5.0, size=2_000_000, chunks=("a" * 64, "b" * 64))
    batches: list[list[r.Record]] = [
        [r.InstanceCreated(kind="worker", id="f", uid="inst_4", at=1.0)],
        [r.ObjectReached(at=1.0)],
        [r.InstanceClaimed(epoch=1, worker="w", at=2.0)],
        [r.FilesChanged(at=3.0, base=0, changes=made)],
        [
            r.FilesChanged(
                at=4.0, base=1, changes=(Change(id=2, parent=1, name="lib"), Change(id=4, gone=True), Change(id=5, mode=0o644))
            )
        ],
        [r.FilesStaged(transaction="files_1", changes=(large,))],
        [
            r.FilesStaged(
                transaction="files_1", changes=(Change(id=6, kind="file", parent=1, name="copy", mode=0o644, mtime=5.0),)
            )
        ],
        [r.FilesChanged(at=5.0, base=2, staged="files_1"), h.SandboxRemembered(sandbox="virtual", value=b"\x92\xa1/\xc4\x00")],
        [r.FilesStaged(transaction="files_2", changes=(Change(id=6, gone=True),))],
        [h.SandboxRemembered(sandbox="virtual", value=b"")],
    ]
    return [(ordinal, r.encode(records)) for ordinal, records in enumerate(batches)]


#: Histories that nothing wrote but this file.
BY_HAND = {
    "files": ("An instance's files, and what a sandbox wants to find again.", files_by_hand),
    "objects": ("Handlers of objects: calls, state, storage, clients, sub-objects.", objects_by_hand),
    "vocabulary": ("The records that no agent writes yet.", by_hand),
    "platform": ("Waits, retries, questions, schedules, and what people say to fibers.", platform_by_hand),
}

#: Those of them that no conversation can have: they have no messages to tell.
OF_OBJECTS = frozenset({"platform", "objects", "files"})


def main() -> None:
    for name, (about, play) in SCENES.items():
        path = golden.FOLDER / f"{name}.json"
        if path.exists():
            continue
        done = play()
        log = done.run.logs[-1]
        batches = [(row.ordinal, row.batch.records) for row in log.rows]
        hears, stops = bool(done.agent.message_hooks), bool(done.agent.stop_hooks)
        golden.write(path, golden.make(about, batches, hears=hears, stops=stops))
        print(f"recorded {path.name}")
    for name, (about, batches_of) in (REAL | BY_HAND).items():
        path = golden.FOLDER / f"{name}.json"
        if not path.exists():
            golden.write(path, golden.make(about, batches_of()))
            print(f"recorded {path.name}")


if __name__ == "__main__":
    main()
