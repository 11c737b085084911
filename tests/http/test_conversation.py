"""Sending: what is accepted, what is refused and as what, and what a caller may rely on afterwards."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
from tests.http.calling import Answer, World, ask, history, in_world, send, settled
from tests.http.following import PATH, toy

from cairn import Agent
from cairn.framework.http.auth import open_to_everyone
from cairn.framework.http.conversation import ATTACHMENT_CHARACTERS_MAX, RESERVED_SIGNALS
from cairn.framework.http.limits import KB, HttpLimits
from cairn.testing.scripted import ScriptedModel

Json = dict[str, Any]

HELLO = {"kind": "user", "body": "Hello."}
SIGNAL = {"kind": "signal", "type": "slack.message", "body": "ping"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(40))


def image(data: bytes = PNG, **more: Any) -> Json:
    return {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": "image/png", **more}


def kind_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["error"]["type"]


# --- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        HELLO,
        {"kind": "user", "body": ""},
        {**HELLO, "body": 'line\nend "quoted" \u2028 \U0001f600 \x00'},
        {**HELLO, "attachments": []},
        {**HELLO, "attachments": [image(), image(filename="a.png")]},
        {**HELLO, "unknown": {"field": 1}},
        {**HELLO, "uid": None, "idempotencyKey": "k", "initialData": None},
        {**HELLO, "idempotencyKey": "k" * 256},
        SIGNAL,
        {**SIGNAL, "attributes": {"user": "U1"}, "tagName": "slack-2.x_y"},
        {**SIGNAL, "attachments": "ignored"},
    ],
)
def test_a_message_is_durable_and_readable_when_it_is_accepted(message: Json) -> None:
    """S1: 202 with where to read, and the history shows it already."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        answer = await ask(app, "POST", PATH, message)
        accepted = answer.json()
        assert answer.status == 202
        assert accepted["streamUrl"] == answer.headers["location"] == f"http://127.0.0.1:4020{PATH}"
        assert accepted["offset"] == answer.next == "0000000000000000_0000000000000000"
        assert set(accepted) == {"streamUrl", "offset", "submissionId", "uid"}
        state = await history(app, PATH)
        assert [m["submissionId"] for m in state["messages"]] == [accepted["submissionId"]]
        assert state["messages"][0]["parts"][0]["text"] == message["body"]
        follow = (await ask(app, "GET", f"{PATH}?view=updates&offset={accepted['offset']}")).json()
        assert follow[1]["message"]["id"] == state["messages"][0]["id"]

    in_world(main)


