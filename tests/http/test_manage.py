"""Beside the conversations: lists, export, deletion, usage, and what the server says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.http.asking import Ask, opened

from cairn import Agent, App, local
from cairn.errors import NotFound
from cairn.framework.http import manage, offsets
from cairn.framework.http.auth import EVERY_GRANT, Credentials, Grant, Identity
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.pieces import PIECE_BYTES
from cairn.harness.handle import ConversationHandle
from cairn.harness.messages import Usage
from cairn.testing.scripted import Call, ScriptedModel, Stall


def toy(*replies: Any, **options: Any) -> Agent[Any]:
    """An agent with a script; without one it always says "Fine."."""
    script = list(replies) if replies else lambda request: "Fine."
    agent: Agent[Any] = Agent("toy", model=ScriptedModel(script, **options), instructions="Be brief.", description="A toy.")

    @agent.tool(repeat="safe")
    async def look() -> str:
        """Look."""
        return "a tree"

    return agent


def talk(
    main: Callable[[App, Ask], Coroutine[Any, Any, None]], agents: Sequence[Agent[Any]] | None = None, **options: Any
) -> None:
    """Open an App and do `main` with it."""

    async def run() -> None:
        app = App(agents or [toy()], store=options.pop("store", ":memory:"), **options)
        async with opened(app) as ask:
            await main(app, ask)

    asyncio.run(run())


def as_named(credentials: Credentials) -> Identity | None:
    """The name of the caller is the pattern of what it may see, and it may do everything there."""
    name = credentials.headers.get("x-who")
    return Identity(name, grants=EVERY_GRANT, agents=tuple(name.split(",")), trusted=True) if name else None


async def said(app: App, id: str, *messages: str) -> ConversationHandle:
    """A conversation in which these were said and answered."""
    conversation = app.conversation("toy", id)
    for message in messages:
        await (await conversation.send(message)).reply()
    return conversation


# --- lists ----------------------------------------------------------------------------------------------------------


def test_the_list_of_agents_names_each_with_its_model() -> None:
    """What can be talked to, and where."""

    async def main(app: App, ask: Ask) -> None:
        found = await ask("GET", "/agents")

        assert found.json == {
            "agents": [
                {"name": "toy", "description": "A toy.", "model": "scripted:model", "url": "http://localhost/agents/toy"}
            ]
        }

    talk(main)


def test_x5_an_agent_that_a_caller_may_not_see_is_not_listed() -> None:
    """X5, X11: nor are its conversations, and asking for them tells nothing of it."""

    async def main(app: App, ask: Ask) -> None:
        await app.conversation("toy", "c").send("Hello.")
        who = {"x-who": "other/*"}

        assert (await ask("GET", "/agents", headers=who)).json == {"agents": []}
        assert (await ask("GET", "/agents/toy", headers=who)).status == 404

    talk(main, serve=False, auth=as_named)


def test_conversations_are_listed_newest_first_a_page_at_a_time() -> None:
    """Every conversation is on one page, none on two, and the last page has no next one."""

    async def main(app: App, ask: Ask) -> None:
        for number in range(7):
            await app.conversation("toy", f"c/{number}").send("Hello.")
        pages, cursor = [], ""
        while True:
            page = (await ask("GET", "/agents/toy", query=f"limit=3{cursor}")).json
            pages.append([entry["id"] for entry in page["conversations"]])
            if page["next"] is None:
                break
            cursor = f"&cursor={page['next']}"

        assert pages == [["c/6", "c/5", "c/4"], ["c/3", "c/2", "c/1"], ["c/0"]]
        assert page["conversations"][0]["url"] == "http://localhost/agents/toy/c%2F0"
        assert (await ask("HEAD", "/agents/toy/c%2F0")).status == 200

    talk(main, serve=False)


def test_x5_a_page_holds_what_its_reader_may_see_and_is_full_of_it() -> None:
    """X5, S12: others' conversations neither show nor shorten a page, and the cursor of the last page says it is the last."""

    async def main(app: App, ask: Ask) -> None:
        for number in range(40):
            await app.conversation("toy", f"{'ann' if number % 10 == 0 else 'bob'}-{number}").send("Hello.")
        first = (await ask("GET", "/agents/toy", query="limit=3", headers={"x-who": "toy/ann-*"})).json
        ids = [entry["id"] for entry in first["conversations"]]
        second = (await ask("GET", "/agents/toy", query=f"limit=3&cursor={first['next']}", headers={"x-who": "toy/ann-*"})).json

        assert ids == ["ann-30", "ann-20", "ann-10"]
        assert [entry["id"] for entry in second["conversations"]] == ["ann-0"]
        assert second["next"] is None

    talk(main, serve=False, auth=as_named)


