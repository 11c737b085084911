"""The published `@flue/sdk` while the server under it is killed, stopped, robbed of its store, or one of two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.http.serving import Server, serving
from tests.npm.judging import LONG, answers, of, once, parts, said, settlement, sound
from tests.npm.node import Node

pytestmark = pytest.mark.system


@pytest.fixture
def server(project: Path) -> Iterator[Server]:
    shutil.rmtree(project / ".cairn", ignore_errors=True)
    for trace in ("effects", "speaker"):
        (project / trace).unlink(missing_ok=True)
    with serving(project) as running:
        yield running


def killed(server: Server) -> None:
    server.kill()
    server.restart()


def stopped(server: Server) -> None:
    assert server.stop() == 0
    server.restart()


@pytest.mark.parametrize(("end", "attempts"), [(killed, [1, 2]), (stopped, [1, 1])])
def test_clients_come_through_the_end_of_the_server(
    node: Node, server: Server, end: Callable[[Server], None], attempts: list[int]
) -> None:
    """S1, S3, S6, S7, S9, L2, L5, T16, T17: `kill -9`, and SIGTERM, in the middle of a text and of a tool, with `wait()` and
    `observe()` (SSE, long-poll) alive. They finish by themselves; what they observed is the history; no text is lost or
    doubled; the tool acted once; a message that waited is answered, one that was sent again under its key is the same one; an
    idle observer sees what comes after. A stop costs no attempt."""
    results = node.run("lives.mjs", server.url, server.project, answers={"next life": lambda: end(server)})

    text, tool, queued, keyed, idle = (of(results, name) for name in ("text", "tool", "queued", "keyed", "idle"))
    both = [scenario[live] for scenario in (text, tool, idle) for live in ("sse", "polled")]
    for seen in (*both, queued, keyed):
        sound(seen)
    for waited in (text["wait"], tool["wait"], *queued["both"]):
        assert "error" not in waited
        once(waited["events"])
    _judge_text(text, attempts)
    _judge_tool(tool, server.project)
    _judge_key(keyed)
    for admission in (queued["first"], queued["second"]):
        assert settlement(queued["history"], admission["submissionId"])["outcome"] == "completed"
    assert queued["text"] == LONG + "Hello to you."
    assert idle["sse"]["text"] == idle["polled"]["text"] == "Hello to you.Forty-two."


def _judge_text(text: dict[str, Any], attempts: list[int]) -> None:
    assert said(text["wait"]["events"]) == LONG
    assert text["sse"]["text"] == text["polled"]["text"] == text["read"]["text"] == LONG
    (answer,) = answers(text["sse"]["history"])
    assert len(answer["parts"]) == 1, "the words of both lives are one text"
    assert [event["attempt"] for event in text["wait"]["events"] if event["type"] == "message-started"] == attempts


def _judge_tool(tool: dict[str, Any], project: Path) -> None:
    assert (project / "effects").read_text() == "paid 3\n"
    (part,) = parts(tool["sse"]["history"], "dynamic-tool")
    assert part["state"] == "output-error" and part["input"] == {"amount": 3}
    assert tool["read"]["text"].endswith("About the payment: done.")


def _judge_key(keyed: dict[str, Any]) -> None:
    """Copies before, between and after, some of them at once, are one message with one answer."""
    assert len({receipt["submissionId"] for receipt in keyed["receipts"]}) == 1
    assert sum("deduplicated" not in receipt for receipt in keyed["receipts"]) == 1
    assert {reply["text"] for reply in keyed["replies"]} == {LONG}
    assert [message["role"] for message in keyed["history"]["messages"]].count("user") == 1
    assert (keyed["other"]["status"], keyed["other"]["body"]["error"]["type"]) == (409, "submission_conflict")


def test_an_answer_outlives_many_servers(node: Node, server: Server) -> None:
    """S1, S3, L2, L3, T17: each life adds a little and ends in the middle, killed or stopped; `wait()`, SSE and long-poll
    follow from the first word to the last, and the answer is one text."""
    ends = [killed, stopped, killed, killed, stopped]
    lives = iter(ends * 3)

    results = node.run("storm.mjs", server.url, server.project, answers={"next life": lambda: next(lives)(server)})

    storm = of(results, "storm")
    assert storm["lives"] >= len(ends)
    once(storm["wait"]["events"])
    assert said(storm["wait"]["events"]) == LONG
    for seen in (storm["sse"], storm["polled"]):
        sound(seen)
        assert seen["text"] == LONG
        (answer,) = answers(seen["history"])
        assert len(answer["parts"]) == 1


def test_several_processes_are_one_server(node: Node, project: Path) -> None:
    """S3, S4, L5: `cairn serve --workers 2`: who answers a request is chance, and every client sees the same."""
    shutil.rmtree(project / "gates", ignore_errors=True)
    with serving(project, store=project / "several" / "cairn.db", options=["--workers", "2"]) as server:
        results = node.run("calm.mjs", server.url, project)
        assert server.stop() == 0
        assert " 500 " not in server.output

    for name in results:
        for seen in (results[name], *(of(results, name).get(live) for live in ("sse", "polled", "first", "late"))):
            if isinstance(seen, dict) and "observed" in seen:
                sound(seen)
    assert len({copy["submissionId"] for copy in of(results, "idempotent")["copies"]}) == 1
    for name in ("joined", "abort_running"):
        assert len(of(results, name)["history"]["settlements"]) == 2


def test_readers_of_a_wiped_store_come_back_to_what_is_there(node: Node, project: Path, server: Server) -> None:
    """S3: the store is deleted under live readers. Where nothing regrew they are told that it is absent; where another life of
    the conversation did, at offsets they hold, they go from the old state to the new one in one step and never mix them;
    `wait()` finds the submission of its key in the new life."""
    others: list[Server] = []
    with serving_beside(project, server, others) as begin:

        def wipe() -> dict[str, str]:
            server.stop()
            shutil.rmtree(server.store.parent)
            return {"url": begin().url}

        def come_back() -> None:
            others[0].stop()
            server.restart()

        results = node.run("wiped.mjs", server.url, project, answers={"wipe": wipe, "return": come_back})

    old = "Hello to you."
    for live in ("sse", "polled"):
        gone, again = of(results, "gone")[live], of(results, "again")[live]
        for seen, new in ((gone, ""), (again, "Forty-two.Let me look. It is fine.Hello to you.")):
            assert seen["jumps"] == [[old, new]]
            sound({**seen, "jumps": []})
        assert "absent" in gone["phases"] and "absent" not in again["phases"]
        assert gone["history"]["incarnation"] != of(results, "gone")["before"]["incarnation"]
        assert again["history"]["incarnation"] != of(results, "again")["before"]["incarnation"]
    waiting = of(results, "waiting")
    assert waiting["read"]["text"] == "Forty-two." and waiting["delivered"] > 0


class serving_beside:
    """A second server on the same store, begun when it is wanted."""

    def __init__(self, project: Path, server: Server, others: list[Server]) -> None:
        self._project, self._server, self._others = project, server, others
        self._open: list[Any] = []

    def __enter__(self) -> Callable[[], Server]:
        return self._begin

    def _begin(self) -> Server:
        context = serving(self._project, store=self._server.store)
        self._others.append(context.__enter__())
        self._open.append(context)
        return self._others[-1]

    def __exit__(self, *_: object) -> None:
        for context in self._open:
            context.__exit__(None, None, None)


def test_two_servers_are_one(node: Node, project: Path, server: Server) -> None:
    """S1, S4, L2, L5: written through one process and read through another of the same store; aborted from the other one; and
    when the one that speaks is killed, the other goes on, for the readers of both."""
    with serving(project, store=server.store) as second:

        def kill_the_speaker() -> None:
            pid = int((project / "speaker").read_text())
            (speaker,) = [each for each in (server, second) if each.pid == pid]
            killed(speaker)

        answers_ = {"kill the speaker": kill_the_speaker}
        results = node.run("two.mjs", server.url, project, second.url, answers=answers_)

    for name in ("text", "tool"):
        scenario = of(results, name)
        for seen in (scenario["sse"], scenario["polled"]):
            sound(seen)
            assert seen["history"] == scenario["here"]
        once(scenario["wait"]["events"])
    assert of(results, "text")["there"]["text"] == LONG
    aborted = of(results, "aborted")
    sound(aborted)
    assert aborted["answer"] == {"aborted": True} and aborted["error"]["failure"] == "aborted"
    for seen in of(results, "taken_over")["ends"]:
        sound(seen)
        assert seen["text"] == LONG
