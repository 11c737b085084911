"""What a sandbox says of itself is so: isolation, network, and that files are found again. Judged where it says something."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from pathlib import Path

from cairn.harness.sandbox.protocol import Capabilities, Place, Sandbox
from cairn.testing.sandbox.case import Case, furnished, quoted


def capabilities_of(sandbox: Sandbox) -> Capabilities | None:
    """What the sandbox says of itself; None if it says nothing."""
    said = getattr(sandbox, "capabilities", None)
    return said if isinstance(said, Capabilities) else None


class CapabilityCases(Case):
    """What `Capabilities` promises, as far as one machine can tell."""

    def test_isolated_commands_do_not_see_the_hosts_files_and_environment(self) -> None:
        """A file by its path and by dots; a variable of the worker. Without isolation both are there to be seen."""
        with tempfile.TemporaryDirectory(prefix="cairn-host-") as name:
            secret = Path(name, "secret")
            secret.write_text("of-the-host")

            async def body(sandbox: Sandbox) -> None:
                said = capabilities_of(sandbox)
                if said is None or said.isolation == "machine":
                    return
                result = await sandbox.exec(f"cat {quoted(str(secret))} ../../../../../../../../..{quoted(str(secret))}; true")
                assert (b"of-the-host" in result.output) == (said.isolation == "none")
                assert b"of-the-worker" not in (await sandbox.exec("env; cat /proc/*/environ 2>/dev/null; true")).output or (
                    said.isolation == "none"
                )

            os.environ["CAIRN_TEST_WORKER_SECRET"] = "of-the-worker"
            try:
                self.judge(body)
            finally:
                del os.environ["CAIRN_TEST_WORKER_SECRET"]

    def test_a_sandbox_without_a_network_reaches_nothing(self) -> None:
        """Not even this machine, by address; one that has the host's network does."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

            async def body(sandbox: Sandbox) -> None:
                said = capabilities_of(sandbox)
                if said is None or said.isolation == "machine" or said.network == "listed":
                    return
                command = f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo reached"
                reached = (await sandbox.exec(f"bash -c {quoted(command)}", timeout_seconds=20)).output == b"reached\n"
                assert reached == (said.network == "host")

            self.judge(body)


class ReattachCases(Case):
    """What `keeps_files` promises. Needs `factory`."""

    def test_files_are_found_again_by_whoever_opens_it_next(self) -> None:
        """Closed and opened again for the same instance, with nothing but what was remembered."""

        async def main() -> None:
            with tempfile.TemporaryDirectory(prefix="cairn-sandbox-") as name:
                directory = furnished(name)
                remembered: list[bytes] = []

                async def remember(value: bytes) -> None:
                    remembered.append(value)

                factory, private = self.factory(directory), str(directory / "private")
                for turn in range(2):
                    recall = remembered[-1] if remembered else None
                    place = Place("tenant", "uid", None, recall, remember)
                    sandbox = await factory.open("test/sandbox", private, place)
                    said = capabilities_of(sandbox)
                    if said is not None and not said.keeps_files:
                        await sandbox.close()
                        return
                    if turn == 0:
                        await sandbox.exec("mkdir -p folder; echo kept > folder/file; chmod 750 folder/file")
                    else:
                        assert (await sandbox.exec("cat folder/file")).output == b"kept\n"
                        info = await sandbox.stat("folder/file")
                        assert info is not None
                        assert info.mode & 0o777 == 0o750
                    await sandbox.close()

        asyncio.run(main())