def test_the_offset_of_a_later_message_is_where_the_log_ended_before_it() -> None:
    """S1: reading from it shows the message itself."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        await send(app, PATH, "first")
        head = (await ask(app, "HEAD", PATH)).next
        second = await send(app, PATH, "second")
        assert second["offset"] == head

    in_world(main)


def test_an_address_is_answered_as_it_was_written() -> None:
    """S1: clients follow it verbatim; what a trusted proxy was asked for counts."""

    async def main(world: World) -> None:
        app = await world.app(toy(), hosts=["agents.example.com"], auth=open_to_everyone())
        path = "/agents/toy/a%2Fb%20c%C3%A9?x=1"
        near = await ask(app, "POST", path, HELLO)
        headers = {"x-forwarded-proto": "https", "x-forwarded-host": "agents.example.com"}
        far = await ask(app, "POST", path, HELLO, headers)
        assert near.json()["streamUrl"] == "http://127.0.0.1:4020/agents/toy/a%2Fb%20c%C3%A9"
        assert far.json()["streamUrl"] == far.headers["location"] == "https://agents.example.com/agents/toy/a%2Fb%20c%C3%A9"
        assert near.json()["uid"] == far.json()["uid"]

    in_world(main)


# --- what is refused ------------------------------------------------------------------------------------------------

INVALID: list[Any] = [
    "text",
    ["list"],
    5,
    True,
    {},
    {"kind": "user"},
    {"body": "x"},
    {"kind": "robot", "body": "x"},
    {"kind": "user", "body": 5},
    {"kind": "user", "body": None},
    {**HELLO, "attachments": "no"},
    {**HELLO, "attachments": ["no"]},
    {**HELLO, "attachments": [{**image(), "type": "file"}]},
    {**HELLO, "attachments": [{**image(), "data": 5}]},
    {**HELLO, "attachments": [{**image(), "data": "%%%"}]},
    {**HELLO, "attachments": [{**image(), "mimeType": None}]},
    {**HELLO, "attachments": [{**image(), "filename": 5}]},
    {**HELLO, "attachments": [image(b"<svg onload=alert(1)>")]},
    {**HELLO, "attachments": [{"type": "image", "mimeType": "image/png"}]},
    {**HELLO, "uid": 5},
    {**HELLO, "uid": "inst_x", "initialData": {"a": 1}},
    {**HELLO, "initialData": "text"},
    {**HELLO, "idempotencyKey": ""},
    {**HELLO, "idempotencyKey": 5},
    {**HELLO, "idempotencyKey": "k" * 257},
    {**SIGNAL, "type": ""},
    {**SIGNAL, "type": None},
    {"kind": "signal", "body": "x"},
    {**SIGNAL, "attributes": {"user": 5}},
    {**SIGNAL, "attributes": []},
    {**SIGNAL, "tagName": "1x"},
    {**SIGNAL, "tagName": ""},
    {**SIGNAL, "tagName": "a b"},
    {**SIGNAL, "tagName": "a\n"},
    *({**SIGNAL, "type": name} for name in sorted(RESERVED_SIGNALS)),
]


@pytest.mark.parametrize("message", INVALID, ids=lambda message: json.dumps(message)[:60])
def test_what_is_no_message_is_refused_and_leaves_nothing(message: Any) -> None:
    """S1, T19: one envelope, its constant message, the reason beside it; no conversation was begun."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        answer = await ask(app, "POST", PATH, message)
        assert kind_of(answer) == (400, "invalid_request")
        error = answer.json()["error"]
        assert (error["message"], bool(error["details"])) == ("Request is malformed.", True)
        assert answer.headers["content-type"] == "application/json"
        assert kind_of(await ask(app, "GET", PATH)) == (404, "stream_not_found")

    in_world(main)


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"", {}, (400, "invalid_request")),
        (b"", {"content-type": "application/json"}, (400, "invalid_request")),
        (b"{", {"content-type": "application/json"}, (400, "invalid_json")),
        (b'{"kind":"user","body":"\\ud800"}', {"content-type": "application/json"}, (400, "invalid_json")),
        (b'{"kind":"user","body":"\xff"}', {"content-type": "application/json"}, (400, "invalid_json")),
        (b"[" * 1_000, {"content-type": "application/json"}, (400, "invalid_json")),
        (b'{"kind":"user","body":"x"}', {}, (415, "unsupported_media_type")),
        (b'{"kind":"user","body":"x"}', {"content-type": "text/plain"}, (415, "unsupported_media_type")),
    ],
)
def test_a_body_that_is_no_json_says_so(body: bytes, headers: dict[str, str], expected: tuple[int, str]) -> None:
    """T19."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        answer = await ask(app, "POST", PATH, body, headers)
        assert kind_of(answer)[0] == expected[0]
        assert kind_of(answer)[1] in (expected[1], "invalid_request")

    in_world(main)


def test_a_content_type_may_have_parameters_and_any_case() -> None:
    """S1."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        body = json.dumps(HELLO).encode()
        answer = await ask(app, "POST", PATH, body, {"content-type": "Application/JSON; charset=utf-8"})
        assert answer.status == 202

    in_world(main)


