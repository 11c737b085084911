"""A real OpenSSH server on loopback, with keys of its own, for one test module."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Whom the server lets in besides whoever runs it: an account that exists only in the server's own mount namespace.
GUEST, GUEST_ID = "guest", 64_321


@dataclass(frozen=True)
class Server:
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        return str(self.folder / "key")

    @property
    def known_hosts(self) -> str:
        return str(self.folder / "known_hosts")


@contextmanager
def sshd() -> Iterator[Server]:
    """Runs as root where the tests do, with a guest account beside it; else as whoever runs them."""
    with tempfile.TemporaryDirectory(prefix="cairn-sshd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for key in ("host", "key", "other"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        (folder / "authorized").write_text((folder / "key.pub").read_text())
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        (folder / "wrong_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'other.pub').read_text()}")
        (folder / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\nMaxSessions 50\n"
            "Subsystem sftp internal-sftp\nLogLevel ERROR\n"
        )
        process = subprocess.Popen(_argv(folder), stderr=subprocess.PIPE)
        try:
            _wait(port, process)
            yield Server(port, folder, process)
        finally:
            process.terminate()
            process.wait()


def _argv(folder: Path) -> list[str]:
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "config")]
    if os.geteuid() != 0:
        return command
    home = folder / "home"
    home.mkdir()
    os.chown(home, GUEST_ID, GUEST_ID)
    (folder / "passwd").write_text(f"{Path('/etc/passwd').read_text()}{GUEST}:x:{GUEST_ID}:{GUEST_ID}::{home}:/bin/sh\n")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return ["unshare", "-m", "sh", "-c", f"mount --bind {folder}/passwd /etc/passwd && exec {shlex.join(command)}"]


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, process.stderr and process.stderr.read()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise AssertionError("sshd does not listen")
