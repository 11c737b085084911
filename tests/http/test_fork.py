"""T3, X-fork: a conversation can be forked wherever it has been, and the fork is a conversation like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from tests.harness import golden
from tests.harness.golden import History
from tests.harness.playing import scene
from tests.http.asking import PATIENCE_SECONDS, Ask, opened
from tests.http.test_manage import as_named

from cairn import Agent, App
from cairn.clock import SystemClock
from cairn.errors import Conflict, NotFound, UsageError
from cairn.framework.http import offsets
from cairn.framework.http.snapshot import Snapshot
from cairn.harness import records as h
from cairn.harness.application import AgentApplication
from cairn.harness.fork import FORKED, NOT_RUN_IN_FORK, UNKNOWN_IN_FORK, first_batch
from cairn.harness.handle import ConversationHandle
from cairn.harness.loop import Services
from cairn.harness.merging import Merger
from cairn.harness.messages import AssistantMessage, Text, ToolCall, ToolMessage
from cairn.harness.submission import Stage
from cairn.harness.usage import DELTAS
from cairn.ids import SystemIds
from cairn.runtime import records as r
from cairn.runtime.storage import SqliteStore
from cairn.runtime.storage.store import Address, Append, Batch, Creation, Row, Store, WorkerRow
from cairn.runtime.worker import WorkerSettings
from cairn.testing import crash_points
from cairn.testing.play import settled
from cairn.testing.scripted import Call, Say, ScriptedModel, Stall, by_turn
from cairn.testing.world import World

pytestmark = pytest.mark.slow

HISTORIES = sorted(golden.FOLDER.glob("*.json"))

decode = r.decoder(h.HARNESS).decode


def fine() -> ScriptedModel:
    return ScriptedModel(lambda request: "Fine.")


def talk(main: Callable[[App, Ask], Coroutine[Any, Any, None]], model: ScriptedModel | None = None, **options: Any) -> None:
    """Open an App with one agent and do `main` with it."""

    async def run() -> None:
        app = App([Agent("toy", model=model or fine())], store=options.pop("store", ":memory:"), **options)
        async with opened(app) as ask, asyncio.timeout(PATIENCE_SECONDS):
            await main(app, ask)

    asyncio.run(run())


async def restore(store: Store, history: History) -> int:
    """The recorded log in a store, appended as it was: by requests, claims, their owners, and releases; with its chunks."""
    application = AgentApplication(Agent("toy", model=fine()), Services(resolve=lambda model: fine()), "")
    worker = WorkerRow(id="w", host="h", pid=1, kinds=("toy",), started_at=0.0, lease_until=store.lease_now() + 60)
    await store.register(worker, 60, lambda: True)
    await store.put_blob("default", b"png")  # what the recordings' pictures are
    state, contents = application.initial(), list[Batch]()
    for batch in history.batches:
        is_request = all(isinstance(record, r.REQUESTS) for record in batch.decoded)
        chunks = application.project(None if is_request else state, batch.decoded)
        contents.append(Batch(bytes(batch.records), chunks, application.projection))
        for record in batch.decoded:
            application.apply(state, record, batch.ordinal)
    created: Any = history.batches[0].decoded[0]
    creation = Creation(created.uid, "inc", contents[0], 0.0)
    n, epoch = (await store.admit(Address("toy", "c"), creation, Append(0, contents[1]))).n, 0
    for batch, content in zip(history.batches[2:], contents[2:], strict=True):
        first = batch.decoded[0]
        if isinstance(first, r.InstanceClaimed):
            assert await store.claim(n, "w", expected_epoch=epoch, make=lambda _, content=content: content)  # type: ignore[misc]
            epoch += 1
        elif isinstance(first, r.InstanceReleased):
            await store.release(n, epoch, content)
        else:
            await store.append(Append(n, content, None if isinstance(first, r.REQUESTS) else epoch))
    await store.unregister("w")
    return n


async def rows_of(store: Store, n: int) -> list[Row]:
    return await store.read(n, -1, limit=10_000)


# --- everywhere -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in HISTORIES])
def test_a_fork_at_every_batch_of_a_recorded_log_is_a_sound_conversation(name: str) -> None:
    """S2, S7, S9: each folds with nothing unsettled or open, is shown to clients as it folds, takes a message and answers it;
    so does a fork of that fork; the source is untouched."""
    history = golden.load(golden.FOLDER / f"{name}.json")
    model = fine()

    async def main() -> None:
        store = SqliteStore(":memory:", clock=SystemClock(), ids=SystemIds(), inline=True)
        await store.open()
        n = await restore(store, history)
        before = await rows_of(store, n)
        async with App([Agent("toy", model=model)], store=store) as app:

            async def one(place: int) -> None:
                forked = await app.conversation("toy", "c").fork(before[place].ordinal, f"at-{place}")
                await check_fork(app, forked, before[: place + 1])
                receipt = await forked.send("Still there?")
                assert (await receipt.reply()).text == "Fine."
                again = await forked.fork(id=f"again-{place}")
                assert (await (await again.send("And there?")).reply()).text == "Fine."
                words = [entry.text for entry in await again.history()][-4:]
                assert words == ["Still there?", "Fine.", "And there?", "Fine."]

            await asyncio.gather(*(one(place) for place in range(len(before))))
        assert await rows_of(store, n) == before
        assert await store.check() == []
        await store.close()

    asyncio.run(main())


async def check_fork(app: App, forked: ConversationHandle, shared: list[Row]) -> None:
    """What a new fork has, before anything is said in it."""
    row = await app.store.find(forked.address)
    assert row is not None
    rows = await rows_of(app.store, row.n)
    assert rows[:-1] == shared
    first = decode(rows[-1].batch.records)
    assert isinstance(first[0], r.InstanceForked) and (first[0].uid, first[0].id) == (row.uid, forked.id)
    assert first[0].offset == shared[-1].ordinal == row.fork_offset
    fold = await forked._fold(row)
    assert (fold.runtime.released, fold.runtime.crashed, fold.runtime.destroy) == (True, False, False)
    assert fold.runtime.unsettled() == [] and fold.runtime.keys == {} and fold.runtime.uid == row.uid
    assert fold.state.control.submission is None and fold.state.control.queue == []
    assert all(entry.state != "open" for entry in fold.state.entries)
    snapshot = Snapshot()
    for each in rows:
        snapshot.feed(each.batch.chunks, each.ordinal)
    assert list(snapshot.unsettled) == []


def test_every_situation_of_a_submission_is_closed_by_the_forks_first_batch() -> None:
    """S7, S14: at each batch of each recording, pure: no record is refused by the fold it was made for, the open message and
    the open calls end, and nothing is settled twice."""
    situations = set()
    for path in HISTORIES:
        folding = golden.Folding()
        for batch in golden.load(path).batches:
            folding.apply(batch.ordinal, batch.decoded)
            control = folding.conversation.control.copy()
            situations.add(control.stage)
            forked = r.InstanceForked(kind="toy", id="d", uid="u", source="s", offset=batch.ordinal, at=0.0)
            records = first_batch(forked, control, folding.runtime)
            settled = [record.fiber for record in records if isinstance(record, r.FiberSettled)]
            assert sorted(settled) == sorted(fiber.id for fiber in folding.runtime.unsettled())
            assert all(folding.runtime.refusal(record) is None for record in records)
            for record in records:
                control.apply(record)
            assert control.submission is None and control.queue == []
    assert situations >= {Stage.NEW, Stage.OPEN, Stage.PARTIAL, Stage.CALLS, Stage.SAID, Stage.BROKEN, Stage.SETTLED}


# --- what becomes of what was under way -----------------------------------------------------------------------------


def mid_answer(model: ScriptedModel, main: Callable[[App, Ask, ConversationHandle, str], Coroutine[Any, Any, None]]) -> None:
    """Somebody has asked, and the answer has begun and hangs; `main` is given the conversation and the submission."""

    async def run(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        receipt = await conversation.send("stall")
        async for event in conversation.follow(receipt.offset):
            if type(event).__name__ in ("MessageDelta", "ToolStarted"):
                break
        await main(app, ask, conversation, receipt.submission)

    talk(run, model)


def stalls_on(word: str) -> ScriptedModel:
    """Says half a sentence and no more to a message that ends with the word; "Fine." to others."""

    def script(request: Any) -> Any:
        last = request.messages[-1]
        text = "".join(block.text for block in last.content if isinstance(block, Text))
        return Stall("One, tw") if text == word else "Fine."

    return ScriptedModel(script)


def test_s9_words_that_were_being_said_stay_and_the_source_says_the_rest() -> None:
    """S9, S7: in the fork the message is interrupted and its submission aborted; the model reads what was said of it."""
    model = stalls_on("stall")

    async def main(app: App, ask: Ask, conversation: ConversationHandle, submission: str) -> None:
        answer = await ask("POST", "/agents/toy/c/fork", {"id": "d"})
        forked = app.conversation("toy", "d")
        history = (await ask("GET", "/agents/toy/d")).json
        said = [part for message in history["messages"] for part in message["parts"] if message["role"] == "assistant"]

        assert answer.status == 201
        assert said == [{"type": "text", "text": "One, tw", "state": "done"}]
        assert [(each["outcome"], each["error"]["details"]) for each in history["settlements"]] == [("aborted", FORKED.message)]
        assert [fiber.id for fiber in await conversation.unsettled()] == [submission]
        assert (await (await forked.send("Go on.")).reply()).text == "Fine."
        partial = [message for message in model.requests[-1].messages if isinstance(message, AssistantMessage)]
        assert [(message.content, message.interrupted) for message in partial] == [((Text(text="One, tw"),), True)]

    mid_answer(model, main)


def test_s9_a_call_under_way_has_an_unknown_outcome_in_the_fork_and_one_not_begun_none() -> None:
    """S9, S8: the fork never calls it; the source goes on with it. What was only planned was not run."""
    started, may_end, effects = asyncio.Event(), asyncio.Event(), list[str]()
    model = ScriptedModel(lambda request: [Call("pay"), Call("pay")] if len(request.messages) == 1 else "Fine.")
    agent: Agent[Any] = Agent("toy", model=model)

    @agent.tool
    async def pay() -> str:
        """Pay."""
        effects.append("paid")
        started.set()
        await may_end.wait()
        return "paid"

    async def run() -> None:
        async with App([agent], store=":memory:") as app:
            conversation = app.conversation("toy", "c")
            receipt = await conversation.send("Pay twice.")
            await started.wait()
            forked = await conversation.fork()
            assert (await (await forked.send("What about it?")).reply()).text == "Fine."
            known = [result.outcome for entry in await forked.history() for result in entry.results.values()]
            results = [message for message in model.requests[-1].messages if isinstance(message, ToolMessage)]
            told = ["".join(block.text for block in result.content if isinstance(block, Text)) for result in results]
            paid_by_now = len(effects)
            may_end.set()
            assert (await receipt.reply()).text == "Fine."

            assert set(told) <= {UNKNOWN_IN_FORK, NOT_RUN_IN_FORK} and UNKNOWN_IN_FORK in told and len(told) == 2
            assert known == ["unknown" if text == UNKNOWN_IN_FORK else "aborted" for text in told]
            assert paid_by_now <= 2 and len(effects) == 2

    asyncio.run(run())


def test_a_planned_call_of_a_fork_was_not_run() -> None:
    """S8: the message with the calls is there, the intent of none is."""
    turn = h.TurnStarted(submission="sub_1", turn="t", message="m", epoch=1, at=0.0, model="x", includes=("sub_1",))
    said = h.MessageCompleted(
        submission="sub_1", turn="t", message="m", at=0.0, model="x", stop="tools",
        content=(ToolCall(id="call", name="pay", arguments={}),),
    )  # fmt: skip
    folding = golden.Folding()
    accepted = r.FiberAccepted(fiber="sub_1", method="submission", at=0.0, arguments=msgspec.Raw(b'{"body":"Pay."}'))
    folding.apply(0, [r.InstanceCreated(kind="toy", id="c", uid="u", at=0.0), accepted])
    folding.apply(1, [r.FiberStarted(fiber="sub_1", at=0.0), turn, said])
    forked = r.InstanceForked(kind="toy", id="d", uid="v", source="u", offset=1, at=1.0)

    outcomes = [
        (record.outcome, record.content[0].text)  # type: ignore[union-attr]
        for record in first_batch(forked, folding.conversation.control, folding.runtime)
        if isinstance(record, h.ToolOutcome)
    ]

    assert outcomes == [("aborted", NOT_RUN_IN_FORK)]


def test_what_waits_in_the_source_is_answered_there_and_aborted_in_the_fork() -> None:
    """S1, S7: a queued message settles on its own in the fork; nothing of it runs there."""
    model = stalls_on("stall")

    async def main(app: App, ask: Ask, conversation: ConversationHandle, submission: str) -> None:
        waiting = await conversation.send("And?")
        forked = await conversation.fork(id="d")
        asked = len(model.requests)
        settlements = {each["submissionId"]: each for each in (await ask("GET", "/agents/toy/d")).json["settlements"]}

        assert {id: each["outcome"] for id, each in settlements.items()} == {
            submission: "aborted",
            waiting.submission: "aborted",
        }
        assert "answeredBySubmissionId" not in settlements[waiting.submission]
        assert await forked.unsettled() == [] and len(model.requests) == asked
        assert len(await conversation.unsettled()) == 2

    mid_answer(model, main)


# --- what is inherited, and what is not -----------------------------------------------------------------------------


def test_s6_keys_of_the_source_are_free_in_the_fork() -> None:
    """S6: the same key is another message there, with another id; in the source it is the first one still."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        first = await conversation.send("Hello.", key="k")
        await first.reply()
        forked = await conversation.fork()
        second = await forked.send("Another.", key="k")

        assert second.submission != first.submission and not second.deduplicated
        assert (await second.reply()).text == "Fine."
        assert (await conversation.send("Hello.", key="k")).submission == first.submission

    talk(main)