def test_waiting_for_the_answer_is_not_possible() -> None:
    """S1: an admission is never the reply."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        assert kind_of(await ask(app, "POST", f"{PATH}?wait=1", HELLO)) == (400, "invalid_request")

    in_world(main)


@pytest.mark.parametrize("id", ["%20", "%09", "a%00b"])
@pytest.mark.parametrize(("method", "rest"), [("GET", ""), ("POST", ""), ("POST", "/abort")])
def test_what_cannot_be_an_id_is_refused_everywhere(method: str, rest: str, id: str) -> None:
    """T19."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        answer = await ask(app, method, f"/agents/toy/{id}{rest}", HELLO if method == "POST" and not rest else None)
        assert kind_of(answer) == (400, "invalid_request")

    in_world(main)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", PATH, {"GET", "HEAD", "POST", "DELETE"}),
        ("PATCH", PATH, {"GET", "HEAD", "POST", "DELETE"}),
        ("GET", f"{PATH}/abort", {"POST"}),
        ("POST", f"{PATH}/attachments/x", {"GET"}),
    ],
)
def test_a_method_that_is_not_there_names_those_that_are(method: str, path: str, allowed: set[str]) -> None:
    """L6."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        answer = await ask(app, method, path)
        assert kind_of(answer) == (405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed

    in_world(main)


def test_attachments_are_limited_by_what_they_decode_to() -> None:
    """X7: together; and each by its characters, before anything is decoded."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=HttpLimits(attachment_bytes=100 * KB))
        large = image(PNG + b"x" * 60 * KB)
        assert (await ask(app, "POST", PATH, {**HELLO, "attachments": [large]})).status == 202
        both = await ask(app, "POST", PATH, {**HELLO, "attachments": [large, large]})
        assert kind_of(both) == (413, "payload_too_large")
        long = {**image(), "data": "A" * (ATTACHMENT_CHARACTERS_MAX + 1)}
        assert kind_of(await ask(app, "POST", PATH, {**HELLO, "attachments": [long]})) == (400, "invalid_request")

    in_world(main)


def test_a_conversation_in_which_too_much_waits_takes_no_more() -> None:
    """X7: 429 with when to come again; what waits is kept, and others are not concerned."""

    async def main(world: World) -> None:
        app = await world.app(toy(), limits=HttpLimits(queued_submissions_max=3))
        for number in range(3):
            await send(app, PATH, f"{number}")
        refused = await ask(app, "POST", PATH, HELLO)
        assert kind_of(refused) == (429, "too_many_requests")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await ask(app, "POST", "/agents/toy/other", HELLO)).status == 202
        assert len((await history(app, PATH))["messages"]) == 3

    in_world(main)


# --- once -----------------------------------------------------------------------------------------------------------


def test_a_key_that_was_used_is_answered_as_the_first_time_also_when_it_has_settled() -> None:
    """S6, T16: from any process; nothing runs again, and reading from the start finds it."""

    async def main(world: World) -> None:
        agent = toy()
        app, other = await world.app(agent), await world.app(agent)
        world.work(agent)
        message = {**HELLO, "idempotencyKey": "evt-1"}
        first = (await ask(app, "POST", PATH, message)).json()
        again = await ask(other, "POST", PATH, message)
        state = await settled(app, PATH)
        late = await ask(app, "POST", PATH, message)
        assert "deduplicated" not in first
        for answer in (again, late):
            assert answer.json() == {**first, "offset": "-1", "deduplicated": True}
            assert (answer.status, answer.next) == (202, "-1")
        assert (await history(app, PATH))["messages"] == state["messages"]

    in_world(main)


@pytest.mark.parametrize(
    "other",
    [
        {**HELLO, "body": "Other."},
        {**HELLO, "attachments": [image()]},
        {**HELLO, "initialData": {"coins": 1}},
        SIGNAL,
    ],
)
def test_a_key_with_another_message_is_a_conflict(other: Json) -> None:
    """S6: which names the submission that has it."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        first = (await ask(app, "POST", PATH, {**HELLO, "idempotencyKey": "k"})).json()
        answer = await ask(app, "POST", PATH, {**other, "idempotencyKey": "k"})
        assert kind_of(answer) == (409, "submission_conflict")
        assert answer.json()["error"]["meta"] == {"submissionId": first["submissionId"]}

    in_world(main)


def test_a_key_belongs_to_its_conversation() -> None:
    """S6."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        ids = [
            (await ask(app, "POST", f"/agents/toy/{id}", {**HELLO, "idempotencyKey": "k"})).json()["submissionId"]
            for id in ("a", "b", "a")
        ]
        assert ids[0] == ids[2] != ids[1]
        assert all(id.startswith("sub_ik_") for id in ids)

    in_world(main)


