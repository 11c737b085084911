"""`cairn files KIND/ID` and `cairn export KIND/ID`: an instance's workspace, as it is or as it was.

Read from the log without knowing any application: the files of an instance can be looked at and taken out while it runs
elsewhere, and when its code is not here. Nothing is changed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cairn.errors import UsageError, WorkspaceError
from cairn.framework.cli.log import address
from cairn.framework.cli.output import Exit, columns, json_line, line, moment, size
from cairn.framework.cli.store import existing, opened
from cairn.framework.cli.visible import visible

if TYPE_CHECKING:
    from cairn.runtime.files import Entry
    from cairn.runtime.workspace_history import Past

HEADING = ("MODE", "SIZE", "TIME", "PATH")

#: Of what `--json` shows of a file's content at most: more is for `cairn export`.
CONTENT_BYTES_MAX = 10 << 20


def run(store: str | None, text: str, path: str | None, *, at: int | None, since: int | None, json: bool) -> int:
    """`cairn files`: what is below a directory, or in a file; with `since` what has changed. Raises NotFound, UsageError."""
    place, target = existing(store), address(text)

    async def work() -> None:
        from cairn.runtime.workspace_history import changes_between, diff, workspace_at

        async with opened(place) as it:
            if since is not None and json:
                import msgspec

                for change in await changes_between(it, target, since, at):
                    json_line(msgspec.to_builtins(change))
            elif since is not None:
                sys.stdout.write(visible(await diff(it, target, since, at)))
            else:
                await _show(await workspace_at(it, target, at), path or "/", json=json)

    try:
        asyncio.run(work())
    except WorkspaceError as error:
        raise UsageError(f"{text}: {error.strerror}: {error.filename}") from None
    return Exit.OK


async def _show(files: Past, path: str, *, json: bool) -> None:
    entry = files.stat(path)
    if entry is not None and entry.is_file:
        await (_content_as_json if json else _content)(files, entry)
        return
    found = list(files.walk(path))
    if json:
        for each in found:
            json_line(_plain(each))
        return
    if not found:
        line("no files")
        return
    for each_line in columns([_row(each) for each in found], HEADING):
        line(each_line)
    usage = files.usage()
    line(f"{usage.files:,} in all, {size(usage.bytes)}; at offset {files.offset}")


def _row(entry: Entry) -> Sequence[str]:
    letter = {"file": "-", "directory": "d", "link": "l"}[entry.kind]
    bits = "".join(bit if entry.mode >> shift & 1 else "-" for shift, bit in zip(range(8, -1, -1), "rwxrwxrwx", strict=True))
    name = f"{entry.path} -> {entry.target}" if entry.is_link else entry.path
    return (
        letter + bits,
        size(entry.size) if entry.is_file else "",
        moment(entry.mtime)[:19],
        visible(name).replace("\n", "\\n"),
    )


def _plain(entry: Entry) -> dict[str, Any]:
    found = {"path": entry.path, "kind": entry.kind, "size": entry.size, "mode": oct(entry.mode)[2:], "mtime": entry.mtime}
    return found | ({"target": entry.target} if entry.is_link else {})


async def _content(files: Past, entry: Entry) -> None:
    """As it is into a pipe or a file; to a terminal only what a terminal may be shown."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        async for piece in files.stream(entry.path):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    data = await files.read(entry.path, 0, CONTENT_BYTES_MAX)
    try:
        sys.stdout.write(visible(data.decode()))
    except UnicodeDecodeError:
        line(f"{visible(entry.path)} is {size(entry.size)} of binary content; send it to a file with >")


async def _content_as_json(files: Past, entry: Entry) -> None:
    if entry.size > CONTENT_BYTES_MAX:
        raise UsageError(f"'{entry.path}' has {size(entry.size)}, too much for one line of JSON; leave --json out")
    data = await files.read(entry.path)
    try:
        json_line(_plain(entry) | {"text": data.decode()})
    except UnicodeDecodeError:
        from base64 import b64encode

        json_line(_plain(entry) | {"data": b64encode(data).decode()})


def export(store: str | None, text: str, files: str | None, *, at: int | None, json: bool) -> int:
    """`cairn export`: the files of an instance in a new directory, or in a tar archive. Raises NotFound, UsageError."""
    place, target = existing(store), address(text)
    into = files or f"{target.kind}-{target.id.replace('/', '-')}"

    async def work() -> tuple[int, int, int]:
        from cairn.runtime.workspace_exchange import export_directory
        from cairn.runtime.workspace_history import workspace_at

        async with opened(place) as it:
            found = await workspace_at(it, target, at)
            if into.endswith(".tar"):
                await _archive(found, into)
            else:
                await export_directory(found, into)
            usage = found.usage()
            return usage.files, usage.bytes, found.offset

    try:
        count, total, offset = asyncio.run(work())
    except WorkspaceError as error:
        raise UsageError(f"{text}: {error.strerror}: {error.filename}") from None
    except FileExistsError:
        raise UsageError(f"{into} is a file; name a new or an empty directory, or a new archive, NAME.tar") from None
    except OSError as error:
        raise UsageError(f"{into} cannot be written: {error.strerror}") from None
    if json:
        json_line({"path": into, "files": count, "bytes": total, "offset": offset})
    else:
        line(f"{into}: {count:,} files, {size(total)}, as of offset {offset}")
    return Exit.OK


async def _archive(found: Past, into: str) -> None:
    """It appears whole or not at all."""
    from cairn.runtime.workspace_exchange import export_tar

    if os.path.lexists(into):  # noqa: ASYNC240 - nothing else runs
        raise UsageError(f"{into} exists; files are exported into a new archive")
    partial = f"{into}.partial"
    try:
        with open(partial, "xb") as archive:  # noqa: ASYNC230 - nothing else runs
            await export_tar(found, archive)
        os.rename(partial, into)
    except FileExistsError:
        raise UsageError(f"{partial} exists: another export is writing it, or one was interrupted; remove it") from None
    except BaseException:
        os.unlink(partial)
        raise
