"""A server's refusals as errors of ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cairn.errors import CairnError, Conflict, Denied, NotFound, RemoteError, StoreFull, UsageError

#: The caller's mistakes.
_MISTAKES = frozenset({400, 405, 413, 415, 421, 422, 431})
#: Characters of an answer that is no envelope of ours, in an error's text.
_FOREIGN_CHARACTERS = 200


class _Envelope(msgspec.Struct):
    """What goes wrong at a server of ours is told in this form."""

    type: str
    message: str
    details: str = ""
    meta: dict[str, Any] | None = None
    ref: str | None = None


class _Body(msgspec.Struct):
    error: _Envelope


def error_of(status: int, headers: Mapping[str, str], body: bytes, where: str) -> CairnError:
    """The error that a refusal means; `where` is the request, for its text."""
    told = _envelope(body)
    text = _plain(f"{told.message} {told.details}".strip() if told.type else told.message)
    if 300 <= status < 400:
        return UsageError(f"{where}: the server is elsewhere: {_plain(headers.get('location', 'it does not say where'))}")
    meta = told.meta or {}
    if status in (401, 403):
        return Denied(f"{where}: {text}")
    if status in (404, 410):
        return NotFound(f"{where}: {text}")
    if status == 409:
        return Conflict(f"{where}: {text}", fiber=meta.get("submissionId"), uid=meta.get("uid"))
    if status == 507:
        return StoreFull(f"{where}: {text}")
    if status in _MISTAKES:
        return UsageError(f"{where}: {text}")
    said = f"{where}: {status}: {text}" + (f" (its log has it under {told.ref})" if told.ref else "")
    return RemoteError(said, type=told.type, status=status, retry_after=retry_after(headers), ref=told.ref)


def _plain(text: str) -> str:
    """Somebody else's words, harmless for the terminal they end up on."""
    return "".join(character if character.isprintable() else " " for character in text)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds the server asks to wait; a date is taken for none."""
    given = headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdecimal() else None


def _envelope(body: bytes) -> _Envelope:
    """What the server said; what is no envelope (a proxy's page) is shown as it begins."""
    try:
        return msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:
        text = " ".join(body.decode(errors="replace").split())
        return _Envelope(type="", message=text[:_FOREIGN_CHARACTERS] or "it says nothing more")
