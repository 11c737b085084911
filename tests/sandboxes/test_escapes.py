"""X2: what a hostile command tries against the real kernel, as root and as nobody, with bubblewrap and with Landlock.

Method: see `escapes.py`. One program per user and means tries everything; each test judges one attempt in all four.
"""

from __future__ import annotations

import json
import re
import shutil
from functools import lru_cache
from pathlib import Path

import pytest
from tests.sandboxes import users
from tests.sandboxes.escapes import ATTEMPTS, Attempt

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed: apt-get install bubblewrap"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: apt-get install util-linux"),
]


@pytest.fixture(scope="module")
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The attempts that this run is about: nothing else is tried."""
    mine = (item for item in request.session.items if item.path == Path(__file__) and isinstance(item, pytest.Function))
    return tuple(dict.fromkeys(item.callspec.params["attempt"].name for item in mine))


@lru_cache(maxsize=6)
def found(user: str, kind: str, backend: str, names: tuple[str, ...]) -> dict[str, str]:
    """What each attempt printed."""
    answers: dict[str, str] = json.loads(users.run(user, "escapes.py", kind, backend, *names).splitlines()[-1])
    return answers


def got(printed: str) -> list[str]:
    return re.findall(r"^GOT.*", printed, re.MULTILINE)


@pytest.mark.parametrize("user", users.USERS)
@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.name)
def test_an_isolated_command_does_not_reach(attempt: Attempt, user: str, names: tuple[str, ...]) -> None:
    """X2: it comes to its end, and reaches nothing."""
    for backend in attempt.backends:
        printed = found(user, "isolated", backend, names)[attempt.name]

        assert not got(printed), f"{backend}: {printed}"
        assert "TRIED" in printed, f"{backend}: the attempt itself broke: {printed}"


@pytest.mark.parametrize("attempt", [each for each in ATTEMPTS if each.works_without], ids=lambda attempt: attempt.name)
def test_without_isolation_the_attempt_gets_through(attempt: Attempt, names: tuple[str, ...]) -> None:
    """X2: so that the test above can fail."""
    assert got(found("nobody", "local", "bubblewrap", names)[attempt.name])
