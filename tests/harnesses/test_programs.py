"""The example programs of other harnesses, as somebody runs them: with the library's own way to its provider, and no key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.harnesses.shops import EXAMPLES, LIBRARIES

from cairn.testing.providers import Call, ProviderRequest, Reply, Say, serve_in_thread

#: Lines of an adapter that is to be read in one sitting.
LINES_MAX = 150

pytestmark = pytest.mark.system


def sell(request: ProviderRequest) -> Reply:
    match sum(entry.role == "tool" for entry in request.entries):
        case 0:
            return Reply.of(Say("Let me ", "look."), Call("price", {"item": "lamp"}, id="call_price"))
        case 1:
            return Reply.of(Call("charge", {"amount": 40}, id="call_charge"))
        case _:
            return Reply.of(Say("It is ", "yours."))


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_program_shows_the_answer_and_asks_nobody_when_it_is_run_again(library: str, tmp_path: Path) -> None:
    """S6, S7: the same words are the same work, in another process."""
    source = str(EXAMPLES.parent / "src")

    with serve_in_thread(sell) as server:
        runs = [
            subprocess.run(
                [sys.executable, str(EXAMPLES / f"{library}_harness" / "chat.py"), "Order a lamp."],
                cwd=tmp_path,
                env={**os.environ, **server.environ, "PYTHONPATH": source, "PYTHONWARNINGS": "ignore"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            for _ in range(2)
        ]

    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr + runs[1].stderr
    shown, again = (run.stdout for run in runs)
    assert shown.startswith("Let me look.[price: 40]\n[charge: charged 40, payment ")
    assert shown.endswith("It is yours.\n=> It is yours.\n")
    assert again == "\n=> It is yours.\n"
    assert server.answered == 3


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_adapter_is_short(library: str) -> None:
    """It is to be copied, read and changed."""
    assert len((EXAMPLES / f"{library}_harness" / "adapter.py").read_text().splitlines()) < LINES_MAX
