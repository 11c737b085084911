"""The examples, killed with signal 9 wherever they are, and run again until they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

PATIENCE_SECONDS = 60.0


def run_until_it_ends(name: str, folder: Path, diary: str, kills: list[int]) -> tuple[str, Counter[str], int]:
    """Its last words, what it did, and how often it was killed: when its diary has so many lines."""
    killed = 0
    for lines in [*kills, None]:
        program = subprocess.Popen(
            [sys.executable, EXAMPLES / name], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        end = time.monotonic() + PATIENCE_SECONDS
        while lines is not None and program.poll() is None and time.monotonic() < end:
            if (folder / diary).exists() and len((folder / diary).read_text().splitlines()) >= lines:
                program.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.002)
        words, _ = program.communicate(timeout=PATIENCE_SECONDS)
    assert program.returncode == 0, words
    return words, Counter((folder / diary).read_text().splitlines()), killed


@pytest.mark.system
@pytest.mark.parametrize("kills", [[1, 6, 14, 16, 17], [3, 11, 18, 19]], ids=str)
def test_the_analyst_survives_kill_9_in_the_middle_of_its_program(kills: list[int], tmp_path: Path) -> None:
    """S8, S9: what is safe may be read again when nobody knows, a note and the mail are made once, the answer is one."""
    words, diary, killed = run_until_it_ends("analyst.py", tmp_path, "analyst.log", kills)
    assert killed >= 3
    assert words.endswith("The best shop is shop-15.\n")
    assert diary["mail board@example.com: Best shop: shop-15"] <= 1
    assert all(count == 1 for line, count in diary.items() if line.startswith(("note", "mail")))
    assert sum(1 for line in diary if line.startswith("read")) == 15
    assert sum(diary.values()) <= 15 + 4 + killed * 5


@pytest.mark.system
@pytest.mark.parametrize("kills", [[1, 2, 3]], ids=str)
def test_the_onboarding_survives_kill_9(kills: list[int], tmp_path: Path) -> None:
    """S8, S9: the keyed call keeps its key; a mail that nobody knows of is not sent again."""
    words, diary, killed = run_until_it_ends("onboarding.py", tmp_path, "onboarding.log", kills)
    assert killed >= 2
    assert "completed" in words or "OutcomeUnknown" in words, words
    assert len({line for line in diary if line.startswith("open")}) == 1, "one key"
    assert all(count == 1 for line, count in diary.items() if line.startswith("mail"))
