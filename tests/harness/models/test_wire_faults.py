"""T15 at the adapter: every way a provider can fail, over real sockets, in each protocol. The kind decides what the loop
does; what had arrived before the failure stays valid; leaving a stream drops its connection at once."""

from __future__ import annotations

import asyncio
from email.utils import formatdate

import pytest
from tests.harness.models.asking import ADD, NOW, SPECS, WIRES, Setup, answered, request, served, user

from cairn.errors import ModelErrorKind
from cairn.harness.messages import Text, ToolCall
from cairn.harness.models.protocol import TextDelta
from cairn.testing.providers import Break, Call, Fail, Hang, Reply, Say, Wire
from cairn.testing.providers.script import ErrorKind

#: Importing the vendors' libraries alone takes seconds.
pytestmark = pytest.mark.slow

EVERY: tuple[Wire, ...] = (*WIRES, "google")

#: After how many events of a reply its first piece of text is on the wire.
FIRST_TEXT: dict[Wire, int] = {"anthropic": 3, "openai": 5, "openai-chat": 2, "google": 1}

DOCUMENTED: dict[ErrorKind, tuple[ModelErrorKind, bool]] = {
    "rate_limit": ("rate_limit", True),
    "server": ("server", True),
    "overload": ("overload", True),
    "overflow": ("overflow", False),
    "quota": ("quota", False),
    "auth": ("auth", False),
    "not_found": ("invalid_request", False),
    "invalid_request": ("invalid_request", False),
}


@pytest.mark.parametrize("kind", DOCUMENTED)
@pytest.mark.parametrize("wire", EVERY)
def test_a_documented_error_has_its_kind(wire: Wire, kind: ErrorKind) -> None:
    """T15 P21: the status and body each vendor documents become one kind, and only waiting-helps kinds are retryable."""
    answer, _ = answered(wire, Reply.of(fault=Fail(kind)))

    assert answer.error is not None
    assert (answer.error.kind, answer.error.retryable) == DOCUMENTED[kind]
    assert answer.error.status is not None
    assert str(answer.error).startswith(f"{SPECS[wire]}: ")
    assert answer.events == []


@pytest.mark.parametrize("wire", EVERY)
def test_one_request_is_one_attempt(wire: Wire) -> None:
    """T15 L3: nothing below the loop retries, so every attempt is on the log."""

    async def body(setup: Setup) -> None:
        for kind in ("rate_limit", "server", "overload"):
            await setup.ask()
            del kind
        assert len(setup.server.requests) == 3

    served(wire, [Reply.of(fault=Fail(kind)) for kind in ("rate_limit", "server", "overload")], body)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("wire", WIRES)
def test_retry_after_is_read_as_seconds_or_a_date(wire: Wire, sent: str | None, seconds: float | None) -> None:
    """T15 P20: a wait the provider names is handed on, measured against the injected clock."""
    answer, _ = answered(wire, Reply.of(fault=Fail("rate_limit", sent)))

    assert answer.error is not None
    assert answer.error.retry_after == seconds


def test_retry_after_in_milliseconds_wins() -> None:
    """T15 P20: the finer header is the vendor's own."""
    fault = Fail("overload", "9", headers=(("retry-after-ms", "1500"),))

    answer, _ = answered("openai", Reply.of(fault=fault))

    assert answer.error is not None
    assert answer.error.retry_after == 1.5


@pytest.mark.parametrize("wire", EVERY)
def test_a_refused_connection_is_a_retryable_network_error(wire: Wire) -> None:
    """T15 L3: nobody listens."""

    async def body(setup: Setup) -> None:
        await setup.server.refuse()
        answer = await setup.ask()

        assert answer.error is not None
        assert (answer.error.kind, answer.error.retryable) == ("network", True)
        assert answer.error.details["transport"] == "connect"

    served(wire, [], body)


@pytest.mark.parametrize("how", ["reset", "close"])
@pytest.mark.parametrize("wire", EVERY)
def test_a_stream_cut_in_the_middle_keeps_what_came(wire: Wire, how: str) -> None:
    """T15 P19: the text before the cut was yielded; the end is an error and never an invented `stop`."""
    reply = Reply.of(Say("The ", "answer ", "is ", "forty", "-two"), fault=Break(how, 5))  # type: ignore[arg-type]

    answer, _ = answered(wire, reply)

    assert answer.error is not None
    assert (answer.error.kind, answer.error.retryable) == ("network", True)
    assert "The answer is forty-two".startswith(answer.text)
    if how == "close":
        assert answer.text


