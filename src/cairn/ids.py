"""Names of things, as an argument: every id is `<prefix>_<ULID>`, sortable by birth, made by one injected source."""

from __future__ import annotations

import base64
import os
import time
from typing import Protocol

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Ids(Protocol):
    """Mints ids and the randomness of back-off. The simulator's is seeded."""

    def new(self, prefix: str) -> str:
        """A name never given before: `sub_01J…`."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


def ulid(milliseconds: int, entropy: int) -> str:
    """The 26 characters of a ULID: 48 bits of time, 80 of entropy (github.com/ulid/spec)."""
    value = (milliseconds & (1 << 48) - 1) << 80 | entropy & (1 << 80) - 1
    return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -5, -5))


class SystemIds:
    """Ids from the machine's clock and entropy."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{ulid(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), 'big'))}"

    def random(self) -> float:
        return int.from_bytes(os.urandom(7), "big") / (1 << 56)


def secret() -> str:
    """256 bits that nobody can guess, in 43 characters fit for a header or a URL. Never seeded: a simulation has no secrets."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
