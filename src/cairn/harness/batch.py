"""Which calls of a message may begin now. Pure.

Calls run at the same time unless they say otherwise: `sequential=True` is a barrier (everything before it has finished,
nothing after it has begun), `sequential="key"` makes calls with the same key run one after the other, in source order. A call
that waits for an answer holds nobody up: it takes its turn among those that may run once it may.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from cairn.harness.submission import CallState, CallStatus


def startable(
    calls: Sequence[CallState], sequential: Callable[[str], bool | str], limit: int, approved: Collection[str] = ()
) -> list[CallState]:
    """The planned and approved calls that may begin beside those running, in source order, so that at most `limit` run."""
    called = [call for call in calls if call.status is CallStatus.CALLED]
    # Whatever is under way counts, also what stands after: an approval may come when that runs.
    rules = [sequential(call.name) for call in called]
    if True in rules:
        return []
    found: list[CallState] = []
    unfinished_before = False
    keys = {rule for rule in rules if isinstance(rule, str)}
    for call in calls:
        is_ready = call.status is CallStatus.PLANNED or (call.status is CallStatus.AWAITING and call.id in approved)
        if not is_ready and call.status is not CallStatus.CALLED:
            continue
        rule = sequential(call.name)
        free = not (unfinished_before or called) if rule is True else not (isinstance(rule, str) and rule in keys)
        if is_ready and free and len(called) + len(found) < limit:
            found.append(call)
        if rule is True:
            break
        if isinstance(rule, str):
            keys.add(rule)
        unfinished_before = True
    return found
