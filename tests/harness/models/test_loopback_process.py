"""The loopback provider outside of this event loop: as a process of its own, and on a thread."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from tests.harness.models.asking import SPECS, ask, request

from cairn.harness.models import resolve
from cairn.testing.providers import Reply, serve_in_thread


@pytest.mark.system
def test_a_person_can_try_without_a_key_by_pasting_what_the_process_prints() -> None:
    """P28: the printed variables alone send every protocol's client to the loopback provider."""
    command = [sys.executable, "-m", "cairn.testing.providers", "Same ", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    environ = {}
    while line := process.stdout.readline().strip():
        name, _, value = line.removeprefix("export ").partition("=")
        environ[name] = value

    async def main() -> None:
        for wire, spec in SPECS.items():
            model = resolve(spec, environ=environ)
            assert (await ask(model, request(wire))).text == "Same Same Same "
            await model.aclose()

    try:
        asyncio.run(main())
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_server_on_a_thread_serves_clients_of_any_event_loop_and_stops() -> None:
    """S3: one model used from two event loops, one after the other, opens its own connections in each."""
    with serve_in_thread([Reply.of("one"), Reply.of("two")]) as server:
        model = resolve(SPECS["anthropic"], environ=server.environ)

        async def main() -> str:
            answer = await ask(model, request("anthropic"))
            await model.aclose()
            return answer.text

        assert [asyncio.run(main()), asyncio.run(main())] == ["one", "two"]
        assert [asked.header("authorization") for asked in server.requests] == [["Bearer loopback"]] * 2
