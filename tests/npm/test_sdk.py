"""The published `@flue/sdk`, unmodified, against a server started as a user would: what applications do on a good day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.http.serving import Server, serving
from tests.npm.judging import LONG, answers, kinds, of, once, parts, said, settlement, sound
from tests.npm.node import Node

pytestmark = pytest.mark.system

#: Scenarios that send one message and follow it in every way: `wait`, SSE, long-poll, `read`.
FOLLOWED = (
    "hello",
    "long",
    "tool",
    "parallel",
    "same_id",
    "wrong_arguments",
    "unknown_tool",
    "failing_tool",
    "provider",
    "shown",
    "thinking",
    "slash",
    "attachment",
)


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project) as running:
        yield running
        assert " 500 " not in running.output
        assert running.stop() == 0


@pytest.fixture(scope="module")
def results(node: Node, server: Server) -> dict[str, Any]:
    found: dict[str, Any] = node.run("calm.mjs", server.url, server.project)
    return found


@pytest.mark.parametrize("name", FOLLOWED)
@pytest.mark.parametrize("live", ["sse", "polled"])
def test_what_an_observer_folds_is_the_history(results: dict[str, Any], name: str, live: str) -> None:
    """S3, L5: in SSE and in long-poll, messages and settlements are deep-equal at the end, and nothing was taken back."""
    sound(of(results, name)[live])


@pytest.mark.parametrize("name", FOLLOWED)
def test_wait_is_given_each_chunk_once_and_ends_with_the_outcome(results: dict[str, Any], name: str) -> None:
    """S3, S7."""
    events = of(results, name)["events"]
    once(events)
    assert [event["type"] for event in events].count("submission-settled") == 1
    assert events[-1]["type"] == "submission-settled"
    assert events[0]["type"] == "message-appended"


def test_a_text_is_read_as_it_was_said(results: dict[str, Any]) -> None:
    """L5: by `wait`, by `read`, and in the history."""
    hello = of(results, "hello")
    assert "error" not in hello
    assert hello["reply"]["accepted"]["text"] == "Hello to you."
    assert kinds(hello["events"]) == [
        "message-appended",
        "message-started",
        "message-delta",
        "message-completed",
        "submission-settled",
    ]
    long = of(results, "long")
    assert said(long["events"]) == LONG == long["reply"]["accepted"]["text"]


def test_an_admission_names_the_conversation_and_where_its_answer_begins(results: dict[str, Any]) -> None:
    """S1: offset 0 of a new conversation, before the message itself."""
    hello = of(results, "hello")
    admission = hello["admission"]
    assert admission["streamUrl"] == hello["url"]
    assert admission["offset"] == "0000000000000000_0000000000000000"
    assert admission["submissionId"].startswith("sub_") and admission["uid"].startswith("inst_")
    assert "deduplicated" not in admission
    assert hello["sse"]["history"]["conversationId"] == admission["uid"].replace("inst_", "conv_")


def test_one_answer_is_one_message_whatever_its_steps(results: dict[str, Any]) -> None:
    """The person's message carries its submission, and the answer all steps of it as parts."""
    history = of(results, "tool")["sse"]["history"]
    person, answer = history["messages"]
    assert person["submissionId"] == answer["submissionId"] == of(results, "tool")["admission"]["submissionId"]
    assert [part["type"] for part in answer["parts"]] == ["text", "dynamic-tool", "text"]
    assert settlement(history, person["submissionId"])["answeredBySubmissionId"] == person["submissionId"]


def test_a_tool_is_shown_with_input_and_output(results: dict[str, Any]) -> None:
    (part,) = parts(of(results, "tool")["sse"]["history"], "dynamic-tool")
    assert (part["state"], part["input"], part["output"]) == (
        "output-available",
        {"city": "Oslo"},
        {"city": "Oslo", "celsius": 7},
    )
    assert kinds(of(results, "tool")["events"]) == [
        "message-appended",
        "message-started",
        "message-delta",
        "tool-input",
        "message-completed",
        "tool-output",
        "message-started",
        "message-delta",
        "message-completed",
        "submission-settled",
    ]


