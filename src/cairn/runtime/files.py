"""The vocabulary of an instance's files: what a node is, what one change of it says, which names and sizes there may be.

Laws. Pure. A tree is nodes by number, each naming its parent: so a directory is renamed by changing one node, whatever is below
it. A change holds the new values of one node and nothing else; the changes of one record are a set, not a sequence. A path is
text with `/`; what a name may be is decided here, once, for all who make one (S13).
"""

from __future__ import annotations

import errno
from typing import Literal, NoReturn

import msgspec

from cairn.errors import WorkspaceError, WorkspaceFull

Kind = Literal["file", "directory", "link"]

#: The number of the root directory. It has no record: every workspace has it.
ROOT = 1

#: Bytes of a name and of a path, and links that one path may lead through: Linux's limits, because files come from there
#: and go there.
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4_095
LINKS_MAX = 40

#: Directories above each other. What walks a tree does so without recursion, but what receives an export (tar, rm) may not.
DEPTH_MAX = 256

#: Content is cut into pieces of this size: what is held in memory at once, and what two large files can share.
CHUNK_BYTES = 1 << 20

#: Content up to this size is written into the record itself, so that a small write is one commit; most source files.
INLINE_BYTES_MAX = 16 << 10

#: Permissions of what is made without saying which; no other bits exist: a workspace has no owner, and runs nothing.
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755
LINK_MODE = 0o777
MODE_MASK = 0o777


class Content(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a file's bytes are: in chunks of the store, or in the record that wrote them."""

    chunks: tuple[str, ...] = ()
    """Hashes of its pieces, in order. With `start`, one chunk shared by several small files."""
    start: int = 0
    manifest: str = ""
    """The hash of a list of its pieces, when they are many."""
    ordinal: int = -1
    """The batch whose record holds it, under node `id`."""
    id: int = 0


class Node(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file, a directory or a link. Its number is its identity for as long as it exists, whatever it is called."""

    id: int
    parent: int
    name: str
    kind: Kind
    mode: int
    mtime: float
    size: int = 0
    content: Content | None = None
    target: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The new values of one node; what is not said stays."""

    id: int
    kind: Kind | None = None
    """It is new."""
    parent: int | None = None
    name: str | None = None
    """It is here now: made here, or moved with all that is in it."""
    mode: int | None = None
    mtime: float | None = None
    target: str | None = None
    size: int | None = None
    """Its content is new: `text` or `data` if it is short, else where its bytes are. Neither: it is empty."""
    text: str | None = None
    data: bytes | None = None
    chunks: tuple[str, ...] = ()
    start: int = 0
    manifest: str = ""
    ordinal: int = -1
    of: int = 0
    """Content that another record holds, of batch `ordinal`, under node `of`."""
    gone: bool = False
    """It is removed, with all that is still in it."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What there is at a path."""

    path: str
    kind: Kind
    size: int
    mode: int
    mtime: float
    id: int
    """Stays the same when it is renamed or written to."""
    target: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_file(self) -> bool:
        return self.kind == "file"

    @property
    def is_directory(self) -> bool:
        return self.kind == "directory"

    @property
    def is_link(self) -> bool:
        return self.kind == "link"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much an instance may keep. What is over it is refused, whole, with an error that says by how much."""

    bytes: int = 1 << 30
    """Of all files as they are now (1 GB, as a small virtual machine's disk)."""
    files: int = 100_000
    """Files, directories and links (a checked-out Linux kernel has 90,000)."""
    history: int = 10 << 30
    """Of everything ever written: what was replaced can still be read as of then, so it is still there (10 GB)."""


# --- errors ---------------------------------------------------------------------------------------------------------


class NoSuchFile(WorkspaceError, FileNotFoundError):
    """ENOENT."""


class FileExists(WorkspaceError, FileExistsError):
    """EEXIST."""


class IsDirectory(WorkspaceError, IsADirectoryError):
    """EISDIR."""


class NotDirectory(WorkspaceError, NotADirectoryError):
    """ENOTDIR."""


_CLASSES: dict[int, type[WorkspaceError]] = {
    errno.ENOENT: NoSuchFile,
    errno.EEXIST: FileExists,
    errno.EISDIR: IsDirectory,
    errno.ENOTDIR: NotDirectory,
    errno.EDQUOT: WorkspaceFull,
}


#: What Linux says, on every machine.
_TEXTS: dict[int, str] = {
    errno.ENOENT: "No such file or directory",
    errno.EEXIST: "File exists",
    errno.EISDIR: "Is a directory",
    errno.ENOTDIR: "Not a directory",
    errno.ENOTEMPTY: "Directory not empty",
    errno.EINVAL: "Invalid argument",
    errno.EBUSY: "Device or resource busy",
    errno.ELOOP: "Too many levels of symbolic links",
    errno.ENAMETOOLONG: "File name too long",
    errno.EILSEQ: "Invalid or incomplete multibyte or wide character",
    errno.EXDEV: "Invalid cross-device link",
    errno.EDQUOT: "Disk quota exceeded",
}


def error(number: int, path: str, detail: str = "") -> WorkspaceError:
    """The error a file system would raise: with its errno, as a subclass of the OSError Python has for it."""
    text = _TEXTS.get(number, errno.errorcode.get(number, "error")) + (f" ({detail})" if detail else "")
    return _CLASSES.get(number, WorkspaceError)(number, text, path)


def fail(number: int, path: str, detail: str = "") -> NoReturn:
    raise error(number, path, detail)


# --- names ----------------------------------------------------------------------------------------------------------


def check_name(name: str, path: str) -> str:
    """The name, when a node may have it. Raises WorkspaceError."""
    if name in ("", ".", ".."):
        fail(errno.EINVAL, path, f"a file cannot be called {name!r}")
    check_text(name, path)
    if "/" in name:
        fail(errno.EINVAL, path, "a name cannot contain '/'")
    if len(name) > NAME_BYTES_MAX or len(name.encode()) > NAME_BYTES_MAX:
        fail(errno.ENAMETOOLONG, path[:NAME_BYTES_MAX], f"a name has at most {NAME_BYTES_MAX} bytes")
    return name


def check_text(text: str, path: str) -> None:
    """It has no NUL and can be written as UTF-8. Raises WorkspaceError."""
    if "\0" in text:
        fail(errno.EINVAL, path.replace("\0", "\\0"), "a name cannot contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        fail(errno.EILSEQ, path.encode("utf-8", "backslashreplace").decode(), "not text that UTF-8 can hold")


def split(path: str) -> list[str]:
    """The components of a path. `.` and `..` are kept: what came before has to be a directory, and a link may have come
    before. Raises WorkspaceError."""
    if not isinstance(path, str):
        raise TypeError(f"a path of the workspace is text, not {type(path).__name__}")
    if not path:
        fail(errno.ENOENT, path, "the path is empty")
    check_text(path, path)
    if len(path) > PATH_BYTES_MAX or len(path.encode()) > PATH_BYTES_MAX:
        fail(errno.ENAMETOOLONG, path[:64] + "…", f"a path has at most {PATH_BYTES_MAX} bytes")
    parts = [part for part in path.split("/") if part]
    for part in parts:
        if part not in (".", ".."):
            check_name(part, path)
    return parts


def check_target(target: str, path: str) -> str:
    """The target of a link, as text; it need not lead anywhere. Raises WorkspaceError."""
    if not target:
        fail(errno.ENOENT, path, "a link needs a target")
    check_text(target, path)
    if len(target.encode()) > PATH_BYTES_MAX:
        fail(errno.ENAMETOOLONG, path, f"a link's target has at most {PATH_BYTES_MAX} bytes")
    return target