def test_s6_a_key_that_came_back_to_its_old_address_by_forks_is_a_new_message() -> None:
    """S6, S14: forked away, deleted, forked back: the log holds the key's old submission, and takes its new one."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        await (await conversation.send("Hello.", key="k")).reply()
        elsewhere = await conversation.fork(id="d")
        await conversation.delete()
        back = await elsewhere.fork(id="c")
        receipt = await back.send("Hello again.", key="k")

        assert (await receipt.reply()).text == "Fine."
        assert (await back.send("Hello again.", key="k")).submission == receipt.submission
        assert [entry.text for entry in await back.history()] == ["Hello.", "Fine.", "Hello again.", "Fine."]

    talk(main)


def test_a_receipt_of_before_the_fork_is_answered_in_both() -> None:
    """S3: settlements are part of what is shared."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        receipt = await conversation.send("Hello.")
        await receipt.reply()
        forked = await conversation.fork()

        assert (await forked.reply(receipt.submission)).text == "Fine."
        await conversation.delete()
        assert (await forked.reply(receipt.submission)).text == "Fine."

    talk(main)


def test_state_is_inherited_and_goes_its_own_way() -> None:
    """S12: a change in the one is none in the other."""
    from dataclasses import dataclass

    from cairn import Context

    @dataclass
    class Case:
        count: int = 0

    model = ScriptedModel(lambda request: Call("add") if len(request.messages) % 4 == 1 else "Fine.")
    agent: Agent[Case] = Agent("toy", model=model, state=Case)

    @agent.tool
    async def add(ctx: Context[Case]) -> int:
        """Add."""
        ctx.state.count += 1
        return ctx.state.count

    async def count(conversation: ConversationHandle, app: App) -> Any:
        row = await app.store.find(conversation.address)
        assert row is not None
        return msgspec.json.decode((await conversation._fold(row)).state.values["count"])

    async def run() -> None:
        async with App([agent], store=":memory:") as app:
            conversation = app.conversation("toy", "c")
            await (await conversation.send("Add.")).reply()
            forked = await conversation.fork()
            await (await forked.send("Add.")).reply()

            assert (await count(conversation, app), await count(forked, app)) == (1, 2)

    asyncio.run(run())


