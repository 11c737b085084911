"""One request, as handlers see it: where it goes, what it carries, who asks. Bytes of the body come when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_to_bytes

from cairn.framework.http import problems
from cairn.framework.http.auth import LOCAL, Identity
from cairn.framework.http.body import Body
from cairn.framework.http.limits import HttpLimits
from cairn.framework.http.origin import Peer
from cairn.framework.http.responses import Receive, Scope


@dataclass(slots=True)
class Request:
    """A request on its way to a handler."""

    method: str
    segments: tuple[str, ...]
    """The path below the mount, decoded segment by segment: `a%2Fb` is one segment."""
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: Body
    peer: Peer
    scope: Scope
    receive: Receive
    id: str
    identity: Identity = LOCAL
    path: Mapping[str, str] = field(default_factory=dict)
    """What the route's placeholders stand for."""

    @property
    def kind(self) -> str:
        return self.path["kind"]

    @property
    def conversation(self) -> str:
        return self.path["id"]

    @property
    def root(self) -> str:
        """The path the application is mounted under; empty at the root."""
        return str(self.scope.get("root_path", "")).rstrip("/")

    def url(self, *segments: str) -> str:
        """An absolute address of this server, as the client sees it."""
        return "/".join((self.peer.url + self.root, *segments))

    def own_url(self) -> str:
        """This request's own address without its query, written as the client wrote it."""
        return self.peer.url + raw_path(self.scope).decode("latin-1")

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def value(self, name: str) -> str | None:
        """The parameter of that name, which may be given once. Raises the 400 otherwise."""
        found = self.values(name)
        if len(found) > 1:
            raise problems.invalid_request(f"Query parameter '{name}' is given {len(found)} times; give it once.")
        return found[0] if found else None


def raw_path(scope: Scope) -> bytes:
    """The path as it was sent, without the query."""
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        from urllib.parse import quote

        return quote(scope["path"]).encode()
    return raw.partition(b"?")[0]


def segments_of(scope: Scope) -> tuple[str, ...]:
    """The path below the mount. Raises the 400 for what is not UTF-8."""
    path, root = raw_path(scope), str(scope.get("root_path", "")).rstrip("/")
    if root:
        # The mount may have been written with escapes: as many segments as it has are its own.
        depth = root.count("/")
        path = b"/" + b"/".join(path.split(b"/")[depth + 1 :])
    try:
        found = tuple(unquote_to_bytes(segment).decode() for segment in path[1:].split(b"/"))
    except UnicodeDecodeError:
        raise problems.invalid_request("The path is not UTF-8.") from None
    return found[:-1] if len(found) > 1 and found[-1] == "" else found


def query_of(scope: Scope, limits: HttpLimits) -> list[tuple[str, str]]:
    """The query's parameters. Raises the 400 for too many of them, and for what is not UTF-8."""
    raw: bytes = scope.get("query_string", b"")
    try:
        return parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=limits.query_parameters_max, errors="strict"
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise problems.invalid_request(f"The query cannot be read: {error}.") from None
