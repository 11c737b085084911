"""The loopback servers against the vendors' own code: their SDKs read our streams, their types accept every event.

Goal: the servers speak the documented protocols, not what our adapter happens to expect. Method: each reply is read by
the vendor's own client over a socket, and every single event is validated with the vendor's own type.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from cairn.testing.providers import (
    Call,
    Fail,
    ProviderServer,
    Refuse,
    Reply,
    Say,
    Think,
    Tokens,
    anthropic,
    google,
    openai_chat,
    openai_responses,
)
from cairn.testing.providers.script import ErrorKind
from cairn.testing.providers.vendor import errors
from cairn.testing.providers.wire import Facts

pytestmark = pytest.mark.slow

EVERYTHING = Reply.of(
    Think("let me ", "see"),
    Say("Hel", "lo"),
    Call("add", {"a": 1, "b": [2, None]}, fragments=5),
    Call("add", {"a": 3}),
    usage=Tokens(input=100, output=20, cache_read=50, cache_write=5, reasoning=7),
)
REPLIES = {
    "everything": EVERYTHING,
    "text": Reply.of("x"),
    "length": Reply.of("x", stop="length"),
    "filtered": Reply.of("x", stop="refusal"),
    "refusal": Reply.of(Refuse("no")),
    "redacted": Reply.of(Think(redacted=True, signature="b3BhcXVl"), Say("x")),
    "nothing": Reply.of(),
}
FACTS = Facts("model-1", "", (), ())


def bodies(events: list[bytes]) -> list[str]:
    """The data of each event, without the end marker of Chat Completions."""
    lines = [line for event in events for line in event.decode().splitlines() if line.startswith("data: ")]
    return [line.removeprefix("data: ") for line in lines if line != "data: [DONE]"]


def with_server(replies: list[Reply], body: Callable[[ProviderServer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with ProviderServer(replies) as server:
            await body(server)

    asyncio.run(main())


@pytest.mark.parametrize("name", REPLIES)
def test_every_event_is_one_of_the_vendors_types(name: str) -> None:
    """T15: fields, names and nesting, by the vendors' own definitions; and each event is named as its data says."""
    from anthropic.types import RawMessageStreamEvent
    from google.genai.types import GenerateContentResponse
    from openai.types.chat import ChatCompletionChunk
    from openai.types.responses import ResponseStreamEvent

    reply = REPLIES[name]
    pairs: list[tuple[Any, list[bytes]]] = [
        (RawMessageStreamEvent, [e for e in anthropic.stream(reply, FACTS, 1) if b"event: ping" not in e]),
        (ResponseStreamEvent, openai_responses.stream(reply, FACTS, 1)),
        (ChatCompletionChunk, openai_chat.stream(reply, FACTS, 1)),
        (GenerateContentResponse, google.stream(reply, FACTS, 1)),
    ]

    for declared, events in pairs:
        adapter = TypeAdapter(declared)
        for data in bodies(events):
            adapter.validate_json(data)
    for event in anthropic.stream(reply, FACTS, 1) + openai_responses.stream(reply, FACTS, 1):
        head, data = event.decode().split("\n", 1)
        assert head == f"event: {json.loads(data.removeprefix('data: '))['type']}"


def test_responses_events_are_numbered_without_gaps() -> None:
    """T15: as the vendor documents, each event carries the next number."""
    numbers = [json.loads(data)["sequence_number"] for data in bodies(openai_responses.stream(EVERYTHING, FACTS, 1))]

    assert numbers == list(range(len(numbers)))


def test_anthropics_client_reads_our_messages_stream() -> None:
    """T15: text, thinking with its signature, parallel calls, cached usage, the stop reason."""
    from anthropic import AsyncAnthropic

    async def body(server: ProviderServer) -> None:
        client = AsyncAnthropic(api_key="k", base_url=server.url("anthropic"), max_retries=0)
        async with client.messages.stream(
            model="model-1", max_tokens=100, messages=[{"role": "user", "content": "hi"}]
        ) as stream:
            message = await stream.get_final_message()
        await client.close()

        thinking, text, first, second = message.content
        assert (thinking.thinking, thinking.signature) == ("let me see", "c2lnbmVk")  # type: ignore[union-attr]
        assert text.text == "Hello"  # type: ignore[union-attr]
        assert first.input == {"a": 1, "b": [2, None]}  # type: ignore[union-attr]
        assert second.input == {"a": 3}  # type: ignore[union-attr]
        assert (message.stop_reason, message.model) == ("tool_use", "model-1")
        usage = message.usage
        assert (usage.input_tokens, usage.output_tokens) == (100, 20)
        assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (50, 5)

    with_server([EVERYTHING], body)


