"""From a spec to a model: every mistake is one line that says what to do, found without importing a provider."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from cairn.errors import MissingExtra, UsageError
from cairn.harness.models import Provider, resolve
from cairn.harness.models.resolve import PROVIDERS, is_loopback, key_variable, parse

KEYS = {name: "k" for provider in PROVIDERS for name in provider.keys}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("claude-sonnet-4-5", "anthropic:claude-sonnet-4-5"),
        ("gpt-5", "openai:gpt-5"),
        ("o3", "openai:o3"),
        ("gemini-2.5-pro", "google:gemini-2.5-pro"),
        ("something", "provider:model"),
        ("", "provider:model"),
        ("antropic:claude-x", "anthropic:claude-x"),
        ("opanai-chat:gpt-5", "openai-chat:gpt-5"),
        ("zzz:gpt-5", "anthropic, deepseek"),
        ("anthropic:", "names no model"),
    ],
)
def test_a_wrong_spec_is_answered_with_the_nearest_right_one(spec: str, says: str) -> None:
    """S14: the line names the spec and what to write instead."""
    with pytest.raises(UsageError) as caught:
        resolve(spec, environ=KEYS)

    assert says in str(caught.value)
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", [each for each in PROVIDERS if each.keys and each.name != "ollama"])
def test_a_missing_key_names_its_variable(provider: Provider) -> None:
    """S14: found before anything is imported or sent."""
    with pytest.raises(UsageError, match=provider.keys[0]):
        resolve(f"{provider.name}:some-model", environ={provider.keys[0]: "  "})


def test_a_server_on_this_machine_needs_no_key() -> None:
    """S14: local model servers have none."""
    environ = {"OPENAI_BASE_URL": "http://localhost:8000/v1"}

    assert resolve("openai-chat:llama", environ=environ).base_url == "http://localhost:8000/v1"
    assert resolve("ollama:llama", environ={}).spec == "ollama:llama"
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        resolve("openai-chat:llama", environ={"OPENAI_BASE_URL": "https://models.example.com/v1"})


def test_the_key_is_read_again_for_every_request() -> None:
    """P28: a process that replaced the variable is not asked to restart."""
    environ = {"ANTHROPIC_API_KEY": "one"}
    model = resolve("anthropic:claude-x", environ=environ)

    first = model._key()
    environ["ANTHROPIC_API_KEY"] = "two"

    assert (first, model._key()) == ("one", "two")


def test_an_argument_wins_over_the_environment_and_the_environment_over_the_row() -> None:
    """P28: base URLs for gateways and loopback servers, from the caller or the command line's environment."""
    environ = {**KEYS, "OPENROUTER_BASE_URL": "http://127.0.0.1:1/v1"}

    assert resolve("openrouter:x", environ=KEYS).base_url == "https://openrouter.ai/api/v1"
    assert resolve("openrouter:x", environ=environ).base_url == "http://127.0.0.1:1/v1"
    assert resolve("openrouter:x", environ=environ, base_url="http://[::1]:2").base_url == "http://[::1]:2"
    assert resolve("anthropic:x", environ=KEYS).base_url is None


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/x", "http://", "localhost"])
def test_a_base_url_that_is_none_is_refused_by_name(url: str) -> None:
    """S14: before a request fails in a strange way."""
    with pytest.raises(UsageError, match="ANTHROPIC_BASE_URL"):
        resolve("anthropic:x", environ={**KEYS, "ANTHROPIC_BASE_URL": url})


def test_a_package_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """S14: the line can be pasted into a shell."""
    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(MissingExtra, match=r"pip install 'cairn-agents\[openai\]'"):
        resolve("openai:gpt-5", environ=KEYS)


def test_a_package_that_breaks_while_it_is_imported_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """S14: found at warm, when looking for the package was not enough."""
    model = resolve("openai:gpt-5", environ=KEYS)
    monkeypatch.setitem(sys.modules, "cairn.harness.models.engine", None)

    with pytest.raises(MissingExtra, match=r"cairn-agents\[openai\]"):
        asyncio.run(model.warm())


def test_a_row_of_ones_own_makes_a_provider() -> None:
    """S14: a compatible server is data, and wins over a built-in of the same name."""
    acme = Provider("acme", "anthropic", keys=("ACME_KEY",), base_url="https://models.acme.example")

    assert parse("acme:big", [acme]) == (acme, "big")
    assert key_variable("acme:big", [acme]) == "ACME_KEY"
    with pytest.raises(UsageError, match="ACME_KEY"):
        resolve("acme:big", providers=[acme], environ={})
    assert resolve("acme:big", providers=[acme], environ={"ACME_KEY": "k"}).spec == "acme:big"


def test_a_models_name_may_hold_colons() -> None:
    """S14: only the first one separates."""
    assert parse("ollama:llama3:8b")[1] == "llama3:8b"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1", True),
        ("http://127.8.9.1/v1", True),
        ("http://[::1]:3", True),
        ("http://localhost", True),
        ("http://localhost.example.com", False),
        ("https://api.example.com", False),
        (None, False),
    ],
)
def test_loopback_is_told_by_the_host(url: str | None, local: bool) -> None:
    """S14: a name that merely begins like it is another machine."""
    assert is_loopback(url) is local


def test_resolving_imports_no_provider() -> None:
    """L3: a kill is not followed by seconds of imports; asserted on modules, not on time."""
    code = (
        "import sys; from cairn.harness.models import resolve;"
        "resolve('anthropic:claude-x', api_key='k'); resolve('openai:gpt-5', api_key='k');"
        "resolve('google:gemini-x', api_key='k').spec;"
        "heavy = {'pydantic_ai','pydantic','anthropic','openai','google.genai','httpx2','httpx','genai_prices'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
