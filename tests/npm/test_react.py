"""The published `@flue/react`, unmodified, in a React application with a document: what a person sees, render by render."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.http.serving import Server, serving
from tests.npm.judging import LONG, of, parts
from tests.npm.node import Node

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project) as running:
        yield running


@pytest.fixture(scope="module")
def results(node: Node, server: Server) -> dict[str, Any]:
    def next_life() -> None:
        server.kill()
        server.restart()

    found: dict[str, Any] = node.run("react.mjs", server.url, server.project, answers={"next life": next_life})
    return found


def statuses(scenario: dict[str, Any]) -> list[str]:
    """The statuses in the order they were rendered, without repetitions and without how the connection is."""
    seen = [render["status"] for render in scenario["seen"] if render["status"] != "connecting"]
    return [status for status, _ in groupby(seen)]


def canonical(scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """The hook's messages with the ids of the server: a row that was sent here keeps the id it was shown with."""
    history = {message["id"]: message for message in scenario["history"]["messages"]}
    sent = {message["submissionId"]: message["id"] for message in history.values() if message["role"] == "user"}
    return [
        {**message, "id": sent[message["submissionId"]]} if message["id"].startswith("local:") else message
        for message in scenario["messages"]
    ]


@pytest.mark.parametrize(
    "name", ["talk", "polled", "failure", "tools", "broken", "shown", "image", "client_given", "in_a_row", "aborted"]
)
def test_what_the_hook_holds_is_the_history(results: dict[str, Any], name: str) -> None:
    """S3, L5: messages and settlements, and the document shows those messages; no render had a row twice."""
    scenario = of(results, name)
    assert canonical(scenario) == scenario["history"]["messages"]
    assert scenario["settlements"] == scenario["history"]["settlements"]
    assert scenario["doubled"] == [] and scenario["failed"] == []
    texts = [
        [message["role"], "".join(part["text"] for part in message["parts"] if part["type"] == "text")]
        for message in scenario["messages"]
    ]
    assert scenario["rows"] == texts


@pytest.mark.parametrize("name", ["talk", "polled"])
def test_a_message_goes_from_sent_to_answered(results: dict[str, Any], name: str) -> None:
    """Absent, submitted, streaming, idle; the row a person sees at once is the one that stays; the text only ever grows."""
    scenario = of(results, name)
    assert statuses(scenario) == ["idle", "submitted", "streaming", "idle"]
    sent = [render["rows"] for render in scenario["seen"] if render["rows"]]
    assert all([row[0] for row in rows if row[1] == "user"] == ["local:1"] for rows in sent)
    texts = [row[2] for rows in sent for row in rows if row[1] == "assistant"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == LONG


def test_a_failure_is_an_error_until_something_else_is_sent(results: dict[str, Any]) -> None:
    failed = of(results, "failure")
    assert failed["status"] == "error"
    assert failed["seen"][-1]["error"] == "the model refuses this"
    row = of(results, "in_a_row")
    assert row["status"] == "idle"
    assert [settled["outcome"] for settled in row["settlements"]] == ["completed", "failed", "completed"]
    assert "error" in statuses(row)


def test_tools_data_and_files_are_parts(results: dict[str, Any]) -> None:
    tools = parts({"messages": of(results, "tools")["messages"]}, "dynamic-tool")
    assert [part["output"]["city"] for part in tools] == ["Oslo", "Bergen"]
    (broken,) = parts({"messages": of(results, "broken")["messages"]}, "dynamic-tool")
    assert broken["state"] == "output-error"
    (shown,) = parts({"messages": of(results, "shown")["messages"]}, "data-map")
    assert shown["data"] == {"zoom": 2}
    (file,) = [part for part in of(results, "image")["messages"][0]["parts"] if part["type"] == "file"]
    assert file["url"].startswith("http://"), "the picture that is shown is the server's, no longer the one that was sent"


def test_an_abort_ends_the_streaming(results: dict[str, Any]) -> None:
    scenario = of(results, "aborted")
    assert scenario["status"] == "idle"
    assert [settled["outcome"] for settled in scenario["settlements"]] == ["aborted"]


def test_two_tabs_show_the_same(results: dict[str, Any]) -> None:
    """One of them sent, the other one found it when it looked again."""
    tabs = of(results, "two_tabs")
    assert canonical(tabs["mine"]) == tabs["other"]["messages"] == tabs["mine"]["history"]["messages"]
    assert tabs["other"]["rows"] == tabs["mine"]["rows"]


def test_a_message_that_is_refused_stays_to_be_sent_again(results: dict[str, Any]) -> None:
    scenario = of(results, "refused")
    assert (scenario["status"], scenario["failed"], scenario["thrown"]) == ("error", ["hello"], 404)
    assert scenario["rows"] == [["user", "hello"]]


@pytest.mark.parametrize("name", ["killed_sse", "killed_polled"])
def test_the_hook_comes_through_kill_9(results: dict[str, Any], name: str) -> None:
    """S1, S3, L2: the answer goes on in the same row without a reload; nothing that was shown is taken back or doubled."""
    scenario = of(results, name)
    assert canonical(scenario) == scenario["history"]["messages"]
    assert scenario["doubled"] == []
    assert scenario["status"] == "idle"
    shown = [[row for row in render["rows"] if row[1] == "assistant"] for render in scenario["seen"]]
    texts = [rows[0][2] for rows in shown if rows]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert len({rows[0][0] for rows in shown if rows}) == 1
    assert texts[-1] == LONG and any(0 < len(text) < len(LONG) for text in texts)
