"""An instance's workspace as a real directory, and what became of the directory as changes of a draft.

Laws. The workspace is the truth and the directory a copy: before a command the directory is made equal to the draft, whatever a
command that was dropped has left in it; after the command what differs goes into the draft. A file is read or written only when
its content may differ: contents are compared by digest, and a digest is remembered for as long as inode, size and change time
are the same. A change time within the tick in which it was looked at proves nothing, so such a file is read again. No link is
followed (`beneath.py`). What is no file, directory or link is not kept. One user at a time: whoever has the workspace's turn.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import posixpath
import stat as modes
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from cairn.errors import SandboxError
from cairn.harness.sandbox.beneath import Places, create_beside

if TYPE_CHECKING:
    from cairn.runtime.files import Entry
    from cairn.runtime.workspace_draft import Draft

#: What is held of one file while it is copied.
PIECE_BYTES = 1 << 20

_KINDS = {"file": modes.S_ISREG, "directory": modes.S_ISDIR, "link": modes.S_ISLNK}


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """What there is at a path of the directory, and the digest of its content as far as it is known."""

    kind: str
    inode: int
    changed: int
    size: int
    mode: int
    modified: float
    target: str = ""
    digest: str = ""


class _Saved(msgspec.Struct, array_like=True):
    seen: dict[str, Seen]
    digests: dict[str, str]


class Mirror:
    """`directory` as a copy of a workspace. `state` is a file of ours beside it, which commands cannot reach; losing it costs
    a comparison of all contents. `root` is where commands see the directory."""

    def __init__(self, directory: str, state: str, root: str) -> None:
        self._directory = directory
        self._state = state
        self._root = root
        self._places = Places({root: directory})
        self._saved = _load(state)
        self._laid: dict[str, str] = {}
        """The digest of what the draft has at each path, since it was laid out."""
        self.copied = 0
        """Files written into the directory or read from it, for those who count."""

    def close(self) -> None:
        """What is known of the directory is kept for whoever opens it next. *Idempotent*."""
        self._places.close()
        temporary = f"{self._state}.tmp"
        with open(temporary, "wb") as file:
            file.write(msgspec.msgpack.encode(self._saved))
        os.replace(temporary, self._state)

    # ------------------------------------------------------------------ into the directory

    async def lay_out(self, draft: Draft) -> None:
        """The directory is as the draft: names, kinds, contents, modes and links. *Raises* OSError, SandboxError."""
        wanted = {entry.path[1:]: entry for entry in draft.walk("/")}
        seen = await asyncio.to_thread(self._cleared, wanted)
        identities: dict[str, str] = {}
        self._laid = {}
        for path, entry in wanted.items():
            await self._put(draft, path, entry, seen.get(path), identities)
        self._saved.digests = identities
        await asyncio.to_thread(self._settle, wanted)

    def _cleared(self, wanted: dict[str, Entry]) -> dict[str, Seen]:
        """What is left in the directory when all is gone that is not wanted, or not of this kind."""
        seen = self._look(force=True)
        kept: dict[str, Seen] = {}
        for path, there in seen.items():
            above = path.rpartition("/")[0]
            if above and above not in kept:
                continue
            if path in wanted and wanted[path].kind == there.kind:
                kept[path] = there
            else:
                self._places.remove(self._path(path))
        return kept

    async def _put(self, draft: Draft, path: str, entry: Entry, there: Seen | None, digests: dict[str, str]) -> None:
        if entry.kind == "link":
            target = self._outside(entry.target)
            if there is None or there.target != target:
                await asyncio.to_thread(self._link, path, target)
            return
        if entry.kind == "directory":
            if there is None:
                await asyncio.to_thread(self._mkdir, path)
        else:
            digest = self._laid[path] = await self._digest_of(draft, entry, digests)
            if there is None or await self._digest_at(path, there) != digest:
                await self._copy_out(draft, path, entry)

    async def _digest_of(self, draft: Draft, entry: Entry, digests: dict[str, str]) -> str:
        identity = draft.identity(entry.id)
        found = self._saved.digests.get(identity, "") if identity else ""
        if not found:
            digest = _digest()
            async for piece in draft.stream(entry.path):
                digest.update(piece)
            found = digest.hexdigest()
        if identity:
            digests[identity] = found
        return found

    async def _copy_out(self, draft: Draft, path: str, entry: Entry) -> None:
        self.copied += 1
        with self._places.find(self._path(path), follow=False, make=True) as found:
            assert found.parent is not None
            temporary, descriptor = create_beside(found.parent)
            with open(descriptor, "wb") as file:  # noqa: ASYNC230 - it is open; only writing may block
                async for piece in draft.stream(entry.path):
                    await asyncio.to_thread(file.write, piece)
            os.utime(temporary, (entry.mtime, entry.mtime), dir_fd=found.parent, follow_symlinks=False)
            os.replace(temporary, found.name, src_dir_fd=found.parent, dst_dir_fd=found.parent)

    def _link(self, path: str, target: str) -> None:
        with self._places.find(self._path(path), follow=False, make=True) as found:
            if found.entry is not None:
                os.unlink(found.name, dir_fd=found.parent)
            os.symlink(target, found.name, dir_fd=found.parent)

    def _mkdir(self, path: str) -> None:
        with self._places.find(self._path(path), follow=False, make=True) as found:
            if found.entry is None:
                os.mkdir(found.name, 0o700, dir_fd=found.parent)

    def _chmod(self, path: str, entry: Entry) -> None:
        with self._places.find(self._path(path), follow=False) as found:
            os.chmod(f"/proc/self/fd/{found.entry}", entry.mode)

    # ------------------------------------------------------------------ out of the directory

    async def take_in(self, draft: Draft) -> None:
        """The draft is as the directory. *Raises* WorkspaceError, WorkspaceFull, SandboxError (a name that no workspace can
        have, a directory that cannot be read); then a part of the changes may be in the draft."""
        there = {entry.path[1:]: entry for entry in draft.walk("/")}
        tick, seen = await asyncio.to_thread(lambda: (self._tick(), self._look()))
        for path in sorted(set(there) - set(seen), key=len):
            if draft.lstat("/" + path) is not None:
                await draft.remove("/" + path, recursive=True)
        for path, found in seen.items():
            entry = there.get(path)
            if entry is not None and entry.kind != found.kind:
                await draft.remove("/" + path, recursive=True)
                entry = None
            await self._take(draft, path, found, entry)
        self._note(tick, seen)

    async def _take(self, draft: Draft, path: str, found: Seen, entry: Entry | None) -> None:
        name = "/" + path
        if found.kind == "link":
            target = self._inside(path, found.target)
            if entry is None or entry.target != target:
                if entry is not None:
                    await draft.remove(name)
                await draft.symlink(target, name)
            return
        if found.kind == "directory":
            if entry is None:
                await draft.mkdir(name, mode=found.mode & 0o777)
        else:
            digest = await self._digest_at(path, found)
            if entry is None or self._laid.get(path) != digest:
                self.copied += 1
                await draft.write(name, self._pieces(path), mode=found.mode & 0o777)
                await draft.touch(name, mtime=found.modified)
                self._laid[path] = digest
                return
        if entry is not None and entry.mode != found.mode & 0o777:
            await draft.chmod(name, found.mode & 0o777)

    async def _pieces(self, path: str) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open, path)
        with file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    def _open(self, path: str) -> io.FileIO:
        """The file itself, whatever its name leads to later. *Raises* SandboxError."""
        with self._places.find(self._path(path), follow=False) as found:
            try:
                return io.FileIO(f"/proc/self/fd/{found.entry}", "rb")
            except PermissionError as error:
                raise SandboxError(f"{path} was made unreadable and cannot be kept; chmod it") from error

    # ------------------------------------------------------------------ looking

    def _look(self, *, force: bool = False) -> dict[str, Seen]:
        """Everything in the directory, a directory before what is in it. `force`: also what was closed to us, by opening it."""
        found: dict[str, Seen] = {}
        top = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._look_in(top, "", found, force)
        finally:
            os.close(top)
        return found

    def _look_in(self, folder: int, above: str, found: dict[str, Seen], force: bool) -> None:
        for name in sorted(os.listdir(folder)):
            path = f"{above}{name}"
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = next((kind for kind, test in _KINDS.items() if test(status.st_mode)), "")
            if not kind:
                continue
            target = os.readlink(name, dir_fd=folder) if kind == "link" else ""
            seen = Seen(
                kind, status.st_ino, status.st_ctime_ns, status.st_size, modes.S_IMODE(status.st_mode), status.st_mtime, target
            )
            found[path] = seen
            if kind == "directory":
                below = self._opened(name, folder, path, force)
                try:
                    self._look_in(below, path + "/", found, force)
                finally:
                    os.close(below)

    async def _digest_at(self, path: str, seen: Seen) -> str:
        """Of a file's content: as it is remembered, else by reading it."""
        known = self._saved.seen.get(path)
        proof = (seen.inode, seen.changed, seen.size)
        if known is not None and known.digest and (known.inode, known.changed, known.size) == proof:
            return known.digest
        return await asyncio.to_thread(self._read_digest, path)

    def _read_digest(self, path: str) -> str:
        digest = _digest()
        with self._open(path) as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def _opened(self, name: str, folder: int, path: str, force: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        if force:
            self._open_up(path)
        try:
            return os.open(name, flags, dir_fd=folder)
        except PermissionError as error:
            raise SandboxError(f"{path} was made unreadable, so what is in it cannot be kept; chmod it") from error

    def _open_up(self, path: str) -> None:
        with suppress(OSError), self._places.find(self._path(path), follow=False) as found:
            status = found.status()
            if status is not None and status.st_mode & 0o700 != 0o700:
                os.chmod(f"/proc/self/fd/{found.entry}", 0o700)

    def _settle(self, wanted: dict[str, Entry]) -> None:
        """Modes are as wanted, a directory's after those of what is in it; and all is noted."""
        tick, there = self._tick(), self._look()
        wrong = [path for path, seen in there.items() if seen.kind != "link" and seen.mode != wanted[path].mode]
        for path in reversed(wrong):
            self._chmod(path, wanted[path])
        if wrong:
            tick, there = self._tick(), self._look()
        self._note(tick, there)

    def _note(self, tick: int, there: dict[str, Seen]) -> None:
        """Remember what was seen after `tick`, with the digests of contents that cannot change any more without being seen."""
        self._saved.seen = {
            path: msgspec.structs.replace(seen, digest=self._laid[path]) if path in self._laid and seen.changed < tick else seen
            for path, seen in there.items()
        }

    def _tick(self) -> int:
        """The file system's present, by its own clock: the change time of a file that is changed now."""
        stamp = f"{self._state}.now"
        with open(stamp, "wb"):
            pass
        os.utime(stamp)
        return os.stat(stamp).st_ctime_ns

    # ------------------------------------------------------------------ names

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _outside(self, target: str) -> str:
        """Where a link of the workspace leads, as commands see it: what is absolute begins at the workspace."""
        return self._root + target if target.startswith("/") else target

    def _inside(self, path: str, target: str) -> str:
        """The same back. A link to the system (an interpreter, say) leads there by dots, and to nothing in the workspace."""
        if not target.startswith("/"):
            return target
        if target == self._root or target.startswith(self._root + "/"):
            return target[len(self._root) :] or "/"
        return posixpath.relpath(target, posixpath.dirname(self._path(path)))


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=20)


def _load(state: str) -> _Saved:
    try:
        with open(state, "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=_Saved)
    except (OSError, msgspec.MsgspecError):
        return _Saved({}, {})