@pytest.mark.parametrize("wire", WIRES)
def test_a_stream_that_ends_between_the_last_text_and_the_finish_is_not_complete(wire: Wire) -> None:
    """T15 P19: all the text arrived, the provider's last word did not: nobody can know it was all."""
    whole = Reply.of("done?")
    from cairn.testing.providers import anthropic, openai_chat, openai_responses
    from cairn.testing.providers.wire import Facts

    maker = {"anthropic": anthropic, "openai": openai_responses, "openai-chat": openai_chat}[wire]
    events = maker.stream(whole, Facts("m", "", (), ()), 1)
    last = next(
        index
        for index, event in enumerate(events)
        if b'finish_reason":"stop' in event or b"message_delta" in event or b"response.completed" in event
    )

    answer, _ = answered(wire, Reply.of("done?", fault=Break("close", last)))

    assert answer.text == "done?"
    assert answer.error is not None
    assert answer.error.kind == "network"


@pytest.mark.parametrize("wire", WIRES)
def test_an_error_event_inside_the_stream_has_the_kind_of_the_same_http_error(wire: Wire) -> None:
    """T15 P19: an overload after the first words is still an overload."""
    answer, _ = answered(wire, Reply.of(Say("so ", "far"), fault=Break("error", 5, "overload")))

    assert answer.error is not None
    assert (answer.error.kind, answer.error.retryable) == ("overload", True)
    assert answer.text


@pytest.mark.parametrize("wire", WIRES)
def test_a_garbage_chunk_ends_the_stream_with_a_retryable_error(wire: Wire) -> None:
    """T15 L3: bytes that are no event of the protocol are never guessed at."""
    answer, _ = answered(wire, Reply.of(Say("so ", "far"), fault=Break("garbage", 5)))

    assert answer.error is not None
    assert (answer.error.kind, answer.error.retryable) == ("server", True)
    assert answer.text


@pytest.mark.parametrize("wire", EVERY)
def test_leaving_a_stream_that_stalls_drops_the_socket_at_once(wire: Wire) -> None:
    """T15 P28 F1: the server sees the client go although it has sent nothing more."""

    async def body(setup: Setup) -> None:
        stream = setup.model.stream(request(wire))
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        await stream.aclose()

        await setup.server.wait_until(lambda server: server.dropped == 1)

    served(wire, [Reply.of(Say("so ", "far"), fault=Break("stall", FIRST_TEXT[wire]))], body)


@pytest.mark.parametrize("after", ["hang", "head", "stall"])
@pytest.mark.parametrize("wire", EVERY)
def test_cancelling_drops_the_socket_at_once(wire: Wire, after: str) -> None:
    """T15 P28 F1: before the first byte, between the head and the first event, and in the middle of the stream."""
    events = {"head": 0, "stall": FIRST_TEXT[wire]}
    reply = Reply.of(Say("so ", "far"), fault=Hang() if after == "hang" else Break("stall", events[after]))

    async def body(setup: Setup) -> None:
        heard = asyncio.Event()

        async def listen() -> None:
            async for event in setup.model.stream(request(wire)):
                if isinstance(event, TextDelta):
                    heard.set()

        task = asyncio.ensure_future(listen())
        await setup.server.wait_until(lambda server: server.broken == 1)
        if after == "stall":
            await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await setup.server.wait_until(lambda server: server.dropped == 1)

    served(wire, [reply], body)


@pytest.mark.parametrize("wire", WIRES)
def test_a_dropped_stream_leaves_the_model_usable(wire: Wire) -> None:
    """T15 L3: the next request is answered as if nothing had been."""

    async def body(setup: Setup) -> None:
        stream = setup.model.stream(request(wire))
        await anext(stream)
        await stream.aclose()
        assert (await setup.ask()).text == "again"

    served(wire, [Reply.of(Say("so ", "far"), fault=Break("stall", FIRST_TEXT[wire])), Reply.of("again")], body)


