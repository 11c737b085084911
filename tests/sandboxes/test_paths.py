"""X1: no path leads file operations of a sandbox out of its files, whatever the path is and whoever changes links meanwhile.

Method: a directory of files with every kind of trap in it, beside a host directory with a secret. Each path is read, written,
listed, looked at, resolved and removed; afterwards the host directory is as it was, and nothing of it was told.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cairn.errors import SandboxError
from cairn.harness.sandbox.beneath import LINKS_MAX, Places

SECRET = b"the-secret-of-the-host"

#: Swaps of a link that race with file operations; promised are 10,000.
TRIES = int(os.environ.get("CAIRN_TEST_SWAPS", "10000"))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    for name in ("files", "outside/folder", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    (tmp_path / "outside" / "folder" / "inner").write_bytes(SECRET)
    (tmp_path / "files" / "here").write_bytes(b"here")
    (tmp_path / "files" / "folder").mkdir()
    (tmp_path / "files" / "folder" / "inner").write_bytes(b"inner")
    return tmp_path


@pytest.fixture
def places(host: Path) -> Iterator[Places]:
    made = Places({"/workspace": str(host / "files"), "/tmp": str(host / "tmp")})
    yield made
    made.close()


def traps(host: Path) -> None:
    """Links in the files that a hostile command could make, and some it could not."""
    files, outside = host / "files", host / "outside"
    for name, target in {
        "to-secret": outside / "secret",
        "to-outside": outside,
        "to-root": "/",
        "to-etc": "/etc",
        "up": "..",
        "up-up": "../..",
        "by-dots": "../outside/secret",
        "by-proc": "/proc/self/root" + str(outside / "secret"),
        "by-cwd": "/proc/self/cwd",
        "by-fd": "/proc/self/fd",
        "by-proc-root": "/proc/1/root",
        "to-dangling": outside / "made-by-a-link",
        "loop": "loop",
        "chain-1": "chain-2",
        "chain-2": str(outside / "secret"),
        "folder/deep": "../../outside/folder",
        "to-workspace-dots": "/workspace/../../../../" + str(outside / "secret"),
        "to-tmp-dots": "/tmp/../" + str(outside / "secret"),
    }.items():
        (files / name).symlink_to(target)
    os.mkfifo(files / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(files)  # the path of a socket is short
    try:
        listener.bind("socket")
    finally:
        os.chdir(here)
        listener.close()


def paths(host: Path) -> list[str]:
    """Every spelling, for a secret at an absolute path."""
    out = str(host / "outside")
    dots = "../" * 30
    return [
        f"{out}/secret", f"/{out}/secret", f"//{out}//secret", f"/./{out}/./secret", f"/workspace/{dots}{out}/secret",
        "/workspace/../outside/secret", "/workspace/folder/../../outside/secret", "/workspace/./../outside/secret",
        "/workspace//..//outside//secret", "/workspace/../../outside/secret", "/workspace/..", "/", "/..", "/workspace/../..",
        "/workspace/here/../../outside/secret", "/workspace/missing/../../outside/secret", "/tmp/../outside/secret",
        "/workspace/to-secret", "/workspace/to-outside/secret", "/workspace/to-outside/folder/inner", "/workspace/to-outside",
        f"/workspace/to-root{out}/secret", "/workspace/to-root", "/workspace/to-etc/passwd", "/workspace/up/outside/secret",
        "/workspace/up-up", "/workspace/by-dots", "/workspace/by-proc", f"/workspace/by-cwd/{out}/secret", "/workspace/by-cwd",
        "/workspace/by-fd", "/workspace/by-fd/0", f"/workspace/by-proc-root{out}/secret", "/workspace/to-dangling",
        "/workspace/chain-1", "/workspace/folder/deep/inner", "/workspace/folder/deep", "/workspace/to-workspace-dots",
        "/workspace/to-tmp-dots", "/workspace/to-secret/", "/workspace/to-outside/", "/workspace/to-outside/.",
        "/workspace/to-outside/..", "/workspace/to-outside/../outside/secret", "/workspace/folder/deep/../secret",
        "/proc/self/root/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/dev/null", "/dev/zero", "/etc/passwd",
        "/workspace/here/", "/workspace/here/x", "/workspace2/here", "/workspac", "/WORKSPACE/here", "/tmpfile",
        "/workspace/..%2f..%2foutside/secret", "/workspace/\u2025/outside/secret", "/workspace/．．/outside/secret",
        "/workspace/..\\..\\outside\\secret", "/workspace/loop", "/workspace/loop/x", "/workspace/pipe", "/workspace/socket",
        "/workspace/" + "a/" * 2100 + "x", "/workspace/" + "n" * 300, "~/secret", "", ".", "..",
    ]  # fmt: skip


def attempt(work: Callable[[], object]) -> object:
    """What an operation answers; the ways in which it may refuse count as nothing."""
    try:
        return work()
    except (OSError, SandboxError, RecursionError):
        return None


def exchange(one: Path, other: Path) -> None:
    """Two names change places at once (renameat2)."""
    here, exchange = -100, 2
    if ctypes.CDLL(None, use_errno=True).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def snapshot(host: Path) -> dict[str, bytes]:
    outside = host / "outside"
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(outside.rglob("*"))}


def test_there_are_sixty_paths(tmp_path: Path) -> None:
    """X1: as many as promised."""
    assert len(set(paths(tmp_path))) >= 60


@pytest.mark.parametrize("number", range(70))
def test_no_path_leads_outside(host: Path, places: Places, number: int) -> None:
    """X1: reading, listing, looking, resolving, writing and removing, in that order, by one path."""
    traps(host)
    path = paths(host)[number % len(paths(host))]
    before = snapshot(host)
    passwd = Path("/etc/passwd").read_bytes()

    told = [
        attempt(lambda: places.read(path, 0, None)),
        attempt(lambda: [entry.path for entry in places.entries(path)]),
        attempt(lambda: places.stat(path)),
        attempt(lambda: places.real_path(path)),
    ]
    attempt(lambda: places.replace(path, b"changed"))
    attempt(lambda: places.remove(path))

    assert snapshot(host) == before
    assert Path("/etc/passwd").read_bytes() == passwd
    assert told[0] in (None, b"here", b"inner", b"")
    names = {os.path.basename(name) for name in told[1] or []}  # type: ignore[union-attr]
    assert not names & {"secret", "shadow", "passwd", "outside", "root"}
    real = told[3]
    assert real is None or str(real).startswith(("/workspace", "/tmp"))


def test_every_operation_reaches_what_is_inside(host: Path, places: Places) -> None:
    """X1: so that refusing everything is not how the test above passes."""
    files = host / "files"
    (files / "link").symlink_to("/workspace/folder/../here")
    (files / "to-tmp").symlink_to("/tmp/scratch")
    places.replace("/workspace/a/b/c", b"deep")
    places.replace("/workspace/to-tmp", b"scratch")

    assert places.read("/workspace/link", 0, None) == b"here"
    assert places.read("/workspace/../workspace/a/./b//c", 0, None) == b"deep"
    assert (host / "tmp" / "scratch").read_bytes() == b"scratch"
    assert places.real_path("/workspace/link") == "/workspace/here"
    assert [entry.path for entry in places.entries("/workspace/a")] == ["/workspace/a/b"]
    places.remove("/workspace/a")
    assert not (files / "a").exists()
    with pytest.raises(SandboxError, match="remove what is in it"):
        places.remove("/workspace")


def test_as_many_links_as_the_kernel_follows_are_followed(host: Path, places: Places) -> None:
    """X1: 40 are; one more is an error, and no endless walk."""
    files = host / "files"
    for number in range(LINKS_MAX + 1):
        (files / f"l{number}").symlink_to("here" if number == 0 else f"l{number - 1}")

    assert places.read(f"/workspace/l{LINKS_MAX - 1}", 0, None) == b"here"
    with pytest.raises(OSError, match="too many links"):
        places.read(f"/workspace/l{LINKS_MAX}", 0, None)


def test_a_hard_link_to_a_host_file_is_parted_from_it_by_writing(host: Path, places: Places) -> None:
    """X1: whoever may write the host's directory may have put one here; the host's file keeps its content."""
    os.link(host / "outside" / "secret", host / "files" / "hard")

    places.replace("/workspace/hard", b"changed")

    assert (host / "outside" / "secret").read_bytes() == SECRET
    assert (host / "files" / "hard").read_bytes() == b"changed"


def test_a_set_user_id_bit_does_not_survive_writing(host: Path, places: Places) -> None:
    """X1: a program that the worker writes for an agent never runs as the worker's user."""
    (host / "files" / "here").chmod(0o6755)

    places.replace("/workspace/here", b"#!/bin/sh\n")

    assert (host / "files" / "here").stat().st_mode & 0o7777 == 0o755


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["a link for a directory", "a link for a file", "a directory moved away"])
def test_links_swapped_during_an_operation_lead_nowhere(host: Path, places: Places, kind: str) -> None:
    """X1: 10,000 tries of a race between file operations and whoever swaps what they walk through."""
    files, outside = host / "files", host / "outside"
    before = snapshot(host)
    (host / "tmp" / "moved").mkdir()
    stop = threading.Event()
    swapped = 0

    def swap() -> None:
        nonlocal swapped
        (files / "trap").symlink_to(outside if "directory" in kind else outside / "secret")
        while not stop.is_set():
            if kind == "a directory moved away":
                exchange(files / "folder", host / "tmp" / "moved")
            else:
                exchange(files / "trap", files / ("folder" if "directory" in kind else "here"))
            swapped += 1

    swapper = threading.Thread(target=swap)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # or each try would wait its turn for a thousand swaps
    swapper.start()
    read = set()
    try:
        for number in range(TRIES):
            path = "/workspace/here" if kind == "a link for a file" else "/workspace/folder/inner"
            if kind == "a directory moved away":
                path = "/workspace/folder/../../outside/secret" if number % 2 else path
            read.add(attempt(lambda path=path: places.read(path, 0, None)))  # type: ignore[misc]
            if number % 20 == 0:
                attempt(lambda path=path: places.replace(path, b"inner"))  # type: ignore[misc]
            attempt(lambda path=path: places.stat(path))  # type: ignore[misc]
    finally:
        stop.set()
        swapper.join()
        sys.setswitchinterval(interval)

    assert swapped > 100
    assert snapshot(host) == before
    assert read <= {None, b"here", b"inner"}
    assert read - {None}, "nothing was ever read"