@pytest.mark.parametrize("name", ["parallel", "same_id"])
def test_two_calls_are_two_parts_also_when_the_provider_repeats_an_id(results: dict[str, Any], name: str) -> None:
    history = of(results, name)["polled"]["history"]
    found = parts(history, "dynamic-tool")
    assert [part["input"]["city"] for part in found] == [part["output"]["city"] for part in found] == ["Oslo", "Bergen"]
    assert len({part["toolCallId"] for part in found}) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("failing_tool", "the printer is on fire"),
        ("wrong_arguments", "city: required"),
        ("unknown_tool", "no tool named 'nothing'"),
    ],
)
def test_a_call_that_fails_is_shown_and_the_answer_goes_on(results: dict[str, Any], name: str, words: str) -> None:
    scenario = of(results, name)
    (part,) = parts(scenario["sse"]["history"], "dynamic-tool")
    assert part["state"] == "output-error" and words in part["errorText"]
    assert scenario["reply"]["accepted"]["text"]


def test_a_failing_provider_fails_the_submission_and_leaves_a_message(results: dict[str, Any]) -> None:
    """S7, L3: `wait` and `read` raise FlueExecutionError; what was said stays; people see why it ended."""
    scenario = of(results, "provider")
    for error in (scenario["error"], scenario["reply"]):
        assert (error["name"], error["failure"]) == ("FlueExecutionError", "failed")
        assert "the model refuses this" in error["message"]
    history = scenario["sse"]["history"]
    assert parts(history, "text")[0]["text"] == "I was about to"
    advisory = history["messages"][-1]
    assert (advisory["role"], advisory["purpose"], advisory["display"]) == ("system", "advisory", "visible")
    assert advisory["settlement"] == {"outcome": "failed"}


def test_data_and_metadata_reach_the_reply(results: dict[str, Any]) -> None:
    """Data parts are replaced in place, metadata is merged deep; `read` and `readSubmissionReply` find both."""
    for reply in (of(results, "shown")["reply"]["accepted"], of(results, "reply_of_state")):
        assert reply["data"]["map"] == [{"zoom": 2}]
        assert reply["metadata"] == {"tokens": 3, "nested": {"a": 1, "b": 2}}


def test_thinking_is_a_part_of_its_own(results: dict[str, Any]) -> None:
    (answer,) = answers(of(results, "thinking")["sse"]["history"])
    assert [(part["type"], part["text"]) for part in answer["parts"]] == [
        ("reasoning", "What is six times seven?"),
        ("text", "Forty-two."),
    ]
    assert of(results, "thinking")["reply"]["accepted"]["text"] == "Forty-two."


def test_a_conversation_goes_on(results: dict[str, Any]) -> None:
    """Three messages, three replies, one observation over all of them."""
    scenario = of(results, "several")
    assert [reply["text"] for reply in scenario["replies"]] == [
        "Hello to you.",
        "Forty-two.",
        "Let me look. \n\nIt is fine.",
    ]
    sound(scenario)


def test_from_the_beginning_every_chunk_is_there_once(results: dict[str, Any]) -> None:
    """S3, S7, T17: birth first, each message's text whole, and one outcome for each submission."""
    scenario = of(results, "several")
    events, history = scenario["events"], scenario["history"]
    once(events)
    assert events[0]["type"] == "conversation-reset" and events[0]["position"] == {"batch": 0, "index": 0}
    assert [event["type"] for event in events].count("conversation-reset") == 1
    settled = [event["submissionId"] for event in events if event["type"] == "submission-settled"]
    assert settled == [each["submissionId"] for each in history["settlements"]]
    assert said(events) == scenario["text"]


def test_an_id_may_hold_anything(results: dict[str, Any]) -> None:
    """`a%2Fb` is the id `a/b`, and another conversation than `a`."""
    scenario = of(results, "slash")
    assert "slash%2Fa%20b%2F" in scenario["url"]
    assert scenario["reply"]["accepted"]["text"] == "Hello to you."
    assert scenario["admission"]["streamUrl"] == scenario["url"]
    assert scenario["other"]["status"] == 404


