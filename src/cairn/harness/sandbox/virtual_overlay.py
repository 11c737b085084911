"""What a worker says a command has changed, done to a draft of the workspace: all of it, or the draft is of no use any more.

Laws. The operations are an enemy's. They go through the draft's own functions, which check every path, name, link and quota;
sizes are checked against what came with them; nothing else can be reached from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cairn.harness.sandbox.virtual_paths import target_inside
from cairn.harness.sandbox.virtual_wire import (
    OPERATIONS_MAX,
    Garbage,
    MakeDirectory,
    MakeLink,
    Move,
    Operation,
    Remove,
    SetMode,
    SetTime,
    Write,
)

if TYPE_CHECKING:
    from cairn.runtime.workspace_draft import Draft


#: Seconds since 1970: the year 9999, as far as everybody can write one.
TIME_MAX = 253_402_300_800


async def carry_out(draft: Draft, operations: list[Operation], contents: bytes) -> None:
    """The draft's files are as the command left them. *Raises* Garbage, WorkspaceError, WorkspaceFull; drop the draft then."""
    if len(operations) > OPERATIONS_MAX:
        raise Garbage(f"a command changed {len(operations):,} files; at most {OPERATIONS_MAX:,} at once")
    at = 0
    for each in operations:
        match each:
            case Move():
                await draft.rename(each.old, each.new)
            case Remove():
                await draft.remove(each.path, recursive=True)
            case MakeDirectory():
                await draft.mkdir(each.path)
            case MakeLink():
                await draft.symlink(target_inside(each.target), each.path)
            case SetMode():
                await draft.chmod(each.path, each.mode & 0o777)
            case SetTime():
                if not 0 <= each.mtime < TIME_MAX:
                    raise Garbage("a file was given a time that is none")
                await draft.touch(each.path, mtime=each.mtime)
            case Write():
                if each.size < 0 or at + each.size > len(contents):
                    raise Garbage("a shell worker sent less than it announced")
                await draft.write(each.path, contents[at : at + each.size])
                at += each.size
    if at != len(contents):
        raise Garbage("a shell worker sent more than it announced")
