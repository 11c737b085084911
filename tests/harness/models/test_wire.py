"""The adapter over real sockets and the vendors' real streaming protocols: what comes out when all is well."""

from __future__ import annotations

import json

import pytest
from tests.harness.models.asking import ADD, SPECS, WIRES, Answer, Setup, answered, ask, request, served, user

from cairn.harness.messages import (
    AssistantMessage,
    Image,
    Text,
    Thinking,
    ThinkingLevel,
    ToolCall,
    ToolMessage,
    Usage,
)
from cairn.harness.models import Provider, resolve
from cairn.harness.models.protocol import Activity, TextDelta, ThinkingDelta
from cairn.testing.providers import Call, ProviderServer, Refuse, Reply, Say, Think, Tokens, Wire

#: Importing the vendors' libraries alone takes seconds.
pytestmark = pytest.mark.slow

EVERY: tuple[Wire, ...] = (*WIRES, "google")


@pytest.mark.parametrize("wire", EVERY)
def test_the_text_of_a_response_equals_its_deltas(wire: Wire) -> None:
    """L3: what a reader saw while it streamed is what the record holds, also for empty, blank and odd pieces."""
    pieces = ("Hel", "lo ", "", "wörld\n", "  ", "\u200d🙂", "</think>", "end")

    answer, _ = answered(wire, Reply.of(Say(*pieces)))

    assert answer.text == "".join(pieces)
    assert [block.text for block in answer.completed.content if isinstance(block, Text)] == [answer.text]
    assert answer.completed.stop == "stop"
    assert isinstance(answer.events[0], Activity)


@pytest.mark.parametrize("wire", EVERY)
def test_blocks_are_numbered_in_order_of_appearance(wire: Wire) -> None:
    """L3: thinking, text and calls each have their block, and deltas name it."""
    answer, _ = answered(wire, Reply.of(Think("hm, ", "so"), Say("a", "b"), Call("add", {"a": 1, "b": 2})), tools=[ADD])

    content = answer.completed.content
    assert [type(block) for block in content] == [Thinking, Text, ToolCall]
    assert {event.block for event in answer.events if isinstance(event, ThinkingDelta)} == {0}
    assert {event.block for event in answer.events if isinstance(event, TextDelta)} == {1}
    assert (answer.thinking, answer.text) == ("hm, so", "ab")
    assert isinstance(content[2], ToolCall)
    assert (content[2].name, content[2].arguments, answer.completed.stop) == ("add", {"a": 1, "b": 2}, "tools")


@pytest.mark.parametrize("wire", EVERY)
def test_parallel_calls_keep_their_order_and_their_own_arguments(wire: Wire) -> None:
    """P4: the order the model wrote them in is the source order results are shown in."""
    calls = [Call("add", {"a": number, "b": number * 2}, fragments=4) for number in range(5)]

    answer, _ = answered(wire, Reply.of("adding", *calls), tools=[ADD])

    made = [block for block in answer.completed.content if isinstance(block, ToolCall)]
    assert [call.arguments for call in made] == [{"a": number, "b": number * 2} for number in range(5)]
    assert len({call.id for call in made}) == 5


@pytest.mark.parametrize("wire", WIRES)
def test_a_conversation_goes_back_to_the_same_model_as_it_came(wire: Wire) -> None:
    """P22: on the model that wrote it, thinking keeps its signature and results match their calls."""
    first = Reply.of(Think("why", signature="c2lnLTE="), Say("adding"), Call("add", {"a": 1, "b": 2}))

    async def body(setup: Setup) -> None:
        completed = (await setup.ask(tools=[ADD])).completed
        call = next(block for block in completed.content if isinstance(block, ToolCall))
        await setup.ask(
            user("hi"),
            AssistantMessage(content=completed.content, model=setup.model.spec),
            ToolMessage(call=call.id, name="add", content=(Text(text="3"),)),
            tools=[ADD],
        )

        second = setup.server.requests[1]
        assert [(entry.call, entry.text) for entry in second.entries if entry.role == "tool"] == [(call.id, "3")]
        assert [made[0] for entry in second.entries for made in entry.calls] == [call.id]
        sent = second.raw.decode()
        assert ("c2lnLTE=" in sent) == (wire != "openai-chat")
        assert "why" in sent

    served(wire, [first, Reply.of("3")], body)


