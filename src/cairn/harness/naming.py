"""Names that clients choose, and what follows from them: idempotency keys, ids of instances, ids of keyed submissions.

Laws. Pure. What no log, no path and no other process could take is refused here, in words, before anything is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from cairn.errors import UsageError
from cairn.harness import records as h
from cairn.runtime.naming import ID_CHARACTERS_MAX as ID_CHARACTERS_MAX
from cairn.runtime.naming import check_id as check_id
from cairn.runtime.storage.store import Address, Admission

#: Characters of an idempotency key (Flue: 256).
KEY_CHARACTERS_MAX = 256


def check_key(key: str | None) -> None:
    """Raises UsageError for a key that cannot be one."""
    if key is None:
        return
    if not 0 < len(key) <= KEY_CHARACTERS_MAX:
        raise UsageError(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} characters, not {len(key)}")
    if not _is_text(key):
        raise UsageError(f"{key!r} cannot be an idempotency key: it is not UTF-8 text")


def digest_of_message(body: bytes, data: Mapping[str, bytes]) -> bytes:
    """What one key stands for: the message, and the first state that came with it."""
    given = hashlib.sha256(body)
    for name in sorted(data):
        given.update(msgspec.json.encode(name) + data[name])
    return given.digest()


def keyed_id(address: Address, key: str, forked: str = "") -> str:
    """The same for the same key, so that a client which lost the answer can compute the id it would have got. `forked` is the
    uid of a fork: a source deleted since may have had its address, and the key."""
    text = "\n".join(("cairn-submission", address.tenant, address.kind, address.id, *((forked,) if forked else ()), key))
    return f"sub_ik_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def admission_of(key: str | None, fiber: str, arguments: msgspec.Raw) -> Admission | None:
    """What makes one key one request of these arguments. Raises UsageError."""
    check_key(key)
    return None if key is None else Admission(key, fiber, hashlib.sha256(bytes(arguments)).digest())


def check_delivery(delivery: h.Delivery) -> None:
    """Raises UsageError for a message that no log would take."""
    if not _is_text(delivery.body):
        raise UsageError("the message is not UTF-8 text: it holds half of a surrogate pair")


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: a shell may hand on any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