@pytest.mark.parametrize("wire", EVERY)
def test_a_stream_that_comes_byte_by_byte_is_read_as_it_is(wire: Wire) -> None:
    """T15 L3: where the network cuts a stream changes nothing of its text, also inside a character."""
    answer, _ = answered(wire, Reply.of(Say("Grüße ", "aus 🏔️"), Call("add", {"a": 1}), bytes_per_write=1), tools=[ADD])

    assert answer.text == "Grüße aus 🏔️"
    assert answer.completed.stop == "tools"


@pytest.mark.parametrize("wire", EVERY)
def test_a_delta_of_ten_megabytes_arrives_whole(wire: Wire) -> None:
    """T15: one event of 10 MB is one delta of 10 MB."""
    huge = "0123456789abcdef" * 655_360

    answer, _ = answered(wire, Reply.of(Say("small ", huge)))

    assert answer.completed.stop == "stop"
    assert len(answer.text) == len(huge) + 6
    assert answer.text == "small " + huge


@pytest.mark.parametrize("wire", WIRES)
def test_a_call_of_an_unknown_tool_is_passed_on_as_written(wire: Wire) -> None:
    """T15 P6: the loop answers it with an error the model can read."""
    answer, _ = answered(wire, Reply.of(Call("no_such_tool", {"x": 1})), tools=[ADD])

    (call,) = answer.completed.content
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("no_such_tool", {"x": 1})


@pytest.mark.parametrize("written", ['{"a": 1, "b": ', '["a"]', "add 1 and 2", '"text"'])
@pytest.mark.parametrize("wire", WIRES)
def test_arguments_that_are_no_object_are_told_and_never_guessed(wire: Wire, written: str) -> None:
    """T15 P6: the call keeps its place with empty arguments and the reason."""
    answer, _ = answered(wire, Reply.of("hm", Call("add", written)), tools=[ADD])

    call = answer.completed.content[-1]
    assert isinstance(call, ToolCall)
    assert call.arguments == {}
    assert call.arguments_error
    assert written[:8] in call.arguments_error


@pytest.mark.parametrize("wire", WIRES)
def test_a_call_with_no_arguments_at_all_has_an_empty_object(wire: Wire) -> None:
    """T15 P6: a tool without parameters is called with nothing."""
    answer, _ = answered(wire, Reply.of(Call("ping", "")))

    (call,) = answer.completed.content
    assert isinstance(call, ToolCall)
    assert (call.arguments, call.arguments_error) == ({}, None)


@pytest.mark.parametrize("wire", WIRES)
def test_call_ids_a_provider_repeats_are_made_unique_and_stay_the_same_next_time(wire: Wire) -> None:
    """T15 P22: two calls with one id would share one result; the new id depends on nothing but the conversation."""
    reply = Reply.of(Call("add", {"a": 1}, id="dup"), Call("add", {"a": 2}, id="dup"), Call("add", {"a": 3}, id="x"))
    from cairn.harness.messages import AssistantMessage, ToolMessage

    seen: list[list[str]] = []

    async def body(setup: Setup) -> None:
        for _ in range(2):
            made = (await setup.ask(tools=[ADD])).completed.content
            seen.append([block.id for block in made if isinstance(block, ToolCall)])
            assert [block.arguments["a"] for block in made if isinstance(block, ToolCall)] == [1, 2, 3]
        history = [
            user("hi"),
            AssistantMessage(content=made, model=setup.model.spec),
            *(ToolMessage(call=call, name="add", content=(Text(text="ok"),)) for call in seen[0]),
        ]
        again = (await setup.ask(*history, tools=[ADD])).completed.content
        later = [block.id for block in again if isinstance(block, ToolCall)]
        assert len({*seen[0], *later}) == 6
        sent = [entry.call for entry in setup.server.requests[-1].entries if entry.role == "tool"]
        assert sent == seen[0]

    served(wire, [reply, reply, reply], body)
    assert seen == [["dup", "dup_2", "x"]] * 2


@pytest.mark.parametrize("wire", WIRES)
def test_an_exhausted_script_says_so(wire: Wire) -> None:
    """T15: a test that asks once too often fails with the reason."""

    async def body(setup: Setup) -> None:
        answer = await setup.ask()
        assert answer.error is not None
        assert "no reply for request 1" in str(answer.error)

    served(wire, [], body)