def test_redacted_thinking_goes_back_untouched() -> None:
    """P22: thinking nobody can read is still part of the model's own history."""

    async def body(setup: Setup) -> None:
        completed = (await setup.ask()).completed
        assert completed.content[0] == Thinking(
            text="", signature="b3BhcXVl", redacted=True, details={"id": "redacted_thinking"}
        )
        await setup.ask(user("hi"), AssistantMessage(content=completed.content, model=setup.model.spec), user("go on"))

        blocks = setup.server.requests[1].body["messages"][1]["content"]
        assert blocks[0] == {"type": "redacted_thinking", "data": "b3BhcXVl"}

    served("anthropic", [Reply.of(Think(redacted=True, signature="b3BhcXVl"), Say("yes")), Reply.of("ok")], body)


@pytest.mark.parametrize("wire", EVERY)
def test_usage_and_cost_tell_cached_tokens_apart(wire: Wire) -> None:
    """F9: input is what was not cached; the sum of the parts is what the provider counted."""
    answer, _ = answered(wire, Reply.of("x", usage=Tokens(input=1000, output=200, cache_read=5000, reasoning=150)))

    usage = answer.completed.usage
    assert (usage.input, usage.output, usage.cache_read) == (1000, 200, 5000)
    # Anthropic counts thinking inside the output and does not say how much.
    assert usage.reasoning == (0 if wire == "anthropic" else 150)
    per_million = {"anthropic": (3, 15, 0.3), "google": (1.25, 10, 0.125)}.get(wire, (1.25, 10, 0.125))
    expected = (1000 * per_million[0] + 200 * per_million[1] + 5000 * per_million[2]) / 1e6
    assert usage.cost == pytest.approx(expected)


def test_cache_writes_are_counted() -> None:
    """F9: a written cache costs more than plain input and is reported apart."""
    answer, _ = answered("anthropic", Reply.of("x", usage=Tokens(input=10, output=1, cache_write=2000)))

    assert answer.completed.usage == Usage(input=10, output=1, cache_write=2000, cost=answer.completed.usage.cost)
    assert answer.completed.usage.cost == pytest.approx((10 * 3 + 15 + 2000 * 3.75) / 1e6)


def test_a_model_the_table_does_not_know_has_no_price() -> None:
    """F9: None is not zero."""

    async def body(setup: Setup) -> None:
        provider = Provider("acme", "openai-chat")
        model = resolve("acme:tiny-1", base_url=setup.server.url("openai-chat"), providers=[provider])

        answer = await ask(model, request("openai-chat"))

        assert answer.completed.usage.cost is None
        assert (model.context_window, setup.server.requests[-1].model) == (None, "tiny-1")
        await model.aclose()

    served("openai-chat", [Reply.of("x")], body)


@pytest.mark.parametrize("wire", EVERY)
def test_a_length_stop_and_a_refusal_are_told_apart_from_an_end(wire: Wire) -> None:
    """P9: a cut-off answer is `length`, a declined one `refusal`, each with the text that came."""

    async def body(setup: Setup) -> None:
        cut = await setup.ask()
        refused = await setup.ask()

        assert (cut.completed.stop, cut.text) == ("length", "as far as")
        assert refused.completed.stop == "refusal"
        if wire != "google":
            assert refused.text == "I'd rather not."
            assert refused.completed.content[-1].text == refused.text  # type: ignore[union-attr]

    served(wire, [Reply.of("as far as", stop="length"), Reply.of(Refuse("I'd rather not."))], body)


@pytest.mark.parametrize("wire", WIRES)
def test_a_gateways_content_filter_is_a_refusal(wire: Wire) -> None:
    """P9: the provider's filter stopped it, whatever text had come."""
    answer, _ = answered(wire, Reply.of("well", stop="refusal"))

    assert (answer.completed.stop, answer.text) == ("refusal", "well")


