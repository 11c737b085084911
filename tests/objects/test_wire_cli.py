"""What the command line shows of durable objects."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.framework.shell import Shell

SITE = "from cairn import App\nfrom rooms import CLASSES\n\napp = App(objects=CLASSES)\nnothing = 3\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    made = Shell(tmp_path, monkeypatch, capsys)
    shutil.copy(Path(__file__).with_name("rooms.py"), tmp_path)
    made.write("site_app.py", SITE)
    before = list(sys.path)
    yield made
    sys.path[:] = before
    for name in ("site_app", "rooms"):
        sys.modules.pop(name, None)


def test_info_shows_an_apps_objects(shell: Shell) -> None:
    """Kind, state, and what may be called, offline and without making one."""
    done = shell.cairn("info", "site_app:app")

    assert (done.code, done.err) == (0, "")
    for part in (
        "room  (rooms.py:", "A counter and what is said in it.", "state         count, names", "add(by: int = 1) -> int",
        "[read only]", "[stream]", "hooks         readonly, protocol, on_message", "my-e2-e-thing",
    ):  # fmt: skip
        assert part in done.out
    assert "hidden" not in done.out.partition("desk  (")[0]
    assert not (shell.folder / ".cairn").exists()


def test_info_shows_objects_to_programs(shell: Shell) -> None:
    found = json.loads(shell.cairn("info", "site_app:app", "--json").out)

    rooms = {each["kind"]: each for each in found["objects"]}
    assert list(rooms) == ["room", "desk", "hall", "club", "my-e2-e-thing"]
    add, *_ = rooms["room"]["callables"]
    assert add == {
        "name": "add",
        "signature": "(by: int = 1) -> int",
        "stream": False,
        "read_only": False,
        "timeout_seconds": 30.0,
    }
    assert shell.cairn("check", "site_app:app").out == "ok: room, desk, hall, club, my-e2-e-thing\n"


def test_what_is_no_app_is_said_so(shell: Shell) -> None:
    assert "is a int" in shell.cairn("info", "site_app:nothing").err
    assert "there is no module 'elsewhere'" in shell.cairn("info", "elsewhere:app").err
