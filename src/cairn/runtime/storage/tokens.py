"""Bearer tokens as the store keeps them: by hash, one name per tenant. Functions of a connection, without state."""

from __future__ import annotations

import json
from typing import Any

from cairn.errors import Conflict
from cairn.runtime.storage.connection import Connection
from cairn.runtime.storage.queries import query
from cairn.runtime.storage.store import TokenRow


def put(connection: Connection, token: TokenRow) -> None:
    """Raises Conflict."""
    grants, agents = json.dumps(list(token.grants)), json.dumps(list(token.agents))
    named = (token.hash, token.tenant, token.name, grants, agents)
    if not connection.execute(query("keep_token"), (*named, int(token.trusted), token.created_at, token.expires_at)):
        raise Conflict(f"tenant {token.tenant!r} has a token {token.name!r} already; delete it first, or use another name")


def get(connection: Connection, hash: str) -> TokenRow | None:
    found = connection.execute(query("find_token"), (hash,))
    return _token(found[0]) if found else None


def every(connection: Connection, tenant: str | None) -> list[TokenRow]:
    return [_token(row) for row in connection.execute(query("all_tokens"), {"tenant": tenant})]


def delete(connection: Connection, name: str, tenant: str) -> bool:
    return bool(connection.execute(query("drop_token"), (tenant, name)))


def _token(row: tuple[Any, ...]) -> TokenRow:
    hash, name, tenant, grants, agents, trusted, created_at, expires_at = row
    lists = tuple(json.loads(grants)), tuple(json.loads(agents))
    return TokenRow(hash, name, tenant, *lists, bool(trusted), created_at, expires_at)