def test_a_search_among_others_conversations_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """T17: one request reads a bounded part of the store; the next goes on where it stopped, and nothing is left out."""
    monkeypatch.setattr(manage, "SEARCH_PAGES_MAX", 2)

    async def main(app: App, ask: Ask) -> None:
        for number in range(30):
            await app.conversation("toy", f"{'ann' if number in (0, 29) else 'bob'}-{number}").send("Hello.")
        found, cursor, requests = [], "", 0
        while cursor is not None:
            query = f"limit=5{cursor}"
            page = (await ask("GET", "/agents/toy", query=query, headers={"x-who": "toy/ann-*"})).json
            found += [entry["id"] for entry in page["conversations"]]
            cursor, requests = (f"&cursor={page['next']}" if page["next"] else None), requests + 1

        assert found == ["ann-29", "ann-0"]
        assert 1 < requests <= 4

    talk(main, serve=False, auth=as_named, limits=HttpLimits(conversations_page_max=5))


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=1&limit=2", "cursor=%F0%9F%98%80", "cursor=1e3"])
def test_a_page_that_is_none_is_refused(query: str) -> None:
    """400, with the parameter's name."""

    async def main(app: App, ask: Ask) -> None:
        answer = await ask("GET", "/agents/toy", query=query)

        assert (answer.status, answer.error) == (400, "invalid_request")
        assert query.partition("=")[0] in answer.json["error"]["details"]

    talk(main, serve=False)


# --- what it is -----------------------------------------------------------------------------------------------------


def test_the_server_says_what_it_is_and_what_its_caller_may_do() -> None:
    """Also which agents there are for this caller."""

    async def main(app: App, ask: Ask) -> None:
        info = (await ask("GET", "/info", headers={"x-who": "other/*"})).json

        assert (info["name"], info["identity"], info["agents"]) == ("cairn", "other/*", [])
        assert info["grants"] == sorted(grant.value for grant in Grant)

    talk(main, serve=False, auth=as_named)


# --- export ---------------------------------------------------------------------------------------------------------


def test_an_export_is_the_whole_log_line_by_line() -> None:
    """S2: a line a batch, linked to the one before; the last line says that nothing is missing."""

    async def main(app: App, ask: Ask) -> None:
        conversation = await said(app, "c", "Hello.", "And?")
        row = await app.store.find(conversation.address)
        assert row is not None
        answer = await ask("GET", "/agents/toy/c/export")
        first, *batches, last = answer.lines
        rows = await app.store.read(row.n, -1)

        assert answer.headers["content-type"] == "application/x-ndjson"
        assert first["instance"]["uid"] == row.uid
        assert [batch["records"] for batch in batches] == [msgspec.json.decode(each.batch.records) for each in rows]
        assert [batch["prev"] for batch in batches] == [-1, *(batch["ordinal"] for batch in batches[:-1])]
        assert last == {"end": first["instance"]["offset"]}
        assert all("chunks" not in batch for batch in batches)

    talk(main)


def test_an_export_has_the_chunks_when_they_are_asked_for() -> None:
    """As they are stored: without what only a reader's frame adds."""

    async def main(app: App, ask: Ask) -> None:
        await said(app, "c", "Hello.")
        _, *batches, _ = (await ask("GET", "/agents/toy/c/export?chunks=true")).lines
        kinds = [chunk["type"] for batch in batches for chunk in batch["chunks"]]

        assert kinds[:2] == ["conversation-reset", "message-appended"] and kinds[-1] == "submission-settled"

    talk(main)


