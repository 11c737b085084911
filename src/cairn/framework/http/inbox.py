"""What waits for an answer everywhere: the questions of all conversations and objects that a caller may read, a page at a time.

Laws. Only instances that are marked as asking are looked at, and of each its log says whether it does. One request reads a
bounded number of them, whoever asks; a caller who sees few of very many gets a short page and goes on from its cursor. What a
caller does not see neither shows nor counts.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from cairn.framework.http import answers, object_answers
from cairn.framework.http.manage import number
from cairn.framework.http.request import Request
from cairn.framework.http.responses import NO_STORE, Send, send_json
from cairn.framework.http.service import Service
from cairn.runtime.instance import QUESTIONS
from cairn.runtime.storage.store import Address, InstanceRow
from cairn.runtime.sub_objects import parent_of

#: Instances whose questions are in a page, unless another number is asked for …
PAGE_DEFAULT = 50
#: … and at most. Each is a fold of a log: some milliseconds.
PAGE_MAX = 200
#: Rows of the store that are searched for one page: those of others cost a look each, not a fold.
SEARCHED_MAX = 2_000


async def waiting(service: Service, request: Request, send: Send) -> None:
    """`GET /questions?limit=&cursor=`."""
    limit = min(number(request, "limit", PAGE_DEFAULT), PAGE_MAX)
    rows, next = await _asking(service, request, limit, number(request, "cursor", 0))
    found = []
    for row in rows:
        instance = _instance(request, row.address)
        found += [{**each, "instance": instance} for each in await _questions(service, row.address)]
    await send_json(send, 200, {"questions": found, "next": None if next is None else str(next)}, NO_STORE)


async def _asking(service: Service, request: Request, limit: int, after: int) -> tuple[list[InstanceRow], int | None]:
    """The marked instances that the caller may read, and where the next page begins, if there may be one."""
    tenant, found, searched = request.identity.tenant, list[InstanceRow](), 0
    while searched < SEARCHED_MAX:
        rows = await service.store.instances(tenant=tenant, after=after, limit=PAGE_MAX, alarm=QUESTIONS)
        for row in rows:
            if _is_shown(service, request, row.address):
                if len(found) == limit:
                    return found, after
                found.append(row)
            after = row.n
        searched += len(rows)
        if len(rows) < PAGE_MAX:
            return found, None
    return found, after


def _is_shown(service: Service, request: Request, address: Address) -> bool:
    """Whether it has an address here that the caller sees. Sub-objects are reached through their parents, who decide."""
    if not request.identity.sees(address.kind, address.id):
        return False
    if address.kind in service.app.classes:
        parent = parent_of(address.id)
        return parent is None or parent.kind not in service.app.classes
    return address.kind in service.agents


async def _questions(service: Service, address: Address) -> list[dict[str, Any]]:
    if address.kind in service.app.classes:
        asked = await object_answers.client_of(service, address).questions(address.id)
        return [object_answers.as_json(each) for each in asked]
    pending = await service.app.conversation(address.kind, address.id, tenant=address.tenant).questions()
    return [answers.as_json(each) for each in pending]


def _instance(request: Request, address: Address) -> dict[str, str]:
    url = request.url("agents", quote(address.kind, safe=""), quote(address.id, safe=""))
    return {"kind": address.kind, "id": address.id, "url": url}
