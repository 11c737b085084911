"""Who provides models, as data: one row per provider, the part of a spec before the colon.

Laws. No behaviour beyond reading the row. A compatible server needs no code: it is a row with a `base_url`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Wire = Literal["anthropic", "openai", "openai-chat", "google"]

#: The extra that installs a protocol's library, the module that speaks it, and the package to look for.
_LIBRARIES: Final[Mapping[Wire, tuple[str, str, str]]] = {
    "anthropic": ("anthropic", "pydantic_ai.models.anthropic", "anthropic"),
    "openai": ("openai", "pydantic_ai.models.openai", "openai"),
    "openai-chat": ("openai", "pydantic_ai.models.openai", "openai"),
    "google": ("google", "pydantic_ai.models.google", "google.genai"),
}


@dataclass(frozen=True, slots=True)
class Provider:
    """Where models come from: the part of a spec before the colon.

    `keys` and `base_urls` are environment variables, the first that is set counts. `base_url` is used when none is;
    None means the vendor's own. `prices` is the provider's name in the price table, None for no prices.
    """

    name: str
    protocol: Wire
    keys: tuple[str, ...] = ()
    base_urls: tuple[str, ...] = ()
    base_url: str | None = None
    prices: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def extra(self) -> str:
        """The optional dependency of `cairn-agents` that installs its library."""
        return _LIBRARIES[self.protocol][0]

    @property
    def library(self) -> str:
        """The module that speaks its protocol."""
        return _LIBRARIES[self.protocol][1]

    @property
    def package(self) -> str:
        """The vendor's package, whose presence decides whether the extra is installed."""
        return _LIBRARIES[self.protocol][2]


PROVIDERS: Final[tuple[Provider, ...]] = (
    Provider("anthropic", "anthropic", ("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",), prices="anthropic"),
    Provider("openai", "openai", ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), prices="openai"),
    Provider("openai-chat", "openai-chat", ("OPENAI_API_KEY",), ("OPENAI_BASE_URL",), prices="openai"),
    Provider(
        "google",
        "google",
        ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        ("GOOGLE_GEMINI_BASE_URL", "GEMINI_BASE_URL"),
        prices="google",
    ),
    Provider(
        "openrouter",
        "openai-chat",
        ("OPENROUTER_API_KEY",),
        ("OPENROUTER_BASE_URL",),
        "https://openrouter.ai/api/v1",
        "openrouter",
    ),
    Provider(
        "deepseek",
        "openai-chat",
        ("DEEPSEEK_API_KEY",),
        ("DEEPSEEK_BASE_URL",),
        "https://api.deepseek.com",
        "deepseek",
    ),
    Provider("groq", "openai-chat", ("GROQ_API_KEY",), ("GROQ_BASE_URL",), "https://api.groq.com/openai/v1", "groq"),
    Provider("ollama", "openai-chat", ("OLLAMA_API_KEY",), ("OLLAMA_BASE_URL",), "http://127.0.0.1:11434/v1"),
)
