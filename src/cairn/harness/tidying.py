"""What an owner does with a conversation at rest: merge the deltas of what is settled (merging.py says which).

Laws. Only at rest, so that everything below the head is settled. Each merge is a step of its own, and so is each page: whatever
comes next waits for neither. The work is what came since the last time, and after an activation the last two submissions: an
owner that died before it tidied up costs rows, never much work.
"""

from __future__ import annotations

from cairn.harness.conversation import Conversation
from cairn.harness.merging import Decode, Merger
from cairn.runtime.instance import Fold, Instance

#: Rows and bytes that are looked at in one step: a millisecond, in which nothing else of this process gets a turn.
PAGE_ROWS = 100
PAGE_BYTES = 1 << 18

#: Submissions, with what joined them, that are looked at again after an activation.
SUBMISSIONS_AGAIN = 2


async def tidy(instance: Instance, decode: Decode) -> int:
    """The deltas below the head are merged, if the conversation is at rest; how many merges that took. *Cancelled*: those that
    were begun are done, the others are for another time. *Raises* StoreError."""
    state: Conversation = instance.state
    if state.control.submission is not None or state.control.queue:
        return 0
    store, n, upto, done = instance.store, instance.n, instance.head, 0
    after = instance.tidied if instance.tidied is not None else _beginning(instance)
    merger = Merger(decode)
    while after < upto and (page := await store.read(n, after, limit=PAGE_ROWS, bytes_max=PAGE_BYTES)):
        for row in page:
            after = row.ordinal
            found = merger.feed(row)
            if found is not None:
                done += await store.merge(n, found.first, found.last, found.batch)
            if after >= upto:
                break  # what came meanwhile may not be settled
    last = merger.end()
    if last is not None:
        done += await store.merge(n, last.first, last.last, last.batch)
    instance.tidied = upto
    return done


def _beginning(fold: Fold) -> int:
    """The admission of the last submissions that were worked on; what joined one belongs to it."""
    state: Conversation = fold.state
    hosts, start = set[str](), fold.head
    for index in range(len(state.entries) - 1, -1, -1):
        entry = state.entries[index]
        if entry.kind != "user":
            continue
        settled = fold.runtime.settled.get(entry.submission)
        host = (settled.answered_by if settled is not None else None) or entry.submission
        if host not in hosts and len(hosts) == SUBMISSIONS_AGAIN:
            break
        hosts.add(host)
        start = entry.ordinal
    return start
