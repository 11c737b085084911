"""How the world talks to agents over HTTP. Start with `routes.py` (what there is) and `asgi.py` (the way of a request).

The face is what an application configures; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cairn.framework.http.auth import Credentials as Credentials
    from cairn.framework.http.auth import Grant as Grant
    from cairn.framework.http.auth import Identity as Identity
    from cairn.framework.http.auth import open_to_everyone as open_to_everyone
    from cairn.framework.http.limits import HttpLimits as HttpLimits
    from cairn.framework.http.tokens import Tokens as Tokens

_HOMES = {
    "Credentials": "auth",
    "Grant": "auth",
    "HttpLimits": "limits",
    "Identity": "auth",
    "Tokens": "tokens",
    "open_to_everyone": "auth",
}

__all__ = ["Credentials", "Grant", "HttpLimits", "Identity", "Tokens", "open_to_everyone"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cairn.framework.http' has no attribute {name!r}")
    return getattr(import_module(f"cairn.framework.http.{_HOMES[name]}"), name)