THINKING: dict[str, dict[ThinkingLevel, object]] = {
    "anthropic": {"minimal": 1024, "low": 2048, "medium": 10000, "high": 16384, "max": 32768},
    "openai": {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high"},
    "openai-chat": {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high"},
}


@pytest.mark.parametrize("wire", WIRES)
def test_thinking_levels_reach_the_wire_in_the_providers_terms(wire: Wire) -> None:
    """P22: one scale of levels; budgets for Anthropic, effort for OpenAI; nothing when nothing was asked."""

    async def body(setup: Setup) -> None:
        for level in (*THINKING[wire], None):
            await setup.ask(thinking=level)
        sent = [
            {
                "anthropic": (asked.body.get("thinking") or {}).get("budget_tokens"),
                "openai": (asked.body.get("reasoning") or {}).get("effort"),
                "openai-chat": asked.body.get("reasoning_effort"),
            }[wire]
            for asked in setup.server.requests
        ]
        assert sent == [*THINKING[wire].values(), None]

    served(wire, lambda _: Reply.of("ok"), body)


def test_prompt_cache_markers_are_on_the_head_and_absent_when_caching_is_off() -> None:
    """P26: with Anthropic the system text and the last tool carry a marker; the tail is cached automatically."""

    async def body(setup: Setup) -> None:
        await setup.ask(tools=[ADD])
        await setup.ask(tools=[ADD], cache=False)
        cached, plain = (asked.body for asked in setup.server.requests)

        assert cached["system"][-1]["cache_control"]["type"] == "ephemeral"
        assert cached["tools"][-1]["cache_control"]["type"] == "ephemeral"
        assert cached["cache_control"]["type"] == "ephemeral"
        assert "cache_control" not in json.dumps(plain)

    served("anthropic", lambda _: Reply.of("ok"), body)


@pytest.mark.parametrize("wire", WIRES)
def test_the_earlier_bytes_of_a_request_do_not_change_as_the_conversation_grows(wire: Wire) -> None:
    """P26: the next request's history begins with the bytes of this one, so the provider's cache is found again."""
    messages = [user("one"), AssistantMessage(content=(Text(text="first"),), model=SPECS[wire]), user("two")]
    key = "input" if wire == "openai" else "messages"

    async def body(setup: Setup) -> None:
        await setup.ask(*messages, tools=[ADD])
        await setup.ask(
            *messages,
            AssistantMessage(content=(Text(text="second"),), model=SPECS[wire]),
            user("three"),
            tools=[ADD],
        )
        before, after = (asked.body for asked in setup.server.requests)
        shorter, longer = json.dumps(before[key]), json.dumps(after[key])
        assert longer.startswith(shorter[:-1])
        assert json.dumps(before["tools"]) == json.dumps(after["tools"])

    served(wire, lambda _: Reply.of("ok"), body)


@pytest.mark.parametrize("wire", EVERY)
def test_the_key_is_asked_for_every_request_and_sent_once(wire: Wire) -> None:
    """P28: an expiring token is asked for again each time; no old one travels along."""
    tokens = iter(["key-a", "key-b", "key-c"])

    async def fresh() -> str:
        return next(tokens)

    async def body(setup: Setup) -> None:
        for _ in range(3):
            assert (await setup.ask()).text == "ok"
        sent = [
            [value.removeprefix("Bearer ") for name in KEY_HEADERS for value in asked.header(name)]
            for asked in setup.server.requests
        ]
        assert sent == [["key-a"], ["key-b"], ["key-c"]]

    served(wire, lambda _: Reply.of("ok"), body, api_key=fresh)


KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


@pytest.mark.parametrize("wire", EVERY)
def test_the_conversations_affinity_reaches_the_provider(wire: Wire) -> None:
    """P28: the same conversation is routed to the same warm cache."""
    _, asked = answered(wire, Reply.of("ok"), affinity="conv_01")

    assert asked.header("x-session-affinity") == ["conv_01"]
    if wire in ("openai", "openai-chat"):
        assert asked.body["prompt_cache_key"] == "conv_01"


def test_a_long_affinity_is_folded_to_the_providers_limit() -> None:
    """P28: 64 characters are all OpenAI takes; equal ones stay equal."""
    keys = {answered("openai", Reply.of("ok"), affinity="c" * 200)[1].body["prompt_cache_key"] for _ in range(2)}

    assert [len(key) for key in keys] == [64]


@pytest.mark.parametrize("wire", WIRES)
def test_limits_and_settings_reach_the_wire(wire: Wire) -> None:
    """P28: what the loop decided is what is sent; provider settings pass through untouched."""
    _, asked = answered(
        wire,
        Reply.of("ok"),
        max_tokens=777,
        settings={"extra_headers": {"X-Team": "blue"}, "extra_body": {"custom": {"deep": 1}}},
    )

    name = {"anthropic": "max_tokens", "openai": "max_output_tokens", "openai-chat": "max_completion_tokens"}[wire]
    assert asked.body[name] == 777
    assert asked.header("x-team") == ["blue"]
    assert asked.body["custom"] == {"deep": 1}
    assert (asked.system, asked.said) == ("Be brief.", "hi")


def test_temperature_is_sent_where_the_model_takes_one() -> None:
    """P28: as given."""
    _, asked = answered("anthropic", Reply.of("ok"), temperature=0.25)

    assert asked.body["temperature"] == 0.25


@pytest.mark.parametrize("wire", EVERY)
def test_images_travel_in_messages_and_in_results(wire: Wire) -> None:
    """P22: bytes in, the provider's own image block out."""
    picture = Image(mime_type="image/png", data=b"\x89PNG...")
    call = AssistantMessage(content=(ToolCall(id="look_1", name="look", arguments={}),), model=SPECS[wire])
    result = ToolMessage(call="look_1", name="look", content=(Text(text="see"), picture))

    answer, asked = answered(wire, Reply.of("ok"), user("look"), call, result)

    assert answer.text == "ok"
    assert "iVBORy4uLg==" in asked.raw.decode()


def test_an_image_in_an_error_result_follows_it_as_the_users() -> None:
    """P22: Anthropic refuses images inside an error result."""
    picture = Image(mime_type="image/png", data=b"\x89PNG...")
    call = AssistantMessage(content=(ToolCall(id="look_1", name="look", arguments={}),), model=SPECS["anthropic"])
    result = ToolMessage(call="look_1", name="look", content=(Text(text="no"), picture), is_error=True)

    _, asked = answered("anthropic", Reply.of("ok"), user("look"), call, result)

    last = asked.body["messages"][-1]["content"]
    assert [block["type"] for block in last] == ["tool_result", "image"]
    assert last[0]["is_error"] is True


def test_one_model_serves_many_conversations_at_once() -> None:
    """S3: streams of one object do not mix."""
    import asyncio

    async def body(setup: Setup) -> None:
        answers = await asyncio.gather(*(setup.ask(user(f"say {number}")) for number in range(20)))
        assert [answer.text for answer in answers] == [f"say {number}" * 3 for number in range(20)]

    served("anthropic", lambda asked: Reply.of(Say(*[asked.said] * 3)), body)


def test_a_closed_model_opens_new_connections_when_asked_again() -> None:
    """S3: closing is about connections, not about the object."""

    async def body(setup: Setup) -> None:
        first: Answer = await setup.ask()
        await setup.model.aclose()
        await setup.model.aclose()
        assert ((await setup.ask()).text, first.text) == ("two", "one")

    served("openai", [Reply.of("one"), Reply.of("two")], body)


def test_the_loopback_server_answers_what_the_script_function_makes_of_the_request() -> None:
    """S3: a reacting script sees who said what, in one vocabulary for every protocol."""
    import asyncio

    async def main() -> None:
        async with ProviderServer(lambda asked: Reply.of(f"{asked.wire}/{asked.model}/{asked.said}")) as server:
            for wire in EVERY:
                model = resolve(SPECS[wire], base_url=server.url(wire))
                answer = await ask(model, request(wire, user(f"hello {wire}")))
                assert answer.text == f"{wire}/{SPECS[wire].partition(':')[2]}/hello {wire}"
                await model.aclose()

    asyncio.run(main())