def test_a_long_export_leaves_in_pieces_and_is_never_whole_in_memory() -> None:
    """T17: as many pieces as it has times 64 KB."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        for _ in range(40):
            await conversation.send("x" * 30_000)
        answer = await ask("GET", "/agents/toy/c/export")

        assert len(answer.lines) == 43
        assert answer.pieces >= 1_200_000 // (PIECE_BYTES + 30_000)

    talk(main, serve=False)


def test_an_export_of_a_conversation_that_is_deleted_meanwhile_lacks_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was cut off can be told from what is whole."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        for _ in range(3):
            await conversation.send("Hello.")
        read, pages = app.store.read, 0

        async def reading(*arguments: Any, **options: Any) -> Any:
            nonlocal pages
            pages += 1
            if pages == 2:
                await conversation.delete()
            return await read(*arguments, **options)

        monkeypatch.setattr(app.store, "read", reading)
        lines = (await ask("GET", "/agents/toy/c/export")).lines

        assert "instance" in lines[0] and "end" not in lines[-1]

    talk(main, serve=False, limits=HttpLimits(page_batches=2))


def test_an_export_ends_when_its_reader_has_gone() -> None:
    """T17: nobody reads a log to its end for somebody who hung up."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        for _ in range(20):
            await conversation.send("x" * 70_000)
        gone = asyncio.Event()
        gone.set()
        answer = await ask("GET", "/agents/toy/c/export", hang_up=gone)

        assert not answer.is_complete and answer.pieces <= 2

    talk(main, serve=False)


# --- deletion -------------------------------------------------------------------------------------------------------


def test_a_deleted_conversation_is_as_if_it_had_never_been() -> None:
    """X11: to every route; its id is free, and what is sent to it then is another conversation."""

    async def main(app: App, ask: Ask) -> None:
        await said(app, "c", "Hello.")
        before = (await ask("GET", "/agents/toy/c")).json
        deleted = await ask("DELETE", "/agents/toy/c")
        again = await ask("DELETE", "/agents/toy/c")

        assert (deleted.status, deleted.json) == (200, {"deleted": True})
        assert (again.status, again.error) == (404, "stream_not_found")
        for path in ("", "?view=updates&offset=-1", "/export", "/usage", "/attachments/att_x_0"):
            assert (await ask("GET", f"/agents/toy/c{path}")).status == 404, path
        assert (await ask("GET", "/agents/toy")).json["conversations"] == []
        await said(app, "c", "Hello again.")
        after = (await ask("GET", "/agents/toy/c")).json
        assert after["incarnation"] != before["incarnation"] and len(after["messages"]) == 2

    talk(main)


def test_s4_who_works_on_a_deleted_conversation_stops_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """S4: its owner is fenced; nothing is logged as an error, the model's stream is closed, and the worker goes on."""
    model = ScriptedModel(lambda request: Stall("One ") if "stall" in str(request.messages) else "Fine.")

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        receipt = await conversation.send("stall")
        async for event in conversation.follow(receipt.offset):
            if type(event).__name__ == "MessageDelta":
                break
        assert (await ask("DELETE", "/agents/toy/c")).status == 200
        assert app.worker is not None
        await app.worker.idle()

        assert app.worker.running == [] and model.closed == 1
        await said(app, "c", "Hello.")

    with caplog.at_level(logging.WARNING):
        talk(main, [Agent("toy", model=model)])
    assert [record.getMessage() for record in caplog.records] == []


def test_s4_another_process_may_delete_what_is_worked_on_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """S4, L5: the owner learns it from the store, through which alone the two know of each other."""
    path = str(tmp_path / "cairn.db")
    model = ScriptedModel(lambda request: Stall("One "))

    async def run() -> None:
        agent = Agent("toy", model=model)
        async with App([agent], store=path) as owner, opened(App([agent], store=path, serve=False)) as other:
            conversation = owner.conversation("toy", "c")
            receipt = await conversation.send("Hello.")
            async for event in conversation.follow(receipt.offset):
                if type(event).__name__ == "MessageDelta":
                    break
            follower = asyncio.ensure_future(receipt.reply())
            assert (await other("DELETE", "/agents/toy/c")).json == {"deleted": True}
            assert owner.worker is not None
            await owner.worker.idle()

            assert owner.worker.running == [] and model.closed == 1
            with pytest.raises(NotFound):
                await follower

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(run(), 20))
    assert [record.getMessage() for record in caplog.records] == []


def test_what_sandboxes_kept_of_a_deleted_conversation_is_gone(tmp_path: Path) -> None:
    """X11: its files go with it; another conversation's stay."""

    async def run() -> None:
        agent = Agent("toy", model=ScriptedModel(lambda request: "Fine."), sandbox=local(cwd=str(tmp_path)))
        async with App([agent], store=str(tmp_path / "cairn.db")) as app:
            rows = []
            for id in ("c", "d"):
                conversation = await said(app, id, "Hello.")
                row = await app.store.find(conversation.address)
                assert row is not None
                (tmp_path / row.uid / "output").mkdir(parents=True)
                (tmp_path / row.uid / "output" / "1.txt").write_text("long")
                rows.append(row)
            assert await app.conversation("toy", "c").delete()

            assert not (tmp_path / rows[0].uid).exists()
            assert (tmp_path / rows[1].uid / "output" / "1.txt").exists()

    asyncio.run(run())


