"""X2: commands that take all there is get what they may have, and the host and the sandbox go on.

Method: see `bombs.py`. As root the kernel counts in control groups; as nobody there are none, and the worker watches.
"""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from tests.sandboxes import users
from tests.sandboxes.bombs import BOMBS, LIMITS, MB

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: apt-get install util-linux"),
]

#: Each bomb in each of these, except where the time is better spent: Landlock differs only in how processes are counted.
CASES = [
    *(("root", "bubblewrap", name) for name in BOMBS),
    *(("nobody", "bubblewrap", name) for name in BOMBS if name != "output"),
    ("root", "bubblewrap-alone", "memory"),
    *(("nobody", "landlock", name) for name in ("fork", "memory by many", "disk")),
]


@pytest.fixture(scope="module")
def asked(request: pytest.FixtureRequest) -> frozenset[tuple[str, str, str]]:
    """The bombs that this run is about: no other goes off."""
    mine = [item for item in request.session.items if item.path == Path(__file__) and isinstance(item, pytest.Function)]
    params = [item.callspec.params for item in mine if hasattr(item, "callspec")]
    return frozenset((each["user"], each["backend"], each["name"]) for each in params) | {("nobody", "bubblewrap", "time")}


@lru_cache(maxsize=4)
def found(user: str, backend: str, asked: frozenset[tuple[str, str, str]]) -> dict[str, Any]:
    names = [name for each, means, name in CASES if (each, means) == (user, backend) and (each, means, name) in asked]
    answers: dict[str, Any] = json.loads(users.run(user, "bombs.py", backend, *names).splitlines()[-1])
    return answers


def assert_bounded(name: str, got: dict[str, Any]) -> None:
    """What this bomb may have reached."""
    printed = got["output"]
    if name.startswith("fork"):
        # The supervisor's view: the processes of the sandbox, bubblewrap's two and the launcher.
        assert LIMITS.processes // 2 < got["most_processes"] <= LIMITS.processes + 5
    elif name == "memory":
        assert "after" in printed
        assert "GOT" not in printed.splitlines()
    elif name == "memory by many":
        survived = "after" in printed and printed.count("HAS") == 6 and not got["exit"] and "Killed" not in printed
        assert not survived, printed
    elif name in ("shared memory", "one large file", "a sparse file"):
        assert "Permission denied" in printed or "File size limit" in printed or "No space" in printed
    elif name == "disk":
        assert got["exit"] != 0
        assert "the sandbox's files take more than 64.0 MB" in printed
    elif name == "output":
        assert got["written"] == 10 * 1024 * MB
        assert got["grown"] < 64 * MB
    elif name == "processor":
        assert (got["exit"], got["timed_out"]) == (137, False)
    elif name == "time":
        assert got["timed_out"]
    else:
        assert "AT" in printed


@pytest.mark.parametrize(("user", "backend", "name"), CASES, ids=lambda value: str(value))
def test_a_bomb_is_contained_and_the_next_command_runs(
    user: str, backend: str, name: str, asked: frozenset[tuple[str, str, str]]
) -> None:
    """X2: bounded by the limit for it, and the sandbox is alive afterwards."""
    got = found(user, backend, asked)[name]

    assert_bounded(name, got)
    assert got["again"] == "alive\n"


def test_what_keeps_a_limit_is_told(asked: frozenset[tuple[str, str, str]]) -> None:
    """X2: nobody has to guess whether the kernel counts or the worker watches."""
    assert found("nobody", "bubblewrap", asked)["time"]["kept"] == {
        "memory": "watched",
        "processes": "together",
        "cpus": "not",
        "disk": "watched",
    }
