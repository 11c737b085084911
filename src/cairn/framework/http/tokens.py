"""Bearer tokens: 256 random bits, known to the store only by their hash, scoped to grants and conversations, expiring.

Laws. The token itself is shown once, when it is made, and is nowhere afterwards. A verified one is believed for a moment
without asking the store (`HttpLimits.identity_seconds`); a revoked one works no longer than that.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Sequence

from cairn.clock import Clock
from cairn.errors import UsageError
from cairn.framework.http.auth import Credentials, Grant, Identity, check_pattern
from cairn.framework.http.limits import HttpLimits
from cairn.ids import secret
from cairn.runtime.storage.store import Store, TokenRow

PREFIX = "cairn_"

#: A longer one is none of ours, and is not worth hashing.
TOKEN_CHARS_MAX = 200
NAME_CHARS_MAX = 100


class Tokens:
    """Authentication by the tokens in the App's store: `App(auth=Tokens())`. They are made by `cairn token create`."""

    bearer_only = True

    def __init__(self) -> None:
        self._store: Store | None = None
        self._clock: Clock | None = None
        self._limits = HttpLimits()
        self._verified: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    def bind(self, store: Store, clock: Clock, limits: HttpLimits) -> None:
        """The App is open: this is where tokens are. *Idempotent*; what was verified elsewhere is forgotten."""
        self._store, self._clock, self._limits = store, clock, limits
        self._verified.clear()

    async def __call__(self, credentials: Credentials) -> Identity | None:
        token = credentials.bearer
        if token is None or not token.startswith(PREFIX) or len(token) > TOKEN_CHARS_MAX:
            return None
        return await self._identity(hash_of(token))

    async def still_valid(self, identity: Identity) -> bool:
        """Whether the token is still there and allows what it did."""
        return identity.token is not None and await self._identity(identity.token) == identity

    async def _identity(self, hash: str) -> Identity | None:
        if self._store is None or self._clock is None:
            raise UsageError("Tokens() belongs to an App that is open: pass it as App(auth=Tokens())")
        now = self._clock.monotonic()
        known = self._verified.get(hash)
        if known is not None and now < known[1]:
            return _unless_expired(known[0], self._clock.wall())
        row = await self._store.token(hash)
        if row is None or not hmac.compare_digest(row.hash, hash):
            self._verified.pop(hash, None)
            return None
        identity = identity_of(row)
        self._verified[hash] = (identity, now + self._limits.identity_seconds)
        self._verified.move_to_end(hash)
        if len(self._verified) > self._limits.quotas_max:
            self._verified.popitem(last=False)
        return _unless_expired(identity, self._clock.wall())


def _unless_expired(identity: Identity, now: float) -> Identity | None:
    return None if identity.expires_at is not None and identity.expires_at <= now else identity


def hash_of(token: str) -> str:
    """What the store knows. 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def identity_of(row: TokenRow) -> Identity:
    """The caller a row describes. A grant that this version does not know grants nothing."""
    known = {grant.value: grant for grant in Grant}
    return Identity(
        name=row.name,
        tenant=row.tenant,
        grants=frozenset(known[grant] for grant in row.grants if grant in known),
        agents=row.agents,
        trusted=row.trusted,
        token=row.hash,
        expires_at=row.expires_at,
    )


async def create(
    store: Store,
    clock: Clock,
    name: str,
    grants: Sequence[Grant],
    *,
    agents: Sequence[str] = ("*",),
    tenant: str = "default",
    expires_in: float | None = None,
    trusted: bool = False,
) -> str:
    """A new token, which nobody can be told again. *Durable*: it works from now on. *Raises* Conflict for a name that is
    taken, UsageError."""
    if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise UsageError(f"a token's name is 1 to {NAME_CHARS_MAX} printable characters; it says whose it is")
    if not grants:
        raise UsageError(f"a token without grants allows nothing; there are: {', '.join(grant.value for grant in Grant)}")
    if expires_in is not None and expires_in <= 0:
        raise UsageError("a token that has expired allows nothing; let it last")
    token = f"{PREFIX}{secret()}"
    now = clock.wall()
    row = TokenRow(
        hash=hash_of(token),
        name=name,
        tenant=tenant,
        grants=tuple(sorted({grant.value for grant in grants})),
        agents=tuple(check_pattern(pattern) for pattern in agents),
        trusted=trusted,
        created_at=now,
        expires_at=None if expires_in is None else now + expires_in,
    )
    await store.put_token(row)
    return token