# --- under a condition ----------------------------------------------------------------------------------------------


def test_the_uid_is_a_condition_on_which_life_of_a_conversation_is_meant() -> None:
    """S6, S12: as an ETag is; nothing happens when it does not hold."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        assert kind_of(await ask(app, "POST", PATH, {**HELLO, "uid": "inst_x"})) == (404, "agent_instance_not_found")
        assert (await ask(app, "GET", PATH)).status == 404
        born = await ask(app, "POST", PATH, {**HELLO, "uid": None})
        uid = born.json()["uid"]
        exists = await ask(app, "POST", PATH, {**HELLO, "uid": None})
        assert kind_of(exists) == (409, "agent_instance_exists")
        assert exists.json()["error"]["meta"] == {"uid": uid}
        assert kind_of(await ask(app, "POST", PATH, {**HELLO, "uid": "inst_x"})) == (404, "agent_instance_not_found")
        assert (await ask(app, "POST", PATH, {**HELLO, "uid": uid})).json()["uid"] == uid
        assert len((await history(app, PATH))["messages"]) == 2

    in_world(main)


def test_a_condition_that_fails_does_not_hide_what_was_accepted_before() -> None:
    """S6: a retry of "create it once" finds that it did."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        message = {**HELLO, "uid": None, "idempotencyKey": "k"}
        first = (await ask(app, "POST", PATH, message)).json()
        again = (await ask(app, "POST", PATH, message)).json()
        assert again == {**first, "offset": "-1", "deduplicated": True}

    in_world(main)


@dataclass
class Purse:
    coins: int = 0


def test_initial_data_begins_a_conversation_and_is_ignored_by_one_that_has_begun() -> None:
    """S1, S14: it has to fit the agent's declared state."""

    async def main(world: World) -> None:
        agent = Agent("toy", model=ScriptedModel(lambda request: "Yes."), state=Purse)
        app = await world.app(agent)
        for wrong in ({"coins": "many"}, {"notes": 1}):
            refused = await ask(app, "POST", PATH, {**HELLO, "initialData": wrong})
            assert kind_of(refused) == (400, "invalid_request")
            assert next(iter(wrong)) in refused.json()["error"]["details"]
        assert (await ask(app, "GET", PATH)).status == 404
        assert (await ask(app, "POST", PATH, {**HELLO, "initialData": {"coins": 7}})).status == 202
        assert (await ask(app, "POST", PATH, {**HELLO, "initialData": {"coins": "many"}})).status == 202
        row = await world.store.find(app.conversation(agent, "c").address)
        assert row is not None
        records = [json.loads(each.batch.records) for each in await world.store.read(row.n, -1)]
        changes = [record["changes"] for batch in records for record in batch if record["type"] == "state.changed"]
        assert changes == [{"coins": 7}]

    in_world(main)


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}),
        (
            {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "v=1,w=2"},
            {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "v=1,w=2"},
        ),
        (
            {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "v" * 600},
            {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
        ),
        ({"traceparent": f"00-{'0' * 32}-{'b' * 16}-01"}, {}),
        ({"traceparent": f"00-{'a' * 32}-{'0' * 16}-01"}, {}),
        ({"traceparent": "nonsense", "tracestate": "v=1"}, {}),
        ({"tracestate": "v=1"}, {}),
    ],
)
def test_the_callers_trace_is_kept_with_the_message_and_nonsense_is_ignored(headers: Json, kept: Json) -> None:
    """S14: the parent of its spans."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        assert (await ask(app, "POST", PATH, HELLO, headers)).status == 202
        row = await world.store.find(app.conversation("toy", "c").address)
        assert row is not None
        (accepted,) = json.loads((await world.store.read(row.n, 0))[0].batch.records)
        assert accepted.get("trace", {}) == kept

    in_world(main)


# --- reading and stopping -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["offset=-1", "tail=5", "live=sse", "view=history&live=long-poll", "view=all"])
def test_a_history_has_no_parameters(query: str) -> None:
    """T19."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        await send(app, PATH, "first")
        assert kind_of(await ask(app, "GET", f"{PATH}?{query}")) == (400, "invalid_request")

    in_world(main)


