"""Loopback model providers: servers on 127.0.0.1 that speak the vendors' real streaming protocols, scripted.

async with ProviderServer([Reply.of("Hello.")]) as server:
    model = resolve("anthropic:claude-sonnet-4-5", base_url=server.url("anthropic"), api_key="loopback")
"""

from cairn.testing.providers.script import (
    Break,
    Call,
    Entry,
    Fail,
    Hang,
    ProviderRequest,
    Refuse,
    Reply,
    Say,
    Script,
    Think,
    Tokens,
    Wire,
)
from cairn.testing.providers.server import ProviderServer, serve_in_thread

__all__ = [
    "Break",
    "Call",
    "Entry",
    "Fail",
    "Hang",
    "ProviderRequest",
    "ProviderServer",
    "Refuse",
    "Reply",
    "Say",
    "Script",
    "Think",
    "Tokens",
    "Wire",
    "serve_in_thread",
]
