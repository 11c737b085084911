"""Who asks, and what they may do.

Laws. Every route names one grant; what is not granted is refused. Whoever may not see a conversation gets the very answer that
a conversation which does not exist would give. A credential is in a header, never in a URL, where proxies and histories keep
it. Wrong credentials are counted whatever they are made of, and one kind of them beside another changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from inspect import isawaitable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from cairn.clock import Clock
from cairn.errors import UsageError
from cairn.framework.http import problems
from cairn.framework.http.origin import Peer
from cairn.framework.http.responses import Scope

if TYPE_CHECKING:
    from cairn.framework.http.quota import Failures


class Grant(StrEnum):
    """What a route needs."""

    READ = "read"
    SEND = "send"
    ABORT = "abort"
    MANAGE = "manage"
    """Delete, fork and export."""


#: A route that everybody may use: health, the page's files, this interface's description.
OPEN: Final = None

EVERY_GRANT = frozenset(Grant)

#: Query parameters in which people put credentials. They are refused, so that none is in a log by habit.
CREDENTIAL_PARAMETERS = frozenset({"token", "access_token", "api_key", "apikey", "authorization", "bearer"})
#: Headers that carry credentials: what was accepted with them once is not held up by others' guesses.
BEARER_HEADERS = ("authorization",)
CREDENTIAL_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key")
#: Accepted credentials that are remembered (as digests) for that.
ACCEPTED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `agents` says which conversations it sees: `*` all, `support/*` an agent's, `support/user-7*` those whose id
    begins so, `support/user-7` one."""

    name: str
    tenant: str = "default"
    grants: frozenset[Grant] = frozenset()
    agents: tuple[str, ...] = ("*",)
    trusted: bool = False
    """An application's own server: no limit on requests and streams."""
    token: str | None = None
    """The hash of its token, if it has one."""
    expires_at: float | None = None
    """Wall seconds."""
    is_shared: bool = False
    """Many callers have this name: their use is counted by address."""

    def sees(self, kind: str | None, id: str | None = None) -> bool:
        """Whether that conversation, or with no id any of that agent's, exists for this caller."""
        return kind is None or any(_covers(pattern, kind, id) for pattern in self.agents)

    def may(self, grant: Grant | None, kind: str | None = None, id: str | None = None) -> bool:
        return grant is OPEN or (grant in self.grants and self.sees(kind, id))


def _covers(pattern: str, kind: str, id: str | None) -> bool:
    if pattern == "*":
        return True
    kinds, _, ids = pattern.partition("/")
    return _begins(kinds, kind) and (id is None or _begins(ids, id))