def test_a_message_joins_the_answer_that_is_being_written(results: dict[str, Any]) -> None:
    """S6, S11: seen at admission, answered within the host's answer, settled before it and linked to it."""
    scenario = of(results, "joined")
    sound(scenario)
    history, host, guest = scenario["history"], scenario["host"]["submissionId"], scenario["guest"]["submissionId"]
    assert [message["submissionId"] for message in history["messages"] if message["role"] == "user"] == [host, guest]
    assert [each["submissionId"] for each in history["settlements"]] == [guest, host]
    assert settlement(history, guest)["answeredBySubmissionId"] == host
    assert scenario["read"]["text"].endswith("And that too.")
    for waited in scenario["both"]:
        assert "error" not in waited
        once(waited["events"])


def test_abort_stops_what_runs_and_what_waits(results: dict[str, Any]) -> None:
    """S7: both settle aborted, once; the words that were said stay; a second abort finds nothing."""
    scenario = of(results, "abort_running")
    sound(scenario)
    assert (scenario["answer"], scenario["again"]) == ({"aborted": True}, {"aborted": False})
    for waited in (scenario["first"], scenario["second"]):
        assert (waited["error"]["name"], waited["error"]["failure"]) == ("FlueExecutionError", "aborted")
    assert scenario["reread"]["failure"] == "aborted"
    assert scenario["text"] == "Let me think"
    history = scenario["history"]
    running, queued = scenario["running"]["submissionId"], scenario["queued"]["submissionId"]
    assert [settlement(history, each)["outcome"] for each in (running, queued)] == ["aborted", "aborted"]
    assert "answeredBySubmissionId" not in settlement(history, queued)
    assert sum(message.get("settlement") == {"outcome": "aborted"} for message in history["messages"]) == 2


def test_abort_stops_a_tool(results: dict[str, Any]) -> None:
    """S7, S9: the call ends with an error that says that it may have taken effect."""
    scenario = of(results, "abort_tool")
    sound(scenario)
    assert scenario["error"]["failure"] == "aborted"
    (part,) = parts(scenario["history"], "dynamic-tool")
    assert part["state"] == "output-error"


def test_abort_of_what_does_not_exist_finds_nothing(results: dict[str, Any]) -> None:
    assert of(results, "abort_nothing") == {"aborted": False}


def test_a_key_is_one_message_however_often_it_is_sent(results: dict[str, Any]) -> None:
    """S6, T16: at once, five copies at the same time, and after the outcome; another message under it is a conflict."""
    scenario = of(results, "idempotent")
    first = scenario["first"]
    for again in (scenario["at_once"], scenario["later"]):
        assert (again["submissionId"], again["deduplicated"], again["offset"]) == (first["submissionId"], True, "-1")
    assert len({copy["submissionId"] for copy in scenario["copies"]}) == 1
    assert sum("deduplicated" not in copy for copy in scenario["copies"]) == 1
    assert scenario["read"]["text"] == "Hello to you."
    users = [message for message in scenario["history"]["messages"] if message["role"] == "user"]
    assert len(users) == len(scenario["history"]["settlements"]) == 2
    conflict = scenario["conflict"]
    assert (conflict["name"], conflict["status"]) == ("FlueApiError", 409)
    assert conflict["body"]["error"]["type"] == "submission_conflict"
    assert conflict["body"]["error"]["meta"] == {"submissionId": first["submissionId"]}


def test_a_uid_is_a_condition(results: dict[str, Any]) -> None:
    """S6: null creates, a uid continues exactly that life, and a key that was admitted wins over both."""
    scenario = of(results, "conditions")
    uid = scenario["created"]["uid"]
    refusals = [(name, scenario[name]["status"], scenario[name]["body"]["error"]["type"]) for name in ("missing", "different")]
    assert refusals == [("missing", 404, "agent_instance_not_found"), ("different", 404, "agent_instance_not_found")]
    assert scenario["untouched"]["status"] == 404
    assert scenario["again"]["status"] == 409
    assert scenario["again"]["body"]["error"]["meta"] == {"uid": uid}
    assert scenario["retried"]["accepted"]["submissionId"] == scenario["created"]["submissionId"]
    assert scenario["retried"]["accepted"]["deduplicated"] is True
    assert scenario["equal"]["uid"] == uid
    assert scenario["both"]["status"] == 400
    assert len(scenario["history"]["settlements"]) == 2


