"""Which calls of a message may begin now. Pure.

Calls run at the same time unless they say otherwise: `sequential=True` is a barrier (everything before it has finished,
nothing after it has begun), `sequential="key"` makes calls with the same key run one after the other, in source order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cairn.harness.submission import CallState, CallStatus


def startable(calls: Sequence[CallState], sequential: Callable[[str], bool | str], limit: int) -> list[CallState]:
    """The planned calls that may begin beside those running, in source order, so that at most `limit` run."""
    running = sum(call.status is CallStatus.CALLED for call in calls)
    found: list[CallState] = []
    unfinished_before = False
    keys: set[str] = set()
    for call in calls:
        if call.status is CallStatus.DONE:
            continue
        rule = sequential(call.name)
        free = not unfinished_before if rule is True else not (isinstance(rule, str) and rule in keys)
        if call.status is CallStatus.PLANNED and free and running + len(found) < limit:
            found.append(call)
        if rule is True:
            break
        if isinstance(rule, str):
            keys.add(rule)
        unfinished_before = True
    return found