def _begins(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def check_pattern(pattern: str) -> str:
    """The pattern, if it is one. Raises UsageError."""
    kind, slash, id = pattern.partition("/")
    if pattern != "*" and not (kind and slash and id):
        raise UsageError(f"agents: {pattern!r} names no conversations; write 'support/*', 'support/user-7' or '*'")
    if "*" in kind[:-1] or "*" in id[:-1]:
        raise UsageError(f"agents: {pattern!r} has a * inside; only the end of a name can be left open, as in 'support/user-*'")
    return pattern


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an application's own authentication is given: the request without its body."""

    headers: Mapping[str, str]
    """Names in lower case."""
    client: str
    """The client's address, as far as trusted proxies tell; empty when it cannot be known."""
    method: str
    path: str

    @property
    def bearer(self) -> str | None:
        """The token of `Authorization: Bearer …`."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


#: The application's own authentication: who that is, or None. May be async. If it has a method `still_valid(identity)`, live
#: streams ask that too, every few seconds.
Authenticate = Callable[[Credentials], "Identity | Awaitable[Identity | None] | None"]

#: The person at this machine, when no authentication is configured.
LOCAL = Identity("local", grants=EVERY_GRANT, trusted=True)


class Everyone:
    """Lets everybody in; made by `open_to_everyone`."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity

    def __call__(self, credentials: Credentials) -> Identity:
        return self.identity


def open_to_everyone(
    grants: Sequence[Grant] = (Grant.READ, Grant.SEND, Grant.ABORT), *, agents: Sequence[str] = ("*",)
) -> Everyone:
    """Authentication that asks for nothing: whoever reaches the server may do this. Everybody sees everybody's conversations
    whose ids they know or can list; deleting, forking and exporting (`Grant.MANAGE`) is left out unless it is said."""
    patterns = tuple(check_pattern(pattern) for pattern in agents)
    return Everyone(Identity("everyone", grants=frozenset(grants), agents=patterns, is_shared=True))


def permit(identity: Identity, grant: Grant | None, kind: str | None = None, id: str | None = None) -> None:
    """The caller may do that there. Raises Problem: 404 where it sees nothing, 403 where it sees but may not."""
    if grant is OPEN:
        return
    if not identity.sees(kind, id):
        raise problems.stream_not_found(kind or "", id or "")
    if grant not in identity.grants:
        held = ", ".join(sorted(each.value for each in identity.grants)) or "nothing"
        raise problems.forbidden(f"This needs the grant '{grant.value}'; '{identity.name}' has: {held}.")


class Authenticator:
    """Turns requests into identities, by what the application configured."""

    def __init__(self, auth: Authenticate | None, failures: Failures, clock: Clock) -> None:
        self.auth = auth
        self._failures = failures
        self._clock = clock
        self._accepted: OrderedDict[bytes | None, None] = OrderedDict()
        self._pending: Counter[bytes | None] = Counter()

    async def identify(self, scope: Scope, headers: Mapping[str, str], peer: Peer) -> Identity:
        """Who asks. *Raises* Problem: 400 for a credential in the wrong place, 401 for none or a wrong one, 403 for a caller
        from outside when nothing is configured, 429 for too many wrong ones."""
        _refuse_in_query(scope.get("query_string", b""))
        if self.auth is None:
            if peer.is_local:
                return LOCAL
            raise problems.forbidden("Only this machine itself is answered: no authentication is configured, App(auth=…).")
        if sum(name.lower() == b"authorization" for name, _ in scope["headers"]) > 1:
            raise problems.invalid_request("More than one Authorization header.")
        credentials = Credentials(headers, peer.client or peer.address, scope.get("method", "GET"), scope.get("path", ""))
        identity = await self._ask(self.auth, credentials, peer)
        if identity is None:
            raise problems.unauthorized("Send a valid token: `Authorization: Bearer …`.")
        return identity

    async def still_valid(self, identity: Identity) -> bool:
        """Whether a stream that was opened as this identity may go on."""
        if self._is_expired(identity):
            return False
        again = getattr(self.auth, "still_valid", None)
        return True if again is None else bool(await again(identity))

    async def _ask(self, auth: Authenticate, credentials: Credentials, peer: Peer) -> Identity | None:
        kinds = BEARER_HEADERS if _is_bearer_only(auth) else CREDENTIAL_HEADERS
        digest = _digest(credentials, kinds)
        if digest is None and _is_bearer_only(auth):
            return None  # nothing was sent that could be a guess
        was_accepted = digest in self._accepted
        # The same guess many times at once is one guess; a credential that was right before is none.
        is_guess = not was_accepted and not (digest and self._pending[digest])
        if is_guess:
            self._failures.take(peer)
        self._pending[digest] += 1
        try:
            answer = auth(credentials)
            identity = await answer if isawaitable(answer) else answer
        finally:
            self._pending[digest] -= 1
            if not self._pending[digest]:
                del self._pending[digest]
        if identity is None or self._is_expired(identity):
            self._accepted.pop(digest, None)
            if was_accepted:
                self._failures.take(peer)
            return None
        if is_guess:
            self._failures.give_back(peer)
        if digest is not None:
            self._remember(digest)
        return identity

    def _remember(self, digest: bytes) -> None:
        self._accepted[digest] = None
        self._accepted.move_to_end(digest)
        if len(self._accepted) > ACCEPTED_MAX:
            self._accepted.popitem(last=False)

    def _is_expired(self, identity: Identity) -> bool:
        return identity.expires_at is not None and identity.expires_at <= self._clock.wall()


def _is_bearer_only(auth: Authenticate | None) -> bool:
    """Whether it looks at nothing but `Authorization`, as `Tokens` does and says."""
    return bool(getattr(auth, "bearer_only", False))


def _digest(credentials: Credentials, kinds: Sequence[str]) -> bytes | None:
    """What was sent, unreadable; None when none of these headers was."""
    sent = [(name, credentials.headers[name]) for name in kinds if name in credentials.headers]
    return hashlib.sha256(repr(sent).encode()).digest() if sent else None


def _refuse_in_query(query: bytes) -> None:
    if not query:
        return
    names = {name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    found = sorted(names & CREDENTIAL_PARAMETERS)
    if found:
        raise problems.invalid_request(f"A credential must not be in the URL ('{found[0]}'); send `Authorization: Bearer …`.")


def describe(auth: Authenticate | None) -> str:
    """One line for people: how callers are told apart."""
    if auth is None:
        return "none: only this machine is answered"
    if isinstance(auth, Everyone):
        return f"open to everyone ({', '.join(sorted(grant.value for grant in auth.identity.grants))})"
    return "bearer tokens" if _is_bearer_only(auth) else "the application's own"