def test_who_follows_a_deleted_conversation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long-poll that waits is answered 404; a stream ends."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        await conversation.send("Hello.")
        row = await app.store.find(conversation.address)
        assert row is not None
        changed, both_wait = app.store.changed, asyncio.Event()
        waiting = 0

        async def wait(*arguments: Any) -> int:
            nonlocal waiting
            waiting += 1
            if waiting == 2:
                both_wait.set()
            return await changed(*arguments)

        monkeypatch.setattr(app.store, "changed", wait)
        path = f"/agents/toy/c?view=updates&offset={offsets.text(row.head)}"
        waits = [asyncio.ensure_future(ask("GET", f"{path}&live={live}")) for live in ("long-poll", "sse")]
        await both_wait.wait()
        await ask("DELETE", "/agents/toy/c")
        poll, stream = await asyncio.gather(*waits)

        assert (poll.status, poll.error) == (404, "stream_not_found")
        assert stream.is_complete

    talk(main, serve=False)


# --- usage ----------------------------------------------------------------------------------------------------------


def test_usage_is_what_was_paid_for_in_all_by_model_and_by_submission() -> None:
    """Tokens and turns add up; a joined or queued message has a share of its own."""
    price = Usage(input=100, output=20, cache_read=50, cost=0.25)

    async def main(app: App, ask: Ask) -> None:
        await said(app, "c", "Hello.", "And?")
        used = (await ask("GET", "/agents/toy/c/usage")).json
        tokens = {"input": 300, "output": 60, "cacheRead": 150, "cacheWrite": 0, "reasoning": 0}

        assert used["totals"] == {
            "submissions": 2, "turns": 3, "responses": 3, "toolCalls": 1, "tokens": tokens, "costUsd": 0.75, "unpriced": 0,
        }  # fmt: skip
        assert [(model["model"], model["turns"]) for model in used["models"]] == [("scripted:model", 3)]
        assert [(each["turns"], each["toolCalls"], each["costUsd"], each["outcome"]) for each in used["submissions"]] == [
            (2, 1, 0.5, "completed"),
            (1, 0, 0.25, "completed"),
        ]

    talk(main, [toy(Call("look"), "A tree.", "Fine.", usage=price)])


def test_a_cost_nobody_knows_is_not_nothing() -> None:
    """Null, and how many responses it is unknown of."""

    async def main(app: App, ask: Ask) -> None:
        await said(app, "c", "Hello.")
        totals = (await ask("GET", "/agents/toy/c/usage")).json["totals"]

        assert (totals["costUsd"], totals["unpriced"], totals["responses"]) == (None, 1, 1)

    talk(main)


def test_a_fork_costs_what_was_paid_for_in_it() -> None:
    """Sums over a conversation and its forks count nothing twice."""

    async def main(app: App, ask: Ask) -> None:
        conversation = await said(app, "c", "Hello.", "And?")
        forked = await conversation.fork(id="d")
        assert (await forked.usage()).total.turns == 0
        await said(app, "d", "So?")
        used = (await ask("GET", "/agents/toy/d/usage")).json

        assert (used["totals"]["turns"], used["totals"]["submissions"]) == (1, 1)
        assert (await conversation.usage()).total.turns == 2

    talk(main)


def test_the_usage_of_a_long_conversation_is_complete_json() -> None:
    """Sent in pieces, and one document."""

    async def main(app: App, ask: Ask) -> None:
        conversation = app.conversation("toy", "c")
        for _ in range(800):
            await conversation.send("Hello.")
        answer = await ask("GET", "/agents/toy/c/usage")

        assert len(answer.json["submissions"]) == 800 and answer.pieces > 1

    talk(main, serve=False)


@pytest.mark.parametrize("path", ["/usage", "/export"])
def test_what_was_never_sent_to_has_nothing(path: str) -> None:
    """404, and no conversation comes of asking."""

    async def main(app: App, ask: Ask) -> None:
        assert (await ask("GET", f"/agents/toy/none{path}")).error == "stream_not_found"
        assert (await ask("GET", "/agents/toy")).json["conversations"] == []

    talk(main, serve=False)