def test_openais_client_reads_our_responses_stream() -> None:
    """T15: text, reasoning with its encrypted content, parallel calls, cached usage, a refusal."""
    from openai import AsyncOpenAI

    async def body(server: ProviderServer) -> None:
        client = AsyncOpenAI(api_key="k", base_url=server.url("openai"), max_retries=0)
        finals = []
        for _ in range(2):
            async with client.responses.stream(model="model-1", input="hi") as stream:
                finals.append(await stream.get_final_response())
        await client.close()

        whole, refused = finals
        reasoning, message, first, second = whole.output
        assert (reasoning.summary[0].text, reasoning.encrypted_content) == ("let me see", "c2lnbmVk")  # type: ignore[union-attr]
        assert whole.output_text == message.content[0].text == "Hello"  # type: ignore[union-attr]
        assert json.loads(first.arguments) == {"a": 1, "b": [2, None]}  # type: ignore[union-attr]
        assert json.loads(second.arguments) == {"a": 3}  # type: ignore[union-attr]
        assert whole.usage is not None
        assert (whole.usage.input_tokens, whole.usage.input_tokens_details.cached_tokens) == (155, 50)
        assert whole.usage.output_tokens_details.reasoning_tokens == 7
        assert refused.output[0].content[0].refusal == "no"  # type: ignore[union-attr]

    with_server([EVERYTHING, Reply.of(Refuse("no"))], body)


def test_openais_client_reads_our_chat_stream() -> None:
    """T15: text, parallel calls, cached usage, a refusal."""
    from openai import AsyncOpenAI

    async def body(server: ProviderServer) -> None:
        client = AsyncOpenAI(api_key="k", base_url=server.url("openai-chat"), max_retries=0)
        finals = []
        for _ in range(2):
            async with client.chat.completions.stream(
                model="model-1",
                messages=[{"role": "user", "content": "hi"}],
                stream_options={"include_usage": True},
            ) as stream:
                finals.append(await stream.get_final_completion())
        await client.close()

        whole, refused = (final.choices[0] for final in finals)
        assert (whole.message.content, whole.finish_reason) == ("Hello", "tool_calls")
        assert whole.message.tool_calls is not None
        assert [json.loads(call.function.arguments) for call in whole.message.tool_calls] == [
            {"a": 1, "b": [2, None]},
            {"a": 3},
        ]
        usage = finals[0].usage
        assert usage is not None and usage.prompt_tokens_details is not None
        assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (155, 50)
        assert refused.message.refusal == "no"

    with_server([EVERYTHING, Reply.of(Refuse("no"))], body)


def test_googles_client_reads_our_generate_stream() -> None:
    """T15: text, thoughts, whole calls with their signature, cached usage, the finish reason."""
    from google.genai import Client

    async def body(server: ProviderServer) -> None:
        client = Client(api_key="k", http_options={"base_url": server.url("google")})
        parts: list[Any] = []
        async for chunk in await client.aio.models.generate_content_stream(model="model-1", contents="hi"):
            parts += chunk.candidates[0].content.parts  # type: ignore[index,union-attr,operator]
            last = chunk
        await client.aio.aclose()

        assert "".join(part.text for part in parts if part.text and part.thought) == "let me see"
        assert "".join(part.text for part in parts if part.text and not part.thought) == "Hello"
        made = [part.function_call.args for part in parts if part.function_call]
        assert made == [{"a": 1, "b": [2, None]}, {"a": 3}]
        assert last.candidates[0].finish_reason.name == "STOP"  # type: ignore[index,union-attr]
        assert last.usage_metadata.cached_content_token_count == 50  # type: ignore[union-attr]

    with_server([EVERYTHING], body)


@pytest.mark.parametrize("kind", errors()["anthropic"])
def test_the_vendors_clients_raise_their_own_error_for_ours(kind: ErrorKind) -> None:
    """T15: the status and body of each error are read by the SDK as the vendor's own are."""
    import anthropic as anthropic_sdk
    import openai as openai_sdk

    async def body(server: ProviderServer) -> None:
        a = anthropic_sdk.AsyncAnthropic(api_key="k", base_url=server.url("anthropic"), max_retries=0)
        o = openai_sdk.AsyncOpenAI(api_key="k", base_url=server.url("openai"), max_retries=0)
        with pytest.raises(anthropic_sdk.APIStatusError) as first:
            await a.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True)
        with pytest.raises(openai_sdk.APIStatusError) as second:
            await o.responses.create(model="m", input="x", stream=True)
        await a.close()
        await o.close()

        ours, theirs = errors()["anthropic"][kind], errors()["openai"][kind]
        assert (first.value.status_code, first.value.body["error"]["type"]) == (ours["status"], ours["type"])  # type: ignore[index]
        assert (second.value.status_code, second.value.code) == (theirs["status"], theirs["code"])
        assert second.value.type == theirs["type"]

    with_server([Reply.of(fault=Fail(kind))] * 2, body)
