"""One provider client of one event loop: the library's model object, its HTTP pool, and our converter.

Laws. The only file that builds provider clients. The vendors' own retries are off: each attempt is the loop's, on the
log. (On the client, once: as a setting of each request it would copy the client each time.) An engine belongs to the
event loop it was built on, because its connections do; the import is shared by the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import Model as LibraryModel
from pydantic_ai.models import StreamedResponse

from cairn.harness.messages import ThinkingLevel
from cairn.harness.models.convert import Converter, parameters
from cairn.harness.models.protocol import ModelRequest
from cairn.harness.models.provider import Provider, Wire

#: Seconds to reach a provider's host. The vendors' SDKs use 5; a name lookup on a cold laptop needs a little more.
CONNECT_SECONDS = 10.0

#: Seconds without a byte before the HTTP layer gives up. Only a backstop: the loop's own first-token and idle
#: deadlines, on events, are far shorter.
READ_SECONDS = 600.0

#: OpenAI's limit for `prompt_cache_key`, in characters.
CACHE_KEY_CHARS_MAX = 64


#: The HTTP responses of the request that is being opened in this task.
_responses: ContextVar[list[httpx2.Response] | None] = ContextVar("cairn_responses", default=None)


async def _note(response: httpx2.Response) -> None:
    if (responses := _responses.get()) is not None:
        responses.append(response)


async def _close(responses: list[httpx2.Response]) -> None:
    for response in responses:
        await response.aclose()


@dataclass(slots=True)
class Engine:
    """What one adapter needs on one event loop."""

    provider: Provider
    model: LibraryModel[Any]
    client: Any
    http: httpx2.AsyncClient
    converter: Converter
    context_window: int | None = field(default=None)

    @asynccontextmanager
    async def open(self, request: ModelRequest, key: str) -> AsyncIterator[StreamedResponse]:
        """A context that sends the request when entered, and drops its connection when left early."""
        responses: list[httpx2.Response] = []
        async with AsyncExitStack() as leaving:
            # Not every vendor's SDK closes the response its generator reads from (google-genai leaves it to the garbage
            # collector), so it is closed here. Of a response read to its end nothing is left to close.
            leaving.push_async_callback(_close, responses)
            # The request is sent while entering, in this task, so the variable need not outlive the entering.
            token = _responses.set(responses)
            try:
                stream = await leaving.enter_async_context(self._request(request, key))
            finally:
                _responses.reset(token)
            yield stream

    def _request(self, request: ModelRequest, key: str) -> AbstractAsyncContextManager[StreamedResponse]:
        settings = self._settings(request)
        if self.provider.protocol == "google":
            settings.setdefault("extra_headers", {})["x-goog-api-key"] = key
        else:
            self.client.api_key = key
        return model_request_stream(
            self.model,
            self.converter.messages(request.messages),
            model_settings=settings,
            model_request_parameters=parameters(request.system, request.tools),
            instrument=False,
        )

    def _settings(self, request: ModelRequest) -> Any:
        settings: dict[str, Any] = {"cache": request.cache, **thinking_setting(request.thinking)}
        if request.max_tokens is not None:
            settings["max_tokens"] = request.max_tokens
        if request.temperature is not None:
            settings["temperature"] = request.temperature
        headers: dict[str, str] = dict(self.provider.headers)
        if request.affinity:
            # Gateways and self-hosted servers route by it, so that a conversation finds its warm cache again.
            headers["X-Session-Affinity"] = request.affinity
            if self.provider.protocol in ("openai", "openai-chat") and request.cache:
                settings["openai_prompt_cache_key"] = _cache_key(request.affinity)
        own = dict(request.settings)
        headers.update(own.pop("extra_headers", {}))
        if headers:
            settings["extra_headers"] = headers
        return settings | own

    async def aclose(self) -> None:
        """No connection of this engine is open."""
        await self.http.aclose()


def thinking_setting(level: ThinkingLevel | None) -> Mapping[str, Any]:
    """The library's unified setting: its levels have our names, and off is False. It clamps to what the model has."""
    if level is None:
        return {}
    return {"thinking": False if level == "off" else level}


def _cache_key(affinity: str) -> str:
    if len(affinity) <= CACHE_KEY_CHARS_MAX:
        return affinity
    import hashlib

    return hashlib.sha256(affinity.encode()).hexdigest()


def build(spec: str, provider: Provider, name: str, base_url: str | None, key: str) -> Engine:
    """An engine for `spec` on the running event loop. Raises ImportError when the provider's package is missing."""
    http = httpx2.AsyncClient(
        timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
        event_hooks={"response": [_note]},
    )
    model, client = _BUILDERS[provider.protocol](name, base_url, key, http)
    converter = Converter(spec, model.system, keeps_unsigned_thinking=provider.protocol == "openai-chat")
    return Engine(provider, model, client, http, converter, context_window=model.context_window)


def _anthropic(name: str, base_url: str | None, key: str, http: httpx2.AsyncClient) -> tuple[LibraryModel[Any], Any]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=client)), client


def _openai(name: str, base_url: str | None, key: str, http: httpx2.AsyncClient) -> tuple[LibraryModel[Any], Any]:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    return OpenAIResponsesModel(name, provider=OpenAIProvider(openai_client=client)), client


def _openai_chat(name: str, base_url: str | None, key: str, http: httpx2.AsyncClient) -> tuple[LibraryModel[Any], Any]:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = AsyncOpenAI(api_key=key, base_url=base_url, http_client=http, max_retries=0)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client)), client


def _google(name: str, base_url: str | None, key: str, http: httpx2.AsyncClient) -> tuple[LibraryModel[Any], Any]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    provider = GoogleProvider(api_key=key, base_url=base_url, http_client=http)
    return GoogleModel(name, provider=provider), provider.client


_BUILDERS: Mapping[Wire, Any] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "openai-chat": _openai_chat,
    "google": _google,
}