def test_a_head_says_where_the_end_is_and_has_no_body() -> None:
    """S3: also of what is not there."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        absent = await ask(app, "HEAD", PATH)
        await send(app, PATH, "first")
        present, read = await ask(app, "HEAD", PATH), await ask(app, "GET", f"{PATH}?unknown=1&view=history")
        assert (absent.status, absent.body, present.status, present.body) == (404, b"", 200, b"")
        for name in ("stream-next-offset", "stream-up-to-date", "cache-control", "content-type"):
            assert present.headers[name] == read.headers[name]
        assert read.json()["offset"] == read.next

    in_world(main)


def test_an_attachment_is_served_as_what_it_is_and_cannot_do_anything() -> None:
    """X6, S12: the type is that of its bytes; another conversation, or another id, finds nothing."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        await send(app, PATH, "look", attachments=[image(mimeType="text/html", filename="x.html")])
        await send(app, "/agents/toy/other", "first")
        (message,) = (await history(app, PATH))["messages"]
        file = message["parts"][1]
        assert (file["type"], file["mediaType"], file["size"], file["filename"]) == ("file", "image/png", len(PNG), "x.html")
        answer = await ask(app, "GET", f"{PATH}/attachments/{file['id']}")
        assert (answer.status, answer.body) == (200, PNG)
        expected = {
            "content-type": "image/png",
            "content-length": str(len(PNG)),
            "content-disposition": "inline",
            "cache-control": "private, max-age=31536000, immutable",
            "content-security-policy": "sandbox",
            "x-content-type-options": "nosniff",
            "cross-origin-resource-policy": "cross-origin",
        }
        assert expected.items() <= answer.headers.items()
        for id in ("nothing", f"{file['id']}0", "att_x", "att_" + "9" * 500, "%2e%2e"):
            assert kind_of(await ask(app, "GET", f"{PATH}/attachments/{id}")) == (404, "attachment_not_found")
        other = await ask(app, "GET", f"/agents/toy/other/attachments/{file['id']}")
        assert kind_of(other) == (404, "attachment_not_found")
        nowhere = await ask(app, "GET", f"/agents/toy/nowhere/attachments/{file['id']}")
        assert kind_of(nowhere) == (404, "stream_not_found")

    in_world(main)


def test_an_abort_says_whether_there_was_anything_to_stop() -> None:
    """L4: and needs no body; what it stopped settles on the stream."""

    async def main(world: World) -> None:
        agent = toy()
        app = await world.app(agent)
        assert (await ask(app, "POST", "/agents/toy/never/abort")).json() == {"aborted": False}
        assert (await ask(app, "GET", "/agents/toy/never")).status == 404
        first, second = await send(app, PATH, "first"), await send(app, PATH, "second")
        assert (await ask(app, "POST", f"{PATH}/abort")).json() == {"aborted": True}
        world.work(agent)
        state = await settled(app, PATH)
        outcomes = {each["submissionId"]: each["outcome"] for each in state["settlements"]}
        assert outcomes == {first["submissionId"]: "aborted", second["submissionId"]: "aborted"}
        assert (await ask(app, "POST", f"{PATH}/abort")).json() == {"aborted": False}

    in_world(main)


def test_reads_and_errors_are_hardened_and_admissions_are_bare() -> None:
    """X6: a browser takes each for what it says it is, and keeps nothing of it."""

    async def main(world: World) -> None:
        app = await world.app(toy())
        admitted = await ask(app, "POST", PATH, HELLO)
        reads = [
            await ask(app, "GET", PATH),
            await ask(app, "HEAD", PATH),
            await ask(app, "GET", f"{PATH}?view=updates&offset=-1"),
            await ask(app, "GET", "/agents/toy/nothing"),
            await ask(app, "PUT", PATH),
        ]
        for answer in reads:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert all(answer.headers["cache-control"] == "no-store" for answer in reads[:3])
        assert "x-content-type-options" not in admitted.headers

    in_world(main)