# --- over HTTP ------------------------------------------------------------------------------------------------------


async def hello(app: App, id: str = "c") -> ConversationHandle:
    conversation = app.conversation("toy", id)
    await (await conversation.send("Hello.")).reply()
    return conversation


def test_a_fork_says_where_it_is_and_where_it_parted() -> None:
    """Following it from there shows what is its own and nothing else."""

    async def main(app: App, ask: Ask) -> None:
        await hello(app)
        answer = await ask("POST", "/agents/toy/c/fork", {"id": "d/e", "offset": offsets.text(1)})
        updates = await ask("GET", f"/agents/toy/d%2Fe?view=updates&offset={answer.json['offset']}")
        kinds = [chunk["type"] for chunk in updates.json]

        assert answer.status == 201
        assert answer.json["url"] == answer.headers["location"] == "http://localhost/agents/toy/d%2Fe"
        assert answer.json["offset"] == answer.headers["stream-next-offset"] == offsets.text(1)
        assert kinds == ["stream-checkpoint", "message-appended", "submission-settled"]
        assert (await ask("GET", "/agents/toy/d%2Fe/export")).lines[0]["instance"]["forkOffset"] == offsets.text(1)

    talk(main)


def test_a_fork_without_options_is_at_the_head_and_has_a_name_of_its_own() -> None:
    """Its name begins with the source's, so that whoever may see all that begin so sees it."""

    async def main(app: App, ask: Ask) -> None:
        await hello(app, "user-7")
        first, second = await ask("POST", "/agents/toy/user-7/fork"), await ask("POST", "/agents/toy/user-7/fork", {})

        assert (first.status, second.status) == (201, 201)
        assert first.json["id"] != second.json["id"] and first.json["id"].startswith("user-7-")
        source = (await ask("GET", "/agents/toy/user-7")).json
        copy = (await ask("GET", "/agents/toy/" + first.json["id"])).json
        assert copy["messages"] == source["messages"] and copy["conversationId"] != source["conversationId"]

    talk(main)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"id": "c"}, 409, "agent_instance_exists"),
        ({"id": ""}, 400, "invalid_request"),
        ({"id": 7}, 400, "invalid_request"),
        ({"offset": 7}, 400, "invalid_request"),
        ({"offset": "seven"}, 400, "invalid_request"),
        ({"offset": "-1"}, 400, "invalid_request"),
        ({"offset": "0_999999"}, 416, "stream_offset_gone"),
        ({"Id": "d"}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
def test_a_fork_that_cannot_be_is_refused_and_leaves_nothing(body: Any, status: int, error: str) -> None:
    """Each with its own type; the list of conversations is as before."""

    async def main(app: App, ask: Ask) -> None:
        await hello(app)
        answer = await ask("POST", "/agents/toy/c/fork", body)

        assert (answer.status, answer.error) == (status, error)
        assert len((await ask("GET", "/agents/toy")).json["conversations"]) == 1

    talk(main)


def test_x5_a_fork_goes_where_its_maker_may_manage_and_nowhere_else() -> None:
    """X5, S12: to a name that the caller sees; another is as if there could be none, whether it is taken or not."""
    ann = {"x-who": "toy/ann*"}

    async def main(app: App, ask: Ask) -> None:
        await hello(app, "ann")
        await hello(app, "bob")
        refused = [await ask("POST", "/agents/toy/ann/fork", {"id": id}, ann) for id in ("bob", "zed")]
        granted = await ask("POST", "/agents/toy/ann/fork", None, ann)

        assert [(answer.status, answer.error) for answer in refused] == [(404, "stream_not_found")] * 2
        assert granted.status == 201 and granted.json["id"].startswith("ann")
        assert (await ask("POST", "/agents/toy/bob/fork", {"id": "ann-2"}, ann)).status == 404
        assert len(await app.store.instances()) == 3

    talk(main, auth=as_named)


def test_what_is_not_there_cannot_be_forked() -> None:
    """From Python: NotFound, Conflict and UsageError, each before anything is written."""

    async def main(app: App, ask: Ask) -> None:
        with pytest.raises(NotFound):
            await app.conversation("toy", "none").fork()
        conversation = await hello(app)
        with pytest.raises(NotFound, match="no offset 99"):
            await conversation.fork(99)
        with pytest.raises(Conflict):
            await conversation.fork(id="c")
        with pytest.raises(UsageError):
            await conversation.fork(id=" ")
        assert (await ask("POST", "/agents/toy/none/fork")).error == "stream_not_found"

    talk(main)


def test_a_fork_outlives_its_source() -> None:
    """X11: the source is gone for everybody; what is shared is kept for the fork, and is gone with it."""

    async def main(app: App, ask: Ask) -> None:
        await hello(app)
        await ask("POST", "/agents/toy/c/fork", {"id": "d"})
        assert (await ask("DELETE", "/agents/toy/c")).status == 200
        assert (await ask("GET", "/agents/toy/c")).status == 404
        copy = (await ask("GET", "/agents/toy/d")).json
        assert [part["text"] for message in copy["messages"] for part in message["parts"]] == ["Hello.", "Fine."]
        assert (await ask("DELETE", "/agents/toy/d")).status == 200
        assert (await app.store.info()).rows == 0

    talk(main)


def test_a_fork_is_read_like_any_conversation_from_every_offset() -> None:
    """S3: the updates after each offset, folded onto the history up to it, are the history."""

    async def main(app: App, ask: Ask) -> None:
        conversation = await hello(app)
        forked = await conversation.fork(id="d")
        await (await forked.send("And?")).reply()
        row = await app.store.find(forked.address)
        assert row is not None
        whole = (await ask("GET", "/agents/toy/d?view=updates&offset=-1")).json[1:]
        for after in range(row.head + 1):
            rest = (await ask("GET", f"/agents/toy/d?view=updates&offset={offsets.text(after)}")).json[1:]
            assert rest == [chunk for chunk in whole if chunk["position"]["batch"] > after]
        assert {chunk["conversationId"] for chunk in whole} == {"conv_" + row.uid.removeprefix("inst_")}

    talk(main)


# --- beside merged rows ---------------------------------------------------------------------------------------------


async def settled_and_merged(app: App) -> tuple[ConversationHandle, Row]:
    """A conversation with an answer of many deltas, which have become one row."""
    conversation = app.conversation("toy", "c")
    await (await conversation.send("Hello.")).reply()
    found = await app.store.find(conversation.address)
    assert found is not None
    while True:
        merged = [row for row in await app.store.read(found.n, -1) if row.merged_from is not None]
        if merged:
            return conversation, merged[0]
        await asyncio.sleep(0.005)  # no one tells


def many_deltas() -> ScriptedModel:
    said = Say("One, two, three, four.", chunk=2, pause=0.03)
    return ScriptedModel(lambda request: said if len(request.messages) == 1 else "Fine.")


def test_a_fork_inside_a_merged_range_parts_at_its_end_and_says_so() -> None:
    """S3: its first own batch is right for that place; what was said is whole."""

    async def main(app: App, ask: Ask) -> None:
        _, row = await settled_and_merged(app)
        assert row.merged_from is not None and row.merged_from < row.ordinal
        answer = await ask("POST", "/agents/toy/c/fork", {"id": "d", "offset": offsets.text(row.merged_from)})
        history = (await ask("GET", "/agents/toy/d")).json

        assert answer.json["offset"] == offsets.text(row.ordinal)
        assert history["messages"][1]["parts"] == [{"type": "text", "text": "One, two, three, four.", "state": "done"}]
        assert history["settlements"][0]["outcome"] == "aborted"
        assert (await (await app.conversation("toy", "d").send("And?")).reply()).text == "Fine."

    talk(main, many_deltas(), settings=WorkerSettings(tidy_seconds=0.05))


def test_s3_a_fork_that_meets_a_merge_parts_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3: rows are merged between the look at where it may part and the parting: it is done again for the right place."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        await (await conversation.send("Hello.")).reply()
        found = await app.store.find(conversation.address)
        assert found is not None and app.worker is not None
        rows = [row for row in await app.store.read(found.n, -1) if row.batch.records.startswith(DELTAS)]
        boundary, asked = app.store.boundary, 0

        async def late(n: int, at: int) -> int:
            nonlocal asked
            asked += 1
            answer = await boundary(n, at)
            if asked == 1:
                merger = Merger(lambda row: decode(row.batch.records))
                for row in rows:
                    assert merger.feed(row) is None
                merge = merger.end()
                assert merge is not None and await app.store.merge(n, merge.first, merge.last, merge.batch)
            return answer

        monkeypatch.setattr(app.store, "boundary", late)
        forked = await conversation.fork(rows[1].ordinal, "d")
        made = await app.store.find(forked.address)

        assert made is not None and made.fork_offset == rows[-1].ordinal
        first = decode((await app.store.read(made.n, rows[-1].ordinal))[0].batch.records)[0]
        assert isinstance(first, r.InstanceForked) and first.offset == rows[-1].ordinal
        assert len(await app.store.instances()) == 2 and await app.store.check() == []

    talk(main, many_deltas(), settings=WorkerSettings(tidy_seconds=None))


def test_s3_a_client_inside_a_merged_range_is_given_the_conversation_once_and_reads_on() -> None:
    """S3: one reset with the snapshot at the head; clients at its ends, or before it, see nothing unusual."""

    async def main(app: App, ask: Ask) -> None:
        _, row = await settled_and_merged(app)
        assert row.merged_from is not None

        async def kinds(after: int) -> list[str]:
            answer = await ask("GET", f"/agents/toy/c?view=updates&offset={offsets.text(after)}")
            return [chunk["type"] for chunk in answer.json[1:]]

        history = (await ask("GET", "/agents/toy/c")).json
        for after in range(row.merged_from, row.ordinal):
            answer = await ask("GET", f"/agents/toy/c?view=updates&offset={offsets.text(after)}")
            [reset] = answer.json[1:]
            assert reset["type"] == "conversation-reset" and reset["snapshot"]["messages"] == history["messages"]
            assert answer.headers["stream-next-offset"] == history["offset"]
        for after in (-1, row.merged_from - 1, row.ordinal):
            assert "conversation-reset" not in (await kinds(after))[after == -1 :]
        assert (await kinds(row.merged_from - 1))[0] == "message-delta"

    talk(main, many_deltas(), settings=WorkerSettings(tidy_seconds=0.05))


# --- whatever dies --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_t3_a_crash_anywhere_while_a_conversation_is_forked_costs_nothing() -> None:
    """T3, S1, S2, S7: before and after each write: there is one fork, whole, and both are answered. Its maker asks again under
    the same id, and takes the Conflict for success."""

    async def client(conversation: ConversationHandle, world: World) -> None:
        first = await conversation.send("Hello.", key="0")
        try:
            await conversation.fork(id="d")
        except Conflict:
            pass
        forked = ConversationHandle(
            conversation._application,
            conversation._store,
            conversation._clock,
            conversation._ids,
            Address(conversation.address.kind, "d"),
        )
        await settled(await forked.send("And here?", key="0"))
        await settled(first)
        await settled(await conversation.send("And there?", key="1"))

    for crash in crash_points():
        done = scene(script=by_turn([Say("Fine.", chunk=2)] * 3), client=client, crashes=[crash])
        source, fork = done.run.logs
        assert fork.instance.forked_from == source.instance.n
        assert outcomes(source.rows)[-1] == outcomes(fork.rows)[-1] == ("completed", "Fine.")
        assert len(outcomes(source.rows)) == 2
        if not crash.reached:
            break


def outcomes(rows: list[Row]) -> list[tuple[str, str]]:
    records = [record for row in rows for record in decode(row.batch.records) if isinstance(record, r.FiberSettled)]
    results = [(record.outcome, msgspec.json.decode(record.result)) for record in records]
    return [(outcome, result["text"] if result else "") for outcome, result in results]