def test_initial_data_is_what_a_new_conversation_begins_with(results: dict[str, Any]) -> None:
    """Checked against the agent's type, ignored by a conversation that exists, and a refusal leaves nothing behind."""
    scenario = of(results, "initial")
    assert scenario["first"]["text"] == scenario["second"]["text"] == "Ada wants 3."
    for refused in (scenario["invalid"], scenario["undeclared"]):
        assert (refused["status"], refused["body"]["error"]["type"]) == (400, "invalid_request")
    assert "customer" in scenario["invalid"]["body"]["error"]["details"]
    assert scenario["unborn"]["status"] == 404


def test_attachments_are_stored_shown_to_the_model_and_served_again(results: dict[str, Any]) -> None:
    """The bytes come back as they were sent, in a frame in which nothing can run."""
    scenario = of(results, "attachment")
    assert scenario["reply"]["accepted"]["text"] == "There are 2."
    file = scenario["file"]
    assert (file["type"], file["mediaType"], file["filename"]) == ("file", "image/png", "pixel.png")
    assert file["size"] == scenario["size"]
    assert file["url"] == f"{scenario['url']}/attachments/{file['id']}"
    shown, again, missing = scenario["fetched"]
    for answer in (shown, again):
        assert answer["status"] == 200 and answer["same"]
        expected = {
            "content-type": "image/png",
            "content-length": str(scenario["size"]),
            "content-disposition": "inline",
            "cache-control": "private, max-age=31536000, immutable",
            "content-security-policy": "sandbox",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
        }
        assert {name: answer["headers"].get(name) for name in expected} == expected
    assert missing["status"] == 404
    assert scenario["no_image"]["status"] == 400


def test_a_signal_keeps_its_tag_and_attributes(results: dict[str, Any]) -> None:
    scenario = of(results, "signal")
    sound(scenario)
    tagged, _, plain, _ = scenario["history"]["messages"]
    assert (tagged["role"], tagged["purpose"], tagged["display"]) == ("system", "dispatch", "diagnostic")
    assert tagged["signal"] == {"tagName": "slack", "attributes": {"user": "U1"}}
    assert [part["text"] for part in tagged["parts"]] == ["Ship it & go"]
    assert "signal" not in plain
    assert 'type="slack.message" user="U1"' in scenario["reply"]["text"]
    assert scenario["reserved"]["status"] == 400


def test_an_observer_of_nothing_is_told_so_and_comes_back(results: dict[str, Any]) -> None:
    scenario = of(results, "absent")
    sound(scenario)
    assert scenario["phases"] == ["loading", "absent", "loading", "connecting", "live", "closed"]


def test_an_observer_who_comes_in_the_middle_sees_the_same_end(results: dict[str, Any]) -> None:
    """L5: the snapshot holds the open message, and the rest of it follows."""
    scenario = of(results, "middle")
    for seen in (scenario["first"], scenario["late"]):
        sound(seen)
        assert seen["text"] == LONG


@pytest.mark.parametrize("name", ["empty_type", "bad_tag", "long_key"])
def test_a_malformed_message_is_refused_with_a_reason(results: dict[str, Any], name: str) -> None:
    refused = of(results, "refused")[name]
    assert (refused["name"], refused["status"]) == ("FlueApiError", 400)
    assert refused["body"]["error"]["type"] == "invalid_request"
    assert refused["body"]["error"]["message"] == "Request is malformed."
    assert refused["body"]["error"]["details"]


def test_what_does_not_exist_is_404(results: dict[str, Any]) -> None:
    refused = of(results, "refused")
    assert [refused[name]["status"] for name in ("no_agent", "history", "read")] == [404, 404, 404]


def test_another_process_reads_with_nothing_but_an_id(results: dict[str, Any], node: Node, server: Server) -> None:
    """S1: a bare submission id, after the outcome, in a process that never saw the conversation; by the sender as well."""
    assert of(results, "reread")["text"] == "Hello to you."
    ids = {name: of(results, name)["admission"]["submissionId"] for name in ("tool", "provider")}

    tool = node.run("reattached.mjs", server.url, server.project, "tool", ids["tool"])
    provider = node.run("reattached.mjs", server.url, server.project, "provider", ids["provider"])

    assert of(tool, "reads")[0]["accepted"]["text"] == "Let me look. \n\nIt is fine."
    assert of(tool, "history") == of(results, "tool")["sse"]["history"]
    assert of(provider, "reads")[0]["failure"] == "failed"
