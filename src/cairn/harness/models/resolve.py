"""From a spec such as `anthropic:claude-…` to a `Model`, with every mistake found before anything is imported.

Laws. Resolving is offline and cheap: it reads the spec, the environment it is given and which packages exist. A mistake
is one `UsageError` that says what to write instead. A provider is a row of data; adding one is adding a row.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from cairn.clock import Clock, SystemClock
from cairn.errors import MissingExtra, UsageError
from cairn.harness.models.adapter import ProviderModel
from cairn.harness.models.provider import PROVIDERS, Provider

ApiKey = str | Callable[[], str | Awaitable[str]]

#: What is sent as the key to a server on this machine that was given none; such servers ask for none.
NO_KEY: Final = "none"


#: How the vendors name their models: enough to complete a spec without its provider.
_FAMILIES: Final = (
    (re.compile(r"claude"), "anthropic"),
    (re.compile(r"gpt|chatgpt|o\d"), "openai"),
    (re.compile(r"gemini"), "google"),
)


def resolve(
    spec: str,
    *,
    api_key: ApiKey | None = None,
    base_url: str | None = None,
    providers: Sequence[Provider] = (),
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> ProviderModel:
    """A model ready to `warm` or `stream`; nothing heavy is imported yet.

    `api_key` may be a function, plain or async, asked once per request (expiring tokens). Without it the provider's
    environment variable is read at each request. `base_url` points at any compatible server; without it the provider's
    variable, then the vendor. `providers` adds to the built-in ones and wins over them.

    Raises UsageError (a malformed spec, an unknown provider, a missing key) or MissingExtra.
    """
    environ = os.environ if environ is None else environ
    provider, name = parse(spec, providers)
    check_installed(provider)
    url = base_url or _first(environ, provider.base_urls) or provider.base_url
    _check_url(url, provider)
    key = _key_source(provider, api_key, url, environ)
    return ProviderModel(provider, name, key=key, base_url=url, clock=clock or SystemClock())


def parse(spec: str, providers: Sequence[Provider] = ()) -> tuple[Provider, str]:
    """The provider and the model's name in `spec`. Raises UsageError with the nearest right spelling."""
    known = {provider.name: provider for provider in (*PROVIDERS, *providers)}
    prefix, colon, name = spec.strip().partition(":")
    if not colon:
        family = next((provider for pattern, provider in _FAMILIES if pattern.match(prefix)), None)
        suggestion = f"did you mean '{family}:{prefix}'?" if family else "for example 'anthropic:claude-sonnet-4-5'."
        raise UsageError(f"model {spec!r} does not say who provides it; write 'provider:model', {suggestion}")
    if prefix not in known:
        near = difflib.get_close_matches(prefix, known, n=1)
        suggestion = f"did you mean '{near[0]}:{name}'?" if near else f"known are: {', '.join(sorted(known))}."
        raise UsageError(f"model {spec!r} names an unknown provider {prefix!r}; {suggestion}")
    if not name.strip():
        raise UsageError(f"model {spec!r} names no model; write '{prefix}:' and the provider's name of the model.")
    return known[prefix], name.strip()


def check_installed(provider: Provider) -> None:
    """Raises MissingExtra when the packages of `provider` are not installed. Imports nothing heavy."""
    for package in ("pydantic_ai", provider.package):
        try:
            found = importlib.util.find_spec(package) is not None
        except (ModuleNotFoundError, ValueError):
            found = False
        if not found:
            raise MissingExtra(
                f"{provider.name} models need the package {package!r}, which is not installed: "
                f"pip install 'cairn-agents[{provider.extra}]'"
            )


def key_variable(spec: str, providers: Sequence[Provider] = ()) -> str | None:
    """The environment variable `spec` needs a key in; None when it needs none."""
    provider, _ = parse(spec, providers)
    return provider.keys[0] if provider.keys else None


def _key_source(
    provider: Provider, given: ApiKey | None, url: str | None, environ: Mapping[str, str]
) -> Callable[[], str | Awaitable[str]]:
    if callable(given):
        return given
    if given is not None:
        return lambda: given

    def read() -> str:
        key = _first(environ, provider.keys)
        if key:
            return key
        if not provider.keys or is_loopback(url):
            return NO_KEY
        raise UsageError(
            f"{provider.name} needs a key and {' or '.join(provider.keys)} is not set; "
            f"export {provider.keys[0]}=… and run again."
        )

    read()
    return read


def is_loopback(url: str | None) -> bool:
    """Whether `url` is a server on this machine: it may serve without a key."""
    host = (urlsplit(url).hostname or "") if url else ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _check_url(url: str | None, provider: Provider) -> None:
    if url is not None and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise UsageError(
            f"the base URL {url!r} of {provider.name} is not an http(s) URL; "
            f"write for example http://127.0.0.1:8000 (variable {' or '.join(provider.base_urls) or 'none'})."
        )


def _first(environ: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((value for name in names if (value := environ.get(name, "").strip())), None)
